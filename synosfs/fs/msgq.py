"""``msgq/``: the host's System V message queues as files, whoever made them.

``sysv/<msqid>`` and ``key/0x<key>`` are queues; ``@type`` after the name selects a message type. Reading read-only
looks and takes nothing; opened for writing, a write sends; opened read-write, a read receives, one message each. A
message's bytes are just the bytes written. Sending and receiving are the system calls msgsnd and msgrcv, made by the
caller.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from errno import EAGAIN, EINVAL, ENOMSG
from functools import partial

from synosfs.errors import SynosError, WouldBlock
from synosfs.fs import orphans, posix_mq, removed, sysv, uses
from synosfs.fs.ctl import CtlFile
from synosfs.fs.node import (
    Attributes,
    Directory,
    Handle,
    Node,
    Who,
    credentials_of,
    no_such,
    reads,
    writes,
)
from synosfs.fs.session import open_caller
from synosfs.host import abi, rights
from synosfs.host.credentials import Credentials
from synosfs.ipc import sysv_msg
from synosfs.ipc.change import Change
from synosfs.ipc.sysv_msg import Message, MessageQueue, QueueStatus
from synosfs.kernel import Kernel
from synosfs.slices import Line, Slices
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.readiness import QueueSource, Source
from synosfs.syscall_gate.record import Request
from synosfs.syscall_gate.spec import row

#: What a write sends when the name gives no type.
_DEFAULT_TYPE = 1


@dataclass(frozen=True)
class QueueFile(Node):
    """One queue; ``mtype`` is the type after ``@``, None without one."""

    kernel: Kernel
    msqid: int
    mtype: int | None = None
    seen: sysv.Seen = sysv.Seen.AS_ALL

    fresh = True  # a send to a full queue blocks, and must not block a receiver
    steady = True

    def attributes(self, who: Who) -> Attributes:
        status = self._status()
        mtime = max(status.stime, status.ctime)
        return sysv.attributes(
            status, self.seen, who, size=status.cbytes, atime=status.rtime, mtime=mtime, ctime=status.ctime
        )

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            credentials = credentials_of(who)
            with rights.acting_as(credentials):
                MessageQueue(self.msqid).status()  # EACCES, as where it is opened natively
            line = self.kernel.accounts.of(who.uid).line
            return _Look(MessageQueue(self.msqid), self.mtype, credentials, line)
        caller = open_caller(self.kernel, who, flags, inode)
        return _Endpoint(self.kernel, caller, self.msqid, self.mtype, readable=reads(flags))

    async def change(self, change: Change, who: Who) -> None:
        # A shell's > truncates before it writes: messages are taken by reading, never by truncation.
        if change.size:
            raise SynosError(EINVAL, "a queue's size is what its messages make it; set qbytes for its limit")
        await QUEUES.change_owner(self.kernel, self.msqid, change, who)

    def xattrs(self, who: Who) -> Mapping[str, str]:
        status = self.kernel.ipc.with_true_pids(self._status())
        fields = ("cuid", "cgid", "cbytes", "qnum", "qbytes", "lspid", "lrpid", "stime", "rtime", "ctime")
        return {
            "key": f"{status.key:#x}",
            **{name: str(getattr(status, name)) for name in fields},
        }

    def _status(self) -> QueueStatus:
        return sysv.existing(MessageQueue(self.msqid).status_any)


class _Look(Handle):
    """Reads the messages in order and takes none (MSG_COPY): one message a read, so boundaries can be seen."""

    def __init__(self, queue: MessageQueue, mtype: int | None, credentials: Credentials, line: Line) -> None:
        self._queue = queue
        self._mtype = mtype
        self._credentials = credentials
        self._line = line
        self._next = 0
        self._rest = b""

    async def read(self, offset: int, size: int) -> bytes:
        if offset == 0:
            self._next, self._rest = 0, b""
        slices = Slices(self._line)
        while not self._rest and (message := self._peek()) is not None:
            self._next += 1
            if self._selected(message.mtype):
                self._rest = message.data
            await slices.pause()  # thousands may be empty, or of other types
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk

    def _peek(self) -> Message | None:
        with rights.acting_as(self._credentials), suppress(WouldBlock):
            return self._queue.peek(self._next)
        return None

    def _selected(self, mtype: int) -> bool:
        if not self._mtype:
            return True
        return mtype == self._mtype if self._mtype > 0 else mtype <= -self._mtype


class _Endpoint(Handle):
    """Takes part: a write sends one message, a read receives one."""

    def __init__(self, kernel: Kernel, caller: Caller, msqid: int, mtype: int | None, *, readable: bool) -> None:
        self._kernel = kernel
        self._caller = caller
        self._msqid = msqid
        self._mtype = mtype
        self._readable = readable

    async def write(self, offset: int, data: bytes) -> int:
        mtype = _DEFAULT_TYPE if self._mtype is None else self._mtype
        await self._kernel.dispatcher.called(self._caller, Request("msgsnd", [self._msqid, mtype, data]))
        return len(data)

    async def read(self, offset: int, size: int) -> bytes:
        request = Request("msgrcv", [self._msqid, size, self._mtype or 0])
        try:
            reply = await self._kernel.dispatcher.called(self._caller, request)
        except SynosError as error:
            if error.errno != ENOMSG:
                raise
            raise SynosError(EAGAIN, error.message) from None  # what read(2) says with O_NONBLOCK
        return reply.data or b""

    def source(self) -> Source:
        parking, credentials = self._kernel.parking, self._caller.credentials
        return QueueSource(parking, credentials, MessageQueue(self._msqid), self._mtype or 0)


def _file(kernel: Kernel, msqid: int, selection: str | None, seen: sysv.Seen) -> Node:
    if selection is None:
        return QueueFile(kernel, msqid, None, seen)
    if not re.fullmatch(r"-?[0-9]{1,19}", selection):
        raise no_such(f"{msqid}@{selection}")
    return QueueFile(kernel, msqid, int(selection), seen)


def _create(key: int, mode: int, flags: int = 0) -> Request:
    return sysv.request("msgget", key, abi.IPC_CREAT | flags | mode & 0o777)


def _control(msqid: int, command: int, **given: int | None) -> Request:
    return sysv.request("msgctl", msqid, command, **given)


QUEUES = sysv.Family(
    table="msg",
    file=_file,
    status=lambda msqid: MessageQueue(msqid).status_any(),
    find=lambda key: sysv_msg.find(key).msqid,
    create=_create,
    control=_control,
)

# --- msgq/ctl --------------------------------------------------------------------------------------------------------

_HEADER = (
    *("key", "msqid", "uid", "gid", "perms", "cbytes", "qnum", "qbytes"),
    *("lspid", "lrpid", "stime", "rtime", "ctime", "cuid", "cgid", *sysv.USED, "owners"),
)


def _remove(msqid: int) -> Request:
    return _control(msqid, abi.IPC_RMID)


def _set(msqid: int, uid: int | None, gid: int | None, mode: int | None, qbytes: int | None) -> Request:
    return _control(msqid, abi.IPC_SET, uid=uid, gid=gid, mode=mode, qbytes=qbytes)


_COMMANDS = {
    command.name: command
    for command in (
        row(
            None,
            "create",
            partial(_create, flags=abi.IPC_EXCL),
            "key:key=IPC_PRIVATE mode:mode=0600",
            help="make a queue; the reply is its id",
        ),
        row(None, "remove", _remove, "msqid:int", help="remove a queue, waking all who wait in it with EIDRM"),
        row(
            None, "set", _set, "msqid:int uid:uid? gid:uid? mode:mode? qbytes:long?", help="change owner, mode or size"
        ),
        *sysv.owning("msgq", "msqid"),
    )
}


def directory(kernel: Kernel) -> Directory:
    """``msgq/``."""

    def status(msqid: int) -> QueueStatus:
        return kernel.ipc.with_true_pids(MessageQueue(msqid).status_any())

    commands = _COMMANDS | {"reap": orphans.command(kernel, uses.QUEUES)}
    return Directory(
        {
            "ctl": CtlFile(kernel, _HEADER, lambda _who: sysv.rows(kernel, _HEADER, QUEUES, status), commands),
            "orphans": orphans.file(kernel, uses.QUEUES),
            "sysv": sysv.ById(kernel, QUEUES),
            "key": sysv.ByKey(kernel, QUEUES),
            "posix": posix_mq.directory(kernel),
            "removed": removed.file(kernel, "msgq"),
        }
    )
