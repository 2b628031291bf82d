"""System V message queues: what msgget, msgsnd and msgrcv answer when nobody has to wait."""

import os
from collections.abc import Callable

import pytest
from doors import NOBODY, Door
from native import kernel_seconds

KEY = 0x5359_0001
MSGMAX = 8192
LONG_MAX = (1 << 63) - 1

NO_NEGATIVE_LENGTH = "its size is the length of the data, which cannot be negative"
CANNOT_WAIT = "Linux has no time-out for this call"


def fill(door: Door, queue: int, *messages: tuple[int, bytes]) -> None:
    for mtype, data in messages:
        door.ok("msgsnd", queue, mtype, data, "IPC_NOWAIT")


def contents(door: Door, queue: int) -> list[tuple[int, bytes | None]]:
    """Every message, taken out in order."""
    taken = []
    while not (result := door.call("msgrcv", queue, MSGMAX, 0, "IPC_NOWAIT")).errno:
        taken.append((result.results["mtype"], result.data))
    assert result.errno == "ENOMSG"
    return taken


# --- msgget


def test_msgget_private_is_always_new(new_queue: Callable[..., int]) -> None:
    assert len({new_queue("IPC_PRIVATE", "IPC_CREAT|0600") for _ in range(3)}) == 3


def test_msgget_private_is_new_without_ipc_creat_too(new_queue: Callable[..., int]) -> None:
    assert new_queue("IPC_PRIVATE", "0600") != new_queue("IPC_PRIVATE", "IPC_EXCL|0600")


def test_msgget_finds_what_has_the_key(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(KEY)
    for flags in ("0", "0600", "IPC_CREAT|0600", "IPC_EXCL"):
        assert door.ok("msgget", KEY, flags).ret == queue


def test_msgget_of_an_unknown_key_is_enoent(door: Door) -> None:
    assert door.call("msgget", KEY, "0600") == (-1, "ENOENT", {}, None, door.call("msgget", KEY, "0600").message)


def test_msgget_exclusive_on_an_existing_key_is_eexist(door: Door, new_queue: Callable[..., int]) -> None:
    new_queue(KEY)
    assert door.call("msgget", KEY, "IPC_CREAT|IPC_EXCL|0600").errno == "EEXIST"


@pytest.mark.parametrize(("mode", "asked"), [("0600", "0600"), ("0600", "0400"), ("0604", "0002"), ("0640", "0040")])
def test_msgget_is_eacces_when_the_mode_forbids_what_is_asked(
    door: Door, new_queue: Callable[..., int], mode: str, asked: str
) -> None:
    new_queue(KEY, f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "msgget", KEY, asked).errno == "EACCES"


@pytest.mark.parametrize(("mode", "asked"), [("0600", "0"), ("0604", "0004"), ("0666", "0666"), ("0604", "0400")])
def test_msgget_by_another_user_succeeds_when_the_mode_allows_it(
    door: Door, new_queue: Callable[..., int], mode: str, asked: str
) -> None:
    queue = new_queue(KEY, f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "msgget", KEY, asked).ret == queue


def test_msgget_is_enospc_when_msgmni_queues_exist(
    door: Door, new_queue: Callable[..., int], sysctl: Callable[[str, object], None]
) -> None:
    new_queue()
    sysctl("kernel/msgmni", 1)
    assert door.call("msgget", "IPC_PRIVATE", "0600").errno == "ENOSPC"


def test_msg_next_id_chooses_one_id_and_then_is_minus_1(
    door: Door, new_queue: Callable[..., int], sysctl: Callable[[str, object], None]
) -> None:
    sysctl("kernel/msg_next_id", 4321)
    assert new_queue() == 4321
    with open("/proc/sys/kernel/msg_next_id") as file:
        assert file.read() == "-1\n"
    assert new_queue() != 4321


def test_a_new_queue_is_empty_and_belongs_to_its_maker(door: Door, new_queue: Callable[..., int]) -> None:
    before = kernel_seconds()
    queue = new_queue(KEY, "IPC_CREAT|0642", uid=NOBODY)
    status = door.ok("msgctl", queue, "IPC_STAT").results
    assert before <= status.pop("ctime") <= kernel_seconds()
    status.pop("seq")
    assert status == {
        **dict.fromkeys(("uid", "gid", "cuid", "cgid"), NOBODY),
        **dict.fromkeys(("stime", "rtime", "cbytes", "qnum", "lspid", "lrpid"), 0),
        "key": KEY,
        "mode": 0o642,
        "qbytes": 16384,
    }


# --- msgsnd


@pytest.mark.parametrize("mtype", [0, -1, -LONG_MAX])
def test_msgsnd_of_a_type_below_1_is_einval(door: Door, queue: int, mtype: int) -> None:
    assert door.call("msgsnd", queue, mtype, b"x").errno == "EINVAL"


def test_msgsnd_of_more_than_msgmax_is_einval(door: Door, queue: int) -> None:
    assert door.call("msgsnd", queue, 1, bytes(MSGMAX + 1)).errno == "EINVAL"
    assert door.call("msgsnd", queue, 1, bytes(MSGMAX)).errno == ""


@pytest.mark.not_for(
    dispatcher=NO_NEGATIVE_LENGTH, text=NO_NEGATIVE_LENGTH, json=NO_NEGATIVE_LENGTH, msgpack=NO_NEGATIVE_LENGTH
)
def test_msgsnd_of_a_negative_size_is_einval(door: Door, queue: int) -> None:
    assert door.call("msgsnd", queue, 1, b"x", size=(1 << 64) - 1).errno == "EINVAL"


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("msgsnd", (1, b"x", "IPC_NOWAIT")),
        ("msgsnd", (1, b"x")),
        ("msgrcv", (10, 0, "IPC_NOWAIT")),
        ("msgrcv", (10,)),
        ("msgrcv", (10, 0, "IPC_NOWAIT|MSG_COPY")),
        ("msgctl", ("IPC_STAT",)),
        ("msgctl", ("IPC_RMID",)),
    ],
)
def test_an_id_that_names_no_queue_is_einval(door: Door, new_queue: Callable[..., int], call: str, args: tuple) -> None:
    removed = new_queue()
    door.ok("msgctl", removed, "IPC_RMID")
    for msqid in (removed, -1, 0x7FFFFFFF):
        assert door.call(call, msqid, *args).errno == "EINVAL"


@pytest.mark.parametrize("mtype", [1, LONG_MAX])
@pytest.mark.parametrize(
    "data", [b"", b"\0", b"hello, kernel", bytes(range(256)), "grüße".encode(), b"\n" * 3, b"1 2\n3", b"x" * MSGMAX]
)
def test_what_is_sent_is_what_is_received(door: Door, queue: int, mtype: int, data: bytes) -> None:
    assert door.ok("msgsnd", queue, mtype, data).ret == 0
    assert door.ok("msgrcv", queue, MSGMAX) == (len(data), "", {"mtype": mtype}, data, "")


def test_what_one_door_sends_the_host_receives_and_the_other_way_round(door: Door, queue: int, native: Door) -> None:
    door.ok("msgsnd", queue, 7, b"to the host")
    assert native.ok("msgrcv", queue, 100).data == b"to the host"
    native.ok("msgsnd", queue, 8, b"from the host")
    assert door.ok("msgrcv", queue, 100)[2:4] == ({"mtype": 8}, b"from the host")


def test_a_full_queue_is_eagain_with_ipc_nowait(door: Door, queue: int) -> None:
    fill(door, queue, (1, bytes(8192)), (1, bytes(8192)))
    assert door.call("msgsnd", queue, 1, b"x", "IPC_NOWAIT").errno == "EAGAIN"
    # It has 16,384 bytes; an empty message still fits.
    assert door.call("msgsnd", queue, 1, b"", "IPC_NOWAIT").errno == ""


def test_the_number_of_messages_is_capped_by_qbytes_too(door: Door, queue: int) -> None:
    door.ok("msgctl", queue, "IPC_SET", qbytes=5)
    fill(door, queue, *[(1, b"")] * 5)
    assert door.call("msgsnd", queue, 1, b"", "IPC_NOWAIT").errno == "EAGAIN"
    assert door.ok("msgctl", queue, "IPC_STAT").results["qnum"] == 5


def test_sending_without_write_permission_is_eacces(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(flags="IPC_CREAT|0644")
    assert door.call_as(NOBODY, "msgsnd", queue, 1, b"x").errno == "EACCES"
    assert door.ok("msgctl", queue, "IPC_STAT").results["qnum"] == 0


def test_sending_and_receiving_update_the_status(door: Door, queue: int) -> None:
    before = kernel_seconds()
    fill(door, queue, (1, b"abc"), (1, b"de"))
    status = door.ok("msgctl", queue, "IPC_STAT").results
    assert (status["qnum"], status["cbytes"], status["lspid"], status["lrpid"]) == (2, 5, os.getpid(), 0)
    assert before <= status["stime"] <= kernel_seconds()
    assert status["rtime"] == 0
    door.ok("msgrcv", queue, 10)
    status = door.ok("msgctl", queue, "IPC_STAT").results
    assert (status["qnum"], status["cbytes"], status["lrpid"]) == (1, 2, os.getpid())
    assert before <= status["rtime"] <= kernel_seconds()


# --- msgrcv: which message

MESSAGES = ((3, b"a"), (1, b"b"), (2, b"c"), (1, b"d"), (3, b"e"))


@pytest.mark.parametrize(
    ("mtype", "flags", "expected"),
    [
        (0, "0", b"a"),
        (1, "0", b"b"),
        (2, "0", b"c"),
        (3, "0", b"a"),
        (-1, "0", b"b"),
        (-2, "0", b"b"),
        (-3, "0", b"b"),
        (-LONG_MAX, "0", b"b"),
        (-LONG_MAX - 1, "0", b"b"),
        (3, "MSG_EXCEPT", b"b"),
        (1, "MSG_EXCEPT", b"a"),
        (9, "MSG_EXCEPT", b"a"),
        (0, "MSG_EXCEPT", b"a"),
        (-3, "MSG_EXCEPT", b"b"),
    ],
)
def test_msgrcv_takes_the_message_that_the_type_selects(
    door: Door, queue: int, mtype: int, flags: str, expected: bytes
) -> None:
    fill(door, queue, *MESSAGES)
    assert door.ok("msgrcv", queue, 10, mtype, flags).data == expected
    assert [data for _, data in contents(door, queue)] == [data for _, data in MESSAGES if data != expected]


def test_a_negative_type_takes_the_lowest_type_first_and_each_in_order(door: Door, queue: int) -> None:
    fill(door, queue, *MESSAGES)
    assert [door.ok("msgrcv", queue, 10, -2).data for _ in range(3)] == [b"b", b"d", b"c"]
    assert door.call("msgrcv", queue, 10, -2, "IPC_NOWAIT").errno == "ENOMSG"


@pytest.mark.parametrize(
    ("mtype", "flags"), [(0, "0"), (4, "0"), (-2, "0"), (3, "MSG_EXCEPT"), (-LONG_MAX - 1, "0"), (1, "MSG_COPY")]
)
def test_msgrcv_without_a_match_is_enomsg_with_ipc_nowait(door: Door, queue: int, mtype: int, flags: str) -> None:
    if mtype not in (0, -LONG_MAX - 1):
        fill(door, queue, (3, b"x"))
    assert door.call("msgrcv", queue, 10, mtype, f"IPC_NOWAIT|{flags}").errno == "ENOMSG"


def test_the_type_long_max_is_reached_by_the_most_negative_type(door: Door, queue: int) -> None:
    fill(door, queue, (LONG_MAX, b"last"))
    assert door.ok("msgrcv", queue, 10, -LONG_MAX - 1).results == {"mtype": LONG_MAX}


# --- msgrcv: how much of it


def test_a_message_larger_than_the_buffer_is_e2big_and_stays(door: Door, queue: int) -> None:
    fill(door, queue, (1, b"hello"))
    assert door.call("msgrcv", queue, 4).errno == "E2BIG"
    assert door.call("msgrcv", queue, 0, 0, "IPC_NOWAIT").errno == "E2BIG"
    assert contents(door, queue) == [(1, b"hello")]


@pytest.mark.parametrize("size", [0, 4])
def test_msg_noerror_cuts_the_message_off_and_removes_it(door: Door, queue: int, size: int) -> None:
    fill(door, queue, (1, b"hello"))
    assert door.ok("msgrcv", queue, size, 0, "MSG_NOERROR")[:4] == (size, "", {"mtype": 1}, b"hello"[:size])
    assert contents(door, queue) == []


@pytest.mark.parametrize("size", [5, MSGMAX, MSGMAX + 1, 1 << 20])
def test_a_buffer_larger_than_the_message_or_msgmax_is_fine(door: Door, queue: int, size: int) -> None:
    fill(door, queue, (1, b"hello"))
    assert door.ok("msgrcv", queue, size).data == b"hello"


@pytest.mark.parametrize("flags", ["0", "IPC_NOWAIT", "IPC_NOWAIT|MSG_NOERROR"])
def test_a_negative_size_is_einval(door: Door, queue: int, flags: str) -> None:
    fill(door, queue, (1, b"hello"))
    assert door.call("msgrcv", queue, -1, 0, flags).errno == "EINVAL"
    assert contents(door, queue) == [(1, b"hello")]


def test_receiving_without_read_permission_is_eacces(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(flags="IPC_CREAT|0622")
    fill(door, queue, (1, b"hello"))
    for flags in ("0", "IPC_NOWAIT", "IPC_NOWAIT|MSG_COPY"):
        assert door.call_as(NOBODY, "msgrcv", queue, 10, 0, flags).errno == "EACCES"
    assert contents(door, queue) == [(1, b"hello")]


# --- MSG_COPY


def test_msg_copy_takes_an_index_and_removes_nothing(door: Door, queue: int) -> None:
    fill(door, queue, *MESSAGES)
    for _ in range(2):
        copies = [door.ok("msgrcv", queue, 10, index, "MSG_COPY|IPC_NOWAIT") for index in range(len(MESSAGES))]
        assert [(copy.results["mtype"], copy.data) for copy in copies] == list(MESSAGES)
    assert door.ok("msgctl", queue, "IPC_STAT").results["lrpid"] == 0
    assert contents(door, queue) == list(MESSAGES)


@pytest.mark.parametrize(
    ("size", "index", "flags", "expected"),
    [
        (10, 0, "MSG_COPY", "EINVAL"),
        (10, 0, "MSG_COPY|MSG_NOERROR", "EINVAL"),
        (10, 0, "MSG_COPY|IPC_NOWAIT|MSG_EXCEPT", "EINVAL"),
        (10, 1, "MSG_COPY|IPC_NOWAIT", "ENOMSG"),
        (10, 99, "MSG_COPY|IPC_NOWAIT", "ENOMSG"),
        (4, 0, "MSG_COPY|IPC_NOWAIT", "E2BIG"),
        (4, 0, "MSG_COPY|IPC_NOWAIT|MSG_NOERROR", "EINVAL"),
        (5, 0, "MSG_COPY|IPC_NOWAIT|MSG_NOERROR", ""),
    ],
)
def test_the_rules_of_msg_copy(door: Door, queue: int, size: int, index: int, flags: str, expected: str) -> None:
    fill(door, queue, (1, b"hello"))
    assert door.call("msgrcv", queue, size, index, flags).errno == expected
    assert contents(door, queue) == [(1, b"hello")]
