"""Who polls open files, and is to be told when they become ready: poll(2), select(2), epoll(7) on files here.

The kernel tells all who poll an open file itself; so each file waits once, and what many files wait for is watched once
(``syscall_gate.watches``). The kernel asks for all events at once, and wants one notice when any of them may have come
about; that its pollers are gone it does not say, until the file is closed.

Upon a notice the kernel asks again. What a watch knew is part of that answer where a look cannot see it, and so is the
error that a watch ended with: else the kernel would be told, and would ask, again and again.
"""

from collections.abc import Callable
from errno import EACCES
from functools import partial
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.syscall_gate.readiness import ALWAYS, IN, OUT, Look, Source, Watch, with_rights
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
        #: With what the watch of a file ended of which the kernel has been told since it asked.
        self._word: dict[int, int | SynosError] = {}
        self._asked = self._told = 0

    def statistics(self) -> PollerStatistics:
        return PollerStatistics(len(self._waiting), self._asked, self._told)

    async def poll(self, fh: int, source: Source, notify: Callable[[], None] | None) -> int:
        """What is ready now; ``notify`` is called once when any other event may have come about.

        An event that the file may not know of never comes. EACCES: it may not know of any.
        """
        self._asked += 1
        word = self._word.pop(fh, 0)
        if isinstance(word, SynosError) and word.errno != EACCES:
            self.forget(fh)
            raise word
        events, look = IN | OUT, Look()
        try:
            if isinstance(word, SynosError):
                raise word
            ready = with_rights(source.credentials, partial(source.ready, events, look))
            if look.unsure and notify is None:  # nobody waits: this is all the answer that there will be
                await self._watches.step_through(source.credentials, look.copy_more())
                ready = with_rights(source.credentials, partial(source.ready, events, look))
        except SynosError as error:
            if error.errno != EACCES:
                raise
            events = OUT
            ready = with_rights(source.credentials, partial(source.ready, events, look))
        if look.unsure and isinstance(word, int):
            ready |= word
        waiting = []
        if notify is not None and not ready & ALWAYS:
            waiting = [
                self._watches.subscribe(watch, partial(self._tell, fh, notify, watch))
                for watch in source.watches(events & ~ready)
            ]
        self.forget(fh)  # only now, so that a watch for the same goes on
        if waiting:
            self._waiting[fh] = waiting
        return ready

    def forget(self, fh: int) -> None:
        """The file is closed, or asked about anew."""
        self._word.pop(fh, None)
        for subscription in self._waiting.pop(fh, ()):
            subscription.cancel()

    def _tell(self, fh: int, notify: Callable[[], None], watch: Watch, failure: SynosError | None) -> None:
        self.forget(fh)
        if watch.tells or failure is not None:
            self._word[fh] = watch.tells if failure is None else failure
        self._told += 1
        notify()
