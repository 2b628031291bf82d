"""Figures of calls: how many, with which errnos, how many bytes they moved, how long they ran and were parked.

A call that has ended is noted in the ``Tally`` of its process and name, by a few additions; a tally is added to the
``Figures`` of the process, of the call and of the user together, many calls at a time: what costs is done once for
all of them, in C. So whoever looks folds what is in tallies first (``Tally.fold``), and a process that has ended leaves
nothing but what its call's and its user's figures say.

A ``Distribution`` has sixteen buckets an octave, so what is read from it is right to 1/32 of itself.
"""

import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import ceil
from typing import NamedTuple

#: A tally is folded when it has so many calls.
PIECE = 256

#: The first 16 bits of a double are its sign, its exponent and four bits of its mantissa: an order of buckets. Where
#: those bits stand among the four that a double has, and what they are of 1.0 (IEEE 754).
_FIRST = 3 if sys.byteorder == "little" else 0
_ONE = 1023 << 4

_STEPS = 16


class Values(NamedTuple):
    """Some values, as distributions take them. ``places``: how many are in a bucket, by its 16 bits."""

    size: int
    total: int
    most: int
    places: Mapping[int, int]


def values_of(numbers: Sequence[int]) -> Values:
    """``numbers`` are whole and not negative: nanoseconds."""
    doubles = memoryview(array("d", numbers)).cast("B").cast("H")
    return Values(len(numbers), sum(numbers), max(numbers, default=0), Counter(doubles[_FIRST::4].tolist()))


class Summary(NamedTuple):
    """What there is to say of a distribution of times, in seconds."""

    total: float
    mean: float
    p50: float
    p90: float
    p99: float
    most: float


class Distribution:
    """How nanoseconds are spread. Bucket 0 is 0, and bucket n holds those from ``2**(octave) * (1 + step / 16)`` on,
    where octave and step are those of n - 1; the list is as long as the largest value needs.
    """

    __slots__ = ("_counts", "count", "most", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.most = 0
        self._counts: list[int] = []

    def add(self, values: Values) -> None:
        counts = self._counts
        self.count += values.size
        self.total += values.total
        if values.most > self.most or not counts:
            self.most = max(self.most, values.most)
            counts.extend([0] * (max(1, max(values.places) - _ONE + 2) - len(counts)))
        for bits, count in values.places.items():
            counts[bits - _ONE + 1 if bits else 0] += count

    def percentile(self, share: float) -> float:
        """The least value that ``share`` of all do not exceed, to 1/32 of itself; 0 without any."""
        return self._percentile(share, list(accumulate(self._counts)))

    def below(self, octave: int) -> int:
        """How many values are less than ``2**octave``, exactly."""
        return sum(self._counts[: 1 + octave * _STEPS])

    def summary(self) -> Summary:
        reached = list(accumulate(self._counts))
        p50, p90, p99 = (self._percentile(share, reached) / 1e9 for share in (0.5, 0.9, 0.99))
        mean = self.total / self.count / 1e9 if self.count else 0.0
        return Summary(self.total / 1e9, mean, p50, p90, p99, self.most / 1e9)

    def _percentile(self, share: float, reached: list[int]) -> float:
        if not self.count:
            return 0.0
        place = bisect_left(reached, max(1, ceil(share * self.count)))
        if not place:
            return 0.0
        octave, step = divmod(place - 1, _STEPS)
        return min((1 << octave) * (1 + (step + 0.5) / _STEPS), self.most)


class Figures:
    """The sums. ``errnos``: how many failed, by errno; ``ipc``: how many were interprocess communication by their
    descriptor; of ``running`` there is a time of every call, of ``parked`` of each that was.
    """

    __slots__ = ("bytes", "errnos", "ipc", "parked", "running")

    def __init__(self) -> None:
        self.bytes = 0
        self.ipc = 0
        self.errnos: dict[int, int] = {}
        self.running = Distribution()
        self.parked = Distribution()

    @property
    def count(self) -> int:
        """How many calls have ended."""
        return self.running.count

    @property
    def errors(self) -> int:
        return sum(self.errnos.values())


class Tally:
    """The calls of one name by one process that are in no figures yet. The dispatcher adds to the fields directly:
    this is its hot path. ``running`` and ``parked`` are times in nanoseconds; ``own`` are the process's figures.
    """

    __slots__ = ("_into", "bytes", "errnos", "ipc", "own", "parked", "running")

    def __init__(self, *into: Figures) -> None:
        self.own = Figures()
        self._into = (self.own, *into)
        self.running: list[int] = []
        self.parked: list[int] = []
        self.errnos: dict[int, int] = {}
        self.bytes = 0
        self.ipc = 0

    @property
    def count(self) -> int:
        """How many calls of the process by this name have ended."""
        return self.own.count + len(self.running)

    @property
    def errors(self) -> int:
        return self.own.errors + sum(self.errnos.values())

    def fold(self) -> None:
        """Add what is here to all figures that it belongs to."""
        if not self.running:
            return
        running, parked = values_of(self.running), values_of(self.parked) if self.parked else None
        for figures in self._into:
            figures.running.add(running)
            figures.bytes += self.bytes
            figures.ipc += self.ipc
            if parked is not None:
                figures.parked.add(parked)
            for number, count in self.errnos.items():
                figures.errnos[number] = figures.errnos.get(number, 0) + count
        self.running.clear()
        self.parked.clear()
        self.errnos.clear()
        self.bytes = self.ipc = 0
