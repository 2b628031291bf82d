"""What a pidfd tells of its process, and of no other that has the pid later: pidfd_open(2), PIDFD_GET_INFO."""

import errno
import fcntl
import struct
from ctypes import c_int
from typing import NamedTuple

from synosfs.host import credentials
from synosfs.host.libc import syscall

#: ``struct pidfd_info`` of <linux/pidfd.h> in its first version (Linux 6.13).
_INFO = struct.Struct("=QQ11Ii")
_INFO_CREDS = 1 << 1

#: _IOWR(0xFF, 11, struct pidfd_info).
_PIDFD_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11


class Ids(NamedTuple):
    """Who a process may come to act as: all its user ids and all its group ids."""

    uids: frozenset[int]
    gids: frozenset[int]

    def covers(self, other: "Ids") -> bool:
        return other.uids <= self.uids and other.gids <= self.gids


def ids(pidfd: int, pid: int) -> Ids:
    """The ids of its process now. Raises ProcessLookupError when it has been reaped. ``pid`` is for older kernels."""
    info = bytearray(_INFO.size)
    _INFO.pack_into(info, 0, _INFO_CREDS, *13 * (0,))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise ProcessLookupError(pid) from None
        found = credentials.identifiers(pid)
        return Ids(frozenset(found.uids), frozenset(found.gids))
    _, _, _, _, _, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid, _ = _INFO.unpack(info)
    return Ids(frozenset((ruid, euid, suid, fsuid)), frozenset((rgid, egid, sgid, fsgid)))


def signal_thread(pid: int, tid: int, number: int) -> None:
    """Signal one thread of a process (tgkill(2)). Raises ProcessLookupError when there is none."""
    try:
        syscall("tgkill", c_int(pid), c_int(tid), c_int(number))
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise ProcessLookupError(tid) from None
        raise
