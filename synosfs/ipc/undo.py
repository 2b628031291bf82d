"""What SynOS processes have outstanding of SEM_UNDO, for people to look at.

The host alone keeps the true adjustments and applies them (``process.avatar``); it shows them to nobody. This ledger
counts beside it what went through the gate. It cannot see what clears an adjustment behind the gate's back: SETVAL and
SETALL by native programs. A set that a native program removed is left out by whoever shows the ledger, because its
id names nothing any more. Operations that a process makes natively are in another list of the host's, and not here.
"""

import threading
from collections.abc import Hashable, Iterable, Iterator
from weakref import WeakKeyDictionary

from synosfs.host.abi import SEM_UNDO
from synosfs.ipc.sysv_sem import Operation


class UndoLedger:
    """Adjustments by set, process and number; 0 is none. Avatars' threads write, so there is a lock.

    A process that is gone takes along what a thread of its avatar wrote too late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: dict[int, WeakKeyDictionary[Hashable, dict[int, int]]] = {}

    def operated(self, owner: Hashable, semid: int, operations: Iterable[Operation]) -> None:
        """``owner`` has made the operations."""
        with self._lock:
            for num, delta, flags in operations:
                if flags & SEM_UNDO and delta:
                    entries = self._sets.setdefault(semid, WeakKeyDictionary()).setdefault(owner, {})
                    entries[num] = entries.get(num, 0) - delta
                    if not entries[num]:
                        del entries[num]

    def cleared(self, semid: int, num: int | None = None) -> None:
        """SETVAL (``num``), SETALL or IPC_RMID has cleared everybody's entries for the set or the semaphore."""
        with self._lock:
            if num is None:
                self._sets.pop(semid, None)
            else:
                for entries in self._sets.get(semid, {}).values():
                    entries.pop(num, None)

    def of(self, owner: Hashable) -> Iterator[tuple[int, int, int]]:
        """(semid, number, what the owner's end will add to the semaphore), in order; looked up a set at a time."""
        with self._lock:
            semids = sorted(self._sets)
        for semid in semids:
            with self._lock:
                owners = self._sets.get(semid)
                entries = [] if owners is None else sorted(owners.get(owner, {}).items())
            for num, adjustment in entries:
                yield semid, num, adjustment

    def ended(self, owner: Hashable) -> list[tuple[int, int, int]]:
        """``owner`` has ended; the host applies what ``of`` said."""
        applied = list(self.of(owner))
        with self._lock:
            for semid, owners in list(self._sets.items()):
                owners.pop(owner, None)
                if not owners:
                    del self._sets[semid]
        return applied
