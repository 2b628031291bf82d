"""``sem/posix/``: POSIX named semaphores as files, whoever made them.

Reading shows the value. A write takes or gives, a line at a time: ``-1`` takes one and waits for it as sem_wait does,
``+1`` gives one, ``-3`` and ``+3`` do it three times; a write that is ended before it has taken all gives back what it
took. A number without a sign is a value, and only a new semaphore has one to be set: ``echo 3 > sem/posix/name`` makes
the semaphore with the value 3, and is EINVAL where it exists. A file made otherwise is a semaphore with the value 0.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from errno import EINVAL, EMSGSIZE

from synosfs.errors import SynosError
from synosfs.fs.node import Attributes, Handle, Node, Who, credentials_of, writes
from synosfs.fs.posix import PosixNames, host_name, may_read
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc import posix_sem
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.process.descriptors import held
from synosfs.syscall_gate import sys_posix_sem
from synosfs.syscall_gate.parking import Caller
from synosfs.syscall_gate.readiness import PosixSemaphoreSource, Source
from synosfs.syscall_gate.record import Request

#: The most that one line may give or take: each one is a call, and nobody else is served meanwhile.
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
            size=len(_text(self.name)) if may_read(found, who) else 0,
            atime_ns=found.st_atime_ns,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
        )

    def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            return _Value(self.name, credentials_of(who))
        caller = self.kernel.caller(who.pid, who.uid, who.gid)
        caller.nonblock = bool(flags & os.O_NONBLOCK)
        caller.inode = inode
        with rights.acting_as(caller.credentials):
            semaphore = posix_sem.open_(host_name(self.name), 0, 0, 0, 0)
        return _Operations(self.kernel, caller, semaphore, new=self.new)

    def change(self, change: Change, who: Who) -> None:
        if change.size:
            raise SynosError(EINVAL, "a semaphore's value is not changed by truncation; write +1 or -1")
        with rights.acting_as(credentials_of(who)):
            posix_sem.change(self.name, change)

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


class _Operations(_Value):
    """Takes part: each line of a write gives or takes."""

    def __init__(self, kernel: Kernel, caller: Caller, semaphore: posix_sem.Semaphore, *, new: bool) -> None:
        super().__init__(os.fsdecode(semaphore.name[1:]), caller.credentials)
        self._kernel = kernel
        self._caller = caller
        self._open = ExitStack()
        self._description = self._open.enter_context(held(sys_posix_sem.describe(semaphore)))
        self._new = new

    async def write(self, offset: int, data: bytes) -> int:
        """The bytes of the lines that were carried out; the error of the first line if it was not."""
        lines = data.splitlines(keepends=True)
        deltas = [self._delta(line) for line in lines]  # a line that means nothing stops them all
        self._new = False
        done = 0
        for line, delta in zip(lines, deltas, strict=True):
            try:
                await self._operate(delta)
            except SynosError:
                if done:
                    break  # the writer writes the rest again, and meets the error then
                raise
            done += len(line)
        return done

    def source(self) -> Source:
        return PosixSemaphoreSource(self._description.thing)

    async def close(self) -> None:
        self._open.close()

    def _delta(self, line: bytes) -> int:
        word = line.strip()
        if not word:
            return 0
        if not re.fullmatch(rb"[+-]?[0-9]{1,9}", word):
            raise SynosError(EINVAL, "a semaphore takes lines of +1, -1 or another number with a sign")
        if word.isdigit() and not self._new:
            raise SynosError(EINVAL, f"semaphore {self._name} has its value already: write +n or -n to change it")
        if abs(int(word)) > _MOST:
            raise SynosError(EMSGSIZE, f"one line gives or takes {_MOST} at most")
        return int(word)

    async def _operate(self, delta: int) -> None:
        call, back = ("sem_post", "sem_wait") if delta > 0 else ("sem_wait", "sem_post")
        for done in range(abs(delta)):
            try:
                await self._kernel.dispatcher.called(self._caller, Request(call, [self._description]))
            except SynosError:
                if back == "sem_post":
                    for _ in range(done):
                        await self._kernel.dispatcher.call(self._caller, Request(back, [self._description]))
                raise


@dataclass(frozen=True)
class PosixSemaphores(PosixNames):
    """The directory."""

    def lookup(self, name: str, who: Who) -> Node:
        posix_sem.status(name)
        return PosixSemaphoreFile(self.kernel, name)

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        return ((name, PosixSemaphoreFile(self.kernel, name)) for name in posix_sem.names())

    def create(self, name: str, mode: int, who: Who) -> Node:
        with rights.acting_as(credentials_of(who)):
            posix_sem.open_(host_name(name), os.O_CREAT | os.O_EXCL, mode & 0o777, 0, 0).close()
        return PosixSemaphoreFile(self.kernel, name, new=True)

    def remove(self, name: bytes) -> None:
        posix_sem.unlink(name)


def _text(name: str) -> bytes:
    return b"%d\n" % posix_sem.look(name)


def directory(kernel: Kernel) -> PosixSemaphores:
    return PosixSemaphores(kernel)
