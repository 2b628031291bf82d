"""poll: descriptors as poll(2) has them, and queues and semaphores, which the host cannot poll."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from doors import NOBODY, Door
from native import Result
from opened import Descriptors

IN, OUT, ERR, HUP, NVAL = 0x1, 0x4, 0x8, 0x10, 0x20

only_here = pytest.mark.not_for(native="the host polls descriptors only")


def revents(result: Result) -> list[int]:
    """The events of each thing, as a list also where the text notation has one value."""
    assert not result.errno, result
    found = result.results["revents"]
    found = found if isinstance(found, list) else [found]
    assert result.ret == sum(map(bool, found))
    return found


# --- descriptors


def test_a_pipe_is_writable_and_when_written_to_readable(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    assert revents(door.call("poll", (read, "POLLIN"), (write, "POLLOUT"))) == [0, OUT]
    door.ok("write", write, b"x")
    assert revents(door.call("poll", (read, "POLLIN"), (write, "POLLOUT"))) == [IN, OUT]


def test_only_events_that_were_asked_for_are_reported(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"x")
    assert revents(door.call("poll", (read, "POLLOUT"), (write, "POLLIN"), timeout=0)) == [0, 0]
    assert revents(door.call("poll", (read, "POLLIN|POLLRDNORM"), timeout=0)) == [IN | 0x40]


def test_the_end_of_the_writer_is_pollhup_asked_for_or_not(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    fds.close(write)
    assert revents(door.call("poll", (read, "POLLPRI"))) == [HUP]


def test_the_end_of_the_reader_is_pollerr(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    fds.close(read)
    assert revents(door.call("poll", (write, "POLLPRI"))) == [ERR]


def test_a_number_that_is_not_open_is_pollnval_and_a_negative_one_is_passed_over(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    fds.close(write)
    assert revents(door.call("poll", (900, "POLLIN"), (-1, "POLLIN"), (read, "POLLIN"))) == [NVAL, 0, HUP]
    assert revents(door.call("poll", (-1, "POLLIN"), timeout=0.01)) == [0]


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_time_out_is_no_error_and_answers_0(door: Door, fds: Descriptors, timeout: float) -> None:
    read, _ = fds.pipe()
    assert door.ok("poll", (read, "POLLIN"), timeout=timeout).ret == 0


def test_a_write_wakes_who_polls(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    poller = door.block("poll", (read, "POLLIN"), (write, "POLLPRI"))
    door.ok("write", write, b"x")
    assert revents(poller.result()) == [IN, 0]
    assert door.ok("read", read, 10).data == b"x"


def test_room_in_a_full_pipe_wakes_who_polls(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"x" * 65536)
    poller = door.block("poll", (write, "POLLOUT"))
    door.ok("read", read, 65536)
    assert revents(poller.result()) == [OUT]


def test_both_ends_of_a_socket_pair_are_polled(door: Door, fds: Descriptors) -> None:
    first, second = fds.sockets()
    door.ok("write", first, b"x")
    assert revents(door.call("poll", (first, "POLLIN|POLLOUT"), (second, "POLLIN|POLLOUT"))) == [OUT, IN | OUT]


def test_a_posix_queue_is_readable_with_a_message_and_writable_with_room(
    door: Door, fds: Descriptors, posix_names: Callable[[bytes], bytes]
) -> None:
    name = posix_names(b"/synosfs-poll-%d" % os.getpid())
    queue = fds.call("mq_open", name, "O_CREAT|O_RDWR")
    assert revents(door.call("poll", (queue, "POLLIN|POLLOUT"))) == [OUT]
    poller = door.block("poll", (queue, "POLLIN"))
    door.ok("mq_send", queue, b"hello")
    assert revents(poller.result()) == [IN]


def test_a_signal_ends_polling_with_eintr(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe()
    poller = door.block("poll", (read, "POLLIN"))
    poller.interrupt()
    assert poller.result().errno == "EINTR"


def test_a_poller_that_is_killed_leaves_nobody_blocked(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.block("poll", (read, "POLLIN")).kill()
    door.ok("write", write, b"x")
    assert door.ok("read", read, 1).data == b"x"


def test_files_and_posix_memory_are_always_ready(
    door: Door, fds: Descriptors, tmp_path: Path, posix_names: Callable[[bytes], bytes]
) -> None:
    name = posix_names(b"/synosfs-poll-%d" % os.getpid())
    file = fds.call("open", os.fsencode(tmp_path / "file"), "O_CREAT|O_WRONLY", 0o600)
    memory = fds.call("shm_open", name, "O_CREAT|O_RDWR", 0o600)
    for fd in (file, memory):
        assert revents(door.call("poll", (fd, "POLLIN|POLLOUT|POLLPRI"))) == [IN | OUT]
        assert revents(door.call("poll", (fd, "POLLPRI"), timeout=0.01)) == [0]


# --- queues


@only_here
def test_a_queue_has_room_and_when_it_is_sent_to_input(door: Door, queue: int) -> None:
    both = (f"msgq/{queue}", "POLLIN|POLLOUT")
    assert revents(door.call("poll", both)) == [OUT]
    door.ok("msgsnd", queue, 7, b"hello")
    assert revents(door.call("poll", both)) == [IN | OUT]
    assert revents(door.call("poll", (f"msgq/{queue}@7", "POLLIN"), (f"msgq/{queue}@6", "POLLIN"))) == [IN, 0]
    assert revents(door.call("poll", (f"msgq/{queue}@-6", "POLLIN"), (f"msgq/{queue}@-8", "POLLIN"))) == [0, IN]


@only_here
@pytest.mark.parametrize("mtype", [0, 7, -9])
def test_a_native_message_wakes_who_polls_a_queue_and_stays_there(
    door: Door, queue: int, native: Door, mtype: int
) -> None:
    selected = f"msgq/{queue}@{mtype}" if mtype else f"msgq/{queue}"
    poller = door.block("poll", (selected, "POLLIN"))
    before = native.ok("msgctl", queue, "IPC_STAT").results["rtime"]
    native.ok("msgsnd", queue, 7, b"native")
    assert revents(poller.result()) == [IN]
    status = native.ok("msgctl", queue, "IPC_STAT").results
    assert (status["qnum"], status["rtime"], status["lrpid"]) == (1, before, 0)


@only_here
def test_room_in_a_full_queue_wakes_who_polls(door: Door, queue: int, native: Door) -> None:
    for _ in range(2):
        native.ok("msgsnd", queue, 1, b"x" * 8192)
    poller = door.block("poll", (f"msgq/{queue}", "POLLOUT"))
    native.ok("msgrcv", queue, 8192)
    assert revents(poller.result()) == [OUT]


# --- semaphores


@only_here
def test_a_semaphore_has_input_when_a_decrement_would_not_wait(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(3, values=[0, 1, 32767])
    things = [(f"sem/{semid}.{num}", "POLLIN") for num in range(3)]
    assert revents(door.call("poll", *things)) == [0, IN, IN]
    assert revents(door.call("poll", (f"sem/{semid}.0", "POLLOUT"))) == [OUT]


@only_here
def test_a_native_increment_wakes_who_polls_and_polling_changes_nothing(
    door: Door, new_set: Callable[..., int], native: Door
) -> None:
    semid = new_set(2, values=[0, 0])
    poller = door.block("poll", (f"sem/{semid}.1", "POLLIN"))
    native.ok("semctl", semid, 1, "SETVAL", 5)
    assert revents(poller.result()) == [IN]
    status = native.ok("semctl", semid, 0, "IPC_STAT").results
    assert (status["otime"], native.ok("semctl", semid, 0, "GETALL").results["values"]) == (0, [0, 5])
    assert native.ok("semctl", semid, 1, "GETPID").ret == os.getpid()
    assert native.ok("semctl", semid, 1, "GETNCNT").ret == 0


@only_here
def test_a_number_that_the_set_does_not_have_is_efbig(door: Door, semaphores: int) -> None:
    assert door.call("poll", (f"sem/{semaphores}.2", "POLLIN")).errno == "EFBIG"


@only_here
def test_polling_a_semaphore_needs_the_right_to_take_it(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(1, flags="IPC_CREAT|0604")
    assert door.call_as(NOBODY, "poll", (f"sem/{semid}.0", "POLLIN")).errno == "EACCES"


@only_here
@pytest.mark.parametrize("family", ["msg", "sem"])
@pytest.mark.parametrize("events", ["POLLIN", "POLLPRI"])
def test_removal_wakes_who_polls_with_pollerr_and_pollhup_asked_for_or_not(
    door: Door, queue: int, semaphores: int, native: Door, family: str, events: str
) -> None:
    thing = f"msgq/{queue}" if family == "msg" else f"sem/{semaphores}.0"
    poller = door.block("poll", (thing, events))
    native.ok("msgctl", queue, "IPC_RMID") if family == "msg" else native.ok("semctl", semaphores, 0, "IPC_RMID")
    assert revents(poller.result()) == [ERR | HUP]
    assert revents(door.call("poll", (thing, events))) == [ERR | HUP]


@only_here
def test_of_a_mix_whatever_comes_first_wakes(
    door: Door, queue: int, semaphores: int, fds: Descriptors, native: Door
) -> None:
    read, write = fds.pipe()
    things = [(read, "POLLIN"), (f"msgq/{queue}", "POLLIN"), (f"sem/{semaphores}.0", "POLLIN")]
    for number, wake in enumerate(
        (
            lambda: door.ok("write", write, b"x"),
            lambda: native.ok("msgsnd", queue, 1, b"x"),
            lambda: native.ok("semop", semaphores, (0, 1, 0)),
        )
    ):
        poller = door.block("poll", *things)
        wake()
        assert revents(poller.result()) == [IN if number == position else 0 for position in range(3)]
        things[number] = (things[number][0], "POLLPRI")


@only_here
@pytest.mark.parametrize("thing", ["sem/x", "msgq/", "shm/0", "sem/0", "nothing"])
def test_what_cannot_be_polled_is_einval_and_is_named(door: Door, thing: str) -> None:
    result = door.call("poll", (thing, "POLLIN"))
    assert (result.errno, thing in result.message) == ("EINVAL", True)


# --- whose it is


@only_here
def test_an_ordinary_user_polls_what_is_permitted(
    door: Door, new_queue: Callable[..., int], new_set: Callable[..., int], native: Door
) -> None:
    queue, semaphores = new_queue(flags="IPC_CREAT|0666"), new_set(1, flags="IPC_CREAT|0666", values=[0])
    things = [(f"msgq/{queue}", "POLLIN"), (f"msgq/{queue}@7", "POLLIN"), (f"sem/{semaphores}.0", "POLLIN")]
    assert revents(door.call_as(NOBODY, "poll", *things, timeout=0.1)) == [0, 0, 0]
    native.ok("msgsnd", queue, 8, b"x")
    native.ok("semctl", semaphores, 0, "SETVAL", 1)
    assert revents(door.call_as(NOBODY, "poll", *things, timeout=0.1)) == [IN, 0, IN]


@only_here
@pytest.mark.parametrize("mtype", ["", "@7", "@-9"])
def test_polling_a_queue_for_messages_needs_the_right_to_read_it(
    door: Door, new_queue: Callable[..., int], native: Door, mtype: str
) -> None:
    queue = new_queue(flags="IPC_CREAT|0622")
    thing = f"msgq/{queue}{mtype}"
    for _ in range(2):
        assert door.call_as(NOBODY, "poll", (thing, "POLLIN"), timeout=0.1).errno == "EACCES"
        native.ok("msgsnd", queue, 7, b"x")
    # Room is told to everybody by the host.
    assert revents(door.call_as(NOBODY, "poll", (thing, "POLLOUT"), timeout=0.1)) == [OUT]


@only_here
def test_nobody_learns_from_anothers_watch_what_is_not_for_them(door: Door, queue: int, native: Door) -> None:
    poller = door.block("poll", (f"msgq/{queue}", "POLLIN"))
    assert door.call_as(NOBODY, "poll", (f"msgq/{queue}", "POLLIN"), timeout=0.1).errno == "EACCES"
    native.ok("msgsnd", queue, 1, b"x")
    assert revents(poller.result()) == [IN]


# --- much


@only_here
@pytest.mark.parametrize("mtype", [7, -7])
def test_a_selected_message_behind_many_others_is_input_and_stays_where_it_is(
    door: Door, new_queue: Callable[..., int], native: Door, mtype: int
) -> None:
    queue = new_queue()
    for _ in range(1000):
        native.ok("msgsnd", queue, 8, b"x")
    things = [(f"msgq/{queue}@{mtype}", "POLLIN"), (f"msgq/{queue}@6", "POLLIN")]
    assert revents(door.call("poll", *things, timeout=0)) == [0, 0]
    native.ok("msgsnd", queue, 7, b"deep")
    native.ok("msgsnd", queue, 7, b"deeper")
    assert revents(door.call("poll", *things)) == [IN, 0]
    status = native.ok("msgctl", queue, "IPC_STAT").results
    assert (status["qnum"], status["rtime"], status["lrpid"]) == (1002, 0, 0)
    assert native.ok("msgrcv", queue, 10, 7).data == b"deep"


@only_here
def test_a_look_takes_nothing_be_it_empty(door: Door, queue: int, native: Door) -> None:
    for mtype, data in ((8, b"x"), (7, b""), (7, b"second")):
        for _ in range(40 if mtype == 8 else 1):
            native.ok("msgsnd", queue, mtype, data)
    assert revents(door.call("poll", (f"msgq/{queue}@7", "POLLIN"), (f"msgq/{queue}@6", "POLLIN"))) == [IN, 0]
    assert revents(door.call("poll", (f"msgq/{queue}@7", "POLLIN"), timeout=0)) == [IN]
    status = native.ok("msgctl", queue, "IPC_STAT").results
    assert (status["qnum"], status["rtime"], status["lrpid"]) == (42, 0, 0)
    assert [native.ok("msgrcv", queue, 10, 7).data for _ in range(2)] == [b"", b"second"]


@only_here
def test_who_waits_is_told_of_a_message_however_many_are_before_it(door: Door, queue: int, native: Door) -> None:
    for _ in range(5000):
        native.ok("msgsnd", queue, 8, b"x")
    things = [(f"msgq/{queue}@6", "POLLIN"), (f"msgq/{queue}@7", "POLLIN")]
    poller = door.block("poll", *things)
    native.ok("msgsnd", queue, 7, b"deep")
    assert revents(poller.result()) == [0, IN]
    assert revents(door.call("poll", *things, timeout=20)) == [0, IN]


@only_here
def test_what_is_named_a_thousand_times_is_answered_a_thousand_times(door: Door, queue: int, native: Door) -> None:
    poller = door.block("poll", *[(f"msgq/{queue}", "POLLIN"), (f"msgq/{queue}", "POLLPRI")] * 500)
    native.ok("msgsnd", queue, 1, b"x")
    assert revents(poller.result()) == [IN, 0] * 500
    assert door.ok("poll", *[(f"msgq/{queue}@2", "POLLIN")] * 1000, timeout=0.1).ret == 0


@only_here
def test_so_many_different_things_can_be_polled_at_once_and_no_more(door: Door, queue: int) -> None:
    things = [(f"msgq/{queue}@{mtype}", "POLLIN") for mtype in range(1, 1026)]
    assert door.call("poll", *things, timeout=0).errno == "EINVAL"
    assert door.ok("poll", *things[1:], timeout=0.1).ret == 0
    door.ok("msgsnd", queue, 1025, b"x")
    for timeout in (0, 5):
        assert revents(door.call("poll", *things[1:], timeout=timeout)) == [0] * 1023 + [IN]
