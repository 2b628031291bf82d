"""What a call that succeeded leaves in the books: who really used an object (the host knows only the daemon), and what
a process has outstanding of SEM_UNDO. A row of the table names one of these; the dispatcher calls it once the call has
ended, however it was answered.
"""

from collections.abc import Callable, Sequence
from typing import Any

from synosfs.host import abi
from synosfs.ipc.manager import IPCManager
from synosfs.process.process import Process
from synosfs.syscall_gate.record import Reply

#: The books, who acted, the host thread that made the call (0: the main one), the values of the call, its reply.
Effect = Callable[[IPCManager, Process, int, Sequence[Any], Reply], None]


def sent(books: IPCManager, who: Process, tid: int, values: Sequence[Any], reply: Reply) -> None:
    books.acted("msg_sent", values[0], who.pid, tid)


def received(books: IPCManager, who: Process, tid: int, values: Sequence[Any], reply: Reply) -> None:
    msqid, _, _, flags = values
    if not flags & abi.MSG_COPY:
        books.acted("msg_received", msqid, who.pid, tid)


def queue_made(books: IPCManager, who: Process, tid: int, values: Sequence[Any], reply: Reply) -> None:
    key, flags = values
    if _is_new(key, flags):
        books.usages.begin("msg", reply.ret)


def operated(books: IPCManager, who: Process, tid: int, values: Sequence[Any], reply: Reply) -> None:
    books.operated(who, values[0], values[1])


def set_made(books: IPCManager, who: Process, tid: int, values: Sequence[Any], reply: Reply) -> None:
    """A set that came with values was operated by its maker; one that was found keeps whom it has."""
    key, _, flags, init = values
    if _is_new(key, flags):
        books.usages.begin("sem", reply.ret)
    if init is not None:
        books.set_all_first(reply.ret, who.pid)


def set_controlled(books: IPCManager, who: Process, tid: int, values: Sequence[Any], reply: Reply) -> None:
    semid, num, command, *_ = values
    match command:
        case abi.SETVAL:
            books.semaphore_operated(semid, num, who.pid)
            books.undo.cleared(semid, num)
        case abi.SETALL:
            books.set_all(semid, who.pid)
            books.undo.cleared(semid)
        case abi.IPC_RMID:
            books.undo.cleared(semid)


def segment_made(books: IPCManager, who: Process, tid: int, values: Sequence[Any], reply: Reply) -> None:
    """IPC_CREAT alone does not tell whether it made one: then it is who is first seen to get the id."""
    key, _, flags = values
    if _is_new(key, flags):
        books.usages.begin("shm", reply.ret)
        books.acted("shm_made", reply.ret, who.pid)
    else:
        books.acted_first("shm_made", reply.ret, who.pid)


def _is_new(key: int, flags: int) -> bool:
    """Whether what was got with this cannot have been there before."""
    new = abi.IPC_CREAT | abi.IPC_EXCL
    return key == abi.IPC_PRIVATE or flags & new == new
