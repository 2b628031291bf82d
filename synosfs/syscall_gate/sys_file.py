"""Calls on descriptors of every type: read(2), write(2), close(2), lseek(2), dup(2), fcntl(2), ioctl(2).

What a call does to a descriptor is its type's affair: see ``file_types``.
"""

import errno
from collections.abc import Callable
from typing import Any

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import file, pipe
from synosfs.process.descriptors import MOST_DESCRIPTORS, Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, data_reply, type_of
from synosfs.syscall_gate.record import MAX_DATA, Reply
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
    """Where the host may take long to close it, the answer comes when it has: then its reader sees end-of-file."""
    closed = caller.descriptors.close(fd)
    if closed is None or caller.nonblock:
        return 0

    async def wait() -> int:
        await closed.wait()
        return 0

    return Until(wait)


def sys_lseek(caller: Caller, fd: int, offset: int, whence: int) -> Answer:
    description = caller.descriptors.get(fd)
    return _on_host(caller, description, lambda host_fd: pipe.lseek(host_fd, offset, whence))


def sys_pread64(caller: Caller, fd: int, size: int, offset: int) -> Answer:
    description = caller.descriptors.get(fd)
    if size < 0 or offset < 0:
        raise SynosError(errno.EINVAL, f"size {size} or offset {offset} is negative")

    def read(host_fd: int) -> Reply:
        return data_reply(pipe.pread(host_fd, min(size, MAX_DATA), offset))

    return _on_host(caller, description, read)


def sys_pwrite64(caller: Caller, fd: int, data: bytes, offset: int) -> Answer:
    description = caller.descriptors.get(fd)
    pid = caller.process.pid
    return _on_host(caller, description, lambda host_fd: file.pwrite(pid, host_fd, data, offset))


def sys_dup(caller: Caller, fd: int) -> int:
    table = caller.descriptors
    return table.add(table.get(fd))


def sys_dup2(caller: Caller, fd: int, newfd: int) -> int:
    table = caller.descriptors
    description = table.get(fd)
    if newfd != fd:
        table.set(newfd, description)
    return newfd


def sys_dup3(caller: Caller, fd: int, newfd: int, flags: int) -> int:
    if flags & ~abi.O_CLOEXEC or fd == newfd:
        raise SynosError(errno.EINVAL, f"dup3 takes two numbers that differ and no flag but O_CLOEXEC, not {flags:#o}")
    table = caller.descriptors
    table.set(newfd, table.get(fd), close_on_exec=bool(flags))
    return newfd


def sys_fcntl(caller: Caller, fd: int, cmd: int, arg: int) -> Answer:
    table = caller.descriptors
    description = table.get(fd)
    match cmd:
        case abi.F_DUPFD | abi.F_DUPFD_CLOEXEC:
            if not 0 <= arg < MOST_DESCRIPTORS:
                raise SynosError(errno.EINVAL, f"{arg} is not from 0 to {MOST_DESCRIPTORS - 1}")
            return table.add(description, close_on_exec=cmd == abi.F_DUPFD_CLOEXEC, lowest=arg)
        case abi.F_GETFD:
            return abi.FD_CLOEXEC * table.close_on_exec(fd)
        case abi.F_SETFD:
            table.close_on_exec(fd, bool(arg & abi.FD_CLOEXEC))
            return 0
        case abi.F_GETFL:
            return _on_host(caller, description, lambda host_fd: _shown_flags(description, pipe.status_flags(host_fd)))
        case abi.F_SETFL:
            return _set_flags(caller, description, arg)
        case abi.F_GETPIPE_SZ:
            return _on_host(caller, description, pipe.size)
        case abi.F_SETPIPE_SZ:
            return _on_host(caller, description, lambda host_fd: pipe.set_size(host_fd, arg))
    raise SynosError(errno.EINVAL, f"fcntl has no command {cmd} here; locks and leases would be the daemon's")


def sys_ioctl(caller: Caller, fd: int, request: int) -> Answer:
    description = caller.descriptors.get(fd)
    if request != abi.FIONREAD:
        raise SynosError(errno.ENOTTY, f"ioctl takes FIONREAD here, not {request:#x}")
    return _on_host(caller, description, lambda host_fd: Reply(0, {"value": pipe.readable_bytes(host_fd)}))


def _on_host(caller: Caller, description: Description, call: Callable[[int], Any]) -> Answer:
    return type_of(description).host_call(caller, description, call)


def _shown_flags(description: Description, host_flags: int) -> int:
    """The daemon's descriptor is always O_NONBLOCK; the user's wish stands in the description."""
    if not description.is_ours:
        return host_flags
    return host_flags & ~abi.O_NONBLOCK | description.flags & abi.O_NONBLOCK


def _set_flags(caller: Caller, description: Description, flags: int) -> Answer:
    if flags & _REFUSED:
        raise SynosError(errno.EINVAL, "F_SETFL changes O_NONBLOCK, O_APPEND and O_DIRECT here")

    def set_on_host(host_fd: int) -> int:
        on_host = flags & _SETTABLE
        if description.is_ours:  # a descriptor of the daemon's own waits or not as its family needs it
            on_host = on_host & ~abi.O_NONBLOCK | pipe.status_flags(host_fd) & abi.O_NONBLOCK
        pipe.set_status_flags(host_fd, on_host)
        description.flags = description.flags & ~_SETTABLE | flags & _SETTABLE
        return 0

    return _on_host(caller, description, set_on_host)
