"""Calls on names and on what they lead to that Python has not, or not so that a signal ends them.

What a path leads to is held by an O_PATH descriptor (``path.found``), and the call is made on that: with AT_EMPTY_PATH
where the host has it, else by ``link``, a name of the descriptor's own that leads nowhere else.
"""

import ctypes
import os
import struct
from ctypes import c_char_p, c_int, c_long, c_uint, c_void_p
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import procfs
from synosfs.host.abi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_STATX_DONT_SYNC,
    AT_SYMLINK_FOLLOW,
    STATX,
    UTIME_NOW,
    UTIME_OMIT,
)
from synosfs.host.libc import Timespec, bind, blocking, checked, syscall_blocking

#: <sys/stat.h>: in place of tv_nsec.
_NOW, _OMIT = (1 << 30) - 1, (1 << 30) - 2

_STATX = struct.Struct("=IIQIIIHHQQQQ" + 4 * "qIi" + "IIIIQ")
_STATX_SIZE = 256
_STATFS = struct.Struct("=qq5Q2iqqq")
_STATFS_SIZE = 120

_statx = bind(blocking, "statx", c_int, c_int, c_char_p, c_int, c_uint, c_void_p)
_fstatfs = bind(blocking, "fstatfs", c_int, c_int, c_void_p)
_renameat2 = bind(blocking, "renameat2", c_int, c_int, c_char_p, c_int, c_char_p, c_uint)
_linkat = bind(blocking, "linkat", c_int, c_int, c_char_p, c_int, c_char_p, c_int)
_fchownat = bind(blocking, "fchownat", c_int, c_int, c_char_p, c_uint, c_uint, c_int)
_utimensat = bind(blocking, "utimensat", c_int, c_int, c_char_p, c_void_p, c_int)
_truncate = bind(blocking, "truncate", c_int, c_char_p, c_long)


def link(fd: int) -> bytes:
    """A name for what the descriptor stands for: a symbolic link itself, where that is what it is."""
    return b"/proc/self/fd/%d" % fd


class Statx(NamedTuple):
    """``struct statx``, its times in nanoseconds since the epoch."""

    mask: int
    blksize: int
    attributes: int
    nlink: int
    uid: int
    gid: int
    mode: int
    ino: int
    size: int
    blocks: int
    attributes_mask: int
    atime_ns: int
    btime_ns: int
    ctime_ns: int
    mtime_ns: int
    rdev_major: int
    rdev_minor: int
    dev_major: int
    dev_minor: int
    mnt_id: int


def statx_blocking(fd: int, flags: int, mask: int) -> Statx:
    """statx(2) of what the descriptor stands for."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    checked(_statx(fd, b"", flags | AT_EMPTY_PATH, mask, buffer))
    found = _STATX.unpack_from(buffer)
    times = found[12:24]
    times_ns = (second * 1_000_000_000 + nsec for second, nsec in zip(times[::3], times[1::3], strict=True))
    return Statx(*found[:7], *found[8:12], *times_ns, *found[24:])


#: No file has this device and number.
_NOWHERE = 0, 0


def in_use_blocking(tid: int) -> tuple[int, int] | None:
    """Device and inode number of the descriptor that a thread's current system call has as its first argument, zeros if
    there is none: what is known of it here, for its file system may be one that does not answer. None: the daemon may
    not see it.

    /proc/<tid>/fdinfo would tell the number too, and wait for whoever holds an epoll's lock.
    """
    try:
        _, number, *_ = procfs.current_call_blocking(tid)
        fd = os.open(f"/proc/{tid}/fd/{number}", os.O_PATH)
    except PermissionError:
        return None
    except (OSError, ValueError):  # it is in none by now, or in one whose first argument is no descriptor
        return _NOWHERE
    try:
        found = statx_blocking(fd, AT_STATX_DONT_SYNC, STATX["STATX_INO"])
    except SynosError:
        return _NOWHERE
    finally:
        os.close(fd)
    return os.makedev(found.dev_major, found.dev_minor), found.ino


class Statfs(NamedTuple):
    """``struct statfs``."""

    type: int
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    fsid: list[int]
    namelen: int
    frsize: int
    flags: int


def fstatfs_blocking(fd: int) -> Statfs:
    """fstatfs(2)."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    checked(_fstatfs(fd, buffer))
    found = _STATFS.unpack_from(buffer)
    return Statfs._make([*found[:7], list(found[7:9]), *found[9:]])


def faccessat2_blocking(fd: int, mode: int, flags: int) -> None:
    """faccessat2(2) of what the descriptor stands for."""
    syscall_blocking("faccessat2", c_int(fd), c_char_p(b""), c_int(mode), c_int(flags | AT_EMPTY_PATH))


def renameat2_blocking(directory: int, name: bytes, new_directory: int, new_name: bytes, flags: int) -> None:
    """renameat2(2)."""
    checked(_renameat2(directory, name, new_directory, new_name, flags))


def link_blocking(fd: int, directory: int, name: bytes) -> None:
    """linkat(2): another name for what the descriptor stands for."""
    checked(_linkat(AT_FDCWD, link(fd), directory, name, AT_SYMLINK_FOLLOW))


def chown_blocking(fd: int, uid: int | None, gid: int | None) -> None:
    """fchownat(2) on what the descriptor stands for; None: as it is."""
    checked(_fchownat(fd, b"", *(0xFFFFFFFF if id is None else id for id in (uid, gid)), AT_EMPTY_PATH))


def utime_blocking(fd: int, atime_ns: int, mtime_ns: int) -> None:
    """utimensat(2) on what the descriptor stands for; UTIME_NOW and UTIME_OMIT as ``abi`` has them."""
    times = (Timespec * 2)(*map(_timespec, (atime_ns, mtime_ns)))
    checked(_utimensat(AT_FDCWD, link(fd), times, 0))


def _timespec(time_ns: int) -> Timespec:
    if time_ns in (UTIME_NOW, UTIME_OMIT):
        return Timespec(0, _NOW if time_ns == UTIME_NOW else _OMIT)
    return Timespec(*divmod(time_ns, 1_000_000_000))


def truncate_blocking(fd: int, length: int) -> None:
    """truncate(2) of what an O_PATH descriptor stands for. Waits for a lease to be given up."""
    checked(_truncate(link(fd), length))


assert _STATX.size <= _STATX_SIZE
assert _STATFS.size <= _STATFS_SIZE
