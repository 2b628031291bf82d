"""POSIX queues and semaphores: what frees the blocked when all ends, and what a hostile owner can do to a semaphore."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import wire
from children import wait_until
from doors import MountDoor, write
from native_posix import libc, mq_open, sem_open, unlink_all

#: Nobody else's: /dev/shm is in no IPC namespace.
NAME = b"/synosfs-fault-%d" % os.getpid()
FILE = Path(f"/dev/shm/sem.{NAME[1:].decode()}")

Blocks = Callable[[MountDoor], str]


def ended_with(gate: MountDoor, call: str, *args: object) -> str:
    """The errno that a blocked call's write ends with; what is read after it may come from a mount that is gone."""
    return write(gate._open(), wire.encode_text(call, args, {}))


def receive(gate: MountDoor) -> str:
    return ended_with(gate, "mq_receive", gate.ok("mq_open", NAME, "O_RDWR").ret, 8192)


def send(gate: MountDoor) -> str:
    mqd = gate.ok("mq_open", NAME, "O_RDWR").ret
    for _ in range(2):
        gate.ok("mq_send", mqd, b"x")
    return ended_with(gate, "mq_send", mqd, b"x")


def take(gate: MountDoor) -> str:
    return ended_with(gate, "sem_wait", gate.ok("sem_open", NAME).ret)


def wait_for_notification(gate: MountDoor) -> str:
    event = gate.ok("mq_notify", gate.ok("mq_open", NAME).ret).results["event"]
    return ended_with(gate, "read", event, 32)


BLOCKING: list[Blocks] = [receive, send, take, wait_for_notification]


def waits(gate: MountDoor, pid: int) -> bool:
    """Whether it is in the call that it is to block in: opening is a wait, too, if a short one."""
    return any(not what.startswith(("mq_open", "sem_open")) for what in gate.mount.blocked(pid))


@pytest.fixture
def objects(nothing_left: None) -> Iterator[None]:
    """A queue and a semaphore of root's by the same name, both empty."""
    os.close(mq_open(NAME, os.O_CREAT, 0o600, maxmsg=2, msgsize=8192))
    libc.sem_close(sem_open(NAME, os.O_CREAT, 0o600, 0))
    yield
    unlink_all(NAME)


@pytest.mark.parametrize("body", BLOCKING)
def test_unmounting_frees_who_is_blocked(own_gate: MountDoor, objects: None, body: Blocks) -> None:
    child = own_gate.spawn(partial(body, own_gate))
    wait_until(lambda: waits(own_gate, child.pid), "it blocks")
    own_gate.mount.stop()
    assert child.result() == "ECANCELED"


@pytest.mark.parametrize("body", BLOCKING)
def test_a_killed_daemon_frees_who_is_blocked_and_leaves_no_notifier(
    own_gate: MountDoor, objects: None, body: Blocks
) -> None:
    child = own_gate.spawn(partial(body, own_gate))
    wait_until(lambda: waits(own_gate, child.pid), "it blocks")
    helpers = children_of(own_gate.mount.daemon.pid)
    assert len(helpers) == (body is wait_for_notification)
    own_gate.mount.kill()
    assert child.result() in ("ECONNABORTED", "ENOTCONN")
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in helpers), "the notifier has ended")
    own_gate.mount.clear()


@pytest.mark.parametrize("body", BLOCKING)
@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_a_signal_frees_who_is_blocked_and_the_count_falls(
    gate: MountDoor, objects: None, body: Blocks, end: str
) -> None:
    child = gate.spawn(partial(body, gate))
    wait_until(lambda: waits(gate, child.pid), "it blocks")
    getattr(child, end)()
    if end == "interrupt":
        assert child.result() == "EINTR"
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")


def test_a_process_that_dies_leaves_its_queues_semaphores_and_registration(own_gate: MountDoor, objects: None) -> None:
    def open_all() -> None:
        mqd = own_gate.ok("mq_open", NAME, "O_RDWR").ret
        own_gate.ok("sem_open", NAME)
        own_gate.ok("shm_open", NAME, "O_CREAT|O_RDWR")
        own_gate.ok("mq_notify", mqd, "SIGEV_NONE")
        own_gate.call("mq_receive", mqd)

    daemon = own_gate.mount.daemon.pid
    own_gate.ok("getpid")
    child = own_gate.spawn(open_all)
    wait_until(lambda: any("mq_receive" in what for what in own_gate.mount.blocked(child.pid)), "it waits")
    assert len(open_by_name(daemon)) == 2, "the queue and the memory"
    child.kill()
    wait_until(lambda: not open_by_name(daemon), "nothing is held for the dead")
    wait_until(lambda: FILE.name not in Path(f"/proc/{daemon}/maps").read_text(), "the semaphore is closed")
    mqd = own_gate.ok("mq_open", NAME).ret
    own_gate.ok("mq_notify", mqd, "SIGEV_NONE")
    own_gate.ok("close", mqd)


@pytest.mark.parametrize("call", ["sem_post", "sem_trywait", "sem_getvalue", "sem_wait"])
def test_a_semaphore_whose_file_was_cut_off_is_eio_and_the_daemon_lives(
    gate: MountDoor, objects: None, call: str
) -> None:
    sem = gate.ok("sem_open", NAME).ret
    os.truncate(FILE, 0)
    assert gate.call(call, sem).errno == "EIO"
    assert gate.call(call, sem).errno == "EIO"
    os.truncate(FILE, 32)  # all bytes are 0, and so is its value
    gate.ok("sem_post", sem)
    assert gate.ok("sem_getvalue", sem).ret == 1
    gate.ok("sem_wait", sem)
    gate.ok("sem_close", sem)
    assert gate.mount.daemon.poll() is None


def test_a_file_too_short_for_a_semaphore_is_none(gate: MountDoor, objects: None) -> None:
    for size in (0, 31):
        os.truncate(FILE, size)
        assert gate.call("sem_open", NAME).errno == "EINVAL"
        assert FILE.name.removeprefix("sem.") not in [entry.name for entry in os.scandir(gate.mount.path / "sem/posix")]


def test_who_waits_for_a_semaphore_whose_file_is_cut_off_can_be_freed(gate: MountDoor, objects: None) -> None:
    waiter = gate.spawn(partial(take, gate))
    wait_until(lambda: waits(gate, waiter.pid), "it waits")
    os.truncate(FILE, 0)
    waiter.interrupt()
    assert waiter.result() in ("EINTR", "EIO")
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")


def test_cutting_and_growing_a_semaphores_file_under_its_users_hurts_them_alone(gate: MountDoor, objects: None) -> None:
    loop = f"while :; do truncate -cs 0 {FILE}; truncate -cs 32 {FILE}; done"
    with subprocess.Popen(["bash", "-c", loop]) as cutter:
        try:
            for _ in range(100):
                opened = gate.call("sem_open", NAME, "O_CREAT", 0o600)
                if opened.errno == "EINVAL":  # it was cut off just then
                    continue
                sem = opened.ret
                for call in ("sem_post", "sem_trywait", "sem_post", "sem_timedwait", "sem_getvalue"):
                    result = gate.call(call, sem, **({"timeout": 0.001} if call == "sem_timedwait" else {}))
                    assert result.errno in ("", "EIO", "EAGAIN", "ETIMEDOUT", "EOVERFLOW"), result
                gate.ok("sem_close", sem)
        finally:
            cutter.kill()
    assert gate.mount.daemon.poll() is None


def test_native_programs_make_what_the_gate_opens_and_the_other_way_round(gate: MountDoor, objects: None) -> None:
    """The same file, byte by byte: glibc's own and one that the gate has made."""
    libc.sem_unlink(NAME)
    address = sem_open(NAME, os.O_CREAT, 0o600, 7)
    natively = FILE.read_bytes()
    libc.sem_close(address)
    libc.sem_unlink(NAME)
    sem = gate.ok("sem_open", NAME, "O_CREAT", 0o600, 7).ret
    assert FILE.read_bytes() == natively
    gate.ok("sem_close", sem)


def open_by_name(pid: int) -> list[str]:
    """What the process has open of the test's objects. A count of all would take in what is open for a moment."""
    name = NAME[1:].decode()
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += [link for link in [os.readlink(fd)] if name in link]
    return found


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended; what it made is another's by then
            found += map(int, (task / "children").read_text().split())
    return found
