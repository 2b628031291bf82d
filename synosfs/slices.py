"""Slices of time: how long a piece of long work of the main thread is, and when the next may follow.

Whatever a user has under way, it gets one slice in a turn of the loop: those who wait for their next one stand in the
user's ``Line``, which lets one of them go on at each turn. So who has a hundred threads holds the others up no longer
than who has one.
"""

import time
from collections.abc import Iterator

import trio

#: A piece of long work takes so long, in nanoseconds.
SLICE_NS = 500_000


def take_slice(steps: Iterator[None]) -> bool:
    """Take steps for a slice of time; whether there may be more."""
    began = time.perf_counter_ns()
    return any(time.perf_counter_ns() - began > SLICE_NS for _ in steps)


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
                self._waiting.unpark()
                await trio.lowlevel.checkpoint()
        finally:
            self._is_moving = False


class Slices:
    """One piece of work: ``await pause()`` between its steps."""

    __slots__ = ("_began_ns", "_line")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._began_ns = time.perf_counter_ns()

    async def pause(self) -> None:
        """Let others in, if the slice is over."""
        if time.perf_counter_ns() - self._began_ns > SLICE_NS:
            await self._line.next_turn()
            self._began_ns = time.perf_counter_ns()
