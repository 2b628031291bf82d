"""What read, write and their kin do to each type of descriptor: one row a type.

A *stream* (pipe, socket) is the daemon's own: it is tried at once, and waited for where the user did not ask for
O_NONBLOCK. A *FIFO* is one too, but others have it open natively, and the host lets a writer hold its lock for as long
as it takes to fetch what is written (``pipe_write``): it is used from the avatar's threads, as is a pipe that a program
has too, a *file* on some disk, and a *standard* stream, which is whatever the process was started with. A *counter*
(eventfd, timerfd) never makes others wait, but it may itself. Types of other families have rows here too.
"""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

from synosfs.errors import SynosError, WouldBlock, shown
from synosfs.host import abi
from synosfs.host.path import Place
from synosfs.ipc import counter, file, file_data, pipe, sockets
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import MAX_DATA, Reply
from synosfs.syscall_gate.waiting import Blocking, OnAvatar, WhenReady

T = TypeVar("T")

Answer = int | Reply | Blocking


class FileType(NamedTuple):
    """How a type of descriptor is read, written, and used by a host call that takes its host descriptor.

    ``for_program`` makes a host descriptor (O_CLOEXEC) of it that is handed to a program; None: a program has no use
    for one. It may sleep, and belongs in a thread. Call ``Description.share`` before, in the main thread.
    """

    read: Callable[[Caller, Description, int], Answer]
    write: Callable[[Caller, Description, bytes], Answer]
    host_call: Callable[[Caller, Description, Callable[[int], Any]], Answer]
    for_program: Callable[[Description], int] | None = None


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


def _is_nonblock(description: Description) -> bool:
    """Whether the user asked for O_NONBLOCK: who else has the open file may have changed it."""
    if description.shared and description.file_type not in _NONBLOCK_IS_OURS:
        now = pipe.status_flags(description.host_fd) & abi.O_NONBLOCK
        description.flags = description.flags & ~abi.O_NONBLOCK | now
    return bool(description.flags & abi.O_NONBLOCK)


def _read_stream(caller: Caller, description: Description, size: int) -> Answer:
    host_fd = description.host_fd
    read = (
        partial(sockets.receive, description.thing)
        if description.file_type == "socket"
        else partial(pipe.read, host_fd)
    )

    def attempt() -> Reply:
        return data_reply(read(min(size, MAX_DATA)))

    if _is_nonblock(description):
        return _at_once(description, attempt)
    return WhenReady(attempt, host_fd, writable=False, on_avatar=description.apart, description=description)


def _write_stream(caller: Caller, description: Description, data: bytes) -> Answer:
    """A write that may wait goes on until all is written; when it ends before, its answer is the count so far."""
    host_fd = description.host_fd
    write = (
        partial(sockets.send, description.thing) if description.file_type == "socket" else partial(pipe.write, host_fd)
    )
    if _is_nonblock(description) or caller.nonblock:
        return _at_once(description, lambda: write(data))
    rest = memoryview(data)

    def so_far() -> int | None:
        return len(data) - len(rest) or None

    def attempt() -> int:
        nonlocal rest
        while True:
            try:
                rest = rest[write(rest) :]
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


def _end_of_its_own(description: Description) -> int:
    """A program may clear O_NONBLOCK of what it has, and the daemon's pipes must not wait."""
    access = description.flags & (abi.O_ACCMODE | abi.O_DIRECT)
    return pipe.reopen_blocking(description.host_fd, access, nonblock=bool(description.flags & abi.O_NONBLOCK))


def _same_open_file(description: Description) -> int:
    return pipe.duplicate(description.host_fd)


# --- files ---


def _file_call(caller: Caller, description: Description, call: Callable[[int], Any]) -> Answer:
    def use() -> Any:
        answer = call(description.host_fd)
        # Here and not in the main thread: a read under way elsewhere holds the lock of the offset (fdget_pos).
        description.offset = pipe.lseek(description.host_fd, 0, abi.SEEK["SEEK_CUR"])
        return answer

    return OnAvatar(use, description=description)


def _read_file(caller: Caller, description: Description, size: int) -> Answer:
    return read_file_at(caller, description, size, -1)


def read_file_at(caller: Caller, description: Description, size: int, offset: int) -> Answer:
    """read(2), or with an offset pread(2): at once, where all of it is in the page cache."""
    size = min(size, MAX_DATA)
    begun = b""
    if description.reads_cached and description.is_free and not description.flags & abi.O_DIRECT:
        try:
            begun, whole = file_data.read_cached(description.host_fd, size, offset)
        except OSError as error:
            # The host does not read this so; any other error is for the read that may wait.
            description.reads_cached = error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR)
        else:
            if offset < 0:
                description.offset += len(begun)
            if whole:
                return data_reply(begun)
    return _file_call(caller, description, lambda fd: data_reply(file_data.read_rest_blocking(fd, begun, size, offset)))


def _write_file(caller: Caller, description: Description, data: bytes) -> Answer:
    pid = caller.process.pid
    return _file_call(caller, description, lambda fd: file_data.write_blocking(pid, fd, data))


def file_call(caller: Caller, description: Description, call: Callable[[int], Any]) -> Answer:
    """A host call for files, which may take long; what it says of other things is the host's word too."""
    row = type_of(description)
    if row.host_call is _stream_call:
        return OnAvatar(partial(call, description.host_fd), description=description)
    return row.host_call(caller, description, call)


def reads_as_file(description: Description) -> bool:
    """Whether a read of it may be had from the page cache."""
    return type_of(description).read is _read_file


# --- counters ---


def _counter_call(
    caller: Caller,
    description: Description,
    at_once: Callable[[int], Any],
    blocking: Callable[[int], Any],
    give_back: Callable[[Any], object] | None = None,
    *,
    writes: bool = False,
) -> Answer:
    """A call that may wait: in the host, in a thread; ``at_once`` is the same for the main thread, and raises."""
    if not description.shared:  # else a program may make it wait, at any moment
        if description.flags & abi.O_NONBLOCK:
            return at_once(description.host_fd)  # type: ignore[no-any-return]
        try:
            if description.is_free:
                return counter.at_once(description.host_fd, at_once)  # type: ignore[no-any-return]
        except WouldBlock:
            pass
    if caller.nonblock and not (description.shared and pipe.is_ready(description.host_fd, writable=writes)):
        raise _would_wait(description)
    return OnAvatar(partial(blocking, description.host_fd), give_back=give_back, description=description)


def _read_counter(caller: Caller, description: Description, size: int) -> Answer:
    """Its 8 bytes, and what they mean."""
    size = min(size, counter.SIZE)

    def answer(data: bytes) -> Reply:
        return Reply(len(data), {"value": counter.unpacked(data)}, data)

    def put_back(reply: Reply) -> None:
        counter.put_back_blocking(description.host_fd, reply.data or b"")

    return _counter_call(
        caller,
        description,
        lambda fd: answer(pipe.read(fd, size)),
        lambda fd: answer(pipe.read_blocking(fd, size)),
        put_back if description.file_type == "eventfd" else None,
    )


def _write_counter(caller: Caller, description: Description, data: bytes) -> Answer:
    return _counter_call(
        caller, description, lambda fd: pipe.write(fd, data), lambda fd: pipe.write_blocking(fd, data), writes=True
    )


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


def borrowed(caller: Caller, description: Description, access: int) -> Callable[[], AbstractContextManager[int]]:
    """How to get at the host descriptor for a while, in a thread: what is the process's own is lent each time."""
    type_of(description)
    if description.file_type == "standard":
        return lambda: file.standard_stream(place_of(caller), description.thing, access)
    return lambda: nullcontext(description.host_fd)


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


_PIPE = FileType(_read_stream, _write_stream, _stream_call, _end_of_its_own)
_FILE = FileType(_read_file, _write_file, _file_call, _same_open_file)
_COUNTER = FileType(_read_counter, _write_counter, _stream_call, _same_open_file)

FILE_TYPES: dict[str, FileType] = {
    "pipe": _PIPE,
    "fifo": _PIPE,
    "socket": FileType(_read_stream, _write_stream, _stream_call, _same_open_file),
    "file": _FILE,
    "directory": _FILE,
    "path": FileType(_read_file, _write_file, _stream_call, _same_open_file),  # O_PATH: mostly EBADF, says the host
    "memfd": _FILE,
    "shm": _FILE,
    "eventfd": _COUNTER,
    "timerfd": _COUNTER,
    "standard": FileType(_read_standard, _write_standard, _standard_call),
    # read gives the line QSIZE:... of mq_overview(7). The daemon waits in it: a program has an open file of its own.
    "mqueue": FileType(_read_file, _write_queue, _file_call, _end_of_its_own),
    "event": FileType(_read_event, _write_stream, _stream_call),  # open for reading only
}

#: Types whose O_NONBLOCK on the host side is the daemon's affair; the user's wish stands in the description.
_NONBLOCK_IS_OURS = frozenset(("pipe", "fifo", "mqueue", "event"))


def shown_flags(description: Description, host_flags: int) -> int:
    """F_GETFL: the host's flags as the user set them."""
    if description.file_type not in _NONBLOCK_IS_OURS:
        return host_flags
    return host_flags & ~abi.O_NONBLOCK | description.flags & abi.O_NONBLOCK


def host_flags(description: Description, wanted: int, now: int) -> int:
    """F_SETFL: the flags for the host, where the user wants these and the host has ``now``."""
    if description.file_type not in _NONBLOCK_IS_OURS:
        return wanted
    return wanted & ~abi.O_NONBLOCK | now & abi.O_NONBLOCK


def for_program(description: Description) -> Callable[[], int] | None:
    """What makes a host descriptor of it for a program, in a thread; None: a program has no use for one."""
    if description.file_type == "pidfd":
        make: Callable[[Description], int] | None = _same_open_file
    else:
        row = FILE_TYPES.get(description.file_type)
        make = None if row is None else row.for_program
    if make is None:
        return None
    description.share()
    return partial(make, description)


def type_of(description: Description) -> FileType:
    """The row of the description's type. EINVAL: reading and writing it has calls of its own."""
    try:
        return FILE_TYPES[description.file_type]
    except KeyError:
        message = f"a descriptor of type {description.file_type} is not for this call"
        raise SynosError(errno.EINVAL, message) from None
