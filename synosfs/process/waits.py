"""Who waits for whom: the wait-for graph, and what in it cannot end by itself. Pure: waits in, deadlocks out.

A wait is for an object, and ends when any of its *holders* does something: gives a semaphore back, writes to a pipe.
So a process is stuck when each of its waits is for an object that has holders, all of whom are stuck too (an AND-OR
graph: R. C. Holt, Some Deadlock Properties of Computer Systems, 1972); an object whose holders are not known may be
served by anybody. What is stuck hangs on a circle, or leads to one: the strongly connected components of the graph
(Tarjan, 1972), which are what ``deadlocks`` tells of.

There can be thousands of waits, so each is a generator that yields between steps and returns the result.
"""

from collections import defaultdict
from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
Thing = TypeVar("Thing", bound=Hashable)

#: Yields between steps; the result is what it returns.
Steps = Generator[None, None, T]


class Holders(NamedTuple):
    """Who can end the waits for an object: nobody who is known, if ``pids`` is empty. ``exact``: they do hold it, and
    nobody else does; else it is what the host lets guess.
    """

    pids: frozenset[int] = frozenset()
    exact: bool = False


class Deadlock(NamedTuple, Generic[Thing]):
    """Processes that wait for each other in a circle, by pid, and what each waits for. ``exact``: it is certain."""

    waits: Mapping[int, tuple[Thing, ...]]
    exact: bool


def deadlocks(waits: Mapping[int, Sequence[Thing]], holders: Mapping[Thing, Holders]) -> Steps[list[Deadlock[Thing]]]:
    """The circles. ``waits`` has the objects that each process waits for, one for each thread that does."""
    hopeless = yield from stuck(waits, holders)
    graph = {
        pid: {holder for thing in waits[pid] for holder in holders[thing].pids} for pid in sorted(hopeless)
    }  # all of them hopeless
    yield
    found = []
    for circle in (yield from components(graph)):
        if len(circle) > 1 or circle[0] in graph[circle[0]]:
            inside = {
                pid: tuple(thing for thing in waits[pid] if not holders[thing].pids.isdisjoint(circle))
                for pid in sorted(circle)
            }
            exact = all(holders[thing].exact for things in inside.values() for thing in things)
            found.append(Deadlock(inside, exact))
            yield
    return found


def stuck(waits: Mapping[int, Sequence[Thing]], holders: Mapping[Thing, Holders]) -> Steps[set[int]]:
    """The processes that no process that is not stuck can help: the largest such set."""
    waiting_for: dict[Thing, list[int]] = defaultdict(list)
    holding: dict[int, list[Thing]] = defaultdict(list)
    free: list[Thing] = []  # objects that somebody can do something about
    hopeless = {pid for pid, things in waits.items() if things}
    for pid, things in waits.items():
        for thing in things:
            waiting_for[thing].append(pid)
            yield
    for thing in waiting_for:
        pids = holders[thing].pids if thing in holders else frozenset()
        if not pids or not pids <= hopeless:
            free.append(thing)
        for pid in pids:
            holding[pid].append(thing)
        yield
    served = set(free)
    while free:
        for pid in waiting_for[free.pop()]:
            if pid in hopeless:
                hopeless.discard(pid)
                for thing in holding[pid]:
                    if thing not in served:
                        served.add(thing)
                        free.append(thing)
            yield
    return hopeless


def components(graph: Mapping[int, Iterable[int]]) -> Steps[list[list[int]]]:
    """The strongly connected components, without recursion: a chain of waits can be thousands long."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    found = []
    for root in graph:
        if root in order:
            continue
        work = [(root, iter(graph[root]))]
        order[root] = low[root] = len(order)
        path.append(root)
        on_path.add(root)
        while work:
            node, following = work[-1]
            yield
            for other in following:
                if other not in order:
                    order[other] = low[other] = len(order)
                    path.append(other)
                    on_path.add(other)
                    work.append((other, iter(graph[other])))
                    break
                if other in on_path:
                    low[node] = min(low[node], order[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(path.pop())
                        on_path.discard(component[-1])
                    found.append(component)
    return found


def result(steps: Steps[T]) -> T:
    """Of all the steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
