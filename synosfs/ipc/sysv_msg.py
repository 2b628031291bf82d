"""System V message queues: the host's own, by id.

A ``MessageQueue`` holds an id and nothing else, so it can never be stale: each method is one host call, made with the
calling thread's credentials, and an id that is gone is the host's EINVAL. ``*_nowait`` never block and raise
``WouldBlock`` where the host would; ``send`` and ``wait_message`` block and belong in a thread of their own.
"""

import errno
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import msg as host_msg
from synosfs.host.abi import (
    IPC_INFO,
    IPC_NOWAIT,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    MSG_COPY,
    MSG_EXCEPT,
    MSG_STAT,
    MSG_STAT_ANY,
)
from synosfs.host.errors import explained, explaining
from synosfs.host.msg import MSQID_DS
from synosfs.ipc.sysv import Limits, in_its_slot, new_perm, refuse_private, table_of

#: The most a receive buffer may hold here; the host's messages end at MSGMAX, far below.
_MOST = 1 << 20


class Message(msgspec.Struct, frozen=True):
    """One message: its type (> 0) and its bytes."""

    mtype: int
    data: bytes


class QueueStatus(NamedTuple):
    """``struct msqid_ds`` with the C names without prefix; times in seconds, sizes in bytes."""

    msqid: int
    key: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    mode: int
    seq: int
    stime: int
    rtime: int
    ctime: int
    cbytes: int
    qnum: int
    qbytes: int
    lspid: int
    lrpid: int


class MessageQueue(msgspec.Struct, frozen=True):
    """The queue with this id."""

    msqid: int

    def send_nowait(self, mtype: int, data: bytes, flags: int = 0) -> None:
        """msgsnd(2). WouldBlock (EAGAIN) when the queue is full; EINVAL mtype ≤ 0, above MSGMAX, no such id; EACCES."""
        try:
            host_msg.msgsnd_nowait(self.msqid, mtype, data, flags | IPC_NOWAIT)
        except SynosError as error:
            if error.errno == errno.EAGAIN:
                raise WouldBlock(
                    errno.EAGAIN, f"queue {self.msqid} is full; receive from it or raise its qbytes"
                ) from None
            raise explained(error, _SEND, msqid=self.msqid, mtype=mtype, size=len(data)) from None

    def send(self, mtype: int, data: bytes, flags: int = 0) -> None:
        """msgsnd(2), waiting for room: EIDRM when the queue is removed, EINTR on a signal to this thread."""
        try:
            host_msg.msgsnd_blocking(self.msqid, mtype, data, flags)
        except SynosError as error:
            raise explained(error, _SEND, msqid=self.msqid, mtype=mtype, size=len(data)) from None

    def receive_nowait(self, size: int, mtype: int = 0, flags: int = 0) -> Message:
        """msgrcv(2). WouldBlock (ENOMSG) when no message matches; E2BIG when it is larger than ``size`` and stays."""
        try:
            return Message(*host_msg.msgrcv_nowait(self.msqid, min(size, _MOST), mtype, flags | IPC_NOWAIT))
        except SynosError as error:
            if error.errno == errno.ENOMSG:
                message = f"queue {self.msqid} has no message {_selection(mtype, flags)}"
                raise WouldBlock(errno.ENOMSG, message) from None
            raise explained(error, _RECEIVE, msqid=self.msqid, size=size) from None

    def receive(self, size: int, mtype: int = 0, flags: int = 0) -> Message:
        """msgrcv(2), sleeping in the host until a message matches: EIDRM, EINTR on a signal to this thread; E2BIG."""
        # No message is larger than MSGMAX, so a larger buffer would only cost memory while the call sleeps.
        room = size if size < 0 else min(size, max(_message_max(), 1))
        try:
            return Message(*host_msg.msgrcv_blocking(self.msqid, room, mtype, flags))
        except SynosError as error:
            raise explained(error, _RECEIVE, msqid=self.msqid, size=size) from None

    def wait_message(self, mtype: int = 0, flags: int = 0) -> Message | None:
        """Sleep until a message of the type is there, and leave it there.

        An empty message goes to the queue's end. Where the thread may not send it there, or there is no room, it is
        returned, and is the caller's to send back. EIDRM, EINTR as for msgrcv(2).
        """
        with explaining(_RECEIVE, msqid=self.msqid, size=0):
            taken = host_msg.await_message(self.msqid, mtype, flags & MSG_EXCEPT)
        return None if taken is None else Message(taken, b"")

    def peek(self, index: int) -> Message:
        """The message at ``index`` without taking it (MSG_COPY); WouldBlock (ENOMSG) past the last one."""
        return self.receive_nowait(_MOST, index, MSG_COPY)

    def status(self) -> QueueStatus:
        """msgctl(IPC_STAT): EACCES without read permission."""
        buffer = MSQID_DS.buffer()
        self._control(IPC_STAT, buffer)
        return QueueStatus(self.msqid, *MSQID_DS.unpack(buffer))

    def status_any(self) -> QueueStatus:
        """The status as ``ipcs`` shows it to everybody, whatever the permissions (MSG_STAT_ANY). EINVAL: no such id."""
        found = in_its_slot(self.msqid, lambda slot: stat_slot(slot, MSG_STAT_ANY))
        if found is None:
            raise explained(SynosError(errno.EINVAL), _CONTROL, msqid=self.msqid)
        return found

    def set(
        self, uid: int | None = None, gid: int | None = None, mode: int | None = None, qbytes: int | None = None
    ) -> None:
        """msgctl(IPC_SET); what is None stays. EPERM: not the owner, or qbytes above MSGMNB (CAP_SYS_RESOURCE)."""
        now = self.status_any()
        wanted = {**new_perm(now, uid, gid, mode), "qbytes": now.qbytes if qbytes is None else qbytes}
        self._control(IPC_SET, MSQID_DS.buffer(**wanted))

    def remove(self) -> None:
        """msgctl(IPC_RMID): wakes all who wait with EIDRM. EPERM: neither owner nor creator; EINVAL: no such id."""
        self._control(IPC_RMID)

    def _control(self, command: int, buffer: Any = None) -> None:
        with explaining(_CONTROL, msqid=self.msqid):
            host_msg.msgctl(self.msqid, command, buffer)


# Why the host said no, in the man pages' words. One errno can have several causes: the sentence names each of them.
_GONE = "queue {msqid} was removed while the call waited"
_SEND = {
    errno.EINVAL: "no queue {msqid}, or mtype {mtype} is not positive, or {size} bytes are more than kernel.msgmax",
    errno.EACCES: "queue {msqid} does not let the caller write; see its mode and owner",
    errno.EIDRM: _GONE,
}
_RECEIVE = {
    errno.EINVAL: "no queue {msqid}, or size {size} is negative, or MSG_COPY without IPC_NOWAIT, with MSG_EXCEPT, "
    "or with a message larger than size",
    errno.EACCES: "queue {msqid} does not let the caller read; see its mode and owner",
    errno.E2BIG: "the message is larger than {size} bytes and stays in queue {msqid}; "
    "give a larger size, or MSG_NOERROR to cut it off",
    errno.EIDRM: _GONE,
}
_CONTROL = {
    errno.EINVAL: "no queue {msqid}",
    errno.EACCES: "queue {msqid} does not let the caller read; see its mode and owner",
    errno.EPERM: "the caller is neither owner nor creator of queue {msqid}, or qbytes is above kernel.msgmnb",
    errno.EIDRM: "queue {msqid} was removed",
}
_SLOT = {errno.EINVAL: "no queue in slot {slot}"}
_GET = {
    errno.ENOENT: "no queue has key {key:#x}; add IPC_CREAT to make it",
    errno.EEXIST: "a queue with key {key:#x} exists, and IPC_CREAT|IPC_EXCL asked for a new one",
    errno.EACCES: "the queue with key {key:#x} does not grant the caller the mode asked for",
    errno.ENOSPC: "kernel.msgmni queues exist already; remove some (see msgq/ctl) or raise the limit",
}


def get(key: int, flags: int) -> MessageQueue:
    """msgget(2): find or make the queue of ``key``; IPC_PRIVATE is always new."""
    with explaining(_GET, key=key & 0xFFFFFFFF):
        return MessageQueue(host_msg.msgget(key, flags))


def find(key: int) -> MessageQueue:
    """The queue of ``key``, whatever its permissions. ENOENT when there is none; IPC_PRIVATE names none."""
    refuse_private(key)
    return get(key, 0)


def stat_slot(slot: int, command: int = MSG_STAT) -> QueueStatus:
    """MSG_STAT, MSG_STAT_ANY: the queue in this slot of the kernel's table. EINVAL: none there; EACCES."""
    buffer = MSQID_DS.buffer()
    with explaining(_SLOT, slot=slot):
        msqid = host_msg.msgctl(slot, command, buffer)
    return QueueStatus(msqid, *MSQID_DS.unpack(buffer))


def listing() -> Iterator[QueueStatus]:
    """Every queue of the namespace in the kernel's order, whoever made it (``/proc/sysvipc/msg``). ``seq`` and
    ``qbytes``, which are not there, are 0.
    """
    for line in table_of("msg"):
        fields = line.split()
        key, msqid, _, cbytes, qnum, lspid, lrpid, uid, gid, cuid, cgid, stime, rtime, ctime = map(int, fields)
        perm = (msqid, key & 0xFFFFFFFF, uid, gid, cuid, cgid, int(fields[2], 8), 0)
        yield QueueStatus(*perm, stime, rtime, ctime, cbytes, qnum, 0, lspid, lrpid)


def limits(command: int = IPC_INFO) -> Limits:
    """IPC_INFO: the system's limits. MSG_INFO: what is in use, in the fields msgpool, msgmap and msgtql."""
    buffer = host_msg.MSG_INFO.buffer()
    highest = host_msg.msgctl(0, command, buffer)
    return Limits(highest, host_msg.MSG_INFO.named(buffer))


def _message_max() -> int:
    """kernel.msgmax: the most bytes of a message, as it is now."""
    return limits().values["msgmax"]


def _selection(mtype: int, flags: int) -> str:
    if flags & MSG_COPY:
        return f"at index {mtype}"
    if mtype == 0:
        return "at all"
    if mtype < 0:
        return f"of a type up to {-mtype}"
    return f"of another type than {mtype}" if flags & MSG_EXCEPT else f"of type {mtype}"
