"""System V shared memory: shmget, and shmctl with every command."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doors import NOBODY, Door
from native_shm import kernel_time, peek, poke

KEY = 0x5359_0020
PAGE = 4096


def status(door: Door, segment: int) -> dict[str, int]:
    return door.ok("shmctl", segment, "IPC_STAT").results


@contextmanager
def limit(name: str, value: int) -> Iterator[None]:
    """A limit of this IPC namespace, set to ``value`` for a while."""
    file = Path("/proc/sys/kernel", name)
    before = file.read_text()
    try:
        file.write_text(str(value))
    except OSError as error:
        pytest.skip(f"kernel.{name} cannot be set here: {error.strerror}")
    try:
        yield
    finally:
        file.write_text(before)


# --- shmget


def test_shmget_private_is_always_new(new_segment: Callable[..., int]) -> None:
    assert len({new_segment(flags=flags) for flags in ("IPC_CREAT|0600", "0600", "IPC_EXCL|0600")}) == 3


def test_shmget_finds_what_has_the_key(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment(key=KEY)
    for flags in ("0", "0600", "IPC_CREAT|0600", "IPC_EXCL"):
        assert door.ok("shmget", KEY, PAGE, flags).ret == segment


def test_shmget_of_an_unknown_key_is_enoent(door: Door) -> None:
    assert door.call("shmget", KEY, PAGE, "0600").errno == "ENOENT"


def test_shmget_exclusive_on_an_existing_key_is_eexist(door: Door, new_segment: Callable[..., int]) -> None:
    new_segment(key=KEY)
    assert door.call("shmget", KEY, PAGE, "IPC_CREAT|IPC_EXCL|0600").errno == "EEXIST"


@pytest.mark.parametrize(("mode", "asked"), [("0600", "0600"), ("0600", "0400"), ("0604", "0002"), ("0640", "0040")])
def test_shmget_is_eacces_when_the_mode_forbids_what_is_asked(
    door: Door, new_segment: Callable[..., int], mode: str, asked: str
) -> None:
    new_segment(key=KEY, flags=f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "shmget", KEY, PAGE, asked).errno == "EACCES"


def test_shmget_asking_for_no_right_finds_it_whatever_the_mode(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment(key=KEY, flags="IPC_CREAT|0")
    assert door.call_as(NOBODY, "shmget", KEY, 0, 0).ret == segment


@pytest.mark.parametrize("size", [0, -1, -4096])
@pytest.mark.parametrize("key", ["IPC_PRIVATE", KEY])
def test_a_new_segment_of_no_size_or_above_shmmax_is_einval(door: Door, key: int | str, size: int) -> None:
    assert door.call("shmget", key, size, "IPC_CREAT|0600").errno == "EINVAL"


def test_a_new_segment_above_a_lowered_shmmax_is_einval(door: Door, new_segment: Callable[..., int]) -> None:
    with limit("shmmax", 8192):
        assert door.call("shmget", "IPC_PRIVATE", 8193, "IPC_CREAT|0600").errno == "EINVAL"
        new_segment(8192)


@pytest.mark.parametrize("flags", ["0", "IPC_CREAT|0600"])
@pytest.mark.parametrize(("size", "expected"), [(0, ""), (1, ""), (5000, ""), (5001, "EINVAL"), (8192, "EINVAL")])
def test_an_existing_segment_is_found_with_a_size_up_to_its_own(
    door: Door, new_segment: Callable[..., int], size: int, expected: str, flags: str
) -> None:
    new_segment(5000, key=KEY)
    assert door.call("shmget", KEY, size, flags).errno == expected


@pytest.mark.parametrize("size", [1, 4095, 4096, 5001])
def test_an_unaligned_size_is_kept_exactly(door: Door, new_segment: Callable[..., int], size: int) -> None:
    assert status(door, new_segment(size))["segsz"] == size


def test_shmmni_segments_at_most_then_enospc(door: Door, new_segment: Callable[..., int]) -> None:
    with limit("shmmni", 1):
        new_segment()
        assert door.call("shmget", "IPC_PRIVATE", PAGE, "IPC_CREAT|0600").errno == "ENOSPC"


def test_shmall_pages_at_most_then_enospc(door: Door, new_segment: Callable[..., int]) -> None:
    with limit("shmall", 2):
        new_segment(PAGE + 1)
        assert door.call("shmget", "IPC_PRIVATE", 1, "IPC_CREAT|0600").errno == "ENOSPC"


def test_huge_pages_that_the_host_has_not_are_refused(door: Door) -> None:
    if int(Path("/proc/sys/vm/nr_hugepages").read_text()):
        pytest.skip("this host has huge pages")
    assert door.call("shmget", "IPC_PRIVATE", 2 << 20, "IPC_CREAT|SHM_HUGETLB|0600").errno == "ENOMEM"


def test_a_new_segment_is_zeros_and_nobodys(door: Door, new_segment: Callable[..., int]) -> None:
    began = kernel_time()
    segment = new_segment(5000, key=KEY, flags="IPC_CREAT|0640")
    found = status(door, segment)
    assert began <= found.pop("ctime") <= kernel_time()
    found.pop("seq")
    expected = {"key": KEY, "uid": 0, "gid": 0, "cuid": 0, "cgid": 0, "mode": 0o640, "segsz": 5000}
    assert found == expected | {"atime": 0, "dtime": 0, "cpid": os.getpid(), "lpid": 0, "nattch": 0}
    assert peek(segment, 5000) == bytes(5000)


def test_cpid_is_the_process_that_made_it_and_not_one_that_found_it(
    door: Door, new_segment: Callable[..., int]
) -> None:
    segment = new_segment(key=KEY)
    assert door.call_as(NOBODY, "shmget", KEY, 0, "IPC_CREAT").ret == segment
    assert status(door, segment)["cpid"] == os.getpid()


# --- IPC_STAT, SHM_STAT, SHM_STAT_ANY


@pytest.mark.parametrize(
    ("mode", "expected"), [("0600", "EACCES"), ("0622", "EACCES"), ("0604", ""), ("0640", "EACCES")]
)
def test_ipc_stat_needs_read_permission(door: Door, new_segment: Callable[..., int], mode: str, expected: str) -> None:
    assert door.call_as(NOBODY, "shmctl", new_segment(flags=f"IPC_CREAT|{mode}"), "IPC_STAT").errno == expected


def test_shm_stat_takes_a_slot_and_answers_the_id(door: Door, segment: int) -> None:
    slot = segment & 0x7FFF
    assert door.ok("shmctl", slot, "SHM_STAT").ret == segment
    assert door.ok("shmctl", slot, "SHM_STAT").results == status(door, segment)


def test_shm_stat_any_asks_for_no_permission(door: Door, segment: int) -> None:
    slot = segment & 0x7FFF
    assert door.call_as(NOBODY, "shmctl", slot, "SHM_STAT").errno == "EACCES"
    assert door.call_as(NOBODY, "shmctl", slot, "SHM_STAT_ANY").ret == segment


@pytest.mark.parametrize("command", ["SHM_STAT", "SHM_STAT_ANY", "IPC_STAT", "IPC_RMID", "IPC_SET", "SHM_LOCK"])
@pytest.mark.parametrize("shmid", [-1, 32000])
def test_an_id_or_slot_that_is_none_is_einval(door: Door, command: str, shmid: int) -> None:
    assert door.call("shmctl", shmid, command).errno == "EINVAL"


def test_an_unknown_command_is_einval(door: Door, segment: int) -> None:
    assert door.call("shmctl", segment, 99).errno == "EINVAL"


# --- IPC_INFO, SHM_INFO


def test_ipc_info_tells_the_limits(door: Door, segment: int) -> None:
    found = door.ok("shmctl", 0, "IPC_INFO")
    for name in ("shmmax", "shmmni", "shmall"):
        assert found.results[name] == int(Path("/proc/sys/kernel", name).read_text())
    assert found.results["shmmin"] == 1
    assert found.ret >= segment & 0x7FFF


def test_shm_info_tells_what_is_in_use(door: Door, new_segment: Callable[..., int]) -> None:
    before = door.ok("shmctl", 0, "SHM_INFO").results
    poke(new_segment(3 * PAGE), b"one page is used")
    after = door.ok("shmctl", 0, "SHM_INFO").results
    assert after["used_ids"] - before["used_ids"] == 1
    assert after["shm_tot"] - before["shm_tot"] == 3
    assert after["shm_rss"] - before["shm_rss"] == 1


# --- IPC_SET


def test_ipc_set_changes_owner_and_mode_and_nothing_else(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment(key=KEY)
    before = status(door, segment)
    now = kernel_time()
    door.ok("shmctl", segment, "IPC_SET", uid=NOBODY, gid=NOBODY, mode=0o640)
    after = status(door, segment)
    assert now <= after.pop("ctime") <= kernel_time()
    before.pop("ctime")
    assert after == before | {"uid": NOBODY, "gid": NOBODY, "mode": 0o640}


def test_ipc_set_takes_only_the_low_9_bits_of_the_mode(door: Door, segment: int) -> None:
    door.ok("shmctl", segment, "IPC_SET", mode=0o7640)
    assert status(door, segment)["mode"] == 0o640


@pytest.mark.parametrize("command", ["IPC_SET", "IPC_RMID", "SHM_LOCK", "SHM_UNLOCK"])
def test_another_user_may_not_change_it(door: Door, new_segment: Callable[..., int], command: str) -> None:
    segment = new_segment(flags="IPC_CREAT|0666")
    before = status(door, segment)
    assert door.call_as(NOBODY, "shmctl", segment, command).errno == "EPERM"
    assert status(door, segment) == before


def test_the_new_owner_and_the_creator_may_both_set_and_remove(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment(uid=NOBODY)
    door.ok("shmctl", segment, "IPC_SET", uid=NOBODY - 1)
    for uid in (NOBODY, NOBODY - 1):
        assert door.call_as(uid, "shmctl", segment, "IPC_SET", mode=0o600).errno == ""
    assert door.call_as(NOBODY - 2, "shmctl", segment, "IPC_RMID").errno == "EPERM"
    assert door.call_as(NOBODY - 1, "shmctl", segment, "IPC_RMID").errno == ""


# --- SHM_LOCK, SHM_UNLOCK


def test_a_locked_segment_shows_it_in_its_mode(door: Door, segment: int) -> None:
    for _ in range(2):
        door.ok("shmctl", segment, "SHM_LOCK")
        assert status(door, segment)["mode"] == 0o2600
    for _ in range(2):
        door.ok("shmctl", segment, "SHM_UNLOCK")
        assert status(door, segment)["mode"] == 0o600


# --- IPC_RMID of what nobody has attached (what is attached: test_shm_attach)


def test_ipc_rmid_removes_at_once_and_a_second_time_is_einval(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment(key=KEY)
    assert door.ok("shmctl", segment, "IPC_RMID").ret == 0
    assert door.call("shmctl", segment, "IPC_RMID").errno == "EINVAL"
    assert door.call("shmget", KEY, 0, "0").errno == "ENOENT"
    assert door.call("shmat", segment).errno == "EINVAL"
