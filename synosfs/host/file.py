"""Files of the host as system calls give them: those that may sleep, and those that Python has not.

``os.open``, ``os.read`` and ``os.write`` call again after EINTR, which only the main thread can stop; a thread that
sleeps in one could not be freed. The ``*_blocking`` functions here return EINTR to their caller.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_int64, c_long, c_short, c_size_t, c_ssize_t, c_uint, c_uint64, c_ulong, c_void_p
from typing import NamedTuple

from synosfs.host.abi import RESOLVE_CACHED
from synosfs.host.libc import bind, blocking, checked, syscall, syscall_blocking

#: statfs(2): f_type of procfs.
PROC_SUPER_MAGIC = 0x9FA0


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of <linux/openat2.h>."""

    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class _IoVec(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", c_void_p), ("length", c_size_t))


class _PollFd(ctypes.Structure):
    """``struct pollfd``."""

    _fields_ = (("fd", c_int), ("events", c_short), ("revents", c_short))


class _Statfs(ctypes.Structure):
    """``struct statfs`` of <asm-generic/statfs.h>, of which one field is wanted here."""

    _fields_ = (("type", c_long), ("_rest", c_long * 14))


_open = bind(blocking, "open", c_int, c_char_p, c_int, c_uint)
_read = bind(blocking, "read", c_ssize_t, c_int, c_void_p, c_size_t)
_write = bind(blocking, "write", c_ssize_t, c_int, c_char_p, c_size_t)
_fstatfs = bind(blocking, "fstatfs", c_int, c_int, c_void_p)
_preadv2 = bind(blocking, "preadv2", c_ssize_t, c_int, c_void_p, c_int, c_int64, c_int)
_pwritev2 = bind(blocking, "pwritev2", c_ssize_t, c_int, c_void_p, c_int, c_int64, c_int)
_poll = bind(blocking, "poll", c_int, c_void_p, c_ulong, c_int)
_fsync = bind(blocking, "fsync", c_int, c_int)
_fdatasync = bind(blocking, "fdatasync", c_int, c_int)
_syncfs = bind(blocking, "syncfs", c_int, c_int)
_sync_file_range = bind(blocking, "sync_file_range", c_int, c_int, c_int64, c_int64, c_uint)
_fallocate = bind(blocking, "fallocate", c_int, c_int, c_int, c_int64, c_int64)
_ftruncate = bind(blocking, "ftruncate", c_int, c_int, c_int64)
_readahead = bind(blocking, "readahead", c_ssize_t, c_int, c_int64, c_size_t)


def open_blocking(path: str, flags: int, mode: int = 0) -> int:
    """open(2). A FIFO waits for its other end."""
    return checked(_open(path.encode("utf-8", "surrogateescape"), flags, mode))


def openat2_blocking(directory: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2)."""
    how = _OpenHow(flags, mode, resolve)
    return syscall_blocking("openat2", c_int(directory), path, ctypes.byref(how), c_size_t(ctypes.sizeof(how)))


def openat2_nowait(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """openat2(2) with RESOLVE_CACHED, and O_PATH: never sleeps."""
    assert resolve & RESOLVE_CACHED
    assert flags & os.O_PATH
    how = _OpenHow(flags, 0, resolve)
    return syscall("openat2", c_int(directory), path, ctypes.byref(how), c_size_t(ctypes.sizeof(how)))


def pidfd_getfd_blocking(pidfd: int, number: int) -> int:
    """A duplicate of another process's descriptor: the same open file, offset and flags included. It waits for the end
    of the process's exec (``asking``).
    """
    return syscall_blocking("pidfd_getfd", c_int(pidfd), c_int(number), c_uint(0))


def read_blocking(fd: int, size: int) -> bytes:
    """read(2)."""
    buffer = ctypes.create_string_buffer(size)
    return ctypes.string_at(buffer, checked(_read(fd, buffer, size)))


def write_blocking(fd: int, data: bytes) -> int:
    """write(2)."""
    return checked(_write(fd, data, len(data)))


def read_at_blocking(fd: int, size: int, offset: int, flags: int = 0) -> bytes:
    """preadv2(2) of one piece; an offset of -1 is where the file stands."""
    buffer = ctypes.create_string_buffer(size)
    piece = _IoVec(ctypes.addressof(buffer), size)
    return ctypes.string_at(buffer, checked(_preadv2(fd, ctypes.addressof(piece), 1, offset, flags)))


def write_at_blocking(fd: int, data: bytes, offset: int, flags: int = 0) -> int:
    """pwritev2(2) of one piece; an offset of -1 is where the file stands."""
    piece = _IoVec(ctypes.cast(c_char_p(data), c_void_p), len(data))
    return checked(_pwritev2(fd, ctypes.addressof(piece), 1, offset, flags))


def fsync_blocking(fd: int) -> int:
    """fsync(2)."""
    return checked(_fsync(fd))


def fdatasync_blocking(fd: int) -> int:
    """fdatasync(2)."""
    return checked(_fdatasync(fd))


def syncfs_blocking(fd: int) -> int:
    """syncfs(2)."""
    return checked(_syncfs(fd))


def sync_file_range_blocking(fd: int, offset: int, size: int, flags: int) -> int:
    """sync_file_range(2)."""
    return checked(_sync_file_range(fd, offset, size, flags))


def fallocate_blocking(fd: int, mode: int, offset: int, size: int) -> int:
    """fallocate(2)."""
    return checked(_fallocate(fd, mode, offset, size))


def ftruncate_blocking(fd: int, length: int) -> int:
    """ftruncate(2)."""
    return checked(_ftruncate(fd, length))


def readahead_blocking(fd: int, offset: int, size: int) -> int:
    """readahead(2)."""
    return checked(_readahead(fd, offset, size))


class Entry(NamedTuple):
    """One entry of a directory (``struct linux_dirent64``): inode number, d_type, name."""

    ino: int
    type: int
    name: bytes


_ENTRY = struct.Struct("=QqHB")  # d_ino, d_off, d_reclen, d_type; then the name and a byte 0


def getdents64_blocking(fd: int, size: int) -> tuple[int, list[Entry]]:
    """getdents64(2): how many bytes of the buffer were used, none at the end; and the entries in it."""
    buffer = ctypes.create_string_buffer(size)
    used = syscall_blocking("getdents64", c_int(fd), buffer, c_size_t(size))
    return used, list(_entries(ctypes.string_at(buffer, used)))


def _entries(packed: bytes) -> Iterator[Entry]:
    position = 0
    while position < len(packed):
        ino, _, length, type = _ENTRY.unpack_from(packed, position)
        name = packed[position + _ENTRY.size : position + length]
        yield Entry(ino, type, name[: name.index(b"\0")])
        position += length


def wait_ready_blocking(fd: int, event: int) -> None:
    """poll(2), for ever: until the descriptor has the event, or is broken."""
    one = _PollFd(fd, event, 0)
    checked(_poll(ctypes.addressof(one), 1, -1))


def filesystem_type(fd: int) -> int:
    """statfs(2): the magic number of the file system that the file is in."""
    found = _Statfs()
    checked(_fstatfs(fd, ctypes.addressof(found)))
    return int(found.type)
