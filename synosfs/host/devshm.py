"""The names of POSIX semaphores and shared memory: files in /dev/shm, as glibc makes them (shm-directory.c).

A name has any number of leading slashes, which count for nothing, and then no other. A name that is none is EINVAL to
who opens and ENOENT to who unlinks.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int

from synosfs.errors import SynosError
from synosfs.host import shared_directory
from synosfs.host.libc import bind, blocking, checked

DIRECTORY = "/dev/shm"

#: What a semaphore's file is called before its name.
SEMAPHORE = "sem."

#: Where glibc stops looking at a name (NAME_MAX, and room for "sem."); the host's own limit is lower.
_MOST_BYTES = 259

_linkat = bind(blocking, "linkat", c_int, c_int, c_char_p, c_int, c_char_p, c_int)
_AT_SYMLINK_FOLLOW = 0x400


def file_name(name: bytes, prefix: str = "") -> str:
    """The name of the file, EINVAL where the name is none."""
    stripped = name.lstrip(b"/")
    if not stripped or b"/" in stripped or len(prefix) + len(stripped) > _MOST_BYTES:
        raise SynosError(errno.EINVAL)
    return prefix + os.fsdecode(stripped)


@contextmanager
def directory() -> Iterator[int]:
    """A descriptor of the directory, as it is mounted now."""
    fd = os.open(DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def prepare() -> None:
    """Ask what kind of directory it is; once, before the mount serves."""
    with directory() as fd:
        shared_directory.is_in_memory(fd)


def open_blocking(file: str, flags: int, mode: int = 0) -> int:
    """open(2) of a file in it; see ``shared_directory``."""
    with directory() as parent:
        return shared_directory.open_blocking(parent, file, flags, mode)


def create_blocking(file: str, mode: int, contents: bytes) -> int:
    """Make a file that is seen with its contents or not at all; a descriptor of it. EEXIST: the name is taken."""
    with directory() as parent:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode & 0o7777, dir_fd=parent)
        try:
            os.write(fd, contents)
            source = shared_directory.path_of(fd).encode()
            checked(_linkat(parent, source, parent, os.fsencode(file), _AT_SYMLINK_FOLLOW))
        except BaseException:
            os.close(fd)
            raise
        return fd


def unlink_blocking(file: str) -> None:
    """unlink(2), and what glibc makes of EPERM."""
    with directory() as parent:
        try:
            os.unlink(file, dir_fd=parent)
        except PermissionError:
            raise SynosError(errno.EACCES) from None


def names(prefix: str = "") -> list[str]:
    """The files whose names begin so, without that beginning; names that are not UTF-8 as os.fsdecode has them."""
    try:
        files = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    return [file.removeprefix(prefix) for file in files if file.startswith(prefix)]


@contextmanager
def found(file: str) -> Iterator[tuple[int, os.stat_result]]:
    """A look at a regular file; see ``shared_directory``."""
    with directory() as parent, shared_directory.found(parent, file) as seen:
        yield seen
