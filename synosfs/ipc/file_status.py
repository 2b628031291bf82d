"""What a file of the host's is like, and changes of that: looked at and made for a SynOS process, by its paths and with
its rights. What takes ``host_fd`` takes any descriptor, O_PATH ones too where the call of C does.

Looking works in our own mount as well; changing is EDEADLK there. Every function may sleep, as those of ``file``: all
of them belong in an avatar's thread.
"""

import errno
import os
import stat
from contextlib import AbstractContextManager
from time import time_ns
from typing import Any

from synosfs.errors import SynosError
from synosfs.host import file_size, inode, rights
from synosfs.host import path as walk
from synosfs.host.abi import AT_EACCESS, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, UTIME_NOW, UTIME_OMIT
from synosfs.host.credentials import Credentials
from synosfs.host.errors import explaining
from synosfs.host.path import Place
from synosfs.ipc.change import Change


def status(place: Place, path: str, flags: int = 0) -> os.stat_result:
    """stat(2) of what a path of the process's leads to; ``flags``: AT_SYMLINK_NOFOLLOW."""
    with _found(place, path, flags) as fd:
        return fstat(fd)


def fstat(host_fd: int) -> os.stat_result:
    return os.fstat(host_fd)


def statx(place: Place, path: str, flags: int, mask: int) -> dict[str, Any]:
    """The fields of ``struct statx``, its times in nanoseconds."""
    with _found(place, path, flags) as fd, explaining(_REASONS, path=path):
        return fstatx(fd, flags, mask)


def fstatx(host_fd: int, flags: int, mask: int) -> dict[str, Any]:
    """statx(2) with AT_EMPTY_PATH."""
    return inode.statx_blocking(host_fd, flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH), mask)._asdict()


def statfs(place: Place, path: str) -> dict[str, Any]:
    """The fields of ``struct statfs``."""
    with walk.found(place, path) as fd:
        return fstatfs(fd)


def fstatfs(host_fd: int) -> dict[str, Any]:
    return inode.fstatfs_blocking(host_fd)._asdict()


def access(place: Place, path: str, mode: int, flags: int, whose: Credentials) -> None:
    """faccessat2(2), with the rights of ``whose``: those by the process's real ids, or by its effective ones.

    The host is asked by a thread's effective ids in any case: its real ones are the daemon's.
    """
    with rights.acting_as_daemon(), rights.acting_as(whose), _found(place, path, flags) as fd:
        faccess(fd, mode, path)


def faccess_as(host_fd: int, mode: int, path: str, whose: Credentials) -> None:
    """As ``access``, with AT_EMPTY_PATH."""
    with rights.acting_as_daemon(), rights.acting_as(whose):
        faccess(host_fd, mode, path)


def faccess(host_fd: int, mode: int, path: str) -> None:
    with explaining(_ACCESS, path=path):
        inode.faccessat2_blocking(host_fd, mode, AT_EACCESS)


def truncate(place: Place, path: str, length: int) -> None:
    """Set the size of a regular file. EFBIG: beyond RLIMIT_FSIZE."""
    if length < 0:
        raise SynosError(errno.EINVAL, f"length {length} is negative")
    with walk.found(place, path) as fd, explaining(_REASONS, path=path):
        mode = fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise SynosError(
                *(errno.EISDIR, "") if stat.S_ISDIR(mode) else (errno.EINVAL, f"{path} is no regular file")
            )
        walk.refuse_change(place, fd, path)
        faccess(fd, os.W_OK, path)  # before the length is looked at
        file_size.check_length(place.pid, fd, length)
        inode.truncate_blocking(fd, length)


def change(place: Place, path: str, wanted: Change, flags: int = 0) -> None:
    """chmod(2) and chown(2) of what a path leads to; ``flags``: AT_SYMLINK_NOFOLLOW."""
    with _found(place, path, flags) as fd:
        walk.refuse_change(place, fd, path)
        change_open(fd, wanted, path)


def change_open(host_fd: int, wanted: Change, path: str) -> None:
    """As ``change``, of what a descriptor stands for."""
    with explaining(_CHANGE, path=path):
        if wanted.mode is not None:
            if stat.S_ISLNK(fstat(host_fd).st_mode):
                raise SynosError(errno.EOPNOTSUPP, f"{path} is a symbolic link, which has no mode of its own")
            os.chmod(inode.link(host_fd), wanted.mode)
        if wanted.uid is not None or wanted.gid is not None or wanted == Change():
            inode.chown_blocking(host_fd, wanted.uid, wanted.gid)


def set_times(place: Place, path: str, atime_ns: int | None, mtime_ns: int | None, flags: int = 0) -> None:
    """utimensat(2): without either time both are now; without one of them, that one stays."""
    with _found(place, path, flags) as fd:
        walk.refuse_change(place, fd, path)
        set_open_times(fd, path, atime_ns, mtime_ns)


def set_open_times(host_fd: int, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
    """futimens(3)."""
    if atime_ns is None and mtime_ns is None:
        atime_ns = mtime_ns = UTIME_NOW
    with explaining(_CHANGE, path=path):
        inode.utime_blocking(
            host_fd, UTIME_OMIT if atime_ns is None else atime_ns, UTIME_OMIT if mtime_ns is None else mtime_ns
        )


def times_of(atime_ns: int | None, mtime_ns: int | None) -> Change:
    """The same for what the daemon keeps itself: UTIME_NOW is this moment."""
    now = time_ns()
    atime_ns, mtime_ns = (
        now if time == UTIME_NOW else None if time == UTIME_OMIT else time for time in (atime_ns, mtime_ns)
    )
    return Change(atime_ns=atime_ns, mtime_ns=mtime_ns)


def refuse_stand_in(host_fd: int) -> None:
    """EBADF: the descriptor is /dev/null, which stands in for a stream that the process has not, and is nobody's to
    change (``file.standard_stream``).
    """
    with rights.acting_as_daemon():
        if os.path.samestat(os.fstat(host_fd), os.stat(os.devnull)):
            raise SynosError(
                errno.EBADF, "the stream is /dev/null, or one that may not be had, and is not changed here"
            )


def _found(place: Place, path: str, flags: int) -> AbstractContextManager[int]:
    return walk.found(place, path, os.O_NOFOLLOW if flags & AT_SYMLINK_NOFOLLOW else 0)


_REASONS = {
    **walk.REASONS,
    errno.EISDIR: "{path} is a directory",
    errno.EROFS: "{path} is in a file system that is mounted read-only",
    errno.ETXTBSY: "{path} is a program that is running",
    errno.EPERM: "{path} cannot be changed (an immutable or append-only file)",
    errno.EINVAL: "the flags or the mask are not for this call",
}
_ACCESS = {
    **_REASONS,
    errno.EACCES: "{path}: its mode does not let the caller",
    errno.EINVAL: "a mode is made of R_OK W_OK X_OK",
}
_CHANGE = {
    **_REASONS,
    errno.EPERM: "{path} is another user's, or cannot be changed; giving it away takes CAP_CHOWN, or for a group that "
    "you are in it",
}
