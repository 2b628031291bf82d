"""What differs from machine to machine, said once: numbers of raw system calls, flags of open(2), a structure.

``x86_64`` is what everything here is run and tested on. ``aarch64`` is from the kernel's headers and was not run. No
other machine is served: ``refusal`` says so before anything is mounted. The numbers that users write at the gate are
x86-64's everywhere (``syscall_gate.numbers``).
"""

import platform
from collections.abc import Mapping
from typing import NamedTuple


class Arch(NamedTuple):
    """One machine."""

    #: Numbers of the calls that libc does not wrap, or not for one thread alone, and of those that /proc tells of.
    calls: Mapping[str, int]
    #: Flags of open(2) whose values are not the same everywhere.
    open_flags: Mapping[str, int]
    #: ``struct semid64_ds`` behind its ``ipc64_perm``, as ``structs.Layout`` takes it.
    semid_ds: Mapping[str, str]


#: Calls added since 2011 have one number on all machines.
_EVERYWHERE = {
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "openat2": 437,
    "pidfd_getfd": 438,
    "faccessat2": 439,
}

MACHINES = {
    "x86_64": Arch(
        calls={
            **_EVERYWHERE,
            "read": 0,
            "write": 1,
            "readv": 19,
            "writev": 20,
            "semop": 65,
            "msgsnd": 69,
            "msgrcv": 70,
            "setgroups": 116,
            "setresuid": 117,
            "setresgid": 119,
            "capset": 126,
            "futex": 202,
            "getdents64": 217,
            "semtimedop": 220,
            "tgkill": 234,
            "mq_timedsend": 242,
            "mq_timedreceive": 243,
            "mq_notify": 244,
            "unshare": 272,
        },
        open_flags={"O_DIRECT": 0o40000, "O_LARGEFILE": 0o100000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000},
        semid_ds={"otime": "l", "_1": "8x", "ctime": "l", "_2": "8x", "nsems": "L", "_3": "16x"},
    ),
    "aarch64": Arch(
        calls={
            **_EVERYWHERE,
            "read": 63,
            "write": 64,
            "readv": 65,
            "writev": 66,
            "semop": 193,
            "msgsnd": 189,
            "msgrcv": 188,
            "setgroups": 159,
            "setresuid": 147,
            "setresgid": 149,
            "capset": 91,
            "futex": 98,
            "tgkill": 131,
            "getdents64": 61,
            "semtimedop": 192,
            "mq_timedsend": 182,
            "mq_timedreceive": 183,
            "mq_notify": 184,
            "unshare": 97,
        },
        open_flags={"O_DIRECT": 0o200000, "O_LARGEFILE": 0o400000, "O_DIRECTORY": 0o40000, "O_NOFOLLOW": 0o100000},
        semid_ds={"otime": "l", "ctime": "l", "nsems": "L", "_1": "16x"},
    ),
}

MACHINE = platform.machine()


def refusal() -> str:
    """Why this machine cannot be served; empty when it can."""
    if MACHINE in MACHINES:
        return ""
    return f"this machine is {MACHINE}, and synosfs knows the system calls of {' and '.join(MACHINES)} only"


#: This machine's; x86-64's where it is refused, so that the refusal can be said.
HERE = MACHINES.get(MACHINE, MACHINES["x86_64"])
CALLS = HERE.calls
