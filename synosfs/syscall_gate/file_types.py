"""What read, write and their kin do to each type of descriptor: one row a type.

A *stream* (pipe, socket) is the daemon's own O_NONBLOCK descriptor: it is tried at once, and waited for where the user
did not ask for O_NONBLOCK. A *FIFO* is one too, but others have it open natively, and the host lets a writer hold its
lock for as long as it takes to fetch what is written (``pipe_write``): it is used from the avatar's threads, as is a
*file* on some disk, and a *standard* stream, which is whatever the process was started with. Types of other families
have rows here too.
"""

import errno
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from synosfs.errors import SynosError, WouldBlock, shown
from synosfs.host import abi
from synosfs.host.path import Place
from synosfs.ipc import file, pipe
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import MAX_DATA, Reply
from synosfs.syscall_gate.waiting import Blocking, OnAvatar, WhenReady

T = TypeVar("T")

Answer = int | Reply | Blocking


class FileType(NamedTuple):
    """How a type of descriptor is read, written, and used by a host call that takes its host descriptor."""

    read: Callable[[Caller, Description, int], Answer]
    write: Callable[[Caller, Description, bytes], Answer]
    host_call: Callable[[Caller, Description, Callable[[int], Any]], Answer]


def place_of(caller: Caller) -> Place:
    """What is known of a caller that bears on files. Where its paths begin is for ``places`` to add, and to hold."""
    process, ipc = caller.process, caller.ipc
    return Place(
        process.pid,
        process.pidfd,
        caller.credentials,
        caller.own,
        ipc.mountpoint,
        ipc.device,
        caller.tid,
        caller.confinement,
        umask=process.own_umask,
    )


def on_file(caller: Caller, name: bytes, call: Callable[[], T]) -> Callable[[], T]:
    """``call``, for who may have files of the host's at all. It is about one that no path of the caller's leads to: to
    the host the names of POSIX memory and semaphores are files in /dev/shm.
    """

    def use() -> T:
        place_of(caller).check(shown(name))
        return call()

    return use


def data_reply(data: bytes) -> Reply:
    return Reply(len(data), data=data)


# --- pipes, FIFOs, sockets ---


def _at_once(description: Description, call: Callable[[], Any]) -> Answer:
    """A call that does not wait for data."""
    if description.apart:
        return OnAvatar(call, description=description)
    answer: Answer = call()
    return answer


def _read_stream(caller: Caller, description: Description, size: int) -> Answer:
    host_fd = description.host_fd

    def attempt() -> Reply:
        return data_reply(pipe.read(host_fd, min(size, MAX_DATA)))

    if description.flags & abi.O_NONBLOCK:
        return _at_once(description, attempt)
    return WhenReady(attempt, host_fd, writable=False, on_avatar=description.apart, description=description)


def _write_stream(caller: Caller, description: Description, data: bytes) -> Answer:
    """A write that may wait goes on until all is written; when it ends before, its answer is the count so far."""
    host_fd = description.host_fd
    if description.flags & abi.O_NONBLOCK or caller.nonblock:
        return _at_once(description, lambda: pipe.write(host_fd, data))
    rest = memoryview(data)

    def so_far() -> int | None:
        return len(data) - len(rest) or None

    def attempt() -> int:
        nonlocal rest
        while True:
            try:
                rest = rest[pipe.write(host_fd, rest) :]
            except WouldBlock:
                raise
            except SynosError:
                # EPIPE after some of it went in: Linux answers the count, and the next write fails.
                if (written := so_far()) is not None:
                    return written
                raise
            if not rest:
                return len(data)

    apart = description.apart
    return WhenReady(attempt, host_fd, writable=True, on_avatar=apart, description=description, so_far=so_far)


def _stream_call(caller: Caller, description: Description, call: Callable[[int], Any]) -> Answer:
    return _at_once(description, lambda: call(description.host_fd))


# --- files ---


def _file_call(caller: Caller, description: Description, call: Callable[[int], Any]) -> Answer:
    def use() -> Any:
        answer = call(description.host_fd)
        # Here and not in the main thread: a read under way elsewhere holds the lock of the offset (fdget_pos).
        description.offset = pipe.lseek(description.host_fd, 0, abi.SEEK["SEEK_CUR"])
        return answer

    return OnAvatar(use, description=description)


def _read_file(caller: Caller, description: Description, size: int) -> Answer:
    return _file_call(caller, description, lambda fd: data_reply(pipe.read(fd, min(size, MAX_DATA))))


def _write_file(caller: Caller, description: Description, data: bytes) -> Answer:
    pid = caller.process.pid
    return _file_call(caller, description, lambda fd: file.write(pid, fd, data))


# --- message queues ---


def _write_queue(caller: Caller, description: Description, data: bytes) -> Answer:
    raise SynosError(errno.EINVAL, f"{description.path} is a message queue: mq_send puts messages in, write does not")


# --- 0, 1, 2 ---


def _standard_call(
    caller: Caller, description: Description, call: Callable[[int], Any], access: int = abi.O_RDONLY
) -> Answer:
    def use() -> Any:
        with file.standard_stream(place_of(caller), description.thing, access) as host_fd:
            return call(host_fd)

    return OnAvatar(use, description=description)


def _read_standard(caller: Caller, description: Description, size: int) -> Answer:
    def read(host_fd: int) -> Reply:
        if caller.nonblock and not pipe.is_ready(host_fd):
            raise _would_wait(description)
        return data_reply(pipe.read_blocking(host_fd, min(size, MAX_DATA)))

    return _standard_call(caller, description, read)


def _write_standard(caller: Caller, description: Description, data: bytes) -> Answer:
    def write(host_fd: int) -> int:
        if caller.nonblock and not pipe.is_ready(host_fd, writable=True):
            raise _would_wait(description)
        return file.write_blocking(caller.process.pid, host_fd, data[: pipe.PIPE_BUF] if caller.nonblock else data)

    return _standard_call(caller, description, write, abi.O_WRONLY)


def _would_wait(description: Description) -> SynosError:
    return SynosError(errno.EAGAIN, f"{description.path} would wait, and this session was opened with O_NONBLOCK")


# --- a notification (mq_notify) ---


def _read_event(caller: Caller, description: Description, size: int) -> Answer:
    """``message``, or ``removed`` when the registration ended without one; as often as asked."""

    def attempt() -> Reply:
        return data_reply(description.thing.why().encode()[:size])

    return WhenReady(attempt, description.host_fd, writable=False, description=description)


_STREAM = FileType(_read_stream, _write_stream, _stream_call)

FILE_TYPES: dict[str, FileType] = {
    "pipe": _STREAM,
    "fifo": _STREAM,
    "socket": _STREAM,
    "file": FileType(_read_file, _write_file, _file_call),
    "directory": FileType(_read_file, _write_file, _file_call),  # read is EISDIR, says the host
    "path": FileType(_read_file, _write_file, _stream_call),  # O_PATH: for most calls EBADF, says the host
    "standard": FileType(_read_standard, _write_standard, _standard_call),
    "shm": FileType(_read_file, _write_file, _file_call),
    "mqueue": FileType(_read_file, _write_queue, _file_call),  # read gives the line QSIZE:... of mq_overview(7)
    "event": FileType(_read_event, _write_stream, _stream_call),  # open for reading only
}


def type_of(description: Description) -> FileType:
    """The row of the description's type. EINVAL: reading and writing it has calls of its own."""
    try:
        return FILE_TYPES[description.file_type]
    except KeyError:
        message = f"a descriptor of type {description.file_type} is not for this call"
        raise SynosError(errno.EINVAL, message) from None
