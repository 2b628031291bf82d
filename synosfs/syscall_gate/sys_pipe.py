"""Making pipes and socket pairs: pipe(2), pipe2(2), socketpair(2)."""

import errno
from collections.abc import Callable

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import pipe, sockets
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply

_PIPE_FLAGS = abi.O_CLOEXEC | abi.O_NONBLOCK | abi.O_DIRECT
_SOCKET_TYPES = (abi.SOCK_STREAM, abi.SOCK_DGRAM, abi.SOCK_SEQPACKET)
_SOCKET_FLAGS = abi.O_CLOEXEC | abi.O_NONBLOCK


def sys_pipe2(caller: Caller, flags: int) -> Reply:
    """pipe2(2), and pipe(2), which here may have the flags too."""
    if flags & ~_PIPE_FLAGS:
        raise SynosError(errno.EINVAL, f"pipe2 takes O_CLOEXEC, O_NONBLOCK and O_DIRECT, not {flags:#o}")
    read_end, write_end = pipe.create(flags & abi.O_DIRECT)
    nonblock = flags & abi.O_NONBLOCK
    ipc_id = pipe.identity(read_end)
    ends = (
        Description("pipe", abi.O_RDONLY | nonblock, read_end, ipc_id, release=close_host_fd),
        Description("pipe", abi.O_WRONLY | nonblock | flags & abi.O_DIRECT, write_end, ipc_id, release=close_host_fd),
    )
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    first, second = add_pair(caller, ends, flags)
    return Reply(0, {"read": first, "write": second})


def sys_socketpair(caller: Caller, flags: int) -> Reply:
    """AF_UNIX; the type is among the flags, SOCK_STREAM where there is none."""
    nonblock, type = flags & abi.O_NONBLOCK, flags & ~_SOCKET_FLAGS or abi.SOCK_STREAM
    if type not in _SOCKET_TYPES:
        raise SynosError(
            errno.EINVAL,
            f"socketpair takes a type, SOCK_CLOEXEC and SOCK_NONBLOCK, not {flags:#o}; types are SOCK_STREAM,"
            " SOCK_DGRAM and SOCK_SEQPACKET",
        )
    pair = sockets.create(type, nonblock=bool(nonblock))
    one, other = (
        Description(
            "socket", abi.O_RDWR | nonblock, end.fileno(), pipe.identity(end.fileno()), release=_close_socket, thing=end
        )
        for end in pair
    )
    first, second = add_pair(caller, (one, other), flags)
    return Reply(0, {"first": first, "second": second})


def _close_socket(description: Description) -> None:
    sockets.close(description.thing)


def add_pair(caller: Caller, pair: tuple[Description, Description], flags: int) -> tuple[int, int]:
    """Numbers for both, or for neither."""
    table, close_on_exec = caller.descriptors, bool(flags & abi.O_CLOEXEC)
    first, second = pair
    try:
        number = table.add(first, close_on_exec=close_on_exec)
    except SynosError:
        if second.release is not None:
            second.release(second)
        raise
    try:
        return number, table.add(second, close_on_exec=close_on_exec)
    except SynosError:
        table.close(number)
        raise


def close_host_fd(description: Description) -> None:
    pipe.close(description.host_fd)


def done(call: Callable[..., None], *arguments: object) -> int:
    call(*arguments)
    return 0
