"""Watches: what somebody waits for is watched once, however many wait for it.

A *watch* runs from the first who waits for its key to the last, or until what it waits for may have come about: then
all of them are told, once, and it is over; who finds that nothing has come begins anew. So a queue that is polled by
way of a thousand files has one thread in it, and who goes costs no more than one look into a table.

What cannot be slept for is looked at, by one task for all, in the order in which each is due, at growing intervals, for
a bounded share of the time. What can be slept for in a thread is looked at too where a user has many threads already.

Looks at much, whoever's, are taken a slice at a time, and one slice at a time: ``step_through``.

The key holds the credentials wherever they count: nobody learns from another's watch what is not for them.
Nobody who is told can hurt the others. Everything here runs in the trio thread, in tasks of trio's own.
"""

import heapq
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from errno import EAGAIN, EIO
from functools import partial
from typing import NamedTuple

import trio

from synosfs.errors import SynosError
from synosfs.host.credentials import Credentials
from synosfs.slices import Line, Slices, take_slice
from synosfs.syscall_gate.readiness import Watch, with_rights

log = logging.getLogger(__name__)

#: How often to look at what cannot be waited for, in seconds: at first, and at most.
_FIRST_LOOK, _SLOWEST_LOOK = 0.001, 0.05

#: Look for so long in a row, in seconds, and now and then for at most this share of the time.
_SLICE, _SHARE = 0.001, 0.1

#: Tell so many in a row.
_TOLD_AT_ONCE = 50

#: So long, in seconds, ``step_through`` does not mind that its caller is to end: also who has no time has an answer.
_SURELY = 0.25

#: A user's watches have so many threads at most. When all wake at once, the main thread is one of so many for a while.
_MOST_THREADS = 32

#: Is called with the error that a watch ended with, or None.
Told = Callable[[SynosError | None], None]


class WatchStatistics(NamedTuple):
    """``watched`` things now, for so many ``watchers``; of them in ``threads``, and ``looked_at``; ``started`` ever."""

    watched: int
    watchers: int
    threads: int
    looked_at: int
    started: int


class _Running:
    """A watch that runs, and those who wait for it."""

    __slots__ = ("is_looked_at", "scope", "told", "watch")

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.told: dict[Subscription, Told] = {}
        self.scope = trio.CancelScope()
        self.is_looked_at = False


class Subscription:
    """One who waits for a watch."""

    __slots__ = ("_registry", "_running")

    def __init__(self, registry: "Watches", running: _Running) -> None:
        self._registry = registry
        self._running = running

    def cancel(self) -> None:
        """Wait no longer: it is not told from now on. Nothing when it has been told."""
        if self._running.told.pop(self, None) is not None and not self._running.told:
            self._registry.stop(self._running)


class Watches:
    """All that is watched for the callers of one kernel."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Running] = {}
        self._threads: Counter[int] = Counter()
        #: When each is to be looked at next, and the interval from there; those that are over lie here until then.
        self._due: list[tuple[float, int, float, _Running]] = []
        self._order = itertools.count()
        self._nap: trio.CancelScope | None = None
        self._line = trio.StrictFIFOLock()
        #: Where those stand who begin or end many watches.
        self._many = Line()
        self._looked_at = 0
        self._started = 0

    def statistics(self) -> WatchStatistics:
        return WatchStatistics(
            watched=len(self._running),
            watchers=sum(len(running.told) for running in self._running.values()),
            threads=self._threads.total(),
            looked_at=self._looked_at,
            started=self._started,
        )

    def subscribe(self, watch: Watch, told: Told) -> Subscription:
        """Call ``told`` once, when what is watched may have come about; never before this returns."""
        running = self._running.get(watch.key)
        if running is None:
            running = self._running[watch.key] = _Running(watch)
            self._started += 1
            self._start(running)
        subscription = Subscription(self, running)
        running.told[subscription] = told
        return subscription

    async def any_of(self, wanted: Iterable[Watch]) -> list[Watch]:
        """Return when one of these may have come about, with those that have been told of by then; or raise the error
        with which the watch for it ended.
        """
        woken = trio.Event()
        reached: list[Watch] = []
        failures: list[SynosError] = []

        def told(watch: Watch, failure: SynosError | None) -> None:
            if failure is None:
                reached.append(watch)
            else:
                failures.append(failure)
            woken.set()

        await trio.lowlevel.checkpoint_if_cancelled()  # who has no time begins no watch
        slices = Slices(self._many)
        subscriptions = []
        try:
            for watch in wanted:
                subscriptions.append(self.subscribe(watch, partial(told, watch)))
                await slices.pause()
            await woken.wait()
        finally:
            with trio.CancelScope(shield=True):
                for subscription in subscriptions:
                    subscription.cancel()
                    await slices.pause()
        if failures:
            raise failures[0]
        return reached

    async def step_through(self, credentials: Credentials, steps: Iterator[None]) -> None:
        """Take all of these steps with these rights, in slices of time, while others wait for theirs in line."""
        is_more = partial(take_slice, steps)
        more = True
        with trio.move_on_after(_SURELY, shield=True):
            while more:
                async with self._line:
                    more = with_rights(credentials, is_more)
        while more:
            async with self._line:
                more = with_rights(credentials, is_more)

    def stop(self, running: _Running) -> None:
        """Nobody waits for it any more, or all are being told."""
        if self._running.get(running.watch.key) is running:
            del self._running[running.watch.key]
            if running.is_looked_at:
                self._looked_at -= 1
            running.scope.cancel()

    def close(self) -> None:
        """Watch nothing any more; nobody is told."""
        for running in [*self._running.values()]:
            running.told.clear()
            self.stop(running)

    def _start(self, running: _Running) -> None:
        watch = running.watch
        if watch.sleep is None or (watch.in_thread and self._threads[watch.credentials.uid] >= _MOST_THREADS):
            self._look_at(running)
        else:
            if watch.in_thread:
                self._threads[watch.credentials.uid] += 1
            trio.lowlevel.spawn_system_task(self._sleep, running, name=f"watch {watch.key}")

    async def _sleep(self, running: _Running) -> None:
        watch, failure = running.watch, None
        assert watch.sleep is not None
        with running.scope:
            try:
                await trio.lowlevel.checkpoint_if_cancelled()  # so that one that is over already takes no thread
                await watch.sleep()
            except Exception as error:  # an error of ours is for those who wait, and ends nothing else
                failure = _failure(error)
            finally:
                if watch.in_thread:
                    self._threads[watch.credentials.uid] -= 1
        if self._running.get(watch.key) is not running:
            return
        if failure is not None and failure.errno == EAGAIN:  # the host has no thread more
            self._look_at(running)
        else:
            await self._end(running, failure)

    async def _end(self, running: _Running, failure: SynosError | None) -> None:
        """Tell all of them. Who waits for the same from now on has a new watch."""
        self.stop(running)
        for count in itertools.count(1):
            if not running.told:
                return
            _, told = running.told.popitem()
            try:
                told(failure)
            except Exception:  # such as a poller who is gone: nothing to the others
                log.debug("somebody could not be told", exc_info=True)
            if count % _TOLD_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    # --- looking ---

    def _look_at(self, running: _Running) -> None:
        running.is_looked_at = True
        self._looked_at += 1
        self._look_again(running, _FIRST_LOOK)
        if self._nap is None:
            self._nap = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._look, name="looks at what cannot be waited for")

    def _look_again(self, running: _Running, pause: float) -> None:
        due = trio.current_time() + pause
        heapq.heappush(self._due, (due, next(self._order), min(2 * pause, _SLOWEST_LOOK), running))
        if self._nap is not None:
            self._nap.deadline = min(self._nap.deadline, due)

    async def _look(self) -> None:
        """Look at each when it is due. Runs for as long as there is any."""
        earliest = 0.0
        while self._due:
            self._nap = trio.CancelScope(deadline=self._due[0][0])
            with self._nap:
                await trio.sleep_forever()
            await trio.sleep_until(earliest)
            began = time.perf_counter()
            while self._due and self._due[0][0] <= trio.current_time() and time.perf_counter() - began < _SLICE:
                _, _, pause, running = heapq.heappop(self._due)
                if self._running.get(running.watch.key) is running:
                    self._look_once(running, pause)
            earliest = trio.current_time() + (time.perf_counter() - began) * (1 / _SHARE - 1)
        self._nap = None

    def _look_once(self, running: _Running, pause: float) -> None:
        failure = None
        try:
            reached = with_rights(running.watch.credentials, running.watch.reached)
        except Exception as error:  # as in _sleep
            reached, failure = True, _failure(error)
        if reached:
            self.stop(running)
            trio.lowlevel.spawn_system_task(self._end, running, failure, name=f"tell of {running.watch.key}")
        else:
            self._look_again(running, pause)


def _failure(error: Exception) -> SynosError:
    if isinstance(error, SynosError):
        return error
    if isinstance(error, OSError):  # the daemon's own want, such as of descriptors
        return SynosError(error.errno or EIO, str(error))
    log.error("a watch fails for a reason of our own", exc_info=error)
    return SynosError(EIO, f"an error of synosfs itself ({type(error).__name__}); its log tells more")
