"""Which objects are gone, whose they were, why, and by whom: the latest of each directory of the mount."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from synosfs.ipc.journal import Journal, Removal
from synosfs.ipc.sysv import Listed
from synosfs.ipc.things import Seen, Thing, directory_of
from synosfs.ipc.usage import Usages

#: So many are shown of each directory.
MOST_SHOWN = 1_000

#: So many objects are remembered from a look at all of a kind, to notice at the next one which are missing.
_MOST_SEEN = 1 << 16

#: Why an object is gone that nobody here has removed.
UNSEEN = "gone when looked at: removed by a program that did not ask here"


class Removals:
    """One for the mount; used from the trio thread only."""

    def __init__(self, journal: Journal, usages: Usages) -> None:
        """``usages`` are told what is gone."""
        self._journal = journal
        self._usages = usages
        self._latest: dict[str, deque[Removal]] = {}
        #: What the last look at all System V objects of a kind has shown.
        self._seen: dict[str, dict[int, Listed]] = {}
        #: What is being removed here, perhaps in a thread: a look may miss it before ``add`` tells of it.
        self.expected: set[Thing] = set()
        #: Who is told of each.
        self.told: list[Callable[[Removal], None]] = []
        for removal in journal.removals():
            self._keep(removal)

    @contextmanager
    def expecting(self, thing: Thing) -> Iterator[None]:
        """It is being removed for the length of the body."""
        self.expected.add(thing)
        try:
            yield
        finally:
            self.expected.discard(thing)

    def of(self, directory: str) -> Iterator[Removal]:
        """Those of ``msgq``, ``sem``, ``shm`` or ``pipes``, the latest first."""
        return reversed(list(self._latest.get(directory, ())))

    def add(self, thing: Thing, seen: Seen | None, why: str, pid: int, uid: int, program: str) -> None:
        """It has been removed. ``seen`` is what it was."""
        key, owner = (0, -1) if seen is None else (seen.key, seen.uid)
        self._add(Removal(time.time(), *thing, key, owner, why, pid, uid, program))
        if isinstance(thing.name, int):
            self._seen.get(thing.kind, {}).pop(thing.name, None)

    def looking(self, kind: str, listing: Iterable[Listed]) -> Iterator[Listed]:
        """Pass a list of all objects of a kind on; at its end, those are gone that the last one had besides."""
        now: dict[int, Listed] = {}
        before = self._seen.get(kind, {})
        usages, used, latest = self._usages[kind], 0, self._usages.latest
        for listed in listing:
            if len(now) < _MOST_SEEN:
                now[listed.number] = listed
                used += listed.number in usages
            yield listed
        if len(now) == _MOST_SEEN:
            before, now = {}, {}  # more than can be told of
        elif len(usages) > used:  # it takes 1 ms for tens of thousands
            self._usages.keep(kind, now, latest)
        self._seen[kind] = now
        missing = (listed for number, listed in before.items() if number not in now)
        for listed in islice(missing, MOST_SHOWN):
            if Thing(kind, listed.number) in self.expected:
                continue
            self._add(Removal(time.time(), kind, listed.number, listed.key, listed.uid, UNSEEN, 0, -1, ""))

    def _add(self, removal: Removal) -> None:
        self._usages.gone(removal.kind, removal.name)
        self._keep(removal)
        self._journal.removed(removal)
        for told in self.told:
            told(removal)

    def _keep(self, removal: Removal) -> None:
        self._latest.setdefault(directory_of(removal.kind), deque(maxlen=MOST_SHOWN)).append(removal)
