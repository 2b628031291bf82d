"""System V shared memory and ftok by libc: <sys/shm.h>, <sys/ipc.h>."""

import ctypes
import time
from ctypes import c_char_p, c_int, c_size_t, c_ssize_t, c_ulong, c_void_p

from native import Result, checked, libc
from native_msg import CONSTANTS as IPC
from native_msg import IpcPerm

CONSTANTS = {
    "SHM_HUGETLB": 0o4000,
    "SHM_NORESERVE": 0o10000,
    "SHM_RDONLY": 0o10000,
    "SHM_RND": 0o20000,
    "SHM_REMAP": 0o40000,
    "SHM_LOCK": 11,
    "SHM_UNLOCK": 12,
    "SHM_STAT": 13,
    "SHM_INFO": 14,
    "SHM_STAT_ANY": 15,
    "NULL": 0,
}
_CLOCK_REALTIME_COARSE = 5
SLEEPS: dict[str, int] = {}


class ShmidDs(ctypes.Structure):
    _fields_ = (
        ("perm", IpcPerm),
        *((name, c_ulong) for name in ("segsz", "atime", "dtime", "ctime")),
        *((name, c_int) for name in ("cpid", "lpid")),
        ("nattch", c_ulong),
        ("unused", c_ulong * 2),
    )


class ShmInfo(ctypes.Structure):
    _fields_ = (*((n, c_ulong) for n in ("shmmax", "shmmin", "shmmni", "shmseg", "shmall")), ("unused", c_ulong * 4))


class ShmUse(ctypes.Structure):
    _fields_ = (
        ("used_ids", c_int),
        *((name, c_ulong) for name in ("shm_tot", "shm_rss", "shm_swp", "swap_attempts", "swap_successes")),
    )


libc.shmget.argtypes = (c_int, c_size_t, c_int)
libc.shmat.argtypes = (c_int, c_void_p, c_int)
libc.shmat.restype = c_ssize_t
libc.shmdt.argtypes = (c_void_p,)
libc.shmctl.argtypes = (c_int, c_int, c_void_p)
libc.ftok.argtypes = (c_char_p, c_int)


def shmget(key: int, size: int, flags: int = 0) -> int:
    return checked(libc.shmget(ctypes.c_int(key & 0xFFFFFFFF).value, size, flags))


def shmat(shmid: int, address: int = 0, flags: int = 0) -> int:
    return checked(libc.shmat(shmid, address, flags))


def shmdt(address: int) -> int:
    return checked(libc.shmdt(address))


def shmctl(shmid: int, command: int, **fields: int) -> Result:
    if command in (IPC["IPC_INFO"], CONSTANTS["SHM_INFO"]):
        info = ShmInfo() if command == IPC["IPC_INFO"] else ShmUse()
        ret = checked(libc.shmctl(shmid, command, ctypes.byref(info)))
        return Result(ret, "", {name: getattr(info, name) for name, _ in info._fields_ if name != "unused"})
    status = ShmidDs()
    if command == IPC["IPC_SET"]:
        _fill_in(shmid, status)
        for name, value in fields.items():
            setattr(status.perm, name, value)
    ret = checked(libc.shmctl(shmid, command, ctypes.byref(status)))
    if command not in (IPC["IPC_STAT"], CONSTANTS["SHM_STAT"], CONSTANTS["SHM_STAT_ANY"]):
        return Result(ret)
    perm = {name: getattr(status.perm, name) for name, _ in IpcPerm._fields_[:-1]}
    rest = {name: getattr(status, name) for name, _ in ShmidDs._fields_[1:-1]}
    return Result(ret, "", perm | {"key": perm["key"] & 0xFFFFFFFF} | rest)


def ftok(path: bytes, project: int) -> int:
    return checked(libc.ftok(path, project)) & 0xFFFFFFFF


def peek(shmid: int, size: int, offset: int = 0) -> bytes:
    """What a native program finds in the segment."""
    address = shmat(shmid, 0, CONSTANTS["SHM_RDONLY"])
    try:
        return ctypes.string_at(address + offset, size)
    finally:
        shmdt(address)


def poke(shmid: int, data: bytes, offset: int = 0) -> None:
    """A native program writes into the segment."""
    address = shmat(shmid)
    try:
        ctypes.memmove(address + offset, data, len(data))
    finally:
        shmdt(address)


def kernel_time() -> int:
    """The seconds that the kernel would note now: its clock of whole ticks lags a little behind time()."""
    return int(time.clock_gettime(_CLOCK_REALTIME_COARSE))


def _fill_in(shmid: int, status: ShmidDs) -> None:
    """The present values of what IPC_SET sets, for a caller who need not have the right to IPC_STAT."""
    for slot in range(checked(libc.shmctl(0, CONSTANTS["SHM_INFO"], ctypes.byref(ShmUse()))) + 1):
        if libc.shmctl(slot, CONSTANTS["SHM_STAT_ANY"], ctypes.byref(status)) == shmid:
            return


CALLS = {"shmget": shmget, "shmat": shmat, "shmdt": shmdt, "shmctl": shmctl, "ftok": ftok}
