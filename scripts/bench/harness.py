"""What every benchmark stands on: a private namespace, the two servers, and interleaved measuring.

It owns the processes and directories it makes, and removes them. It asserts nothing about time: machines are shared
and noisy, so every figure is a ratio to a peer measured in the same seconds, and only a broken run is an error.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
_IN_NAMESPACE = "SYNOSFS_BENCH_NAMESPACE"


def enter_namespace() -> None:
    """Start this program again in IPC and mount namespaces of its own, where its queues and mounts can hurt nobody."""
    if os.environ.get(_IN_NAMESPACE) or os.geteuid() != 0:
        return
    os.environ[_IN_NAMESPACE] = "1"
    unshare = shutil.which("unshare")
    if unshare is None:
        raise SystemExit("bench: unshare is missing (package util-linux)")
    os.execv(unshare, [unshare, "--ipc", "--mount", sys.executable, *sys.argv])


@dataclass(frozen=True)
class Measured:
    """One line of the table. `ours` and `peer` are medians in `unit`; `ratio` is the median of pairwise ratios."""

    name: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    goal: str
    met: bool


@dataclass(frozen=True)
class Rounds:
    """How often to repeat: `blocks` turns for each side, `calls` operations a turn."""

    blocks: int
    calls: int


@dataclass
class Bench:
    """The surroundings that a benchmark function gets."""

    quick: bool
    stack: contextlib.ExitStack
    scratch: Path
    _mounts: dict[str, Path] = field(default_factory=dict)
    _servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def rounds(self, blocks: int, calls: int) -> Rounds:
        return Rounds(max(3, blocks // 5), max(1, calls // 4)) if self.quick else Rounds(blocks, calls)

    def mount(self) -> Path:
        """The mount point of a running synosfs; started at the first use, shared by all benchmarks."""
        if "ours" not in self._mounts:
            self._mounts["ours"] = self.mount_with("ours")
        return self._mounts["ours"]

    def mount_with(self, name: str, *options: str) -> Path:
        """A mount of its own."""
        return self._serve([*_synosfs(), "--foreground", "--log-level", "warning", *options], name)

    def shared_mount(self) -> Path:
        """As ``mount``, for all users."""
        self.scratch.chmod(0o711)
        return self.mount_with("shared", "-o", "allow_other")

    def peer(self) -> Path:
        """The mount point of the C server that answers the same requests with nothing behind them."""
        if "peer" not in self._mounts:
            self._mounts["peer"] = self._serve([str(self.compiled("peer", fuse=True)), "-f"], "peer")
        return self._mounts["peer"]

    def tmpfs(self) -> Path:
        """A directory on a tmpfs, for the peers that are plain files."""
        return Path("/dev/shm")

    def servers(self) -> list[int]:
        """The process ids of the servers that run."""
        return [server.pid for server in self._servers]

    def compiled(self, name: str, *, fuse: bool = False) -> Path:
        program = self.scratch / name
        if not program.exists():
            flags: list[str] = []
            if fuse:
                found = subprocess.run(
                    ["pkg-config", "--cflags", "--libs", "fuse3"], check=False, capture_output=True, text=True
                )
                if found.returncode != 0:
                    raise SystemExit("bench: the C peer needs libfuse's headers (package libfuse3-dev) and pkg-config")
                flags = shlex.split(found.stdout)
            subprocess.run(["gcc", "-O2", "-o", program, HERE / f"{name}.c", *flags], check=True)
        return program

    def _serve(self, command: Sequence[str], name: str) -> Path:
        mount_point = self.scratch / f"mnt-{name}"
        mount_point.mkdir()
        process = subprocess.Popen([*command, str(mount_point)])
        self.stack.callback(_end, process, mount_point)

        def mounted() -> bool:
            if process.poll() is not None:
                raise SystemExit(f"bench: {command[0]} ended with status {process.returncode} before it was mounted")
            return (mount_point / "syscall").exists()

        until(mounted, f"{command[0]} did not mount")
        self._servers.append(process)
        return mount_point


@contextlib.contextmanager
def bench(*, quick: bool) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="synosfs-bench-")))
        yield Bench(quick, stack, scratch)


def until(condition: Callable[[], bool], problem: str, timeout_s: float = 20.0) -> None:
    """Wait for what must happen soon; the benchmark ends with the problem when it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {problem} within {timeout_s:.0f} s")
        time.sleep(0.02)


def at_least(limit: str, value: int) -> None:
    """Raise a limit of this IPC namespace, /proc/sys/kernel/``limit``, where it is lower."""
    file = Path("/proc/sys/kernel", limit)
    if int(file.read_text()) >= value:
        return
    if not os.environ.get(_IN_NAMESPACE):
        raise SystemExit(f"bench: {file} is below {value}; as root the benchmark raises it in a namespace of its own")
    file.write_text(str(value))


@contextlib.contextmanager
def on_cpu(cpu: int, pids: Sequence[int]) -> Iterator[None]:
    """Keep all threads of the processes, and what they start, on one CPU."""
    threads = [int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    before = {tid: os.sched_getaffinity(tid) for tid in threads}
    for tid in threads:
        os.sched_setaffinity(tid, {cpu})
    try:
        yield
    finally:
        for tid, cpus in before.items():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(tid, cpus)


def interleaved(ours: Callable[[], float], peer: Callable[[], float], blocks: int) -> list[tuple[float, float]]:
    """Let both sides take turns, after a warm-up turn each that does not count."""
    pairs = [(ours(), peer()) for _ in range(blocks + 1)]
    return pairs[1:]


def compare(
    name: str,
    pairs: Sequence[tuple[float, float | None]],
    unit: str,
    goal: str,
    met: Callable[[float, float], bool],
) -> Measured:
    """A row of the medians of (ours, peer), and of their ratios; ``met`` judges our median and the ratio."""
    ours = statistics.median(ours for ours, _ in pairs)
    both = [(ours, peer) for ours, peer in pairs if peer is not None]
    if not both:
        return Measured(name, ours, None, None, unit, goal, met(ours, math.nan))
    ratio = statistics.median(ours / peer for ours, peer in both)
    return Measured(name, ours, statistics.median(peer for _, peer in both), ratio, unit, goal, met(ours, ratio))


def print_table(rows: Sequence[Measured]) -> None:
    print(f"{'benchmark':44} {'ours':>12} {'peer':>12} {'unit':8} {'ratio':>6}  {'goal':28} result")
    for row in rows:
        peer = "-" if row.peer is None else f"{row.peer:,.1f}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        result = "ok" if row.met else "MISS"
        print(f"{row.name:44} {row.ours:12,.1f} {peer:>12} {row.unit:8} {ratio:>6}  {row.goal:28} {result}")


def _synosfs() -> list[str]:
    """The daemon that belongs to this interpreter, else to the checkout's virtual environment."""
    for directory in (Path(sys.executable).parent, HERE.parents[1] / ".venv" / "bin"):
        if (directory / "synosfs").exists():
            return [str(directory / "synosfs")]
    return [sys.executable, "-m", "synosfs.cli"]


def _end(process: subprocess.Popen[bytes], mount_point: Path) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        subprocess.run(["umount", "--lazy", mount_point], check=False)
