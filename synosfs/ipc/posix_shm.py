"""POSIX shared memory objects: the host's own, by name (shm_overview(7)).

An object is a file in /dev/shm; opening one gives a host descriptor, on which read, write, lseek and ftruncate work as
on any file.
"""

import errno
import os

from synosfs.errors import SynosError
from synosfs.host import posix as host_posix

_EXPLAINED = {
    errno.ENOENT: "no shared memory object is named {name}; add O_CREAT to make it",
    errno.EEXIST: "a shared memory object named {name} exists, and O_CREAT|O_EXCL asked for a new one",
    errno.EACCES: "the mode of {name} does not let the caller do this; see its mode and owner in shm/posix",
    errno.EINVAL: "{name} is no name of a shared memory object: /name, without another slash, is",
    errno.ENAMETOOLONG: "{name} is longer than 255 bytes",
}


def open_(name: bytes, flags: int, mode: int, umask: int) -> int:
    """shm_open(3): a host descriptor, of size 0 when the object is new."""
    try:
        with host_posix.creating_with(umask):
            return host_posix.shm_open(name, flags, mode)
    except SynosError as error:
        raise _explained(error, name) from None


def unlink(name: bytes) -> None:
    """shm_unlink(3): the name goes at once, the memory with its last user."""
    try:
        host_posix.shm_unlink(name)
    except SynosError as error:
        raise _explained(error, name) from None


def path(name: bytes) -> str:
    """Where the object is as a file."""
    return "/dev/shm/" + os.fsdecode(name.lstrip(b"/"))


def truncate(host_fd: int, length: int) -> int:
    """ftruncate(2). EINVAL: not open for writing, a negative length, or nothing that has a length."""
    try:
        host_posix.ftruncate(host_fd, length)
        return 0
    except SynosError as error:
        if error.errno == errno.EINVAL:
            message = f"length {length} is negative, or the descriptor is not of a file open for writing"
            raise SynosError(errno.EINVAL, message) from None
        raise


def _explained(error: SynosError, name: bytes) -> SynosError:
    reason = _EXPLAINED.get(error.errno)
    return SynosError(error.errno, reason.format(name=host_posix.shown(name))) if reason else error
