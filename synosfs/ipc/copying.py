"""Bytes that go from one descriptor to another without entering the daemon: splice(2), tee(2), sendfile(2),
copy_file_range(2).

A ``Transfer`` is one call, made in steps of an avatar's thread: so a signal ends a long one, with what was copied by
then. A step waits, where the user let it, for a pipe that is empty or full: the daemon's pipes are O_NONBLOCK, and a
step that slept in the host would hold the pipe's lock meanwhile.

The host holds the lock of a pipe for as long as the other end of a splice takes to be read or written, which may be a
file on slow storage. So nobody may touch a pipe in the main thread that has ever been in a splice
(``Description.apart``).
"""

import errno
import select
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from synosfs.errors import WouldBlock
from synosfs.host import copying, file_size
from synosfs.host import file as host_file
from synosfs.host.errors import explained
from synosfs.ipc import pipe

#: How much one step moves at most: some 5 ms for what is in the page cache.
_STEP = 16 << 20

_REASONS = {
    errno.EBADF: "the first descriptor has to be open for reading, and the second for writing, without O_APPEND",
    errno.EINVAL: "not between these two: splice wants a pipe, and tee two different ones; sendfile a file to read; "
    "copy_file_range two files, and ranges that do not overlap; none a target with O_APPEND or an unknown flag",
    errno.ESPIPE: "a pipe has no offset",
    errno.EXDEV: "the two file systems do not copy to each other; sendfile does",
    errno.EPIPE: "nobody reads at the other end",
    errno.EAGAIN: "it would wait, and O_NONBLOCK or SPLICE_F_NONBLOCK says not to",
    errno.EISDIR: "one of the two is a directory",
    errno.EFBIG: "the file would be longer than its file system, or RLIMIT_FSIZE, allows",
    errno.ENOSPC: "no space is left on the file's device",
    errno.EINTR: "interrupted by a signal",
    errno.EOVERFLOW: "an offset or a length is beyond the largest",
    errno.ETXTBSY: "one of the two is used as swap space",
}


class End(NamedTuple):
    """One of the two descriptors: how to get at its host descriptor, for one step, and the offset that was given;
    whether it may be a file, which RLIMIT_FSIZE limits.
    """

    borrow: Callable[[], AbstractContextManager[int]]
    offset: int | None = None
    has_size: bool = True

    def moved(self, count: int) -> "End":
        return self if self.offset is None else self._replace(offset=self.offset + count)


#: One host call: source, its offset, target, its offset, how much.
Move = Callable[[int, int | None, int, int | None, int], int]


class Transfer:
    """One call that moves up to ``size`` bytes for process ``pid``; ``done`` counts them.

    ``once``: it has ended with the first that moved, as splice and tee do. ``wait``: it waits for what its pipes want.
    """

    def __init__(self, move: Move, source: End, target: End, size: int, pid: int, *, once: bool, wait: bool) -> None:
        self._move = move
        self.source = source
        self.target = target
        self._size = size
        self._pid = pid
        self._once = once
        self._wait = wait
        self._began = False
        self.done = 0

    def step(self) -> bool:
        """Move some, or wait until that can be; whether the call has ended. WouldBlock: it may not wait."""
        return self._step(wait=self._wait)

    def first(self) -> bool:
        """As ``step``, without waiting. WouldBlock."""
        return self._step(wait=False)

    def _step(self, *, wait: bool) -> bool:
        with self.source.borrow() as source, self.target.borrow() as target:
            try:
                count = self._moved(source, target)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise explained(error, _REASONS) from None
                if self.done:
                    return True
                if not wait:
                    raise WouldBlock(errno.EAGAIN, _REASONS[errno.EAGAIN]) from None
                _wait_blocking(source, target)
                return False
        self._began = True
        self.done += count
        self.source, self.target = self.source.moved(count), self.target.moved(count)
        return not count or self._once or self.done >= self._size

    def so_far(self) -> int | None:
        """The answer, once there is one."""
        return self.done if self._began else None

    def _moved(self, source: int, target: int) -> int:
        size = min(self._size - self.done, _STEP)
        if not self.target.has_size:
            return self._move(source, self.source.offset, target, self.target.offset, size)
        with file_size.room(self._pid, target, size, self.target.offset) as room:
            return self._move(source, self.source.offset, target, self.target.offset, room)


def splice(flags: int) -> Move:
    """Between a pipe and anything, by these flags."""

    def move(source: int, offset: int | None, target: int, to: int | None, size: int) -> int:
        return copying.splice_blocking(source, offset, target, to, size, flags)

    return move


def tee(flags: int) -> Move:
    """From a pipe into another, and it stays in the first."""

    def move(source: int, _offset: int | None, target: int, _to: int | None, size: int) -> int:
        return copying.tee_blocking(source, target, size, flags)

    return move


def sendfile(source: int, offset: int | None, target: int, _to: int | None, size: int) -> int:
    """From a file to anything."""
    return copying.sendfile_blocking(source, offset, target, size)


def copy_file_range(flags: int) -> Move:
    """From a file to a file, by reference where that can be done."""

    def move(source: int, offset: int | None, target: int, to: int | None, size: int) -> int:
        return copying.copy_file_range_blocking(source, offset, target, to, size, flags)

    return move


def _wait_blocking(source: int, target: int) -> None:
    """Until whichever of the two is not ready, is; a file always is. EINTR."""
    if not pipe.is_ready(source):
        host_file.wait_ready_blocking(source, select.POLLIN)
    elif not pipe.is_ready(target, writable=True):
        host_file.wait_ready_blocking(target, select.POLLOUT)
    else:
        time.sleep(0.001)  # what was not, is by now; or the host has reasons of its own, and is not to be pestered
