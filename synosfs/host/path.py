"""Paths of the host, looked up for another process: openat2(2).

The look-up begins at that process's directories, and never goes through ``/proc``'s magic links (ELOOP): for the host
it is the daemon that asks, and ``/proc/self/fd/3`` would be the daemon's own descriptor.
"""

import ctypes
import errno
import os
import struct
from ctypes import c_int, c_long, c_size_t, c_void_p

from synosfs.errors import SynosError
from synosfs.host.libc import bind, blocking, checked

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10

_openat2 = bind(blocking, "syscall", c_long, c_long, c_int, ctypes.c_char_p, c_void_p, c_size_t)


def stat_of(pid: int, path: bytes) -> os.stat_result:
    """stat(2) as process ``pid`` would have it, with the calling thread's rights. It can wait for as long as disks do.

    A relative path begins at the process's working directory; an absolute one, and the absolute symbolic links on its
    way, at its root.
    """
    if b"\0" in path:
        raise SynosError(errno.EINVAL, "a path holds no byte 0")
    absolute = path.startswith(b"/")
    start = _open(f"/proc/{pid}/{'root' if absolute else 'cwd'}")
    try:
        resolve = _RESOLVE_NO_MAGICLINKS | (_RESOLVE_IN_ROOT if absolute else 0)
        how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, resolve)
        found = checked(_openat2(_SYS_OPENAT2, start, path, how, len(how)))
    finally:
        os.close(start)
    try:
        return os.fstat(found)
    finally:
        os.close(found)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SynosError(error.errno or 0, f"{path}: {os.strerror(error.errno or 0).lower()}") from None
