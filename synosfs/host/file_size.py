"""RLIMIT_FSIZE of another process: how large it may make a file (setrlimit(2)), where the daemon writes for it.

The host would apply the daemon's own limit, which is one for all of its threads. So the process's is read at each call
and applied here, by the rules of the host (generic_write_check_limits, inode_newsize_ok): a write that begins at the
limit is EFBIG, one that crosses it is short, and a file grows to the limit at most by ftruncate. SIGXFSZ, which comes
with EFBIG natively, is not sent.

Where a limit is in force, writes to one file come one after the other, lest two at once begin below it and end above.
What others write natively to a file that is open with O_APPEND is not held up by that.
"""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from synosfs.errors import SynosError
from synosfs.host.limits import UNLIMITED, limits

_RLIMIT_FSIZE = 1


@contextmanager
def room(pid: int, host_fd: int, size: int, offset: int | None = None, *, appends: bool | None = None) -> Iterator[int]:
    """How many of ``size`` bytes the process may write at ``offset`` (None: where the file stands); for the length of
    the body, in which it writes. EFBIG: not one. ``appends``: whether it goes to the end, whatever O_APPEND says.
    """
    limit = _limit(pid) if size else None
    if limit is None or not stat.S_ISREG((status := os.fstat(host_fd)).st_mode):
        yield size
        return
    with _alone(status):
        if appends is None:
            appends = bool(fcntl.fcntl(host_fd, fcntl.F_GETFL) & os.O_APPEND)  # pwrite appends too: pwrite(2), BUGS
        if appends:
            offset = os.fstat(host_fd).st_size
        elif offset is None:
            offset = os.lseek(host_fd, 0, os.SEEK_CUR)
        if offset >= limit:
            raise _too_big(limit)
        yield min(size, limit - offset)


def check_length(pid: int, host_fd: int, length: int) -> None:
    """That the process may give a file this length. EFBIG where it grows beyond the limit."""
    limit = _limit(pid)
    if limit is None or length <= limit:
        return
    status = os.fstat(host_fd)
    if stat.S_ISREG(status.st_mode) and length > status.st_size:
        raise _too_big(limit)


def _limit(pid: int) -> int | None:
    """The soft limit, None: unlimited."""
    soft = limits(pid, _RLIMIT_FSIZE).soft
    return None if soft == UNLIMITED else soft


def _too_big(limit: int) -> SynosError:
    return SynosError(errno.EFBIG, f"the caller makes no file longer than {limit} bytes (RLIMIT_FSIZE, ulimit -f)")


class _Turns:
    """Who writes to a file, and how many are in line for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0


_turns: dict[tuple[int, int], _Turns] = {}
_guard = threading.Lock()


@contextmanager
def _alone(status: os.stat_result) -> Iterator[None]:
    """The body is the only one for this file: nobody waits here for the file of another."""
    file = status.st_dev, status.st_ino
    with _guard:
        turns = _turns.setdefault(file, _Turns())
        turns.wanted += 1
    try:
        with turns.lock:
            yield
    finally:
        with _guard:
            turns.wanted -= 1
            if not turns.wanted:
                del _turns[file]
