"""What a benchmark is: a row of the table in ``benchmarks``, with its goal, that is measured by a function."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import Bench, Measured, Rounds, compare

Run = Callable[[Bench, "Benchmark"], list[Measured]]

#: The bytes of one message.
MESSAGE = 64


@dataclass(frozen=True)
class Benchmark:
    name: str
    run: Run
    goal: str
    limit: float  # of the ratio, or for a rate the least calls a second

    def times(self, label: str, pairs: Sequence[tuple[float, float]], unit: str) -> Measured:
        """A row of times: the goal is met when ours takes at most ``limit`` times the peer's."""
        return compare(f"{self.name}: {label}", pairs, unit, self.goal, lambda _, ratio: ratio <= self.limit)

    def speeds(self, label: str, pairs: Sequence[tuple[float, float]], enough: float = math.inf) -> Measured:
        """A row of MB/s (10^6 bytes): the goal is met by at least ``limit`` times the peer's, or by ``enough``."""
        return compare(
            f"{self.name}: {label}",
            pairs,
            "MB/s",
            self.goal,
            lambda ours, ratio: ratio >= self.limit or ours >= enough,
        )

    def rates(self, label: str, pairs: Sequence[tuple[float, float | None]]) -> Measured:
        """A row of calls a second: the goal is met when ours is at least ``limit``."""
        return compare(f"{self.name}: {label}", pairs, "calls/s", self.goal, lambda ours, _: ours >= self.limit)


def call_times(bench: Bench, rounds: Rounds, request: bytes, files: Sequence[Path]) -> list[tuple[float, ...]]:
    """Microseconds for one write of ``request`` and one read, of each file in turn."""
    command = [bench.compiled("caller"), str(rounds.blocks), str(rounds.calls), *files]
    out = subprocess.run(command, check=True, input=request, stdout=subprocess.PIPE).stdout
    return [tuple(float(ns) / 1000 for ns in line.split()) for line in out.splitlines()]
