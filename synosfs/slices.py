"""Slices of time: how long a piece of long work of the main thread is, and when the next may follow.

A slice is over when anybody else waits for the daemon, and at the latest after ``SLICE_NS``. Whatever a user has under
way, it gets one slice in a turn of the loop: those who wait for their next one stand in the user's ``Line``, which lets
one of them go on at each turn. So who has a hundred threads holds the others up no longer than who has one.
"""

import time
from collections.abc import Callable, Iterator

import trio

#: A piece of long work takes so long at the most, in nanoseconds.
SLICE_NS = 500_000

#: So long nobody looks whether others wait: a look costs a fiftieth of that.
_LOOK_NS = 50_000

_now = time.perf_counter_ns


class _Others:
    """Whoever else waits for the daemon: ``slices.others.wait()`` tells whether there is anybody."""

    def __init__(self) -> None:
        #: What is asked. Without a mount there is nobody.
        self.wait: Callable[[], bool] = lambda: False


others = _Others()


class Slice:
    """The time since a piece of work began or went on."""

    __slots__ = ("_look_ns", "_over_ns")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        now = _now()
        self._look_ns = now + _LOOK_NS
        self._over_ns = now + SLICE_NS

    def prolong(self, ns: int) -> None:
        """For so long nothing was done."""
        self._look_ns += ns
        self._over_ns += ns

    def is_over(self) -> bool:
        """Asked between steps, each of which takes no longer than a slice should."""
        now = _now()
        if now < self._look_ns:
            return False
        self._look_ns = now + _LOOK_NS
        return now > self._over_ns or others.wait()


def take_slice(steps: Iterator[None]) -> bool:
    """Take steps for a slice of time; whether there may be more."""
    is_over = Slice().is_over
    return any(is_over() for _ in steps)


class Line:
    """One user's pieces of long work, of which one goes on at a time. Used from the trio thread only."""

    __slots__ = ("_is_moving", "_waiting")

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self._is_moving = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def next_turn(self) -> None:
        """Let others in, and return alone of all who wait here."""
        if not self._is_moving:
            self._is_moving = True
            trio.lowlevel.spawn_system_task(self._move, name="a line moves")
        await self._waiting.park()

    async def _move(self) -> None:
        try:
            while self._waiting:
                if others.wait():  # they may go first, once: what is scheduled together runs in any order
                    await trio.lowlevel.checkpoint()
                self._waiting.unpark()
                await trio.lowlevel.checkpoint()
        finally:
            self._is_moving = False


class Slices:
    """One piece of work: ``await pause()`` between its steps."""

    __slots__ = ("_line", "_slice")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._slice = Slice()

    async def pause(self) -> None:
        """Let others in, if the slice is over."""
        if self._slice.is_over():
            await self._line.next_turn()
            self._slice.begin()
