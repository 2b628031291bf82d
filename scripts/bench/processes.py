"""Children: a program that is started and waited for. Crowds: what a process costs among many that live."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from harness import Bench, Measured, interleaved, until
from rows import Benchmark, call_times

#: So many processes take part at once, and are compared with so few; so many die at once.
MANY, FEW, DYING = 5000, 50, 40


def spawning(bench: Bench, row: Benchmark) -> list[Measured]:
    """``spawn`` and ``wait4`` of ``/bin/true`` in one open session, against Python's ``subprocess.run``."""
    rounds = bench.rounds(blocks=20, calls=50)
    session = os.open(bench.mount() / "syscall", os.O_RDWR)

    def ours() -> float:
        began = time.perf_counter()
        for _ in range(rounds.calls):
            os.write(session, b"spawn /bin/true\n")
            pid = int(os.read(session, 1000).split()[0])
            os.write(session, b"wait4 %d\n" % pid)
            assert b"exited:0" in os.read(session, 1000)
        return (time.perf_counter() - began) / rounds.calls * 1e6

    def peer() -> float:
        began = time.perf_counter()
        for _ in range(rounds.calls):
            subprocess.run(["/bin/true"], check=True)
        return (time.perf_counter() - began) / rounds.calls * 1e6

    try:
        pairs = interleaved(ours, peer, rounds.blocks)
    finally:
        os.close(session)
    return [row.times("/bin/true, subprocess.run", pairs, "us")]


class Crowd:
    """Processes that take part in a mount of their own; see ``crowd.c``."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.mount = bench.mount_with(name, "-o", f"max_descriptors={2 * MANY}")
        self.daemon = bench.servers()[-1]
        self._program = subprocess.Popen(
            [bench.compiled("crowd"), self.mount / "syscall"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._size = 0

    def close(self) -> None:
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait(60)

    def grow(self, count: int) -> None:
        """So many more, or fewer by death; return when the daemon knows, and has let go of what they held."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{count}\n")
        self._program.stdin.flush()
        if not self._program.stdout.readline():
            raise SystemExit("bench: a process could not take part")
        self._size += count
        until(lambda: self._known() == self._size, f"there are not {self._size} processes")

    def kib(self) -> int:
        """The memory of the daemon (its resident set)."""
        lines = (line.split() for line in Path(f"/proc/{self.daemon}/status").read_text().splitlines())
        return next(int(line[1]) for line in lines if line[0] == "VmRSS:")

    def main_thread_us(self) -> float:
        """For how long the daemon's main thread has run."""
        return int(Path(f"/proc/{self.daemon}/task/{self.daemon}/schedstat").read_text().split()[0]) / 1e3

    def _known(self) -> int:
        lines = (line.split() for line in (self.mount / "stats").read_text().splitlines())
        return next(int(line[1]) for line in lines if line[:1] == ["processes"])


@contextlib.contextmanager
def crowd(bench: Bench, name: str) -> Iterator[Crowd]:
    made = Crowd(bench, name)
    try:
        yield made
    finally:
        made.close()


def among_many(bench: Bench, row: Benchmark) -> list[Measured]:
    """A call, a death and the daemon's memory for each process, where thousands live and where a few do."""
    rounds = bench.rounds(blocks=10, calls=300)
    label = f"{MANY:,} processes, {FEW}"
    with crowd(bench, "many") as many, crowd(bench, "few") as few:
        few.grow(FEW)
        many.grow(FEW)  # what is made once has been made
        sizes = [many.kib()]
        for _ in range(2):
            many.grow((MANY - FEW) // 2)
            sizes.append(many.kib())
        first, second = ((after - before) / (MANY - FEW) * 2 for before, after in pairwise(sizes))
        gates = [many.mount / "syscall", few.mount / "syscall"]
        calls = [(ours, peer) for ours, peer in call_times(bench, rounds, b"getpid\n", gates)]
        deaths = interleaved(lambda: death_us(many), lambda: death_us(few), rounds.blocks)
    return [
        row.times(f"{label}: a call", calls, "us"),
        row.times(f"{label}: a death", deaths, "us"),
        # The few are no measure of memory: what they take is within the pages that are there for none.
        row.times(f"{MANY:,} processes: memory, of half", [(second, first)], "KiB"),
    ]


def death_us(crowd: Crowd) -> float:
    """The time of the daemon's main thread for each of those that die together; and they are replaced."""
    before = crowd.main_thread_us()
    crowd.grow(-DYING)
    took = crowd.main_thread_us() - before
    crowd.grow(DYING)
    return took / DYING
