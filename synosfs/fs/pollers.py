"""Who polls open files, and is to be told when they become ready: poll(2), select(2), epoll(7) on files here.

The kernel tells all who poll an open file itself; so each file waits once, and what many files wait for is watched once
(``syscall_gate.watches``). The kernel asks for all events at once, and wants one notice when any of them may have come
about; that its pollers are gone it does not say, until the file is closed.

Upon a notice the kernel asks again. What a watch knew is part of that answer where a look cannot see it, and so is the
error that a watch ended with: else the kernel would be told, and would ask, again and again. Who polls for edges
(EPOLLET) is asked for no more once all is ready, and goes on until a call would wait (EAGAIN): then, and without being
asked, the file waits for what is ready no longer (``go_on``).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
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


@dataclass(slots=True, eq=False)
class _Polled:
    """One open file. ``notify`` tells the kernel, once, since it last asked; ``events`` are ``waiting`` to come about;
    ``word`` is with what a watch ended of which the kernel has been told.
    """

    source: Source
    notify: Callable[[], None] | None = None
    events: int = 0
    waiting: list[Subscription] = field(default_factory=list)
    word: int | SynosError = 0


class Pollers:
    """The open files that are polled, by their number."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self._files: dict[int, _Polled] = {}
        self._asked = self._told = 0

    def statistics(self) -> PollerStatistics:
        waiting = sum(bool(file.waiting) for file in self._files.values())
        return PollerStatistics(waiting, self._asked, self._told)

    async def poll(self, fh: int, source: Source | None, notify: Callable[[], None] | None) -> int:
        """What is ready now; ``notify`` is called once when any other event may have come about.

        Without a source the file is always ready. An event that it may not know of never comes. EACCES: it may not know
        of any.
        """
        if source is None:
            return IN | OUT
        self._asked += 1
        file = self._files.get(fh) or _Polled(source)
        word, file.word = file.word, 0
        if isinstance(word, SynosError) and word.errno != EACCES:
            self.forget(fh)
            raise word
        look = Look()
        ready, events = _ready(source, OUT if isinstance(word, SynosError) else IN | OUT, look)
        if look.unsure and notify is None:  # nobody waits: this is all the answer that there will be
            await self._watches.step_through(source.credentials, look.copy_more())
            ready, events = _ready(source, events, look)
        elif look.unsure and isinstance(word, int):
            ready |= word
        if notify is None or ready & ALWAYS:
            self.forget(fh)
        else:
            self._files[fh] = file
            file.source, file.notify = source, notify
            self._wait(fh, file, events & ~ready)
        return ready

    def go_on(self, fh: int) -> None:
        """A call on the file would have had to wait."""
        file = self._files.get(fh)
        if file is None or file.notify is None:
            return
        with suppress(SynosError):  # what there is to tell, the next poll or call tells
            ready, events = _ready(file.source, IN | OUT, Look())
            if missing := events & ~ready:
                self._wait(fh, file, missing)
            else:  # it has come meanwhile
                self._tell(fh, None, None)

    def forget(self, fh: int) -> None:
        """The file is closed, or nobody waits for it."""
        file = self._files.pop(fh, None)
        if file is not None:
            _stop(file)

    def _wait(self, fh: int, file: _Polled, events: int) -> None:
        if file.waiting and file.events == events:
            return
        before = file.waiting
        file.events = events
        file.waiting = [
            self._watches.subscribe(watch, partial(self._tell, fh, watch)) for watch in file.source.watches(events)
        ]
        for subscription in before:  # only now, so that a watch for the same goes on
            subscription.cancel()

    def _tell(self, fh: int, watch: Watch | None, failure: SynosError | None) -> None:
        file = self._files[fh]
        _stop(file)
        file.word = failure or (watch.tells if watch else 0)
        notify, file.notify = file.notify, None
        if notify is not None:
            self._told += 1
            notify()


def _ready(source: Source, events: int, look: Look) -> tuple[int, int]:
    """What is ready, and of which of the events the file may know."""
    try:
        return with_rights(source.credentials, partial(source.ready, events, look)), events
    except SynosError as error:
        if error.errno != EACCES or events == OUT:
            raise
    return with_rights(source.credentials, partial(source.ready, OUT, look)), OUT


def _stop(file: _Polled) -> None:
    waiting, file.waiting = file.waiting, []
    for subscription in waiting:
        subscription.cancel()
