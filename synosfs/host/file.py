"""Files of the host as system calls give them: those that may sleep, and those that Python has not.

``os.open``, ``os.read`` and ``os.write`` call again after EINTR, which only the main thread can stop; a thread that
sleeps in one could not be freed. The ``*_blocking`` functions here return EINTR to their caller.
"""

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint, c_uint64, c_void_p

from synosfs.host.abi import RESOLVE_CACHED
from synosfs.host.libc import bind, blocking, checked, syscall, syscall_blocking

#: statfs(2): f_type of procfs.
PROC_SUPER_MAGIC = 0x9FA0


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of <linux/openat2.h>."""

    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class _Statfs(ctypes.Structure):
    """``struct statfs`` of <asm-generic/statfs.h>, of which one field is wanted here."""

    _fields_ = (("type", c_long), ("_rest", c_long * 14))


_open = bind(blocking, "open", c_int, c_char_p, c_int, c_uint)
_read = bind(blocking, "read", c_ssize_t, c_int, c_void_p, c_size_t)
_write = bind(blocking, "write", c_ssize_t, c_int, c_char_p, c_size_t)
_fstatfs = bind(blocking, "fstatfs", c_int, c_int, c_void_p)


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


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A duplicate of another process's descriptor: the same open file, offset and flags included."""
    return syscall("pidfd_getfd", c_int(pidfd), c_int(number), c_uint(0))


def read_blocking(fd: int, size: int) -> bytes:
    """read(2)."""
    buffer = ctypes.create_string_buffer(size)
    return ctypes.string_at(buffer, checked(_read(fd, buffer, size)))


def write_blocking(fd: int, data: bytes) -> int:
    """write(2)."""
    return checked(_write(fd, data, len(data)))


def filesystem_type(fd: int) -> int:
    """statfs(2): the magic number of the file system that the file is in."""
    found = _Statfs()
    checked(_fstatfs(fd, ctypes.addressof(found)))
    return int(found.type)
