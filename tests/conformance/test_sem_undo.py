"""System V semaphores: SEM_UNDO, and that it holds however a process ends."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from children import Child, wait_until
from doors import Door


def values(door: Door, semid: int) -> list[int]:
    return door.ok("semctl", semid, 0, "GETALL").results["values"]


def hold(door: Door, semid: int, *calls: tuple, mark: int = 1) -> NoReturn:
    """Make each semop, tell so by adding one to the last semaphore for good, and live on."""
    for operations in calls:
        door.call("semop", semid, *operations)
    door.ok("semop", semid, (mark, 1))
    while True:
        signal.pause()


@pytest.fixture
def start_holder(door: Door) -> Callable[..., Child]:
    def start(semid: int, *calls: tuple, mark: int = 1) -> Child:
        """A process that has made these calls and lives on."""
        before = door.ok("semctl", semid, mark, "GETVAL").ret
        child = door.spawn(partial(hold, door, semid, *calls, mark=mark))
        wait_until(lambda: door.ok("semctl", semid, mark, "GETVAL").ret > before, "the child holds what it should")
        return child

    return start


def comes_to(door: Door, semid: int, expected: list[int]) -> None:
    wait_until(lambda: values(door, semid) == expected, f"the values are {expected}, not {values(door, semid)}")


# --- how a process ends

TAKEN = (0, -2, "SEM_UNDO")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_undo_is_applied_when_a_signal_ends_the_process(
    door: Door, new_set: Callable[..., int], start_holder: Callable[..., Child], number: int
) -> None:
    semid = new_set(values=[5, 0])
    child = start_holder(semid, (TAKEN,))
    assert values(door, semid) == [3, 1]
    os.kill(child.pid, number)
    wait_until(child.ended, "the child has ended")
    comes_to(door, semid, [5, 1])
    assert door.ok("semctl", semid, 0, "GETPID").ret == child.pid


def test_undo_is_applied_when_the_process_exits(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(values=[5, 0])
    assert door.start("semop", semid, TAKEN).result().ret == 0
    comes_to(door, semid, [5, 0])


def test_undo_comes_at_once(door: Door, new_set: Callable[..., int], start_holder: Callable[..., Child]) -> None:
    semid = new_set(values=[5, 0])
    child = start_holder(semid, (TAKEN,))
    child.kill()
    began = time.monotonic()
    comes_to(door, semid, [5, 1])
    assert time.monotonic() - began < 0.5


def test_undo_is_applied_while_another_thread_of_the_process_waits(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(values=[5, 0])

    def hold_and_wait() -> None:
        door.ok("semop", semid, TAKEN)
        door.call("semop", semid, (1, -1, "SEM_UNDO"))

    child = door.spawn(hold_and_wait)
    wait_until(lambda: door.ok("semctl", semid, 1, "GETNCNT").ret == 1, "the child waits")
    child.kill()
    comes_to(door, semid, [5, 0])
    wait_until(lambda: door.ok("semctl", semid, 1, "GETNCNT").ret == 0, "nobody waits")


def test_undo_wakes_those_who_wait_for_what_it_gives_back(
    door: Door, new_set: Callable[..., int], start_holder: Callable[..., Child]
) -> None:
    semid = new_set(values=[1, 0])
    child = start_holder(semid, ((0, -1, "SEM_UNDO"),))
    taker = door.block("semop", semid, (0, -1))
    child.kill()
    assert taker.result().ret == 0
    assert values(door, semid) == [0, 1]


# --- what is undone


@pytest.mark.parametrize(
    ("before", "calls", "while_held", "after"),
    [
        ([5, 0], [((0, -1, "SEM_UNDO"),), ((0, -2, "SEM_UNDO"),)], [2, 1], [5, 1]),
        ([5, 0], [((0, 3, "SEM_UNDO"),)], [8, 1], [5, 1]),
        # Give and take cancel out; what has no SEM_UNDO stays.
        ([5, 0], [((0, -1, "SEM_UNDO"),), ((0, 1, "SEM_UNDO"),)], [5, 1], [5, 1]),
        ([5, 0], [((0, -1, "SEM_UNDO"),), ((0, 1),)], [5, 1], [6, 1]),
        ([5, 0], [((0, -1),)], [4, 1], [4, 1]),
        ([5, 0], [((0, -1), (0, -1, "SEM_UNDO"))], [3, 1], [4, 1]),
        # A failed array leaves no undo.
        ([5, 0], [((0, -1, "SEM_UNDO"), (1, -1, "IPC_NOWAIT|SEM_UNDO"))], [5, 1], [5, 1]),
        ([5, 0], [((0, -1, "SEM_UNDO"), (7, 1))], [5, 1], [5, 1]),
        ([0, 0], [((0, 0, "SEM_UNDO"),)], [0, 1], [0, 1]),
    ],
)
def test_what_is_undone_is_what_was_done_with_sem_undo(
    door: Door,
    new_set: Callable[..., int],
    start_holder: Callable[..., Child],
    before: list[int],
    calls: list[tuple],
    while_held: list[int],
    after: list[int],
) -> None:
    semid = new_set(values=before)
    child = start_holder(semid, *calls)
    assert values(door, semid) == while_held
    child.kill()
    comes_to(door, semid, after)


def test_undo_is_clamped_at_zero(door: Door, new_set: Callable[..., int], start_holder: Callable[..., Child]) -> None:
    semid = new_set(3, values=[0, 0, 5])
    child = start_holder(semid, ((0, 5, "SEM_UNDO"), (2, -1, "SEM_UNDO")))
    door.ok("semop", semid, (0, -3))
    child.kill()
    comes_to(door, semid, [0, 1, 5])


@pytest.mark.parametrize(
    ("num", "command", "value", "after"),
    [(0, "SETVAL", 7, [7, 1, 5]), (0, "SETALL", [7, 8, 9], [7, 8, 9]), (2, "SETVAL", 9, [5, 1, 9])],
)
def test_setval_and_setall_clear_the_entries_of_everybody(
    door: Door,
    new_set: Callable[..., int],
    start_holder: Callable[..., Child],
    num: int,
    command: str,
    value: int | list[int],
    after: list[int],
) -> None:
    semid = new_set(3, values=[5, 0, 5])
    other = new_set(2, values=[1, 0])
    children = [start_holder(semid, ((0, -1, "SEM_UNDO"), (2, -1, "SEM_UNDO")))]
    if num == 0 and command == "SETALL":
        children.append(start_holder(semid, ((0, -1, "SEM_UNDO"),)))
    witness = start_holder(other, ((0, -1, "SEM_UNDO"),))
    door.ok("semctl", semid, num, command, value)
    for child in children:
        child.kill()
    witness.kill()
    comes_to(door, other, [1, 1])
    comes_to(door, semid, after)


def test_removal_leaves_nothing_to_undo(
    door: Door, new_set: Callable[..., int], start_holder: Callable[..., Child]
) -> None:
    semid, other = new_set(values=[5, 0]), new_set(values=[5, 0])
    child = start_holder(semid, (TAKEN,))
    door.ok("semctl", semid, 0, "IPC_RMID")
    child.kill()
    assert values(door, other) == [5, 0]


def test_each_process_has_its_own_entries(
    door: Door, new_set: Callable[..., int], start_holder: Callable[..., Child]
) -> None:
    semid = new_set(values=[5, 0])
    first, second = start_holder(semid, ((0, -1, "SEM_UNDO"),)), start_holder(semid, ((0, -3, "SEM_UNDO"),))
    assert values(door, semid) == [1, 2]
    first.kill()
    comes_to(door, semid, [2, 2])
    second.kill()
    comes_to(door, semid, [5, 2])


# --- fork and exec


def test_undo_is_not_inherited_by_fork(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(values=[5, 0])

    def parent() -> list[int]:
        door.ok("semop", semid, TAKEN)
        child = os.fork()
        if child == 0:
            door.ok("semop", semid, (1, 1, "SEM_UNDO"))
            os._exit(0)
        os.waitpid(child, 0)
        comes_to(door, semid, [3, 0])  # the child's own is undone, and its parent's is not
        return values(door, semid)

    assert door.spawn(parent).result() == [3, 0]
    comes_to(door, semid, [5, 0])


def test_undo_is_kept_by_exec(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(values=[5, 0])

    def become_another_program() -> None:
        door.ok("semop", semid, TAKEN)
        os.execv("/bin/sleep", ["sleep", "1000"])

    child = door.spawn(become_another_program)
    wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", "it is another program")
    assert values(door, semid) == [3, 0]
    child.kill()
    comes_to(door, semid, [5, 0])
