"""Semaphores and the ends of things: the daemon's, the mount's, and a process's in the middle of a batch."""

import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from children import Child, wait_until
from doors import NativeDoor
from mounts import Mount
from native_sem import CONSTANTS, semctl

from synosfs import mountpoint


@pytest.fixture
def semid(native: NativeDoor) -> Iterator[int]:
    """A set with the values 5 and 0."""
    made = native.ok("semget", 0, 2, 0o666).ret
    native.ok("semctl", made, 0, "SETALL", [5, 0])
    yield made
    semctl(made, 0, CONSTANTS["IPC_RMID"])


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[], object]], Child]]:
    started = []

    def start(body: Callable[[], object]) -> Child:
        started.append(Child(body))
        return started[-1]

    yield start
    for child in started:
        child.close()


def values(native: NativeDoor, semid: int) -> list[int]:
    return native.ok("semctl", semid, 0, "GETALL").results["values"]


def waiting(native: NativeDoor, semid: int) -> int:
    return native.ok("semctl", semid, 1, "GETNCNT").ret


def holder(mount: Mount, semid: int) -> Callable[[], None]:
    def hold() -> None:
        """Take 2, and live on."""
        with open(mount.path / f"sem/sysv/{semid}", "wb", buffering=0) as file:
            file.write(b"0:-2\n")
        signal.pause()

    return hold


def taker(mount: Mount, request: str) -> Callable[[], str]:
    def take() -> str:
        """Make a call that waits; the errno that ends it."""
        try:
            with open(mount.gate, "wb", buffering=0) as gate:
                gate.write(request.encode() + b"\n")
        except OSError as error:
            return os.strerror(error.errno or 0)
        return ""

    return take


def waits(semid: int) -> list[str]:
    return [f"semop {semid} 1:-1", f"semop {semid} 1:-1:SEM_UNDO", f"semtimedop {semid} 1:-1 timeout=1000"]


def test_undo_is_applied_when_the_daemon_is_killed(
    own_mount: Mount, native: NativeDoor, semid: int, start: Callable[..., Child]
) -> None:
    for _ in range(2):
        start(holder(own_mount, semid))
    takers = [start(taker(own_mount, request)) for request in waits(semid)]
    wait_until(lambda: values(native, semid) == [1, 0] and waiting(native, semid) == 3, "all hold and wait")
    own_mount.kill()
    # The host has done it by the time that the daemon is gone.
    assert values(native, semid) == [5, 0]
    assert waiting(native, semid) == 0
    ends = {each.result() for each in takers}
    assert ends <= {"Software caused connection abort", "Transport endpoint is not connected"}


@pytest.mark.parametrize("end", ["SIGTERM", "fusermount3 -u", "umount -l"])
def test_the_end_of_the_mount_frees_who_waits_and_undoes(
    own_mount: Mount, native: NativeDoor, semid: int, start: Callable[..., Child], end: str
) -> None:
    start(holder(own_mount, semid))
    takers = [start(taker(own_mount, request)) for request in waits(semid)]
    wait_until(lambda: values(native, semid) == [3, 0] and waiting(native, semid) == 3, "all hold and wait")
    if end == "SIGTERM":
        own_mount.daemon.send_signal(signal.SIGTERM)
    elif end == "umount -l":
        mountpoint.detach(str(own_mount.path))
    else:
        for each in takers:
            each.kill()  # a mount that is in use cannot be unmounted
        wait_until(lambda: not mountpoint.mounted(str(own_mount.path)) or unmounted(own_mount), "it is unmounted")
    if end != "fusermount3 -u":
        assert {each.result() for each in takers} == {"Operation canceled"}
    assert own_mount.daemon.wait(30) == 0
    assert values(native, semid) == [5, 0]
    assert waiting(native, semid) == 0


def unmounted(mount: Mount) -> bool:
    return os.spawnlp(os.P_WAIT, "fusermount3", "fusermount3", "-u", "-q", str(mount.path)) == 0


def test_a_process_that_dies_in_the_middle_of_a_batch_holds_nothing(
    mount: Mount, native: NativeDoor, semid: int, start: Callable[..., Child]
) -> None:
    """Whatever of the batch was done, each operation is undone, also what was on its way to the avatar."""
    give = {"call": "semop", "args": [semid, [[1, 1, "SEM_UNDO"]]]}
    for _ in range(20):
        child = start(taker(mount, json.dumps([give] * 5000)))
        wait_until(lambda: values(native, semid)[1] > 0, "the batch has begun")
        child.kill()
        wait_until(lambda: mount.blocked_callers() == 0 and values(native, semid) == [5, 0], "all is undone")


def test_many_processes_with_undo_leave_no_thread_of_the_daemon_behind(
    mount: Mount, native: NativeDoor, semid: int, start: Callable[..., Child]
) -> None:
    tasks = f"/proc/{mount.daemon.pid}/task"
    before = len(os.listdir(tasks))
    children = [start(holder(mount, semid)) for _ in range(2)]
    children += [start(taker(mount, request)) for request in waits(semid) * 4]
    wait_until(lambda: waiting(native, semid) == 12 and values(native, semid) == [1, 0], "all hold and wait")
    for child in children:
        child.kill()
    wait_until(lambda: values(native, semid) == [5, 0] and waiting(native, semid) == 0, "all is undone")
    idle = 2  # are kept for the next calls that block, if there were none before
    wait_until(lambda: len(os.listdir(tasks)) <= before + idle, "the avatars have ended")


@pytest.mark.parametrize(("name", "line"), [("syscall", "semop {} 1:-1"), ("sem/sysv/{}", "1:-1"), ("syscall", "[{}]")])
def test_a_signal_ends_every_call_of_one_write_at_once(
    mount: Mount, native: NativeDoor, semid: int, start: Callable[..., Child], name: str, line: str
) -> None:
    call = {"call": "semop", "args": [semid, [[1, -1]]]}
    lines = json.dumps([call] * 5) + "\n" if line == "[{}]" else (line.format(semid) + "\n") * 5

    def write_all() -> str:
        fd = os.open(mount.path / name.format(semid), os.O_WRONLY)
        try:
            return str(os.write(fd, lines.encode()))
        except OSError as error:
            return os.strerror(error.errno or 0)

    child = start(write_all)
    wait_until(lambda: waiting(native, semid) == 1, "the first call waits")
    os.kill(child.pid, signal.SIGKILL)
    # InterruptWatch looks every 2 s without being asked: five calls would take it longer than this.
    wait_until(child.ended, "it has ended", patience_s=1.5)
    wait_until(lambda: waiting(native, semid) == 0, "nobody waits")
