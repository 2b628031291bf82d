"""Very many native processes that wait: how much of the daemon's time a look at them takes."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Bench, Measured, compare, interleaved
from rows import Benchmark

MANY = 1_000


def waiting(bench: Bench, row: Benchmark) -> list[Measured]:
    """What `cat waiting` takes of the daemon's processor time, its helper's aside, against what `ps` takes for the
    functions that processes sleep in; and how long it lets wait.
    """
    count = MANY // 10 if bench.quick else MANY
    table, [daemon, *_] = bench.mount() / "waiting", bench.servers()
    waited = []

    def ours() -> float:
        before, began = _ran_ms(daemon), time.perf_counter()
        text = table.read_text()
        waited.append((time.perf_counter() - began) * 1e3)
        assert text.count("  semop(") + text.count("  semtimedop(") >= count
        return _ran_ms(daemon) - before

    def peer() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["ps", "-eo", "pid,comm,stat,wchan"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3

    with _waiting(bench, count):
        pairs = interleaved(ours, peer, bench.rounds(blocks=10, calls=1).blocks)
    label = f"{row.name}: {count:,} native waiters"
    times = [(each, None) for each in waited[1:]]
    return [
        compare(f"{label}; ps's time", pairs, "ms", row.goal, lambda ms, _: ms <= row.limit),
        compare(f"{label}, until told", times, "ms", "<= 1,000 ms", lambda ms, _: ms <= 1000),
    ]


def _ran_ms(pid: int) -> float:
    """Of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


@contextlib.contextmanager
def _waiting(bench: Bench, count: int) -> Iterator[None]:
    pipe = subprocess.PIPE
    with subprocess.Popen([bench.compiled("sleepers"), str(count), "semop"], stdin=pipe, stdout=pipe) as sleepers:
        assert sleepers.stdout
        assert sleepers.stdout.readline() == b"started\n"
        yield
        sleepers.communicate()
    assert sleepers.returncode == 0
