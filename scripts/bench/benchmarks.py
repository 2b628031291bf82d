"""The benchmarks, as data: `BENCHMARKS` is the list that `run` goes through, one row a name on the command line.

A benchmark takes the `Bench` and returns the lines that it adds to the table. Each states its goal beside its row,
and measures its peer in turns with ours.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from harness import Bench, Measured, compare

Run = Callable[[Bench, "Benchmark"], list[Measured]]


@dataclass(frozen=True)
class Benchmark:
    name: str
    run: Run
    goal: str


def one_call(bench: Bench, row: Benchmark) -> list[Measured]:
    """A write and the read of its reply on an open descriptor, against the same on the C server."""
    rounds = bench.rounds(blocks=50, calls=400)
    caller = bench.compiled("caller")
    files = [str(server / "syscall") for server in (bench.mount(), bench.peer())]
    command = [caller, str(rounds.blocks), str(rounds.calls), "getpid", *files]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    pairs = [(float(ours) / 1000, float(peer) / 1000) for ours, peer in map(str.split, out.splitlines())]
    return [compare(row.name, pairs, "us/call", row.goal, lambda ratio: ratio <= 1.2)]


BENCHMARKS = (
    Benchmark("one-call", one_call, "<= 1.2 x the C server"),
    # Still to come, in this order: echo (against ipcmk -Q), batch-getpid, batch-msg (against sysv_ipc in one process),
    # queues (10 and 10,000), blocked (0 and 1,000 callers).
)
