"""A large segment is its user's affair: what clears its pages, or gives them back, holds nobody else up."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import MountDoor
from mounts import Mount
from native import libc
from native_msg import CONSTANTS
from native_shm import shmctl, shmget

GIB = 1 << 30
MIB = 1 << 20


def _free_memory() -> int:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10


pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.skipif(_free_memory() < 4 * GIB, reason="needs memory for a large segment"),
]


@pytest.fixture
def large(nothing_left: None) -> Iterator[int]:
    """A segment of a GiB, all of it in memory."""
    shmid = shmget(0, GIB, 0o600)
    fill(shmid)
    yield shmid
    remove(shmid)


@pytest.fixture
def new(nothing_left: None) -> Iterator[int]:
    """A segment of a GiB that nobody has touched."""
    shmid = shmget(0, GIB, 0o600)
    yield shmid
    remove(shmid)


def remove(shmid: int) -> None:
    with suppress(OSError):  # the case may have removed it
        shmctl(shmid, CONSTANTS["IPC_RMID"])
    wait_until(lambda: not exists(shmid), "who had it attached has let it go")


def exists(shmid: int) -> bool:
    with suppress(OSError):
        return bool(shmctl(shmid, CONSTANTS["IPC_STAT"]))
    return False


def fill(shmid: int) -> None:
    address = libc.shmat(shmid, None, 0)
    ctypes.memset(address, 1, GIB)
    libc.shmdt(address)


@pytest.fixture(scope="module")
def native_s() -> float:
    """How long the host takes to give a GiB back, in seconds."""
    shmid = shmget(0, GIB, 0o600)
    fill(shmid)
    began = time.monotonic()
    shmctl(shmid, CONSTANTS["IPC_RMID"])
    return time.monotonic() - began


def longest_wait(gate: MountDoor, user: Child) -> float:
    """How long the main thread ran for a bystander's slowest answer, while the user was at it."""
    longest = 0.0
    while not user.ended():
        began = gate.mount.busy_s()
        gate.ok("getpid")
        longest = max(longest, gate.mount.busy_s() - began)
    user.result()
    return longest


def _session(mount: Mount, *lines: str) -> list[bytes]:
    with open(mount.gate, "r+b", buffering=0) as session:
        replies = []
        for line in lines:
            session.write(line.encode() + b"\n")
            replies.append(session.read())
    return replies


def _remove_by_call(mount: Mount, shmid: int) -> None:
    _session(mount, f"shmctl {shmid} IPC_RMID")


def _remove_by_name(mount: Mount, shmid: int) -> None:
    os.unlink(mount.path / f"shm/sysv/{shmid}")


def _remove_by_ctl(mount: Mount, shmid: int) -> None:
    (mount.path / "shm/ctl").write_text(f"remove {shmid}\n")


def _detach(mount: Mount, shmid: int) -> None:
    _session(mount, f"shmat {shmid} 0x600000000000", f"shmctl {shmid} IPC_RMID", "shmdt 0x600000000000")


def _replace(mount: Mount, shmid: int) -> None:
    other = shmget(0, GIB, 0o600)
    at = "0x600000000000"
    _session(mount, f"shmat {shmid} {at}", f"shmctl {shmid} IPC_RMID", f"shmat {other} {at} SHM_REMAP", f"shmdt {at}")
    remove(other)


def _close(mount: Mount, shmid: int) -> None:
    with open(mount.path / f"shm/sysv/{shmid}", "r+b", buffering=0) as file:
        for _ in range(256):  # in the daemon's page tables too
            file.read(MIB)
        shmctl(shmid, CONSTANTS["IPC_RMID"])


def _unlock(mount: Mount, shmid: int) -> None:
    _session(mount, f"shmctl {shmid} SHM_LOCK", f"shmctl {shmid} SHM_UNLOCK")


@pytest.mark.parametrize("use", [_remove_by_call, _remove_by_name, _remove_by_ctl, _detach, _replace, _close, _unlock])
def test_others_are_answered_while_a_large_segment_goes(
    gate: MountDoor, mount: Mount, large: int, native_s: float, use: Callable[[Mount, int], None]
) -> None:
    assert longest_wait(gate, gate.spawn(lambda: use(mount, large))) < native_s / 3


def test_others_are_answered_while_what_a_dead_process_had_attached_goes(
    gate: MountDoor, mount: Mount, large: int, native_s: float
) -> None:
    holder = gate.spawn(lambda: (gate.ok("shmat", large), gate.ok("shmctl", large, "IPC_RMID"), signal.pause()))
    wait_until(lambda: shmctl(large, CONSTANTS["IPC_STAT"]).results["mode"] & 0o1000, "removed, and attached")
    os.kill(holder.pid, signal.SIGKILL)
    bystander = gate.spawn(lambda: wait_until(lambda: not exists(large), "it is gone"))
    assert longest_wait(gate, bystander) < native_s / 3


def _write_all(mount: Mount, shmid: int) -> None:
    with open(mount.path / f"shm/sysv/{shmid}", "r+b", buffering=0) as file:
        piece = b"\1" * MIB
        for _ in range(256):
            assert file.write(piece) == MIB


def _read_all(mount: Mount, shmid: int) -> None:
    with open(mount.path / f"shm/sysv/{shmid}", "rb", buffering=0) as file:
        for _ in range(256):
            assert file.read(MIB) == bytes(MIB)


def _copy_all(mount: Mount, shmid: int) -> None:
    lines = [f"process_vm_readv {os.getpid()} {MIB} {0x600000000000 + MIB * i:#x}" for i in range(256)]
    replies = _session(mount, f"shmat {shmid} 0x600000000000", *lines)
    assert all(reply.startswith(b"%d\n\0" % MIB) for reply in replies[1:])


@pytest.mark.parametrize("use", [_write_all, _read_all, _copy_all])
def test_others_are_answered_while_a_new_segment_is_gone_over(
    gate: MountDoor, mount: Mount, new: int, use: Callable[[Mount, int], None]
) -> None:
    assert longest_wait(gate, gate.spawn(lambda: use(mount, new))) < 0.05
