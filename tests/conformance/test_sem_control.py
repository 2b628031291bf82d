"""System V semaphores: semctl with every command, and who may do what to whose set."""

import os
from collections.abc import Callable

import pytest
from doors import NOBODY, Door
from native import kernel_seconds

KEY = 0x5359_0102
SEMVMX = 32767


def status(door: Door, semid: int) -> dict[str, int]:
    return door.ok("semctl", semid, 0, "IPC_STAT").results


def values(door: Door, semid: int) -> list[int]:
    return door.ok("semctl", semid, 0, "GETALL").results["values"]


# --- values


def test_setval_and_getval_are_of_one_semaphore(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(3)
    assert door.ok("semctl", semid, 1, "SETVAL", 7).ret == 0
    assert [door.ok("semctl", semid, num, "GETVAL").ret for num in range(3)] == [0, 7, 0]


def test_setall_and_getall_are_of_all(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(3)
    assert door.ok("semctl", semid, 0, "SETALL", [1, SEMVMX, 3]).ret == 0
    assert door.ok("semctl", semid, 0, "GETALL")[:3] == (0, "", {"values": [1, SEMVMX, 3]})


@pytest.mark.parametrize(
    ("num", "command", "value"),
    [
        *[(0, "SETVAL", value) for value in (-1, SEMVMX + 1, 65536)],
        (0, "SETALL", [0, SEMVMX + 1]),
        (0, "SETALL", [65535, 0]),
    ],
)
def test_a_value_below_0_or_above_semvmx_is_erange(
    door: Door, new_set: Callable[..., int], num: int, command: str, value: int | list[int]
) -> None:
    semid = new_set(values=[4, 5])
    assert door.call("semctl", semid, num, command, value).errno == "ERANGE"
    assert values(door, semid) == [4, 5]


@pytest.mark.parametrize("value", [0, 1, SEMVMX])
def test_setval_takes_the_values_up_to_semvmx(door: Door, semaphores: int, value: int) -> None:
    door.ok("semctl", semaphores, 1, "SETVAL", value)
    assert door.ok("semctl", semaphores, 1, "GETVAL").ret == value


@pytest.mark.parametrize("num", [2, -1, 65536])
@pytest.mark.parametrize(
    ("command", "value"), [("GETVAL", 0), ("GETPID", 0), ("GETNCNT", 0), ("GETZCNT", 0), ("SETVAL", 1)]
)
def test_a_semnum_that_the_set_has_not_is_einval(
    door: Door, semaphores: int, num: int, command: str, value: int
) -> None:
    assert door.call("semctl", semaphores, num, command, value).errno == "EINVAL"


@pytest.mark.parametrize("command", ["GETALL", "IPC_STAT"])
@pytest.mark.parametrize("num", [-1, 2, 99])
def test_semnum_means_nothing_to_commands_about_the_whole_set(
    door: Door, semaphores: int, num: int, command: str
) -> None:
    assert door.call("semctl", semaphores, num, command).errno == ""


def test_setval_and_setall_are_by_their_caller_and_change_ctime_and_not_otime(
    door: Door, new_set: Callable[..., int]
) -> None:
    semid = new_set(3)
    assert [door.ok("semctl", semid, num, "GETPID").ret for num in range(3)] == [0] * 3
    child = door.start("semctl", semid, 1, "SETVAL", 5)
    assert child.result().ret == 0
    assert [door.ok("semctl", semid, num, "GETPID").ret for num in range(3)] == [0, child.pid, 0]
    before = kernel_seconds()
    door.ok("semctl", semid, 0, "SETALL", [1, 2, 3])
    assert [door.ok("semctl", semid, num, "GETPID").ret for num in range(3)] == [os.getpid()] * 3
    after = status(door, semid)
    assert before <= after["ctime"] <= kernel_seconds()
    assert after["otime"] == 0


@pytest.mark.parametrize("command", ["GETVAL", "GETALL", "GETPID", "GETNCNT", "GETZCNT", "IPC_STAT"])
@pytest.mark.parametrize(("mode", "expected"), [("0604", ""), ("0602", "EACCES"), ("0640", "EACCES")])
def test_looking_needs_read_permission(
    door: Door, new_set: Callable[..., int], mode: str, expected: str, command: str
) -> None:
    semid = new_set(flags=f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "semctl", semid, 0, command).errno == expected


@pytest.mark.parametrize(("command", "value"), [("SETVAL", 3), ("SETALL", [3, 4])])
@pytest.mark.parametrize(("mode", "expected"), [("0604", "EACCES"), ("0602", ""), ("0620", "EACCES")])
def test_setting_needs_write_permission(
    door: Door, new_set: Callable[..., int], mode: str, expected: str, command: str, value: int | list[int]
) -> None:
    semid = new_set(flags=f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "semctl", semid, 0, command, value).errno == expected
    assert door.ok("semctl", semid, 0, "GETVAL").ret == (0 if expected else 3)


# --- IPC_SET


def test_ipc_set_changes_owner_and_mode_and_nothing_else(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(3, KEY, values=[1, 2, 3])
    before = status(door, semid)
    now = kernel_seconds()
    assert door.ok("semctl", semid, 0, "IPC_SET", uid=NOBODY, gid=NOBODY, mode=0o640).ret == 0
    after = status(door, semid)
    assert now <= after.pop("ctime") <= kernel_seconds()
    before.pop("ctime")
    assert after == before | {"uid": NOBODY, "gid": NOBODY, "mode": 0o640}
    assert values(door, semid) == [1, 2, 3]


def test_ipc_set_takes_only_the_low_9_bits_of_the_mode(door: Door, semaphores: int) -> None:
    door.ok("semctl", semaphores, 0, "IPC_SET", mode=0o7640)
    assert status(door, semaphores)["mode"] == 0o640


def test_ipc_set_of_another_is_eperm(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(flags="IPC_CREAT|0666")
    before = status(door, semid)
    assert door.call_as(NOBODY, "semctl", semid, 0, "IPC_SET", mode=0o600).errno == "EPERM"
    assert status(door, semid) == before


def test_the_new_owner_and_the_creator_may_both_set_and_remove(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(uid=NOBODY)
    door.ok("semctl", semid, 0, "IPC_SET", uid=NOBODY - 1)
    for uid in (NOBODY, NOBODY - 1):
        assert door.call_as(uid, "semctl", semid, 0, "IPC_SET", mode=0o600).errno == ""
    assert door.call_as(NOBODY - 2, "semctl", semid, 0, "IPC_RMID").errno == "EPERM"
    assert door.call_as(NOBODY - 1, "semctl", semid, 0, "IPC_RMID").errno == ""


def test_ipc_stat_shows_a_key_above_the_signed_range_as_it_was_given(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(1, 0xDEADBEEF)
    assert status(door, semid)["key"] == 0xDEADBEEF
    assert door.ok("semget", 0xDEADBEEF - (1 << 32), 0, "0").ret == semid


# --- IPC_RMID


def test_ipc_rmid_removes_at_once_and_a_second_time_is_einval(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(2, KEY)
    assert door.ok("semctl", semid, 0, "IPC_RMID").ret == 0
    assert door.call("semctl", semid, 0, "IPC_RMID").errno == "EINVAL"
    assert door.call("semget", KEY, 0, "0").errno == "ENOENT"


def test_ipc_rmid_of_another_is_eperm(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(flags="IPC_CREAT|0666")
    assert door.call_as(NOBODY, "semctl", semid, 0, "IPC_RMID").errno == "EPERM"
    assert values(door, semid) == [0, 0]


def test_root_may_use_set_and_remove_the_sets_of_others(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(uid=NOBODY)
    door.ok("semctl", semid, 0, "IPC_SET", mode=0)
    door.ok("semop", semid, (0, 1))
    assert door.call_as(NOBODY, "semop", semid, (0, -1)).errno == "EACCES"
    door.ok("semctl", semid, 0, "IPC_RMID")


# --- the system's figures


def test_ipc_info_gives_the_limits(door: Door, semaphores: int) -> None:
    info = door.ok("semctl", 0, 0, "IPC_INFO").results
    with open("/proc/sys/kernel/sem") as file:
        expected = [int(word) for word in file.read().split()]
    assert [info[name] for name in ("semmsl", "semmns", "semopm", "semmni")] == expected
    assert info["semvmx"] == SEMVMX


def test_sem_info_gives_what_is_in_use(door: Door, new_set: Callable[..., int]) -> None:
    new_set(3), new_set(4)
    info = door.ok("semctl", 0, 0, "SEM_INFO").results
    # Here these two are: sets, semaphores (semctl(2)).
    assert (info["semusz"], info["semaem"]) == (2, 7)


@pytest.mark.parametrize("command", ["IPC_INFO", "SEM_INFO"])
def test_the_info_commands_answer_the_highest_used_index(door: Door, new_set: Callable[..., int], command: str) -> None:
    semids = [new_set() for _ in range(3)]
    assert door.ok("semctl", 0, 0, command).ret == max(semid & 0x7FFF for semid in semids)


@pytest.mark.parametrize("command", ["SEM_STAT", "SEM_STAT_ANY"])
def test_sem_stat_takes_an_index_and_answers_the_id(door: Door, new_set: Callable[..., int], command: str) -> None:
    semids = {new_set() for _ in range(3)}
    highest = door.ok("semctl", 0, 0, "SEM_INFO").ret
    found = [door.call("semctl", index, 0, command) for index in range(highest + 1)]
    assert {result.ret for result in found if not result.errno} == semids
    for result in found:
        assert result.errno == "EINVAL" or result.results == status(door, result.ret)
    assert door.call("semctl", highest + 1, 0, command).errno == "EINVAL"


def test_sem_stat_needs_read_permission_and_sem_stat_any_does_not(door: Door, semaphores: int) -> None:
    index = semaphores & 0x7FFF
    assert door.call_as(NOBODY, "semctl", index, 0, "SEM_STAT").errno == "EACCES"
    assert door.call_as(NOBODY, "semctl", index, 0, "SEM_STAT_ANY").ret == semaphores


@pytest.mark.parametrize("command", [4, 10, 21, 99, -1])
def test_an_unknown_command_is_einval(door: Door, semaphores: int, command: int) -> None:
    assert door.call("semctl", semaphores, 0, command).errno == "EINVAL"
    assert values(door, semaphores) == [0, 0]
