"""Files and counters by descriptor, by libc: <sys/uio.h>, <fcntl.h>, <sys/eventfd.h>, <sys/timerfd.h>, <sys/mman.h>."""

import ctypes
import os
import struct
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_int64, c_long, c_size_t, c_ssize_t, c_uint, c_void_p
from functools import partial
from typing import Any

from native import Result, checked, libc

CONSTANTS = {
    "F_GETLK": 5,
    "F_SETLK": 6,
    "F_SETLKW": 7,
    "F_OFD_GETLK": 36,
    "F_OFD_SETLK": 37,
    "F_OFD_SETLKW": 38,
    "F_RDLCK": 0,
    "F_WRLCK": 1,
    "F_UNLCK": 2,
    "LOCK_SH": 1,
    "LOCK_EX": 2,
    "LOCK_NB": 4,
    "LOCK_UN": 8,
    "F_ADD_SEALS": 1033,
    "F_GET_SEALS": 1034,
    "F_SEAL_SEAL": 1,
    "F_SEAL_SHRINK": 2,
    "F_SEAL_GROW": 4,
    "F_SEAL_WRITE": 8,
    "SEEK_DATA": 3,
    "SEEK_HOLE": 4,
    "RWF_NOWAIT": 8,
    "RWF_APPEND": 16,
    "RWF_DSYNC": 2,
    "FALLOC_FL_KEEP_SIZE": 1,
    "FALLOC_FL_PUNCH_HOLE": 2,
    "FALLOC_FL_ZERO_RANGE": 16,
    "POSIX_FADV_NORMAL": 0,
    "POSIX_FADV_WILLNEED": 3,
    "SYNC_FILE_RANGE_WRITE": 2,
    "SPLICE_F_MOVE": 1,
    "SPLICE_F_NONBLOCK": 2,
    "CLOSE_RANGE_CLOEXEC": 4,
    "CLOSE_RANGE_UNSHARE": 2,
    "CLOCK_MONOTONIC": 1,
    "EFD_SEMAPHORE": 1,
    "EFD_NONBLOCK": 0o4000,
    "EFD_CLOEXEC": 0o2000000,
    "TFD_NONBLOCK": 0o4000,
    "TFD_CLOEXEC": 0o2000000,
    "TFD_TIMER_ABSTIME": 1,
    "MFD_CLOEXEC": 1,
    "MFD_ALLOW_SEALING": 2,
    "O_DIRECTORY": 0o200000,
    "SOCK_STREAM": 1,
    "SOCK_DGRAM": 2,
    "SOCK_SEQPACKET": 5,
}
SLEEPS = {
    "readv": 19,
    "writev": 20,
    "fcntl": 72,
    "flock": 73,
    "splice": 275,
    "tee": 276,
    "sendfile": 40,
    "eventfd_read": 0,
    "eventfd_write": 1,
}

_TYPES = {0: "F_RDLCK", 1: "F_WRLCK", 2: "F_UNLCK"}
_WHENCE = {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END"}


class Flock(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_short),
        ("whence", ctypes.c_short),
        ("start", c_int64),
        ("len", c_int64),
        ("pid", c_int),
    )


class IoVec(ctypes.Structure):
    _fields_ = (("base", c_char_p), ("length", c_size_t))


class Timespec(ctypes.Structure):
    _fields_ = (("sec", c_long), ("nsec", c_long))


class Itimerspec(ctypes.Structure):
    _fields_ = (("interval", Timespec), ("value", Timespec))


def _function(name: str, restype: type, *argtypes: type) -> ctypes._CFuncPtr:
    function = libc[name]
    function.restype, function.argtypes = restype, argtypes
    return function


_fcntl = _function("fcntl", c_int, c_int, c_int, c_void_p)
_readv = _function("readv", c_ssize_t, c_int, c_void_p, c_int)
_writev = _function("writev", c_ssize_t, c_int, c_void_p, c_int)
_preadv2 = _function("preadv2", c_ssize_t, c_int, c_void_p, c_int, c_int64, c_int)
_pwritev2 = _function("pwritev2", c_ssize_t, c_int, c_void_p, c_int, c_int64, c_int)
_preadv = _function("preadv", c_ssize_t, c_int, c_void_p, c_int, c_int64)
_pwritev = _function("pwritev", c_ssize_t, c_int, c_void_p, c_int, c_int64)
_fallocate = _function("fallocate", c_int, c_int, c_int, c_int64, c_int64)
_sync_file_range = _function("sync_file_range", c_int, c_int, c_int64, c_int64, c_uint)
_fadvise = _function("posix_fadvise", c_int, c_int, c_int64, c_int64, c_int)
_readahead = _function("readahead", c_ssize_t, c_int, c_int64, c_size_t)
_splice = _function("splice", c_ssize_t, c_int, c_void_p, c_int, c_void_p, c_size_t, c_uint)
_tee = _function("tee", c_ssize_t, c_int, c_int, c_size_t, c_uint)
_sendfile = _function("sendfile", c_ssize_t, c_int, c_int, c_void_p, c_size_t)
_copy = _function("copy_file_range", c_ssize_t, c_int, c_void_p, c_int, c_void_p, c_size_t, c_uint)
_syscall = _function("syscall", c_long, c_long, c_long, c_long, c_long)
_read = _function("read", c_ssize_t, c_int, c_void_p, c_size_t)


def fcntl(fd: int, command: int, argument: int = 0, start: int = 0, len: int = 0, whence: int = 0) -> int | Result:
    if command not in (5, 6, 7, 36, 37, 38):
        return checked(_fcntl(fd, command, argument))
    lock = Flock(argument, whence, start, len, 0)
    checked(_fcntl(fd, command, ctypes.addressof(lock)))
    if command not in (5, 36):
        return 0
    found = {"type": _TYPES[lock.type], "whence": _WHENCE[lock.whence]}
    return Result(0, "", found | {"start": lock.start, "len": lock.len, "pid": lock.pid})


def _into(sizes: tuple[int, ...]) -> tuple[ctypes.Array, list[ctypes.Array]]:
    buffers = [ctypes.create_string_buffer(size) for size in sizes]
    pieces = (IoVec * len(sizes))(*((ctypes.cast(each, c_char_p), len(each)) for each in buffers))
    return pieces, buffers


def _read_answer(count: int, buffers: list[ctypes.Array]) -> Result:
    return Result(checked(count), "", {}, b"".join(each.raw for each in buffers)[:count])


def readv(fd: int, *sizes: int) -> Result:
    pieces, buffers = _into(sizes)
    return _read_answer(_readv(fd, pieces, len(sizes)), buffers)


def preadv(fd: int, *sizes: int, offset: int) -> Result:
    pieces, buffers = _into(sizes)
    return _read_answer(_preadv(fd, pieces, len(sizes), offset), buffers)


def preadv2(fd: int, *sizes: int, offset: int = -1, flags: int | str = 0) -> Result:
    pieces, buffers = _into(sizes)
    return _read_answer(_preadv2(fd, pieces, len(sizes), offset, CONSTANTS.get(flags, flags)), buffers)


def _from(data: tuple[bytes, ...]) -> ctypes.Array:
    return (IoVec * len(data))(*((each, len(each)) for each in data))


def pwritev2(fd: int, *data: bytes, offset: int = -1, flags: int | str = 0) -> int:
    return checked(_pwritev2(fd, _from(data), len(data), offset, CONSTANTS.get(flags, flags)))


def fadvise64(fd: int, offset: int, len: int, advice: int) -> int:
    error = _fadvise(fd, offset, len, advice)
    if error:
        raise OSError(error, os.strerror(error))
    return 0


def getdents64(fd: int, size: int = 32768) -> Result:
    buffer = ctypes.create_string_buffer(size)
    used = checked(_syscall(217, fd, ctypes.addressof(buffer), size))
    names, types, inos, at = [], [], [], 0
    while at < used:
        ino, _, length, type = struct.unpack_from("=QqHB", buffer, at)
        names.append(os.fsdecode(buffer.raw[at + 19 : at + length].split(b"\0")[0]))
        types.append({1: "DT_FIFO", 4: "DT_DIR", 8: "DT_REG", 10: "DT_LNK", 12: "DT_SOCK"}[type])
        inos.append(ino)
        at += length
    return Result(used, "", {"names": names, "types": types, "inos": inos})


def _offset(value: int | None) -> c_int64 | None:
    return None if value is None else c_int64(value)


def _pointer(value: c_int64 | None) -> int | None:
    return None if value is None else ctypes.addressof(value)


def _moved(ret: int, **offsets: c_int64 | None) -> Result:
    return Result(checked(ret), "", {name: value.value for name, value in offsets.items() if value is not None})


def _in_c_order(call: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """With all of them in place they are in C's order."""
    if len(arguments) == 6:
        fd_in, off_in, fd_out, off_out, *rest = arguments
        return call(fd_in, fd_out, *rest, off_in, off_out)
    if len(arguments) == 4 and call is _sendfile_from:
        out_fd, in_fd, offset, count = arguments
        return call(out_fd, in_fd, count, offset)
    return call(*arguments, **named)


def _splice_at(
    fd_in: int, fd_out: int, len: int, flags: int = 0, off_in: int | None = None, off_out: int | None = None
) -> Result:
    one, other = _offset(off_in), _offset(off_out)
    ret = _splice(fd_in, _pointer(one), fd_out, _pointer(other), len, flags)
    return _moved(ret, off_in=one, off_out=other)


def _copy_at(
    fd_in: int, fd_out: int, len: int, flags: int = 0, off_in: int | None = None, off_out: int | None = None
) -> Result:
    one, other = _offset(off_in), _offset(off_out)
    ret = _copy(fd_in, _pointer(one), fd_out, _pointer(other), len, flags)
    return _moved(ret, off_in=one, off_out=other)


def _sendfile_from(out_fd: int, in_fd: int, count: int, offset: int | None = None) -> Result:
    at = _offset(offset)
    return _moved(_sendfile(out_fd, in_fd, _pointer(at), count), offset=at)


def read(fd: int, size: int) -> Result:
    """As ``native_pipe.read``; a counter's eight bytes are a number, too."""
    buffer = ctypes.create_string_buffer(size)
    count = checked(_read(fd, buffer, size))
    is_counter = os.readlink(f"/proc/self/fd/{fd}") in ("anon_inode:[eventfd]", "anon_inode:[timerfd]")
    value = {"value": int.from_bytes(buffer.raw[:count], "little")} if is_counter else {}
    return Result(count, "", value, buffer.raw[:count])


def eventfd_read(fd: int) -> Result:
    value = ctypes.c_uint64()
    checked(libc.eventfd_read(fd, ctypes.byref(value)))
    return Result(0, "", {"value": value.value})


def _ns(spec: Timespec) -> int:
    return spec.sec * 1_000_000_000 + spec.nsec


def timerfd_settime(fd: int, flags: int, value: float, interval: float = 0) -> Result:
    new = Itimerspec(*(Timespec(int(s), round(s % 1 * 1e9)) for s in (interval, value)))
    old = Itimerspec()
    checked(libc.timerfd_settime(fd, flags, ctypes.byref(new), ctypes.byref(old)))
    return Result(0, "", {"value_ns": _ns(old.value), "interval_ns": _ns(old.interval)})


def timerfd_gettime(fd: int) -> Result:
    found = Itimerspec()
    checked(libc.timerfd_gettime(fd, ctypes.byref(found)))
    return Result(0, "", {"value_ns": _ns(found.value), "interval_ns": _ns(found.interval)})


def socketpair(flags: int = 0) -> Result:
    ends = (c_int * 2)()
    ret = checked(libc.socketpair(1, flags if flags & 15 else flags | 1, 0, ends))
    return Result(ret, "", {"first": ends[0], "second": ends[1]})


CALLS = {
    "read": read,
    "socketpair": socketpair,
    "fcntl": fcntl,
    "flock": lambda fd, operation: checked(libc.flock(fd, operation)),
    "readv": readv,
    "writev": lambda fd, *data: checked(_writev(fd, _from(data), len(data))),
    "preadv": preadv,
    "pwritev": lambda fd, *data, offset: checked(_pwritev(fd, _from(data), len(data), offset)),
    "preadv2": preadv2,
    "pwritev2": pwritev2,
    "fsync": lambda fd: checked(libc.fsync(fd)),
    "fdatasync": lambda fd: checked(libc.fdatasync(fd)),
    "syncfs": lambda fd: checked(libc.syncfs(fd)),
    "sync_file_range": lambda fd, offset, size, flags=0: checked(_sync_file_range(fd, offset, size, flags)),
    "fallocate": lambda fd, mode, offset, size: checked(_fallocate(fd, mode, offset, size)),
    "fadvise64": fadvise64,
    "readahead": lambda fd, offset, count: checked(_readahead(fd, offset, count)),
    "getdents64": getdents64,
    "memfd_create": lambda name, flags=0: checked(libc.memfd_create(name, flags)),
    "splice": partial(_in_c_order, _splice_at),
    "tee": lambda fd_in, fd_out, size, flags=0: checked(_tee(fd_in, fd_out, size, flags)),
    "sendfile": partial(_in_c_order, _sendfile_from),
    "copy_file_range": partial(_in_c_order, _copy_at),
    "eventfd": lambda value=0, flags=0: checked(libc.eventfd(value, flags)),
    "eventfd2": lambda value=0, flags=0: checked(libc.eventfd(value, flags)),
    "eventfd_read": eventfd_read,
    "eventfd_write": lambda fd, value: checked(libc.eventfd_write(fd, ctypes.c_uint64(value))),
    "timerfd_create": lambda clock, flags=0: checked(libc.timerfd_create(clock, flags)),
    "timerfd_settime": timerfd_settime,
    "timerfd_gettime": timerfd_gettime,
    "close_range": lambda first, last, flags=0: checked(libc.close_range(c_uint(first), c_uint(last), c_uint(flags))),
}
