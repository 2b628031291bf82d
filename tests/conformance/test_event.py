"""Counters and timers: eventfd(2), timerfd_create(2)."""

import os

import pytest
from doors import Door
from opened import Descriptors

MOST = (1 << 64) - 2


def eight(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_a_read_takes_all_that_was_added(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2", 3, "EFD_NONBLOCK")
    assert door.ok("write", fd, eight(4)).ret == 8
    answer = door.ok("read", fd, 8)
    assert (answer.ret, answer.data, answer.results) == (8, eight(7), {"value": 7})
    assert door.call("read", fd, 8).errno == "EAGAIN"


def test_a_semaphore_gives_one_at_a_time(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2", 2, "EFD_SEMAPHORE|EFD_NONBLOCK")
    assert [door.ok("eventfd_read", fd).results["value"] for _ in range(2)] == [1, 1]
    assert door.call("eventfd_read", fd).errno == "EAGAIN"


def test_eventfd_has_the_flags_that_were_asked_for(door: Door, fds: Descriptors) -> None:
    for flags, expected in ((0, 0), ("EFD_NONBLOCK", os.O_NONBLOCK)):
        fd = fds.call("eventfd2", 0, flags)
        assert door.ok("fcntl", fd, "F_GETFL").ret == os.O_RDWR | expected
    assert door.ok("fcntl", fds.call("eventfd2", 0, "EFD_CLOEXEC"), "F_GETFD").ret == 1


def test_a_full_counter_takes_no_more(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2", 0, "EFD_NONBLOCK")
    door.ok("eventfd_write", fd, MOST)
    assert door.call("eventfd_write", fd, 1).errno == "EAGAIN"
    assert door.ok("poll", (fd, "POLLIN|POLLOUT")).results["revents"] in ([1], 1)
    assert door.ok("eventfd_read", fd).results["value"] == MOST


@pytest.mark.parametrize(("call", "argument"), [("read", 7), ("write", b"1234567"), ("write", b"\xff" * 8)])
def test_other_sizes_and_the_largest_number_are_einval(
    door: Door, fds: Descriptors, call: str, argument: int | bytes
) -> None:
    fd = fds.call("eventfd2", 1, "EFD_NONBLOCK")
    assert door.call(call, fd, argument).errno == "EINVAL"


def test_eventfd2_with_another_flag_is_einval(door: Door) -> None:
    assert door.call("eventfd2", 0, "0x40000000").errno == "EINVAL"
    assert door.call("timerfd_create", "CLOCK_MONOTONIC", "0x40000000").errno == "EINVAL"
    assert door.call("timerfd_create", 77).errno == "EINVAL"


def test_a_counter_has_no_offset(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2", 1)
    assert door.call("pread64", fd, 8, 0).errno == "ESPIPE"


def test_a_read_waits_for_a_write(door: Door, fds: Descriptors) -> None:
    """By another process: a child shares what its parent has opened."""
    fd = fds.call("eventfd2", 0)
    reader = door.block("read", fd, 8)
    door.ok("write", fd, eight(5))
    assert reader.result().data == eight(5)
    assert door.ok("fcntl", fd, "F_GETFL").ret == os.O_RDWR


def test_a_write_waits_for_room(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2", 0)
    door.ok("eventfd_write", fd, MOST)
    writer = door.block("eventfd_write", fd, 2)
    assert door.ok("eventfd_read", fd).results["value"] == MOST
    assert writer.result().ret == 0
    assert door.ok("eventfd_read", fd).results["value"] == 2


def test_readers_are_served_once_each(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2", 0, "EFD_SEMAPHORE")
    readers = [door.block("eventfd_read", fd) for _ in range(3)]
    door.ok("eventfd_write", fd, 3)
    assert [reader.result().results["value"] for reader in readers] == [1, 1, 1]


def test_an_interrupted_read_takes_nothing(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2", 0)
    reader = door.block("eventfd_read", fd)
    reader.interrupt()
    assert reader.result().errno == "EINTR"
    door.ok("eventfd_write", fd, 1)
    assert door.ok("eventfd_read", fd).results["value"] == 1


# --- timers


def test_a_timer_counts_how_often_it_has_expired(door: Door, fds: Descriptors) -> None:
    fd = fds.call("timerfd_create", "CLOCK_MONOTONIC")
    assert door.ok("timerfd_settime", fd, 0, 0.001, 0.001).results == {"value_ns": 0, "interval_ns": 0}
    assert door.ok("read", fd, 8).results["value"] >= 1
    assert door.ok("read", fd, 8).results["value"] >= 1
    setting = door.ok("timerfd_gettime", fd).results
    assert setting["interval_ns"] == 1_000_000
    assert 0 < setting["value_ns"] <= 1_000_000


def test_a_timer_that_is_off_never_expires(door: Door, fds: Descriptors) -> None:
    fd = fds.call("timerfd_create", "CLOCK_MONOTONIC", "TFD_NONBLOCK")
    assert door.ok("timerfd_gettime", fd).results == {"value_ns": 0, "interval_ns": 0}
    assert door.call("read", fd, 8).errno == "EAGAIN"
    door.ok("timerfd_settime", fd, 0, 1000)
    assert door.ok("timerfd_settime", fd, 0, 0).results["value_ns"] > 999 * 10**9
    assert door.call("read", fd, 8).errno == "EAGAIN"
    assert door.call("write", fd, eight(1)).errno == "EINVAL"


def test_a_time_that_has_passed_expires_at_once(door: Door, fds: Descriptors) -> None:
    fd = fds.call("timerfd_create", "CLOCK_MONOTONIC")
    door.ok("timerfd_settime", fd, "TFD_TIMER_ABSTIME", 0.000000001)
    assert door.ok("read", fd, 8).results["value"] == 1


def test_settime_of_what_is_no_timer_is_einval(door: Door, fds: Descriptors) -> None:
    for fd in (fds.call("eventfd2"), fds.call("memfd_create", b"memory")):
        assert door.call("timerfd_settime", fd, 0, 1).errno == "EINVAL"
        assert door.call("timerfd_gettime", fd).errno == "EINVAL"


def test_poll_waits_for_counters_and_timers(door: Door, fds: Descriptors) -> None:
    counter, timer = fds.call("eventfd2"), fds.call("timerfd_create", "CLOCK_MONOTONIC")
    door.ok("timerfd_settime", timer, 0, 0.01)
    answer = door.ok("poll", (counter, "POLLIN"), (timer, "POLLIN"))
    assert (answer.ret, answer.results["revents"]) == (1, [0, 1])


@pytest.mark.not_for(native="Linux has no time-out for this call")
def test_a_read_ends_with_its_time_out(door: Door, fds: Descriptors) -> None:
    fd = fds.call("eventfd2")
    assert door.call("read", fd, 8, timeout=0.05).errno == "ETIMEDOUT"
    assert door.call("eventfd_read", fd, timeout=0.05).errno == "ETIMEDOUT"
