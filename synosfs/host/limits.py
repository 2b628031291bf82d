"""Resource limits of another process: prlimit(2), to look at."""

import ctypes
import errno
from ctypes import c_int, c_uint64, c_void_p
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import procfs, rights
from synosfs.host.libc import bind, checked, now

#: Stands for RLIM_INFINITY.
UNLIMITED = -1


class _Limits(ctypes.Structure):
    """``struct rlimit64``."""

    _fields_ = (("soft", c_uint64), ("hard", c_uint64))


class Limits(NamedTuple):
    """-1: unlimited."""

    soft: int
    hard: int


_prlimit = bind(now, "prlimit", c_int, c_int, c_int, c_void_p, c_void_p)


def limits(pid: int, resource: int) -> Limits:
    """The soft and hard limit. By prlimit(2), a tenth of what it takes to read them in /proc, which serves where the
    ids of the process are not all the daemon's, and the daemon has no CAP_SYS_RESOURCE (EPERM). ESRCH: it has ended.
    """
    found = _Limits()
    try:
        with rights.acting_as_daemon():
            try:
                checked(_prlimit(pid, resource, None, ctypes.addressof(found)))
            except SynosError as error:
                if error.errno != errno.EPERM:
                    raise ProcessLookupError(pid) from None
                return Limits(*procfs.limits(pid)[resource])
    except ProcessLookupError:
        raise SynosError(errno.ESRCH, f"process {pid} has ended") from None
    return Limits(_number(found.soft), _number(found.hard))


def _number(value: int) -> int:
    return UNLIMITED if value == (1 << 64) - 1 else value
