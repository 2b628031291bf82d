"""Calls on descriptors of every type: read(2), write(2), close(2), lseek(2), dup(2), fcntl(2), ioctl(2).

What a call does to a descriptor is its type's affair: see ``file_types``.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Any

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import file_data, pipe
from synosfs.ipc.file_lock import Range
from synosfs.process.descriptors import Closed, Description
from synosfs.syscall_gate import sys_lock
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import (
    Answer,
    file_call,
    host_flags,
    shown_flags,
    type_of,
)
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import Until

#: What F_SETFL changes in Linux. O_ASYNC would signal the daemon, O_NOATIME is an owner's right: both are refused.
_SETTABLE = abi.O_NONBLOCK | abi.O_APPEND | abi.O_DIRECT
_REFUSED = abi.O_ASYNC | abi.O_NOATIME


def sys_read(caller: Caller, fd: int, size: int) -> Answer:
    description = caller.descriptors.get(fd)
    if not description.readable:
        raise SynosError(errno.EBADF, f"descriptor {fd} is open for writing only")
    if size < 0:
        raise SynosError(errno.EINVAL, f"size {size} is negative")
    return type_of(description).read(caller, description, size)


def sys_write(caller: Caller, fd: int, data: bytes) -> Answer:
    description = caller.descriptors.get(fd)
    if not description.writable:
        raise SynosError(errno.EBADF, f"descriptor {fd} is open for reading only")
    return type_of(description).write(caller, description, data)


def sys_close(caller: Caller, fd: int) -> int | Until:
    return _once_closed(caller, [caller.descriptors.close(fd)], 0)


def sys_close_range(caller: Caller, first: int, last: int, flags: int) -> int | Until:
    """With CLOSE_RANGE_CLOEXEC they are marked, and stay open. A table is shared with nobody, so there is nothing for
    CLOSE_RANGE_UNSHARE to do.
    """
    if flags & ~(abi.CLOSE_RANGE_UNSHARE | abi.CLOSE_RANGE_CLOEXEC) or first > last:
        raise SynosError(
            errno.EINVAL, "close_range takes CLOSE_RANGE_UNSHARE and CLOSE_RANGE_CLOEXEC, and first <= last"
        )
    table = caller.descriptors
    if flags & abi.CLOSE_RANGE_CLOEXEC:
        table.mark_range(first, last)
        return 0
    return _once_closed(caller, table.close_range(first, last), 0)


def _once_closed(caller: Caller, closed: Sequence[Closed], answer: int) -> int | Until:
    """Where the host may take long to close it, the answer comes when it has: then its reader sees end-of-file, and
    another gets the lock.
    """
    events = [event for event in closed if event is not None]
    if not events or caller.nonblock:
        return answer

    async def wait() -> int:
        for event in events:
            await event.wait()
        return answer

    return Until(wait)


def sys_lseek(caller: Caller, fd: int, offset: int, whence: int) -> Answer:
    description = caller.descriptors.get(fd)
    return _on_host(caller, description, lambda host_fd: pipe.lseek(host_fd, offset, whence))


def sys_dup(caller: Caller, fd: int) -> int:
    table = caller.descriptors
    return table.add(table.get(fd))


def sys_dup2(caller: Caller, fd: int, newfd: int) -> int | Until:
    table = caller.descriptors
    description = table.get(fd)
    if newfd == fd:
        return newfd
    return _once_closed(caller, [table.set(newfd, description)], newfd)


def sys_dup3(caller: Caller, fd: int, newfd: int, flags: int) -> int | Until:
    if flags & ~abi.O_CLOEXEC or fd == newfd:
        raise SynosError(errno.EINVAL, f"dup3 takes two numbers that differ and no flag but O_CLOEXEC, not {flags:#o}")
    table = caller.descriptors
    return _once_closed(caller, [table.set(newfd, table.get(fd), close_on_exec=bool(flags))], newfd)


def sys_fcntl(caller: Caller, fd: int, cmd: int, arg: int | list[int], start: int, len: int, whence: int) -> Answer:
    """``arg`` is a number, or for a lock its type, or the whole of C's struct flock."""
    table = caller.descriptors
    description = table.get(fd)
    if cmd in sys_lock.COMMANDS:
        wanted = Range(arg, start, len, whence) if isinstance(arg, int) else Range(*_of_flock(arg))
        return sys_lock.lock(caller, fd, cmd, wanted)
    if not isinstance(arg, int):
        raise SynosError(errno.EINVAL, "a struct flock is for the commands that lock")
    match cmd:
        case abi.F_DUPFD | abi.F_DUPFD_CLOEXEC:
            if not 0 <= arg < (limit := table.limit):
                raise SynosError(errno.EINVAL, f"{arg} is not from 0 to {limit - 1} (RLIMIT_NOFILE, ulimit -n)")
            return table.add(description, close_on_exec=cmd == abi.F_DUPFD_CLOEXEC, lowest=arg)
        case abi.F_GETFD:
            return abi.FD_CLOEXEC * table.close_on_exec(fd)
        case abi.F_SETFD:
            table.close_on_exec(fd, bool(arg & abi.FD_CLOEXEC))
            return 0
        case abi.F_GETFL:
            return _on_host(caller, description, lambda host_fd: shown_flags(description, pipe.status_flags(host_fd)))
        case abi.F_SETFL:
            return _set_flags(caller, description, arg)
        case abi.F_GETPIPE_SZ:
            return _on_host(caller, description, pipe.size)
        case abi.F_SETPIPE_SZ:
            return _on_host(caller, description, lambda host_fd: pipe.set_size(host_fd, arg))
        case abi.F_ADD_SEALS:
            return file_call(caller, description, lambda host_fd: file_data.add_seals_blocking(host_fd, arg))
        case abi.F_GET_SEALS:
            return file_call(caller, description, file_data.seals)
    reason = _NOT_HERE.get(cmd, f"fcntl has no command {cmd} here")
    raise SynosError(errno.EINVAL, reason)


def _of_flock(fields: list[int]) -> tuple[int, int, int, int, int]:
    """``struct flock``: l_type, l_whence, l_start, l_len, and l_pid if it is there."""
    type, whence, start, length, *pid = fields
    return type, start, length, whence, pid[0] if pid else 0


_OF_SIGNALS = "signals belong to the program: SIGIO and its owner are not set here"
_NOT_HERE = {
    abi.F_SETOWN: _OF_SIGNALS,
    abi.F_GETOWN: _OF_SIGNALS,
    abi.F_SETSIG: _OF_SIGNALS,
    abi.F_GETSIG: _OF_SIGNALS,
    abi.F_NOTIFY: _OF_SIGNALS,
    abi.F_SETLEASE: "a lease would be the daemon's, and its end a signal to the daemon",
    abi.F_GETLEASE: "there are no leases here: one would be the daemon's",
}


def sys_ioctl(caller: Caller, fd: int, request: int) -> Answer:
    description = caller.descriptors.get(fd)
    if request != abi.FIONREAD:
        raise SynosError(errno.ENOTTY, f"ioctl takes FIONREAD here, not {request:#x}")
    return _on_host(caller, description, lambda host_fd: Reply(0, {"value": pipe.readable_bytes(host_fd)}))


def _on_host(caller: Caller, description: Description, call: Callable[[int], Any]) -> Answer:
    return type_of(description).host_call(caller, description, call)


def _set_flags(caller: Caller, description: Description, flags: int) -> Answer:
    if flags & _REFUSED:
        raise SynosError(errno.EINVAL, "F_SETFL changes O_NONBLOCK, O_APPEND and O_DIRECT here")

    def set_on_host(host_fd: int) -> int:
        wanted = flags & _SETTABLE
        pipe.set_status_flags(host_fd, host_flags(description, wanted, pipe.status_flags(host_fd)))
        description.flags = description.flags & ~_SETTABLE | flags & _SETTABLE
        return 0

    return _on_host(caller, description, set_on_host)
