"""Locks of files: flock(2), and the two kinds of fcntl(2): those of an open file (F_OFD_*), and those of a process.

The first two are the host's own, on the daemon's descriptor. The locks of a process the host would count as the
daemon's, whoever it locked for, and drop all of them whenever the daemon closes the file. So each process has, for each
file that it locks, an open file of its own, reopened by the daemon and used for nothing else, and its locks are that
one's F_OFD locks. Then the host keeps processes apart, from each other and from native programs, and a process from
nothing of its own. They go when the process closes any descriptor of the file, or ends; a child does not inherit them.

The host looks for no deadlock among F_OFD locks, so circles of waits are found here (EDEADLK): who is to wait is noted
first, with what is held noted before, so the last to close a circle sees all of it. What differs from the host's: a
circle that leads through a native program is not found; and one that asks who holds a lock (F_GETLK) reads pid -1,
where a SynOS process reads the true one.

Everything here but ``closing`` may sleep, and belongs in a thread.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from synosfs.errors import SynosError
from synosfs.host import abi, lock, rights
from synosfs.host.errors import explaining
from synosfs.host.lock import Range
from synosfs.ipc import pipe

__all__ = ["Range", "RecordLocks", "flock_blocking", "open_file_lock_blocking"]

_RDLCK, _WRLCK, _UNLCK = abi.LOCK_TYPES.values()

#: The largest offset of a file.
_END = (1 << 63) - 1

#: A process may have so many separate ranges of one file locked.
_MOST_RANGES = 4096

#: So many ranges are looked at for a circle of waits; one behind them is not found, as the host gives up after ten.
_MOST_LOOKED_AT = 20_000

_File = tuple[int, int]

_REASONS = {
    errno.EAGAIN: "another has locked it, or a part of it; F_SETLKW and flock without LOCK_NB wait",
    errno.EBADF: "the descriptor is not open as the lock wants it: F_RDLCK for reading, F_WRLCK for writing",
    errno.EINVAL: "the lock's type is not F_RDLCK, F_WRLCK or F_UNLCK (flock: LOCK_SH, LOCK_EX or LOCK_UN), or it "
    "begins before the file",
    errno.EOVERFLOW: "the lock would end beyond the largest offset",
    errno.EDEADLK: "it would wait for ever: whoever has the lock waits, by itself or through others, for one of the "
    "caller's",
    errno.EINTR: "waiting for the lock was interrupted by a signal",
    errno.ENOLCK: "the host has no memory, or no way, for another lock of this file",
}


def flock_blocking(host_fd: int, operation: int) -> int:
    """flock(2)."""
    with explaining(_REASONS):
        return lock.flock_blocking(host_fd, operation)


def open_file_lock_blocking(host_fd: int, command: int, wanted: Range) -> Range:
    """F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW."""
    with explaining(_REASONS):
        found = lock.lock_blocking(host_fd, command, wanted)
    if command == abi.F_OFD_GETLK and found.type != _UNLCK:
        return _with_holder(_identity(host_fd), found)
    return found


class _Locks:
    """What one process has locked of one file: the open file that has the locks, and a copy of them for who asks."""

    def __init__(self, owner: "RecordLocks", pid: int, file: _File, fd: int) -> None:
        self.owner = owner
        self.pid = pid
        self.file = file
        self.fd = fd
        self.writable = os.O_ACCMODE & _access(fd) != os.O_RDONLY
        self.retired: list[int] = []
        #: First and last byte, and type; in order, and apart from each other.
        self.ranges: list[tuple[int, int, int]] = []
        self.users = 0
        self.closed = False

    def note(self, taken: Range) -> None:
        """The host has done this."""
        first, last = taken.start, _last(taken)
        kept = []
        for start, end, type in self.ranges:
            if start < first:
                kept.append((start, min(end, first - 1), type))
            if end > last:
                kept.append((max(start, last + 1), end, type))
        if taken.type != _UNLCK:
            kept.append((first, last, taken.type))
        self.ranges = sorted({one for one in kept if one[0] <= one[1]})

    def has(self, one: Range) -> bool:
        return any(start <= one.start <= end and type == one.type for start, end, type in self.ranges)

    def stands_against(self, wanted: Range) -> bool:
        last = _last(wanted)
        return any(
            start <= last and wanted.start <= end and _WRLCK in (type, wanted.type) for start, end, type in self.ranges
        )


#: Guards all books of this module, for a moment each time: nobody waits for a lock of a file with it.
_books = threading.Lock()

#: Who has locks of a file.
_holders: dict[_File, set[_Locks]] = {}

#: Who waits, for what of which files: one for each thread.
_waits: "dict[RecordLocks, list[tuple[_File, Range]]]" = {}


class RecordLocks:
    """The locks of one process (fcntl(2), F_SETLK): those of one table of descriptors."""

    def __init__(self) -> None:
        self._files: dict[_File, _Locks] = {}
        #: Held while an open file is made for locks: what is slow about it is slow for this process.
        self._making = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._files)

    def set_blocking(self, pid: int, host_fd: int, wanted: Range, *, wait: bool) -> Range:
        """F_SETLK, or F_SETLKW, for process ``pid``."""
        access = _access(host_fd) & os.O_ACCMODE
        refused = {_RDLCK: os.O_WRONLY, _WRLCK: os.O_RDONLY}
        with explaining(_REASONS):
            if wanted.type not in (_RDLCK, _WRLCK, _UNLCK):
                raise SynosError(errno.EINVAL)
            if refused.get(wanted.type) == access:
                raise SynosError(errno.EBADF)
            absolute = _absolute(host_fd, wanted)
            file = _identity(host_fd)
            if wanted.type == _UNLCK and file not in self._files:
                return wanted
            with self._in_use(pid, file, host_fd, access) as locks:
                if len(locks.ranges) >= _MOST_RANGES and wanted.type != _UNLCK:
                    raise SynosError(errno.ENOLCK, f"{_MOST_RANGES} ranges of this file are locked already")
                fd = locks.fd
                self._lock_blocking(file, fd, absolute, wait=wait)
                with _books:
                    closed = locks.closed
                    if not closed:
                        locks.note(absolute)
                if closed:
                    lock.lock_blocking(fd, abi.F_OFD_SETLK, absolute._replace(type=_UNLCK))
                    raise _closed_meanwhile()
                if fd != locks.fd:  # another thread of the process has taken an open file that can be written
                    lock.lock_blocking(locks.fd, abi.F_OFD_SETLK, absolute)
        return wanted

    def _lock_blocking(self, file: _File, fd: int, wanted: Range, *, wait: bool) -> None:
        try:
            lock.lock_blocking(fd, abi.F_OFD_SETLK, wanted)
        except SynosError as error:
            if not wait or error.errno != errno.EAGAIN:
                raise
        else:
            return
        with _waiting(self, file, wanted):
            lock.lock_blocking(fd, abi.F_OFD_SETLKW, wanted)

    def get_blocking(self, host_fd: int, wanted: Range) -> Range:
        """F_GETLK: the first lock of another that stands against ``wanted``; F_UNLCK and the rest of it when none."""
        with explaining(_REASONS):
            if wanted.type not in (_RDLCK, _WRLCK):
                raise SynosError(errno.EINVAL)
            absolute = _absolute(host_fd, wanted)
            file = _identity(host_fd)
            with _books:
                mine = self._files.get(file)
                fd = -1 if mine is None else os.dup(mine.fd)
            if fd < 0:
                fd = _opened_again(host_fd, os.O_RDONLY)
            try:
                found = lock.lock_blocking(fd, abi.F_OFD_GETLK, absolute)
            finally:
                os.close(fd)
        if found.type == _UNLCK:
            return wanted._replace(type=_UNLCK)
        return _with_holder(file, found)

    def closing(self, host_fd: int) -> Callable[[], None]:
        """The process closes a descriptor of the file. What is returned lets go of its locks, in a thread."""
        try:
            return partial(self._close_blocking, os.dup(host_fd))
        except OSError:  # no descriptor is left: to look at the file here is better than to leave it locked
            return partial(self._let_go, _identity(host_fd))

    def close_blocking(self) -> None:
        """The process has ended."""
        with _books:
            ended = list(self._files)
        for file in ended:
            self._let_go(file)

    def _close_blocking(self, fd: int) -> None:
        try:
            self._let_go(_identity(fd))
        finally:
            os.close(fd)

    def _let_go(self, file: _File) -> None:
        with _books:
            locks = self._files.pop(file, None)
            if locks is None:
                return
            locks.closed = True
            _holders[file].discard(locks)
            if not _holders[file]:
                del _holders[file]
            waiting = locks.users > 0  # then the last one closes the open file
            fds = [os.dup(locks.fd)] if waiting else [locks.fd, *locks.retired]
        if waiting:
            with suppress(OSError):
                lock.lock_blocking(fds[0], abi.F_OFD_SETLK, Range(_UNLCK, 0, 0))
        for fd in fds:
            os.close(fd)

    @contextmanager
    def _in_use(self, pid: int, file: _File, host_fd: int, access: int) -> Iterator[_Locks]:
        locks = self._found(pid, file, host_fd, access)
        try:
            yield locks
        finally:
            with _books:
                locks.users -= 1
                fds: list[int] = []
                if not locks.users:
                    fds, locks.retired = locks.retired, []
                    if locks.closed:
                        fds = [*fds, locks.fd]
            for fd in fds:
                os.close(fd)

    def _found(self, pid: int, file: _File, host_fd: int, access: int) -> _Locks:
        with self._making:
            with _books:
                locks = self._files.get(file)
                if locks is not None and (locks.writable or access == os.O_RDONLY):
                    locks.users += 1
                    return locks
            new = _Locks(self, pid, file, _opened_again(host_fd, access))
            if locks is None:
                with _books:
                    self._files[file] = new
                    _holders.setdefault(file, set()).add(new)
                    new.users += 1
                return new
            try:
                _move(locks, new.fd)
            except OSError:
                os.close(new.fd)
                raise
            return locks


@contextmanager
def _waiting(owner: RecordLocks, file: _File, wanted: Range) -> Iterator[None]:
    """EDEADLK: it would close a circle."""
    wait = file, wanted
    with _books:
        if _closes_a_circle(owner, file, wanted):
            raise SynosError(errno.EDEADLK)
        _waits.setdefault(owner, []).append(wait)
    try:
        yield
    finally:
        with _books:
            _waits[owner].remove(wait)
            if not _waits[owner]:
                del _waits[owner]


def _closes_a_circle(owner: RecordLocks, file: _File, wanted: Range) -> bool:
    """Whether those who stand against it wait for others, and these … for ``owner`` (posix_locks_deadlock)."""
    left, seen, to_see = _MOST_LOOKED_AT, {owner}, [(owner, file, wanted)]
    while to_see:
        waits, file, wanted = to_see.pop()
        for locks in _holders.get(file, ()):
            left -= 1 + len(locks.ranges)
            if left < 0:
                return False
            if locks.owner is waits or not locks.stands_against(wanted):
                continue
            if locks.owner is owner:
                return True
            if locks.owner not in seen:
                seen.add(locks.owner)
                to_see += [(locks.owner, *wait) for wait in _waits.get(locks.owner, ())]
    return False


def _move(locks: _Locks, fd: int) -> None:
    """Take another open file, that can be written, for the locks. So far there are read locks alone, which do not stand
    against each other: they can be in both for a moment. It is not taken if that fails.
    """
    with _books:
        ranges, old = list(locks.ranges), locks.fd
    for start, end, type in ranges:
        lock.lock_blocking(fd, abi.F_OFD_SETLK, Range(type, start, 0 if end == _END else end - start + 1))
    with _books:
        if locks.closed:
            raise _closed_meanwhile()
        locks.retired.append(old)
        locks.fd, locks.writable = fd, True
        locks.users += 1  # so that nobody closes the old one
    with suppress(OSError):
        lock.lock_blocking(old, abi.F_OFD_SETLK, Range(_UNLCK, 0, 0))


def _closed_meanwhile() -> SynosError:
    return SynosError(errno.EBADF, "a descriptor of the file was closed meanwhile, and with it went the lock")


def _with_holder(file: _File, found: Range) -> Range:
    """The host says -1 of who has a lock of an open file; of ours it is known."""
    if found.pid == -1:
        with _books:
            holder = next((locks for locks in _holders.get(file, ()) if locks.has(found)), None)
        if holder is not None:
            return found._replace(pid=holder.pid)
    return found


def _identity(fd: int) -> _File:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _access(fd: int) -> int:
    return pipe.status_flags(fd)


def _opened_again(host_fd: int, access: int) -> int:
    """An open file of its own for the same file, for reading only where the user's is: it makes nobody a writer."""
    path = f"/proc/self/fd/{host_fd}"
    flags = os.O_NONBLOCK | os.O_CLOEXEC
    with rights.acting_as_daemon():
        if access != os.O_RDONLY:
            with suppress(OSError):
                return os.open(path, os.O_RDWR | flags)
        try:
            return os.open(path, access | flags)
        except OSError as error:
            message = f"the daemon cannot open the file once more ({os.strerror(error.errno or 0).lower()}), as it must"
            raise SynosError(errno.ENOLCK, message) from None


def _last(one: Range) -> int:
    return one.start + one.length - 1 if one.length else _END


def _absolute(host_fd: int, wanted: Range) -> Range:
    """The same range, counted from the beginning of the file (flock_to_posix_lock)."""
    match wanted.whence:
        case os.SEEK_SET:
            base = 0
        case os.SEEK_CUR:
            base = os.lseek(host_fd, 0, os.SEEK_CUR)
        case os.SEEK_END:
            base = os.fstat(host_fd).st_size
        case _:
            raise SynosError(
                errno.EINVAL, f"a lock is counted from SEEK_SET, SEEK_CUR or SEEK_END, not {wanted.whence}"
            )
    start, length = base + wanted.start, wanted.length
    if start > _END or start + max(length, 1) - 1 > _END:
        raise SynosError(errno.EOVERFLOW)
    if start < 0 or start + min(length, 0) < 0:
        raise SynosError(errno.EINVAL)
    if length < 0:
        start, length = start + length, -length
    if start + length - 1 == _END:
        length = 0
    return Range(wanted.type, start, length)
