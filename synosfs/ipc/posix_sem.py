"""POSIX named semaphores: the host's own, by name (sem_overview(7)); native programs meet them on the same names."""

import errno
import os
import stat
import struct
from dataclasses import dataclass

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import posix as host_posix
from synosfs.host import posix_sem as host_posix_sem
from synosfs.host.posix import Timespec
from synosfs.ipc.change import Change, apply

_NS = 1_000_000_000

_DIRECTORY, _PREFIX = "/dev/shm", "sem."
#: glibc's sem_t: its size, and its value, the low half of the first 64 bits.
_SIZE = 32
_VALUE = struct.Struct("=I")

_NAME = {
    errno.ENOENT: "no semaphore is named {name}; add O_CREAT to make it",
    errno.EEXIST: "a semaphore named {name} exists, and O_CREAT|O_EXCL asked for a new one",
    errno.EACCES: "semaphore {name} needs read and write permission; see its mode and owner in sem/posix",
    errno.EINVAL: "{name} is no name of a semaphore (/name, without another slash, is), or the value is above "
    f"SEM_VALUE_MAX ({host_posix.SEM_VALUE_MAX}), or the file is no semaphore",
    errno.ENAMETOOLONG: "{name} is longer than 251 bytes",
    errno.ENFILE: "as many semaphores are open through this mount as it can hold; close some",
}
_USE = {
    errno.EOVERFLOW: f"the value of {{name}} is SEM_VALUE_MAX ({host_posix.SEM_VALUE_MAX}) already",
    errno.EIO: "the file of semaphore {name} was cut off; unlink it and make it anew",
    errno.ETIMEDOUT: "nobody posted to {name} in time",
}


@dataclass(frozen=True, slots=True, eq=False)
class Semaphore:
    """An open named semaphore. ``wait`` blocks and belongs in a thread of its own."""

    name: bytes
    _address: int

    def post(self) -> None:
        """sem_post(3). EOVERFLOW at SEM_VALUE_MAX."""
        try:
            host_posix_sem.sem_post(self._address)
        except SynosError as error:
            raise _explained(error, self.name, _USE) from None

    def try_wait(self) -> None:
        """sem_trywait(3). WouldBlock (EAGAIN) when the value is 0."""
        try:
            host_posix_sem.sem_trywait(self._address)
        except SynosError as error:
            if error.errno == errno.EAGAIN:
                raise WouldBlock(errno.EAGAIN, f"the value of {host_posix.shown(self.name)} is 0") from None
            raise _explained(error, self.name, _USE) from None

    def wait(self, until: Timespec | None = None) -> None:
        """sem_wait(3), or sem_timedwait(3) until a CLOCK_REALTIME: ETIMEDOUT, EINTR on a signal to this thread."""
        try:
            host_posix_sem.sem_wait(self._address, until)
        except SynosError as error:
            raise _explained(error, self.name, _USE) from None

    def value(self) -> int:
        """sem_getvalue(3); 0 while somebody waits."""
        try:
            return host_posix_sem.sem_getvalue(self._address)
        except SynosError as error:
            raise _explained(error, self.name, _USE) from None

    def close(self) -> None:
        """sem_close(3). Nobody may use it any more, in any thread."""
        host_posix_sem.sem_close(self._address)


def open_(name: bytes, flags: int, mode: int, value: int, umask: int) -> Semaphore:
    """sem_open(3). Of the flags only O_CREAT and O_EXCL count; mode and value only for a new semaphore."""
    try:
        with host_posix.creating_with(umask):
            address = host_posix_sem.sem_open(name, flags, mode, value)
    except SynosError as error:
        raise _explained(error, name, _NAME) from None
    return Semaphore(name, address)


def unlink(name: bytes) -> None:
    """sem_unlink(3): the name goes at once; who has it open goes on with it."""
    try:
        host_posix_sem.sem_unlink(name)
    except SynosError as error:
        raise _explained(error, name, _NAME) from None


def path(name: bytes) -> str:
    """Where the semaphore is as a file: sem_overview(7)."""
    return f"{_DIRECTORY}/{_PREFIX}" + os.fsdecode(name.lstrip(b"/"))


def names() -> list[str]:
    """Every semaphore there is, without slash; names that are not UTF-8 as os.fsdecode has them."""
    try:
        files = os.listdir(_DIRECTORY)
    except FileNotFoundError:
        return []
    return [file.removeprefix(_PREFIX) for file in files if file.startswith(_PREFIX)]


def status(name: str) -> os.stat_result:
    """stat(2) of a semaphore's file. ENOENT: there is none, or it is no semaphore."""
    try:
        found = os.stat(path(os.fsencode(name)), follow_symlinks=False)
    except OSError as error:
        raise SynosError(error.errno or 0, f"no semaphore is named {name}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_size < _SIZE:
        raise SynosError(errno.ENOENT, f"what is named {name} in {_DIRECTORY} is no semaphore")
    return found


def look(name: str) -> int:
    """The value, by reading the file: needs read permission alone, maps nothing, and leaves atime where it can."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            fd = os.open(path(os.fsencode(name)), flags | os.O_NOATIME)
        except PermissionError:  # O_NOATIME is the owner's right
            fd = os.open(path(os.fsencode(name)), flags)
        try:
            return int(_VALUE.unpack(os.pread(fd, _VALUE.size, 0))[0])
        finally:
            os.close(fd)
    except (OSError, struct.error) as error:
        number = getattr(error, "errno", None) or errno.ENOENT
        raise SynosError(number, f"semaphore {name}: {os.strerror(number).lower()}") from None


def change(name: str, wanted: Change) -> None:
    """Change mode, owner and times: by a descriptor, for a symbolic link that took the file's place is not followed."""
    try:
        fd = os.open(path(os.fsencode(name)), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                apply(wanted, f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except OSError as error:
        number = error.errno or 0
        raise SynosError(number, f"semaphore {name}: {os.strerror(number).lower()}") from None


def deadline(seconds: int | None, nanoseconds: int | None) -> Timespec | None:
    """An absolute time of the realtime clock; None when nothing is given.

    EINVAL: no such nanoseconds, whether the call would wait or not.
    """
    if seconds is None and nanoseconds is None:
        return None
    if not 0 <= (nanoseconds or 0) < _NS:
        raise SynosError(errno.EINVAL, f"abs_nsec {nanoseconds} is not from 0 to 999999999")
    return Timespec(seconds or 0, nanoseconds or 0)


def _explained(error: SynosError, name: bytes, reasons: dict[int, str]) -> SynosError:
    reason = reasons.get(error.errno)
    return SynosError(error.errno, reason.format(name=host_posix.shown(name))) if reason else error
