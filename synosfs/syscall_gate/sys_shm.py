"""System V shared memory calls: shmget(2), shmat(2), shmdt(2), shmctl(2); and ftok(3), which makes keys."""

import errno
from functools import partial

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import abi
from synosfs.ipc import sysv_key, sysv_shm
from synosfs.ipc.sysv_shm import Segment, SegmentStatus
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import data_reply
from synosfs.syscall_gate.places import AT_FDCWD, on_path
from synosfs.syscall_gate.record import MAX_DATA, Hexadecimal, Octal, Reply
from synosfs.syscall_gate.sys_own import got, removed, removed_on_avatar
from synosfs.syscall_gate.sys_pipe import done
from synosfs.syscall_gate.waiting import OnAvatar, Until


def sys_shmget(caller: Caller, key: int, size: int, flags: int) -> int:
    return got(caller, "shm", key, flags, lambda given: sysv_shm.get(key, size, given).shmid)


def sys_shmat(caller: Caller, shmid: int, address: int, flags: int) -> int:
    return Hexadecimal(caller.address_space.attach(Segment(shmid), address, flags))


def sys_shmdt(caller: Caller, address: int) -> int | Until:
    """Of a large one the answer comes when the host has detached it."""
    detached = caller.address_space.detach(address)
    if detached is None or caller.nonblock:
        return 0

    async def wait() -> int:
        await detached.wait()
        return 0

    return Until(wait)


def sys_process_vm_readv(caller: Caller, pid: int, size: int, address: int) -> Reply | OnAvatar:
    """What is attached in the caller's own address space, up to the first byte that is not."""
    _own(caller, pid)
    if size < 0:
        raise SynosError(errno.EINVAL, f"size {size} is negative")
    space, size = caller.address_space, min(size, MAX_DATA)
    try:
        return data_reply(space.read_nowait(address, size))
    except WouldBlock:
        return OnAvatar(space.reading(address, size).blocking, finish=data_reply)


def sys_process_vm_writev(caller: Caller, pid: int, data: bytes, address: int) -> int | OnAvatar:
    _own(caller, pid)
    space = caller.address_space
    try:
        return space.write_nowait(address, data)
    except WouldBlock:
        return OnAvatar(space.writing(address, data).blocking)


def _own(caller: Caller, pid: int) -> None:
    if pid != caller.process.pid:
        raise SynosError(errno.EPERM, f"this is for the caller's own memory; that of another is proc/{pid}/mem")


def sys_shmctl(
    caller: Caller, shmid: int, cmd: int, uid: int | None, gid: int | None, mode: int | None
) -> int | Reply | OnAvatar:
    segment = Segment(shmid)
    match cmd:
        case abi.IPC_STAT:
            return Reply(0, _fields(caller, segment.status()))
        case abi.SHM_STAT | abi.SHM_STAT_ANY:
            status = sysv_shm.stat_slot(shmid, cmd)
            return Reply(status.shmid, _fields(caller, status))
        case abi.IPC_INFO | abi.SHM_INFO:
            limits = sysv_shm.limits(cmd)
            return Reply(limits.highest, limits.values)
        case abi.IPC_SET:
            segment.set(*caller.user_namespace.given(uid, gid), mode)
        case abi.IPC_RMID:
            if _is_large(segment):
                return removed_on_avatar(caller, "shm", shmid, "IPC_RMID", segment.remove_blocking)
            return removed(caller, "shm", shmid, "IPC_RMID", segment.remove)
        case abi.SHM_LOCK:
            segment.lock()
        case abi.SHM_UNLOCK:
            if _is_large(segment):
                return OnAvatar(partial(done, segment.unlock_blocking))
            segment.unlock()
        case _:
            raise SynosError(errno.EINVAL, f"shmctl has no command {cmd}")
    return 0


def sys_ftok(caller: Caller, path: str, project: int) -> OnAvatar:
    return on_path(caller, AT_FDCWD, path, sysv_key.ftok, project, finish=Hexadecimal)


def _is_large(segment: Segment) -> bool:
    """Whether it takes the host long to go over its pages."""
    return segment.status_any().segsz > sysv_shm.AT_ONCE


def _fields(caller: Caller, status: SegmentStatus) -> dict[str, int]:
    fields = caller.user_namespace.shown(caller.ipc.segment_with_true_pids(status)._asdict())
    del fields["shmid"]
    return fields | {"key": Hexadecimal(status.key), "mode": Octal(status.mode)}
