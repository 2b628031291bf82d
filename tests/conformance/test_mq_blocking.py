"""POSIX message queues: who waits, what wakes them, every way in which waiting ends, and notifications."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from children import wait_until
from doors import Door, MountDoor
from opened import Descriptors

#: Nobody else's: /dev/shm is in no IPC namespace.
NAME = b"/synosfs-test-%d" % os.getpid()
CREATE = "O_CREAT|O_EXCL|O_RDWR"


@pytest.fixture
def mqd(door: Door, fds: Descriptors, posix_names: Callable[[bytes], bytes]) -> int:
    """An empty queue for 2 messages of 16 bytes, open for both."""
    return fds.keep(door.ok("mq_open", posix_names(NAME), CREATE, 0o600, maxmsg=2, msgsize=16).ret)


@pytest.fixture
def full(door: Door, mqd: int) -> int:
    for _ in range(2):
        door.ok("mq_send", mqd, b"old")
    return mqd


def waiting_call(mqd: int, call: str) -> tuple:
    return (call, mqd, 16) if "receive" in call else (call, mqd, b"new")


RECEIVE = ["mq_receive", "mq_timedreceive"]
SEND = ["mq_send", "mq_timedsend"]


def sleeping(door: Door, receivers: int) -> None:
    """Return when so many of the door's receivers sleep in the kernel: a call is parked a moment before."""
    if door.name == "native":
        return
    pid = (door.mount.daemon if isinstance(door, MountDoor) else door._server).pid

    def sleeps(tid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/task/{tid}/syscall").read_text().startswith("243 ")
        except (FileNotFoundError, ProcessLookupError):
            return False

    def count() -> int:
        return sum(map(sleeps, os.listdir(f"/proc/{pid}/task")))

    wait_until(lambda: count() == receivers, f"{receivers} receivers sleep in the kernel")


# --- what wakes


@pytest.mark.parametrize("call", RECEIVE)
@pytest.mark.parametrize("data", [b"hello", b""])
def test_a_receiver_waits_for_a_message(door: Door, mqd: int, call: str, data: bytes) -> None:
    receiver = door.block(*waiting_call(mqd, call))
    door.ok("mq_send", mqd, data, 7)
    assert receiver.result() == (len(data), "", {"priority": 7}, data, "")


@pytest.mark.parametrize("call", SEND)
def test_a_sender_waits_for_room(door: Door, full: int, call: str) -> None:
    sender = door.block(*waiting_call(full, call))
    assert door.ok("mq_receive", full, 16).data == b"old"
    assert sender.result().ret == 0
    assert [door.ok("mq_receive", full, 16).data for _ in range(2)] == [b"old", b"new"]


def test_a_native_sender_wakes_a_receiver_and_a_native_receiver_a_sender(door: Door, native: Door, mqd: int) -> None:
    other = native.ok("mq_open", NAME, "O_RDWR").ret
    receiver = door.block("mq_receive", mqd, 16)
    native.ok("mq_send", other, b"native")
    assert receiver.result().data == b"native"
    for _ in range(2):
        native.ok("mq_send", other, b"old")
    sender = door.block("mq_send", mqd, b"new")
    native.ok("mq_receive", other, 16)
    assert sender.result().ret == 0
    os.close(other)


def test_receivers_are_served_in_the_order_of_coming_native_ones_among_them(door: Door, native: Door, mqd: int) -> None:
    other = native.ok("mq_open", NAME, "O_RDWR").ret
    receivers = []
    for where, fd, sleepers in ((door, mqd, 1), (native, other, 1), (door, mqd, 2)):
        receivers.append(where.block("mq_receive", fd, 16))
        sleeping(door, sleepers)
    for receiver, data in zip(receivers, (b"1", b"2", b"3"), strict=True):
        native.ok("mq_send", other, data)
        assert receiver.result().data == data
    os.close(other)


def test_no_message_is_lost_and_none_comes_twice(door: Door, mqd: int) -> None:
    def send(sender: int) -> None:
        for number in range(50):
            door.ok("mq_send", mqd, f"{sender} {number}".encode(), number % 5)

    def receive() -> list[bytes | None]:
        return [door.ok("mq_receive", mqd, 16).data for _ in range(50)]

    senders = [door.spawn(lambda sender=sender: send(sender)) for sender in range(4)]
    receivers = [door.spawn(receive) for _ in range(4)]
    for sender in senders:
        sender.result()
    taken = Counter(data for receiver in receivers for data in receiver.result())
    assert taken == Counter(f"{sender} {number}".encode() for sender in range(4) for number in range(50))


# --- what ends a wait


@pytest.mark.parametrize("call", RECEIVE)
@pytest.mark.parametrize("restart", [False, True])
def test_a_signal_ends_a_receiver_with_eintr_unless_it_restarts(door: Door, mqd: int, call: str, restart: bool) -> None:
    """mq_timedreceive(2) restarts natively with SA_RESTART; a write(2) to the gate that was interrupted does so too."""
    receiver = door.block(*waiting_call(mqd, call), restart=restart)
    receiver.interrupt()
    if restart and door.name == "native":
        assert receiver.wait_until_blocked().is_blocked()
    else:
        assert receiver.result().errno == "EINTR"


@pytest.mark.parametrize("call", SEND)
def test_a_signal_ends_a_sender_with_eintr_and_nothing_was_sent(door: Door, full: int, call: str) -> None:
    sender = door.block(*waiting_call(full, call))
    sender.interrupt()
    assert sender.result().errno == "EINTR"
    assert [door.ok("mq_receive", full, 16).data for _ in range(2)] == [b"old", b"old"]
    assert door.ok("mq_getattr", full).results["curmsgs"] == 0


@pytest.mark.parametrize("call", RECEIVE)
def test_a_killed_receiver_takes_nothing(door: Door, mqd: int, call: str) -> None:
    receiver = door.block(*waiting_call(mqd, call))
    receiver.kill()
    door.end_children()
    door.ok("mq_send", mqd, b"still here")
    assert door.ok("mq_receive", mqd, 16).data == b"still here"


@pytest.mark.parametrize("call", SEND)
def test_a_killed_sender_sends_nothing(door: Door, full: int, call: str) -> None:
    sender = door.block(*waiting_call(full, call))
    sender.kill()
    door.end_children()
    for _ in range(2):
        assert door.ok("mq_receive", full, 16).data == b"old"
    assert door.ok("mq_getattr", full).results["curmsgs"] == 0


@pytest.mark.parametrize("call", [*RECEIVE, *SEND])
def test_a_time_out_ends_a_wait(door: Door, mqd: int, call: str) -> None:
    while "send" in call and door.ok("mq_getattr", mqd).results["curmsgs"] < 2:
        door.ok("mq_send", mqd, b"old")
    assert door.call(*waiting_call(mqd, call), timeout=0.05).errno == "ETIMEDOUT"


@pytest.mark.parametrize("call", RECEIVE)
def test_unlinking_does_not_wake_who_waits(door: Door, mqd: int, call: str) -> None:
    receiver = door.block(*waiting_call(mqd, call))
    door.ok("mq_unlink", NAME)
    assert receiver.is_blocked()
    door.ok("mq_send", mqd, b"late")
    assert receiver.result().data == b"late"


def test_closing_the_descriptor_elsewhere_does_not_end_a_wait(door: Door, fds: Descriptors, mqd: int) -> None:
    receiver = door.block("mq_receive", mqd, 16)
    fds.close(mqd)
    other = fds.call("mq_open", NAME, "O_RDWR")
    assert receiver.is_blocked()
    door.ok("mq_send", other, b"hello")
    assert receiver.result().data == b"hello"


def test_receivers_leave_in_any_order_and_the_others_go_on_waiting(door: Door, mqd: int) -> None:
    receivers = []
    for count in range(1, 5):
        receivers.append(door.block("mq_receive", mqd, 16))
        sleeping(door, count)
    receivers[0].interrupt()
    assert receivers[0].result().errno == "EINTR"
    receivers[2].kill()
    sleeping(door, 2)
    for data, receiver in ((b"1", receivers[1]), (b"3", receivers[3])):
        door.ok("mq_send", mqd, data)
        assert receiver.result().data == data


# --- mq_notify


def notified(door: Door, event: int) -> bool:
    """Wait for the notification: True for a message, False when the registration was removed."""
    data = door.ok("read", event, 32).data or b""
    # libc has 32 bytes of its own choice, the last of which is the kernel's.
    return data.startswith(b"message") and data[31:] != b"\2"


def nothing_came(door: Door, event: int) -> bool:
    if door.name == "native":
        return not os.get_blocking(event) or _would_block(event)
    return door.call("read", event, 32, timeout=0).errno == "ETIMEDOUT"


def _would_block(event: int) -> bool:
    os.set_blocking(event, False)
    try:
        os.read(event, 32)
    except BlockingIOError:
        return True
    finally:
        os.set_blocking(event, True)
    return False


@pytest.fixture
def register(door: Door, fds: Descriptors, mqd: int) -> Callable[[], int]:
    """Registers for a notification and answers the descriptor at which it arrives."""
    return lambda: fds.keep(door.ok("mq_notify", mqd).results["event"])


def test_a_message_for_the_empty_queue_notifies(door: Door, mqd: int, register: Callable[[], int]) -> None:
    event = register()
    assert nothing_came(door, event)
    door.ok("mq_send", mqd, b"x")
    assert notified(door, event)
    assert door.ok("mq_receive", mqd, 16).data == b"x"


def test_a_native_message_notifies(door: Door, native: Door, mqd: int, register: Callable[[], int]) -> None:
    event = register()
    native.spawn(lambda: native.ok("mq_send", native.ok("mq_open", NAME, "O_WRONLY").ret, b"x")).result()
    assert notified(door, event)


def test_a_message_for_a_queue_that_has_some_does_not_notify(door: Door, mqd: int, register: Callable[[], int]) -> None:
    door.ok("mq_send", mqd, b"x")
    event = register()
    door.ok("mq_send", mqd, b"y")
    assert nothing_came(door, event)
    for _ in range(2):
        door.ok("mq_receive", mqd, 16)
    door.ok("mq_send", mqd, b"z")
    assert notified(door, event)


def test_one_registration_notifies_once(door: Door, mqd: int, register: Callable[[], int]) -> None:
    first = register()
    door.ok("mq_send", mqd, b"x")
    assert notified(door, first)
    door.ok("mq_receive", mqd, 16)
    second = register()
    assert nothing_came(door, second)
    door.ok("mq_send", mqd, b"x")
    assert notified(door, second)


@pytest.mark.parametrize("kind", ["SIGEV_THREAD", "SIGEV_NONE"])
def test_a_second_registrant_is_ebusy(door: Door, mqd: int, kind: str) -> None:
    registered = door.ok("mq_notify", mqd, kind)
    assert set(registered.results) == ({"event"} if kind == "SIGEV_THREAD" else set())
    assert door.call("mq_notify", mqd).errno == "EBUSY"
    assert door.start("mq_notify", mqd).result().errno == "EBUSY"
    assert door.ok("mq_notify", mqd, "NULL").ret == 0
    if kind == "SIGEV_THREAD":
        door.ok("close", registered.results["event"])


def test_a_native_registrant_is_ebusy_too_and_the_other_way_round(
    door: Door, native: Door, mqd: int, register: Callable[[], int]
) -> None:
    def native_try() -> str:
        return native.call("mq_notify", native.ok("mq_open", NAME).ret, "SIGEV_NONE").errno

    register()
    assert native.spawn(native_try).result() == "EBUSY"
    door.ok("mq_notify", mqd, "NULL")
    assert native.spawn(native_try).result() == ""


def test_no_notification_while_a_receiver_waits(door: Door, mqd: int, register: Callable[[], int]) -> None:
    event = register()
    receiver = door.block("mq_receive", mqd, 16)
    sleeping(door, 1)
    door.ok("mq_send", mqd, b"for the receiver")
    assert receiver.result().data == b"for the receiver"
    assert nothing_came(door, event)
    door.ok("mq_send", mqd, b"x")
    assert notified(door, event)


def test_closing_a_descriptor_of_the_queue_ends_the_registration(
    door: Door, fds: Descriptors, mqd: int, register: Callable[[], int]
) -> None:
    other = fds.call("mq_open", NAME)
    event = register()
    fds.close(other)
    assert not notified(door, event)
    assert notified_after(door, mqd, register())


def notified_after(door: Door, mqd: int, event: int) -> bool:
    door.ok("mq_send", mqd, b"x")
    return notified(door, event)


def test_another_process_that_closes_the_queue_ends_nothing(door: Door, mqd: int, register: Callable[[], int]) -> None:
    event = register()

    def open_and_close() -> None:
        door.ok("close", door.ok("mq_open", NAME).ret)
        door.ok("mq_notify", mqd, "NULL")

    door.spawn(open_and_close).result()
    assert notified_after(door, mqd, event)


def test_a_registration_ends_with_its_process(door: Door, mqd: int, register: Callable[[], int]) -> None:
    door.start("mq_notify", mqd).result()
    door.end_children()
    if door.name != "native":  # the process is gone at once, what it held a moment later
        while door.call("mq_notify", mqd, "SIGEV_NONE").errno == "EBUSY":
            pass
        door.ok("mq_notify", mqd, "NULL")
    assert notified_after(door, mqd, register())


def test_null_ends_the_registration(door: Door, mqd: int, register: Callable[[], int]) -> None:
    event = register()
    door.ok("mq_notify", mqd, "NULL")
    assert not notified(door, event)
    assert door.ok("mq_notify", mqd, "NULL").ret == 0


def test_mq_notify_of_another_kind_is_einval(door: Door, mqd: int) -> None:
    assert door.call("mq_notify", mqd, 7).errno == "EINVAL"
