"""Shared memory: whatever ends, its attachments end with it."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from children import Child, wait_until
from mounts import Mount
from native_msg import CONSTANTS
from native_shm import shmctl, shmget

PAGE = 4096


@pytest.fixture
def segment(ipc_namespace: None) -> Iterator[int]:
    shmid = shmget(0, PAGE, CONSTANTS["IPC_CREAT"] | 0o600)
    yield shmid
    with suppress(OSError):
        shmctl(shmid, CONSTANTS["IPC_RMID"])


def attached(shmid: int) -> int:
    return shmctl(shmid, CONSTANTS["IPC_STAT"]).results["nattch"]


def holder(mount: Mount, shmid: int) -> Callable[[], None]:
    """A process that has the segment attached by the gate, and open as a file."""

    def body() -> None:
        session = os.open(mount.gate, os.O_RDWR)
        os.write(session, b"shmat %d\n" % shmid)
        file = os.open(mount.path / f"shm/sysv/{shmid}", os.O_RDWR)
        while file and session:
            signal.pause()

    return body


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_process_that_dies_of_a_signal_leaves_no_attachment(
    own_mount: Mount, segment: int, number: signal.Signals
) -> None:
    child = Child(holder(own_mount, segment))
    wait_until(lambda: attached(segment) == 2, "attached")
    os.kill(child.pid, number)
    wait_until(lambda: attached(segment) == 0, "detached")
    child.close()


def test_a_removed_segment_goes_when_its_last_holder_is_killed(own_mount: Mount, segment: int) -> None:
    child = Child(holder(own_mount, segment))
    wait_until(lambda: attached(segment) == 2, "attached")
    shmctl(segment, CONSTANTS["IPC_RMID"])
    assert os.listdir(own_mount.path / "shm/sysv") == [str(segment)]
    child.kill()
    wait_until(lambda: os.listdir(own_mount.path / "shm/sysv") == [], "the segment goes")
    child.close()


def test_a_mount_that_ends_detaches_all(own_mount: Mount, segment: int) -> None:
    children = [Child(holder(own_mount, segment)) for _ in range(3)]
    wait_until(lambda: attached(segment) == 6, "attached")
    own_mount.stop()
    assert attached(segment) == 0
    for child in children:
        child.close()


def test_a_daemon_that_is_killed_leaves_no_attachment(own_mount: Mount, segment: int) -> None:
    child = Child(holder(own_mount, segment))
    wait_until(lambda: attached(segment) == 2, "attached")
    own_mount.kill()
    wait_until(lambda: attached(segment) == 0, "detached")
    child.close()


def test_a_process_attaches_so_many_and_then_enomem(own_mount: Mount, segment: int) -> None:
    with open(own_mount.gate, "r+b", buffering=0) as session:
        session.writelines([b"shmat %d\n" % segment] * 4096)
        assert attached(segment) == 4096
        with pytest.raises(OSError, match="Cannot allocate memory"):
            session.write(b"shmat %d\n" % segment)
        session.write(b"getpid\n")


def test_a_segment_larger_than_the_daemons_share_of_addresses_is_enomem(own_mount: Mount) -> None:
    shmid = shmget(0, 65 << 40, CONSTANTS["IPC_CREAT"] | 0o10000 | 0o600)  # SHM_NORESERVE: costs nothing
    try:
        with (
            open(own_mount.gate, "r+b", buffering=0) as session,
            pytest.raises(OSError, match="Cannot allocate memory"),
        ):
            session.write(b"shmat %d 0x10000000\n" % shmid)
        file = own_mount.path / f"shm/sysv/{shmid}"
        assert os.stat(file).st_size == 65 << 40
        with open(file, "rb", buffering=0) as opened, pytest.raises(OSError, match="Cannot allocate memory"):
            opened.read(1)
        assert attached(shmid) == 0
    finally:
        shmctl(shmid, CONSTANTS["IPC_RMID"])


def test_huge_pages_that_are_not_there_are_an_error_and_not_the_daemons_end(own_mount: Mount) -> None:
    try:
        shmid = shmget(0, 2 << 20, CONSTANTS["IPC_CREAT"] | 0o4000 | 0o10000 | 0o600)  # SHM_HUGETLB|SHM_NORESERVE
    except OSError as error:
        pytest.skip(f"this host makes no such segment: {error.strerror}")
    try:
        file = own_mount.path / f"shm/sysv/{shmid}"
        result = subprocess.run(["head", "-c", "1", file], capture_output=True, check=False)
        assert b"Input/output error" in result.stderr
        with open(file, "r+b", buffering=0) as opened, pytest.raises(OSError, match="Input/output error"):
            opened.write(b"x")
        assert own_mount.daemon.poll() is None
    finally:
        shmctl(shmid, CONSTANTS["IPC_RMID"])
