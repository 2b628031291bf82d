"""Constants of the Linux ABI (x86-64), by their C names: ``<sys/ipc.h>``, ``<sys/msg.h>`` and friends.

A leaf: numbers only. ``ipc`` hands them to the host, ``syscall_gate.spec`` reads them by name.
"""

IPC_PRIVATE = 0
IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_NOWAIT = 0o4000

IPC_RMID = 0
IPC_SET = 1
IPC_STAT = 2
IPC_INFO = 3

MSG_NOERROR = 0o10000
MSG_EXCEPT = 0o20000
MSG_COPY = 0o40000

MSG_STAT = 11
MSG_INFO = 12
MSG_STAT_ANY = 13

#: ``clone(2)``: unshare the list of SEM_UNDO adjustments.
CLONE_SYSVSEM = 0x00040000

#: poll(2)
POLL_EVENTS = {"POLLIN": 0x1, "POLLPRI": 0x2, "POLLOUT": 0x4, "POLLRDNORM": 0x40, "POLLWRNORM": 0x100}

CLOCKS = {
    "CLOCK_REALTIME": 0,
    "CLOCK_MONOTONIC": 1,
    "CLOCK_PROCESS_CPUTIME_ID": 2,
    "CLOCK_THREAD_CPUTIME_ID": 3,
    "CLOCK_MONOTONIC_RAW": 4,
    "CLOCK_REALTIME_COARSE": 5,
    "CLOCK_MONOTONIC_COARSE": 6,
    "CLOCK_BOOTTIME": 7,
    "CLOCK_REALTIME_ALARM": 8,
    "CLOCK_BOOTTIME_ALARM": 9,
    "CLOCK_TAI": 11,
}
