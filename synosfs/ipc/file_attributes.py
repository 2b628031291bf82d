"""Extended attributes of the host's files (xattr(7)), read and set for a SynOS process by its paths, with its rights.

As in ``file_status``: looking works in our own mount, changing is EDEADLK there, and all belongs in an avatar's thread.
``flags`` may be AT_SYMLINK_NOFOLLOW.
"""

import errno
import os
from contextlib import AbstractContextManager

from synosfs.host import inode
from synosfs.host import path as walk
from synosfs.host.abi import AT_SYMLINK_NOFOLLOW
from synosfs.host.errors import explaining
from synosfs.host.path import Place

#: The most bytes that a value, or a list of names, has (XATTR_SIZE_MAX, XATTR_LIST_MAX).
MOST_BYTES = 65536


def get(place: Place, path: str, name: bytes, flags: int) -> bytes:
    """getxattr(2)."""
    with _found(place, path, flags) as fd:
        return get_open(inode.link(fd), path, name)


def get_open(file: int | bytes, path: str, name: bytes) -> bytes:
    """fgetxattr(2)."""
    with _explaining(path, name):
        return os.getxattr(file, name)


def names(place: Place, path: str, flags: int) -> bytes:
    """listxattr(2): names, each with a byte 0 behind it."""
    with _found(place, path, flags) as fd:
        return names_open(inode.link(fd), path)


def names_open(file: int | bytes, path: str) -> bytes:
    """flistxattr(2)."""
    with _explaining(path, b""):
        return b"".join(os.fsencode(name) + b"\0" for name in os.listxattr(file))


def put(place: Place, path: str, name: bytes, value: bytes, how: int, flags: int) -> None:
    """setxattr(2); ``how``: XATTR_CREATE, XATTR_REPLACE."""
    with _found(place, path, flags) as fd:
        walk.refuse_change(place, fd, path)
        put_open(inode.link(fd), path, name, value, how)


def put_open(file: int | bytes, path: str, name: bytes, value: bytes, how: int) -> None:
    """fsetxattr(2)."""
    with _explaining(path, name):
        os.setxattr(file, name, value, how)


def remove(place: Place, path: str, name: bytes, flags: int) -> None:
    """removexattr(2)."""
    with _found(place, path, flags) as fd:
        walk.refuse_change(place, fd, path)
        remove_open(inode.link(fd), path, name)


def remove_open(file: int | bytes, path: str, name: bytes) -> None:
    """fremovexattr(2)."""
    with _explaining(path, name):
        os.removexattr(file, name)


def _found(place: Place, path: str, flags: int) -> AbstractContextManager[int]:
    return walk.found(place, path, os.O_NOFOLLOW if flags & AT_SYMLINK_NOFOLLOW else 0)


def _explaining(path: str, name: bytes) -> explaining:
    return explaining(_REASONS, path=path, name=name.decode("utf-8", "backslashreplace"))


_REASONS = {
    **walk.REASONS,
    errno.ENODATA: "{path} has no attribute {name}",
    errno.EEXIST: "{path} has an attribute {name} already, and XATTR_CREATE asked for a new one",
    errno.EOPNOTSUPP: "{path}: its file system has none of these; a name is user.…, trusted.…, security.… or system.…",
    errno.EPERM: "{path}: {name} is not for this kind of file, or not for this user (trusted.… is root's)",
    errno.ERANGE: "a name of an attribute has from 1 to 255 bytes",
    errno.EROFS: "{path} is in a file system that is mounted read-only",
    errno.E2BIG: "a value has up to 65536 bytes",
    errno.ENOSPC: "{path} has no room for this attribute",
}
