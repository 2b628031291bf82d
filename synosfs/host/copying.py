"""Bytes from one descriptor to another inside the kernel: splice(2), tee(2), sendfile(2), copy_file_range(2).

Python has three of them, and calls again after EINTR; a thread that sleeps in one could not be freed. A call here
returns how many bytes it moved. An offset is None where the file stands at its own, which the call moves on; another
is the call's alone, and the file's stays where it is.
"""

import ctypes
from ctypes import c_int, c_int64, c_size_t, c_ssize_t, c_uint, c_void_p

from synosfs.host.libc import bind, blocking, checked

_splice = bind(blocking, "splice", c_ssize_t, c_int, c_void_p, c_int, c_void_p, c_size_t, c_uint)
_tee = bind(blocking, "tee", c_ssize_t, c_int, c_int, c_size_t, c_uint)
_sendfile = bind(blocking, "sendfile", c_ssize_t, c_int, c_int, c_void_p, c_size_t)
_copy_file_range = bind(blocking, "copy_file_range", c_ssize_t, c_int, c_void_p, c_int, c_void_p, c_size_t, c_uint)


def _pointer(offset: int | None) -> "ctypes._CData | None":
    return None if offset is None else ctypes.byref(c_int64(offset))  # type: ignore[return-value]  # a CArgObject


def splice_blocking(source: int, offset: int | None, target: int, to: int | None, size: int, flags: int) -> int:
    """splice(2)."""
    return checked(_splice(source, _pointer(offset), target, _pointer(to), size, flags))


def tee_blocking(source: int, target: int, size: int, flags: int) -> int:
    """tee(2)."""
    return checked(_tee(source, target, size, flags))


def sendfile_blocking(source: int, offset: int | None, target: int, size: int) -> int:
    """sendfile(2)."""
    return checked(_sendfile(target, source, _pointer(offset), size))


def copy_file_range_blocking(
    source: int, offset: int | None, target: int, to: int | None, size: int, flags: int
) -> int:
    """copy_file_range(2)."""
    return checked(_copy_file_range(source, _pointer(offset), target, _pointer(to), size, flags))
