"""System calls through the gate: one, from a shell, in batches, and in a system that is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from harness import Bench, Measured, Rounds, interleaved, on_cpu, until
from objects import FEW, MANY, QUEUES, more, new_queue
from rows import MESSAGE, Benchmark, call_times

#: The calls of one batch.
BATCH = 128

BLOCKED_CALLERS = 1_000


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


# --- scale: the same calls in two states of the system, in turns ---


def with_queues(bench: Bench, row: Benchmark) -> list[Measured]:
    """The cost of a send and a receive in one write, with few and with many queues on the host."""
    return [row.times(f"{MANY:,} queues, {FEW}", message_times(bench, lambda: more(QUEUES, MANY - FEW)), "us/call")]


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
    with more(QUEUES, FEW - 1), new_queue() as queue:
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
    """How many callers the daemon says are blocked.

    Read without Python's ``open``, which asks every file whether it is a terminal: a message that libfuse answers by
    itself and the daemon takes for an interrupt, so that it looks at all thousand callers in the time to be measured.
    """
    fd = os.open(bench.mount() / "stats", os.O_RDONLY)
    try:
        lines = (line.split() for line in os.read(fd, 64 << 10).splitlines())
    finally:
        os.close(fd)
    return next(int(line[1]) for line in lines if line[:1] == [b"blocked_callers"])
