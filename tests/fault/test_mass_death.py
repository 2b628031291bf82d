"""Hundreds of SynOS processes killed at once: all that they held goes, and others are answered meanwhile."""

import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import native
import pytest
from children import wait_until
from doors import MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS as MSG
from native_msg import msgctl, msgrcv, msgsnd
from native_sem import CONSTANTS as SEM
from native_sem import semctl, semget

CROWD = 300

pytestmark = pytest.mark.slow


def member(gate: Path, requests: list[bytes], blocked: bytes, tell: int) -> int:
    """A process that has made the requests and is blocked in the last one, if there is one; it ends with this one."""
    pid = os.fork()
    if pid == 0:
        native.libc.prctl(ctypes.c_int(1), ctypes.c_ulong(signal.SIGKILL))  # PR_SET_PDEATHSIG
        session = os.open(gate, os.O_RDWR)
        done = all(write(session, request) == "" for request in requests)
        os.write(tell, b"." if done else b"!")
        write(session, blocked)
        signal.pause()
        os._exit(1)
    return pid


@pytest.fixture
def semid(nothing_left: None) -> Iterator[int]:
    semid = semget(SEM["IPC_PRIVATE"], 1, 0o600)
    yield semid
    semctl(semid, 0, SEM["IPC_RMID"])


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """Processes that are killed in the end."""
    started: list[int] = []
    yield started
    for pid in started:
        os.kill(pid, signal.SIGKILL)
    for pid in started:
        os.waitpid(pid, 0)


def test_what_hundreds_held_goes_with_them_and_others_are_answered(
    gate: MountDoor, queue: int, semid: int, pids: list[int]
) -> None:
    mount = gate.mount
    gate.ok("getpid")
    before = held(mount)
    ready, tell = os.pipe()
    for number in range(CROWD):
        undone = b"semop %d 0:1:SEM_UNDO\n" % semid
        requests = [b"pipe\n"] + [undone] * (number % 2)
        blocked = b"msgrcv %d 10\n" % queue if number % 3 == 0 else b"getpid\n"
        pids.append(member(mount.gate, requests, blocked, tell))
        assert os.read(ready, 1) == b"."  # one at a time: see test_crowd
    wait_until(lambda: mount.blocked_callers() == CROWD // 3, "a third is blocked")
    assert semctl(semid, 0, SEM["GETVAL"]) == CROWD // 2

    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    answered = 0
    while held(mount) != before or semctl(semid, 0, SEM["GETVAL"]):
        assert gate.ok("getpid").ret == os.getpid()
        answered += 1
    assert answered
    # Nobody is left who would take a message.
    msgsnd(queue, 1, b"later")
    assert msgrcv(queue, 10, 0, MSG["IPC_NOWAIT"]).data == b"later"
    assert msgctl(queue, MSG["IPC_STAT"]).results["qnum"] == 0
    for close in (ready, tell):
        os.close(close)


def held(mount: Mount) -> tuple[str, int, bool, bool]:
    """What the daemon has of processes: how many, blocked calls, and whether descriptors and threads are few."""
    stats, daemon = mount.stats(), f"/proc/{mount.daemon.pid}"
    descriptors, threads = (len(os.listdir(f"{daemon}/{name}")) for name in ("fd", "task"))
    return stats["processes"], int(stats["blocked_callers"]), descriptors < CROWD // 3, threads < CROWD // 3
