"""Pipes and FIFOs of the host, by the daemon's descriptors of them, which are O_NONBLOCK without exception; and what is
done to any descriptor.

A function is one host call. Those that would wait raise ``WouldBlock`` (EAGAIN) and have done nothing; who waits is
the caller's affair, and whether the user asked for O_NONBLOCK too.
"""

import array
import errno
import fcntl
import os
import select
import termios
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import file as host_file
from synosfs.host import rights
from synosfs.host.errors import Reasons, explained, explaining

P = ParamSpec("P")
R = TypeVar("R")

#: A write of up to this many bytes goes into a pipe whole or not at all (<limits.h>).
PIPE_BUF = 4096


def _host_call(function: Callable[Concatenate[int, P], R]) -> Callable[Concatenate[int, P], R]:
    """A host call that may answer EAGAIN, and whose errors have their reasons below."""

    @wraps(function)
    def call(host_fd: int, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(host_fd, *args, **kwargs)
        except BlockingIOError:
            raise WouldBlock(errno.EAGAIN, f"{function.__name__} would wait, and O_NONBLOCK says not to") from None
        except OSError as error:
            raise explained(error, REASONS) from None

    return call  # type: ignore[return-value]  # mypy keeps functools.wraps apart from a plain function


REASONS = {
    errno.EBADF: "the descriptor is not open for this: a pipe is read at its read end and written at its write end, "
    "and has a size only where it is a pipe",
    errno.EPIPE: "nobody reads at the other end: every descriptor of the read end is closed",
    errno.ESPIPE: "pipes and sockets have no offset",
    errno.EBUSY: "the pipe holds more than the size asked for; read from it first",
    errno.EPERM: "more than fs.pipe-max-size, or than fs.pipe-user-pages-soft leaves, takes CAP_SYS_RESOURCE",
    errno.EINVAL: "the size, offset or file does not fit this call",
    errno.ENOTTY: "this request does not apply to such a descriptor",
    errno.ENXIO: "no such offset, or no such device",
    errno.ECONNRESET: "the other end was closed with unread data in it",
}


def create(flags: int) -> tuple[int, int]:
    """pipe2(2): the read end and the write end. Of ``flags`` O_DIRECT (packets) is the pipe's own affair."""
    try:
        return os.pipe2(flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise exhausted(error) from None


def exhausted(error: OSError, reasons: Reasons = REASONS) -> SynosError:
    """Why the host makes no pair of descriptors."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return SynosError(errno.ENFILE, "the daemon has no host descriptor left; raise its limit (ulimit -n)")
    return explained(error, reasons)


def identity(host_fd: int) -> str:
    """The inode number of a pipe or socket, as ``/proc/<pid>/fd`` and lsof show it; both ends of a pipe have one."""
    return str(os.fstat(host_fd).st_ino)


def close(host_fd: int) -> None:
    os.close(host_fd)


@_host_call
def read(host_fd: int, size: int) -> bytes:
    """Up to ``size`` bytes; none at end-of-file. WouldBlock while it is empty and somebody may still write."""
    return os.read(host_fd, size)


@_host_call
def write(host_fd: int, data: bytes | memoryview) -> int:
    """How many bytes went in. WouldBlock: none could. EPIPE: no reader."""
    return os.write(host_fd, data)


@_host_call
def read_blocking(host_fd: int, size: int) -> bytes:
    """As ``read``, of a descriptor that is not ours and may wait: in a thread, which a signal ends with EINTR."""
    return host_file.read_blocking(host_fd, size)


@_host_call
def write_blocking(host_fd: int, data: bytes) -> int:
    """As ``write``, of a descriptor that is not ours and may wait."""
    return host_file.write_blocking(host_fd, data)


@_host_call
def pread(host_fd: int, size: int, offset: int) -> bytes:
    return os.pread(host_fd, size, offset)


@_host_call
def pwrite(host_fd: int, data: bytes, offset: int) -> int:
    return os.pwrite(host_fd, data, offset)


@_host_call
def lseek(host_fd: int, offset: int, whence: int) -> int:
    return os.lseek(host_fd, offset, whence)


@_host_call
def size(host_fd: int) -> int:
    """F_GETPIPE_SZ: the capacity in bytes. EBADF when it is not a pipe."""
    return fcntl.fcntl(host_fd, fcntl.F_GETPIPE_SZ)


@_host_call
def set_size(host_fd: int, capacity: int) -> int:
    """F_SETPIPE_SZ: the capacity that it got, rounded up to 2^n pages. EBUSY, EPERM, EINVAL (above 2^31)."""
    return fcntl.fcntl(host_fd, fcntl.F_SETPIPE_SZ, capacity)


@_host_call
def readable_bytes(host_fd: int) -> int:
    """FIONREAD: how many bytes can be read without waiting."""
    count = array.array("i", [0])
    fcntl.ioctl(host_fd, termios.FIONREAD, count)
    return count[0]


@_host_call
def status_flags(host_fd: int) -> int:
    """F_GETFL."""
    return fcntl.fcntl(host_fd, fcntl.F_GETFL)


@_host_call
def set_status_flags(host_fd: int, flags: int) -> int:
    """F_SETFL."""
    return fcntl.fcntl(host_fd, fcntl.F_SETFL, flags)


@_host_call
def is_ready(host_fd: int, *, writable: bool = False) -> bool:
    """Whether a read (or write) of one byte would not wait."""
    poll = select.poll()
    poll.register(host_fd, select.POLLOUT if writable else select.POLLIN)
    return bool(poll.poll(0))


def reopen_blocking(host_fd: int, access: int, *, nonblock: bool) -> int:
    """An open file of its own for the same end of a pipe or FIFO, O_NONBLOCK as asked: for a program, which must not
    share the daemon's. ``access``: O_RDONLY, O_WRONLY or O_RDWR, and O_DIRECT.
    """
    path = f"/proc/self/fd/{host_fd}"
    with explaining(REASONS), rights.acting_as_daemon():
        try:
            fd = os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            # A FIFO that nobody reads: an end that is open already is to be had again all the same.
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fd = os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                os.close(reader)
        os.set_blocking(fd, not nonblock)
        return fd


@_host_call
def duplicate(host_fd: int) -> int:
    """Another number for the same open file."""
    return fcntl.fcntl(host_fd, fcntl.F_DUPFD_CLOEXEC, 0)
