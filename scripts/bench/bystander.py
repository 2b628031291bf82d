"""How long a user waits for an answer while another attacks, and how soon the daemon rests when the other is gone."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from harness import until
from hostile import Attack

#: Who attacks, and who is held up: users that need not exist.
ATTACKER, BYSTANDER = 54_001, 54_002

#: The bystander asks so often, in seconds.
_PAUSE_S = 0.001

#: The daemon rests when it uses less than this share of a processor for so many seconds.
_REST, _WINDOW_S, _LONGEST_S = 0.05, 0.1, 20.0


_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Waited:
    """Milliseconds that ``calls`` of the bystander took, and the seconds until the daemon was idle."""

    calls: int
    p50: float
    p99: float
    most: float
    idle_s: float


def under(attack: Attack, mount: Path, daemon: int, seconds: float) -> Waited:
    """Attack for so long, with the bystander asking from before the first turn until after the last attacker's end."""
    attackers = [_child(ATTACKER, lambda send: _attack(attack, mount, send)) for _ in range(attack.processes)]
    bystander = None
    try:
        for attacker in attackers:
            attacker.line(60)
        bystander = _child(BYSTANDER, lambda send: _ask(mount, send))
        bystander.line(10)
        for attacker in attackers:
            attacker.tell()
        time.sleep(seconds)
        for attacker in attackers:
            attacker.kill()
        ended = time.monotonic()
        time.sleep(_WINDOW_S)
        bystander.tell()
        times = sorted(msgspec.json.decode(bystander.line(30), type=list[float]))
        bystander.join()
    finally:
        for child in (*attackers, *([bystander] if bystander else [])):
            child.kill()
    idle_s = _until_idle(daemon) - ended
    _clear()
    return Waited(len(times), *(times[int(share * (len(times) - 1))] for share in (0.5, 0.99, 1.0)), idle_s)


class _Child:
    """A process of a user's, which says lines and is told to go on."""

    def __init__(self, pid: int, heard: int, told: int) -> None:
        self._pid, self._heard, self._told, self._read = pid, heard, told, b""

    def line(self, timeout_s: float) -> bytes:
        os.set_blocking(self._heard, False)

        def heard() -> bool:
            try:
                piece = os.read(self._heard, 1 << 20)
            except BlockingIOError:
                return False
            if not piece:
                raise SystemExit("bench: a child has ended")
            self._read += piece
            return b"\n" in self._read

        until(heard, "a child said nothing", timeout_s)
        line, _, self._read = self._read.partition(b"\n")
        return line

    def tell(self) -> None:
        os.write(self._told, b"\n")

    def kill(self) -> None:
        if self._pid:
            os.killpg(self._pid, signal.SIGKILL)
        self.join()

    def join(self) -> None:
        if self._pid:
            os.waitpid(self._pid, 0)
            os.close(self._heard)
            os.close(self._told)
        self._pid = 0


class _Sender:
    def __init__(self, heard: int, told: int) -> None:
        self._heard, self._told = heard, told

    def say(self, line: bytes) -> None:
        line += b"\n"
        while line:
            line = line[os.write(self._heard, line) :]

    def wait(self) -> None:
        os.read(self._told, 1)

    def is_told(self) -> bool:
        os.set_blocking(self._told, False)
        try:
            return bool(os.read(self._told, 1))
        except BlockingIOError:
            return False


def _child(user: int, run: Callable[[_Sender], None]) -> _Child:
    heard, says = os.pipe()
    hears, told = os.pipe()
    pid = os.fork()
    if pid:
        os.close(says)
        os.close(hears)
        return _Child(pid, heard, told)
    try:
        if user == ATTACKER:
            os.setsid()  # as who has logged in elsewhere: the host's scheduler shares by sessions
        else:
            os.setpgid(0, 0)
        os.close(heard)
        os.close(told)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        os.chdir("/")
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # whatever becomes of the benchmark
        run(_Sender(says, hears))
    except BaseException as error:  # a forked child must not go on as its parent
        os.write(2, f"bench: {error!r}\n".encode())
    finally:
        os._exit(1)


def _attack(attack: Attack, mount: Path, sender: _Sender) -> None:
    turn = attack.prepare(mount)
    sender.say(b"ready")
    sender.wait()
    while True:
        turn()


def _ask(mount: Path, sender: _Sender) -> None:
    session = os.open(mount / "syscall", os.O_RDWR)
    times = []
    sender.say(b"ready")
    while not sender.is_told():
        began = time.perf_counter()
        os.write(session, b"getpid\n")
        os.read(session, 100)
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(_PAUSE_S)
    sender.say(msgspec.json.encode(times))


def _until_idle(daemon: int) -> float:
    """When the daemon began to rest. Its threads count."""
    deadline = time.monotonic() + _LONGEST_S
    while True:
        began, used = time.monotonic(), _cpu_s(daemon)
        time.sleep(_WINDOW_S)
        now = time.monotonic()
        if _cpu_s(daemon) - used < _REST * (now - began):
            return began
        if now > deadline:
            return float("inf")


def _cpu_s(process: int) -> float:
    """The processor time of those of its threads that live; to the nanosecond, unlike ``stat``."""
    return (
        sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{process}/task").iterdir()) / 1e9
    )


def _clear() -> None:
    """Remove what the attack has made in the namespaces."""
    subprocess.run(["ipcrm", "--all"], check=True)
    for path in Path("/dev/shm").iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
