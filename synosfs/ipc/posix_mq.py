"""POSIX message queues: the host's own, by name (mq_overview(7)).

The host descriptor is *not* O_NONBLOCK, whatever the caller asked for: not to wait is said with a time that has passed,
and to wait is to wait in the kernel, in a thread. Only so does a caller have its place among native receivers, in
their order, and only so does the kernel know that somebody waits, and notify nobody (mq_notify(3)).

What goes by a name may wait too, for a lease that somebody has on the queue: ``open_`` and ``unlink`` belong in a
thread of the caller's. A look does not wait (``attributes_now``, and most of ``mqueue_fs``).

Linux looks at times and priorities before it looks at the descriptor: so do ``deadline`` and ``check_priority``.
"""

import errno
import os
from dataclasses import dataclass
from typing import NamedTuple

from synosfs.errors import SynosError, WouldBlock, shown
from synosfs.host import posix as host_posix
from synosfs.host.errors import explained, explaining
from synosfs.host.libc import Timespec
from synosfs.host.posix import PRIORITY_MAX
from synosfs.ipc import mqueue_fs

_NS = 1_000_000_000

#: The most bytes that are received at once here; the largest message of an unprivileged queue is far below.
_MOST = 1 << 24

#: What the host is told of the flags: the rest is the caller's affair, or nobody's.
_FLAGS = os.O_ACCMODE | os.O_CREAT | os.O_EXCL

_OPEN = {
    errno.ENOENT: "no queue is named {name}; add O_CREAT to make it",
    errno.EEXIST: "a queue named {name} exists, and O_CREAT|O_EXCL asked for a new one",
    errno.EACCES: "queue {name} does not let the caller do this (see its mode and owner in msgq/posix), "
    "or a second slash stands in the name",
    errno.EINVAL: "{name} does not begin with a slash, or maxmsg or msgsize is not from 1 to the limits in "
    "/proc/sys/fs/mqueue (msg_max, msgsize_max)",
    errno.ENAMETOOLONG: "{name} is longer than 255 bytes",
    errno.ENOSPC: "fs.mqueue.queues_max queues exist already; unlink some or raise the limit",
    errno.EMFILE: "the user may not hold so many bytes in queues (RLIMIT_MSGQUEUE), or too many files are open",
    errno.EAGAIN: "somebody has a lease on queue {name}, and this session was opened with O_NONBLOCK",
    errno.EINTR: "{name}: interrupted by a signal",
}
_UNLINK = {
    **_OPEN,
    errno.ENOENT: "no queue is named {name}",
    errno.EACCES: "queue {name} belongs to another user, who may unlink it, or a second slash stands in the name",
}
_SEND = {
    errno.EBADF: "queue {name} is not open for writing",
    errno.EMSGSIZE: "the message is larger than the msgsize of queue {name}; see mq_getattr",
    errno.ETIMEDOUT: "queue {name} stayed full",
    errno.EINTR: "waiting for room in {name} was interrupted by a signal",
}
_RECEIVE = {
    errno.EBADF: "queue {name} is not open for reading",
    errno.EMSGSIZE: "the size is smaller than the msgsize of queue {name}; see mq_getattr",
    errno.ETIMEDOUT: "queue {name} stayed empty",
    errno.EINTR: "waiting for a message in {name} was interrupted by a signal",
}


class Message(NamedTuple):
    """One message: its bytes and its priority, 0 up to 32767."""

    data: bytes
    priority: int


class QueueAttributes(NamedTuple):
    """``struct mq_attr``: the most messages, the most bytes of each, and how many there are now."""

    maxmsg: int
    msgsize: int
    curmsgs: int


@dataclass(frozen=True, slots=True, eq=False)
class PosixQueue:
    """An open message queue. ``send`` and ``receive`` block and belong in a thread of their own."""

    name: bytes
    host_fd: int

    @property
    def path(self) -> str:
        """The name, as os.fsdecode has it."""
        return os.fsdecode(self.name)

    def send_nowait(self, data: bytes, priority: int) -> None:
        """mq_timedsend(3). WouldBlock (EAGAIN) when the queue is full."""
        try:
            host_posix.mq_send_nowait(self.host_fd, data, priority)
        except SynosError as error:
            if error.errno == errno.ETIMEDOUT:
                raise WouldBlock(errno.EAGAIN, f"queue {shown(self.name)} is full") from None
            raise explained(error, _SEND, name=shown(self.name)) from None

    def send(self, data: bytes, priority: int, until: Timespec | None = None) -> None:
        """mq_timedsend(3), waiting for room until a CLOCK_REALTIME: ETIMEDOUT, EINTR on a signal to this thread."""
        with explaining(_SEND, name=shown(self.name)):
            host_posix.mq_send_blocking(self.host_fd, data, priority, until)

    def receive_nowait(self, size: int) -> Message:
        """mq_timedreceive(3): the oldest of the highest priority. WouldBlock (EAGAIN) when the queue is empty."""
        try:
            return Message(*host_posix.mq_receive_nowait(self.host_fd, min(size, _MOST)))
        except SynosError as error:
            if error.errno == errno.ETIMEDOUT:
                raise WouldBlock(errno.EAGAIN, f"queue {shown(self.name)} is empty") from None
            raise explained(error, _RECEIVE, name=shown(self.name)) from None

    def receive(self, size: int, until: Timespec | None = None) -> Message:
        """mq_timedreceive(3), waiting for a message."""
        with explaining(_RECEIVE, name=shown(self.name)):
            return Message(*host_posix.mq_receive_blocking(self.host_fd, min(size, _MOST), until))

    def attributes(self) -> QueueAttributes:
        found = host_posix.mq_getattr(self.host_fd)
        return QueueAttributes(found.maxmsg, found.msgsize, found.curmsgs)

    def identity(self) -> tuple[int, int]:
        """What no other queue has, however it is named: device and inode number."""
        status = os.fstat(self.host_fd)
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """mq_close(3). Nobody may use it any more, in any thread."""
        os.close(self.host_fd)


def open_(
    name: bytes,
    flags: int,
    mode: int = 0,
    maxmsg: int | None = None,
    msgsize: int | None = None,
    *,
    umask: int,
    nonblock: bool = False,
) -> PosixQueue:
    """mq_open(3). O_NONBLOCK is the caller's affair and not the host's: see the module's docstring.

    ``nonblock``: EAGAIN where it would wait for a lease.
    """
    with explaining(_OPEN, name=shown(name)):
        os.umask(umask)
        wanted = flags & _FLAGS | os.O_NONBLOCK * nonblock
        host_fd = host_posix.mq_open_blocking(name, wanted, mode, maxmsg, msgsize)
    os.set_blocking(host_fd, True)
    return PosixQueue(name, host_fd)


def attributes_now(name: str) -> QueueAttributes:
    """The attributes of a queue by its name in ``mqueue_fs``. Never sleeps; EAGAIN: somebody has a lease on it."""
    with mqueue_fs.opened_now(name) as fd:
        return PosixQueue(os.fsencode(name), fd).attributes()


def unlink(name: bytes) -> None:
    """mq_unlink(3): the name goes at once; who has it open goes on with it."""
    with explaining(_UNLINK, name=shown(name)):
        host_posix.mq_unlink_blocking(name)


def deadline(seconds: int | None, nanoseconds: int | None) -> Timespec | None:
    """An absolute time of the realtime clock; None when nothing is given. EINVAL: it is none."""
    if seconds is None and nanoseconds is None:
        return None
    if (seconds or 0) < 0 or not 0 <= (nanoseconds or 0) < _NS:
        raise SynosError(errno.EINVAL, "the time is none: abs_sec is below 0, or abs_nsec is not from 0 to 999999999")
    return Timespec(seconds or 0, nanoseconds or 0)


def check_priority(priority: int) -> None:
    """EINVAL: above what there is."""
    if priority > PRIORITY_MAX:
        raise SynosError(errno.EINVAL, f"the priority {priority} is above {PRIORITY_MAX}")


def file_name(name: bytes) -> str:
    """The queue's name in the mqueue file system, as os.fsdecode has it."""
    return os.fsdecode(name[1:])
