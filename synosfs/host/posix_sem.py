"""POSIX named semaphores of the host: glibc's own, on the same memory (sem_overview(7), <bits/semaphore.h>).

A named semaphore is a file in /dev/shm that its users map: 64 bits hold its value (low half) and how many wait for it
(high half). glibc opens, posts, tries and reads it. Two things are done here instead:

- *Waiting*. glibc's sem_wait aborts the whole process when the kernel cannot read the memory any more, which whoever
  owns the file can bring about by truncating it. The same protocol in system calls: count oneself in, sleep on the
  value while it is 0, count oneself out. The kernel adds (FUTEX_WAKE_OP) and reports EFAULT instead.
- *Touching* memory that was truncated away raises SIGBUS, which would end the daemon for everybody. A handler puts an
  empty page in its place, so that the call goes on and fails with EIO.
"""

import ctypes
import errno
import signal
import threading
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_long, c_size_t, c_uint, c_ulong, c_void_p

from synosfs.errors import SynosError
from synosfs.host.libc import bind, blocking, checked, now
from synosfs.host.posix import Timespec

_sem_open = bind(now, "sem_open", c_void_p, c_char_p, c_int, c_uint, c_uint)
_sem_close = bind(now, "sem_close", c_int, c_void_p)
_sem_unlink = bind(now, "sem_unlink", c_int, c_char_p)
_sem_post = bind(now, "sem_post", c_int, c_void_p)
_sem_trywait = bind(now, "sem_trywait", c_int, c_void_p)
_sem_getvalue = bind(now, "sem_getvalue", c_int, c_void_p, POINTER(c_int))

_SYS_FUTEX = 202
_FUTEX = (c_long, c_long, c_void_p, c_long, c_long, c_void_p, c_void_p, c_uint)
_futex_now = bind(now, "syscall", *_FUTEX)
_futex_blocking = bind(blocking, "syscall", *_FUTEX)

_FUTEX_WAKE_OP, _FUTEX_WAIT_BITSET, _FUTEX_CLOCK_REALTIME = 5, 9, 256
_ANY_BIT = 0xFFFFFFFF
#: FUTEX_OP(FUTEX_OP_ADD, n, FUTEX_OP_CMP_LT, 0): add n; wake nobody there, as no count is below 0.
_ADD_ONE, _ADD_MINUS_ONE = ((1 << 28 | 2 << 24 | (n & 0xFFF) << 12) for n in (1, -1))

#: Where the count of those who wait stands; the value stands at 0.
_WAITERS = 4

#: A word that nobody sleeps on: FUTEX_WAKE_OP wakes at least one sleeper on its first word.
_nobody = c_uint()


class _Mapped:
    """One address that glibc has mapped: how often it was opened, and whether its file was cut off under it."""

    def __init__(self) -> None:
        self.users = 0
        self.lost = False


_mapped: dict[int, _Mapped] = {}

#: All users together may not use up what the kernel lets one process map (vm.max_map_count, 65530 by default).
_MOST_MAPPED = 16384
_lock = threading.Lock()


def sem_open(name: bytes, flags: int, mode: int, value: int) -> int:
    """The address of the semaphore; one address for all that open the same one."""
    _catch_bus_errors()
    if len(_mapped) >= _MOST_MAPPED:
        raise SynosError(errno.ENFILE)
    address = _sem_open(name, flags, mode, value)
    if not address:
        raise SynosError(ctypes.get_errno())
    with _lock:
        _mapped.setdefault(address, _Mapped()).users += 1
    return address


def sem_close(address: int) -> None:
    with _lock:
        _mapped[address].users -= 1
        if not _mapped[address].users:
            del _mapped[address]
        checked(_sem_close(address))


def sem_unlink(name: bytes) -> None:
    checked(_sem_unlink(name))


def sem_post(address: int) -> None:
    _touched(address, _sem_post(address))


def sem_trywait(address: int) -> None:
    _touched(address, _sem_trywait(address))


def sem_getvalue(address: int) -> int:
    value = c_int()
    _touched(address, _sem_getvalue(address, value))
    return value.value


def sem_wait(address: int, until: Timespec | None) -> None:
    """sem_timedwait(3), for ever if ``until`` (CLOCK_REALTIME) is None. Blocks: EINTR, ETIMEDOUT."""
    _add(address + _WAITERS, _ADD_ONE)
    try:
        while not _taken(address):
            _sleep_while_zero(address, until)
    finally:
        _add(address + _WAITERS, _ADD_MINUS_ONE)


def _taken(address: int) -> bool:
    try:
        sem_trywait(address)
    except SynosError as error:
        if error.errno != errno.EAGAIN:
            raise
        return False
    return True


def _sleep_while_zero(address: int, until: Timespec | None) -> None:
    operation = _FUTEX_WAIT_BITSET | _FUTEX_CLOCK_REALTIME
    # To glibc a time before the epoch has passed; to the kernel it is no time.
    deadline = None if until is None else Timespec(until.sec, until.nsec) if until.sec >= 0 else Timespec(0, 0)
    pointer = None if deadline is None else ctypes.addressof(deadline)
    if _futex_blocking(_SYS_FUTEX, address, operation, 0, pointer, None, _ANY_BIT) == -1:
        number = ctypes.get_errno()
        if number != errno.EAGAIN:  # EAGAIN: it is not 0 any more
            raise SynosError(errno.EIO if number == errno.EFAULT else number)


def _add(address: int, operation: int) -> None:
    """Add to a word as one atomic step, by the kernel. Memory that was cut off has nothing to count."""
    _futex_now(_SYS_FUTEX, ctypes.addressof(_nobody), _FUTEX_WAKE_OP, 1, None, address, operation)


def _touched(address: int, result: int) -> None:
    """The end of a call that touched the semaphore: its error, EIO when the memory was gone."""
    if _mapped[address].lost:
        raise SynosError(errno.EIO)
    checked(result)


# --- SIGBUS -----------------------------------------------------------------------------------------------------------


class _SigAction(ctypes.Structure):
    """``struct sigaction`` of glibc."""

    _fields_ = (("handler", c_void_p), ("mask", c_ulong * 16), ("flags", c_int), ("restorer", c_void_p))


_sigaction = bind(now, "sigaction", c_int, c_int, POINTER(_SigAction), c_void_p)
_mmap = bind(now, "mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)

_SA_SIGINFO = 4
_PAGE = 4096
#: Offset of si_addr in siginfo_t.
_SI_ADDR = 16
_READ_WRITE = 1 | 2
_PRIVATE_ANONYMOUS_FIXED = 0x02 | 0x20 | 0x10


def _on_bus_error(_number: int, info: int, _context: int) -> None:
    """Runs in the thread that touched the memory, in the middle of glibc's function, which then goes on."""
    touched = c_ulong.from_address(info + _SI_ADDR).value
    page = touched & -_PAGE
    lost = [mapped for address, mapped in _mapped.items() if address & -_PAGE == page]
    if not lost:
        # Somebody else's fault: the same instruction raises it again, and this time ends the process.
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        return
    _mmap(page, _PAGE, _READ_WRITE, _PRIVATE_ANONYMOUS_FIXED, -1, 0)
    for mapped in lost:
        mapped.lost = True


_handler = CFUNCTYPE(None, c_int, c_void_p, c_void_p)(_on_bus_error)
_caught: list[bool] = []


def _catch_bus_errors() -> None:
    """Once, before the first semaphore is mapped."""
    if not _caught:
        action = _SigAction(ctypes.cast(_handler, c_void_p).value, (c_ulong * 16)(), _SA_SIGINFO)
        checked(_sigaction(signal.SIGBUS, action, None))
        _caught.append(True)
