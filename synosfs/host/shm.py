"""System V shared memory of the host: shmget(2), shmop(2), shmctl(2), as they are, and copies to and from it.

Attached memory is never touched by the daemon's own instructions: the kernel copies (``process_vm_readv(2)`` on this
very process). A page that cannot be had, of a huge-page segment without reservation for one, is then an EFAULT; a
memmove would be a SIGBUS and the end of the daemon. It is also faster (2.3 against 1.5 GB/s), because the pages are
not mapped first.
"""

import ctypes
import os
from ctypes import c_int, c_size_t, c_ssize_t, c_ulong, c_void_p, py_object

from synosfs.host.libc import bind, checked, now
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
_new_bytes = ctypes.pythonapi["PyBytes_FromStringAndSize"]
_new_bytes.restype = py_object
_new_bytes.argtypes = (c_void_p, c_ssize_t)
_SELF = os.getpid


def shmget(key: int, size: int, flags: int) -> int:
    return checked(_shmget(key, size, flags))


def shmat(shmid: int, flags: int) -> int:
    """Attach where the host likes; returns the address. An address of the caller's choice could hit the daemon."""
    return checked(_shmat(shmid, None, flags))


def shmdt(address: int) -> None:
    checked(_shmdt(address))


def shmctl(shmid: int, command: int, buffer: "ctypes.Array[ctypes.c_char] | None" = None) -> int:
    return checked(_shmctl(shmid, command, buffer))


def read(address: int, size: int) -> bytes:
    """Copy out of attached memory. Less than ``size`` where a page in between cannot be had; EFAULT when the first."""
    # Bytes whose contents are not set yet and that nobody else has: zeroing 1 MiB costs as much as copying it.
    data: bytes = _new_bytes(None, size)
    local = _Piece(_address(data), size)
    remote = _Piece(address, size)
    count = checked(_copy_out(_SELF(), ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0))
    return data if count == size else data[:count]


def write(address: int, data: bytes) -> int:
    """Copy into attached memory; returns how many bytes, as for ``read``. EFAULT when attached read-only."""
    local = _Piece(_address(data), len(data))
    remote = _Piece(address, len(data))
    return checked(_copy_in(_SELF(), ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0))


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), c_void_p).value or 0
