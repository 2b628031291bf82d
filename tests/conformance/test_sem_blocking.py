"""System V semaphores: who waits, what wakes them, and every way in which waiting ends."""

import os
from collections.abc import Callable
from functools import partial

import pytest
from children import wait_until
from doors import NOBODY, Door

#: A call waits in the host itself when it has no undo entry and when it has one.
FLAGS = pytest.mark.parametrize("flags", ["0", "SEM_UNDO"])


def values(door: Door, semid: int) -> list[int]:
    return door.ok("semctl", semid, 0, "GETALL").results["values"]


def waiting(door: Door, semid: int, num: int = 0) -> tuple[int, int]:
    """How many wait for the semaphore to increase, and to become zero."""
    return door.ok("semctl", semid, num, "GETNCNT").ret, door.ok("semctl", semid, num, "GETZCNT").ret


def block(door: Door, semid: int, *operations: tuple, **options: object):
    """A semop that the host has put to sleep."""
    before = sum(sum(waiting(door, semid, num)) for num in range(2))
    blocked = door.block("semop", semid, *operations, **options)
    wait_until(lambda: sum(sum(waiting(door, semid, num)) for num in range(2)) > before, "the host counts the caller")
    return blocked


# --- what wakes


@FLAGS
@pytest.mark.parametrize("call", ["semop", "semtimedop"])
def test_a_taker_waits_until_there_is_enough(door: Door, semaphores: int, call: str, flags: str) -> None:
    taker = door.block(call, semaphores, (0, -3, flags))
    for _ in range(2):
        door.ok("semop", semaphores, (0, 1))
        assert taker.is_blocked()
    door.ok("semop", semaphores, (0, 1))
    assert taker.result() == (0, "", {}, None, "")


def test_the_pid_of_one_that_was_woken_is_its_own(door: Door, semaphores: int) -> None:
    taker = block(door, semaphores, (0, -1))
    door.ok("semop", semaphores, (0, 1))
    assert taker.result().ret == 0
    assert door.ok("semctl", semaphores, 0, "GETPID").ret == taker.pid


def test_waiting_for_zero_wakes_exactly_at_zero(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(values=[3, 0])
    waiter = block(door, semid, (0, 0))
    for _ in range(2):
        door.ok("semop", semid, (0, -1))
        assert waiter.is_blocked()
    door.ok("semop", semid, (0, -1))
    assert waiter.result().ret == 0


@pytest.mark.parametrize(("command", "value"), [("SETVAL", 2), ("SETALL", [2, 0])])
def test_setval_and_setall_wake_takers(door: Door, semaphores: int, command: str, value: int | list[int]) -> None:
    takers = [block(door, semaphores, (0, -1)) for _ in range(2)]
    door.ok("semctl", semaphores, 0, command, value)
    assert [taker.result().ret for taker in takers] == [0, 0]
    assert values(door, semaphores) == [0, 0]


@pytest.mark.parametrize(("command", "value"), [("SETVAL", 0), ("SETALL", [0, 0])])
def test_setval_and_setall_wake_those_who_wait_for_zero(
    door: Door, new_set: Callable[..., int], command: str, value: int | list[int]
) -> None:
    semid = new_set(values=[5, 0])
    waiters = [block(door, semid, (0, 0)) for _ in range(2)]
    door.ok("semctl", semid, 0, command, value)
    assert [waiter.result().ret for waiter in waiters] == [0, 0]


def test_a_waiting_array_is_done_as_a_whole_or_not_at_all(door: Door, semaphores: int) -> None:
    taker = block(door, semaphores, (0, -1), (1, -1))
    door.ok("semop", semaphores, (0, 1))
    assert taker.is_blocked()
    assert values(door, semaphores) == [1, 0]
    door.ok("semop", semaphores, (1, 1))
    assert taker.result().ret == 0
    assert values(door, semaphores) == [0, 0]


def test_an_array_fails_when_it_comes_to_an_operation_that_may_not_wait(door: Door, semaphores: int) -> None:
    taker = block(door, semaphores, (0, -1), (1, -1, "IPC_NOWAIT"))
    door.ok("semop", semaphores, (0, 1))
    assert taker.result().errno == "EAGAIN"
    assert values(door, semaphores) == [1, 0]


def test_it_is_not_fair_a_later_small_request_passes_an_earlier_large_one(door: Door, semaphores: int) -> None:
    large = block(door, semaphores, (0, -2))
    small = block(door, semaphores, (0, -1))
    door.ok("semop", semaphores, (0, 1))
    assert small.result().ret == 0
    assert large.is_blocked()
    assert door.call("semop", semaphores, (0, 1), (0, -1, "IPC_NOWAIT")).ret == 0
    assert large.is_blocked()


def test_native_and_other_callers_wake_each_other(door: Door, semaphores: int, native: Door) -> None:
    taker = block(door, semaphores, (0, -1))
    native.ok("semop", semaphores, (0, 1))
    assert taker.result().ret == 0
    taker = native.block("semop", semaphores, (0, -1))
    door.ok("semop", semaphores, (0, 1))
    assert taker.result().ret == 0


def test_an_ordinary_user_waits_for_what_root_gives(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(flags="IPC_CREAT|0606")
    taker = block(door, semid, (0, -1), as_uid=NOBODY)
    door.ok("semop", semid, (0, 1))
    assert taker.result().ret == 0


# --- the counts of those who wait


def test_getncnt_and_getzcnt_rise_while_callers_wait_and_fall_when_they_wake(
    door: Door, new_set: Callable[..., int]
) -> None:
    semid = new_set(values=[0, 1])
    takers = [block(door, semid, (0, -1)) for _ in range(2)]
    waiters = [block(door, semid, (1, 0)) for _ in range(3)]
    assert (waiting(door, semid, 0), waiting(door, semid, 1)) == ((2, 0), (0, 3))
    door.ok("semop", semid, (0, 1))
    wait_until(lambda: any(taker.ended() for taker in takers), "one is woken")
    assert waiting(door, semid, 0) == (1, 0)
    door.ok("semop", semid, (0, 1), (1, -1))
    assert [each.result().ret for each in takers + waiters] == [0] * 5
    assert (waiting(door, semid, 0), waiting(door, semid, 1)) == ((0, 0), (0, 0))


# --- the ends of waiting

WAITS = pytest.mark.parametrize("operation", [(0, -1), (1, 0)], ids=["taker", "zero"])


@pytest.fixture
def closed(new_set: Callable[..., int]) -> int:
    """A set in which both operations of ``WAITS`` wait."""
    return new_set(values=[0, 1])


def opened(door: Door, semid: int) -> list[int]:
    """Do what the waiting calls are waiting for; the values after that."""
    door.ok("semop", semid, (0, 1), (1, -1))
    return values(door, semid)


@WAITS
@FLAGS
def test_removal_wakes_all_who_wait_with_eidrm(door: Door, closed: int, operation: tuple, flags: str) -> None:
    blocked = [block(door, closed, (*operation, flags)) for _ in range(3)]
    door.ok("semctl", closed, 0, "IPC_RMID")
    assert [each.result().errno for each in blocked] == ["EIDRM"] * 3


@WAITS
def test_native_removal_wakes_with_eidrm(door: Door, closed: int, native: Door, operation: tuple) -> None:
    blocked = block(door, closed, operation)
    native.ok("semctl", closed, 0, "IPC_RMID")
    assert blocked.result().errno == "EIDRM"


@WAITS
@FLAGS
@pytest.mark.parametrize("restart", [False, True], ids=["", "SA_RESTART"])
def test_a_signal_ends_waiting_with_eintr_and_never_restarts_it(
    door: Door, closed: int, operation: tuple, flags: str, restart: bool
) -> None:
    blocked = block(door, closed, (*operation, flags), restart=restart)
    blocked.interrupt()
    assert blocked.result().errno == "EINTR"
    assert (waiting(door, closed, 0), waiting(door, closed, 1)) == ((0, 0), (0, 0))
    # What was asked for was not done, and is not done later.
    assert opened(door, closed) == [1, 0]


@WAITS
def test_a_signal_ends_the_wait_of_the_one_who_gets_it_alone(door: Door, closed: int, operation: tuple) -> None:
    blocked = [block(door, closed, operation) for _ in range(3)]
    blocked[1].interrupt()
    assert blocked[1].result().errno == "EINTR"
    assert blocked[0].is_blocked()
    assert blocked[2].is_blocked()
    assert sum(waiting(door, closed, operation[0])) == 2


@WAITS
@FLAGS
def test_a_process_that_is_killed_while_it_waits_has_done_nothing(
    door: Door, closed: int, operation: tuple, flags: str
) -> None:
    blocked = block(door, closed, (*operation, flags))
    blocked.kill()
    wait_until(lambda: sum(waiting(door, closed, operation[0])) == 0, "the host no longer counts the caller")
    wait_until(lambda: door.blocked_callers() == 0, "the killed caller is no longer blocked")
    assert opened(door, closed) == [1, 0]


def test_one_that_waits_keeps_its_right_when_the_mode_changes(door: Door, new_set: Callable[..., int]) -> None:
    """Unlike msgrcv(2), which asks again each time it wakes: the host completes a sleeper's operations itself."""
    semid = new_set(flags="IPC_CREAT|0606")
    taker = block(door, semid, (0, -1), as_uid=NOBODY)
    door.ok("semctl", semid, 0, "IPC_SET", mode=0o600)
    door.ok("semop", semid, (0, 1))
    assert taker.result().ret == 0


# --- everywhere


def work(door: Door, semid: int, rounds: int, flags: str) -> int:
    """Take the lock, count up in semaphore 1 by two steps that others must not come between, give the lock back."""
    for _ in range(rounds):
        door.ok("semop", semid, (0, -1, flags))
        count = door.ok("semctl", semid, 1, "GETVAL").ret
        door.ok("semctl", semid, 1, "SETVAL", count + 1)
        door.ok("semop", semid, (0, 1, flags))
    return os.getpid()


@FLAGS
def test_a_semaphore_keeps_many_processes_apart(door: Door, new_set: Callable[..., int], flags: str) -> None:
    semid = new_set(values=[1, 0])
    processes = [door.spawn(partial(work, door, semid, 20, flags)) for _ in range(6)]
    assert [process.result() for process in processes] == [process.pid for process in processes]
    assert values(door, semid) == [1, 120]
