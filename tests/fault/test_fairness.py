"""One long write holds nobody up: other callers are served while it is under way, whatever file takes its lines."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount
from native_msg import msgctl, msgget, msgsnd
from native_posix import libc, sem_open, unlink_all
from native_sem import CONSTANTS, semctl, semget

NAME = b"/synosfs-fair-%d" % os.getpid()
MIB = 1 << 20

#: The longest that a bystander may wait on the slowest machine; where there were no slices it was seconds.
LONG_S = 0.5


@pytest.fixture
def semid(nothing_left: None) -> Iterator[int]:
    semid = semget(0, 1, 0o600)
    yield semid
    semctl(semid, 0, CONSTANTS["IPC_RMID"])


@pytest.fixture
def posix(nothing_left: None) -> Iterator[str]:
    libc.sem_close(sem_open(NAME, os.O_CREAT, 0o600, 0))
    yield NAME[1:].decode()
    unlink_all(NAME)


def longest_gap(gate: MountDoor, writer: Child) -> tuple[int, float]:
    """Ask again and again while the writer is at it: how many answers came, and for how long the daemon ran for one."""
    answers, longest = 0, 0.0
    while not writer.ended():
        began = gate.mount.busy_s()
        gate.ok("getpid")
        longest = max(longest, gate.mount.busy_s() - began)
        answers += 1
    return answers, longest


def write_all(path: Path, data: bytes) -> int:
    fd = os.open(path, os.O_WRONLY)
    written = 0
    while written < len(data):
        try:
            written += os.write(fd, data[written:])
        except OSError:  # a request in it failed: the others were run, and it is not what this is about
            break
    os.close(fd)
    return written


def fill(line: bytes, size: int = MIB) -> bytes:
    return line * (size // len(line))


LINES: dict[str, Callable[[int, str], tuple[str, bytes]]] = {
    "the gate, text": lambda semid, name: ("syscall", fill(b"getppid\n")),
    "the gate, a batch": lambda semid, name: ("syscall", b"[" + fill(b'{"call":"getppid"},')[:-1] + b"]\n"),
    "the gate, MessagePack": lambda semid, name: ("syscall", fill(b"\x81\xa4call\xa7getppid")),
    "the gate, wrong names": lambda semid, name: ("syscall", fill(b"xyzzy\n")),
    "the gate, many words": lambda semid, name: ("syscall", b"msgget " + fill(b"1 ") + b"\n"),
    "msgq/ctl": lambda semid, name: ("msgq/ctl", fill(b"remove 99999\n")),
    "sem/ctl": lambda semid, name: ("sem/ctl", fill(b"setval %d 0 1\n" % semid)),
    "shm/ctl": lambda semid, name: ("shm/ctl", fill(b"remove 99999\n")),
    "pipes/ctl": lambda semid, name: ("pipes/ctl", fill(b"remove nothing\n")),
    "a set, zeros": lambda semid, name: (f"sem/sysv/{semid}", fill(b"0:0:0\n")),
    "a set, newlines": lambda semid, name: (f"sem/sysv/{semid}", fill(b"\n")),
    "a set, pairs": lambda semid, name: (f"sem/sysv/{semid}", fill(b"0:1:0 0:-1:0\n")),
    "a POSIX semaphore": lambda semid, name: (f"sem/posix/{name}", fill(b"+1000\n-1000\n", 6000)),
    "a POSIX semaphore, ones": lambda semid, name: (f"sem/posix/{name}", fill(b"+1\n-1\n", MIB // 8)),
}


@pytest.mark.parametrize("lines", LINES)
def test_others_are_answered_while_lines_are_carried_out(
    gate: MountDoor, mount: Mount, semid: int, posix: str, lines: str
) -> None:
    name, data = LINES[lines](semid, posix)
    writer = gate.spawn(lambda: write_all(mount.path / name, data))
    answers, longest = longest_gap(gate, writer)
    assert longest < LONG_S
    assert answers > (0 if "words" in lines else 3)  # too many words are refused at once


# --- looking


@pytest.fixture
def queues(nothing_left: None) -> Iterator[list[int]]:
    made = [msgget(0, 0o600) for _ in range(3000)]
    yield made
    for queue in made:
        msgctl(queue, CONSTANTS["IPC_RMID"])


@pytest.fixture
def empties(nothing_left: None) -> Iterator[int]:
    """A queue of as many empty messages as Linux takes."""
    queue = msgget(0, 0o600)
    for _ in range(16_384):
        msgsnd(queue, 1, b"")
    yield queue
    msgctl(queue, CONSTANTS["IPC_RMID"])


def test_others_are_answered_while_a_long_table_is_made(gate: MountDoor, mount: Mount, queues: list[int]) -> None:
    looker = gate.spawn(lambda: len((mount.path / "msgq/ctl").read_text().splitlines()))
    answers, longest = longest_gap(gate, looker)
    assert looker.result() == len(queues) + 1
    assert longest < LONG_S
    assert answers > 3


@pytest.mark.parametrize("name", ["{}", "{}@2"])
def test_others_are_answered_while_somebody_looks_for_a_message(
    gate: MountDoor, mount: Mount, empties: int, name: str
) -> None:
    looker = gate.spawn((mount.path / "msgq/sysv" / name.format(empties)).read_bytes)
    answers, longest = longest_gap(gate, looker)
    assert looker.result() == b""
    assert longest < LONG_S
    assert answers > 3


@pytest.fixture
def sets(nothing_left: None) -> Iterator[list[int]]:
    made = [semget(0, 250, 0o600) for _ in range(100)]
    yield made
    for semid in made:
        semctl(semid, 0, CONSTANTS["IPC_RMID"])


def test_others_are_answered_while_somebody_looks_at_a_long_undo_list(
    gate: MountDoor, mount: Mount, sets: list[int]
) -> None:
    def look() -> int:
        for semid in sets:
            gate.ok("semop", semid, *[(num, 1, "SEM_UNDO") for num in range(250)])
        return len((mount.path / f"proc/{os.getpid()}/undo").read_text().splitlines())

    looker = gate.spawn(look)
    answers, longest = longest_gap(gate, looker)
    assert looker.result() == 250 * len(sets) + 1
    assert longest < 0.1
    assert answers > 3


# --- signals

THREADS = 5000


def test_others_are_answered_while_who_was_signalled_is_looked_for_among_many_threads(
    gate: MountDoor, mount: Mount, nothing_left: None
) -> None:
    """Where a session was handed on, all threads of the host are looked at, whosever they are."""
    queue = msgget(0, 0o600)
    ready, tell = os.pipe()

    def crowd() -> None:
        threading.stack_size(64 << 10)
        for _ in range(THREADS):
            threading.Thread(target=signal.pause, daemon=True).start()
        os.write(tell, b".")
        signal.pause()

    def wait_in_anothers() -> None:
        session = os.open(mount.gate, os.O_RDWR)
        if os.fork() == 0:
            libc.prctl(ctypes.c_int(1), ctypes.c_ulong(signal.SIGKILL))  # PR_SET_PDEATHSIG
            while True:
                write(session, b"msgrcv %d 10\n" % queue)
        signal.pause()

    def interrupt() -> None:
        for _ in range(5):
            before = int(mount.stats()["blocked_total"])
            os.kill(waiter, signal.SIGUSR1)
            wait_until(lambda before=before: int(mount.stats()["blocked_total"]) > before, "it waits again")

    crowded, opener = gate.spawn(crowd), gate.spawn(wait_in_anothers)
    assert os.read(ready, 1) == b"."
    wait_until(lambda: mount.blocked(opener.pid), "it is blocked")
    waiter = int(Path(f"/proc/{opener.pid}/task/{opener.pid}/children").read_text())
    _, longest = longest_gap(gate, gate.spawn(interrupt))
    assert longest < 0.05
    os.kill(waiter, signal.SIGKILL)
    crowded.kill()
    os.close(ready)
    os.close(tell)
    msgctl(queue, CONSTANTS["IPC_RMID"])
