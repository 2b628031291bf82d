"""POSIX named semaphores: the host's own, by name (sem_overview(7)); native programs meet them on the same names.

Their files are anybody's to shape, so what goes by a name belongs in a thread of the caller's, which may sleep there:
``open_``, ``unlink``, ``change``, and ``Semaphore.close``. ``status`` and ``look`` never sleep, nor do the other
methods of an open semaphore, but for ``wait``.
"""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from synosfs.errors import SynosError, WouldBlock, shown
from synosfs.host import devshm
from synosfs.host import posix_sem as host_posix_sem
from synosfs.host.errors import explained, explaining
from synosfs.host.libc import Timespec
from synosfs.host.posix_sem import SEM_VALUE_MAX, SIZE, Mapping
from synosfs.host.shared_directory import opened_now, path_of
from synosfs.ipc.change import Change, apply

_NS = 1_000_000_000

_NAME = {
    errno.ENOENT: "no semaphore is named {name}; add O_CREAT to make it",
    errno.EEXIST: "a semaphore named {name} exists, and O_CREAT|O_EXCL asked for a new one",
    errno.EACCES: "semaphore {name} does not let the caller do this; see its mode and owner in sem/posix",
    errno.EINVAL: "{name} is no name of a semaphore (/name, without another slash, is), or the value is above "
    f"SEM_VALUE_MAX ({SEM_VALUE_MAX}), or the file is no semaphore",
    errno.ENODEV: "what is named {name} is no regular file",
    errno.EISDIR: "what is named {name} is a directory",
    errno.ELOOP: "what is named {name} is a symbolic link, which is not followed",
    errno.ENXIO: "what is named {name} is a socket",
    errno.EXDEV: "another file system is mounted over {name}, and nobody is led into that one",
    errno.EAGAIN: "somebody has a lease on semaphore {name}, and this session was opened with O_NONBLOCK",
    errno.EINTR: "{name}: interrupted by a signal",
    errno.ENAMETOOLONG: "{name} is longer than 251 bytes",
    errno.ENFILE: "as many semaphores are open through this mount as it can hold; close some",
}
_USE = {
    errno.EOVERFLOW: f"the value of {{name}} is SEM_VALUE_MAX ({SEM_VALUE_MAX}) already",
    errno.EIO: "the file of semaphore {name} was cut off; unlink it and make it anew",
    errno.EAGAIN: "others write to semaphore {name} without a pause",
    errno.ETIMEDOUT: "nobody posted to {name} in time",
    errno.EINTR: "waiting for {name} was interrupted by a signal",
}
_UNLINK = {
    **_NAME,
    errno.ENOENT: "no semaphore is named {name}",
    errno.EACCES: "semaphore {name} belongs to another user, and /dev/shm is sticky: its owner may unlink it",
}
_LOOK = {
    errno.ENOENT: "no semaphore is named {name}",
    errno.EACCES: "the mode of semaphore {name} does not let the caller read it",
    errno.EINVAL: "what is named {name} is no semaphore",
}
_CHANGE = {
    errno.ENOENT: "no semaphore is named {name}",
    errno.EPERM: "semaphore {name} belongs to another user, who may change it",
    errno.EACCES: "semaphore {name} belongs to another user, and its mode does not let the caller write",
}


@dataclass(frozen=True, slots=True, eq=False)
class Semaphore:
    """An open named semaphore."""

    name: bytes
    _mapping: Mapping

    def post(self) -> None:
        """sem_post(3). EOVERFLOW at SEM_VALUE_MAX."""
        try:
            host_posix_sem.post(self._mapping)
        except SynosError as error:
            raise self._explained(error) from None

    def try_wait(self) -> None:
        """sem_trywait(3). WouldBlock (EAGAIN) when the value is 0."""
        try:
            if host_posix_sem.try_take(self._mapping):
                return
        except SynosError as error:
            if error.errno != errno.EAGAIN:
                raise self._explained(error) from None
        raise WouldBlock(errno.EAGAIN, f"the value of {shown(self.name)} is 0")

    def wait(self, until: Timespec | None = None) -> None:
        """sem_wait(3), or sem_timedwait(3) until a CLOCK_REALTIME: ETIMEDOUT, EINTR on a signal to this thread."""
        with explaining(_USE, name=shown(self.name)):
            host_posix_sem.wait(self._mapping, until)

    def value(self) -> int:
        """sem_getvalue(3); 0 while somebody waits."""
        try:
            return host_posix_sem.value(self._mapping)
        except SynosError as error:
            raise self._explained(error) from None

    def close(self) -> None:
        """sem_close(3). Nobody may use it any more, in any thread. May take long."""
        host_posix_sem.unmap(self._mapping)

    def _explained(self, error: SynosError) -> SynosError:
        return explained(error, _USE, name=shown(self.name))


def open_(name: bytes, flags: int, mode: int, value: int, umask: int, *, nonblock: bool = False) -> Semaphore:
    """sem_open(3). Of the flags only O_CREAT and O_EXCL count; mode and value only for a new semaphore.

    ``nonblock``: EAGAIN where it would wait for a lease.
    """
    with explaining(_NAME, name=shown(name)):
        file = devshm.file_name(name, devshm.SEMAPHORE)
        access = os.O_RDWR | os.O_NONBLOCK * nonblock
        while True:
            if not flags & os.O_CREAT or not flags & os.O_EXCL:
                try:
                    return _mapped(name, devshm.open_blocking(file, access))
                except SynosError as error:
                    if error.errno != errno.ENOENT or not flags & os.O_CREAT:
                        raise
            if value > SEM_VALUE_MAX:
                raise SynosError(errno.EINVAL)
            os.umask(umask)
            try:
                return _mapped(name, devshm.create_blocking(file, mode, host_posix_sem.new(value)))
            except SynosError as error:
                # Somebody was faster: theirs it is.
                if error.errno != errno.EEXIST or flags & os.O_EXCL:
                    raise


def _mapped(name: bytes, fd: int) -> Semaphore:
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SynosError(errno.ENODEV)  # as mmap(2) says of a FIFO
        if status.st_size < SIZE:
            raise SynosError(errno.EINVAL)
        return Semaphore(name, host_posix_sem.mapped(fd, status))
    finally:
        os.close(fd)


def unlink(name: bytes) -> None:
    """sem_unlink(3): the name goes at once; who has it open goes on with it."""
    with explaining(_UNLINK, name=shown(name)):
        try:
            file = devshm.file_name(name, devshm.SEMAPHORE)
        except SynosError:
            raise SynosError(errno.ENOENT) from None  # as glibc says of what is no name
        devshm.unlink_blocking(file)


def prepare() -> None:
    """Call once, before anything else here."""
    with suppress(FileNotFoundError):
        devshm.prepare()


def path(name: bytes) -> str:
    """Where the semaphore is as a file: sem_overview(7)."""
    return f"{devshm.DIRECTORY}/{devshm.SEMAPHORE}" + os.fsdecode(name.lstrip(b"/"))


def names() -> list[str]:
    """Every semaphore there is, without slash; names that are not UTF-8 as os.fsdecode has them."""
    return devshm.names(devshm.SEMAPHORE)


def status(name: str) -> os.stat_result:
    """stat(2) of a semaphore's file. ENOENT: there is none, or it is no semaphore."""
    with explaining(_LOOK, name=shown(name)), devshm.found(devshm.SEMAPHORE + name) as (_, found):
        if found.st_size < SIZE:
            raise SynosError(errno.ENOENT)
        return found


def look(name: str) -> int:
    """The value, by reading the file: needs read permission alone, maps nothing, and leaves atime where it can.

    WouldBlock (EAGAIN): somebody has a lease on it.
    """
    with explaining(_LOOK, name=shown(name)), devshm.found(devshm.SEMAPHORE + name) as (found, _):
        try:
            with opened_now(found, os.O_RDONLY | os.O_NOATIME) as fd:
                return host_posix_sem.shown_value(fd)
        except PermissionError:  # O_NOATIME is the owner's right
            with opened_now(found, os.O_RDONLY) as fd:
                return host_posix_sem.shown_value(fd)


def change(name: str, wanted: Change) -> None:
    """Change mode, owner and times of the very file that has the name now."""
    with explaining(_CHANGE, name=shown(name)), devshm.found(devshm.SEMAPHORE + name) as (found, _):
        apply(wanted, path_of(found))


def deadline(seconds: int | None, nanoseconds: int | None) -> Timespec | None:
    """An absolute time of the realtime clock; None when nothing is given.

    EINVAL: no such nanoseconds, whether the call would wait or not.
    """
    if seconds is None and nanoseconds is None:
        return None
    if not 0 <= (nanoseconds or 0) < _NS:
        raise SynosError(errno.EINVAL, f"abs_nsec {nanoseconds} is not from 0 to 999999999")
    return Timespec(seconds or 0, nanoseconds or 0)
