"""Watches: one for all who wait for the same thing with the same rights; each is told once, who goes is forgotten."""

from collections.abc import Awaitable, Callable
from errno import EACCES, EAGAIN

import pytest
import trio
import trio.testing

from synosfs.errors import SynosError
from synosfs.host import rights
from synosfs.syscall_gate.readiness import Watch
from synosfs.syscall_gate.watches import Watches


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


def run(body: Callable[[Watches, Thing], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(20):
            await body(Watches(), Thing())

    trio.run(main)


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
        assert (statistics.watched, statistics.threads, statistics.looked_at) == (300, 128, 172)
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
