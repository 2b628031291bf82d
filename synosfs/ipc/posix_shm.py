"""POSIX shared memory objects: the host's own, by name (shm_overview(7)).

An object is a file in /dev/shm; opening one gives a host descriptor, on which read, write, lseek and ftruncate work as
on any file. Anybody may make and shape such files, so everything here belongs in a thread of the caller's, which may
sleep there as the caller would natively: in a FIFO that has the name, or until somebody has given up a lease.
"""

import errno
import os
import stat

from synosfs.errors import SynosError, shown
from synosfs.host import devshm
from synosfs.host.errors import explaining
from synosfs.ipc.file import Opened

_FLAGS = os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC

_NAME = {
    errno.ENOENT: "no shared memory object is named {name}; add O_CREAT to make it",
    errno.EEXIST: "a shared memory object named {name} exists, and O_CREAT|O_EXCL asked for a new one",
    errno.EACCES: "the mode of {name} does not let the caller do this; see its mode and owner in shm/posix",
    errno.EINVAL: "{name} is no name of a shared memory object (/name, without another slash, is), or a flag is not "
    "for shm_open, or it is a directory",
    errno.ENAMETOOLONG: "{name} is longer than 255 bytes",
    errno.ELOOP: "what is named {name} is a symbolic link, which is not followed",
    errno.ENXIO: "what is named {name} is a socket, or a FIFO that nobody reads",
    errno.EXDEV: "another file system is mounted over {name}, and nobody is led into that one",
    errno.EAGAIN: "somebody has a lease on {name}, and O_NONBLOCK says not to wait",
    errno.EINTR: "{name}: interrupted by a signal",
}
_UNLINK = {
    **_NAME,
    errno.ENOENT: "no shared memory object is named {name}",
    errno.EACCES: "{name} belongs to another user, and /dev/shm is sticky: its owner may unlink it",
}


def open_(name: bytes, flags: int, mode: int, umask: int, *, nonblock: bool = False) -> Opened:
    """shm_open(3): a host descriptor, of size 0 when the object is new. A FIFO is opened as one, and is one.

    ``nonblock``: as O_NONBLOCK.
    """
    with explaining(_NAME, name=shown(name)):
        if flags & ~_FLAGS:
            raise SynosError(errno.EINVAL)
        file = devshm.file_name(name)
        os.umask(umask)
        try:
            host_fd = devshm.open_blocking(file, flags | os.O_NONBLOCK * nonblock, mode)
        except SynosError as error:
            if error.errno == errno.EISDIR:
                raise SynosError(errno.EINVAL) from None  # as glibc says: a directory is no memory
            raise
    if stat.S_ISFIFO(os.fstat(host_fd).st_mode):
        os.set_blocking(host_fd, False)
        return Opened(host_fd, "fifo")
    os.set_blocking(host_fd, not flags & os.O_NONBLOCK)  # what the user asked for, and not what the session did
    return Opened(host_fd, "shm")


def unlink(name: bytes) -> None:
    """shm_unlink(3): the name goes at once, the memory with its last user."""
    with explaining(_UNLINK, name=shown(name)):
        try:
            file = devshm.file_name(name)
        except SynosError:
            raise SynosError(errno.ENOENT) from None  # as glibc says of what is no name
        devshm.unlink_blocking(file)


def file_name(name: bytes) -> str:
    """What the object's file is called in /dev/shm."""
    return devshm.file_name(name)


def path(name: bytes) -> str:
    """Where the object is as a file."""
    return f"{devshm.DIRECTORY}/{devshm.file_name(name)}"
