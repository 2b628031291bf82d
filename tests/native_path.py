"""Names, status and attributes of files by libc: <fcntl.h>, <unistd.h>, <sys/stat.h>, <sys/xattr.h>, <sys/vfs.h>.

Where libc does more than the system call of the same name, it is the system call that is made.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint, c_ulong, c_void_p
from functools import partial
from typing import Any

from native import Result, checked, libc

CONSTANTS = {
    "AT_FDCWD": -100,
    "AT_SYMLINK_NOFOLLOW": 0x100,
    "AT_EACCESS": 0x200,
    "AT_REMOVEDIR": 0x200,
    "AT_SYMLINK_FOLLOW": 0x400,
    "AT_EMPTY_PATH": 0x1000,
    "O_DIRECTORY": 0o200000,
    "O_NOFOLLOW": 0o400000,
    "O_NOATIME": 0o1000000,
    "O_PATH": 0o10000000,
    "O_TMPFILE": 0o20200000,
    "O_SYNC": 0o4010000,
    "S_IFIFO": 0o010000,
    "S_IFCHR": 0o020000,
    "S_IFREG": 0o100000,
    "S_IFSOCK": 0o140000,
    "F_OK": 0,
    "X_OK": 1,
    "W_OK": 2,
    "R_OK": 4,
    "RENAME_NOREPLACE": 1,
    "RENAME_EXCHANGE": 2,
    "RENAME_WHITEOUT": 4,
    "RESOLVE_NO_XDEV": 1,
    "RESOLVE_NO_MAGICLINKS": 2,
    "RESOLVE_NO_SYMLINKS": 4,
    "RESOLVE_BENEATH": 8,
    "RESOLVE_IN_ROOT": 16,
    "STATX_BASIC_STATS": 0x7FF,
    "STATX_ALL": 0xFFF,
    "STATX_MNT_ID": 0x1000,
    "XATTR_CREATE": 1,
    "XATTR_REPLACE": 2,
    "UTIME_NOW": -(1 << 63),
    "UTIME_OMIT": -(1 << 63) + 1,
}
SLEEPS = {"open": 257, "openat": 257, "openat2": 437}

_AT_FDCWD, _NOFOLLOW, _EMPTY = -100, 0x100, 0x1000
_libc_syscall = libc["syscall"]
_libc_syscall.restype = c_long


def _function(name: str, *argtypes: type, restype: type = c_int) -> Callable[..., int]:
    function = libc[name]
    function.argtypes, function.restype = argtypes, restype
    return function


_open = _function("open", c_char_p, c_int, c_uint)
_openat = _function("openat", c_int, c_char_p, c_int, c_uint)
_mknodat = _function("mknodat", c_int, c_char_p, c_uint, c_ulong)
_mkfifo = _function("mkfifo", c_char_p, c_uint)
_truncate = _function("truncate", c_char_p, c_long)
_statx = _function("statx", c_int, c_char_p, c_int, c_uint, c_void_p)
_statfs = _function("statfs", c_char_p, c_void_p)
_fstatfs = _function("fstatfs", c_int, c_void_p)
_readlinkat = _function("readlinkat", c_int, c_char_p, c_void_p, c_size_t, restype=c_ssize_t)


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    """A raw one, of numbers and strings."""
    values = [c_char_p(value) if isinstance(value, bytes) else c_long(value or 0) for value in arguments]
    return checked(_libc_syscall(c_long(number), *values))


def _number(number: int) -> Callable[..., int]:
    return lambda *arguments: _system_call(number, *arguments)


def openat2(dirfd: int, path: bytes, flags: int = 0, mode: int = 0, resolve: int = 0) -> int:
    how = (ctypes.c_uint64 * 3)(flags, mode, resolve)
    return checked(
        _libc_syscall(c_long(437), c_int(dirfd), c_char_p(path), ctypes.byref(how), c_size_t(ctypes.sizeof(how)))
    )


def newfstatat(dirfd: int, path: bytes, flags: int = 0) -> Result:
    """By <asm/stat.h> of x86-64."""
    buffer = ctypes.create_string_buffer(144)
    ret = checked(_libc_syscall(c_long(262), c_int(dirfd), c_char_p(path), buffer, c_int(flags)))
    dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks, *times = struct.unpack_from("=QQQIII4xQqqq6q", buffer)
    results = {"dev": dev, "ino": ino, "mode": mode, "nlink": nlink, "uid": uid, "gid": gid, "rdev": rdev}
    results |= {"size": size, "blksize": blksize, "blocks": blocks}
    for name, sec, nsec in zip(("atime_ns", "mtime_ns", "ctime_ns"), times[::2], times[1::2], strict=True):
        results[name] = sec * 10**9 + nsec
    return Result(ret, "", results)


def statx(dirfd: int, path: bytes, flags: int = 0, mask: int = CONSTANTS["STATX_ALL"]) -> Result:
    buffer = ctypes.create_string_buffer(256)
    ret = checked(_statx(dirfd, path, flags, mask, buffer))
    names = ("mask", "blksize", "attributes", "nlink", "uid", "gid", "mode", "ino", "size", "blocks", "attributes_mask")
    results = dict(zip(names, struct.unpack_from("=IIQIIIH2xQQQQ", buffer), strict=True))
    for name, at in (("atime_ns", 64), ("btime_ns", 80), ("ctime_ns", 96), ("mtime_ns", 112)):
        sec, nsec = struct.unpack_from("=qI", buffer, at)
        results[name] = sec * 10**9 + nsec
    names = ("rdev_major", "rdev_minor", "dev_major", "dev_minor", "mnt_id")
    return Result(ret, "", results | dict(zip(names, struct.unpack_from("=IIIIQ", buffer, 128), strict=True)))


def _file_system(call: Callable[..., int], thing: int | bytes) -> Result:
    buffer = ctypes.create_string_buffer(120)
    ret = checked(call(thing, buffer))
    fields = struct.unpack_from("=7q2i3q", buffer)
    names = ("type", "bsize", "blocks", "bfree", "bavail", "files", "ffree")
    results = dict(zip(names, fields, strict=False)) | {"fsid": list(fields[7:9])}
    return Result(ret, "", results | dict(zip(("namelen", "frsize", "flags"), fields[9:], strict=True)))


def faccessat2(dirfd: int, path: bytes, mode: int = 0, flags: int = 0) -> int:
    return _system_call(439, dirfd, path, mode, flags)


def _time(time_ns: int | None) -> tuple[int, int]:
    if time_ns is None or time_ns == CONSTANTS["UTIME_OMIT"]:
        return 0, (1 << 30) - 2
    return (0, (1 << 30) - 1) if time_ns == CONSTANTS["UTIME_NOW"] else divmod(time_ns, 10**9)


def utimensat(
    path: bytes | None, atime_ns: int | None = None, mtime_ns: int | None = None, flags: int = 0, dirfd: int = _AT_FDCWD
) -> int:
    if isinstance(dirfd, str):
        dirfd = CONSTANTS[dirfd]
    times = None
    if (atime_ns, mtime_ns) != (None, None):
        times = (c_long * 4)(*_time(atime_ns), *_time(mtime_ns))
    return checked(_libc_syscall(c_long(280), c_int(dirfd), c_char_p(path), times, c_int(flags)))


def _both_times(first: Any, second: Any) -> tuple[Any, Any]:
    return tuple(first) if isinstance(first, list) and second is None else (first, second)


def utime(path: bytes, actime: Any = None, modtime: Any = None) -> int:
    both = _both_times(actime, modtime)
    times = None if both == (None, None) else (c_long * 2)(*both)
    return checked(_libc_syscall(c_long(132), c_char_p(path), times))


def _timevals(first: Any, second: Any) -> Any:
    both = _both_times(first, second)
    if both == (None, None):
        return None
    return (c_long * 4)(*[part for time in both for part in (time if isinstance(time, list) else (time, 0))])


def utimes(path: bytes, atime: Any = None, mtime: Any = None) -> int:
    return checked(_libc_syscall(c_long(235), c_char_p(path), _timevals(atime, mtime)))


def futimesat(dirfd: int, path: bytes | None, atime: Any = None, mtime: Any = None) -> int:
    return checked(_libc_syscall(c_long(261), c_int(dirfd), c_char_p(path), _timevals(atime, mtime)))


def getcwd(size: int = 4096) -> Result:
    """The system call counts the byte 0 at the end; strlen(3) does not."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    checked(_libc_syscall(c_long(79), buffer, c_ulong(size)))
    if not buffer.value.startswith(b"/"):  # (unreachable)
        raise OSError(2, os.strerror(2))
    return Result(len(buffer.value), "", {}, buffer.value)


def umask(mask: int) -> Result:
    before = os.umask(mask)
    return Result(before, "", {"mask": before})


def readlinkat(dirfd: int, path: bytes, size: int = 4096) -> Result:
    buffer = ctypes.create_string_buffer(max(size, 1))
    count = checked(_readlinkat(dirfd, path, buffer, size))
    return Result(count, "", {}, buffer.raw[:count])


def _attribute(call: str, *arguments: int | bytes, size: int = 65536) -> Result:
    """getxattr(2) and listxattr(2) and their kin."""
    function = libc[call]
    function.restype = c_ssize_t
    buffer = ctypes.create_string_buffer(max(size, 1))
    values = [c_char_p(value) if isinstance(value, bytes) else c_int(value) for value in arguments]
    count = checked(function(*values, buffer, c_size_t(size)))
    return Result(count, "", {}, buffer.raw[:count] if size else None)


def _set_attribute(call: str, thing: int | bytes, name: bytes, data: bytes, flags: int = 0) -> int:
    value = c_char_p(thing) if isinstance(thing, bytes) else c_int(thing)
    return checked(libc[call](value, c_char_p(name), c_char_p(data), c_size_t(len(data)), c_int(flags)))


CALLS = {
    "open": lambda path, flags=0, mode=0o666: checked(_open(path, flags, mode)),
    "openat": lambda dirfd, path, flags=0, mode=0o666: checked(_openat(dirfd, path, flags, mode)),
    "openat2": openat2,
    "creat": lambda path, mode=0o666: _system_call(85, path, mode),
    "stat": lambda path: newfstatat(_AT_FDCWD, path),
    "lstat": lambda path: newfstatat(_AT_FDCWD, path, _NOFOLLOW),
    "fstat": lambda fd: newfstatat(fd, b"", _EMPTY),
    "newfstatat": newfstatat,
    "statx": statx,
    "statfs": lambda path: _file_system(_statfs, path),
    "fstatfs": lambda fd: _file_system(_fstatfs, fd),
    "access": lambda path, mode=0: _system_call(21, path, mode),
    "faccessat": faccessat2,
    "faccessat2": faccessat2,
    "truncate": lambda path, length: checked(_truncate(path, length)),
    "getcwd": getcwd,
    "chdir": _number(80),
    "fchdir": _number(81),
    "umask": umask,
    "mkdir": lambda path, mode=0o777: _system_call(83, path, mode),
    "mkdirat": lambda dirfd, path, mode=0o777: _system_call(258, dirfd, path, mode),
    "rmdir": _number(84),
    "link": _number(86),
    "linkat": lambda *arguments: _system_call(265, *arguments, *[0] * (5 - len(arguments))),
    "symlink": _number(88),
    "symlinkat": _number(266),
    "readlink": lambda path, size=4096: readlinkat(_AT_FDCWD, path, size),
    "readlinkat": readlinkat,
    "rename": _number(82),
    "renameat": _number(264),
    "renameat2": lambda *arguments: _system_call(316, *arguments, *[0] * (5 - len(arguments))),
    "unlink": _number(87),
    "unlinkat": lambda dirfd, path, flags=0: _system_call(263, dirfd, path, flags),
    "mknod": lambda path, mode=0o010666, device=0: checked(_mknodat(_AT_FDCWD, path, mode, device)),
    "mknodat": lambda dirfd, path, mode=0o010666, device=0: checked(_mknodat(dirfd, path, mode, device)),
    "mkfifo": lambda path, mode=0o666: checked(_mkfifo(path, mode)),
    "chmod": _number(90),
    "fchmod": _number(91),
    "fchmodat": lambda dirfd, path, mode, flags=0: _system_call(452 if flags else 268, dirfd, path, mode, flags),
    "chown": _number(92),
    "fchown": _number(93),
    "lchown": _number(94),
    "fchownat": lambda dirfd, path, uid, gid, flags=0: _system_call(260, dirfd, path, uid, gid, flags),
    "utimensat": utimensat,
    "utime": utime,
    "utimes": utimes,
    "futimesat": futimesat,
    "futimens": lambda fd, atime_ns=None, mtime_ns=None: utimensat(None, atime_ns, mtime_ns, 0, fd),
    **{name: partial(_attribute, name)
       for name in ("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr")},
    **{name: partial(_set_attribute, name) for name in ("setxattr", "lsetxattr", "fsetxattr")},
    "removexattr": _number(197),
    "lremovexattr": _number(198),
    "fremovexattr": _number(199),
}  # fmt: skip
