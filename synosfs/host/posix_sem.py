"""POSIX named semaphores of the host, on glibc's memory and by glibc's protocol, so that native programs meet them.

A named semaphore is a file in /dev/shm that its users map (<internaltypes.h>, struct new_sem): 64 bits hold its value
(low half) and how many wait for it (high half); what follows tells a futex of one process from a shared one. All are
shared here, whatever the file says. To take is to subtract one while the value is not 0; who cannot counts himself in,
sleeps on the value while it is 0, and counts himself out. To give is to add one, and to wake one if any are counted.

glibc's own functions trust that memory: where its owner has forged it, or has truncated the file, they sleep in
sem_post, abort the process, or die of SIGBUS. So the steps are ``_atomic``'s, which answer EIO for memory that is gone;
it costs that one call, and a file that has grown again serves again. Only ``wait`` sleeps.
"""

import ctypes
import errno
import os
import struct
import sys
import threading
from ctypes import c_int, c_long, c_size_t, c_uint, c_void_p

import posix_ipc

from synosfs.errors import SynosError
from synosfs.host import _atomic
from synosfs.host.libc import Timespec, bind, blocking, checked, syscall, syscall_blocking

SEM_VALUE_MAX: int = posix_ipc.SEMAPHORE_VALUE_MAX

#: ``struct new_sem``: value, how many wait, FUTEX_SHARED as glibc has it, and what is left of sem_t.
_NEW = struct.Struct("=IIi20x")
_FUTEX_SHARED = 128
#: The size of a semaphore's file, and the value in it.
SIZE = _NEW.size
_VALUE = struct.Struct("=I")

_FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_CLOCK_REALTIME = 1, 9, 256
_ANY_BIT = 0xFFFFFFFF
#: Where the value stands in the word.
_VALUE_AT = 0 if sys.byteorder == "little" else 4

_mmap = bind(blocking, "mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_munmap = bind(blocking, "munmap", c_int, c_void_p, c_size_t)
_READ_WRITE, _MAP_SHARED = 1 | 2, 1
_MAP_FAILED = c_void_p(-1).value

#: All users together may not use up what the kernel lets one process map (vm.max_map_count, 65530 by default).
_MOST_MAPPED = 16384


class Mapping:
    """The memory of one semaphore, for all who have it open."""

    __slots__ = ("address", "identity", "users")

    def __init__(self, identity: tuple[int, int], address: int) -> None:
        self.identity = identity
        self.address = address
        self.users = 1


#: By device and inode number, which no other file can have while this one is mapped. Used from many threads.
_mapped: dict[tuple[int, int], Mapping] = {}
_lock = threading.Lock()


def new(value: int) -> bytes:
    """The contents of a new semaphore's file."""
    return _NEW.pack(value, 0, _FUTEX_SHARED)


def shown_value(fd: int) -> int:
    """The value, by reading the file: maps nothing and needs read permission alone. EINVAL: the file is too short."""
    data = os.pread(fd, _VALUE.size, 0)
    if len(data) < _VALUE.size:
        raise SynosError(errno.EINVAL)
    return int(_VALUE.unpack(data)[0])


def mapped(fd: int, status: os.stat_result) -> Mapping:
    """Map the file, or find where it is. ENFILE: too many are."""
    identity = status.st_dev, status.st_ino
    with _lock:
        if (found := _mapped.get(identity)) is not None:
            found.users += 1
            return found
        if len(_mapped) >= _MOST_MAPPED:
            raise SynosError(errno.ENFILE)
        if not _mapped:
            _catch_bus_errors()
        address = _mmap(None, SIZE, _READ_WRITE, _MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            raise SynosError(ctypes.get_errno())
        _mapped[identity] = made = Mapping(identity, address)
        return made


def unmap(mapping: Mapping) -> None:
    """The end of one user. The last one's may take long: a large file that has no name any more goes with it."""
    with _lock:
        mapping.users -= 1
        if mapping.users:
            return
        del _mapped[mapping.identity]
    checked(_munmap(mapping.address, SIZE))


def post(mapping: Mapping) -> None:
    """sem_post(3). EOVERFLOW at SEM_VALUE_MAX."""
    if _step(_atomic.post(mapping.address)):
        _futex_wake(mapping.address + _VALUE_AT)


def try_take(mapping: Mapping) -> bool:
    """sem_trywait(3): whether one was taken."""
    return bool(_step(_atomic.try_take(mapping.address)))


def value(mapping: Mapping) -> int:
    """sem_getvalue(3)."""
    return _step(_atomic.value(mapping.address))


def wait(mapping: Mapping, until: Timespec | None) -> None:
    """sem_timedwait(3), for ever if ``until`` (CLOCK_REALTIME) is None. Sleeps: EINTR, ETIMEDOUT."""
    _step(_atomic.add_waiters(mapping.address, 1))
    try:
        while not _taken(mapping):
            _sleep_while_zero(mapping.address + _VALUE_AT, until)
    finally:
        _atomic.add_waiters(mapping.address, -1)  # memory that is gone has nothing to count


def _taken(mapping: Mapping) -> bool:
    try:
        return try_take(mapping)
    except SynosError as error:
        if error.errno != errno.EAGAIN:
            raise
        return False  # the value is not 0, so the sleep that follows is none


_REFUSED = {_atomic.GONE: errno.EIO, _atomic.BUSY: errno.EAGAIN, _atomic.FULL: errno.EOVERFLOW}


def _step(result: int) -> int:
    if result < 0:
        raise SynosError(_REFUSED[result])
    return result


def _futex_wake(address: int) -> None:
    try:
        syscall("futex", c_void_p(address), c_int(_FUTEX_WAKE), c_uint(1), None, None, c_uint(0))
    except SynosError as error:
        raise _gone(error) from None


def _sleep_while_zero(address: int, until: Timespec | None) -> None:
    operation = c_int(_FUTEX_WAIT_BITSET | _FUTEX_CLOCK_REALTIME)
    # To glibc a time before the epoch has passed; to the kernel it is no time.
    deadline = None if until is None else ctypes.byref(until if until.sec >= 0 else Timespec(0, 0))
    try:
        syscall_blocking("futex", c_void_p(address), operation, c_uint(0), deadline, None, c_uint(_ANY_BIT))
    except SynosError as error:
        if error.errno != errno.EAGAIN:  # EAGAIN: it is not 0 any more
            raise _gone(error) from None


def _gone(error: SynosError) -> SynosError:
    return SynosError(errno.EIO) if error.errno == errno.EFAULT else error


def _catch_bus_errors() -> None:
    if not _catching:
        _atomic.catch_bus_errors()
        _catching.append(True)


_catching: list[bool] = []
