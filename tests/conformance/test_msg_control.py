"""System V message queues: msgctl with every command, and who may do what to whose queue."""

from collections.abc import Callable

import pytest
from doors import NOBODY, Door
from native import kernel_seconds

KEY = 0x5359_0002


def status(door: Door, queue: int) -> dict[str, int]:
    return door.ok("msgctl", queue, "IPC_STAT").results


# --- IPC_STAT


@pytest.mark.parametrize(
    ("mode", "expected"), [("0600", "EACCES"), ("0622", "EACCES"), ("0604", ""), ("0640", "EACCES")]
)
def test_ipc_stat_needs_read_permission(door: Door, new_queue: Callable[..., int], mode: str, expected: str) -> None:
    queue = new_queue(flags=f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "msgctl", queue, "IPC_STAT").errno == expected


def test_ipc_stat_shows_a_key_above_the_signed_range_as_it_was_given(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(0xDEADBEEF)
    assert status(door, queue)["key"] == 0xDEADBEEF
    assert door.ok("msgget", 0xDEADBEEF - (1 << 32), "0").ret == queue


# --- IPC_SET


def test_ipc_set_changes_owner_mode_and_qbytes_and_nothing_else(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(KEY)
    door.ok("msgsnd", queue, 1, b"kept")
    before = status(door, queue)
    now = kernel_seconds()
    door.ok("msgctl", queue, "IPC_SET", uid=NOBODY, gid=NOBODY, mode=0o640, qbytes=1000)
    after = status(door, queue)
    assert now <= after.pop("ctime") <= kernel_seconds()
    before.pop("ctime")
    assert after == before | {"uid": NOBODY, "gid": NOBODY, "mode": 0o640, "qbytes": 1000}


def test_ipc_set_takes_only_the_low_9_bits_of_the_mode(door: Door, queue: int) -> None:
    door.ok("msgctl", queue, "IPC_SET", mode=0o7640)
    assert status(door, queue)["mode"] == 0o640


@pytest.mark.parametrize("fields", [{"mode": 0o666}, {"qbytes": 100}, {"uid": 0}])
def test_ipc_set_by_another_user_is_eperm(door: Door, new_queue: Callable[..., int], fields: dict[str, int]) -> None:
    queue = new_queue(flags="IPC_CREAT|0666")
    before = status(door, queue)
    assert door.call_as(NOBODY, "msgctl", queue, "IPC_SET", **fields).errno == "EPERM"
    assert status(door, queue) == before


def test_the_new_owner_and_the_creator_may_both_set_and_remove(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(uid=NOBODY)
    door.ok("msgctl", queue, "IPC_SET", uid=NOBODY - 1)
    for uid in (NOBODY, NOBODY - 1):
        assert door.call_as(uid, "msgctl", queue, "IPC_SET", mode=0o600).errno == ""
    assert door.call_as(NOBODY - 2, "msgctl", queue, "IPC_RMID").errno == "EPERM"
    assert door.call_as(NOBODY - 1, "msgctl", queue, "IPC_RMID").errno == ""


@pytest.mark.parametrize(("qbytes", "expected"), [(16384, ""), (16385, "EPERM"), (0, "")])
def test_qbytes_above_msgmnb_without_privilege_is_eperm(
    door: Door, others_queue: int, qbytes: int, expected: str
) -> None:
    assert door.call_as(NOBODY, "msgctl", others_queue, "IPC_SET", qbytes=qbytes).errno == expected
    assert status(door, others_queue)["qbytes"] == (qbytes if not expected else 16384)


# --- IPC_RMID


def test_ipc_rmid_removes_at_once_and_a_second_time_is_einval(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(KEY)
    door.ok("msgsnd", queue, 1, b"lost with it")
    assert door.ok("msgctl", queue, "IPC_RMID").ret == 0
    assert door.call("msgctl", queue, "IPC_RMID").errno == "EINVAL"
    assert door.call("msgget", KEY, "0").errno == "ENOENT"


def test_ipc_rmid_by_another_user_is_eperm(door: Door, new_queue: Callable[..., int]) -> None:
    queue = new_queue(flags="IPC_CREAT|0666")
    assert door.call_as(NOBODY, "msgctl", queue, "IPC_RMID").errno == "EPERM"
    assert status(door, queue)["qnum"] == 0


def test_root_may_use_set_and_remove_the_queues_of_others(door: Door, others_queue: int) -> None:
    door.ok("msgsnd", others_queue, 1, b"x")
    door.ok("msgctl", others_queue, "IPC_SET", mode=0)
    assert door.ok("msgrcv", others_queue, 1).data == b"x"
    assert door.call_as(NOBODY, "msgrcv", others_queue, 1).errno == "EACCES"
    door.ok("msgctl", others_queue, "IPC_RMID")


# --- the system's figures


def limit(name: str) -> int:
    with open(f"/proc/sys/kernel/{name}") as file:
        return int(file.read())


def test_ipc_info_gives_the_limits(door: Door, queue: int) -> None:
    info = door.ok("msgctl", 0, "IPC_INFO").results
    assert {name: info[name] for name in ("msgmax", "msgmnb", "msgmni")} == {
        name: limit(name) for name in ("msgmax", "msgmnb", "msgmni")
    }


def test_msg_info_gives_what_is_in_use(door: Door, new_queue: Callable[..., int]) -> None:
    first, second = new_queue(), new_queue()
    for data in (b"abc", b"de"):
        door.ok("msgsnd", first, 1, data)
    door.ok("msgsnd", second, 1, b"")
    info = door.ok("msgctl", 0, "MSG_INFO").results
    # Here these three are: queues, messages, bytes (msgctl(2)).
    assert (info["msgpool"], info["msgmap"], info["msgtql"]) == (2, 3, 5)


@pytest.mark.parametrize("command", ["IPC_INFO", "MSG_INFO"])
def test_the_info_commands_answer_the_highest_used_index(
    door: Door, new_queue: Callable[..., int], command: str
) -> None:
    queues = [new_queue() for _ in range(3)]
    highest = door.ok("msgctl", 0, command).ret
    assert highest == max(queue & 0x7FFF for queue in queues)


@pytest.mark.parametrize("command", ["MSG_STAT", "MSG_STAT_ANY"])
def test_msg_stat_takes_an_index_and_answers_the_id(door: Door, new_queue: Callable[..., int], command: str) -> None:
    queues = {new_queue() for _ in range(3)}
    highest = door.ok("msgctl", 0, "MSG_INFO").ret
    found = [door.call("msgctl", index, command) for index in range(highest + 1)]
    assert {result.ret for result in found if not result.errno} == queues
    for result in found:
        assert result.errno == "EINVAL" or result.results == status(door, result.ret)
    assert door.call("msgctl", highest + 1, command).errno == "EINVAL"


def test_msg_stat_needs_read_permission_and_msg_stat_any_does_not(door: Door, queue: int) -> None:
    index = queue & 0x7FFF
    assert door.call_as(NOBODY, "msgctl", index, "MSG_STAT").errno == "EACCES"
    assert door.call_as(NOBODY, "msgctl", index, "MSG_STAT_ANY").ret == queue


@pytest.mark.parametrize("command", [4, 10, 14, 99, -1])
def test_an_unknown_command_is_einval(door: Door, queue: int, command: int) -> None:
    assert door.call("msgctl", queue, command).errno == "EINVAL"
    assert status(door, queue)["qnum"] == 0
