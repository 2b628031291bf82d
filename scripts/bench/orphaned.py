"""What dead programs left, among very many processes: how long `orphans` takes to tell."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import sysv_ipc
from harness import Bench, Measured, compare, interleaved
from objects import MANY
from rows import Benchmark

PROCESSES = 5_000


def orphans(bench: Bench, row: Benchmark) -> list[Measured]:
    """The verdict on very many queues, each with a message of a dead process, against `ipcs -q` and `ps -e`."""
    count, processes = (MANY // 10, PROCESSES // 10) if bench.quick else (MANY, PROCESSES)
    queues = bench.mount() / "msgq"

    def ours() -> float:
        began = time.perf_counter()
        text = (queues / "orphans").read_text()
        took = (time.perf_counter() - began) * 1e3
        assert text.count("  orphan ") == count
        return took

    def peer() -> float:
        began = time.perf_counter()
        for command in (["ipcs", "-q"], ["ps", "-e"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) * 1e3

    with _left_behind(count, queues / "ctl"), _sleeping(bench, processes):
        pairs = interleaved(ours, peer, bench.rounds(blocks=5, calls=1).blocks)
    label = f"{row.name}: {count:,}, {processes:,} processes; ipcs, ps"
    return [compare(label, pairs, "ms", row.goal, lambda ms, _: ms <= row.limit)]


@contextlib.contextmanager
def _left_behind(count: int, ctl: Path) -> Iterator[None]:
    """So many queues that a process has sent to and left."""
    child = os.fork()
    if not child:
        for _ in range(count):
            sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX).send(b"forgotten")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        yield
    finally:
        ctl.write_text("reap\n")


@contextlib.contextmanager
def _sleeping(bench: Bench, count: int) -> Iterator[None]:
    pipe = subprocess.PIPE
    with subprocess.Popen([bench.compiled("sleepers"), str(count)], stdin=pipe, stdout=pipe) as sleepers:
        assert sleepers.stdout
        assert sleepers.stdout.readline() == b"started\n"
        yield
