"""IPCManager: what the host cannot know of its own objects, because a daemon made the calls.

The host keeps the pid of the last sender, receiver, creator or operator of an object. It is the daemon's for every
call that came through the gate. The manager remembers whom the daemon acted for, and puts the true pids into what is
published.
"""

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Protocol

from synosfs.host import procfs
from synosfs.ipc.fifo import FifoRegistry
from synosfs.ipc.journal import Journal
from synosfs.ipc.mq_notifier import Notifier
from synosfs.ipc.ownership import Ownership
from synosfs.ipc.removals import Removals
from synosfs.ipc.sysv_msg import QueueStatus
from synosfs.ipc.sysv_sem import Operation
from synosfs.ipc.sysv_shm import SegmentStatus
from synosfs.ipc.things import Seen, Thing, Things
from synosfs.ipc.undo import UndoLedger
from synosfs.ipc.usage import Usages

#: Remember the actors of this many objects a role; then forget the older half.
_MOST = 1 << 16


class Actor(Hashable, Protocol):
    """A SynOS process, as far as this layer knows one."""

    pid: int


class IPCManager:
    """One for the mount."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._daemon = os.getpid()
        self._actors: defaultdict[str, dict[Hashable, tuple[int, int]]] = defaultdict(dict)
        #: Who set all semaphores of a set at once, and how many sets had been set so by then.
        self._set_at_once: dict[int, tuple[int, int]] = {}
        self._times_set = 0
        self.undo = UndoLedger()
        self.journal = journal or Journal()
        self.fifos = FifoRegistry(self.journal)
        self.things = Things(self.fifos)
        self.ownership = Ownership(self.things, self.journal)
        self.usages = Usages()
        self.removals = Removals(self.journal, self.usages)
        #: Where the mount is, and its device number; nowhere yet.
        self.mountpoint = ""
        self.device = -1
        self.notifier = Notifier()
        #: The processes that the daemon's threads sleep for now, by thread. Those threads write here.
        self.acting: dict[int, int] = {}

    def acted(self, role: str, thing: Hashable, pid: int, tid: int = 0) -> None:
        """``pid`` has done ``role`` (say ``msg_sent``) to ``thing`` (say an id), by a host call in thread ``tid``."""
        actors = self._actors[role]
        actors[thing] = pid, tid
        if len(actors) > _MOST:
            self._actors[role] = dict(list(actors.items())[_MOST // 2 :])

    def acted_first(self, role: str, thing: Hashable, pid: int) -> None:
        """As ``acted``, unless it is known who did."""
        if thing not in self._actors[role]:
            self.acted(role, thing, pid)

    def set_all(self, semid: int, pid: int) -> None:
        """``pid`` has set all semaphores of a set, of which there may be tens of thousands."""
        self._times_set += 1
        self._set_at_once[semid] = pid, self._times_set
        if len(self._set_at_once) > _MOST:
            self._set_at_once = dict(list(self._set_at_once.items())[_MOST // 2 :])

    def set_all_first(self, semid: int, pid: int) -> None:
        """As ``set_all``, of those semaphores of which it is not known who operated on them."""
        self._set_at_once.setdefault(semid, (pid, 0))

    def semaphore_pid(self, semid: int, num: int, pid: int) -> int:
        """GETPID: the SynOS process that operated on the semaphore last, where the host's ``pid`` is the daemon's."""
        setter, times = self._set_at_once.get(semid, (pid, 0))
        found = self.true_pid("sem_operated", (semid, num, times), pid)
        return setter if found == self._daemon else found

    def semaphore_operated(self, semid: int, num: int, pid: int) -> None:
        """``pid`` has operated on one semaphore."""
        _, times = self._set_at_once.get(semid, (0, 0))
        self.acted("sem_operated", (semid, num, times), pid)

    def was(self, role: str, thing: Hashable, pid: int) -> None:
        """The host says that ``pid`` did it last, and the daemon itself is about to change that."""
        if pid != self._daemon:
            self.acted(role, thing, self.true_pid(role, thing, pid))

    def true_pid(self, role: str, thing: Hashable, pid: int) -> int:
        """The SynOS process that did it last, where the host's ``pid`` is the daemon's."""
        actor, thread = self._actors[role].get(thing, (pid, 0))
        # The host names the process, or the thread if it slept and was handed the message (ipc/msg.c, pipelined_send).
        return actor if pid in (self._daemon, thread) else self.acting.get(pid, pid)

    def with_true_pids(self, status: QueueStatus) -> QueueStatus:
        """The status of a queue with lspid and lrpid of the SynOS processes that used it."""
        return status._replace(
            lspid=self.true_pid("msg_sent", status.msqid, status.lspid),
            lrpid=self.true_pid("msg_received", status.msqid, status.lrpid),
        )

    def segment_with_true_pids(self, status: SegmentStatus) -> SegmentStatus:
        """The status of a segment with cpid and lpid of the SynOS processes that made and used it."""
        return status._replace(
            cpid=self.true_pid("shm_made", status.shmid, status.cpid),
            lpid=self.true_pid("shm_used", status.shmid, status.lpid),
        )

    def operated(self, actor: Actor, semid: int, operations: Iterable[Operation]) -> None:
        """``actor`` has made these operations, SEM_UNDO or not, on the set."""
        for operation in operations:
            self.semaphore_operated(semid, operation.num, actor.pid)
        self.undo.operated(actor, semid, operations)

    def removed(self, thing: Thing, seen: Seen | None, why: str, actor: Actor, uid: int) -> None:
        """``actor`` has removed it; ``seen`` is what it was."""
        self.ownership.gone(thing)
        try:
            program = procfs.command(actor.pid)
        except ProcessLookupError:
            program = ""
        self.removals.add(thing, seen, why, actor.pid, uid, program)

    def left(self, thing: Thing, seen: Seen, pid: int, uid: int, program: str) -> None:
        """It was removed because its last owner, ``pid``, has ended."""
        self.removals.add(thing, seen, "its last owner has ended", pid, uid, program)

    def ended(self, actor: Actor) -> Iterator[None]:
        """``actor`` has ended. The host reverts its operations and keeps the daemon's pid for it: noted in steps."""
        for semid, num, _ in self.undo.ended(actor):
            self.semaphore_operated(semid, num, actor.pid)
            yield
