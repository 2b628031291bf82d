"""Pipes, FIFOs, socket pairs and descriptors by libc: <unistd.h>, <fcntl.h>, <sys/stat.h>, <sys/ioctl.h>."""

import ctypes
from ctypes import c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_ulong, c_void_p

from native import Result, checked, libc

CONSTANTS = {
    "O_RDONLY": 0,
    "O_WRONLY": 1,
    "O_RDWR": 2,
    "O_CREAT": 0o100,
    "O_EXCL": 0o200,
    "O_TRUNC": 0o1000,
    "O_APPEND": 0o2000,
    "O_NONBLOCK": 0o4000,
    "O_DIRECT": 0o40000,
    "O_CLOEXEC": 0o2000000,
    "SOCK_NONBLOCK": 0o4000,
    "SOCK_CLOEXEC": 0o2000000,
    "F_DUPFD": 0,
    "F_GETFD": 1,
    "F_SETFD": 2,
    "F_GETFL": 3,
    "F_SETFL": 4,
    "F_DUPFD_CLOEXEC": 1030,
    "F_SETPIPE_SZ": 1031,
    "F_GETPIPE_SZ": 1032,
    "FD_CLOEXEC": 1,
    "FIONREAD": 0x541B,
    "SEEK_SET": 0,
    "SEEK_CUR": 1,
    "SEEK_END": 2,
}
SLEEPS = {"read": 0, "write": 1}

_AF_UNIX, _SOCK_STREAM = 1, 1

libc.lseek.argtypes = (c_int, c_long, c_int)
libc.lseek.restype = c_long
libc.fcntl.argtypes = (c_int, c_int, c_long)
libc.ioctl.argtypes = (c_int, c_ulong, c_void_p)

# Pointers differ in type from caller to caller: these are function objects of this module alone.
_read, _write, _pread, _pwrite = (libc[name] for name in ("read", "write", "pread", "pwrite"))
_read.argtypes, _write.argtypes = (c_int, c_void_p, c_size_t), (c_int, c_char_p, c_size_t)
_pread.argtypes, _pwrite.argtypes = (c_int, c_void_p, c_size_t, c_long), (c_int, c_char_p, c_size_t, c_long)
for _function in (_read, _write, _pread, _pwrite):
    _function.restype = c_ssize_t


def read(fd: int, size: int) -> Result:
    buffer = ctypes.create_string_buffer(size)
    count = checked(_read(fd, buffer, size))
    return Result(count, "", {}, buffer.raw[:count])


def pread64(fd: int, size: int, offset: int) -> Result:
    buffer = ctypes.create_string_buffer(size)
    count = checked(_pread(fd, buffer, size, offset))
    return Result(count, "", {}, buffer.raw[:count])


def pipe2(flags: int = 0) -> Result:
    ends = (c_int * 2)()
    ret = checked(libc.pipe2(ends, flags))
    return Result(ret, "", {"read": ends[0], "write": ends[1]})


def socketpair(flags: int = 0) -> Result:
    ends = (c_int * 2)()
    ret = checked(libc.socketpair(_AF_UNIX, _SOCK_STREAM | flags, 0, ends))
    return Result(ret, "", {"first": ends[0], "second": ends[1]})


def ioctl(fd: int, request: int) -> Result:
    value = c_int()
    ret = checked(libc.ioctl(fd, request, ctypes.byref(value)))
    return Result(ret, "", {"value": value.value})


CALLS = {
    "read": read,
    "write": lambda fd, data: checked(_write(fd, data, len(data))),
    "close": lambda fd: checked(libc.close(fd)),
    "lseek": lambda fd, offset, whence=0: checked(libc.lseek(fd, offset, whence)),
    "ioctl": ioctl,
    "pread64": pread64,
    "pwrite64": lambda fd, data, offset: checked(_pwrite(fd, data, len(data), offset)),
    "pipe": pipe2,
    "pipe2": pipe2,
    "socketpair": socketpair,
    "dup": lambda fd: checked(libc.dup(fd)),
    "dup2": lambda fd, newfd: checked(libc.dup2(fd, newfd)),
    "dup3": lambda fd, newfd, flags=0: checked(libc.dup3(fd, newfd, flags)),
    "fcntl": lambda fd, command, argument=0: checked(libc.fcntl(fd, command, argument)),
}
