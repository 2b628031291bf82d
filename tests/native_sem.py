"""System V semaphores by libc: <sys/sem.h>."""

import ctypes
import struct
from ctypes import c_int, c_long, c_size_t, c_ulong, c_ushort, c_void_p

from native import Result, checked, libc, number
from native_msg import CONSTANTS as IPC_CONSTANTS
from native_msg import IpcPerm

CONSTANTS = {name: value for name, value in IPC_CONSTANTS.items() if name.startswith("IPC_")} | {
    "SEM_UNDO": 0o10000,
    "GETPID": 11,
    "GETVAL": 12,
    "GETALL": 13,
    "GETNCNT": 14,
    "GETZCNT": 15,
    "SETVAL": 16,
    "SETALL": 17,
    "SEM_STAT": 18,
    "SEM_INFO": 19,
    "SEM_STAT_ANY": 20,
}
SLEEPS = {"semop": 220, "semtimedop": 220}  # glibc's semop is semtimedop without a time-out


class SemidDs(ctypes.Structure):
    _fields_ = (
        ("perm", IpcPerm),
        *((name, c_long) for name in ("otime", "unused1", "ctime", "unused2")),
        ("nsems", c_ulong),
        ("unused3", c_ulong * 2),
    )


class SemInfo(ctypes.Structure):
    _fields_ = tuple(
        (name, c_int)
        for name in ["semmap", "semmni", "semmns", "semmnu", "semmsl", "semopm", "semume", "semusz", "semvmx", "semaem"]
    )


libc.semget.argtypes = (c_int, c_int, c_int)
libc.semtimedop.argtypes = (c_int, c_void_p, c_size_t, c_void_p)


def semget(key: int, nsems: int, flags: int = 0) -> int:
    return checked(libc.semget(ctypes.c_int(key & 0xFFFFFFFF).value, nsems, flags))


def semop(semid: int, *operations: tuple) -> int:
    return semtimedop(semid, *operations)


def semtimedop(semid: int, *operations: tuple, timeout: float | None = None, nanoseconds: int | None = None) -> int:
    """``nanoseconds`` is tv_nsec as it is, with a tv_sec of 0."""
    array = b"".join(
        struct.pack("HhH", num, delta, number(*rest or (0,), CONSTANTS)) for num, delta, *rest in operations
    )
    until = None
    if nanoseconds is not None:
        until = struct.pack("ll", 0, nanoseconds)
    elif timeout is not None:
        until = struct.pack("ll", int(timeout), int(timeout % 1 * 1e9))
    return checked(libc.semtimedop(semid, array, len(operations), until))


def semctl(semid: int, semnum: int, command: int, value: int | list | None = None, **fields: int) -> int | Result:
    name = next((name for name, known in CONSTANTS.items() if known == command and not name.startswith("IPC_")), "")
    if command in (CONSTANTS["IPC_INFO"], CONSTANTS["SEM_INFO"]):
        info = SemInfo()
        ret = checked(libc.semctl(semid, 0, command, ctypes.byref(info)))
        return Result(ret, "", {name: getattr(info, name) for name, _ in SemInfo._fields_})
    if name == "GETALL":
        values = (c_ushort * _nsems(semid))()
        ret = checked(libc.semctl(semid, 0, command, values))
        return Result(ret, "", {"values": list(values)})
    if name == "SETALL":
        return checked(libc.semctl(semid, 0, command, (c_ushort * len(value))(*value)))
    if command in (CONSTANTS["IPC_STAT"], CONSTANTS["SEM_STAT"], CONSTANTS["SEM_STAT_ANY"]):
        status = SemidDs()
        ret = checked(libc.semctl(semid, 0, command, ctypes.byref(status)))
        perm = {name: getattr(status.perm, name) for name, _ in IpcPerm._fields_[:-1]}
        rest = {name: getattr(status, name) for name in ("otime", "ctime", "nsems")}
        return Result(ret, "", perm | {"key": perm["key"] & 0xFFFFFFFF} | rest)
    if command == CONSTANTS["IPC_SET"]:
        status = _any_status(semid)
        for name, field in fields.items():
            setattr(status.perm, name, field)
        return checked(libc.semctl(semid, 0, command, ctypes.byref(status)))
    return checked(libc.semctl(semid, semnum, command, c_long(value or 0)))


def _any_status(semid: int) -> SemidDs:
    """The status for a caller who need not have the right to IPC_STAT; of nothing when there is no such set."""
    status = SemidDs()
    for slot in range(checked(libc.semctl(0, 0, CONSTANTS["SEM_INFO"], ctypes.byref(SemInfo()))) + 1):
        if libc.semctl(slot, 0, CONSTANTS["SEM_STAT_ANY"], ctypes.byref(status)) == semid:
            break
    return status


def _nsems(semid: int) -> int:
    return _any_status(semid).nsems


CALLS = {"semget": semget, "semop": semop, "semtimedop": semtimedop, "semctl": semctl}
