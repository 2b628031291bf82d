"""Distributions against exact percentiles, and the figures of many processes against a plain count of their calls."""

import errno
from collections import Counter
from math import ceil
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from synosfs.process.figures import PIECE, Distribution, Figures, Tally, values_of
from synosfs.process.process import Process
from synosfs.syscall_gate import statistics as gate
from synosfs.syscall_gate.statistics import OTHERS, SyscallStatistics

#: From nothing up to a month, small ones as likely as large ones.
NANOSECONDS = st.integers(0, 51).flatmap(lambda bits: st.integers(0, 1 << bits))
LISTS = st.lists(NANOSECONDS, min_size=1, max_size=300)
SHARES = st.sampled_from([0.5, 0.9, 0.99, 1.0, 0.001])


def exact(numbers: list[int], share: float) -> int:
    return sorted(numbers)[max(1, ceil(share * len(numbers))) - 1]


def distribution(*pieces: list[int]) -> Distribution:
    made = Distribution()
    for piece in pieces:
        made.add(values_of(piece))
    return made


@given(LISTS, SHARES)
def test_a_percentile_is_within_five_percent_of_the_exact_one(numbers: list[int], share: float) -> None:
    found, true = distribution(numbers).percentile(share), exact(numbers, share)
    assert abs(found - true) <= 0.05 * true
    assert found <= max(numbers)


@given(LISTS)
def test_the_sums_and_the_largest_are_exact(numbers: list[int]) -> None:
    made, summary = distribution(numbers), distribution(numbers).summary()
    assert (made.count, made.total, made.most) == (len(numbers), sum(numbers), max(numbers))
    assert summary.p50 <= summary.p90 <= summary.p99 <= summary.most == max(numbers) / 1e9


@given(st.lists(LISTS, min_size=1, max_size=5), SHARES)
def test_it_does_not_matter_in_which_pieces_they_come(pieces: list[list[int]], share: float) -> None:
    whole = [number for piece in pieces for number in piece]
    assert distribution(*pieces).percentile(share) == distribution(whole).percentile(share)


@given(LISTS, st.integers(0, 60))
def test_how_many_are_below_a_power_of_two_is_exact(numbers: list[int], octave: int) -> None:
    assert distribution(numbers).below(octave) == sum(number < 1 << octave for number in numbers)


def test_without_values_there_is_nothing_to_say() -> None:
    assert Distribution().summary() == (0, 0, 0, 0, 0, 0)


def test_a_bucket_is_the_front_of_a_double() -> None:
    assert (1000.0).hex().startswith("0x1.f")  # exponent 9, and f is the first four bits of the mantissa
    assert list(values_of([1000]).places) == [((1023 + 9) << 4) + 0xF]


def test_a_distribution_is_no_longer_than_its_largest_value_needs() -> None:
    assert len(distribution([1 << 20])._counts) == 20 * 16 + 2


class Caller:
    """A process, as far as statistics know one."""

    def __init__(self, uid: int) -> None:
        self.account = SimpleNamespace(uid=uid)
        self.tallies: dict[str, Tally] = {}
        self.ended = False


class Machine(RuleBasedStateMachine):
    """Processes of some users call and end; what is known of all of them is what a plain count says."""

    processes: Any = Bundle("processes")

    def __init__(self) -> None:
        super().__init__()
        self.statistics = SyscallStatistics()
        self.statistics.add("msgsnd", ipc=True)
        self.statistics.add("read")
        self.of_call: Counter[str] = Counter()
        self.of_user: Counter[int] = Counter()
        self.bytes: Counter[str] = Counter()
        self.errnos: Counter[tuple[str, int]] = Counter()
        self.running: Counter[str] = Counter()
        self.live: dict[int, Counter[str]] = {}
        self.leaving: list[Any] = []

    @rule(target=processes, uid=st.integers(0, 5))
    def begins(self, uid: int) -> Process:
        process = Caller(uid)
        self.live[id(process)] = Counter()
        return cast(Process, process)

    def call(self, process: Process, name: str, times: int, moved: int, number: int, ns: int) -> None:
        """As the dispatcher does at the end of a call."""
        for _ in range(times):
            tally = process.tallies.get(name) or self.statistics.tally(process, name)
            tally.bytes += moved
            if number:
                tally.errnos[number] = tally.errnos.get(number, 0) + 1
            tally.running.append(ns)
            if len(tally.running) >= PIECE:
                tally.fold()
        self.of_call[name] += times
        self.of_user[min(process.account.uid, 3)] += times
        self.bytes[name] += moved * times
        self.running[name] += ns * times
        if number:
            self.errnos[name, number] += times

    @rule(
        process=processes,
        name=st.sampled_from(["msgsnd", "read"]),
        times=st.sampled_from([1, 2, PIECE]),
        moved=st.integers(0, 9),
        number=st.sampled_from([0, errno.EINTR, errno.EAGAIN]),
        ns=st.integers(0, 1 << 30),
    )
    def calls(self, process: Process, name: str, times: int, moved: int, number: int, ns: int) -> None:
        self.call(process, name, times, moved, number, ns)
        self.live[id(process)][name] += times
        assert sum(tally.count for tally in process.tallies.values()) == self.live[id(process)].total()

    @rule(process=consumes(processes), late=st.integers(0, 3), steps=st.integers(0, 3))
    def ends(self, process: Process, late: int, steps: int) -> None:
        """Its calls are answered while what it leaves is added up, and after that."""
        process.ended = True
        leaving = self.statistics.ended(process)
        for _, _ in zip(range(steps), leaving, strict=False):
            self.call(process, "read", late, 1, 0, 5)
            self.agree()
        self.leaving.append((process, leaving))

    @rule()
    def all_have_left(self) -> None:
        for process, leaving in self.leaving:
            for _ in leaving:
                pass
            assert not process.tallies
            assert process not in self.statistics._tallies
        self.leaving.clear()

    @rule()
    def agree(self) -> None:
        for _ in self.statistics.fold():
            pass
        calls = dict(self.statistics.calls())
        assert {name: each.count for name, each in calls.items()} == +self.of_call
        assert {name: each.bytes for name, each in calls.items()} == {name: self.bytes[name] for name in calls}
        assert {name: each.running.total for name, each in calls.items()} == {
            name: self.running[name] for name in calls
        }
        errnos = {(name, number): n for name, each in calls.items() for number, n in each.errnos.items()}
        assert errnos == +self.errnos
        users = {3 if uid == OTHERS else min(uid, 3): 0 for uid, _ in self.statistics.users()}
        for uid, each in self.statistics.users():
            users[3 if uid == OTHERS else min(uid, 3)] += each.count
        assert {uid: count for uid, count in users.items() if count} == +self.of_user
        assert self.statistics.totals().ipc_calls == self.of_call["msgsnd"]

    @invariant()
    def nothing_is_kept_of_the_dead_but_sums(self) -> None:
        assert not self.statistics._late or len(self.statistics._late) <= PIECE + 1


TestFigures = Machine.TestCase


def test_users_beyond_the_most_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_MOST_USERS", 2)
    statistics = SyscallStatistics()
    statistics.add("read")
    for uid in range(5):
        statistics.tally(cast(Process, Caller(uid)), "read").running.append(7)
    for _ in statistics.fold():
        pass
    assert [(uid, each.count) for uid, each in statistics.users()] == [(OTHERS, 3), (0, 1), (1, 1)]


def test_a_tally_that_was_folded_is_empty_and_its_figures_stay() -> None:
    others = Figures(), Figures()
    tally = Tally(*others)
    tally.running += [5, 6]
    tally.parked.append(9)
    tally.errnos[errno.EINTR] = 1
    tally.fold()
    tally.fold()
    for each in (tally.own, *others):
        assert (each.count, each.errors, each.parked.total, each.running.most) == (2, 1, 9, 6)
    assert (tally.count, tally.errors, tally.running, tally.parked) == (2, 1, [], [])
