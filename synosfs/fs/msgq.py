"""``msgq/``: the host's System V message queues as files, whoever made them.

``sysv/<msqid>`` and ``key/0x<key>`` are queues; ``@type`` after the name selects a message type. Reading read-only
looks and takes nothing; opened for writing, a write sends; opened read-write, a read receives, one message each. A
message's bytes are just the bytes written. Sending and receiving are the system calls msgsnd and msgrcv, made by the
caller.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from errno import EAGAIN, EINVAL, ENOENT, ENOMSG

from synosfs import abi
from synosfs.credentials import Credentials
from synosfs.errors import SynosError, WouldBlock
from synosfs.fs.ctl import CtlFile
from synosfs.fs.node import (
    FOREVER,
    Attributes,
    Change,
    Directory,
    Handle,
    Node,
    Who,
    credentials_of,
    no_such,
    reads,
    writes,
)
from synosfs.ipc import host, sysv_msg
from synosfs.ipc.sysv_msg import MessageQueue, QueueStatus
from synosfs.syscall_gate.parking import Caller
from synosfs.syscall_gate.record import Octal, Reply, Request
from synosfs.syscall_gate.session import Gate
from synosfs.syscall_gate.spec import row

#: What a write sends when the name gives no type.
_DEFAULT_TYPE = 1

_NS = 1_000_000_000


@dataclass(frozen=True)
class QueueFile(Node):
    """One queue; ``mtype`` is the type after ``@``, None without one."""

    gate: Gate
    msqid: int
    mtype: int | None = None

    fresh = True  # a send to a full queue blocks, and must not block a receiver

    def attributes(self, who: Who) -> Attributes:
        status = self._status()
        return Attributes(
            mode=stat.S_IFREG | status.mode & 0o777,
            # The kernel checks a file's mode against its owner, and knows no creator, who has the owner's rights too
            # (sysvipc(7)): to itself, the creator is shown as the owner. Root needs no such help.
            uid=status.cuid if who.uid == status.cuid != 0 else status.uid,
            gid=status.cgid if who.gid == status.cgid and who.uid != 0 else status.gid,
            size=status.cbytes,
            atime_ns=status.rtime * _NS,
            mtime_ns=max(status.stime, status.ctime) * _NS,
            ctime_ns=status.ctime * _NS,
        )

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            return _Look(MessageQueue(self.msqid), self.mtype, credentials_of(who))
        caller = self.gate.caller(who.pid, who.uid, who.gid)
        caller.nonblock = bool(flags & os.O_NONBLOCK)
        caller.inode = inode
        return _Endpoint(self.gate, caller, self.msqid, self.mtype, readable=reads(flags))

    def change(self, change: Change, who: Who) -> None:
        # A shell's > truncates before it writes: messages are taken by reading, never by truncation.
        if change.size:
            raise SynosError(EINVAL, "a queue's size is what its messages make it; set qbytes for its limit")
        if change.mode is not None or change.uid is not None or change.gid is not None:
            mode = None if change.mode is None else change.mode & 0o777
            with host.acting_as(credentials_of(who)):
                MessageQueue(self.msqid).set(change.uid, change.gid, mode)

    def xattrs(self, who: Who) -> Mapping[str, str]:
        status = self._status()
        fields = ("cuid", "cgid", "cbytes", "qnum", "qbytes", "lspid", "lrpid", "stime", "rtime", "ctime")
        return {"key": f"{status.key:#x}", **{name: str(getattr(status, name)) for name in fields}}

    def _status(self) -> QueueStatus:
        try:
            status = MessageQueue(self.msqid).status_any()
        except SynosError as error:
            raise SynosError(ENOENT, error.message) from None
        return self.gate.ipc.with_true_pids(status)


class _Look(Handle):
    """Reads the messages in order and takes none (MSG_COPY): one message a read, so boundaries can be seen."""

    def __init__(self, queue: MessageQueue, mtype: int | None, credentials: Credentials) -> None:
        self._queue = queue
        self._mtype = mtype
        self._credentials = credentials
        self._next = 0
        self._rest = b""

    async def read(self, offset: int, size: int) -> bytes:
        if offset == 0:
            self._next, self._rest = 0, b""
        with host.acting_as(self._credentials):
            while not self._rest:
                try:
                    message = self._queue.peek(self._next)
                except WouldBlock:
                    return b""
                self._next += 1
                if self._selected(message.mtype):
                    self._rest = message.data
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk

    def _selected(self, mtype: int) -> bool:
        if not self._mtype:
            return True
        return mtype == self._mtype if self._mtype > 0 else mtype <= -self._mtype


class _Endpoint(Handle):
    """Takes part: a write sends one message, a read receives one."""

    def __init__(self, gate: Gate, caller: Caller, msqid: int, mtype: int | None, *, readable: bool) -> None:
        self._gate = gate
        self._caller = caller
        self._msqid = msqid
        self._mtype = mtype
        self._readable = readable

    async def write(self, offset: int, data: bytes) -> int:
        mtype = _DEFAULT_TYPE if self._mtype is None else self._mtype
        await self._call(Request("msgsnd", [self._msqid, mtype, data]))
        return len(data)

    async def read(self, offset: int, size: int) -> bytes:
        reply = await self._call(Request("msgrcv", [self._msqid, size, self._mtype or 0]))
        return reply.data or b""

    async def _call(self, request: Request) -> Reply:
        reply = await self._gate.dispatcher.call(self._caller, request)
        if reply.errno:
            raise SynosError(EAGAIN if reply.errno == ENOMSG else reply.errno, reply.message)
        return reply


@dataclass(frozen=True)
class QueuesById(Node):
    """``sysv/``: every queue of the namespace by id."""

    gate: Gate

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        # Sticky: as with IPC_RMID, only the owner of a queue, or root, may remove it.
        return Attributes(stat.S_IFDIR | 0o1777)

    def lookup(self, name: str, who: Who) -> Node:
        base, mtype = _split_type(name)
        if not re.fullmatch(r"0|[1-9][0-9]{0,9}", base) or (msqid := int(base)) > 0x7FFFFFFF:
            raise no_such(name)
        return QueueFile(self.gate, msqid, mtype)

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        return ((str(status.msqid), QueueFile(self.gate, status.msqid)) for status in sysv_msg.listing())

    def unlink(self, name: str, who: Who) -> None:
        node = self.lookup(name, who)
        assert isinstance(node, QueueFile)
        with host.acting_as(credentials_of(who)):
            MessageQueue(node.msqid).remove()


@dataclass(frozen=True)
class QueuesByKey(QueuesById):
    """``key/``: the queues that have a key, by key. Creating a file here makes the queue."""

    def lookup(self, name: str, who: Who) -> Node:
        base, mtype = _split_type(name)
        return QueueFile(self.gate, sysv_msg.find(_key(base)).msqid, mtype)

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        return ((f"{status.key:#x}", QueueFile(self.gate, status.msqid)) for status in sysv_msg.listing() if status.key)

    def create(self, name: str, mode: int, who: Who) -> Node:
        base, mtype = _split_type(name)
        with host.acting_as(credentials_of(who)):
            return QueueFile(self.gate, sysv_msg.create(_key(base), mode & 0o777).msqid, mtype)


def _split_type(name: str) -> tuple[str, int | None]:
    base, at, selection = name.partition("@")
    if not at:
        return base, None
    if not re.fullmatch(r"-?[0-9]{1,19}", selection):
        raise no_such(name)
    return base, int(selection)


def _key(name: str) -> int:
    """A key as it stands in a name: hexadecimal after 0x; as the signed number that the host takes."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", name):
        raise SynosError(ENOENT, f"a key is named 0x and up to 8 hexadecimal digits, not {name}")
    key = int(name, 16)
    return key - (1 << 32) if key >> 31 else key


# --- msgq/ctl --------------------------------------------------------------------------------------------------------

_HEADER = (
    *("key", "msqid", "uid", "gid", "perms", "cbytes", "qnum", "qbytes"),
    *("lspid", "lrpid", "stime", "rtime", "ctime", "cuid", "cgid"),
)


def _create(key: int, mode: int) -> Request:
    return Request("msgget", [key, abi.IPC_CREAT | abi.IPC_EXCL | mode & 0o777])


def _remove(msqid: int) -> Request:
    return Request("msgctl", [msqid, abi.IPC_RMID])


def _set(msqid: int, uid: int | None, gid: int | None, mode: int | None, qbytes: int | None) -> Request:
    given = {"uid": uid, "gid": gid, "mode": mode, "qbytes": qbytes}
    return Request("msgctl", [msqid, abi.IPC_SET], {name: value for name, value in given.items() if value is not None})


_COMMANDS = {
    command.name: command
    for command in (
        row(None, "create", _create, "key:key=IPC_PRIVATE mode:mode=0600", help="make a queue; the reply is its id"),
        row(None, "remove", _remove, "msqid:int", help="remove a queue, waking all who wait in it with EIDRM"),
        row(
            None, "set", _set, "msqid:int uid:uid? gid:uid? mode:mode? qbytes:long?", help="change owner, mode or size"
        ),
    )
}


def directory(gate: Gate) -> Directory:
    """``msgq/``."""

    def rows() -> Iterable[tuple[object, ...]]:
        for listed in sysv_msg.listing():
            try:
                status = gate.ipc.with_true_pids(MessageQueue(listed.msqid).status_any())
            except SynosError:
                continue  # removed since it was listed
            shown = status._asdict() | {"key": f"{status.key:#x}", "perms": Octal(status.mode & 0o777)}
            yield tuple(shown[name] for name in _HEADER)

    return Directory(
        {
            "ctl": CtlFile(gate, _HEADER, rows, _COMMANDS),
            "sysv": QueuesById(gate),
            "key": QueuesByKey(gate),
        }
    )
