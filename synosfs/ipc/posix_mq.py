"""POSIX message queues: the host's own, by name (mq_overview(7)).

The host descriptor is *not* O_NONBLOCK, whatever the caller asked for: not to wait is said with a time that has passed,
and to wait is to wait in the kernel, in a thread. Only so does a caller have its place among native receivers, in
their order, and only so does the kernel know that somebody waits, and notify nobody (mq_notify(3)).
"""

import errno
import os
from dataclasses import dataclass
from typing import NamedTuple

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import posix as host_posix
from synosfs.host.posix import Timespec
from synosfs.ipc import mqueue_fs

#: The most bytes that are received at once here; the largest message of an unprivileged queue is far below.
_MOST = 1 << 24

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
}
_SEND = {
    errno.EBADF: "queue {name} is not open for writing",
    errno.EMSGSIZE: "the message is larger than the msgsize of queue {name}; see mq_getattr",
    errno.EINVAL: f"the priority is above {host_posix.PRIORITY_MAX}, or the time is no time",
    errno.ETIMEDOUT: "queue {name} stayed full",
}
_RECEIVE = {
    errno.EBADF: "queue {name} is not open for reading",
    errno.EMSGSIZE: "the size is smaller than the msgsize of queue {name}; see mq_getattr",
    errno.EINVAL: "the time is no time: abs_sec is below 0, or abs_nsec is not from 0 to 999999999",
    errno.ETIMEDOUT: "queue {name} stayed empty",
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

    def send_nowait(self, data: bytes, priority: int, until: Timespec | None = None) -> None:
        """mq_timedsend(3). WouldBlock (EAGAIN) when the queue is full."""
        try:
            host_posix.mq_send_nowait(self.host_fd, data, priority, until)
        except SynosError as error:
            if error.errno == errno.ETIMEDOUT:
                raise WouldBlock(errno.EAGAIN, f"queue {self._shown} is full") from None
            raise self._explained(error, _SEND) from None

    def send(self, data: bytes, priority: int, until: Timespec | None = None) -> None:
        """mq_timedsend(3), waiting for room until a CLOCK_REALTIME: ETIMEDOUT, EINTR on a signal to this thread."""
        try:
            host_posix.mq_send_blocking(self.host_fd, data, priority, until)
        except SynosError as error:
            raise self._explained(error, _SEND) from None

    def receive_nowait(self, size: int, until: Timespec | None = None) -> Message:
        """mq_timedreceive(3): the oldest of the highest priority. WouldBlock (EAGAIN) when the queue is empty."""
        try:
            return Message(*host_posix.mq_receive_nowait(self.host_fd, min(size, _MOST), until))
        except SynosError as error:
            if error.errno == errno.ETIMEDOUT:
                raise WouldBlock(errno.EAGAIN, f"queue {self._shown} is empty") from None
            raise self._explained(error, _RECEIVE) from None

    def receive(self, size: int, until: Timespec | None = None) -> Message:
        """mq_timedreceive(3), waiting for a message."""
        try:
            return Message(*host_posix.mq_receive_blocking(self.host_fd, min(size, _MOST), until))
        except SynosError as error:
            raise self._explained(error, _RECEIVE) from None

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

    @property
    def _shown(self) -> str:
        return host_posix.shown(self.name)

    def _explained(self, error: SynosError, reasons: dict[int, str]) -> SynosError:
        return _explained(error, self.name, reasons)


def open_(
    name: bytes, flags: int, mode: int = 0, maxmsg: int | None = None, msgsize: int | None = None, *, umask: int = 0
) -> PosixQueue:
    """mq_open(3). O_NONBLOCK is the caller's affair and not the host's: see the module's docstring."""
    try:
        with host_posix.creating_with(umask):
            host_fd = host_posix.mq_open(name, flags & ~os.O_NONBLOCK, mode, maxmsg, msgsize)
    except SynosError as error:
        raise _explained(error, name, _OPEN) from None
    mqueue_fs.note_opened(os.fsdecode(name[1:]))
    return PosixQueue(name, host_fd)


def unlink(name: bytes) -> None:
    """mq_unlink(3): the name goes at once; who has it open goes on with it."""
    try:
        host_posix.mq_unlink(name)
    except SynosError as error:
        raise _explained(error, name, _OPEN) from None


def _explained(error: SynosError, name: bytes, reasons: dict[int, str]) -> SynosError:
    reason = reasons.get(error.errno)
    return SynosError(error.errno, reason.format(name=host_posix.shown(name))) if reason else error
