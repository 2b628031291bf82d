"""The ring behind ``trace``, and which of its lines a filter wants."""

import errno
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synosfs.errors import SynosError
from synosfs.host.credentials import Credentials
from synosfs.ipc.journal import Removal
from synosfs.ipc.things import Thing
from synosfs.syscall_gate import table, trace_filter
from synosfs.syscall_gate.caller import Identity
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.trace import Ended, Gone, Trace
from synosfs.syscall_gate.trace_filter import Filter, parse


class Called:
    def __init__(self, name: str) -> None:
        self.row = next(row for row in table.ROWS if row.name == name)


def entry(number: int) -> tuple[Any, ...]:
    return (number,)


@given(st.lists(st.integers(0, 40), max_size=20), st.sampled_from([1, 2, 8, 16]))
def test_who_follows_the_ring_gets_each_entry_once_in_order_or_is_told_how_many_are_gone(
    rounds: list[int], size: int
) -> None:
    ring, place, made, seen = Trace(size), 0, 0, 0
    for count in rounds:
        for _ in range(count):
            ring.ended(entry(made))
            made += 1
        dropped, entries = ring.since(place)
        assert dropped == max(0, count - size)
        assert entries == [entry(number) for number in range(made - min(count, size), made)]
        place += dropped + len(entries)
        seen += dropped + len(entries)
        assert ring.since(place) == (0, [])
    assert seen == made == place == ring.next


def test_the_ring_tells_of_the_next_once() -> None:
    ring, told = Trace(4), []
    ring.ended(entry(0))
    ring.wake = lambda: told.append(ring.next)
    ring.ended(entry(1))
    ring.ended(entry(2))
    assert told == [2]


_CALLS = st.sampled_from(["msgsnd", "msgrcv", "getpid", "semop"])
_ERRNOS = st.sampled_from([0, errno.ENOMSG, errno.EAGAIN, errno.EINTR])


@st.composite
def ended(draw: st.DrawFn) -> Ended:
    name, number, queue = draw(_CALLS), draw(_ERRNOS), draw(st.integers(0, 3))
    who = Identity(draw(st.integers(1, 3)), 1, Credentials(draw(st.integers(0, 2)), 0, (), 0), 0, True)
    values = [] if name == "getpid" else [queue, 1, b"x", 0]
    reply = Reply(-1, errno=number) if number else Reply(0)
    return Ended(
        0, who, Called(name), values, reply, draw(st.integers(0, 1000)) * 1000, draw(st.none() | st.just(10**6))
    )


def of(values: set[Any], name: str) -> str:
    return f"{name}={','.join(map(str, sorted(values)))} " if values else ""


@given(
    ended(),
    st.sets(st.integers(1, 3)),
    st.sets(st.integers(0, 2)),
    st.sets(_CALLS),
    st.sets(st.sampled_from(["ENOMSG", "EAGAIN", "any"])),
    st.sets(st.integers(0, 3)),
    st.sampled_from([0, 0.0005, 0.001]),
)
def test_a_filter_wants_what_all_its_words_want(
    call: Ended,
    pids: set[int],
    uids: set[int],
    calls: set[str],
    errnos: set[str],
    queues: set[int],
    slower: float,
) -> None:
    words = of(pids, "pid") + of(uids, "uid") + of(calls, "call") + of(errnos, "errno")
    words += of({f"msgq/{queue}" for queue in queues}, "object") + (f"slower={slower}" if slower else "")
    wanted = parse(words.encode(), lambda path: Thing("msg", int(path.rpartition("/")[2])))
    name, number = call.call.row.name, call.reply.errno
    expected = (
        (not pids or call.who.pid in pids)
        and (not uids or call.who.credentials.uid in uids)
        and (not calls or name in calls)
        and (not errnos or (number and ("any" in errnos or errno.errorcode[number] in errnos)))
        and (not queues or (name.startswith("msg") and call.values[0] in queues))
        and call.ran_ns + (call.parked_ns or 0) >= slower * 1e9
    )
    assert wanted.matches(call) == bool(expected)
    assert Filter().matches(call)


def test_a_removal_is_one_of_the_calls_of_a_filter() -> None:
    gone = Gone(0, Removal(0.0, "msg", 3, 0, 1000, "rm", 42, 1000, "rm"))
    for words, wanted in (
        (b"", True),
        (b"call=removed", True),
        (b"call=msgctl", False),
        (b"pid=42 uid=1000", True),
        (b"pid=43", False),
        (b"errno=any", False),
        (b"object=msgq/3", True),
        (b"object=msgq/4", False),
    ):
        filter_ = parse(words, lambda path: Thing("msg", int(path.rpartition("/")[2])))
        assert filter_.matches(gone) is wanted, words


@given(st.text(max_size=30))
def test_any_words_make_a_filter_or_are_einval_in_one_line(words: str) -> None:
    told = None
    try:
        parse(words.encode("utf-8", "surrogatepass"), lambda path: Thing("msg", 0))
    except SynosError as error:
        told = error
    assert told is None or (told.errno == errno.EINVAL and told.message.isprintable())


def test_the_words_that_there_are_are_told() -> None:
    with pytest.raises(SynosError, match=r"no filter 'pids=1'; did you mean pid\?; the words are pid= uid= call= "):
        parse(b"pids=1", lambda path: Thing("msg", 0))
    assert replace(Filter(), words=(("pid", "1"),)) == Filter()
    assert trace_filter.ANY < 0
