"""System V message queues: who waits, what wakes them, and every way in which waiting ends."""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from children import wait_until
from doors import NOBODY, Door

FULL = b"x" * 8192

NO_TIMEOUT = "Linux has no time-out for this call"


@pytest.fixture
def full_queue(door: Door, queue: int) -> int:
    for _ in range(2):
        door.ok("msgsnd", queue, 1, FULL)
    return queue


def messages(door: Door, queue: int) -> int:
    return door.ok("msgctl", queue, "IPC_STAT").results["qnum"]


# --- waiting to receive


@pytest.mark.parametrize(
    ("mtype", "flags", "sent"),
    [(0, "0", 9), (5, "0", 5), (-5, "0", 5), (-5, "0", 2), (5, "MSG_EXCEPT", 6), (0, "MSG_NOERROR", 1)],
)
@pytest.mark.parametrize("data", [b"hello", b""])
def test_a_receiver_waits_for_a_message_that_it_wants(
    door: Door, queue: int, mtype: int, flags: str, sent: int, data: bytes
) -> None:
    receiver = door.block("msgrcv", queue, 10, mtype, flags)
    door.ok("msgsnd", queue, sent, data)
    assert receiver.result()[:4] == (len(data), "", {"mtype": sent}, data)
    status = door.ok("msgctl", queue, "IPC_STAT").results
    assert (status["qnum"], status["lspid"], status["lrpid"]) == (0, os.getpid(), receiver.pid)


@pytest.mark.parametrize(
    ("mtype", "flags", "other", "wanted"), [(5, "0", 6, 5), (-5, "0", 6, 1), (5, "MSG_EXCEPT", 5, 6)]
)
def test_a_message_of_another_type_does_not_wake_a_receiver(
    door: Door, queue: int, mtype: int, flags: str, other: int, wanted: int
) -> None:
    receiver = door.block("msgrcv", queue, 10, mtype, flags)
    door.ok("msgsnd", queue, other, b"other")
    assert receiver.is_blocked()
    door.ok("msgsnd", queue, wanted, b"wanted")
    assert receiver.result().data == b"wanted"
    assert door.ok("msgrcv", queue, 10, other, "IPC_NOWAIT").data == b"other"


def test_a_native_sender_wakes_a_receiver(door: Door, queue: int, native: Door) -> None:
    receiver = door.block("msgrcv", queue, 10, 3)
    native.ok("msgsnd", queue, 3, b"native")
    assert receiver.result().data == b"native"


def test_a_sender_wakes_a_native_receiver(door: Door, queue: int, native: Door) -> None:
    receiver = native.block("msgrcv", queue, 10, 3)
    door.ok("msgsnd", queue, 3, b"hello")
    assert receiver.result().data == b"hello"


def test_a_waiting_receiver_with_too_small_a_buffer_gets_e2big_and_the_message_stays(door: Door, queue: int) -> None:
    receiver = door.block("msgrcv", queue, 4)
    door.ok("msgsnd", queue, 1, b"hello")
    assert receiver.result().errno == "E2BIG"
    assert door.ok("msgrcv", queue, 5, 0, "IPC_NOWAIT").data == b"hello"


def test_a_waiting_receiver_with_msg_noerror_gets_the_beginning(door: Door, queue: int) -> None:
    receiver = door.block("msgrcv", queue, 4, 0, "MSG_NOERROR")
    door.ok("msgsnd", queue, 1, b"hello")
    assert receiver.result().data == b"hell"
    assert messages(door, queue) == 0


def test_receivers_of_one_type_are_served_in_the_order_of_coming(door: Door, queue: int) -> None:
    receivers = [door.block("msgrcv", queue, 10, 2) for _ in range(4)]
    for number in range(4):
        door.ok("msgsnd", queue, 2, b"%d" % number)
    assert [receiver.result().data for receiver in receivers] == [b"0", b"1", b"2", b"3"]


def test_an_ordinary_user_waits_for_messages_of_root(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(flags="IPC_CREAT|0604")
    receiver = door.block("msgrcv", queue, 10, as_uid=NOBODY)
    door.ok("msgsnd", queue, 1, b"for all")
    assert receiver.result().data == b"for all"


# --- waiting to send


def test_a_sender_to_a_full_queue_waits_for_room(door: Door, full_queue: int) -> None:
    sender = door.block("msgsnd", full_queue, 7, b"hello")
    assert messages(door, full_queue) == 2
    door.ok("msgrcv", full_queue, 8192)
    assert sender.result() == (0, "", {}, None, "")
    assert door.ok("msgrcv", full_queue, 10, 7).data == b"hello"
    assert door.ok("msgctl", full_queue, "IPC_STAT").results["lspid"] == sender.pid


def test_a_sender_waits_when_the_number_of_messages_is_at_its_cap(door: Door, queue: int) -> None:
    door.ok("msgctl", queue, "IPC_SET", qbytes=3)
    for _ in range(3):
        door.ok("msgsnd", queue, 1, b"")
    sender = door.block("msgsnd", queue, 1, b"")
    door.ok("msgrcv", queue, 0)
    assert sender.result().ret == 0
    assert messages(door, queue) == 3


def test_a_sender_wakes_when_qbytes_is_raised(door: Door, queue: int) -> None:
    door.ok("msgctl", queue, "IPC_SET", qbytes=10)
    sender = door.block("msgsnd", queue, 1, b"x" * 11)
    door.ok("msgctl", queue, "IPC_SET", qbytes=11)
    assert sender.result().ret == 0
    assert messages(door, queue) == 1


def test_a_native_receiver_makes_room_for_a_sender(door: Door, full_queue: int, native: Door) -> None:
    sender = door.block("msgsnd", full_queue, 1, FULL)
    native.ok("msgrcv", full_queue, 8192)
    assert sender.result().ret == 0


# --- the ends of waiting

WAITS = pytest.mark.parametrize("waits", ["msgrcv", "msgsnd"])


def block(door: Door, waits: str, queue: int, **options: object):
    """A call that waits: for a message in an empty queue, or for room in one that this fills."""
    if waits == "msgrcv":
        return door.block("msgrcv", queue, 10, **options)
    while not door.call("msgsnd", queue, 1, FULL, "IPC_NOWAIT").errno:
        pass
    return door.block("msgsnd", queue, 2, b"late", **options)


def satisfy(door: Door, waits: str, queue: int) -> None:
    """Do what the waiting call is waiting for."""
    if waits == "msgrcv":
        door.ok("msgsnd", queue, 1, b"late")
    else:
        for _ in range(2):
            door.ok("msgrcv", queue, 8192, 1)


@WAITS
def test_removal_wakes_all_who_wait_with_eidrm(door: Door, queue: int, waits: str) -> None:
    blocked = [block(door, waits, queue) for _ in range(3)]
    door.ok("msgctl", queue, "IPC_RMID")
    assert [each.result().errno for each in blocked] == ["EIDRM"] * 3


@WAITS
def test_native_removal_wakes_with_eidrm(door: Door, queue: int, native: Door, waits: str) -> None:
    blocked = block(door, waits, queue)
    native.ok("msgctl", queue, "IPC_RMID")
    assert blocked.result().errno == "EIDRM"


@WAITS
@pytest.mark.parametrize("restart", [False, True], ids=["", "SA_RESTART"])
def test_a_signal_ends_waiting_with_eintr_and_never_restarts_it(
    door: Door, queue: int, waits: str, restart: bool
) -> None:
    blocked = block(door, waits, queue, restart=restart)
    blocked.interrupt()
    assert blocked.result().errno == "EINTR"
    before = messages(door, queue)
    satisfy(door, waits, queue)
    # What was asked for was not done, and is not done later.
    assert messages(door, queue) == (before + 1 if waits == "msgrcv" else 0)


@WAITS
def test_a_signal_ends_the_wait_of_the_one_who_gets_it_alone(door: Door, queue: int, waits: str) -> None:
    blocked = [block(door, waits, queue) for _ in range(3)]
    blocked[1].interrupt()
    assert blocked[1].result().errno == "EINTR"
    assert blocked[0].is_blocked()
    assert blocked[2].is_blocked()


@WAITS
def test_a_process_that_is_killed_while_it_waits_has_done_nothing(door: Door, queue: int, waits: str) -> None:
    blocked = block(door, waits, queue)
    blocked.kill()
    wait_until(lambda: door.blocked_callers() == 0, "the killed caller is no longer blocked")
    before = messages(door, queue)
    satisfy(door, waits, queue)
    assert messages(door, queue) == (before + 1 if waits == "msgrcv" else 0)


@WAITS
@pytest.mark.not_for(native=NO_TIMEOUT)
def test_a_time_out_ends_waiting_with_etimedout(door: Door, queue: int, waits: str) -> None:
    if waits == "msgsnd":
        while not door.call("msgsnd", queue, 1, FULL, "IPC_NOWAIT").errno:
            pass
        assert door.call("msgsnd", queue, 2, b"late", timeout=0.05).errno == "ETIMEDOUT"
    else:
        assert door.call("msgrcv", queue, 10, timeout=0.05).errno == "ETIMEDOUT"
    before = messages(door, queue)
    satisfy(door, waits, queue)
    assert messages(door, queue) == (before + 1 if waits == "msgrcv" else 0)


@pytest.mark.not_for(native=NO_TIMEOUT)
@pytest.mark.parametrize("timeout", [0, 0.001, 60])
def test_a_time_out_means_nothing_to_a_call_that_need_not_wait(door: Door, queue: int, timeout: float) -> None:
    assert door.ok("msgsnd", queue, 1, b"hello", timeout=timeout).ret == 0
    assert door.ok("msgrcv", queue, 10, timeout=timeout).data == b"hello"


def test_a_wait_that_has_become_forbidden_ends_with_eacces(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(flags="IPC_CREAT|0604")
    receiver = door.block("msgrcv", queue, 10, as_uid=NOBODY)
    door.ok("msgctl", queue, "IPC_SET", mode=0o600)
    assert receiver.result().errno == "EACCES"


# --- everywhere


def exchange(door: Door, queue: int, sends: int) -> list[bytes | None]:
    """Send and receive in turns, with types that differ; what was received."""
    received = []
    for number in range(sends):
        door.ok("msgsnd", queue, 1 + (os.getpid() + number) % 5, b"%d.%d" % (os.getpid(), number))
        selection, flags = [(0, "0"), (-5, "0"), (9, "MSG_EXCEPT")][number % 3]
        result = door.ok("msgrcv", queue, 100, selection, flags)
        received.append(result.data)
    return received


def test_many_processes_lose_no_message_and_get_none_twice(door: Door, queue: int) -> None:
    processes = [door.spawn(partial(exchange, door, queue, 50)) for _ in range(6)]
    received = Counter(data for process in processes for data in process.result())
    assert received == Counter(b"%d.%d" % (process.pid, number) for process in processes for number in range(50))
    assert messages(door, queue) == 0
