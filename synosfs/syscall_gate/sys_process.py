"""Calls about the caller itself, the machine and the clock: getpid(2), getuid(2), uname(2), nanosleep(2) and
friends.
"""

import errno
import os
import time

import trio

from synosfs.errors import SynosError
from synosfs.host import credentials
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import Until


def sys_getpid(caller: Caller) -> int:
    return caller.process.pid


def sys_gettid(caller: Caller) -> int:
    return caller.tid


def sys_getppid(caller: Caller) -> int:
    return _identifiers(caller).ppid


def sys_getuid(caller: Caller) -> int:
    return _identifiers(caller).uids[0]


def sys_geteuid(caller: Caller) -> int:
    return caller.credentials.uid


def sys_getgid(caller: Caller) -> int:
    return _identifiers(caller).gids[0]


def sys_getegid(caller: Caller) -> int:
    return caller.credentials.gid


def sys_getgroups(caller: Caller) -> Reply:
    groups = _identifiers(caller).groups
    return Reply(len(groups), {"groups": list(groups)})


def sys_uname(caller: Caller) -> Reply:
    name = os.uname()
    fields = ("sysname", "nodename", "release", "version", "machine")
    return Reply(0, {field: getattr(name, field) for field in fields})


def sys_clock_gettime(caller: Caller, clockid: int) -> Reply:
    try:
        nanoseconds = time.clock_gettime_ns(clockid)
    except OSError:
        raise SynosError(errno.EINVAL, f"this host has no clock {clockid}") from None
    return Reply(0, {"tv_sec": nanoseconds // 1_000_000_000, "tv_nsec": nanoseconds % 1_000_000_000})


def sys_nanosleep(caller: Caller, tv_sec: float, tv_nsec: int) -> Until:
    if not 0 <= tv_nsec <= 999_999_999:
        raise SynosError(errno.EINVAL, f"tv_nsec {tv_nsec} is not from 0 to 999999999")

    async def sleep() -> Reply:
        await trio.sleep(tv_sec + tv_nsec / 1e9)
        return Reply(0)

    return Until(sleep)


def _identifiers(caller: Caller) -> credentials.Identifiers:
    try:
        return credentials.identifiers(caller.process.pid)
    except ProcessLookupError:
        raise SynosError(errno.ESRCH, f"process {caller.process.pid} has ended") from None
