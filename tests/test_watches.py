"""Watches: one for all who wait for the same thing with the same rights; each is told once, who goes is forgotten."""

import time
from collections.abc import Awaitable, Callable, Iterator
from errno import EACCES, EAGAIN

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from synosfs.errors import SynosError
from synosfs.host import rights
from synosfs.syscall_gate.readiness import Watch
from synosfs.syscall_gate.watches import Subscription, Watches


class Thing:
    """Something that can be watched in either way, and counts how often it is."""

    def __init__(self) -> None:
        self.slept = self.looked = 0
        self.came = trio.Event()
        self.failure: Exception | None = None

    async def sleep(self) -> None:
        self.slept += 1
        if self.failure is not None:
            raise self.failure
        await self.came.wait()

    def reached(self) -> bool:
        self.looked += 1
        return self.came.is_set()

    def watch(self, key: str = "thing", *, asleep: bool = True) -> Watch:
        return Watch(key, rights.OWN, self.reached, self.sleep if asleep else None, in_thread=True)


def run(body: Callable[[Watches, Thing], Awaitable[None]], *, at_once: bool = False) -> None:
    """``at_once``: time passes when all sleep."""

    async def main() -> None:
        with trio.fail_after(20):
            await body(Watches(), Thing())

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0) if at_once else None)


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked(0.005)


@pytest.mark.parametrize("asleep", [True, False])
def test_a_thousand_who_wait_for_one_thing_are_one_watch_and_each_is_told_once(asleep: bool) -> None:
    async def body(watches: Watches, thing: Thing) -> None:
        told: list[object] = []
        all_told = trio.Event()

        def tell(failure: object) -> None:
            told.append(failure)
            if len(told) == 1000:
                all_told.set()

        for _ in range(1000):
            watches.subscribe(thing.watch(asleep=asleep), tell)
        await settled()
        statistics = watches.statistics()
        assert (statistics.watched, statistics.watchers, statistics.started) == (1, 1000, 1)
        assert (statistics.threads, statistics.looked_at) == ((1, 0) if asleep else (0, 1))
        assert thing.slept == asleep
        thing.came.set()
        await all_told.wait()
        await settled()
        assert told == [None] * 1000
        assert watches.statistics()[:4] == (0, 0, 0, 0)

    run(body)


@pytest.mark.parametrize("asleep", [True, False])
def test_the_last_who_goes_ends_the_watch_and_nobody_is_told(asleep: bool) -> None:
    async def body(watches: Watches, thing: Thing) -> None:
        told: list[object] = []
        subscriptions = [watches.subscribe(thing.watch(asleep=asleep), told.append) for _ in range(3)]
        for subscription in [*subscriptions, *subscriptions]:
            assert watches.statistics().watched == min(1, watches.statistics().watchers)
            subscription.cancel()
        await settled()
        assert watches.statistics()[:4] == (0, 0, 0, 0)
        thing.came.set()
        await settled()
        assert told == []

    run(body)


def test_who_comes_while_the_others_are_told_has_a_new_watch() -> None:
    async def body(watches: Watches, thing: Thing) -> None:
        told: list[object] = []

        def again(_: object) -> None:
            thing.came = trio.Event()
            watches.subscribe(thing.watch(), told.append)

        watches.subscribe(thing.watch(), again)
        await settled()
        thing.came.set()
        await settled()
        assert (told, watches.statistics().watched, thing.slept) == ([], 1, 2)
        thing.came.set()
        await settled()
        assert told == [None]

    run(body)


def test_who_cannot_be_told_hurts_nobody_else() -> None:
    async def body(watches: Watches, thing: Thing) -> None:
        told: list[object] = []

        def fails(_: object) -> None:
            raise OSError

        for one in (told.append, fails, told.append):
            watches.subscribe(thing.watch(), one)
        await settled()
        thing.came.set()
        await settled()
        assert told == [None, None]

    run(body)


def test_an_error_is_told_but_for_the_want_of_threads_which_is_no_end() -> None:
    async def body(watches: Watches, thing: Thing) -> None:
        thing.failure = SynosError(EACCES)
        with pytest.raises(SynosError) as raised:
            await watches.any_of([thing.watch()])
        assert raised.value.errno == EACCES
        thing.failure = SynosError(EAGAIN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watches.any_of, [thing.watch()])
            await settled()
            assert watches.statistics().looked_at == 1
            thing.came.set()

    run(body)


def test_a_users_watches_have_so_many_threads_and_the_rest_is_looked_at() -> None:
    async def body(watches: Watches, thing: Thing) -> None:
        for number in range(300):
            watches.subscribe(thing.watch(str(number)), lambda _: None)
        await settled()
        statistics = watches.statistics()
        assert (statistics.watched, statistics.threads, statistics.looked_at) == (300, 32, 268)
        watches.close()
        await settled()
        assert watches.statistics()[:4] == (0, 0, 0, 0)

    run(body)


def test_of_several_the_first_that_comes_ends_the_wait_and_all_watches() -> None:
    async def body(watches: Watches, thing: Thing) -> None:
        others = [Thing() for _ in range(3)]
        wanted = [each.watch(str(number), asleep=bool(number % 2)) for number, each in enumerate([*others, thing])]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watches.any_of, wanted)
            await settled()
            thing.came.set()
        await settled()
        assert watches.statistics()[:4] == (0, 0, 0, 0)

    run(body)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["come", "go", "reach", "settle"]), st.booleans())))
def test_there_is_a_watch_for_whom_somebody_waits_and_for_nobody_else(
    steps: list[tuple[int, str, bool]],
) -> None:
    async def body(watches: Watches, _: Thing) -> None:
        things = [Thing() for _ in range(4)]
        waiting: list[dict[int, Subscription]] = [{} for _ in things]
        for step, (number, what, first) in enumerate(steps):
            thing, mine = things[number], waiting[number]
            if what == "come":

                def tell(failure: object, mine: dict[int, Subscription] = mine, step: int = step) -> None:
                    assert failure is None
                    del mine[step]  # else: was told twice, or after it had gone

                mine[step] = watches.subscribe(thing.watch(str(number), asleep=bool(number % 2)), tell)
            elif what == "go" and mine:
                mine.pop(min(mine) if first else max(mine)).cancel()
            elif what == "reach":
                thing.came.set()
                await trio.sleep(1)
                assert not mine
                thing.came = trio.Event()
            elif what == "settle":
                await trio.sleep(0.1)
            statistics = watches.statistics()
            assert statistics.watched == sum(map(bool, waiting))
            assert statistics.watchers == sum(map(len, waiting))
        for mine in waiting:
            while mine:
                mine.popitem()[1].cancel()
        await trio.sleep(0.1)
        assert watches.statistics()[:4] == (0, 0, 0, 0)

    run(body, at_once=True)


def test_much_is_looked_at_in_slices_and_one_slice_at_a_time() -> None:
    async def body(watches: Watches, _: Thing) -> None:
        taken: list[str] = []

        def steps(name: str) -> Iterator[None]:
            for _ in range(20):
                until = time.perf_counter() + 0.0003
                while time.perf_counter() < until:
                    pass
                taken.append(name)
                yield

        turns = 0
        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(watches.step_through, rights.OWN, steps(name))
            while len(taken) < 40:
                await trio.lowlevel.checkpoint()
                turns += 1
        assert turns >= 5
        assert "b" in taken[:10]  # neither waits until the other is done

    run(body)


def test_what_is_looked_at_in_a_short_time_is_looked_at_though_there_is_none() -> None:
    async def body(watches: Watches, _: Thing) -> None:
        taken: list[int] = []
        with trio.move_on_after(0) as no_time:
            await watches.step_through(rights.OWN, (taken.append(number) for number in range(1000)))
            await watches.any_of([Thing().watch()])
        assert no_time.cancelled_caught
        assert len(taken) == 1000
        assert watches.statistics().started == 0

    run(body)
