"""System V message queue calls: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

Sending and receiving are tried first: only a call that must wait makes the objects that say how. It then sleeps in the
host with its whole buffer, in its place among native programs.
"""

import errno
from functools import partial

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import abi
from synosfs.ipc import sysv_msg
from synosfs.ipc.sysv_msg import Message, MessageQueue
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Hexadecimal, Octal, Reply
from synosfs.syscall_gate.sys_own import got, removed
from synosfs.syscall_gate.waiting import Blocking, InThread


def sys_msgget(caller: Caller, key: int, flags: int) -> int:
    return got(caller, "msg", key, flags, lambda given: sysv_msg.get(key, given).msqid)


def sys_msgsnd(caller: Caller, msqid: int, mtype: int, data: bytes, flags: int) -> int | Blocking:
    queue = MessageQueue(msqid)
    try:
        queue.send_nowait(mtype, data, flags)
    except WouldBlock:
        if flags & abi.IPC_NOWAIT:
            raise
        return InThread(partial(_send, queue, mtype, data, flags), was_there=True)
    return 0


def _send(queue: MessageQueue, mtype: int, data: bytes, flags: int) -> int:
    queue.send(mtype, data, flags)
    return 0


def sys_msgrcv(caller: Caller, msqid: int, size: int, mtype: int, flags: int) -> Reply | Blocking:
    if flags & abi.MSG_COPY and not flags & abi.IPC_NOWAIT:
        raise SynosError(errno.EINVAL, "MSG_COPY looks and never waits: it needs IPC_NOWAIT")
    queue = MessageQueue(msqid)
    try:
        return _received(queue.receive_nowait(size, mtype, flags))
    except WouldBlock:
        if flags & abi.IPC_NOWAIT:
            raise
    return InThread(
        partial(queue.receive, size, mtype, flags),
        give_back=partial(_give_back, caller, queue),
        finish=_received,
        was_there=True,
    )


def _give_back(caller: Caller, queue: MessageQueue, message: Message) -> None:
    """The host hands it to the receiver that has waited longest, if one does, else it goes to the end of the queue."""
    caller.ipc.was("msg_sent", queue.msqid, queue.status_any().lspid)
    queue.send_nowait(message.mtype, message.data)


def sys_msgctl(
    caller: Caller,
    msqid: int,
    cmd: int,
    uid: int | None,
    gid: int | None,
    mode: int | None,
    qbytes: int | None,
) -> int | Reply:
    queue = MessageQueue(msqid)
    match cmd:
        case abi.IPC_STAT:
            return Reply(0, _fields(caller, queue.status()))
        case abi.IPC_SET:
            queue.set(*caller.user_namespace.given(uid, gid), mode, qbytes)
            return 0
        case abi.IPC_RMID:
            return removed(caller, "msg", msqid, "IPC_RMID", queue.remove)
        case abi.IPC_INFO | abi.MSG_INFO:
            limits = sysv_msg.limits(cmd)
            return Reply(limits.highest, limits.values)
        case abi.MSG_STAT | abi.MSG_STAT_ANY:
            status = sysv_msg.stat_slot(msqid, cmd)
            return Reply(status.msqid, _fields(caller, status))
    raise SynosError(errno.EINVAL, f"msgctl has no command {cmd}")


def _received(message: Message) -> Reply:
    return Reply(len(message.data), {"mtype": message.mtype}, message.data)


def _fields(caller: Caller, status: sysv_msg.QueueStatus) -> dict[str, int]:
    fields = caller.user_namespace.shown(caller.ipc.with_true_pids(status)._asdict())
    del fields["msqid"]
    return fields | {"key": Hexadecimal(status.key), "mode": Octal(status.mode)}
