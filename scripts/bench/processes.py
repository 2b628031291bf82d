"""Children: a program that is started and waited for."""

from __future__ import annotations

import os
import subprocess
import time

from harness import Bench, Measured, interleaved
from rows import Benchmark


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
