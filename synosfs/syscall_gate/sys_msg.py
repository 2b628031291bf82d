"""System V message queue calls: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

Sending and receiving are tried first: only a call that must wait makes the objects that say how.
"""

import errno
from functools import partial

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import abi
from synosfs.ipc import sysv_msg
from synosfs.ipc.sysv_msg import Message, MessageQueue
from synosfs.syscall_gate.parking import Blocking, Caller, InTurn, OnAvatar
from synosfs.syscall_gate.record import Hexadecimal, Octal, Reply


def sys_msgget(caller: Caller, key: int, flags: int) -> int:
    return sysv_msg.get(key, flags).msqid


def sys_msgsnd(caller: Caller, msqid: int, mtype: int, data: bytes, flags: int) -> int | Blocking:
    queue = MessageQueue(msqid)
    try:
        return _send(caller, queue, mtype, data, flags)
    except WouldBlock:
        if flags & abi.IPC_NOWAIT:
            raise

    def send() -> int:
        queue.send(mtype, data, flags)
        caller.ipc.acted("msg_sent", msqid, caller.process.pid)
        return 0

    return OnAvatar(partial(_send, caller, queue, mtype, data, flags), send)


def _send(caller: Caller, queue: MessageQueue, mtype: int, data: bytes, flags: int) -> int:
    queue.send_nowait(mtype, data, flags)
    caller.ipc.acted("msg_sent", queue.msqid, caller.process.pid)
    return 0


def sys_msgrcv(caller: Caller, msqid: int, size: int, mtype: int, flags: int) -> Reply | Blocking:
    if flags & abi.MSG_COPY and not flags & abi.IPC_NOWAIT:
        raise SynosError(errno.EINVAL, "MSG_COPY looks and never waits: it needs IPC_NOWAIT")
    queue = MessageQueue(msqid)
    try:
        return _receive(caller, queue, size, mtype, flags)
    except WouldBlock:
        if flags & abi.IPC_NOWAIT:
            raise
    return _receive_in_turn(caller, queue, size, mtype, flags)


def _receive(caller: Caller, queue: MessageQueue, size: int, mtype: int, flags: int) -> Reply:
    message = queue.receive_nowait(size, mtype, flags)
    if not flags & abi.MSG_COPY:
        caller.ipc.acted("msg_received", queue.msqid, caller.process.pid)
    return _received(message)


def _receive_in_turn(caller: Caller, queue: MessageQueue, size: int, mtype: int, flags: int) -> InTurn:
    """Receive as soon as a message of the type is there, each caller in the order of coming."""
    attempt = partial(_receive, caller, queue, size, mtype, flags)

    def watch() -> Reply | None:
        taken = queue.wait_message(mtype, flags)
        if taken is None:
            return None
        caller.ipc.acted("msg_received", queue.msqid, caller.process.pid)
        return _received(taken)

    def give_back(reply: Reply) -> None:
        # The watcher had to take an empty message for a caller that is gone. It goes to the end of the queue.
        queue.send_nowait(reply.results["mtype"], b"")

    return InTurn(("msg", queue.msqid, mtype, flags & abi.MSG_EXCEPT), attempt, watch, give_back)


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
            queue.set(uid, gid, mode, qbytes)
            return 0
        case abi.IPC_RMID:
            queue.remove()
            return 0
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
    fields: dict[str, int] = caller.ipc.with_true_pids(status)._asdict()
    del fields["msqid"]
    return fields | {"key": Hexadecimal(status.key), "mode": Octal(status.mode)}
