"""What the System V objects tell of who uses them, family by family: the evidence that the host itself has.

What an object keeps to itself is asked for with the rights of who looks: ``Kind.inside``.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from synosfs.fs.sysv import Status, request
from synosfs.host import abi
from synosfs.ipc import sysv_msg, sysv_sem, sysv_shm
from synosfs.ipc.manager import IPCManager
from synosfs.ipc.sysv_msg import MessageQueue, QueueStatus
from synosfs.ipc.sysv_sem import SemaphoreSet, SetStatus
from synosfs.ipc.sysv_shm import Segment, SegmentStatus
from synosfs.ipc.verdict import Deed, Use
from synosfs.syscall_gate.record import Request

#: So many semaphores are asked about in a row.
PIECE = 128


class Account(NamedTuple):
    """What the status of an object tells: its id, its size, the uses that the host keeps, and in which second it last
    changed. ``attached`` is None but for segments.
    """

    number: int
    size: int
    uses: tuple[Use, ...]
    changed: int
    attached: int | None = None


class Inside(NamedTuple):
    """What some semaphores tell: the pids that operated on them (0: of a process that has none in the daemon's pid
    namespace), how many wait, and whether any is as new, for all that can be seen.
    """

    pids: frozenset[int]
    waiting: int
    untouched: bool


@dataclass(frozen=True, eq=False)
class Kind:
    """One family's objects: the words for them, how they are listed, found and removed, and how the status of one is
    read.

    ``table`` is the family's name in ``/proc/sysvipc``. ``inside``, for sets, yields what the semaphores tell, in
    pieces, with the rights of the thread that takes them; ``waits_unseen``: nothing but the processes themselves tells
    who waits; ``is_empty``, for queues, whether there is nothing in it.
    """

    table: str
    noun: str
    columns: tuple[str, str]
    listing: Callable[[], Iterable[Status]]
    status: Callable[[int], Status]
    removal: Callable[[int], Request]
    account: Callable[[IPCManager, Any], Account]
    inside: Callable[[IPCManager, Any], Iterator[Inside]] | None = None
    waits_unseen: bool = False
    is_empty: Callable[[Any], bool] | None = None


def _of_queue(books: IPCManager, status: QueueStatus) -> Account:
    true = books.with_true_pids(status)
    uses = (Use(Deed.SENT, true.lspid, true.stime), Use(Deed.RECEIVED, true.lrpid, true.rtime))
    return Account(true.msqid, true.cbytes, uses, max(true.stime, true.rtime, true.ctime))


def _of_set(_books: IPCManager, status: SetStatus) -> Account:
    used = (Use(Deed.OPERATED, 0, status.otime),)  # by whom is kept for each semaphore
    return Account(status.semid, status.nsems, used, max(status.otime, status.ctime))


def _inside_set(books: IPCManager, status: SetStatus) -> Iterator[Inside]:
    """A semaphore that has a value and no pid was used from outside. EACCES."""
    semid, semaphores = status.semid, SemaphoreSet(status.semid)
    values: list[int] = []
    for first in range(0, status.nsems, PIECE):
        nums = range(first, min(first + PIECE, status.nsems))
        pids = semaphores.figures(nums, abi.GETPID)
        waiting = sum(semaphores.figures(nums, abi.GETNCNT)) + sum(semaphores.figures(nums, abi.GETZCNT))
        if 0 in pids and not values:
            values = semaphores.values(status.nsems)
        used = [(num, pid) for num, pid in zip(nums, pids, strict=True) if pid or values[num]]
        found = frozenset(books.semaphore_pid(semid, num, pid) for num, pid in used)
        yield Inside(found, waiting, len(used) < len(nums))


def _of_segment(books: IPCManager, status: SegmentStatus) -> Account:
    true = books.segment_with_true_pids(status)
    used = max(true.atime, true.dtime)
    # When it was made is not kept: it was not after its last change.
    uses = (Use(Deed.MADE, true.cpid, true.ctime), Use(Deed.ATTACHED, true.lpid, used))
    return Account(true.shmid, true.segsz, uses, max(used, true.ctime), true.nattch)


QUEUES = Kind(
    table="msg",
    noun="queue",
    columns=("msqid", "cbytes"),
    listing=sysv_msg.listing,
    status=lambda msqid: MessageQueue(msqid).status_any(),
    removal=lambda msqid: request("msgctl", msqid, abi.IPC_RMID),
    account=_of_queue,
    waits_unseen=True,
    is_empty=lambda status: not status.qnum,
)

SETS = Kind(
    table="sem",
    noun="set",
    columns=("semid", "nsems"),
    listing=sysv_sem.listing,
    status=lambda semid: SemaphoreSet(semid).status_any(),
    removal=lambda semid: request("semctl", semid, 0, abi.IPC_RMID),
    account=_of_set,
    inside=_inside_set,
)

SEGMENTS = Kind(
    table="shm",
    noun="segment",
    columns=("shmid", "segsz"),
    listing=lambda: (listed.status for listed in sysv_shm.listing()),
    status=lambda shmid: Segment(shmid).status_any(),
    removal=lambda shmid: request("shmctl", shmid, abi.IPC_RMID),
    account=_of_segment,
)

ALL = (QUEUES, SETS, SEGMENTS)
