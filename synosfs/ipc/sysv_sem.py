"""System V semaphores: the host's own sets, by id.

A ``SemaphoreSet`` holds an id and nothing else, so it can never be stale: each method is one host call, made with the
calling thread's credentials, and an id that is gone is the host's EINVAL. ``operate_nowait`` never blocks and raises
``WouldBlock`` where the host would; ``operate`` blocks and belongs in a thread of its own. An operation with SEM_UNDO
belongs to the thread that makes it: the host reverts it when the last thread that shares its undo list ends.
"""

import errno
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import sem as host_sem
from synosfs.host.abi import (
    IPC_CREAT,
    IPC_EXCL,
    IPC_INFO,
    IPC_NOWAIT,
    IPC_PRIVATE,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    SEM_STAT,
    SEM_STAT_ANY,
    SEM_UNDO,
    SETVAL,
)
from synosfs.host.errors import explained, explaining
from synosfs.host.sem import SEMID_DS
from synosfs.ipc.sysv import Limits, in_its_slot, new_perm, refuse_private, table_of

#: The most that a semaphore can hold (SEMVMX); a value beyond 16 bits would not even reach the host.
_SEMVMX = 32767

#: How often to begin again when the set of a key vanishes between finding that it exists and opening it.
_MOST_TRIES = 100


class Operation(NamedTuple):
    """``struct sembuf``: the semaphore's number in the set, what to add (0: wait for zero), IPC_NOWAIT | SEM_UNDO."""

    num: int
    delta: int
    flags: int = 0

    def __repr__(self) -> str:
        """As strace prints it."""
        names = [name for name, bit in _OPERATION_FLAGS.items() if self.flags & bit]
        rest = self.flags & ~(IPC_NOWAIT | SEM_UNDO)
        flags = "|".join(names + [f"{rest:#x}"] * bool(rest)) or "0"
        return f"{{{self.num}, {self.delta}, {flags}}}"


_OPERATION_FLAGS = {"IPC_NOWAIT": IPC_NOWAIT, "SEM_UNDO": SEM_UNDO}


class SetStatus(NamedTuple):
    """``struct semid_ds`` with the C names without prefix; times in seconds."""

    semid: int
    key: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    mode: int
    seq: int
    otime: int
    ctime: int
    nsems: int


@dataclass(frozen=True, slots=True)
class SemaphoreSet:
    """The set with this id."""

    semid: int

    def operate_nowait(self, operations: Sequence[Operation]) -> None:
        """semop(2), all or nothing. WouldBlock (EAGAIN) when it would wait; EFBIG, E2BIG, EINVAL, ERANGE, EACCES."""
        try:
            host_sem.semop_nowait(self.semid, _without_waiting(operations))
        except SynosError as error:
            if error.errno == errno.EAGAIN:
                raise WouldBlock(errno.EAGAIN, f"set {self.semid}: {_shown(operations)} would wait") from None
            raise explained(error, _OPERATE, semid=self.semid, operations=len(operations)) from None

    def operate(self, operations: Sequence[Operation], timeout_ns: int | None = None) -> None:
        """semtimedop(2), waiting until all can be done. EIDRM: the set was removed; EAGAIN: the time-out; EINTR."""
        try:
            host_sem.semtimedop_blocking(self.semid, operations, timeout_ns)
        except SynosError as error:
            if error.errno == errno.EAGAIN:
                within = "" if timeout_ns is None else f" within {timeout_ns / 1e9:g} s"
                message = f"set {self.semid}: {_shown(operations)} could not be done{within}"
                raise SynosError(errno.EAGAIN, message) from None
            raise explained(error, _OPERATE, semid=self.semid, operations=len(operations)) from None

    def allows_taking(self, num: int) -> bool:
        """Whether semaphore ``num`` could be decremented by 1 now. Changes nothing, otime and GETPID included; EFBIG,
        EACCES (it needs the right to alter), EINVAL.
        """
        try:
            host_sem.semop_nowait(self.semid, _without_waiting(_watching(num)))
        except SynosError as error:
            if error.errno in (errno.ERANGE, errno.EAGAIN):
                return error.errno == errno.ERANGE
            raise explained(error, _OPERATE, semid=self.semid, operations=1) from None
        raise AssertionError  # an array that cannot succeed

    def wait_allows_taking(self, num: int) -> None:
        """Sleep until ``num`` could be decremented by 1, changing nothing but GETNCNT. EIDRM, EINTR; see above."""
        try:
            host_sem.semtimedop_blocking(self.semid, _watching(num), None)
        except SynosError as error:
            if error.errno != errno.ERANGE:
                raise explained(error, _OPERATE, semid=self.semid, operations=1) from None

    def figure(self, num: int, command: int) -> int:
        """GETVAL, GETPID, GETNCNT or GETZCNT of one semaphore. EINVAL: no such number; EACCES."""
        return self._control(num, command)

    def figures(self, nums: Iterable[int], command: int) -> list[int]:
        """As ``figure``, of many."""
        with explaining(_READ, semid=self.semid, num="of these"):
            return [host_sem.semctl(self.semid, num, command) for num in nums]

    def set_value(self, num: int, value: int) -> None:
        """SETVAL, which clears every process's undo entry for the semaphore. ERANGE: not from 0 to 32767."""
        self._control(num, SETVAL, value)

    def values(self, nsems: int | None = None) -> list[int]:
        """GETALL, of as many as the set has. EACCES without read permission."""
        if nsems is None:
            nsems = self.status_any().nsems
        with explaining(_READ, semid=self.semid, num=0):
            return host_sem.semctl_getall(self.semid, nsems)

    def set_values(self, values: Sequence[int]) -> None:
        """SETALL, which clears every process's undo entries for the set. EINVAL: not one for each; ERANGE; EACCES."""
        nsems = self.status_any().nsems
        if len(values) != nsems:
            raise SynosError(
                errno.EINVAL, f"set {self.semid} has {nsems} semaphores, not {len(values)}; give a value for each"
            )
        try:
            packed = array("H", values)
        except OverflowError:  # the host takes 16 bits of each: what does not fit must not become something else
            packed = array("H", [_SEMVMX + 1]) * nsems
        with explaining(_ALTER, semid=self.semid, num=0):
            host_sem.semctl_setall(self.semid, packed)

    def status(self) -> SetStatus:
        """semctl(IPC_STAT): EACCES without read permission."""
        buffer = SEMID_DS.buffer()
        with explaining(_READ, semid=self.semid, num=0):
            host_sem.semctl_buffer(self.semid, IPC_STAT, buffer)
        return SetStatus(self.semid, *SEMID_DS.unpack(buffer))

    def status_any(self) -> SetStatus:
        """The status as ``ipcs`` shows it to everybody, whatever the permissions (SEM_STAT_ANY). EINVAL: no such id."""
        found = in_its_slot(self.semid, lambda slot: stat_slot(slot, SEM_STAT_ANY))
        if found is None:
            raise explained(SynosError(errno.EINVAL), _OWN, semid=self.semid)
        return found

    def set(self, uid: int | None = None, gid: int | None = None, mode: int | None = None) -> None:
        """semctl(IPC_SET); what is None stays. EPERM: neither owner nor creator."""
        buffer = SEMID_DS.buffer(**new_perm(self.status_any(), uid, gid, mode))
        with explaining(_OWN, semid=self.semid):
            host_sem.semctl_buffer(self.semid, IPC_SET, buffer)

    def remove(self) -> None:
        """semctl(IPC_RMID): wakes all who wait with EIDRM. EPERM: neither owner nor creator; EINVAL: no such id."""
        with explaining(_OWN, semid=self.semid):
            host_sem.semctl(self.semid, 0, IPC_RMID)

    def _control(self, num: int, command: int, value: int = 0) -> int:
        with explaining(_ALTER if command == SETVAL else _READ, semid=self.semid, num=num):
            return host_sem.semctl(self.semid, num, command, value)


# Why the host said no, in the man pages' words. One errno can have several causes: the sentence names each of them.
_OPERATE = {
    errno.EINVAL: "no set {semid}, or {operations} operations are none",
    errno.EFBIG: "a semaphore's number is negative or beyond the end of set {semid}",
    errno.E2BIG: "{operations} operations are more than one call may make (SEMOPM, the third number of kernel.sem)",
    errno.ERANGE: "a semaphore of set {semid} would pass 32767, or an undo adjustment its limit",
    errno.EACCES: "set {semid} does not let the caller alter it, or read it to wait for zero; see its mode and owner",
    errno.EIDRM: "set {semid} was removed while the call waited",
    errno.ENOSPC: "the host keeps no more undo entries (SEMMNU)",
}
_READ = {
    errno.EINVAL: "no set {semid}, or it has no semaphore {num}",
    errno.EACCES: "set {semid} does not let the caller read; see its mode and owner",
    errno.EIDRM: "set {semid} was removed",
}
_ALTER = {
    errno.EINVAL: "no set {semid}, or it has no semaphore {num}",
    errno.EACCES: "set {semid} does not let the caller alter it; see its mode and owner",
    errno.ERANGE: "a semaphore's value is from 0 to 32767",
    errno.EIDRM: "set {semid} was removed",
}
_OWN = {
    errno.EINVAL: "no set {semid}",
    errno.EPERM: "the caller is neither owner nor creator of set {semid}",
    errno.EIDRM: "set {semid} was removed",
}
_SLOT = {errno.EINVAL: "no semaphore set in slot {slot}"}
_GET = {
    errno.ENOENT: "no semaphore set has key {key:#x}; add IPC_CREAT to make it",
    errno.EEXIST: "a semaphore set with key {key:#x} exists, and IPC_CREAT|IPC_EXCL asked for a new one",
    errno.EINVAL: "{nsems} semaphores are none or more than SEMMSL (the first of kernel.sem), "
    "or the set with key {key:#x} has fewer",
    errno.EACCES: "the set with key {key:#x} does not grant the caller the mode asked for",
    errno.ENOSPC: "the limit of sets (SEMMNI) or of semaphores (SEMMNS) in kernel.sem is reached; "
    "remove some (see sem/ctl) or raise it",
}


def get(key: int, nsems: int, flags: int) -> SemaphoreSet:
    """semget(2): find or make the set of ``key``; IPC_PRIVATE is always new."""
    with explaining(_GET, key=key & 0xFFFFFFFF, nsems=nsems):
        return SemaphoreSet(host_sem.semget(key, nsems, flags))


def get_initialised(key: int, nsems: int, flags: int, values: Sequence[int]) -> SemaphoreSet:
    """semget(2), and the values, if this call makes the set.

    A new set has values of 0 and an otime of 0, and its maker needs two calls: the classic race (semget(2), BUGS).
    The protocol here is the one of the man pages: whoever makes the set (IPC_CREAT|IPC_EXCL) sets all values, and then
    makes one semop that changes nothing; it gives the set its otime. So a program that finds the set and waits until
    otime is not 0 never meets a value that is not initialised; callers of the gate cannot come between at all.
    A set that its maker cannot write, or values that do not fit, leave nothing behind.
    """
    if key != IPC_PRIVATE and not flags & IPC_CREAT:
        raise SynosError(errno.EINVAL, "init is for a new set: add IPC_CREAT, or leave init out")
    if len(values) != nsems:
        raise SynosError(errno.EINVAL, f"init wants a value for each of the {nsems} semaphores, not {len(values)}")
    for _ in range(_MOST_TRIES):
        try:
            return _made(get(key, nsems, flags | IPC_CREAT | IPC_EXCL), values)
        except SynosError as error:
            if error.errno != errno.EEXIST or flags & IPC_EXCL:
                raise
        try:
            return get(key, nsems, flags & ~IPC_CREAT)
        except SynosError as error:
            if error.errno != errno.ENOENT:
                raise
    raise SynosError(errno.EAGAIN, f"the set with key {key & 0xFFFFFFFF:#x} comes and goes; try again")


def _made(made: SemaphoreSet, values: Sequence[int]) -> SemaphoreSet:
    try:
        made.set_values(values)
        made.operate_nowait([Operation(0, -1), Operation(0, +1)] if values[0] else [Operation(0, 0)])
    except SynosError:
        made.remove()
        raise
    return made


def find(key: int) -> SemaphoreSet:
    """The set of ``key``, whatever its permissions. ENOENT when there is none; IPC_PRIVATE names none."""
    refuse_private(key)
    return get(key, 0, 0)


def stat_slot(slot: int, command: int = SEM_STAT) -> SetStatus:
    """SEM_STAT, SEM_STAT_ANY: the set in this slot of the kernel's table. EINVAL: none there; EACCES."""
    buffer = SEMID_DS.buffer()
    with explaining(_SLOT, slot=slot):
        semid = host_sem.semctl_buffer(slot, command, buffer)
    return SetStatus(semid, *SEMID_DS.unpack(buffer))


def listing() -> Iterator[SetStatus]:
    """Every set of the namespace in the kernel's order, whoever made it (``/proc/sysvipc/sem``); ``seq`` is 0."""
    for line in table_of("sem"):
        fields = line.split()
        key, semid, _, nsems, uid, gid, cuid, cgid, otime, ctime = map(int, fields)
        yield SetStatus(semid, key & 0xFFFFFFFF, uid, gid, cuid, cgid, int(fields[2], 8), 0, otime, ctime, nsems)


def limits(command: int = IPC_INFO) -> Limits:
    """IPC_INFO: the system's limits. SEM_INFO: what is in use, in the fields semusz and semaem."""
    buffer = host_sem.SEM_INFO.buffer()
    highest = host_sem.semctl_buffer(0, command, buffer)
    return Limits(highest, host_sem.SEM_INFO.named(buffer))


def operations_max() -> int:
    """SEMOPM: the most operations of one call, as it is now."""
    return limits().values["semopm"]


def too_many(operations: int) -> str:
    """The reason of semop(2)'s E2BIG."""
    return _OPERATE[errno.E2BIG].format(operations=operations)


def _without_waiting(operations: Iterable[Operation]) -> list[tuple[int, int, int]]:
    return [(num, delta, flags | IPC_NOWAIT) for num, delta, flags in operations]


def _watching(num: int) -> list[Operation]:
    """Operations that wait for ``num`` to be more than 0, and then fail with ERANGE: what fails leaves no trace."""
    return [Operation(num, -1), Operation(num, _SEMVMX), Operation(num, 1)]


def _shown(operations: Sequence[Operation]) -> str:
    return ", ".join(map(repr, operations[:3])) + ", ..." * (len(operations) > 3)
