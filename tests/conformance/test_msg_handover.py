"""How Linux serves those who wait in a queue: a message is handed over inside msgsnd, in the order of their coming."""

import os
import signal
from collections.abc import Callable

import pytest
from children import wait_until
from doors import Door
from native_msg import CONSTANTS, msgctl, msgsnd


def messages(queue: int) -> int:
    return msgctl(queue, CONSTANTS["IPC_STAT"]).results["qnum"]


@pytest.fixture
def receive(door: Door, queue: int) -> Callable[..., object]:
    """Starts a receiver, and returns when the host has it in its line of receivers.

    The daemon parks a call before its thread sleeps. ``wchan`` of the thread tells when it does.
    """

    def start(mtype: int = 0, flags: int | str = 0) -> object:
        before = sleepers()
        receiver = door.block("msgrcv", queue, 100, mtype, flags)
        wait_until(lambda: sleepers() > before, "the host has it in its line")
        return receiver

    return start


def sleepers() -> int:
    """How many threads sleep in msgrcv(2), of this IPC namespace: other tests have theirs."""
    count, ours = 0, os.readlink("/proc/self/ns/ipc")
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{process}/ns/ipc") != ours:
                continue
            for tid in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{tid}/wchan") as file:
                    count += file.read() == "do_msgrcv"
        except OSError:
            continue
    return count


def test_a_message_to_a_waiting_receiver_is_never_in_the_queue(door: Door, queue: int, receive: Callable) -> None:
    for number in range(5):
        receiver = receive()
        door.ok("msgsnd", queue, 1, b"%d" % number)
        assert messages(queue) == 0
        assert door.call("msgrcv", queue, 100, 0, "IPC_NOWAIT").errno == "ENOMSG"
        assert receiver.result().data == b"%d" % number


def test_a_native_sender_hands_over_too(door: Door, queue: int, receive: Callable) -> None:
    receiver = receive(-3)
    msgsnd(queue, 3, b"x")
    assert messages(queue) == 0
    assert receiver.result().data == b"x"


@pytest.mark.parametrize(
    ("first", "second", "mtype"),
    [
        ((0,), (5,), 5),
        ((5,), (0,), 5),
        ((-5,), (3,), 3),
        ((3,), (-5,), 3),
        ((7, "MSG_EXCEPT"), (3,), 3),
        ((3,), (7, "MSG_EXCEPT"), 3),
        ((-9,), (-2,), 1),
    ],
)
def test_who_came_first_is_served_first_whatever_each_selects(
    door: Door, queue: int, receive: Callable, first: tuple, second: tuple, mtype: int
) -> None:
    for _ in range(3):
        earlier, later = receive(*first), receive(*second)
        msgsnd(queue, mtype, b"first")
        assert earlier.result().data == b"first"
        msgsnd(queue, mtype, b"second")
        assert later.result().data == b"second"


@pytest.mark.not_for(dispatcher="who waits at its socket is not looked at before the reply")
def test_few_of_those_who_are_killed_as_messages_come_take_one_along(door: Door, queue: int, native: Door) -> None:
    """Natively a receiver may be killed just when it got one. Here it may too, and hardly more often."""
    tries = 40
    lost = {each.name: lost_to_the_killed(each, queue, tries) for each in (native, door)}
    assert lost[door.name] <= 2 * lost[native.name] + tries // 10, lost


def lost_to_the_killed(door: Door, queue: int, tries: int) -> int:
    """How many messages are gone when so many receivers were killed at about the moment at which one came."""
    lost = 0
    for number in range(tries):
        receiver = door.block("msgrcv", queue, 100)
        if number % 2:
            msgsnd(queue, 1, b"x")
            os.kill(receiver.pid, signal.SIGKILL)
        else:
            os.kill(receiver.pid, signal.SIGKILL)
            msgsnd(queue, 1, b"x")
        wait_until(receiver.ended, "it is dead")
        wait_until(lambda: door.blocked_callers() == 0, "nobody is blocked")
        lost += door.call("msgrcv", queue, 100, 0, "IPC_NOWAIT").errno == "ENOMSG"
    return lost
