"""Who polls open files, and is to be told when they become ready: poll(2), select(2), epoll(7) on files here.

The kernel tells all who poll an open file itself; so each file waits once, and what many files wait for is watched once
(``syscall_gate.watches``). The kernel asks for all events at once, and wants one notice when any of them may have come
about; that its pollers are gone it does not say, until the file is closed.
"""

from collections.abc import Callable
from errno import EACCES
from functools import partial
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.syscall_gate.readiness import ALWAYS, IN, OUT, Look, Source, with_rights
from synosfs.syscall_gate.watches import Subscription, Watches


class PollerStatistics(NamedTuple):
    """How many open files wait to become ready; how often the kernel asked, and was told."""

    waiting: int
    asked: int
    told: int


class Pollers:
    """The open files that are polled, by their number."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self._waiting: dict[int, list[Subscription]] = {}
        self._asked = self._told = 0

    def statistics(self) -> PollerStatistics:
        return PollerStatistics(len(self._waiting), self._asked, self._told)

    def poll(self, fh: int, source: Source, notify: Callable[[], None] | None) -> int:
        """What is ready now; ``notify`` is called once when any other event may have come about.

        An event that the file may not know of never comes. EACCES: it may not know of any.
        """
        self._asked += 1
        events = IN | OUT
        try:
            ready = with_rights(source.credentials, partial(source.ready, events, Look()))
        except SynosError as error:
            if error.errno != EACCES:
                raise
            events = OUT
            ready = with_rights(source.credentials, partial(source.ready, events, Look()))
        waiting = []
        if notify is not None and not ready & ALWAYS:
            told = partial(self._tell, fh, notify)
            waiting = [self._watches.subscribe(watch, told) for watch in source.watches(events & ~ready)]
        self.forget(fh)  # only now, so that a watch for the same goes on
        if waiting:
            self._waiting[fh] = waiting
        return ready

    def forget(self, fh: int) -> None:
        """The file is closed, or asked about anew."""
        for subscription in self._waiting.pop(fh, ()):
            subscription.cancel()

    def _tell(self, fh: int, notify: Callable[[], None], _: SynosError | None) -> None:
        """Whatever the watch ended with is for the next poll or read to tell."""
        self.forget(fh)
        self._told += 1
        notify()
