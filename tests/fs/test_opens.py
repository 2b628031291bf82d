"""Opening for writing: each open has an inode of its own, and whoever comes too late for one gets another, unseen."""

import os
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from errno import ECANCELED, ESTALE
from pathlib import Path

import pytest
import trio
import trio.testing
from children import Child, wait_until
from mounts import Mount

from synosfs.errors import SynosError
from synosfs.fs.inodes import Inodes
from synosfs.fs.node import Directory, Node


class _Fresh(Node):
    fresh = True


def _inodes() -> tuple[Inodes, Node]:
    return Inodes(Directory({})), _Fresh()


def test_a_number_with_a_writer_is_not_given_again() -> None:
    inodes, node = _inodes()
    first = inodes.refer(node, 1)
    assert inodes.refer(node, 2) == first
    inodes.open_for_writing(first, 1)
    assert inodes.refer(node, 2) != first


def test_who_comes_too_late_is_refused_once_and_then_has_a_number_that_nobody_can_take() -> None:
    inodes, node = _inodes()
    first = inodes.refer(node, 1)
    inodes.open_for_writing(first, 1)
    with pytest.raises(SynosError) as refused:
        inodes.open_for_writing(first, 2)
    assert refused.value.strerror == "stale file handle"
    second = inodes.refer(node, 2)
    with pytest.raises(SynosError):
        inodes.open_for_writing(second, 3)
    inodes.open_for_writing(second, 2)
    assert inodes.refer(node, 3) not in (first, second)


def test_who_comes_again_without_a_look_up_shares_the_number() -> None:
    inodes, node = _inodes()
    number = inodes.refer(node, 1)
    inodes.open_for_writing(number, 1)
    with pytest.raises(SynosError):
        inodes.open_for_writing(number, 2)
    inodes.open_for_writing(number, 2)


def test_a_forgotten_number_is_gone_and_the_next_is_a_new_one() -> None:
    inodes, node = _inodes()
    number = inodes.refer(node, 1)
    inodes.refer(node, 1)
    inodes.forget([(number, 1)])
    assert inodes[number] is node
    inodes.forget([(number, 1)])
    assert len(inodes) == 1
    assert inodes.refer(node, 1) != number


@pytest.mark.parametrize("name", ["syscall", "sem/ctl", "proc/self/syscall"])
def test_many_threads_open_one_file_at_once_and_none_is_turned_away(mount: Mount, name: str) -> None:
    path = Path(mount.path) / name
    (Path(mount.path) / "syscall").write_text("getpid\n")

    def open_and_close(_: int) -> None:
        for _ in range(50):
            os.close(os.open(path, os.O_RDWR))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_close, range(8)))


def test_a_session_can_be_opened_again_by_its_descriptor(mount: Mount) -> None:
    first = os.open(Path(mount.path) / "syscall", os.O_RDWR)
    second = os.open(f"/proc/self/fd/{first}", os.O_RDWR)
    for session in (first, second):
        os.write(session, b"getpid\n")
        assert os.read(session, 100) == b"%d\n" % os.getpid()
        os.close(session)


# --- many at once


async def opened(inodes: Inodes, node: Node, number: int, tid: int, uid: int = 0) -> int:
    """What open(2) does with a number that a look-up gave a while ago; the number that it has open then."""
    try:
        await inodes.open_in_turn(number, tid, uid)
    except SynosError as error:
        if error.errno != ESTALE:
            raise
        await trio.lowlevel.checkpoint()  # others may run while the thread is on its way back
        number = inodes.refer(node, tid)
        await inodes.open_in_turn(number, tid, uid)
    return number


def run(body: Callable[[Inodes, Node, int], Awaitable[None]]) -> None:
    """With a node whose number has a writer already."""

    async def main() -> None:
        inodes, node = _inodes()
        number = inodes.refer(node, 1)
        inodes.open_for_writing(number, 1)
        with trio.fail_after(20):
            await body(inodes, node, number)

    trio.run(main)


def test_of_many_who_come_too_late_one_at_a_time_looks_again() -> None:
    async def body(inodes: Inodes, node: Node, number: int) -> None:
        numbers = {number}

        async def open_(tid: int) -> None:
            numbers.add(await opened(inodes, node, number, tid))

        async with trio.open_nursery() as nursery:
            for tid in range(1001, 1101):
                nursery.start_soon(open_, tid)
        statistics = inodes.statistics()
        assert len(numbers) == statistics.written == 101
        assert statistics.look_ups == 101
        assert (statistics.refused, statistics.waiting, statistics.waited, statistics.overdue) == (100, 0, 99, 0)

    run(body)


def test_a_users_thousand_opens_hold_up_another_users_by_a_few_at_most() -> None:
    async def body(inodes: Inodes, node: Node, number: int) -> None:
        order = []

        async def open_(tid: int, uid: int) -> None:
            await opened(inodes, node, number, tid, uid)
            order.append(uid)

        async with trio.open_nursery() as nursery:
            for tid in range(1001, 2001):
                nursery.start_soon(open_, tid, 1)
            while inodes.statistics().waited < 999:
                await trio.lowlevel.checkpoint()
            before = len(order)
            nursery.start_soon(open_, 2001, 2)
        assert order.index(2) - before < 5

    run(body)


def test_who_waits_in_line_takes_the_number_when_its_writer_has_closed_it() -> None:
    async def body(inodes: Inodes, node: Node, number: int) -> None:
        with pytest.raises(SynosError):
            await inodes.open_in_turn(number, 2, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inodes.open_in_turn, number, 3, 0)
            await trio.testing.wait_all_tasks_blocked()
            inodes.close_for_writing(number)
            await opened(inodes, node, inodes.refer(node, 2), 2)
        assert inodes.statistics().refused == 1

    run(body)


def test_nobody_waits_for_ever_for_one_who_never_comes_again() -> None:
    async def body(inodes: Inodes, node: Node, number: int) -> None:
        with pytest.raises(SynosError):
            await inodes.open_in_turn(number, 2, 0)
        assert await opened(inodes, node, number, 3) != number
        assert inodes.statistics().overdue == 1
        # It may come late all the same.
        await inodes.open_in_turn(inodes.refer(node, 2), 2, 0)

    run(body)


def test_who_is_let_go_while_it_waits_leaves_the_line_and_the_number() -> None:
    async def body(inodes: Inodes, node: Node, number: int) -> None:
        with pytest.raises(SynosError):
            await inodes.open_in_turn(number, 2, 0)
        with trio.move_on_after(0.001):
            await inodes.open_in_turn(number, 3, 0)
        await opened(inodes, node, inodes.refer(node, 2), 2)
        statistics = inodes.statistics()
        assert (statistics.waiting, statistics.written, statistics.overdue) == (0, 2, 0)

    run(body)


def test_the_end_of_the_mount_ends_the_line() -> None:
    async def body(inodes: Inodes, node: Node, number: int) -> None:
        ended = []

        async def open_(tid: int) -> None:
            with pytest.raises(SynosError) as error:
                await inodes.open_in_turn(number, tid, 0)
            ended.append(error.value.errno)

        async with trio.open_nursery() as nursery:
            for tid in range(2, 12):
                nursery.start_soon(open_, tid)
            await trio.testing.wait_all_tasks_blocked(0.001)
            inodes.close()
        assert sorted(ended) == sorted([ESTALE] + [ECANCELED] * 9)

    run(body)


def figure(mount: Mount, name: str) -> int:
    return int(mount.stats()[name])


@pytest.mark.parametrize("count", [50, 400])
def test_what_an_open_costs_does_not_grow_with_how_many_there_are_at_once(mount: Mount, count: int) -> None:
    mount.gate.write_text("getpid\n")
    barrier = threading.Barrier(count)
    before, fds = figure(mount, "look_ups"), []

    def open_() -> None:
        barrier.wait()
        fds.append(os.open(mount.gate, os.O_RDWR))

    threads = [threading.Thread(target=open_) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(fds) == count
    looked = figure(mount, "look_ups") - before
    for fd in fds:
        os.close(fd)
    assert looked <= 4 * count + 20


def test_killing_many_who_open_loses_track_of_none_and_holds_up_nobody(mount: Mount) -> None:
    mount.gate.write_text("getpid\n")

    def open_for_ever() -> None:
        def again() -> None:
            while True:
                fds = [os.open(mount.gate, os.O_RDWR) for _ in range(50)]
                for fd in fds:
                    os.close(fd)

        threads = [threading.Thread(target=again) for _ in range(8)]
        for thread in threads:
            thread.start()
        threads[0].join()

    # Nobody asks the daemon for anything while the killed end: it has to look after them by itself. One time in eight
    # it had been told of a request that its caller's death took back, and slept in reading it.
    for _ in range(16):
        children = [Child(open_for_ever) for _ in range(8)]
        before = figure(mount, "opens_too_late")
        wait_until(lambda before=before: figure(mount, "opens_too_late") > before + 50, "they come too late")
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        for child in children:
            child.close()
    for _ in range(20):
        os.close(os.open(mount.gate, os.O_RDWR))
    wait_until(lambda: figure(mount, "opens_in_line") == 0, "nobody waits")
