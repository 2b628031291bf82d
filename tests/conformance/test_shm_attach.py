"""System V shared memory: shmat and shmdt, what is counted of them, and how a removed segment lives on and goes."""

import os
import signal
from collections.abc import Callable
from itertools import pairwise

import pytest
from children import wait_until
from doors import NOBODY, Door
from native_shm import kernel_time, peek, poke

KEY = 0x5359_0030
PAGE = 4096
#: An address where no process of these tests has anything.
FREE = 0x6000_0000_0000


def status(door: Door, segment: int) -> dict[str, int]:
    return door.ok("shmctl", segment, "IPC_STAT").results


def attach_and_sleep(door: Door, segment: int) -> Callable[[], None]:
    def body() -> None:
        door.ok("shmat", segment)
        while True:
            signal.pause()

    return body


# --- the address


@pytest.mark.parametrize("none", [(), (0,), ("NULL",)])
def test_without_an_address_a_free_one_is_taken(
    attach: Callable[..., int], new_segment: Callable[..., int], none: tuple[int | str, ...]
) -> None:
    segment = new_segment(5000)
    addresses = sorted(attach(segment, *none) for _ in range(4))
    assert all(address > 0 and address % PAGE == 0 for address in addresses)
    assert all(high - low >= 2 * PAGE for low, high in pairwise(addresses))


def test_an_address_that_is_asked_for_is_had(attach: Callable[..., int], segment: int) -> None:
    assert attach(segment, FREE) == FREE


@pytest.mark.parametrize("off", [1, 8, 4095])
def test_an_unaligned_address_is_einval_and_shm_rnd_rounds_it_down(
    door: Door, attach: Callable[..., int], segment: int, off: int
) -> None:
    assert door.call("shmat", segment, FREE + off).errno == "EINVAL"
    assert attach(segment, FREE + off, "SHM_RND") == FREE


@pytest.mark.parametrize(
    ("address", "flags"), [(0, "SHM_REMAP"), (1, "SHM_REMAP|SHM_RND"), (4095, "SHM_REMAP|SHM_RND")]
)
def test_shm_remap_needs_an_address(door: Door, segment: int, address: int, flags: str) -> None:
    assert door.call("shmat", segment, address, flags).errno == "EINVAL"


@pytest.mark.parametrize("place", [FREE - PAGE, FREE, FREE + PAGE])
def test_overlapping_is_einval_without_shm_remap(
    door: Door, attach: Callable[..., int], new_segment: Callable[..., int], place: int
) -> None:
    segment = new_segment(PAGE + 1)
    attach(segment, FREE)
    assert door.call("shmat", segment, place).errno == "EINVAL"
    assert status(door, segment)["nattch"] == 1


def test_neighbours_do_not_overlap(attach: Callable[..., int], new_segment: Callable[..., int]) -> None:
    segment = new_segment(PAGE - 1)
    for place in (FREE, FREE + PAGE, FREE - PAGE):
        assert attach(segment, place) == place


def test_shm_remap_replaces_what_is_there(
    door: Door, attach: Callable[..., int], new_segment: Callable[..., int]
) -> None:
    old, new = new_segment(), new_segment()
    attach(old, FREE)
    assert attach(new, FREE, "SHM_REMAP") == FREE
    assert (status(door, old)["nattch"], status(door, new)["nattch"]) == (0, 1)
    door.ok("shmdt", FREE)
    assert status(door, new)["nattch"] == 0


def test_a_larger_one_replaces_all_that_it_covers(
    door: Door, attach: Callable[..., int], new_segment: Callable[..., int]
) -> None:
    old, new = new_segment(), new_segment(3 * PAGE)
    for place in (FREE, FREE + 2 * PAGE):
        attach(old, place)
    attach(new, FREE, "SHM_REMAP")
    assert (status(door, old)["nattch"], status(door, new)["nattch"]) == (0, 1)


@pytest.mark.parametrize("address", [-4096, 1 << 47, (1 << 47) - PAGE])
def test_an_address_that_no_process_has_is_refused(door: Door, segment: int, address: int) -> None:
    assert door.call("shmat", segment, address & (1 << 64) - 1).errno in ("EINVAL", "ENOMEM")
    assert status(door, segment)["nattch"] == 0


def test_bits_that_mean_nothing_to_shmat_are_ignored(door: Door, attach: Callable[..., int], segment: int) -> None:
    attach(segment, 0, "0666")
    assert status(door, segment)["nattch"] == 1


# --- rights


@pytest.mark.parametrize(
    ("mode", "flags", "expected"),
    [
        ("0600", "0", "EACCES"),
        ("0600", "SHM_RDONLY", "EACCES"),
        ("0604", "0", "EACCES"),
        ("0604", "SHM_RDONLY", ""),
        ("0602", "0", "EACCES"),
        ("0606", "0", ""),
    ],
)
def test_writing_needs_both_permissions_and_shm_rdonly_read_alone(
    door: Door, new_segment: Callable[..., int], mode: str, flags: str, expected: str
) -> None:
    segment = new_segment(flags=f"IPC_CREAT|{mode}")
    assert door.call_as(NOBODY, "shmat", segment, 0, flags).errno == expected


@pytest.mark.parametrize("shmid", [-1, 32000])
def test_no_such_segment_is_einval(door: Door, shmid: int) -> None:
    assert door.call("shmat", shmid).errno == "EINVAL"


# --- shmdt


def test_shmdt_of_an_address_where_nothing_begins_is_einval(
    door: Door, attach: Callable[..., int], new_segment: Callable[..., int]
) -> None:
    segment = new_segment(2 * PAGE)
    attach(segment, FREE)
    for address in (0, FREE + 1, FREE + PAGE, FREE - PAGE, FREE + 2 * PAGE):
        assert door.call("shmdt", address).errno == "EINVAL"
    assert status(door, segment)["nattch"] == 1


def test_shmdt_a_second_time_is_einval(door: Door, attach: Callable[..., int], segment: int) -> None:
    address = attach(segment)
    assert door.ok("shmdt", address).ret == 0
    assert door.call("shmdt", address).errno == "EINVAL"


def test_an_address_is_free_again_after_shmdt(door: Door, attach: Callable[..., int], segment: int) -> None:
    for _ in range(3):
        attach(segment, FREE)
        door.ok("shmdt", FREE)


# --- what is counted


def test_attaching_and_detaching_are_counted_with_time_and_process(
    door: Door, attach: Callable[..., int], segment: int
) -> None:
    began = kernel_time()
    addresses = [attach(segment), attach(segment, 0, "SHM_RDONLY")]
    found = status(door, segment)
    assert (found["nattch"], found["lpid"], found["dtime"]) == (2, os.getpid(), 0)
    assert began <= found["atime"] <= kernel_time()
    for left, address in zip((1, 0), addresses, strict=True):
        door.ok("shmdt", address)
        found = status(door, segment)
        assert (found["nattch"], found["lpid"]) == (left, os.getpid())
        assert began <= found["dtime"] <= kernel_time()


def test_what_fails_is_not_counted(door: Door, attach: Callable[..., int], segment: int) -> None:
    attach(segment, FREE)
    before = status(door, segment)
    for arguments in ((FREE,), (FREE + 1,), (0, "SHM_REMAP")):
        assert door.call("shmat", segment, *arguments).errno == "EINVAL"
    assert status(door, segment) == before


def test_a_process_that_ends_is_detached(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment(flags="IPC_CREAT|0666")
    child = door.start("shmat", segment, as_uid=NOBODY)
    assert not child.result().errno
    wait_until(lambda: status(door, segment)["nattch"] == 0, "the detach of a process that ended")
    assert status(door, segment)["lpid"] == child.pid
    assert status(door, segment)["dtime"] > 0


def test_a_process_that_is_killed_is_detached_from_all(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment()
    children = [door.spawn(attach_and_sleep(door, segment)) for _ in range(3)]
    wait_until(lambda: status(door, segment)["nattch"] == 3, "three processes attach")
    for left, child in zip((2, 1, 0), children, strict=True):
        child.kill()
        wait_until(lambda left=left: status(door, segment)["nattch"] == left, "the detach of one that was killed")


# --- contents


def test_contents_survive_the_detach_of_all(door: Door, attach: Callable[..., int], segment: int) -> None:
    poke(segment, b"kept")
    door.ok("shmdt", attach(segment))
    assert status(door, segment)["nattch"] == 0
    assert peek(segment, 5) == b"kept\0"


# --- removal of what is attached


def test_a_removed_segment_lives_until_the_last_detach(
    door: Door, attach: Callable[..., int], new_segment: Callable[..., int]
) -> None:
    segment = new_segment(key=KEY)
    first = attach(segment)
    door.ok("shmctl", segment, "IPC_RMID")
    found = status(door, segment)
    assert (found["mode"], found["key"], found["nattch"]) == (0o1600, 0, 1)
    assert door.call("shmget", KEY, 0, "0").errno == "ENOENT"

    second = attach(segment)
    assert status(door, segment)["nattch"] == 2
    assert door.ok("shmctl", segment, "IPC_RMID").ret == 0  # again: harmless
    door.ok("shmdt", first)
    assert status(door, segment)["nattch"] == 1
    door.ok("shmdt", second)
    assert door.call("shmctl", segment, "IPC_STAT").errno == "EINVAL"


def test_its_key_can_name_another_while_it_lives_on(
    door: Door, attach: Callable[..., int], new_segment: Callable[..., int]
) -> None:
    old = new_segment(key=KEY)
    attach(old)
    door.ok("shmctl", old, "IPC_RMID")
    new = new_segment(key=KEY)
    assert new != old
    assert door.ok("shmget", KEY, 0).ret == new


def test_a_removed_segment_goes_with_the_process_that_has_it(door: Door, new_segment: Callable[..., int]) -> None:
    segment = new_segment()
    child = door.spawn(attach_and_sleep(door, segment))
    wait_until(lambda: status(door, segment)["nattch"] == 1, "the child attaches")
    door.ok("shmctl", segment, "IPC_RMID")
    assert status(door, segment)["mode"] == 0o1600
    child.kill()
    wait_until(lambda: door.call("shmctl", segment, "IPC_STAT").errno == "EINVAL", "the segment goes")
