"""System V semaphores of the host: semget(2), semop(2), semctl(2), as they are."""

import ctypes
import struct
from array import array
from collections.abc import Iterable, Sequence
from ctypes import c_int, c_size_t, c_ulong, c_void_p

from synosfs.host.abi import GETALL, SETALL
from synosfs.host.arch import HERE
from synosfs.host.libc import Timespec, bind, blocking, checked, now
from synosfs.host.structs import IPC_PERM, Layout

#: ``struct semid64_ds`` of <asm/sembuf.h>; times in seconds since the epoch.
SEMID_DS = Layout({**IPC_PERM, **HERE.semid_ds})

#: ``struct seminfo`` of <linux/sem.h>.
SEM_INFO = Layout(
    dict.fromkeys(
        ("semmap", "semmni", "semmns", "semmnu", "semmsl", "semopm", "semume", "semusz", "semvmx", "semaem"), "i"
    )
)

_semget = bind(now, "semget", c_int, c_int, c_int, c_int)
_semctl = bind(now, "semctl", c_int, c_int, c_int, c_int, c_ulong)
_semop_now = bind(now, "semop", c_int, c_int, c_void_p, c_size_t)
_semtimedop_blocking = bind(blocking, "semtimedop", c_int, c_int, c_void_p, c_size_t, c_void_p)

_SEMBUF = struct.Struct("=HhH")


def semget(key: int, nsems: int, flags: int) -> int:
    return checked(_semget(key, nsems, flags))


def semctl(semid: int, semnum: int, command: int, value: int = 0) -> int:
    """A command whose argument is a number, or none."""
    return checked(_semctl(semid, semnum, command, value & 0xFFFFFFFF))


def semctl_buffer(semid: int, command: int, buffer: "ctypes.Array[ctypes.c_char]") -> int:
    """A command whose argument is the address of a structure."""
    return checked(_semctl(semid, 0, command, ctypes.addressof(buffer)))


def semctl_getall(semid: int, nsems: int) -> list[int]:
    """The values of a set of exactly ``nsems`` semaphores; the host writes as many as the set has."""
    values = ctypes.create_string_buffer(2 * nsems)
    checked(_semctl(semid, 0, GETALL, ctypes.addressof(values)))
    return [*struct.unpack(f"={nsems}H", values)]


def semctl_setall(semid: int, values: "array[int]") -> int:
    """Set a set of exactly as many semaphores, each an unsigned short."""
    return checked(_semctl(semid, 0, SETALL, values.buffer_info()[0]))


def semop_nowait(semid: int, operations: Sequence[Iterable[int]]) -> int:
    """Each operation is (number, delta, flags) and must have IPC_NOWAIT."""
    return checked(_semop_now(semid, _packed(operations), len(operations)))


def semtimedop_blocking(semid: int, operations: Sequence[Iterable[int]], timeout_ns: int | None) -> int:
    """Each operation is (number, delta, flags)."""
    timeout = None if timeout_ns is None else ctypes.byref(Timespec(*divmod(timeout_ns, 1_000_000_000)))
    return checked(_semtimedop_blocking(semid, _packed(operations), len(operations), timeout))


def _packed(operations: Iterable[Iterable[int]]) -> bytes:
    """An array of ``struct sembuf``."""
    return b"".join([_SEMBUF.pack(*operation) for operation in operations])
