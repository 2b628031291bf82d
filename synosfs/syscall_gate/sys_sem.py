"""System V semaphore calls: semget(2), semop(2), semtimedop(2), semctl(2)."""

import errno
from contextlib import suppress
from functools import partial

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import abi
from synosfs.ipc import sysv_sem
from synosfs.ipc.sysv_sem import Operation, SemaphoreSet
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Hexadecimal, Octal, Reply
from synosfs.syscall_gate.sys_own import got, removed
from synosfs.syscall_gate.waiting import Blocking, InThread, OnAvatar


def sys_semget(caller: Caller, key: int, nsems: int, flags: int, init: list[int] | None) -> int:
    def get(given: int) -> int:
        if init is None:
            return sysv_sem.get(key, nsems, given).semid
        return sysv_sem.get_initialised(key, nsems, given, init).semid

    return got(caller, "sem", key, flags, get)


def sys_semop(caller: Caller, semid: int, ops: list[Operation]) -> int | Blocking:
    return sys_semtimedop(caller, semid, ops, None)


def sys_semtimedop(caller: Caller, semid: int, ops: list[Operation], timeout: float | None) -> int | Blocking:
    semaphores = SemaphoreSet(semid)
    timeout_ns = None if timeout is None else round(timeout * 1e9)
    if caller.nonblock:
        ops = [op._replace(flags=op.flags | abi.IPC_NOWAIT) for op in ops]
    operate, give_back = partial(_operate, semaphores, ops, timeout_ns), partial(_operate_back, semaphores, ops)
    if any(op.flags & abi.SEM_UNDO for op in ops):
        semaphores.status_any()  # EINVAL: no such set
        # The undo list is the avatar's, also for what need not wait.
        return OnAvatar(operate, give_back, was_there=True)
    try:
        semaphores.operate_nowait(ops)
    except WouldBlock:
        if all(op.flags & abi.IPC_NOWAIT for op in ops):
            raise
        return InThread(operate, give_back=give_back, was_there=True)
    return 0


def _operate(semaphores: SemaphoreSet, ops: list[Operation], timeout_ns: int | None) -> int:
    semaphores.operate(ops, timeout_ns)
    return 0


def _operate_back(semaphores: SemaphoreSet, ops: list[Operation], result: int) -> None:
    """Revert what was done for a caller that has gone, all or nothing. What it gave may be taken by now: then it stays
    done, as where the caller had been killed a moment later.
    """
    with suppress(WouldBlock):
        semaphores.operate_nowait([op._replace(delta=-op.delta) for op in reversed(ops) if op.delta])


def sys_semctl(
    caller: Caller,
    semid: int,
    semnum: int,
    cmd: int,
    value: list[int] | None,
    uid: int | None,
    gid: int | None,
    mode: int | None,
) -> int | Reply:
    semaphores = SemaphoreSet(semid)
    match cmd:
        case abi.GETVAL | abi.GETNCNT | abi.GETZCNT:
            return semaphores.figure(semnum, cmd)
        case abi.GETPID:
            return caller.ipc.semaphore_pid(semid, semnum, semaphores.figure(semnum, cmd))
        case abi.SETVAL:
            semaphores.set_value(semnum, _one(value))
            return 0
        case abi.GETALL:
            return Reply(0, {"values": semaphores.values()})
        case abi.SETALL:
            semaphores.set_values(_given(value))
            return 0
        case abi.IPC_SET:
            semaphores.set(*caller.user_namespace.given(uid, gid), mode)
            return 0
        case abi.IPC_RMID:
            return removed(caller, "sem", semid, "IPC_RMID", semaphores.remove)
    return _information(caller, semaphores, cmd)


def _information(caller: Caller, semaphores: SemaphoreSet, cmd: int) -> Reply:
    """The commands of semctl(2) that answer a structure; to some of them the id is a slot."""
    match cmd:
        case abi.IPC_STAT:
            return Reply(0, _fields(caller, semaphores.status()))
        case abi.IPC_INFO | abi.SEM_INFO:
            limits = sysv_sem.limits(cmd)
            return Reply(limits.highest, limits.values)
        case abi.SEM_STAT | abi.SEM_STAT_ANY:
            status = sysv_sem.stat_slot(semaphores.semid, cmd)
            return Reply(status.semid, _fields(caller, status))
    raise SynosError(errno.EINVAL, f"semctl has no command {cmd}")


def _given(value: list[int] | None) -> list[int]:
    if value is None:
        raise SynosError(errno.EINVAL, "semctl: the value is missing: SETVAL takes one, SETALL v,v,v")
    return value


def _one(value: list[int] | None) -> int:
    values = _given(value)
    if len(values) != 1:
        raise SynosError(errno.EINVAL, f"semctl: SETVAL takes one value, not {len(values)}; SETALL takes all")
    return values[0]


def _fields(caller: Caller, status: sysv_sem.SetStatus) -> dict[str, int]:
    fields = caller.user_namespace.shown(status._asdict())
    del fields["semid"]
    return fields | {"key": Hexadecimal(status.key), "mode": Octal(status.mode)}
