"""Constants of the Linux ABI by their C names: ``<sys/ipc.h>``, ``<sys/msg.h>`` … (see ``arch``).

Numbers only. ``ipc`` hands them to the host, ``syscall_gate.kinds`` reads them by name.
"""

import signal

from synosfs.host.arch import HERE

IPC_PRIVATE = 0
IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_NOWAIT = 0o4000
#: Not Linux's, which has no flag there for ``*get`` or ``*_open``: what is made goes with its last owner.
IPC_EPHEMERAL = 1 << 24

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

SHM_HUGETLB = 0o4000
SHM_NORESERVE = 0o10000
SHM_HUGE_2MB = 21 << 26
SHM_HUGE_1GB = 30 << 26

SHM_RDONLY = 0o10000
SHM_RND = 0o20000
SHM_REMAP = 0o40000
SHM_EXEC = 0o100000

#: Bits of a segment's mode: removed and still attached; kept out of swap.
SHM_DEST = 0o1000
SHM_LOCKED = 0o2000

SHM_LOCK = 11
SHM_UNLOCK = 12
SHM_STAT = 13
SHM_INFO = 14
SHM_STAT_ANY = 15

SEM_UNDO = 0o10000

GETPID = 11
GETVAL = 12
GETALL = 13
GETNCNT = 14
GETZCNT = 15
SETVAL = 16
SETALL = 17
SEM_STAT = 18
SEM_INFO = 19
SEM_STAT_ANY = 20

#: ``clone(2)``: unshare umask, root and working directory.
CLONE_FS = 0x00000200

#: ``clone(2)``: unshare the list of SEM_UNDO adjustments.
CLONE_SYSVSEM = 0x00040000

#: What a notification is (<signal.h>); SIGEV_CANCEL, which is no int, stands for mq_notify(3)'s NULL.
SIGEV_SIGNAL = 0
SIGEV_NONE = 1
SIGEV_THREAD = 2
SIGEV_CANCEL = 1 << 32

#: poll(2)
POLL_EVENTS = {"POLLIN": 0x1, "POLLPRI": 0x2, "POLLOUT": 0x4, "POLLRDNORM": 0x40, "POLLWRNORM": 0x100}

CLOCK_PROCESS_CPUTIME_ID = 2
CLOCK_THREAD_CPUTIME_ID = 3
CLOCKS = {
    "CLOCK_REALTIME": 0,
    "CLOCK_MONOTONIC": 1,
    "CLOCK_PROCESS_CPUTIME_ID": CLOCK_PROCESS_CPUTIME_ID,
    "CLOCK_THREAD_CPUTIME_ID": CLOCK_THREAD_CPUTIME_ID,
    "CLOCK_MONOTONIC_RAW": 4,
    "CLOCK_REALTIME_COARSE": 5,
    "CLOCK_MONOTONIC_COARSE": 6,
    "CLOCK_BOOTTIME": 7,
    "CLOCK_REALTIME_ALARM": 8,
    "CLOCK_BOOTTIME_ALARM": 9,
    "CLOCK_TAI": 11,
}

# <asm-generic/fcntl.h>
O_RDONLY = 0o0
O_WRONLY = 0o1
O_RDWR = 0o2
O_ACCMODE = 0o3
O_CREAT = 0o100
O_EXCL = 0o200
O_NOCTTY = 0o400
O_TRUNC = 0o1000
O_APPEND = 0o2000
O_NONBLOCK = 0o4000
O_DSYNC = 0o10000
O_ASYNC = 0o20000
O_DIRECT = HERE.open_flags["O_DIRECT"]
O_LARGEFILE = HERE.open_flags["O_LARGEFILE"]
O_DIRECTORY = HERE.open_flags["O_DIRECTORY"]
O_NOFOLLOW = HERE.open_flags["O_NOFOLLOW"]
O_NOATIME = 0o1000000
O_CLOEXEC = 0o2000000
O_SYNC = 0o4010000
O_PATH = 0o10000000
O_TMPFILE = 0o20000000 | O_DIRECTORY

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EACCESS = 0x200
AT_REMOVEDIR = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_STATX_SYNC_AS_STAT = 0
AT_STATX_FORCE_SYNC = 0x2000
AT_STATX_DONT_SYNC = 0x4000

#: access(2)
F_OK, X_OK, W_OK, R_OK = 0, 1, 2, 4

#: renameat2(2)
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

#: openat2(2)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

#: setxattr(2)
XATTR_CREATE = 1
XATTR_REPLACE = 2

#: utimensat(2): what stands for tv_nsec UTIME_NOW and UTIME_OMIT where a time is one number of nanoseconds. No file
#: has such a time, 292 years before the epoch.
UTIME_NOW = -(1 << 63)
UTIME_OMIT = UTIME_NOW + 1

#: statx(2)
STATX = {
    "STATX_TYPE": 0x1,
    "STATX_MODE": 0x2,
    "STATX_NLINK": 0x4,
    "STATX_UID": 0x8,
    "STATX_GID": 0x10,
    "STATX_ATIME": 0x20,
    "STATX_MTIME": 0x40,
    "STATX_CTIME": 0x80,
    "STATX_INO": 0x100,
    "STATX_SIZE": 0x200,
    "STATX_BLOCKS": 0x400,
    "STATX_BASIC_STATS": 0x7FF,
    "STATX_BTIME": 0x800,
    "STATX_ALL": 0xFFF,
    "STATX_MNT_ID": 0x1000,
}

F_DUPFD = 0
F_GETFD = 1
F_SETFD = 2
F_GETFL = 3
F_SETFL = 4
F_GETLK = 5
F_SETLK = 6
F_SETLKW = 7
F_SETOWN = 8
F_GETOWN = 9
F_SETSIG = 10
F_GETSIG = 11
F_OFD_GETLK = 36
F_OFD_SETLK = 37
F_OFD_SETLKW = 38
F_SETLEASE = 1024
F_GETLEASE = 1025
F_NOTIFY = 1026
F_DUPFD_CLOEXEC = 1030
F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032
F_ADD_SEALS = 1033
F_GET_SEALS = 1034
FD_CLOEXEC = 1

#: ``fcntl(2)``: what l_type may say, and the seals of a memfd.
LOCK_TYPES = {"F_RDLCK": 0, "F_WRLCK": 1, "F_UNLCK": 2}
SEALS = {
    "F_SEAL_SEAL": 0x1,
    "F_SEAL_SHRINK": 0x2,
    "F_SEAL_GROW": 0x4,
    "F_SEAL_WRITE": 0x8,
    "F_SEAL_FUTURE_WRITE": 0x10,
    "F_SEAL_EXEC": 0x20,
}

#: ``flock(2)``
LOCK_SH = 1
LOCK_EX = 2
LOCK_NB = 4
LOCK_UN = 8

#: ``preadv2(2)``, ``fallocate(2)``, ``sync_file_range(2)``, ``posix_fadvise(2)``
RWF = {
    "RWF_HIPRI": 0x1,
    "RWF_DSYNC": 0x2,
    "RWF_SYNC": 0x4,
    "RWF_NOWAIT": 0x8,
    "RWF_APPEND": 0x10,
    "RWF_NOAPPEND": 0x20,
    "RWF_ATOMIC": 0x40,
    "RWF_DONTCACHE": 0x80,
}
FALLOC = {
    "FALLOC_FL_KEEP_SIZE": 0x1,
    "FALLOC_FL_PUNCH_HOLE": 0x2,
    "FALLOC_FL_COLLAPSE_RANGE": 0x8,
    "FALLOC_FL_ZERO_RANGE": 0x10,
    "FALLOC_FL_INSERT_RANGE": 0x20,
    "FALLOC_FL_UNSHARE_RANGE": 0x40,
}
SYNC_FILE_RANGE = {
    "SYNC_FILE_RANGE_WAIT_BEFORE": 1,
    "SYNC_FILE_RANGE_WRITE": 2,
    "SYNC_FILE_RANGE_WAIT_AFTER": 4,
}
FADVISE = {
    "POSIX_FADV_NORMAL": 0,
    "POSIX_FADV_RANDOM": 1,
    "POSIX_FADV_SEQUENTIAL": 2,
    "POSIX_FADV_WILLNEED": 3,
    "POSIX_FADV_DONTNEED": 4,
    "POSIX_FADV_NOREUSE": 5,
}

#: ``splice(2)``
SPLICE_F_MOVE = 1
SPLICE_F_NONBLOCK = 2
SPLICE_F_MORE = 4

#: ``close_range(2)``
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4

#: ``eventfd(2)``, ``timerfd_create(2)``, ``memfd_create(2)``
EFD_SEMAPHORE = 1
TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2
MFD = {
    "MFD_CLOEXEC": 0x1,
    "MFD_ALLOW_SEALING": 0x2,
    "MFD_HUGETLB": 0x4,
    "MFD_NOEXEC_SEAL": 0x8,
    "MFD_EXEC": 0x10,
}

#: ``getdents64(2)``: d_type.
DIRECTORY_TYPES = {
    0: "DT_UNKNOWN",
    1: "DT_FIFO",
    2: "DT_CHR",
    4: "DT_DIR",
    6: "DT_BLK",
    8: "DT_REG",
    10: "DT_LNK",
    12: "DT_SOCK",
    14: "DT_WHT",
}

#: ``socketpair(2)``
SOCK_STREAM = 1
SOCK_DGRAM = 2
SOCK_SEQPACKET = 5

#: ``ioctl(2)``, <asm-generic/ioctls.h>.
FIONREAD = 0x541B

SEEK = {"SEEK_SET": 0, "SEEK_CUR": 1, "SEEK_END": 2, "SEEK_DATA": 3, "SEEK_HOLE": 4}

S_IFIFO = 0o010000

# <linux/sched.h>
CLONE_VM = 0x00000100
CLONE_VFORK = 0x00004000
CLONE_UNTRACED = 0x00800000

#: The signals of <signal.h>, which have these numbers on all machines here.
SIGNALS = {member.name: member.value for member in signal.Signals}
SIGCHLD = SIGNALS["SIGCHLD"]

# <linux/wait.h>
WNOHANG = 1
WUNTRACED = WSTOPPED = 2
WEXITED = 4
WCONTINUED = 8
WNOWAIT = 0x01000000
WNOTHREAD = 0x20000000
WALL = 0x40000000
WCLONE = 0x80000000
P_ALL = 0
P_PID = 1
P_PGID = 2
P_PIDFD = 3

#: getpriority(2).
PRIORITIES = {"PRIO_PROCESS": 0, "PRIO_PGRP": 1, "PRIO_USER": 2}

#: getrlimit(2), <asm-generic/resource.h>.
LIMITS = {
    f"RLIMIT_{name}": number
    for number, name in enumerate(
        (
            *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE"),
            *("MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
        )
    )
}

RUSAGE = {"RUSAGE_SELF": 0, "RUSAGE_CHILDREN": -1, "RUSAGE_THREAD": 1}
S_IFCHR = 0o020000
S_IFBLK = 0o060000
S_IFREG = 0o100000
S_IFSOCK = 0o140000
