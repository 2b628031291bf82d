"""A flat directory that all users share: /dev/shm, the mqueue file system. Anybody makes names in it, of anything.

Two ways to a file, and neither follows a symbolic link, or goes into a file system that somebody has mounted over the
name (an ordinary user may do so over a file of theirs, and such a server may answer never):

- a *look* (``found``, ``opened_now``) never sleeps, so the main thread may take it: it takes a name from the kernel's
  cache of names, in which such a file system has all that exist; what is no regular file is not opened; and a lease
  (F_SETLEASE) is not waited for, but WouldBlock;
- ``open_blocking`` opens as open(2) does. It may sleep, until a lease is given up or a FIFO has its other end, and so
  belongs in a thread of the caller's; EINTR ends it.

So do all calls that change a name or a file: others may hold the locks that they need for as long as they like, by a
write(2) to their own file whose data comes from a page that does not come.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from synosfs.errors import SynosError, WouldBlock
from synosfs.host.abi import RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV
from synosfs.host.file import filesystem_type, openat2_blocking, openat2_nowait

_RESOLVE = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH  # and O_NOFOLLOW, for the name itself

#: File systems that are the kernel's cache of names and nothing else: tmpfs, ramfs, mqueue (<linux/magic.h>).
_IN_MEMORY = frozenset((0x01021994, 0x858458F6, 0x19800202))

#: How often a look is taken anew that a renaming elsewhere has spoilt.
_LOOKS = 3


def open_blocking(directory: int, name: str, flags: int, mode: int = 0) -> int:
    """openat2(2) of a name, as open(2) says; a symbolic link is ELOOP. EXDEV: something is mounted over it."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    return openat2_blocking(directory, os.fsencode(name), flags, _RESOLVE, mode & 0o7777 if flags & os.O_CREAT else 0)


@contextmanager
def found(directory: int, name: str) -> Iterator[tuple[int, os.stat_result]]:
    """An O_PATH descriptor of a regular file, and its status, for the length of the body. Never sleeps.

    ENOENT: there is none, or what has the name is something else.
    """
    fd = _cached(directory, name)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SynosError(errno.ENOENT, f"{name} is no regular file")
        yield fd, status
    finally:
        os.close(fd)


@contextmanager
def opened_now(fd: int, flags: int) -> Iterator[int]:
    """What ``found`` has found, opened in earnest with the calling thread's rights. Never sleeps.

    WouldBlock (EAGAIN): somebody has a lease on it.
    """
    try:
        opened = os.open(path_of(fd), flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        raise WouldBlock(errno.EAGAIN, "somebody has a lease on it; look again later") from None
    try:
        yield opened
    finally:
        os.close(opened)


def path_of(fd: int) -> str:
    """A path to the very file that a descriptor is of, whatever its name leads to by now."""
    return f"/proc/self/fd/{fd}"


def is_in_memory(directory: int) -> bool:
    """Whether the directory is in one of those file systems. The host is asked once for each; ask before serving."""
    device = os.fstat(directory).st_dev
    known = _known.get(device)
    if known is None:
        known = _known[device] = filesystem_type(directory) in _IN_MEMORY
    return known


#: By device number.
_known: dict[int, bool] = {}


def _cached(directory: int, name: str) -> int:
    """Where names are kept elsewhere than in memory, looking one up is what it is for everybody."""
    flags, resolve = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, _RESOLVE
    in_memory = is_in_memory(directory)
    for _ in range(_LOOKS):
        try:
            if in_memory:
                return openat2_nowait(directory, os.fsencode(name), flags, resolve | RESOLVE_CACHED)
            return openat2_blocking(directory, os.fsencode(name), flags, resolve)
        except SynosError as error:
            if error.errno == errno.EXDEV:
                break
            if error.errno != errno.EAGAIN:
                raise
    raise SynosError(errno.ENOENT)
