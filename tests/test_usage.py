"""The usage of objects goes with them, however they go, and what is kept is bounded."""

import errno
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_msg import CONSTANTS, msgctl, msgget
from native_shm import shmctl, shmget

from synosfs.ipc import usage
from synosfs.ipc.journal import Journal
from synosfs.ipc.removals import Removals
from synosfs.ipc.sysv import Listed, listing
from synosfs.ipc.things import Thing
from synosfs.ipc.usage import UNUSED, Usage, Usages
from synosfs.kernel import Kernel

RMID = CONSTANTS["IPC_RMID"]


def shown(usage: Usage) -> tuple[int, int, int, int]:
    return usage.calls, usage.errors, usage.bytes, usage.waits


async def test_each_kind_counts_its_calls_and_the_bytes_that_they_moved(kernel: Kernel, call: Callable) -> None:
    queue, semaphores = (await call("msgget", 0, 0o600)).ret, (await call("semget", 0, 1, 0o600)).ret
    segment = (await call("shmget", 0, 4096, 0o600)).ret
    await call("msgsnd", queue, 1, b"hello")
    await call("msgrcv", queue, 100)
    await call("msgrcv", queue, 100, timeout=0.001)
    await call("semop", semaphores, [[0, 1, 0]])
    await call("semctl", semaphores, 0, "GETVAL")
    address = int((await call("shmat", segment)).ret)
    await call("process_vm_writev", os.getpid(), b"abc", address + 1)
    usages = kernel.ipc.usages
    assert shown(usages.of("msg", queue)) == (4, 1, 10, 1)
    assert shown(usages.of("sem", semaphores)) == (3, 0, 0, 0)
    assert shown(usages.of("shm", segment))[:3] == (3, 0, 3)
    assert usages.of("msg", queue).parked_ns >= 1_000_000
    await call("shmdt", address)
    for name, number in (("msgctl", queue), ("shmctl", segment)):
        await call(name, number, "IPC_RMID")
    await call("semctl", semaphores, 0, "IPC_RMID")
    assert not len(usages)


async def test_a_posix_queue_has_one_usage_for_all_who_open_it(kernel: Kernel, call: Callable) -> None:
    name = f"/synosfs-usage-{os.getpid()}"
    for flags in ("O_CREAT|O_EXCL|O_RDWR", "O_RDWR"):
        queue = (await call("mq_open", name, flags)).ret
        await call("mq_send", queue, b"hello")
        await call("mq_receive", queue)
        await call("close", queue)
    used = kernel.ipc.usages.of("mqueue", name[1:])
    assert used.bytes == 20
    assert used.calls >= 4
    await call("mq_unlink", name)
    assert not len(kernel.ipc.usages)


async def test_what_is_removed_here_leaves_nothing(kernel: Kernel, call: Callable) -> None:
    for _ in range(50):
        queue = (await call("msgget", 0, 0o600)).ret
        await call("msgsnd", queue, 1, b"x")
        assert len(kernel.ipc.usages) == 1
        await call("msgctl", queue, "IPC_RMID")
        assert (await call("msgsnd", queue, 1, b"x")).errno == errno.EINVAL
        assert len(kernel.ipc.usages) == 0


async def test_ids_that_mean_nothing_have_no_usage(kernel: Kernel, call: Callable) -> None:
    for number in (0x7FFFFFFF, -1, 5):
        await call("msgrcv", number, 10)
        await call("msgctl", number, "IPC_STAT")
    await call("process_vm_readv", 1, 10, 0x1000)
    assert (await call("ftok", "/etc/hostname", 7)).ret
    assert not len(kernel.ipc.usages)


@pytest.mark.parametrize("kind", ["msg", "shm"])
async def test_what_a_native_program_removes_goes_at_the_next_look(kernel: Kernel, call: Callable, kind: str) -> None:
    if kind == "msg":
        gone, stays = (msgget(CONSTANTS["IPC_PRIVATE"], 0o600) for _ in range(2))
        for number in (gone, stays):
            await call("msgsnd", number, 1, b"x")
        msgctl(gone, RMID)
    else:
        gone, stays = (shmget(0, 4096, 0o600) for _ in range(2))
        for number in (gone, stays):
            assert not (await call("shmdt", int((await call("shmat", number)).ret))).errno
        shmctl(gone, RMID)
    assert len(kernel.ipc.usages) == 2
    list(kernel.ipc.removals.looking(kind, listing(kind)))
    assert set(kernel.ipc.usages[kind]) == {stays}
    (msgctl if kind == "msg" else shmctl)(stays, RMID)


async def test_a_new_object_begins_anew_though_its_id_was_another_s(kernel: Kernel, call: Callable) -> None:
    queue = (await call("msgget", 0, 0o600)).ret
    kernel.ipc.usages.of("msg", queue).calls = 77  # as of one with this id that nobody saw go
    kernel.ipc.usages.begin("msg", queue)
    assert shown(kernel.ipc.usages.of("msg", queue))[0] == 0
    await call("msgctl", queue, "IPC_RMID")


def test_a_million_that_nobody_sees_go_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_MOST", 1000)
    usages = Usages()
    for number in range(1_000_000):
        usages.begin("msg", number).calls = number
    assert len(usages) <= 1000
    assert usages.of("msg", 999_999).calls == 999_999
    assert usages.of("msg", 0) is UNUSED


@given(st.lists(st.tuples(st.sampled_from(["use", "remove", "look"]), st.integers(0, 5)), max_size=60))
def test_after_a_look_there_is_nothing_of_what_is_not_there(steps: list[tuple[str, int]]) -> None:
    usages = Usages()
    removals = Removals(Journal(), usages)
    there: set[int] = set()
    for step, number in steps:
        if step == "use":
            there.add(number)
            usages["msg"].get(number) or usages.begin("msg", number)
        elif step == "remove":
            there.discard(number)
            if number % 2:  # here, and not by a native program
                removals.add(Thing("msg", number), None, "IPC_RMID", 1, 0, "sh")
                assert number not in usages["msg"]
        else:
            list(removals.looking("msg", [Listed(each, 0, 0) for each in there]))
            assert set(usages["msg"]) <= there
    assert UNUSED.calls == 0


def test_what_is_made_while_somebody_looks_keeps_its_usage() -> None:
    usages = Usages()
    removals = Removals(Journal(), usages)
    usages.begin("msg", 7)  # and removed since by a native program
    look = removals.looking("msg", [Listed(1, 0, 0), Listed(2, 0, 0)])
    next(look)
    usages.begin("msg", 0)  # in a slot that the look has passed
    list(look)
    assert set(usages["msg"]) == {0}
