"""``sem/posix/``: POSIX named semaphores as files, whoever made them.

Reading shows the value. A write takes or gives, a line at a time: ``-1`` takes one and waits for it as sem_wait does,
``+1`` gives one, ``-3`` and ``+3`` do it three times; a write that is ended before it has taken all gives back what it
took. A number without a sign is a value, and only a new semaphore has one to be set: ``echo 3 > sem/posix/name`` makes
the semaphore with the value 3, and is EINVAL where it exists. A file made otherwise is a semaphore with the value 0.

The size is that of the value as it is read, 0 for those who may not read it, and while somebody has a lease on it.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EINVAL, EMSGSIZE

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.fs.lines import LineHandle
from synosfs.fs.node import Attributes, Handle, Node, Who, credentials_of, writes
from synosfs.fs.posix import Opened, PosixNames, change_attributes, host_name, may_read
from synosfs.fs.session import open_caller
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc import posix_sem
from synosfs.ipc.change import Change, Named
from synosfs.kernel import Kernel
from synosfs.syscall_gate.readiness import PosixSemaphoreSource, Source
from synosfs.syscall_gate.record import Request

#: The most that one line may give or take: each one is a call.
_MOST = 1000


@dataclass(frozen=True)
class PosixSemaphoreFile(Node):
    """One semaphore; ``new`` when the open that follows has made it."""

    kernel: Kernel
    name: str
    new: bool = False  # just made by who opens it: told apart, so that nobody else opens it as new

    fresh = True  # taking blocks, and must not block who gives
    steady = True

    def attributes(self, who: Who) -> Attributes:
        found = posix_sem.status(self.name)
        return Attributes(
            stat.S_IFREG | stat.S_IMODE(found.st_mode),
            found.st_uid,
            found.st_gid,
            size=self._size() if may_read(found, who) else 0,
            atime_ns=found.st_atime_ns,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
        )

    def _size(self) -> int:
        try:
            return len(_text(self.name))
        except WouldBlock:
            return 0

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            return _Value(self.name, credentials_of(who))
        semaphore = Opened(self.kernel, open_caller(self.kernel, who, flags, inode))
        await semaphore.open(Request("sem_open", [host_name(self.name)]))
        return _Operations(self.kernel, semaphore, self.name, new=self.new)

    async def change(self, change: Change, who: Who) -> None:
        if change.size:
            raise SynosError(EINVAL, "a semaphore's value is not changed by truncation; write +1 or -1")
        await change_attributes(self.kernel, who, Named("semaphore", host_name(self.name)), change)

    def xattrs(self, who: Who) -> Mapping[str, str]:
        return {"value": str(posix_sem.look(self.name))} if may_read(posix_sem.status(self.name), who) else {}


class _Value(Handle):
    """Shows the value as it is when a reader begins at the front, with the rights of the opener."""

    def __init__(self, name: str, credentials: Credentials) -> None:
        self._name = name
        self._credentials = credentials
        self._shown = b""

    async def read(self, offset: int, size: int) -> bytes:
        if offset == 0 or not self._shown:
            with rights.acting_as(self._credentials):
                self._shown = _text(self._name)
        return self._shown[offset : offset + size]


class _Operations(LineHandle):
    """Takes part: each line of a write gives or takes."""

    def __init__(self, kernel: Kernel, semaphore: Opened, name: str, *, new: bool) -> None:
        super().__init__(kernel, semaphore.caller)
        self._semaphore = semaphore
        self._name = name
        self._value = _Value(name, semaphore.caller.credentials)
        self._new = new

    async def read(self, offset: int, size: int) -> bytes:
        return await self._value.read(offset, size)

    async def write(self, offset: int, data: bytes) -> int:
        done = await super().write(offset, data)
        self._new = False
        return done

    def requests_of(self, line: bytes) -> list[Request]:
        word = line.strip()
        if not word:
            return []
        if not re.fullmatch(rb"[+-]?[0-9]{1,9}", word):
            raise SynosError(EINVAL, "a semaphore takes lines of +1, -1 or another number with a sign")
        if word.isdigit() and not self._new:
            raise SynosError(EINVAL, f"semaphore {self._name} has its value already: write +n or -n to change it")
        count = int(word)
        if abs(count) > _MOST:
            raise SynosError(EMSGSIZE, f"one line gives or takes {_MOST} at most")
        return [Request("sem_post" if count > 0 else "sem_wait", [0])] * abs(count)

    def undone(self, made: list[Request]) -> list[Request]:
        """What was taken is given back; what was given stays given."""
        return [Request("sem_post", [0]) for request in made if request.call == "sem_wait"]

    def source(self) -> Source:
        return PosixSemaphoreSource(self._semaphore.description.thing)

    async def close(self) -> None:
        await self._semaphore.close()


@dataclass(frozen=True)
class PosixSemaphores(PosixNames):
    """The directory."""

    unlink_call = "sem_unlink"
    listers = trio.CapacityLimiter(40)

    def lookup(self, name: str, who: Who) -> Node:
        posix_sem.status(name)
        return PosixSemaphoreFile(self.kernel, name)

    def host_names(self) -> list[str]:
        return posix_sem.names()

    def named(self, name: str) -> Node:
        return PosixSemaphoreFile(self.kernel, name)

    async def create(self, name: str, mode: int, who: Who) -> Node:
        semaphore = Opened(self.kernel, open_caller(self.kernel, who))
        await semaphore.open(Request("sem_open", [host_name(name), os.O_CREAT | os.O_EXCL, mode & 0o777, 0]))
        await semaphore.close()
        return PosixSemaphoreFile(self.kernel, name, new=True)


def _text(name: str) -> bytes:
    return b"%d\n" % posix_sem.look(name)


def directory(kernel: Kernel) -> PosixSemaphores:
    posix_sem.prepare()
    return PosixSemaphores(kernel)
