"""Locks of files as the host keeps them for an open file: flock(2), and those of fcntl(2) named F_OFD_*.

Python's fcntl module calls again after EINTR, so a thread that waits for a lock in it could not be freed.
"""

import ctypes
import fcntl
from ctypes import c_int, c_int64, c_short, c_void_p
from typing import NamedTuple

from synosfs.host import abi
from synosfs.host.libc import bind, blocking, checked


class Range(NamedTuple):
    """``struct flock``: F_RDLCK, F_WRLCK or F_UNLCK; where it begins, from what; how long it is (0: to the end)."""

    type: int
    start: int
    length: int
    whence: int = 0
    pid: int = 0


class _Flock(ctypes.Structure):
    _fields_ = (("type", c_short), ("whence", c_short), ("start", c_int64), ("length", c_int64), ("pid", c_int))


_flock = bind(blocking, "flock", c_int, c_int, c_int)
_fcntl = bind(blocking, "fcntl", c_int, c_int, c_int, c_void_p)


def flock_blocking(fd: int, operation: int) -> int:
    """flock(2)."""
    return checked(_flock(fd, operation))


def lock_blocking(fd: int, command: int, wanted: Range) -> Range:
    """F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW: ``wanted``, or for F_OFD_GETLK the first lock that stands against it."""
    lock = _Flock(wanted.type, wanted.whence, wanted.start, wanted.length, wanted.pid)
    checked(_fcntl(fd, command, ctypes.addressof(lock)))
    return Range(lock.type, lock.start, lock.length, lock.whence, lock.pid)


def add_seals(fd: int, seals: int) -> int:
    """F_ADD_SEALS. It takes the inode's lock, so not in the main thread."""
    return fcntl.fcntl(fd, abi.F_ADD_SEALS, seals)


def seals(fd: int) -> int:
    """F_GET_SEALS."""
    return fcntl.fcntl(fd, abi.F_GET_SEALS)
