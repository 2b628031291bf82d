"""Queues, sets and segments as files: a message through one, and directories with very many of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import sysv_ipc
from harness import Bench, Measured, at_least, interleaved
from rows import MESSAGE, Benchmark, call_times

#: How many objects of a family there are when there are many, and few.
MANY, FEW = 10_000, 10

_KEY = "0x53594e4f"
_PAGE = 4096


@contextlib.contextmanager
def new_queue() -> Iterator[sysv_ipc.MessageQueue]:
    queue = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX)
    with _removed(queue):
        yield queue


@contextlib.contextmanager
def new_set() -> Iterator[sysv_ipc.Semaphore]:
    semaphores = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX)
    with _removed(semaphores):
        yield semaphores


@contextlib.contextmanager
def new_segment(size: int = _PAGE) -> Iterator[sysv_ipc.SharedMemory]:
    """One that nobody has attached."""
    segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=size)
    with _removed(segment):
        segment.detach()
        yield segment


@contextlib.contextmanager
def _removed(made: sysv_ipc.MessageQueue | sysv_ipc.Semaphore | sysv_ipc.SharedMemory) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(sysv_ipc.ExistentialError):
            made.remove()


@dataclass(frozen=True)
class Family:
    """``directory`` has ``sysv/`` and ``key/``; a new file in ``key/`` is an object once it has the ``size``."""

    directory: str
    new: Callable[[], AbstractContextManager[object]]
    size: int = 0


QUEUES = Family("msgq", new_queue)
SETS = Family("sem", new_set)
SEGMENTS = Family("shm", new_segment, _PAGE)


@contextlib.contextmanager
def more(family: Family, count: int) -> Iterator[None]:
    """So many more objects of the family; where the system has a limit below that, it is raised."""
    if family is SEGMENTS:
        at_least("shmmni", MANY + 2 * FEW)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(family.new())
        yield


def queue_file(bench: Bench, row: Benchmark) -> list[Measured]:
    """A message sent by a write and received by a read on an open queue file, against both requests on the C server."""
    with new_queue() as queue:
        files = [bench.mount() / "msgq" / "sysv" / str(queue.id), bench.peer() / "syscall"]
        pairs = call_times(bench, bench.rounds(blocks=50, calls=400), b"m" * MESSAGE, files)
    return [row.times(f"{MESSAGE}-byte message, C server", pairs, "us/msg")]


def listing(family: Family) -> Callable[[Bench, Benchmark], list[Measured]]:
    """``ls -l`` of many objects, against as many files on a tmpfs and 100 us an entry."""

    def run(bench: Bench, row: Benchmark) -> list[Measured]:
        rounds = bench.rounds(blocks=3, calls=1)
        directory = bench.mount() / family.directory / "sysv"
        with more(family, MANY), tempfile.TemporaryDirectory(dir=bench.tmpfs()) as files:
            for number in range(MANY):
                (Path(files) / str(number)).touch()
            pairs = interleaved(
                lambda: listing_time(directory) - MANY * 100e-6 * 1e3,
                lambda: listing_time(Path(files)),
                rounds.blocks,
            )
        return [row.times(f"ls -l of {MANY:,}, less 100 us each", pairs, "ms")]

    return run


def listing_time(directory: Path) -> float:
    """Milliseconds that ``ls -l`` takes."""
    began = time.perf_counter()
    subprocess.run(["ls", "-l", directory], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def making(family: Family) -> Callable[[Bench, Benchmark], list[Measured]]:
    """Creating, stat and removing an object as a file, with many and with few of them on the host."""

    def run(bench: Bench, row: Benchmark) -> list[Measured]:
        rounds = bench.rounds(blocks=10, calls=400)
        path = bench.mount() / family.directory / "key" / _KEY

        def measure() -> float:
            began = time.perf_counter()
            for _ in range(rounds.calls):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                if family.size:
                    os.ftruncate(fd, family.size)
                os.close(fd)
                path.stat()
                path.unlink()
            return (time.perf_counter() - began) / rounds.calls * 1e6

        with more(family, FEW):
            measure()
            pairs = []
            for _ in range(rounds.blocks):
                few = measure()
                with more(family, MANY - FEW):
                    pairs.append((measure(), few))
        return [row.times(f"create, stat, rm; {MANY:,}, {FEW}", pairs, "us")]

    return run
