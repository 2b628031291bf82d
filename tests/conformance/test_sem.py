"""System V semaphores: what semget and semop answer when nobody has to wait."""

import os
import time
from collections.abc import Callable

import pytest
from doors import NOBODY, Door
from native import kernel_seconds

KEY = 0x5359_0101
SEMVMX = 32767

SECONDS = "a time-out is in seconds, so it has no tv_nsec; the C call form is tested in test_semaphore_calls_in_text"


def values(door: Door, semid: int) -> list[int]:
    return door.ok("semctl", semid, 0, "GETALL").results["values"]


def limits() -> list[int]:
    """SEMMSL, SEMMNS, SEMOPM, SEMMNI."""
    with open("/proc/sys/kernel/sem") as file:
        return [int(word) for word in file.read().split()]


# --- semget


def test_semget_private_is_always_new(new_set: Callable[..., int]) -> None:
    assert len({new_set(1, "IPC_PRIVATE", flags) for flags in ("IPC_CREAT|0600", "0600", "IPC_EXCL|0600")}) == 3


def test_semget_finds_what_has_the_key(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(3, KEY)
    for flags in ("0", "0600", "IPC_CREAT|0600", "IPC_EXCL"):
        assert door.ok("semget", KEY, 3, flags).ret == semid


def test_semget_of_an_unknown_key_is_enoent(door: Door) -> None:
    assert door.call("semget", KEY, 1, "0600").errno == "ENOENT"


def test_semget_exclusive_on_an_existing_key_is_eexist(door: Door, new_set: Callable[..., int]) -> None:
    new_set(1, KEY)
    assert door.call("semget", KEY, 1, "IPC_CREAT|IPC_EXCL|0600").errno == "EEXIST"


@pytest.mark.parametrize("nsems", [0, -1, "more than SEMMSL"])
def test_semget_of_none_or_too_many_is_einval(door: Door, nsems: int | str) -> None:
    count = limits()[0] + 1 if isinstance(nsems, str) else nsems
    assert door.call("semget", KEY, count, "IPC_CREAT|0600").errno == "EINVAL"
    assert door.call("semget", "IPC_PRIVATE", count, "0600").errno == "EINVAL"


def test_semget_of_semmsl_semaphores_succeeds(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(limits()[0])
    assert values(door, semid) == [0] * limits()[0]


@pytest.mark.parametrize(("asked", "expected"), [(3, ""), (2, ""), (1, ""), (0, ""), (4, "EINVAL"), (-1, "EINVAL")])
def test_an_existing_set_is_found_by_asking_for_no_more_than_it_has(
    door: Door, new_set: Callable[..., int], asked: int, expected: str
) -> None:
    semid = new_set(3, KEY)
    for flags in ("0", "IPC_CREAT|0600"):
        result = door.call("semget", KEY, asked, flags)
        assert result.errno == expected
        assert result.ret == (-1 if expected else semid)


@pytest.mark.parametrize(("mode", "asked"), [("0600", "0600"), ("0600", "0400"), ("0604", "0002"), ("0640", "0040")])
def test_semget_is_eacces_when_the_mode_forbids_what_is_asked(
    door: Door, new_set: Callable[..., int], mode: str, asked: str
) -> None:
    new_set(1, KEY, f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "semget", KEY, 1, asked).errno == "EACCES"


@pytest.mark.parametrize(("mode", "asked"), [("0600", "0"), ("0604", "0004"), ("0666", "0666")])
def test_semget_by_another_user_succeeds_when_the_mode_allows_it(
    door: Door, new_set: Callable[..., int], mode: str, asked: str
) -> None:
    semid = new_set(1, KEY, f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "semget", KEY, 1, asked).ret == semid


@pytest.mark.parametrize("limit", ["{0} {1} {2} 1", "{0} 2 {2} {3}"], ids=["SEMMNI", "SEMMNS"])
def test_semget_is_enospc_at_the_limits_of_sets_and_of_semaphores(
    door: Door, new_set: Callable[..., int], sysctl: Callable[[str, object], None], limit: str
) -> None:
    new_set(2)
    sysctl("kernel/sem", limit.format(*limits()))
    assert door.call("semget", "IPC_PRIVATE", 1, "0600").errno == "ENOSPC"


def test_a_new_set_is_zero_and_belongs_to_its_maker(door: Door, new_set: Callable[..., int]) -> None:
    before = kernel_seconds()
    semid = new_set(3, KEY, "IPC_CREAT|0642", uid=NOBODY)
    status = door.ok("semctl", semid, 0, "IPC_STAT").results
    assert before <= status.pop("ctime") <= kernel_seconds()
    status.pop("seq")
    assert status == {
        "key": KEY,
        "uid": NOBODY,
        "gid": NOBODY,
        "cuid": NOBODY,
        "cgid": NOBODY,
        "mode": 0o642,
        "otime": 0,
        "nsems": 3,
    }
    assert values(door, semid) == [0, 0, 0]
    assert [door.ok("semctl", semid, num, "GETPID").ret for num in range(3)] == [0, 0, 0]


# --- semop: all or nothing


@pytest.mark.parametrize(
    ("before", "operations", "expected", "after"),
    [
        ([0, 0], [(0, 1)], "", [1, 0]),
        ([5, 0], [(0, -5)], "", [0, 0]),
        ([0, 0], [(0, 0)], "", [0, 0]),
        ([1, 2], [(0, -1), (1, -2)], "", [0, 0]),
        # In the order of the array, against running values.
        ([0, 0], [(0, 1), (0, -1)], "", [0, 0]),
        ([0, 0], [(0, -1, "IPC_NOWAIT"), (0, 1)], "EAGAIN", [0, 0]),
        ([1, 0], [(0, -1), (0, 0)], "", [0, 0]),
        ([1, 0], [(0, 0, "IPC_NOWAIT"), (0, -1)], "EAGAIN", [1, 0]),
        ([3, 0], [(0, -1), (1, 1), (0, -2)], "", [0, 1]),
        # What was done before the operation that fails is not done.
        ([3, 0], [(0, -3), (1, -1, "IPC_NOWAIT")], "EAGAIN", [3, 0]),
        ([3, 0], [(0, -3, "IPC_NOWAIT"), (1, 7), (0, -1, "IPC_NOWAIT")], "EAGAIN", [3, 0]),
        ([3, SEMVMX], [(0, -3), (1, 1)], "ERANGE", [3, SEMVMX]),
        # IPC_NOWAIT counts for the operation that would wait.
        ([0, 0], [(0, -1, "IPC_NOWAIT"), (1, -1)], "EAGAIN", [0, 0]),
        ([1, 0], [(0, 0, "IPC_NOWAIT")], "EAGAIN", [1, 0]),
        ([0, 0], [(0, -1, "IPC_NOWAIT|SEM_UNDO")], "EAGAIN", [0, 0]),
        ([SEMVMX, 0], [(0, 1)], "ERANGE", [SEMVMX, 0]),
        ([SEMVMX - 1, 0], [(0, 1)], "", [SEMVMX, 0]),
        ([SEMVMX, 0], [(0, 1), (0, -1)], "ERANGE", [SEMVMX, 0]),
        ([SEMVMX, 0], [(0, -1), (0, 1)], "", [SEMVMX, 0]),
        ([0, 0], [(2, 1)], "EFBIG", [0, 0]),
        ([0, 0], [(0, 1), (2, 1)], "EFBIG", [0, 0]),
        ([0, 0], [(65535, 1)], "EFBIG", [0, 0]),
    ],
)
@pytest.mark.parametrize("call", ["semop", "semtimedop"])
def test_semop_does_all_or_nothing(
    door: Door,
    new_set: Callable[..., int],
    call: str,
    before: list[int],
    operations: list[tuple],
    expected: str,
    after: list[int],
) -> None:
    semid = new_set(values=before)
    assert door.call(call, semid, *operations).errno == expected
    assert values(door, semid) == after


def test_an_array_of_semopm_operations_is_done_and_one_more_is_e2big(door: Door, new_set: Callable[..., int]) -> None:
    most = limits()[2]
    semid = new_set()
    door.ok("semop", semid, *[(0, 1)] * most)
    assert values(door, semid) == [most, 0]
    assert door.call("semop", semid, *[(0, -1)] * (most + 1)).errno == "E2BIG"
    assert values(door, semid) == [most, 0]


def test_semop_of_no_operations_is_einval(door: Door, semaphores: int) -> None:
    assert door.call("semop", semaphores).errno == "EINVAL"


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("semop", ((0, 1),)),
        ("semop", ((0, 1, "SEM_UNDO"),)),
        ("semop", ((0, -1),)),
        ("semtimedop", ((0, -1),)),
        ("semctl", (0, "GETVAL")),
        ("semctl", (0, "GETALL")),
        ("semctl", (0, "SETVAL", 1)),
        ("semctl", (0, "SETALL", [1, 2])),
        ("semctl", (0, "IPC_STAT")),
        ("semctl", (0, "IPC_RMID")),
    ],
)
def test_an_id_that_names_no_set_is_einval(door: Door, new_set: Callable[..., int], call: str, args: tuple) -> None:
    removed = new_set()
    door.ok("semctl", removed, 0, "IPC_RMID")
    for semid in (removed, -1, 0x7FFFFFFF):
        assert door.call(call, semid, *args).errno == "EINVAL"


@pytest.mark.parametrize("operation", [(0, 1), (0, -1), (0, 1, "SEM_UNDO"), (0, -1, "IPC_NOWAIT")])
def test_altering_needs_write_permission(door: Door, new_set: Callable[..., int], operation: tuple) -> None:
    semid = new_set(flags="IPC_CREAT|0644", values=[1, 0])
    assert door.call_as(NOBODY, "semop", semid, operation).errno == "EACCES"
    assert values(door, semid) == [1, 0]


@pytest.mark.parametrize(("mode", "expected"), [("0604", ""), ("0602", "EACCES"), ("0606", "")])
def test_waiting_for_zero_needs_read_permission(
    door: Door, new_set: Callable[..., int], mode: str, expected: str
) -> None:
    semid = new_set(flags=f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "semop", semid, (0, 0)).errno == expected


@pytest.mark.parametrize(("mode", "expected"), [("0604", "EACCES"), ("0602", ""), ("0606", "")])
def test_an_array_that_alters_and_waits_for_zero_needs_write_permission_alone(
    door: Door, new_set: Callable[..., int], mode: str, expected: str
) -> None:
    semid = new_set(flags=f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "semop", semid, (0, 0), (1, 1)).errno == expected


def test_semop_sets_otime_and_the_pid_of_every_semaphore_it_names(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(3, values=[0, 0, 1])
    before = kernel_seconds()
    child = door.start("semop", semid, (0, 1), (2, -1), (0, -1), (2, 0))
    assert child.result().ret == 0
    assert [door.ok("semctl", semid, num, "GETPID").ret for num in range(3)] == [child.pid, os.getpid(), child.pid]
    assert before <= door.ok("semctl", semid, 0, "IPC_STAT").results["otime"] <= kernel_seconds()


def test_what_one_door_gives_the_host_takes_and_the_other_way_round(door: Door, semaphores: int, native: Door) -> None:
    door.ok("semop", semaphores, (0, 3))
    native.ok("semop", semaphores, (0, -2, "IPC_NOWAIT"), (1, 4))
    door.ok("semop", semaphores, (0, -1, "IPC_NOWAIT"), (1, -4, "IPC_NOWAIT"))
    assert values(native, semaphores) == [0, 0]


# --- time-outs


@pytest.mark.parametrize("timeout", [0, 0.001, 60])
@pytest.mark.parametrize("flags", ["0", "SEM_UNDO"])
def test_a_time_out_means_nothing_to_a_call_that_need_not_wait(
    door: Door, new_set: Callable[..., int], timeout: float, flags: str
) -> None:
    semid = new_set(values=[2, 0])
    assert door.call("semtimedop", semid, (0, -1, flags), timeout=timeout).ret == 0
    assert values(door, semid) == [1, 0]
    door.ok("semop", semid, (0, 1, flags))


@pytest.mark.parametrize("timeout", [0, 0.05])
@pytest.mark.parametrize("flags", ["0", "SEM_UNDO"])
@pytest.mark.parametrize("operation", [(0, -1), (1, 0)])
def test_a_time_out_is_eagain_and_changes_nothing(
    door: Door, new_set: Callable[..., int], timeout: float, flags: str, operation: tuple
) -> None:
    semid = new_set(values=[0, 1])
    began = time.monotonic()
    assert door.call("semtimedop", semid, (1, 1), (*operation, flags), timeout=timeout).errno == "EAGAIN"
    assert time.monotonic() - began >= timeout
    assert values(door, semid) == [0, 1]
    assert [door.ok("semctl", semid, 0, command).ret for command in ("GETNCNT", "GETZCNT")] == [0, 0]


@pytest.mark.not_for(native="its time-out is semtimedop's")
@pytest.mark.parametrize("flags", ["0", "SEM_UNDO"])
def test_the_time_out_of_semop_is_eagain_too(door: Door, semaphores: int, flags: str) -> None:
    assert door.call("semop", semaphores, (0, -1, flags), timeout=0.05).errno == "EAGAIN"


@pytest.mark.not_for(dispatcher=SECONDS, text=SECONDS, json=SECONDS, msgpack=SECONDS)
@pytest.mark.parametrize("nanoseconds", [-1, 1_000_000_000])
@pytest.mark.parametrize("delta", [-1, 1])
def test_a_bad_tv_nsec_is_einval_also_when_it_need_not_wait(
    door: Door, semaphores: int, delta: int, nanoseconds: int
) -> None:
    assert door.call("semtimedop", semaphores, (0, delta), nanoseconds=nanoseconds).errno == "EINVAL"
    assert values(door, semaphores) == [0, 0]


# --- semget with init


ONLY_HERE = "init is the gate's own"


@pytest.mark.not_for(native=ONLY_HERE)
@pytest.mark.parametrize("initial", [[1, 2, 3], [0, 0, 0], [SEMVMX, 0, SEMVMX]])
@pytest.mark.parametrize("key", ["IPC_PRIVATE", KEY])
def test_init_gives_a_new_set_its_values_and_an_otime(
    door: Door, native: Door, initial: list[int], key: int | str
) -> None:
    semid = door.ok("semget", key, 3, "IPC_CREAT|0600", init=initial).ret
    assert values(door, semid) == initial
    assert door.ok("semctl", semid, 0, "IPC_STAT").results["otime"] > 0
    native.ok("semctl", semid, 0, "IPC_RMID")


@pytest.mark.not_for(native=ONLY_HERE)
def test_init_leaves_a_set_that_exists_as_it_is(door: Door, new_set: Callable[..., int]) -> None:
    semid = new_set(2, KEY, values=[7, 8])
    assert door.ok("semget", KEY, 2, "IPC_CREAT|0600", init=[1, 2]).ret == semid
    assert values(door, semid) == [7, 8]
    assert door.call("semget", KEY, 2, "IPC_CREAT|IPC_EXCL|0600", init=[1, 2]).errno == "EEXIST"


@pytest.mark.not_for(native=ONLY_HERE)
@pytest.mark.parametrize(
    ("flags", "initial", "expected"),
    [
        ("0600", [1, 2], "EINVAL"),
        ("IPC_CREAT|0600", [1], "EINVAL"),
        ("IPC_CREAT|0600", [1, 2, 3], "EINVAL"),
        ("IPC_CREAT|0600", [0, SEMVMX + 1], "ERANGE"),
        ("IPC_CREAT|0600", [-1, 0], "ERANGE"),
        ("IPC_CREAT|0600", [65536, 0], "ERANGE"),
    ],
)
def test_init_that_cannot_be_leaves_no_set_behind(door: Door, flags: str, initial: list[int], expected: str) -> None:
    assert door.call("semget", KEY, 2, flags, init=initial).errno == expected
    assert door.call("semget", KEY, 0, "0").errno == "ENOENT"


@pytest.mark.not_for(native=ONLY_HERE)
def test_init_of_a_set_that_its_maker_may_not_write_is_eacces_and_leaves_none(door: Door) -> None:
    assert door.call_as(NOBODY, "semget", KEY, 1, "IPC_CREAT|0400", init=[1]).errno == "EACCES"
    assert door.call("semget", KEY, 0, "0").errno == "ENOENT"
