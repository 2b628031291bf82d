"""What owning an object costs."""

from __future__ import annotations

import os
import time

from harness import Bench, Measured, interleaved
from rows import Benchmark


def owning(bench: Bench, row: Benchmark) -> list[Measured]:
    """A queue made and removed in one open session, with IPC_EPHEMERAL against without."""
    rounds = bench.rounds(blocks=30, calls=200)
    session = os.open(bench.mount() / "syscall", os.O_RDWR)

    def call(line: bytes) -> bytes:
        os.write(session, line)
        return os.read(session, 100)

    def making(flags: bytes) -> float:
        began = time.perf_counter()
        for _ in range(rounds.calls):
            msqid = call(b"msgget IPC_PRIVATE IPC_CREAT|0600%b\n" % flags)
            assert call(b"msgctl %b IPC_RMID\n" % msqid.strip()) == b"0\n"
        return (time.perf_counter() - began) / rounds.calls * 1e6

    try:
        pairs = interleaved(lambda: making(b"|IPC_EPHEMERAL"), lambda: making(b""), rounds.blocks)
    finally:
        os.close(session)
    return [row.times("make and remove, not owned", pairs, "us")]
