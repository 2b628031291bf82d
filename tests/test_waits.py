"""Deadlocks among waits: the graph against models that are too simple to be wrong."""

from collections.abc import Mapping
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from synosfs.process.waits import Holders, components, deadlocks, result, stuck

Waits = dict[int, tuple[str, ...]]
Holding = dict[str, Holders]

_pids = st.integers(0, 6)
_things = st.sampled_from("abcdef")
_holders = st.builds(Holders, st.frozensets(_pids, max_size=3), st.booleans())
_graphs = st.tuples(
    st.dictionaries(_pids, st.lists(_things, max_size=3).map(tuple)),
    st.fixed_dictionaries(dict.fromkeys("abcdef", _holders)),
)


def helped(waits: Waits, holders: Holding) -> set[int]:
    """The model of who is stuck, from the other end: who can be helped, found by asking all again and again."""
    known: set[int] = set()
    for _ in range(len(waits) + 1):
        free = {
            thing
            for thing, (pids, _) in holders.items()
            if not pids or any(pid not in waits or pid in known for pid in pids)
        }
        known |= {pid for pid, things in waits.items() if not things or free & {*things}}
    return known


def reachable(graph: Mapping[int, set[int]]) -> set[tuple[int, int]]:
    """Warshall's closure: the pairs between which there is a way of at least one step."""
    nodes = {*graph, *(other for others in graph.values() for other in others)}
    ways = {(one, other) for one, others in graph.items() for other in others}
    for middle, one, other in product(nodes, repeat=3):
        if (one, middle) in ways and (middle, other) in ways:
            ways.add((one, other))
    return ways


@given(_graphs)
def test_who_is_stuck_is_who_nobody_can_help(graph: tuple[Waits, Holding]) -> None:
    waits, holders = graph
    assert result(stuck(waits, holders)) == {*waits} - helped(waits, holders)


@given(st.dictionaries(_pids, st.sets(_pids, max_size=3)))
def test_processes_are_in_one_component_when_each_leads_to_the_other(graph: dict[int, set[int]]) -> None:
    graph = {node: others & {*graph} for node, others in graph.items()}
    ways = reachable(graph)
    found = result(components(graph))
    assert sorted(node for each in found for node in each) == sorted(graph)
    together = {(one, other) for each in found for one in each for other in each if one != other}
    assert together == {(one, other) for one, other in ways if (other, one) in ways and one != other}


@given(_graphs)
def test_a_deadlock_is_a_circle_of_stuck_processes_and_whoever_is_stuck_leads_to_one(
    graph: tuple[Waits, Holding],
) -> None:
    waits, holders = graph
    hopeless = {*waits} - helped(waits, holders)
    ways = reachable({pid: {other for thing in waits[pid] for other in holders[thing].pids} for pid in hopeless})
    found = result(deadlocks(waits, holders))
    circles = [{*each.waits} for each in found]
    assert {pid for circle in circles for pid in circle} == {pid for pid in hopeless if (pid, pid) in ways}
    for circle, each in zip(circles, found, strict=True):
        assert all((one, other) in ways for one, other in product(circle, repeat=2))
        assert each.exact == all(holders[thing].exact for things in each.waits.values() for thing in things)
        for pid, things in each.waits.items():
            assert things
            assert {*things} <= {*waits[pid]}
    for pid in hopeless:
        assert any((pid, other) in ways for circle in circles for other in circle)


def test_two_that_hold_what_the_other_waits_for_are_a_deadlock() -> None:
    waits = {1: ("b",), 2: ("a",), 3: ("a",)}
    holders = {"a": Holders(frozenset({1}), exact=True), "b": Holders(frozenset({2}))}
    [found] = result(deadlocks(waits, holders))
    assert (dict(found.waits), found.exact) == ({1: ("b",), 2: ("a",)}, False)


def test_one_holder_that_runs_is_enough_for_there_to_be_none() -> None:
    waits = {1: ("b",), 2: ("a",)}
    holders = {"a": Holders(frozenset({1, 9})), "b": Holders(frozenset({2}))}
    assert result(deadlocks(waits, holders)) == []


def test_a_thread_that_may_be_served_frees_its_process() -> None:
    waits = {1: ("b", "queue"), 2: ("a",)}
    holders = {"a": Holders(frozenset({1})), "b": Holders(frozenset({2})), "queue": Holders()}
    assert result(deadlocks(waits, holders)) == []


def test_a_chain_of_a_hundred_thousand_ends_at_its_circle() -> None:
    many = 100_000
    waits = {pid: (pid,) for pid in range(many)}
    holders = {pid: Holders(frozenset({max(pid - 1, 0)}), exact=True) for pid in range(many)}
    [found] = result(deadlocks(waits, holders))
    assert dict(found.waits) == {0: (0,)}
