"""Slices of time: one of a user's long works goes on in a turn, and the others in the next ones."""

import os
from functools import partial

import pytest
import trio
import trio.testing

from synosfs import slices
from synosfs.process.descriptors import Description, DescriptorTable
from synosfs.slices import Line, Slices, take_slice


def test_who_has_many_works_gets_one_slice_a_turn_and_each_work_its_share() -> None:
    taken: list[int] = []
    most_between = 0

    async def work(line: Line, number: int) -> None:
        for _ in range(20):
            await line.next_turn()
            taken.append(number)

    async def main() -> None:
        nonlocal most_between
        line = Line()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(work, line, number)
            while len(taken) < 50 * 20:
                before = len(taken)
                await trio.lowlevel.checkpoint()
                most_between = max(most_between, len(taken) - before)

    trio.run(main)
    assert most_between <= 2  # the loop runs the tasks of a turn in any order
    assert sorted(taken[:50]) == list(range(50))
    assert taken == taken[:50] * 20


def test_lines_move_side_by_side_and_who_is_cancelled_leaves_his_place() -> None:
    turns = {1: 0, 2: 0}

    async def work(line: Line, user: int) -> None:
        while True:
            await line.next_turn()
            turns[user] += 1

    async def main() -> None:
        lines = {1: Line(), 2: Line()}
        async with trio.open_nursery() as nursery:
            for user in [1] * 30 + [2]:
                nursery.start_soon(work, lines[user], user)
            while turns[1] < 200:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert [len(line) for line in lines.values()] == [0, 0]
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await lines[1].next_turn()

    trio.run(main)
    assert turns[2] > 60  # and not a thirtieth


def test_steps_are_taken_for_a_slice_at_a_time() -> None:
    steps = iter([None] * 100_000)
    slices = 1
    while take_slice(steps):
        slices += 1
    assert slices > 3
    assert not take_slice(steps)


def test_a_slice_is_over_when_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_NS", 10**15)
    steps = iter([None] * 100_000)
    assert not take_slice(steps)  # all of them, where nobody waits
    waiting = iter([False, False, True])
    monkeypatch.setattr(slices.others, "wait", lambda: next(waiting))
    steps = iter([None] * 10_000_000)
    assert take_slice(steps)
    assert list(waiting) == []


def test_who_waits_goes_first_and_does_not_keep_a_long_work_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices.others, "wait", lambda: True)  # for ever
    pauses = others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async def main() -> None:
        nonlocal pauses
        work = Slices(Line())
        trio.lowlevel.spawn_system_task(other)
        with trio.fail_after(10):
            while others < 20:
                await work.pause()
                pauses += 1

    trio.run(main)
    assert pauses > 20


def test_the_numbers_of_a_process_that_ended_are_closed_in_steps_and_what_takes_long_in_one_thread() -> None:
    released: list[tuple[int, int]] = []

    async def main() -> int:
        done, token = trio.Event(), trio.lowlevel.current_trio_token()

        def release(number: int, _: Description) -> None:
            released.append((number, len(os.listdir("/proc/self/task"))))
            if len(released) == 500:
                token.run_sync_soon(done.set)

        table = DescriptorTable()
        for number in range(500):
            table.add(Description("file", 0, release=partial(release, number), apart=True))
        threads = len(os.listdir("/proc/self/task"))
        assert len(list(table.close_all())) == 503
        with trio.fail_after(5):
            await done.wait()
        return threads

    threads = trio.run(main)
    assert [number for number, _ in released] == list(range(500))
    assert max(count for _, count in released) <= threads + 2
