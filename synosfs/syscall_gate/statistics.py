"""Statistics: always on, and cheap enough to be.

A call that is answered at once costs two clock readings and three additions. Latencies fall into powers of two of a
nanosecond, so a percentile is right within a factor of two; the time that a call spends parked is not response time and
is counted apart. ``SyscallStatistics`` only counts; the files ``stats`` and ``metrics`` render its records.
"""

import errno as errno_names
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_BUCKETS = 64


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What is known of one call: times in seconds, ``blocked`` of the count were parked first."""

    name: str
    count: int
    errors: int
    blocked: int
    bytes: int
    mean: float
    p50: float
    p99: float
    most: float
    errnos: dict[str, int]


class CallCounter:
    """The running figures of one call. The dispatcher adds to the fields directly: this is its hot path."""

    __slots__ = (
        *("blocked", "buckets", "bytes", "errnos", "ipc", "ipc_by_descriptor", "most", "name", "nanoseconds"),
        *("parked_ns", "timed"),
    )

    def __init__(self, name: str, *, ipc: bool) -> None:
        self.name = name
        #: Whether every call of this name is interprocess communication; else how many were, by their descriptor.
        self.ipc = ipc
        self.ipc_by_descriptor = 0
        self.blocked = 0
        self.parked_ns = 0
        self.bytes = 0
        self.timed = 0
        self.nanoseconds = 0
        self.most = 0
        self.buckets = [0] * _BUCKETS
        self.errnos: Counter[int] = Counter()

    @property
    def count(self) -> int:
        """How many calls were answered."""
        return self.timed + self.blocked

    def add(self, nanoseconds: int) -> None:
        """One call was answered without being parked, in this time."""
        self.timed += 1
        self.nanoseconds += nanoseconds
        self.buckets[nanoseconds.bit_length()] += 1
        if nanoseconds > self.most:  # noqa: PLR1730 - max() would double the cost of this method
            self.most = nanoseconds

    def add_parked(self, nanoseconds: int) -> None:
        """One call was answered after it had been parked for this long."""
        self.blocked += 1
        self.parked_ns += nanoseconds

    def record(self) -> CallRecord:
        errnos = {errno_names.errorcode.get(number, str(number)): count for number, count in self.errnos.most_common()}
        mean = self.nanoseconds / self.timed / 1e9 if self.timed else 0.0
        return CallRecord(
            self.name,
            self.count,
            self.errnos.total(),
            self.blocked,
            self.bytes,
            mean,
            self._percentile(0.50),
            self._percentile(0.99),
            self.most / 1e9,
            errnos,
        )

    def _percentile(self, share: float) -> float:
        """The upper edge of the bucket in which the share is reached, in seconds; never more than the most seen."""
        wanted, seen = share * self.timed, 0
        for bits, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return min(1 << bits, self.most) / 1e9
        return 0.0


class Totals(NamedTuple):
    """All calls together; ``avg_response_time`` in seconds, of the calls that were not parked."""

    total_calls: int
    ipc_calls: int
    avg_response_time: float
    consciousness_optimizations: int


class SyscallStatistics:
    """The counters of every call, by name."""

    def __init__(self) -> None:
        self._counters: dict[str, CallCounter] = {}

    def counter(self, name: str, *, ipc: bool = False) -> CallCounter:
        """The counter of a call, made at its first use."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = CallCounter(name, ipc=ipc)
        return counter

    def totals(self) -> Totals:
        counters = self._counters.values()
        timed = sum(counter.timed for counter in counters)
        nanoseconds = sum(counter.nanoseconds for counter in counters)
        return Totals(
            total_calls=sum(counter.count for counter in counters),
            ipc_calls=sum(counter.count if counter.ipc else counter.ipc_by_descriptor for counter in counters),
            avg_response_time=nanoseconds / timed / 1e9 if timed else 0.0,
            # Nothing is claimed that was not measured: there is no learner yet.
            consciousness_optimizations=0,
        )

    def records(self) -> Iterator[CallRecord]:
        """A record of each call that was made, the most frequent first."""
        for counter in sorted(self._counters.values(), key=lambda counter: -counter.count):
            if counter.count:
                yield counter.record()
