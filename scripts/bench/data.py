"""Data by descriptor: files through the gate against shared memory, and copies inside the kernel against programs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from harness import Bench, Measured, interleaved
from rows import Benchmark

_KIB64 = 64 << 10
_MIB = 1 << 20


class Session:
    """An open gate, in MessagePack."""

    def __init__(self, bench: Bench) -> None:
        self._fd = os.open(bench.mount() / "syscall", os.O_RDWR)

    def call(self, call: str, *arguments: Any, **named: Any) -> dict[str, Any]:
        return self.send(encoded(call, *arguments, **named))

    def send(self, request: bytes) -> dict[str, Any]:
        """One request that is encoded already."""
        os.write(self._fd, request)
        reply = msgspec.msgpack.decode(os.read(self._fd, 2 * _MIB))
        assert "errno" not in reply, reply
        return reply

    def batch(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        os.write(self._fd, msgspec.msgpack.encode(requests))
        reply = b""
        while piece := os.read(self._fd, 2 * _MIB):
            reply += piece
        return msgspec.msgpack.decode(reply)

    def close(self) -> None:
        os.close(self._fd)


def request(call: str, *arguments: Any, **named: Any) -> dict[str, Any]:
    return {"call": call, "args": list(arguments), "kwargs": named}


def encoded(call: str, *arguments: Any, **named: Any) -> bytes:
    return msgspec.msgpack.encode(request(call, *arguments, **named))


@contextmanager
def session(bench: Bench) -> Iterator[Session]:
    opened = Session(bench)
    try:
        yield opened
    finally:
        opened.call("close_range", 3, 1023)
        opened.close()


def file_gate(bench: Bench, row: Benchmark) -> list[Measured]:
    """A file that is in the page cache, against a segment that the same session has attached."""
    rounds = bench.rounds(blocks=20, calls=200)
    path = bench.scratch / "cached"
    data = os.urandom(_KIB64)
    path.write_bytes(data)
    with session(bench) as gate:
        file = gate.call("open", os.fsencode(path), "O_RDWR")["ret"]
        segment = gate.call("shmget", 0, _KIB64, "IPC_CREAT|0600")["ret"]
        at = gate.call("shmat", segment)["ret"]
        pid = os.getpid()
        pairs = {
            "read": (encoded("pread64", file, _KIB64, 0), encoded("process_vm_readv", pid, _KIB64, at)),
            "write": (encoded("pwrite64", file, data, 0), encoded("process_vm_writev", pid, data, at)),
        }

        def speed(message: bytes) -> float:
            began = time.perf_counter()
            for _ in range(rounds.calls):
                gate.send(message)
            return _KIB64 * rounds.calls / (time.perf_counter() - began) / 1e6

        measured = [
            row.speeds(
                f"{name} 64 KiB, attached segment",
                interleaved(lambda ours=ours: speed(ours), lambda peer=peer: speed(peer), rounds.blocks),
            )
            for name, (ours, peer) in pairs.items()
        ]
        gate.call("shmdt", at)
        gate.call("shmctl", segment, "IPC_RMID")
    path.unlink()
    return measured


def splice(bench: Bench, row: Benchmark) -> list[Measured]:
    """A file through a pipe of 1 MiB into another, by batches of requests, against ``cat file | cat > other``."""
    size = _copied(bench)

    def ours(gate: Session, source: Path, target: Path) -> None:
        fds = _opened(gate, source, target)
        pipe = gate.call("pipe")
        gate.call("fcntl", pipe["write"], "F_SETPIPE_SZ", _MIB)
        pair = [
            request("splice", fds[0], pipe["write"], _MIB),
            request("splice", pipe["read"], fds[1], _MIB),
        ]
        moved = 0
        while moved < size:
            moved += sum(reply["ret"] for reply in gate.batch(pair * 64)[::2])

    def peer(source: Path, target: Path) -> None:
        subprocess.run(["sh", "-c", 'cat "$1" | cat > "$2"', "sh", str(source), str(target)], check=True)

    return [row.times(f"{size // _MIB} MiB, cat | cat", _copies(bench, ours, peer), "ms")]


def sendfile(bench: Bench, row: Benchmark) -> list[Measured]:
    """One call, against ``cp``."""
    size = _copied(bench)

    def ours(gate: Session, source: Path, target: Path) -> None:
        fds = _opened(gate, source, target)
        assert gate.call("sendfile", fds[1], fds[0], size)["ret"] == size

    def peer(source: Path, target: Path) -> None:
        subprocess.run(["cp", "--reflink=never", str(source), str(target)], check=True)

    return [row.times(f"{size // _MIB} MiB, cp --reflink=never", _copies(bench, ours, peer), "ms")]


def _copied(bench: Bench) -> int:
    """How much one turn of a copy moves, in bytes."""
    return (256 if bench.quick else 1024) * _MIB


def _opened(gate: Session, source: Path, target: Path) -> tuple[int, int]:
    return (
        gate.call("open", os.fsencode(source), "O_RDONLY")["ret"],
        gate.call("open", os.fsencode(target), "O_WRONLY|O_CREAT", 0o600)["ret"],
    )


def _copies(bench: Bench, ours: Any, peer: Any) -> list[tuple[float, float]]:
    """Milliseconds, on a tmpfs, each into a file that is new."""
    rounds = bench.rounds(blocks=10, calls=1)
    source, target = (bench.tmpfs() / f"synosfs-bench-{os.getpid()}-{name}" for name in ("source", "target"))
    source.write_bytes(os.urandom(_MIB) * (_copied(bench) // _MIB))

    def timed(copy: Any, *arguments: Any) -> float:
        began = time.perf_counter()
        copy(*arguments, source, target)
        ms = (time.perf_counter() - began) * 1e3
        assert target.stat().st_size == _copied(bench)
        target.unlink()
        return ms

    def timed_ours() -> float:
        with session(bench) as gate:
            return timed(ours, gate)

    try:
        return interleaved(timed_ours, lambda: timed(peer), rounds.blocks)
    finally:
        source.unlink()
