"""Bytes through FIFOs and shared memory, against the same program on a tmpfs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import Bench, Measured
from objects import new_segment
from rows import Benchmark

_MIB = 1 << 20


def fifo(bench: Bench, row: Benchmark) -> list[Measured]:
    """A writer and a reader at the two ends."""
    name = f"synosfs-bench-{os.getpid()}"
    with tempfile.TemporaryDirectory(dir=bench.tmpfs()) as native:
        files = [bench.mount() / "pipes" / name, Path(native) / name]
        for file in files:
            os.mkfifo(file, 0o600)
        try:
            # Much at once: both ends are started anew each turn, and find their CPUs in its first milliseconds.
            pairs = flow(bench, "fifo", files, mib=512, piece_kib=64, blocks=10)
        finally:
            files[0].unlink()
    return [row.speeds("64 KiB pieces, tmpfs", pairs)]


def shm_posix(bench: Bench, row: Benchmark) -> list[Measured]:
    """One object, as a file of the mount and as the host's, so that both have the same pages."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="synosfs-bench-") as native:
        files = [bench.mount() / "shm" / "posix" / Path(native.name).name, Path(native.name)]
        return [
            row.speeds(f"{mode} 1 MiB pieces, /dev/shm", flow(bench, mode, files, mib=64, piece_kib=1024, blocks=20))
            for mode in ("read", "write")
        ]


def shm_sysv(bench: Bench, row: Benchmark) -> list[Measured]:
    """A segment as a file, all of whose pages are there, against a file on a tmpfs."""
    mib = 256
    with new_segment(mib * _MIB) as segment, tempfile.NamedTemporaryFile(dir=bench.tmpfs()) as native:
        files = [bench.mount() / "shm" / "sysv" / str(segment.id), Path(native.name)]
        return [
            row.speeds(
                f"{mode} 1 MiB pieces, tmpfs",
                flow(bench, mode, files, mib=mib, piece_kib=1024, blocks=5),
                enough=1000,
            )
            for mode in ("read", "write")
        ]


def flow(
    bench: Bench, mode: str, files: Sequence[Path], *, mib: int, piece_kib: int, blocks: int
) -> list[tuple[float, ...]]:
    """MB/s for each file in turn; every turn moves ``mib`` through it."""
    rounds = bench.rounds(blocks=blocks, calls=1)
    command = [bench.compiled("flow"), mode, str(rounds.blocks), str(mib), str(piece_kib), *files]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return [tuple(map(float, line.split())) for line in out.splitlines()]
