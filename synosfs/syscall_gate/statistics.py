"""Statistics: always on, and cheap enough to be.

A call that is answered at once costs two clock readings and a few additions to the ``Tally`` of its process; what costs
more is done for many at once (``process.figures``). Here tallies are made, and here is what all of them together say:
by call, by user and in total. The time that a call runs and the time that it spends parked are counted apart.
``SyscallStatistics`` only counts; ``stats``, ``stats.json`` and ``metrics`` render its records.

Invariant: what a look has shown never becomes less. A process that ends leaves its share in its call's and its user's
figures, and nothing else; a call of its that is answered later counts with its user too.
"""

import errno as errno_names
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from synosfs.process.figures import PIECE, Figures, Summary, Tally
from synosfs.process.process import Process

#: The calls of so many users are counted apart; those of the rest count with nobody's, ``OTHERS``.
_MOST_USERS = 4096
OTHERS = -1


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of some calls: those of one name, or of one user. ``blocked`` of them were parked."""

    count: int
    errors: int
    blocked: int
    bytes: int
    running: Summary
    parked: Summary
    errnos: dict[str, int]


def record_of(figures: Figures) -> Record:
    return Record(
        figures.count,
        figures.errors,
        figures.parked.count,
        figures.bytes,
        figures.running.summary(),
        figures.parked.summary(),
        named(figures.errnos),
    )


def named(errnos: Mapping[int, int]) -> dict[str, int]:
    """How many failed, by the errno's name, the most frequent first."""
    found = sorted(errnos.items(), key=lambda item: -item[1])
    return {errno_names.errorcode.get(number, str(number)): count for number, count in found}


class Totals(NamedTuple):
    """All calls together; ``avg_response_time`` in seconds, without what they were parked."""

    total_calls: int
    ipc_calls: int
    avg_response_time: float
    consciousness_optimizations: int


class SyscallStatistics:
    """The figures of every call and of every user. Used from the trio thread only."""

    def __init__(self) -> None:
        self._calls: dict[str, Figures] = {}
        self._users: dict[int, Figures] = {}
        #: The calls that are interprocess communication, each of them.
        self._ipc: set[str] = set()
        #: The processes that have called, with their tallies.
        self._tallies: dict[Process, dict[str, Tally]] = {}
        #: Of calls that were answered when their process had ended.
        self._late: list[Tally] = []

    def add(self, name: str, *, ipc: bool = False) -> None:
        """There is a call of this name."""
        self._calls[name] = Figures()
        if ipc:
            self._ipc.add(name)

    def tally(self, process: Process, name: str) -> Tally:
        """That of a process for a call, made at its first."""
        uid = process.account.uid
        if uid not in self._users:
            uid = uid if len(self._users) < _MOST_USERS else OTHERS
            self._users.setdefault(uid, Figures())
        tally = Tally(self._calls[name], self._users[uid])
        if process.ended:
            self._fold_late(PIECE)
            self._late.append(tally)
        else:
            process.tallies[name] = tally
            self._tallies[process] = process.tallies
        return tally

    def ended(self, process: Process) -> Iterator[None]:
        """``process`` has ended: what it leaves is added up in steps."""
        tallies = process.tallies
        process.tallies = {}
        while tallies:
            next(reversed(tallies.values())).fold()
            tallies.popitem()
            yield
        self._tallies.pop(process, None)

    def fold(self) -> Iterator[None]:
        """Add up, in steps, all that has ended by now."""
        for tallies in list(self._tallies.values()):
            for tally in list(tallies.values()):
                tally.fold()
                yield
        self._fold_late(0)

    def totals(self) -> Totals:
        """To be asked after ``fold``, as what follows is."""
        count = sum(figures.count for figures in self._calls.values())
        running = sum(figures.running.total for figures in self._calls.values())
        return Totals(
            total_calls=count,
            ipc_calls=sum(figures.count if name in self._ipc else figures.ipc for name, figures in self._calls.items()),
            avg_response_time=running / count / 1e9 if count else 0.0,
            # Nothing is claimed that was not measured: there is no learner yet.
            consciousness_optimizations=0,
        )

    def calls(self) -> list[tuple[str, Figures]]:
        """Each call that was made, the most frequent first."""
        made = [(name, figures) for name, figures in self._calls.items() if figures.count]
        return sorted(made, key=lambda item: -item[1].count)

    def users(self) -> list[tuple[int, Figures]]:
        """Each user whose processes have called, dead ones included; ``OTHERS`` are those beyond the first 4096."""
        return sorted(self._users.items())

    def _fold_late(self, most: int) -> None:
        if len(self._late) > most:
            for tally in self._late:
                tally.fold()
            self._late.clear()
