"""Calls about the caller itself, the machine and the clock: getpid(2), getuid(2), uname(2), nanosleep(2) and
friends.
"""

import errno

from synosfs.errors import SynosError
from synosfs.process import identity
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import Sleep


def sys_getpid(caller: Caller) -> int:
    return caller.process.pid


def sys_gettid(caller: Caller) -> int:
    return caller.tid


def sys_getppid(caller: Caller) -> int:
    return caller.process.ppid()


def sys_getuid(caller: Caller) -> int:
    return caller.user_namespace.shown_uid(identity.identifiers(caller.process.pid).uids[0])


def sys_geteuid(caller: Caller) -> int:
    return caller.user_namespace.shown_uid(caller.credentials.uid)


def sys_getgid(caller: Caller) -> int:
    return caller.user_namespace.shown_gid(identity.identifiers(caller.process.pid).gids[0])


def sys_getegid(caller: Caller) -> int:
    return caller.user_namespace.shown_gid(caller.credentials.gid)


def sys_getgroups(caller: Caller) -> Reply:
    groups = identity.identifiers(caller.process.pid).groups
    return Reply(len(groups), {"groups": [caller.user_namespace.shown_gid(group) for group in groups]})


def sys_uname(caller: Caller) -> Reply:
    return Reply(0, {**identity.system_names()})


def sys_clock_gettime(caller: Caller, clockid: int) -> Reply:
    tv_sec, tv_nsec = divmod(identity.clock_ns(clockid, caller.process.pid, caller.tid), 1_000_000_000)
    return Reply(0, {"tv_sec": tv_sec, "tv_nsec": tv_nsec})


def sys_nanosleep(caller: Caller, tv_sec: float, tv_nsec: int) -> Sleep:
    if not 0 <= tv_nsec <= 999_999_999:
        raise SynosError(errno.EINVAL, f"tv_nsec {tv_nsec} is not from 0 to 999999999")
    return Sleep(tv_sec + tv_nsec / 1e9)


#: Of ``interrupt``: the calls of all threads.
ALL = -1


def sys_interrupt(caller: Caller, tid: int, number: int) -> int:
    """End calls of the caller's process that wait; a call of our own, for who may act for another."""
    if number not in errno.errorcode:
        raise SynosError(errno.EINVAL, f"{number} is no errno; give a name such as EINTR, or none for that")
    ended = caller.parking.interrupt(caller.process, None if tid == ALL else tid, number)
    if not ended and tid != ALL:
        pid = caller.process.pid
        raise SynosError(
            errno.ESRCH, f"no call of thread {tid} waits in process {pid}; cat proc/{pid}/ctl tells which do"
        )
    return ended
