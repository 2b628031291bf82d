"""POSIX message queues: what the calls answer when nobody has to wait."""

import os
import time
from collections.abc import Callable

import pytest
from doors import NOBODY, Door
from native_posix import mq_open, mq_timedreceive
from opened import Descriptors

#: Nobody else's: /dev/shm is in no IPC namespace.
NAME = b"/synosfs-test-%d" % os.getpid()
CREATE = "O_CREAT|O_EXCL|O_RDWR"


@pytest.fixture
def mqd(door: Door, fds: Descriptors, posix_names: Callable[[bytes], bytes]) -> int:
    """An empty queue of root's, mode 0600, for 4 messages of 16 bytes, open for both."""
    return fds.keep(door.ok("mq_open", posix_names(NAME), CREATE, 0o600, maxmsg=4, msgsize=16).ret)


@pytest.fixture
def full(door: Door, mqd: int) -> int:
    for priority in range(4):
        door.ok("mq_send", mqd, b"old", priority)
    return mqd


def contents(door: Door, mqd: int) -> list[tuple[int, bytes | None]]:
    """Every message, taken out in order."""
    taken = []
    while not (result := door.call("mq_timedreceive", mqd, 8192, abs_sec=0)).errno:
        taken.append((result.results["priority"], result.data))
    assert result.errno == "ETIMEDOUT"
    return taken


# --- mq_open


@pytest.mark.parametrize(
    ("name", "errno"),
    [
        (b"no-slash", "EINVAL"),
        (b"", "EINVAL"),
        (b"/", "ENOENT"),
        (b"/a/b", "EACCES"),
        (b"//a", "EACCES"),
        (b"/a/", "EACCES"),
        (b"/" + b"n" * 256, "ENAMETOOLONG"),
        (b"/synosfs-none", "ENOENT"),
    ],
)
@pytest.mark.parametrize("call", ["mq_open", "mq_unlink"])
def test_a_name_is_one_leading_slash_and_up_to_255_other_bytes(door: Door, name: bytes, errno: str, call: str) -> None:
    assert door.call(call, name).errno == errno
    if call == "mq_open" and errno != "ENOENT":
        assert door.call(call, name, CREATE, 0o600).errno == errno


def test_a_name_of_255_bytes_is_not_too_long(door: Door, fds: Descriptors, posix_names: Callable) -> None:
    fds.call("mq_open", posix_names(b"/" + b"n" * 255), CREATE, 0o600)


def test_mq_open_finds_what_has_the_name_whatever_attributes_are_asked(door: Door, fds: Descriptors, mqd: int) -> None:
    other = fds.keep(door.ok("mq_open", NAME, "O_CREAT|O_RDWR", 0o644, maxmsg=2, msgsize=8).ret)
    assert door.ok("mq_getattr", other).results == {"flags": 0, "maxmsg": 4, "msgsize": 16, "curmsgs": 0}


def test_mq_open_exclusive_on_an_existing_name_is_eexist(door: Door, mqd: int) -> None:
    assert door.call("mq_open", NAME, CREATE, 0o600).errno == "EEXIST"


def test_mq_open_without_attributes_takes_the_systems_defaults(
    door: Door, fds: Descriptors, posix_names: Callable
) -> None:
    mqd = fds.call("mq_open", posix_names(NAME), CREATE, 0o600)
    assert door.ok("mq_getattr", mqd).results == {"flags": 0, "maxmsg": 10, "msgsize": 8192, "curmsgs": 0}


@pytest.mark.parametrize(("maxmsg", "msgsize"), [(0, 16), (-1, 16), (4, 0), (4, -1), (65537, 16), (4, 1 << 24 | 1)])
def test_mq_open_with_attributes_below_1_or_above_the_hard_limits_is_einval(
    door: Door, posix_names: Callable, maxmsg: int, msgsize: int
) -> None:
    opened = door.call("mq_open", posix_names(NAME), CREATE, 0o600, maxmsg=maxmsg, msgsize=msgsize)
    assert opened.errno == "EINVAL"


@pytest.mark.parametrize(("maxmsg", "msgsize"), [(11, 16), (4, 8193)])
def test_mq_open_above_the_limits_of_the_namespace_without_privilege_is_einval(
    door: Door, posix_names: Callable, maxmsg: int, msgsize: int
) -> None:
    posix_names(NAME)
    opened = door.call_as(NOBODY, "mq_open", NAME, CREATE, 0o600, maxmsg=maxmsg, msgsize=msgsize)
    assert opened.errno == "EINVAL"


def test_a_raised_limit_allows_more(
    door: Door, fds: Descriptors, posix_names: Callable, sysctl: Callable[[str, object], None]
) -> None:
    sysctl("fs/mqueue/msg_max", 20)
    mqd = fds.keep(door.ok("mq_open", posix_names(NAME), CREATE, 0o600, maxmsg=20, msgsize=8).ret)
    assert door.ok("mq_getattr", mqd).results["maxmsg"] == 20


def test_mq_open_is_enospc_when_queues_max_queues_exist(
    door: Door, mqd: int, posix_names: Callable, sysctl: Callable[[str, object], None]
) -> None:
    sysctl("fs/mqueue/queues_max", 1)
    other = posix_names(b"/synosfs-other")
    assert door.call_as(NOBODY, "mq_open", other, CREATE, 0o600).errno == "ENOSPC"


@pytest.mark.parametrize(
    ("mode", "flags", "errno"),
    [
        (0o600, "O_RDONLY", "EACCES"),
        (0o604, "O_RDONLY", ""),
        (0o604, "O_WRONLY", "EACCES"),
        (0o602, "O_WRONLY", ""),
        (0o604, "O_RDWR", "EACCES"),
        (0o606, "O_RDWR", ""),
    ],
)
def test_mq_open_needs_the_permission_that_it_asks_for(
    door: Door, fds: Descriptors, posix_names: Callable, mode: int, flags: str, errno: str
) -> None:
    def create() -> None:
        os.umask(0)
        door.ok("mq_open", NAME, CREATE, mode)

    posix_names(NAME)
    door.spawn(create).result()
    assert door.call_as(NOBODY, "mq_open", NAME, flags).errno == errno


def test_the_mode_of_a_new_queue_is_what_the_umask_leaves(door: Door, posix_names: Callable) -> None:
    def create() -> None:
        os.umask(0o027)
        door.ok("mq_open", NAME, CREATE, 0o666)

    posix_names(NAME)
    door.spawn(create).result()
    fd = mq_open(NAME, os.O_RDONLY)
    status = os.fstat(fd)
    os.close(fd)
    assert (status.st_mode & 0o777, status.st_uid) == (0o640, 0)


def test_a_new_descriptor_is_the_lowest_and_closed_on_exec(door: Door, fds: Descriptors, mqd: int) -> None:
    low = fds.call("mq_open", NAME)
    fds.close(low)
    assert fds.call("mq_open", NAME) == low
    assert door.ok("fcntl", mqd, "F_GETFD").ret == 1


# --- mq_send, mq_receive


def test_higher_priorities_come_first_and_equal_ones_in_their_order(door: Door, mqd: int) -> None:
    for data, priority in ((b"a", 1), (b"b", 7), (b"c", 1), (b"d", 7)):
        door.ok("mq_send", mqd, data, priority)
    assert contents(door, mqd) == [(7, b"b"), (7, b"d"), (1, b"a"), (1, b"c")]


@pytest.mark.parametrize("data", [b"", b"x", b"\0\xff\n", b"x" * 16])
def test_a_message_comes_out_as_it_went_in(door: Door, mqd: int, data: bytes) -> None:
    assert door.ok("mq_send", mqd, data, 3) == (0, "", {}, None, "")
    assert door.ok("mq_receive", mqd, 16) == (len(data), "", {"priority": 3}, data, "")


@pytest.mark.parametrize(("priority", "errno"), [(0, ""), (32767, ""), (32768, "EINVAL"), (0xFFFFFFFF, "EINVAL")])
def test_a_priority_is_below_32768(door: Door, mqd: int, priority: int, errno: str) -> None:
    assert door.call("mq_send", mqd, b"x", priority).errno == errno
    assert contents(door, mqd) == ([] if errno else [(priority, b"x")])


def test_a_message_larger_than_msgsize_is_emsgsize(door: Door, mqd: int) -> None:
    assert door.call("mq_send", mqd, b"x" * 17).errno == "EMSGSIZE"


def test_a_buffer_smaller_than_msgsize_is_emsgsize_and_the_message_stays(door: Door, mqd: int) -> None:
    door.ok("mq_send", mqd, b"x")
    assert door.call("mq_receive", mqd, 15).errno == "EMSGSIZE"
    assert door.ok("mq_receive", mqd, 17).data == b"x"


def test_read_gives_the_status_line_and_write_is_einval(door: Door, fds: Descriptors, full: int) -> None:
    size = len(b"old") * door.ok("mq_getattr", full).results["curmsgs"]
    line = door.ok("read", full, 200).data
    assert line is not None
    assert line.startswith(b"QSIZE:%-10d NOTIFY:0" % size)
    assert door.ok("read", full, 200).data == b""
    assert door.ok("lseek", full, 0, "SEEK_SET").ret == 0
    assert door.ok("read", full, 200).data == line == door.ok("pread64", full, 200, 0).data
    assert door.call("write", full, b"x").errno == "EINVAL"
    assert door.call("read", fds.call("mq_open", NAME, "O_WRONLY"), 200).errno == "EBADF"


def test_fcntl_sets_what_mq_setattr_does(door: Door, mqd: int) -> None:
    door.ok("fcntl", mqd, "F_SETFL", os.O_NONBLOCK)
    assert door.ok("fcntl", mqd, "F_GETFL").ret & os.O_NONBLOCK
    assert door.ok("mq_getattr", mqd).results["flags"] == os.O_NONBLOCK
    assert door.call("mq_receive", mqd, 16).errno == "EAGAIN"
    door.ok("fcntl", mqd, "F_SETFL", 0)
    waiter = door.block("mq_receive", mqd, 16)
    door.ok("mq_send", mqd, b"x")
    assert waiter.result().data == b"x"


@pytest.mark.parametrize("flags", ["O_RDONLY", "O_WRONLY", "O_RDWR"])
def test_a_descriptor_is_for_what_it_was_opened_for(door: Door, fds: Descriptors, mqd: int, flags: str) -> None:
    door.ok("mq_send", mqd, b"x")
    other = fds.call("mq_open", NAME, flags)
    assert door.call("mq_send", other, b"y").errno == ("EBADF" if flags == "O_RDONLY" else "")
    assert door.call("mq_receive", other, 16).errno == ("EBADF" if flags == "O_WRONLY" else "")


@pytest.mark.parametrize(("call", "args"), [("mq_send", (b"x",)), ("mq_receive", (16,)), ("mq_getattr", ())])
def test_what_is_no_open_queue_is_ebadf(door: Door, fds: Descriptors, call: str, args: tuple) -> None:
    read, _ = fds.pipe()
    assert door.call(call, 999, *args).errno == "EBADF"
    assert door.call(call, read, *args).errno == "EBADF"


def test_nonblock_says_eagain_where_another_would_wait(door: Door, fds: Descriptors, full: int) -> None:
    other = fds.call("mq_open", NAME, "O_RDWR|O_NONBLOCK")
    assert door.call("mq_send", other, b"x").errno == "EAGAIN"
    assert len(contents(door, full)) == 4
    assert door.call("mq_receive", other, 16).errno == "EAGAIN"
    assert door.call("mq_timedreceive", other, 16, abs_sec=0).errno == "EAGAIN"


# --- mq_timedsend, mq_timedreceive


def test_a_time_that_has_passed_is_etimedout_only_when_it_would_wait(door: Door, mqd: int) -> None:
    assert door.call("mq_timedreceive", mqd, 16, abs_sec=1).errno == "ETIMEDOUT"
    for _ in range(4):
        assert door.ok("mq_timedsend", mqd, b"x", 0, abs_sec=1).ret == 0
    assert door.call("mq_timedsend", mqd, b"x", 0, abs_sec=1).errno == "ETIMEDOUT"
    assert door.ok("mq_timedreceive", mqd, 16, abs_sec=1).data == b"x"


@pytest.mark.parametrize(
    "time_", [{"abs_nsec": -1}, {"abs_nsec": 10**9}, {"abs_sec": -1}, {"abs_sec": -5, "abs_nsec": 7}]
)
def test_a_time_that_is_none_is_einval_whether_it_would_wait_or_not(
    door: Door, mqd: int, time_: dict[str, int]
) -> None:
    """mq_receive(3) says only when it would wait; Linux looks at the time first."""
    assert door.call("mq_timedreceive", mqd, 16, **time_).errno == "EINVAL"
    assert door.call("mq_timedsend", mqd, b"x", 0, **time_).errno == "EINVAL"
    door.ok("mq_send", mqd, b"y")
    assert door.call("mq_timedreceive", mqd, 16, **time_).errno == "EINVAL"
    assert contents(door, mqd) == [(0, b"y")]


def test_a_time_out_in_the_future_is_waited_for(door: Door, mqd: int) -> None:
    began = time.time()
    until = int(began) + 1
    assert door.call("mq_timedreceive", mqd, 16, abs_sec=until, abs_nsec=50_000_000).errno == "ETIMEDOUT"
    assert time.time() >= until + 0.05


def test_a_time_far_away_is_a_time(door: Door, mqd: int) -> None:
    assert door.ok("mq_timedsend", mqd, b"x", 0, abs_sec=1 << 62).ret == 0
    assert door.ok("mq_timedreceive", mqd, 16, abs_sec=10**10, abs_nsec=999_999_999).data == b"x"


@pytest.mark.parametrize(
    ("call", "args", "named", "errno"),
    [
        ("mq_timedsend", (b"x", 32768), {}, "EINVAL"),
        ("mq_send", (b"x", 32768), {}, "EINVAL"),
        ("mq_timedsend", (b"x", 0), {"abs_nsec": -1}, "EINVAL"),
        ("mq_timedsend", (b"x", 0), {"abs_sec": 1}, "EBADF"),
        ("mq_timedreceive", (16,), {"abs_nsec": 10**9}, "EINVAL"),
        ("mq_timedreceive", (16,), {"abs_sec": -1}, "EINVAL"),
        ("mq_setattr", (1,), {}, "EINVAL"),
        ("mq_setattr", (0,), {}, "EBADF"),
        ("mq_notify", (7,), {}, "EINVAL"),
        ("mq_notify", (-1,), {}, "EINVAL"),
        ("mq_notify", ("NULL",), {}, "EBADF"),
        ("mq_notify", ("SIGEV_THREAD",), {}, "EBADF"),
    ],
)
def test_what_is_wrong_in_itself_is_told_before_the_descriptor_is_looked_at(
    door: Door, call: str, args: tuple, named: dict[str, int], errno: str
) -> None:
    assert door.call(call, 999, *args, **named).errno == errno


# --- mq_getattr, mq_setattr


def test_mq_setattr_changes_nonblock_alone_and_answers_what_was(door: Door, mqd: int) -> None:
    before = {"flags": 0, "maxmsg": 4, "msgsize": 16, "curmsgs": 0}
    assert door.ok("mq_setattr", mqd, "O_NONBLOCK").results == before
    door.ok("mq_send", mqd, b"x")
    assert door.ok("mq_setattr", mqd, 0).results == before | {"flags": os.O_NONBLOCK, "curmsgs": 1}
    assert door.ok("mq_getattr", mqd).results == before | {"curmsgs": 1}


@pytest.mark.parametrize("flags", ["O_APPEND", "1", "O_NONBLOCK|O_RDWR"])
def test_mq_setattr_of_anything_else_is_einval(door: Door, mqd: int, flags: str) -> None:
    assert door.call("mq_setattr", mqd, flags).errno == "EINVAL"
    assert door.ok("mq_getattr", mqd).results["flags"] == 0


def test_nonblock_is_of_the_open_queue_and_not_of_the_queue(door: Door, fds: Descriptors, mqd: int) -> None:
    other, same = fds.call("mq_open", NAME, "O_RDWR"), fds.call("dup", mqd)
    door.ok("mq_setattr", mqd, "O_NONBLOCK")
    assert door.ok("mq_getattr", same).results["flags"] == os.O_NONBLOCK
    assert door.ok("mq_getattr", other).results["flags"] == 0


# --- mq_unlink, close


def test_mq_unlink_frees_the_name_at_once_and_open_descriptors_live_on(door: Door, fds: Descriptors, mqd: int) -> None:
    door.ok("mq_send", mqd, b"old")
    door.ok("mq_unlink", NAME)
    assert door.call("mq_open", NAME).errno == "ENOENT"
    new = fds.call("mq_open", NAME, CREATE, 0o600)
    assert contents(door, new) == []
    assert contents(door, mqd) == [(0, b"old")]


def test_mq_unlink_by_another_user_is_eacces(door: Door, mqd: int) -> None:
    """The root of the mqueue file system is sticky, and says EPERM; glibc makes EACCES of it."""
    assert door.call_as(NOBODY, "mq_unlink", NAME).errno == "EACCES"


def test_messages_stay_when_nobody_has_the_queue_open(door: Door, fds: Descriptors, mqd: int) -> None:
    door.ok("mq_send", mqd, b"kept", 9)
    fds.close(mqd)
    assert contents(door, fds.call("mq_open", NAME, "O_RDWR")) == [(9, b"kept")]


def test_a_child_inherits_the_descriptor(door: Door, mqd: int) -> None:
    assert door.start("mq_send", mqd, b"from the child").result().ret == 0
    assert contents(door, mqd) == [(0, b"from the child")]


# --- native programs on the same names


def test_a_native_program_meets_the_queue_by_its_name(door: Door, native: Door, mqd: int) -> None:
    other = native.ok("mq_open", NAME, "O_RDWR").ret
    try:
        door.ok("mq_send", mqd, b"to native", 5)
        assert mq_timedreceive(other, 16) == (9, "", {"priority": 5}, b"to native", "")
        native.ok("mq_send", other, b"from native", 6)
        assert contents(door, mqd) == [(6, b"from native")]
    finally:
        os.close(other)
