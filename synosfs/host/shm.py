"""System V shared memory of the host: shmget(2), shmop(2), shmctl(2), as they are, and copies to and from it.

Attached memory is never touched by the daemon's own instructions: the kernel copies (``process_vm_readv(2)`` on this
very process). A page that cannot be had, of a huge-page segment without reservation for one, is then an EFAULT; a
memmove would be a SIGBUS and the end of the daemon. It is also faster (2.3 against 1.5 GB/s), because the pages are
not mapped first.

What is in memory is copied at once. A page that is not has to be had first: cleared, by the hundred or of huge size;
read from swap; found where memory is short. That takes as long as others make it (256 new pages 1.8 ms here, where
copying them takes 0.15), and so does giving memory back (2 GiB 450 ms). Hence the ``*_blocking`` ones, for threads.
"""

import ctypes
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_int, c_size_t, c_ssize_t, c_ulong, c_void_p, py_object

from synosfs.errors import SynosError
from synosfs.host.libc import bind, blocking, checked, now
from synosfs.host.structs import IPC_PERM, Layout

#: ``struct shmid64_ds`` of <asm-generic/shmbuf.h>; times in seconds since the epoch, the size in bytes.
SHMID_DS = Layout(
    IPC_PERM
    | {"segsz": "L"}
    | dict.fromkeys(("atime", "dtime", "ctime"), "l")
    | {"cpid": "i", "lpid": "i", "nattch": "L", "_end": "16x"}
)

#: ``struct shminfo64``: the limits; ``shmmax`` in bytes, ``shmall`` in pages.
SHM_INFO = Layout(dict.fromkeys(("shmmax", "shmmin", "shmmni", "shmseg", "shmall"), "L") | {"_end": "32x"})

#: ``struct shm_info`` of <linux/shm.h>: what is in use, in pages.
SHM_USE = Layout(
    {"used_ids": "i"} | dict.fromkeys(("shm_tot", "shm_rss", "shm_swp", "swap_attempts", "swap_successes"), "L")
)


class _Piece(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", c_void_p), ("size", c_size_t))


_shmget = bind(now, "shmget", c_int, c_int, c_size_t, c_int)
_shmat = bind(now, "shmat", c_ssize_t, c_int, c_void_p, c_int)
_shmdt = bind(now, "shmdt", c_int, c_void_p)
_shmctl = bind(now, "shmctl", c_int, c_int, c_int, c_void_p)
_COPY = (c_ssize_t, c_int, c_void_p, c_ulong, c_void_p, c_ulong, c_ulong)
_copy_out = bind(now, "process_vm_readv", *_COPY)
_copy_in = bind(now, "process_vm_writev", *_COPY)
_mincore = bind(now, "mincore", c_int, c_void_p, c_size_t, c_void_p)
_shmdt_blocking = bind(blocking, "shmdt", c_int, c_void_p)
_shmctl_blocking = bind(blocking, "shmctl", c_int, c_int, c_int, c_void_p)
_copy_out_blocking = bind(blocking, "process_vm_readv", *_COPY)
_copy_in_blocking = bind(blocking, "process_vm_writev", *_COPY)
_madvise_blocking = bind(blocking, "madvise", c_int, c_void_p, c_size_t, c_int)
_new_bytes = ctypes.pythonapi["PyBytes_FromStringAndSize"]
_new_bytes.restype = py_object
_new_bytes.argtypes = (c_void_p, c_ssize_t)
_SELF = os.getpid

_PAGE = mmap.PAGESIZE
#: A byte a page of 1 MiB that may begin within a page.
_pages = bytearray((1 << 20) // _PAGE + 1)
_FOUND = c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(_pages)))
_MOST = len(_pages) * _PAGE

#: So many bytes of pages are taken out of the tables at a time.
_AT_ONCE = 16 << 20


def shmget(key: int, size: int, flags: int) -> int:
    return checked(_shmget(key, size, flags))


def shmat(shmid: int, flags: int) -> int:
    """Attach where the host likes; returns the address. An address of the caller's choice could hit the daemon."""
    return checked(_shmat(shmid, None, flags))


def shmdt(address: int) -> None:
    """Detach what is small: the memory of a removed segment goes with its last attachment."""
    checked(_shmdt(address))


def shmdt_blocking(address: int, size: int) -> None:
    # shmdt(2) keeps all who map or fault anything in this process waiting until every page is out of its tables; so
    # the pages go first, bit by bit.
    for start in range(address, address + size, _AT_ONCE):
        with suppress(SynosError):  # then they go with the rest
            checked(_madvise_blocking(start, min(_AT_ONCE, address + size - start), mmap.MADV_DONTNEED))
    checked(_shmdt_blocking(address))


def shmctl(shmid: int, command: int, buffer: "ctypes.Array[ctypes.c_char] | None" = None) -> int:
    return checked(_shmctl(shmid, command, buffer))


def shmctl_blocking(shmid: int, command: int) -> None:
    """IPC_RMID or SHM_UNLOCK, which go over every page."""
    checked(_shmctl_blocking(shmid, command, None))


def is_resident(address: int, size: int) -> bool:
    """Whether all of it is in memory at this moment; mincore(2). More than 1 MiB never is. For one thread alone."""
    start = address & -_PAGE
    length = address + size - start
    if length > _MOST:
        return False
    checked(_mincore(start, length, _FOUND))
    return _pages.find(0, 0, (length + _PAGE - 1) // _PAGE) < 0


def read_nowait(address: int, size: int) -> bytes:
    """Copy out of attached memory that ``is_resident``."""
    return _read(_copy_out, address, size)


def read_blocking(address: int, size: int) -> bytes:
    """Copy out of attached memory. Less than ``size`` where a page in between cannot be had; EFAULT when the first."""
    return _read(_copy_out_blocking, address, size)


def write_nowait(address: int, data: bytes) -> int:
    """Copy into attached memory that ``is_resident``."""
    return _write(_copy_in, address, data)


def write_blocking(address: int, data: bytes) -> int:
    """Copy into attached memory; returns how many bytes, as for ``read_blocking``. EFAULT when attached read-only."""
    return _write(_copy_in_blocking, address, data)


def _read(copy: Callable[..., int], address: int, size: int) -> bytes:
    # Bytes whose contents are not set yet and that nobody else has: zeroing 1 MiB costs as much as copying it.
    data: bytes = _new_bytes(None, size)
    local = _Piece(_address(data), size)
    remote = _Piece(address, size)
    count = checked(copy(_SELF(), ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0))
    return data if count == size else data[:count]


def _write(copy: Callable[..., int], address: int, data: bytes) -> int:
    local = _Piece(_address(data), len(data))
    remote = _Piece(address, len(data))
    return checked(copy(_SELF(), ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0))


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), c_void_p).value or 0
