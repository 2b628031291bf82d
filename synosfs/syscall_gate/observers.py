"""Who looks on: each call that has ended is shown to every observer, once.

An observer can never hurt what it observes: one that raises is dropped, and logged. It runs on the caller's path, so it
keeps what it is shown and thinks later.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.spec import Row

log = logging.getLogger(__name__)


class Completed(NamedTuple):
    """A call that has ended. ``values`` are its bound arguments, none when binding failed; times in nanoseconds:
    ``ran_ns`` on the daemon's own path, ``parked_ns`` waiting (None: it never waited). ``moved`` in bytes.
    """

    row: Row | None
    caller: Caller
    values: Sequence[Any]
    reply: Reply
    ran_ns: int
    parked_ns: int | None
    moved: int


Observer = Callable[[Completed], None]


class ObserverStatistics(NamedTuple):
    """How many look on, and how many were dropped because they failed."""

    watching: int
    dropped: int


class Observers:
    """All who look on, in the order in which they came."""

    def __init__(self) -> None:
        #: Empty, as a rule: the dispatcher looks here before it makes anything to be shown.
        self.watching: list[Observer] = []
        self._dropped = 0

    def add(self, observer: Observer) -> None:
        self.watching.append(observer)

    def remove(self, observer: Observer) -> None:
        if observer in self.watching:
            self.watching.remove(observer)

    def statistics(self) -> ObserverStatistics:
        return ObserverStatistics(len(self.watching), self._dropped)

    def notify(self, completed: Completed) -> None:
        for observer in list(self.watching):
            try:
                observer(completed)
            except Exception:  # whatever is wrong with it, no caller is to pay for it
                log.exception("an observer failed and is dropped: %r", observer)
                self.remove(observer)
                self._dropped += 1
