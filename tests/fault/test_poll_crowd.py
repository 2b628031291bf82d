"""Thousands who poll the same few things: each is watched once, others are answered meanwhile, and nothing is left."""

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from children import PATIENCE_S, Child, wait_until
from doors import MountDoor
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgrcv, msgsnd

#: The longest that a bystander may wait on the slowest machine; with a watch for each file it was for ever.
LONG_S = 0.5

FILES = 2000


def threads(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.daemon.pid}/task"))


def watched(mount: Mount) -> tuple[int, int]:
    """How many things are watched, and for how many."""
    stats = mount.stats()
    return int(stats["watched"]), int(stats["watchers"])


def is_idle(mount: Mount) -> bool:
    """Whether the daemon uses less than a tenth of the processor's time. With a watch for each file it was all."""
    before = busy_ticks(mount)
    select.select([], [], [], 0.2)
    return busy_ticks(mount) - before <= 2


def busy_ticks(mount: Mount) -> int:
    """The processor time that the daemon has used, in hundredths of a second."""
    fields = Path(f"/proc/{mount.daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def longest_answer_s(gate: MountDoor, until: Callable[[], bool]) -> float:
    longest = 0.0
    while True:
        began = gate.mount.busy_s()
        gate.ok("getpid")
        longest = max(longest, gate.mount.busy_s() - began)
        if until():
            return longest


def nothing_is_watched(mount: Mount, threads_before: int) -> None:
    wait_until(lambda: watched(mount) == (0, 0), "nothing is watched")
    wait_until(lambda: threads(mount) <= threads_before + 2, "no thread is left")
    wait_until(lambda: is_idle(mount), "the daemon is idle")


def by_poll(mount: Mount, names: list[str]) -> Callable[[], int]:
    def wait() -> int:
        poll = select.poll()
        for name in names:
            poll.register(os.open(mount.path / name, os.O_RDWR), select.POLLOUT)
        return len(poll.poll())

    return wait


def by_epoll(mount: Mount, names: list[str]) -> Callable[[], int]:
    def wait() -> int:
        epoll = select.epoll()
        files = [os.open(mount.path / name, os.O_RDWR) for name in names]
        for fd in files:
            epoll.register(fd, select.EPOLLOUT | select.EPOLLET)
        told: set[int] = set()
        while len(told) < len(files):
            told.update(fd for fd, _ in epoll.poll(maxevents=len(files)))
        return len(told)

    return wait


WAYS = pytest.mark.parametrize("way", [by_poll, by_epoll])
Way = Callable[[Mount, list[str]], Callable[[], int]]


@pytest.fixture
def crowd(mount: Mount, gate: MountDoor, full_queue: int) -> Callable[[Way], Child]:
    """Starts a process that waits for room in the full queue by way of two thousand files, half of which wait for
    messages of a type that is not there too: two watches.
    """

    def start(way: Way) -> Child:
        names = [f"msgq/sysv/{full_queue}@{1 + number % 2}" for number in range(FILES)]
        child = gate.spawn(way(mount, names))
        reached = (2, FILES + FILES // 2)
        assert longest_answer_s(gate, lambda: watched(mount) == reached or child.ended()) < LONG_S
        return child

    return start


@WAYS
def test_files_of_one_queue_cost_two_watches_and_those_of_a_killed_process_nothing(
    mount: Mount, gate: MountDoor, crowd: Callable[[Way], Child], way: Way
) -> None:
    before = threads(mount)
    child = crowd(way)
    assert threads(mount) <= before + 2
    wait_until(lambda: is_idle(mount), "the daemon is idle while they wait")
    child.kill()
    assert longest_answer_s(gate, lambda: watched(mount) == (0, 0)) < LONG_S
    nothing_is_watched(mount, before)


@WAYS
def test_room_is_told_to_every_file(
    mount: Mount, gate: MountDoor, full_queue: int, crowd: Callable[[Way], Child], way: Way
) -> None:
    before = threads(mount)
    child = crowd(way)
    msgrcv(full_queue, 8192)
    assert longest_answer_s(gate, child.ended) < LONG_S
    assert child.result() == FILES
    nothing_is_watched(mount, before)


def test_removal_is_told_to_every_file(
    mount: Mount, gate: MountDoor, full_queue: int, crowd: Callable[[Way], Child]
) -> None:
    before = threads(mount)
    child = crowd(by_poll)
    msgctl(full_queue, CONSTANTS["IPC_RMID"])
    assert longest_answer_s(gate, child.ended) < LONG_S
    assert child.result() == FILES
    nothing_is_watched(mount, before)


@pytest.mark.parametrize("many", [1000, 10_000])
def test_a_call_that_names_one_queue_often_watches_it_once_and_ends_in_time(
    mount: Mount, gate: MountDoor, queue: int, many: int
) -> None:
    before = threads(mount)

    def wait() -> tuple[int, float]:
        began = time.monotonic()
        answered = MountDoor(mount, "json").ok("poll", *[(f"msgq/{queue}", "POLLIN")] * many, timeout=1.5)
        return answered.ret, time.monotonic() - began

    child = gate.spawn(wait)
    assert longest_answer_s(gate, lambda: watched(mount) == (1, 1) or child.ended()) < LONG_S
    assert threads(mount) <= before + 2
    ret, took_s = child.result()
    assert (ret, took_s < PATIENCE_S) == (0, True)
    nothing_is_watched(mount, before)


def test_a_user_has_so_many_watching_threads_and_what_is_beyond_is_looked_at(
    mount: Mount, gate: MountDoor, queue: int
) -> None:
    before = threads(mount)
    poller = gate.block("poll", *[(f"msgq/{queue}@{mtype}", "POLLIN") for mtype in range(1, 501)])
    wait_until(lambda: watched(mount) == (500, 500), "all are watched")
    assert threads(mount) <= before + 34
    msgsnd(queue, 500, b"x")
    assert poller.result().results["revents"] == [0] * 499 + [1]
    nothing_is_watched(mount, before)


def test_others_are_answered_while_much_is_looked_at(
    mount: Mount, gate: MountDoor, new_queue: Callable[..., int]
) -> None:
    """A thousand different things, and deep queues, in which no message is of the type that is asked for."""
    queues = [new_queue() for _ in range(50)]
    for queue in queues:
        for _ in range(1000):
            msgsnd(queue, 1, b"")
    things = [(f"msgq/{queue}@{mtype}", "POLLIN") for queue in queues for mtype in range(2, 22)]

    def look() -> list[int]:
        door = MountDoor(mount, "json")
        return [door.ok("poll", *things, timeout=timeout).ret for timeout in (0, 0.3, 0)]

    before = threads(mount)
    children = [gate.spawn(look) for _ in range(4)]
    assert longest_answer_s(gate, lambda: all(child.ended() for child in children)) < LONG_S
    assert [child.result() for child in children] == [[0, 0, 0]] * 4
    nothing_is_watched(mount, before)


def test_a_file_of_a_file_system_that_does_not_answer_is_ready_and_holds_nobody_up(
    mount: Mount, gate: MountDoor, own_mount: Mount
) -> None:
    opened, opens = os.pipe()
    stopped, stops = os.pipe()

    def poll() -> int:
        door = MountDoor(mount, "text")
        file = door.ok("open", bytes(own_mount.path / "help"), "O_RDONLY").ret
        os.write(opens, b".")
        os.read(stopped, 1)
        return door.ok("poll", (file, "POLLIN|POLLOUT")).ret

    poller = gate.spawn(poll)
    os.read(opened, 1)
    own_mount.daemon.send_signal(signal.SIGSTOP)
    try:
        # In processes of their own: a daemon that waits for the other one would keep this one from helping it.
        os.write(stops, b".")
        assert poller.result(LONG_S * 10) == 1
        assert gate.spawn(lambda: MountDoor(mount, "text").ok("getpid").ret).result(LONG_S * 10)
    finally:
        own_mount.daemon.send_signal(signal.SIGCONT)
        for fd in (opened, opens, stopped, stops):
            os.close(fd)
