"""``msgq/posix/``: the host's POSIX message queues as files, whoever made them.

Read-only shows what the kernel shows of a queue, ``QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260`` (mq_overview(7)): a
POSIX queue gives its messages only to who takes them. Opened for writing, a write sends one message, of priority 0 or
that after ``@`` in the name; opened read-write, a read receives one, and a longer message than the read has room for is
gone on with by the next. Creating a file makes the queue, with the host's default limits; mq_open makes others.

The size is the bytes in the queue, 0 for those who may not read it, and while somebody has a lease on it.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EINVAL, EPERM

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.fs.node import Attributes, Handle, Node, Snapshot, Who, credentials_of, no_such, writes
from synosfs.fs.posix import Opened, PosixNames, change_attributes, host_name, may_read
from synosfs.fs.session import open_caller
from synosfs.host import rights
from synosfs.ipc import mqueue_fs, posix_mq
from synosfs.ipc.change import Change, Named
from synosfs.kernel import Kernel
from synosfs.syscall_gate.readiness import DescriptorSource, Source
from synosfs.syscall_gate.record import Request


@dataclass(frozen=True)
class PosixQueueFile(Node):
    """One queue; ``priority`` is what stands after ``@``."""

    kernel: Kernel
    name: str
    priority: int = 0

    fresh = True  # a send to a full queue blocks, and must not block a receiver
    steady = True

    def attributes(self, who: Who) -> Attributes:
        found = mqueue_fs.status(self.name)
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
            return mqueue_fs.line(self.name).qsize
        except WouldBlock:
            return 0

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            with rights.acting_as(credentials_of(who)):
                line = mqueue_fs.line(self.name)
            found = mqueue_fs.status(self.name)
            pid = self.kernel.ipc.notifier.true_pid((found.st_dev, found.st_ino), line.notify_pid)
            return Snapshot(str(line._replace(notify_pid=pid)))
        queue = Opened(self.kernel, open_caller(self.kernel, who, flags, inode))
        await queue.open(Request("mq_open", [host_name(self.name), flags & os.O_ACCMODE]))
        return _Endpoint(queue, self.priority)

    async def change(self, change: Change, who: Who) -> None:
        # A shell's > truncates before it writes: messages are taken by reading, never by truncation.
        if change.size:
            raise SynosError(EINVAL, "a queue's size is what its messages make it")
        await change_attributes(self.kernel, who, Named("mqueue", host_name(self.name)), change)

    def xattrs(self, who: Who) -> Mapping[str, str]:
        if not may_read(mqueue_fs.status(self.name), who):
            return {}
        return {name: str(value) for name, value in posix_mq.attributes_now(self.name)._asdict().items()}


class _Endpoint(Handle):
    """Takes part: a write sends one message, a read receives one."""

    def __init__(self, queue: Opened, priority: int) -> None:
        self._queue = queue
        self._priority = priority
        self._rest = b""

    async def write(self, offset: int, data: bytes) -> int:
        await self._queue.called(Request("mq_send", [0, data, self._priority]))
        return len(data)

    async def read(self, offset: int, size: int) -> bytes:
        if not self._rest:
            reply = await self._queue.called(Request("mq_receive", [0]))
            self._rest = reply.data or b""
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk

    def source(self) -> Source:
        return DescriptorSource(self._queue.description)

    async def close(self) -> None:
        await self._queue.close()


@dataclass(frozen=True)
class PosixQueues(PosixNames):
    """The directory."""

    unlink_call = "mq_unlink"
    listers = trio.CapacityLimiter(40)

    def lookup(self, name: str, who: Who) -> Node:
        try:
            mqueue_fs.status(name)
            return PosixQueueFile(self.kernel, name)
        except SynosError:
            # An @ may be part of a queue's name; where no queue has that name it selects a priority.
            base, at, priority = name.rpartition("@")
            if not at or not re.fullmatch(r"[0-9]{1,5}", priority):
                raise no_such(name) from None
        mqueue_fs.status(base)
        return PosixQueueFile(self.kernel, base, int(priority))

    def host_names(self) -> list[str]:
        return mqueue_fs.names()

    def named(self, name: str) -> Node:
        return PosixQueueFile(self.kernel, name)

    async def create(self, name: str, mode: int, who: Who) -> Node:
        if not mqueue_fs.is_seen():
            raise SynosError(EPERM, "no queue can be seen here without /dev/mqueue; mq_open makes one")
        queue = Opened(self.kernel, open_caller(self.kernel, who))
        await queue.open(Request("mq_open", [host_name(name), os.O_CREAT | os.O_RDWR, mode & 0o777]))
        await queue.close()
        return PosixQueueFile(self.kernel, name)


def directory(kernel: Kernel) -> PosixQueues:
    mqueue_fs.prepare()
    return PosixQueues(kernel)
