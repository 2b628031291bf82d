"""The benchmarks, as data: `BENCHMARKS` is the list that `run` goes through, one row a name on the command line.

A benchmark takes the `Bench` and returns the lines that it adds to the table. Each states its goal beside its row,
and measures its peer, or the state that it is compared with, in turns with ours.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import sysv_ipc
from harness import Bench, Measured, Rounds, compare, interleaved, on_cpu, until

Run = Callable[[Bench, "Benchmark"], list[Measured]]

#: The calls of one batch, and the bytes of one message.
BATCH, MESSAGE = 128, 64

MANY_QUEUES, FEW_QUEUES = 10_000, 10
BLOCKED_CALLERS = 1_000


@dataclass(frozen=True)
class Benchmark:
    name: str
    run: Run
    goal: str
    limit: float  # of the ratio, or for a rate the least calls a second

    def times(self, label: str, pairs: Sequence[tuple[float, float]], unit: str) -> Measured:
        """A row of times: the goal is met when ours takes at most ``limit`` times the peer's."""
        return compare(f"{self.name}: {label}", pairs, unit, self.goal, lambda _, ratio: ratio <= self.limit)

    def rates(self, label: str, pairs: Sequence[tuple[float, float | None]]) -> Measured:
        """A row of calls a second: the goal is met when ours is at least ``limit``."""
        return compare(f"{self.name}: {label}", pairs, "calls/s", self.goal, lambda ours, _: ours >= self.limit)


# --- one call ---


def one_call(bench: Bench, row: Benchmark) -> list[Measured]:
    """A write and the read of its reply on an open descriptor, against the same on the C server."""
    rounds = bench.rounds(blocks=50, calls=400)
    files = [bench.mount() / "syscall", bench.peer() / "syscall"]
    measured = [row.times("left to the scheduler", call_times(bench, rounds, b"getpid\n", files), "us/call")]
    server_cpu, client_cpu, *_ = [*sorted(os.sched_getaffinity(0)), None, None]
    if server_cpu is not None and client_cpu is not None:
        with on_cpu(server_cpu, bench.servers()), on_cpu(client_cpu, [os.getpid()]):
            measured.append(row.times("on different CPUs", call_times(bench, rounds, b"getpid\n", files), "us/call"))
    return measured


def call_times(bench: Bench, rounds: Rounds, request: bytes, files: Sequence[Path]) -> list[tuple[float, ...]]:
    """Microseconds for one write of ``request`` and one read, of each file in turn."""
    command = [bench.compiled("caller"), str(rounds.blocks), str(rounds.calls), *files]
    out = subprocess.run(command, check=True, input=request, stdout=subprocess.PIPE).stdout
    return [tuple(float(ns) / 1000 for ns in line.split()) for line in out.splitlines()]


# --- from a shell ---


def echo(bench: Bench, row: Benchmark) -> list[Measured]:
    """One call by echo from bash, against the program that makes one native call, started from the same bash."""
    rounds = bench.rounds(blocks=20, calls=50)
    gate = bench.mount() / "syscall"
    made = bench.scratch / "ipcmk.out"

    def ipcmk() -> float:
        seconds = bash_loop(f"ipcmk -Q >> {made}", rounds.calls)
        queues = [line.split()[-1] for line in made.read_text().splitlines()]
        subprocess.run(["ipcrm", *(word for queue in queues for word in ("-q", queue))], check=True)
        made.unlink()
        return seconds

    return [
        row.times(
            "echo getpid, ipcmk -Q",
            interleaved(lambda: bash_loop(f"echo getpid > {gate}", rounds.calls), ipcmk, rounds.blocks),
            "us/call",
        )
    ]


def bash_loop(command: str, times: int) -> float:
    """Microseconds for each turn of a loop in one bash."""
    script = f"s=$EPOCHREALTIME; for ((i = 0; i < {times}; i++)); do {command}; done; echo $s $EPOCHREALTIME"
    out = subprocess.run(
        ["bash", "-c", script], check=True, stdout=subprocess.PIPE, env=os.environ | {"LC_ALL": "C"}
    ).stdout
    began, ended = map(float, out.split())
    return (ended - began) / times * 1e6


# --- batches ---


def batch_getpid(bench: Bench, row: Benchmark) -> list[Measured]:
    """Batches of getpid in MessagePack on one descriptor."""
    rounds = bench.rounds(blocks=30, calls=100)
    with Session(bench.mount() / "syscall") as session:
        batch = session.batch([{"call": "getpid"}] * BATCH)
        ours = [batch_rate(batch, rounds.calls) for _ in range(rounds.blocks + 1)]
    return [row.rates(f"batches of {BATCH}", [(rate, None) for rate in ours[1:]])]


def batch_messages(bench: Bench, row: Benchmark) -> list[Measured]:
    """Batches of sends and receives through one queue, against the same calls made with sysv_ipc in one process."""
    rounds = bench.rounds(blocks=30, calls=40)
    message = b"m" * MESSAGE
    with Session(bench.mount() / "syscall") as session, new_queue() as ours, new_queue() as native:
        send = {"call": "msgsnd", "args": [ours.id, 1, message]}
        batch = session.batch([send, {"call": "msgrcv", "args": [ours.id, MESSAGE]}] * (BATCH // 2))

        def natively() -> float:
            began = time.perf_counter()
            for _ in range(rounds.calls * BATCH // 2):
                native.send(message)
                native.receive()
            return rounds.calls * BATCH / (time.perf_counter() - began)

        pairs = interleaved(lambda: batch_rate(batch, rounds.calls), natively, rounds.blocks)
    return [row.rates(f"{MESSAGE} bytes, sysv_ipc", pairs)]


class Session:
    """An open gate."""

    def __init__(self, gate: Path) -> None:
        self._fd = os.open(gate, os.O_RDWR)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def batch(self, requests: list[dict[str, object]]) -> Callable[[], None]:
        """A function that has a batch answered; its first answer is checked, the others must be as long."""
        fd, encoded, room = self._fd, msgspec.msgpack.encode(requests), 64 << 10
        os.write(fd, encoded)
        first = os.read(fd, room)
        replies = msgspec.msgpack.decode(first)
        if len(replies) != len(requests) or any("errno" in reply for reply in replies):
            raise SystemExit(f"bench: a batch was not answered as it should be: {replies[0]}")

        def run() -> None:
            os.write(fd, encoded)
            if len(os.read(fd, room)) != len(first):
                raise SystemExit("bench: a batch was answered differently the second time")

        return run


def batch_rate(batch: Callable[[], None], batches: int) -> float:
    """Calls a second."""
    began = time.perf_counter()
    for _ in range(batches):
        batch()
    return batches * BATCH / (time.perf_counter() - began)


@contextlib.contextmanager
def new_queue() -> Iterator[sysv_ipc.MessageQueue]:
    queue = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX)
    try:
        yield queue
    finally:
        with contextlib.suppress(sysv_ipc.ExistentialError):
            queue.remove()


# --- scale: the same calls in two states of the system, in turns ---


def with_queues(bench: Bench, row: Benchmark) -> list[Measured]:
    """The cost of a send and a receive in one write, with few and with many queues on the host."""
    return [row.times(f"{MANY_QUEUES:,} queues, {FEW_QUEUES}", message_times(bench, many_queues), "us/call")]


def with_blocked(bench: Bench, row: Benchmark) -> list[Measured]:
    """The same with a thousand callers blocked in receives, and with none."""
    label = f"{BLOCKED_CALLERS:,} blocked callers, 0"
    return [row.times(label, message_times(bench, lambda: blocked_callers(bench)), "us/call")]


def message_times(
    bench: Bench, state: Callable[[], contextlib.AbstractContextManager[None]]
) -> list[tuple[float, float]]:
    """Pairs of microseconds for a send and a receive: in the state, and without it."""
    rounds = bench.rounds(blocks=10, calls=300)
    gate = bench.mount() / "syscall"
    with more_queues(FEW_QUEUES - 1), new_queue() as queue:
        request = b"msgsnd %d 1 hello\nmsgrcv %d 64\n" % (queue.id, queue.id)

        def measure() -> float:
            (cost,) = min(call_times(bench, Rounds(3, rounds.calls), request, [gate]))
            return cost

        pairs = []
        for _ in range(rounds.blocks):
            without = measure()
            with state():
                pairs.append((measure(), without))
    return pairs


def many_queues() -> contextlib.AbstractContextManager[None]:
    return more_queues(MANY_QUEUES - FEW_QUEUES)


@contextlib.contextmanager
def more_queues(count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(new_queue())
        yield


@contextlib.contextmanager
def blocked_callers(bench: Bench) -> Iterator[None]:
    """Processes that are each blocked in a receive; they end by the removal of the queue."""
    with new_queue() as queue:
        request = f"msgrcv {queue.id} 64"
        callers = subprocess.Popen(
            [bench.compiled("blocked"), str(BLOCKED_CALLERS), request, bench.mount() / "syscall"]
        )
        try:
            until(lambda: parked(bench) >= BLOCKED_CALLERS, "the callers did not all block")
            yield
        finally:
            queue.remove()
            callers.wait(30)
    until(lambda: parked(bench) == 0, "callers stayed blocked after their queue was removed")


def parked(bench: Bench) -> int:
    """How many callers the daemon says are blocked."""
    lines = (line.split() for line in (bench.mount() / "stats").read_text().splitlines())
    return next(int(line[1]) for line in lines if line[:1] == ["blocked_callers"])


# --- queues as files ---


def queue_file(bench: Bench, row: Benchmark) -> list[Measured]:
    """A message sent by a write and received by a read on an open queue file, against both requests on the C server."""
    with new_queue() as queue:
        files = [bench.mount() / "msgq" / "sysv" / str(queue.id), bench.peer() / "syscall"]
        pairs = call_times(bench, bench.rounds(blocks=50, calls=400), b"m" * MESSAGE, files)
    return [row.times(f"{MESSAGE}-byte message, C server", pairs, "us/msg")]


def queue_listing(bench: Bench, row: Benchmark) -> list[Measured]:
    """``ls -l`` of many queues, against as many files on a tmpfs and 100 us an entry."""
    rounds = bench.rounds(blocks=5, calls=1)
    directory = bench.mount() / "msgq" / "sysv"
    with many_queues(), tempfile.TemporaryDirectory(dir="/dev/shm", prefix="synosfs-bench-") as tmpfs:
        for number in range(MANY_QUEUES):
            (Path(tmpfs) / str(number)).touch()
        pairs = interleaved(
            lambda: listing_time(directory) - MANY_QUEUES * 100e-6 * 1e3,
            lambda: listing_time(Path(tmpfs)),
            rounds.blocks,
        )
    return [row.times(f"ls -l of {MANY_QUEUES:,}, less 100 us each", pairs, "ms")]


def listing_time(directory: Path) -> float:
    """Milliseconds that ``ls -l`` takes."""
    began = time.perf_counter()
    subprocess.run(["ls", "-l", directory], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def queue_making(bench: Bench, row: Benchmark) -> list[Measured]:
    """Creating, stat and removing a queue as a file, with many and with few queues on the host."""
    rounds = bench.rounds(blocks=10, calls=400)
    path = bench.mount() / "msgq" / "key" / "0x53594e4f"

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(rounds.calls):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            path.stat()
            path.unlink()
        return (time.perf_counter() - began) / rounds.calls * 1e6

    with more_queues(FEW_QUEUES):
        measure()
        pairs = []
        for _ in range(rounds.blocks):
            few = measure()
            with many_queues():
                pairs.append((measure(), few))
    return [row.times(f"create, stat, rm; {MANY_QUEUES:,}, {FEW_QUEUES}", pairs, "us")]


BENCHMARKS = (
    Benchmark("one-call", one_call, "<= 1.2 x the C server", 1.2),
    Benchmark("echo", echo, "<= 1/4 of ipcmk -Q", 0.25),
    Benchmark("batch-getpid", batch_getpid, ">= 200,000 calls/s", 200_000),
    Benchmark("batch-msg", batch_messages, ">= 100,000 calls/s", 100_000),
    Benchmark("queues", with_queues, "<= 1.2 x with 10", 1.2),
    Benchmark("blocked", with_blocked, "<= 1.2 x with none", 1.2),
    Benchmark("queue-file", queue_file, "<= 1.2 x the C server", 1.2),
    Benchmark("queue-ls", queue_listing, "<= 1.5 x tmpfs + 100 us each", 1.5),
    Benchmark("queue-make", queue_making, "<= 1.2 x with 10", 1.2),
)
