"""What SynOS processes have outstanding of SEM_UNDO, for people to look at.

The host alone keeps the true adjustments and applies them (``process.avatar``); it shows them to nobody. This ledger
counts beside it what went through the gate. It cannot see what clears an adjustment behind the gate's back: SETVAL and
SETALL by native programs. A set that a native program removed is left out by whoever shows the ledger, because its
id names nothing any more. Operations that a process makes natively are in another list of the host's, and not here.
"""

import threading
from collections.abc import Hashable, Iterable, Iterator
from weakref import WeakKeyDictionary, WeakSet

from synosfs.host.abi import SEM_UNDO
from synosfs.ipc.sysv_sem import Operation


class UndoLedger:
    """Adjustments by process, set and number; 0 is none. Avatars' threads write, so there is a lock.

    A process that is gone takes along what a thread of its avatar wrote too late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: WeakKeyDictionary[Hashable, dict[int, dict[int, int]]] = WeakKeyDictionary()
        #: Who may have entries for a set.
        self._owners: dict[int, WeakSet[Hashable]] = {}

    def operated(self, owner: Hashable, semid: int, operations: Iterable[Operation]) -> None:
        """``owner`` has made the operations."""
        adjustments = [(num, -delta) for num, delta, flags in operations if flags & SEM_UNDO and delta]
        if not adjustments:
            return
        with self._lock:
            entries = self._entries.setdefault(owner, {}).setdefault(semid, {})
            for num, adjustment in adjustments:
                if entries.get(num, 0) + adjustment:
                    entries[num] = entries.get(num, 0) + adjustment
                else:
                    del entries[num]
            if entries:
                self._owners.setdefault(semid, WeakSet()).add(owner)
            else:
                self._forget(owner, semid)

    def cleared(self, semid: int, num: int | None = None) -> None:
        """SETVAL (``num``), SETALL or IPC_RMID has cleared everybody's entries for the set or the semaphore."""
        with self._lock:
            for owner in list(self._owners.get(semid, ())):
                entries = self._entries.get(owner, {}).get(semid, {})
                entries.pop(num, 0) if num is not None else entries.clear()
                if not entries:
                    self._forget(owner, semid)

    def holders(self, semid: int, num: int) -> list[Hashable]:
        """Who has taken of a semaphore what its end would give back."""
        with self._lock:
            owners = list(self._owners.get(semid, ()))
            return [owner for owner in owners if self._entries.get(owner, {}).get(semid, {}).get(num, 0) > 0]

    def of(self, owner: Hashable) -> Iterator[tuple[int, int, int]]:
        """(semid, number, what the owner's end will add to the semaphore), in order; looked up a set at a time."""
        with self._lock:
            semids = sorted(self._entries.get(owner, ()))
        for semid in semids:
            with self._lock:
                entries = sorted(self._entries.get(owner, {}).get(semid, {}).items())
            for num, adjustment in entries:
                yield semid, num, adjustment

    def ended(self, owner: Hashable) -> Iterator[tuple[int, int, int]]:
        """``owner`` has ended; the host applies what ``of`` said, which comes one after the other."""
        with self._lock:
            sets = self._entries.pop(owner, {})
        for semid, entries in sets.items():
            with self._lock:
                self._forget(owner, semid)
            for num, adjustment in entries.items():
                yield semid, num, adjustment

    def _forget(self, owner: Hashable, semid: int) -> None:
        """It has no entry for the set."""
        self._entries.get(owner, {}).pop(semid, None)
        owners = self._owners.get(semid)
        if owners is not None:
            owners.discard(owner)
            if not owners:
                del self._owners[semid]
