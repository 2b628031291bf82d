"""The notation of ``trace``: what it writes of a call, the gate reads back as the same call."""

import errno
import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from synosfs.errors import SynosError
from synosfs.host.credentials import Credentials
from synosfs.ipc.journal import Removal
from synosfs.syscall_gate import strace, table, text
from synosfs.syscall_gate.caller import Identity
from synosfs.syscall_gate.converters import WORDS
from synosfs.syscall_gate.kinds import KINDS, Kind
from synosfs.syscall_gate.record import Reply, Request
from synosfs.syscall_gate.spec import REQUIRED, Row, bind
from synosfs.syscall_gate.trace import KEPT, Ended, cut_reply, cut_values

ROWS = {row.name: row for row in table.ROWS}

_INT = st.integers(-(1 << 31), (1 << 31) - 1)
_WORDS = st.binary(max_size=40).filter(lambda word: b"\0" not in word)
_TIME = st.tuples(st.integers(0, 1 << 32), st.integers(0, 999_999)).map(list)

#: What is given for the kinds that take more than a number or a name of one.
_GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "int": _INT,
    "long": st.integers(-(1 << 63), (1 << 63) - 1),
    "size": st.integers(0, 1 << 40),
    "size_t": st.integers(0, (1 << 64) - 1),
    "uid": st.integers(0, (1 << 32) - 1),
    "mode": st.integers(0, 0o7777),
    "count64": st.integers(0, (1 << 64) - 1),
    "data": st.binary(max_size=100),
    "name": _WORDS,
    "path": _WORDS,
    "object": _WORDS,
    "path_or_null": _WORDS,
    "words": st.lists(_WORDS, min_size=1, max_size=5),
    "environment": st.lists(_WORDS, min_size=1, max_size=5),
    "pieces": st.lists(st.binary(max_size=20), min_size=1, max_size=5),
    "sizes": st.lists(st.integers(0, 1 << 40), min_size=1, max_size=5),
    "values": st.lists(_INT, min_size=1, max_size=5),
    "operations": st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(-0x8000, 0x7FFF), st.integers(0, 0xFFFF)).map(list),
        min_size=1,
        max_size=5,
    ),
    "polled": st.lists(
        st.tuples(st.sampled_from(["msgq/0", "3", "sem/1/2"]), st.integers(1, 0x7FFF)).map(list), min_size=1, max_size=5
    ),
    "variables": st.dictionaries(
        st.from_regex("[A-Z_][A-Z0-9_]{0,9}", fullmatch=True), st.binary(max_size=9), max_size=4
    ),
    "seconds": st.floats(0, 1e9),
    "timeout": st.floats(0, 1e9),
    "fcntl_argument": st.integers(0, 0xFFFFFFFF),
    "limit_value": st.integers(-1, 1 << 62),
    "signal": st.integers(0, 64),
    "offset": st.integers(-(1 << 63), (1 << 63) - 1),
    "address": st.integers(0, (1 << 63) - 1),
    "key": _INT,
    **dict.fromkeys(("timespec", "timeval"), _TIME),
    **dict.fromkeys(("itimerspec", "timevals"), _TIME | st.tuples(_TIME, _TIME).map(list)),
    "utimbuf_time": st.integers(0, 1 << 32),
    "utimbuf": st.integers(0, 1 << 32),
}

_KIND_NAMES = {id(kind): name for name, kind in KINDS.items()}


def given_for(kind: Kind) -> st.SearchStrategy[Any]:
    name = _KIND_NAMES[id(kind)]
    if name in _GIVEN:
        return _GIVEN[name]
    numbers = sorted(set(WORDS[kind.convert].names.values()))
    if WORDS[kind.convert].joined:
        return st.lists(st.sampled_from(numbers), max_size=4).map(lambda some: sum(set(some)) & 0x7FFFFFFF)
    return st.sampled_from(numbers) | st.integers(0, 100)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Row, list[Any]]:
    """A row and what its handler would get."""
    row = draw(st.sampled_from(table.ROWS))
    given = {
        param.name: draw(given_for(param.kind))
        for param in row.params
        if param.default is REQUIRED or draw(st.booleans())
    }
    rest = [param.name for param in row.params if param.kind.rest]
    variables = given.pop(rest[0], {}) if rest else {}
    # C has no way to give the second of these without the first.
    assume("argv" in given or "envp" not in given)
    try:
        values, _ = bind(row, Request(row.name, [], {**given, **variables}))
    except SynosError:
        assume(False)
    return row, values


@settings(max_examples=600)
@given(calls())
def test_what_is_written_of_a_call_is_read_back_as_that_call(call: tuple[Row, list[Any]]) -> None:
    row, values = call
    written = strace.call_text(row, values)
    assert "\n" not in written
    request = text.parse(written.encode())
    assert request.call == row.name
    again, timeout = bind(row, request)
    assert (again, timeout) == (values, None), written


def ended(name: str, values: list[Any], reply: Reply, parked_ns: int | None = None) -> Ended:
    who = Identity(4242, 1, Credentials(0, 0, (), 0), 0, True)
    call = type("Called", (), {"row": ROWS[name]})()
    return Ended(0, who, call, cut_values(values), cut_reply(reply), 21_000, parked_ns)


LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{6} 4242 (?P<call>\w+\(.*\)) = .* <\d+\.\d{6}>( waited| timed out| interrupted)?")


@settings(max_examples=200)
@given(calls(), st.sampled_from([0, errno.EINVAL, errno.EAGAIN, errno.EINTR]), st.binary(max_size=200), st.booleans())
def test_a_line_is_one_line_with_its_time_process_call_result_and_duration(
    call: tuple[Row, list[Any]], number: int, data: bytes, whole: bool
) -> None:
    row, values = call
    reply = Reply(-1, errno=number, message="line\nfeed") if number else Reply(len(data), {"mtype": 1}, data)
    line = strace.line(ended(row.name, values, reply, 5), whole=whole)
    assert LINE.fullmatch(line), line
    assert line.isascii() or not line.isspace()
    assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "values", "reply", "parked_ns", "written"),
    [
        ("msgrcv", [0, 8192, 0, 0], Reply(13, {"mtype": 1}, b"hello, kernel"), None,
         'msgrcv(0, 8192, 0, 0) = 13 mtype=1 "hello, kernel" <0.000021>'),
        ("msgget", [0x1234, 0o1600], Reply(0), None, "msgget(0x1234, IPC_CREAT|0600) = 0 <0.000021>"),
        ("msgsnd", [3, 1, b"x" * 40 + b"\n", 0o4000], Reply(-1, errno=errno.EAGAIN, message="msgsnd: full"), None,
         f'msgsnd(3, 1, "{"x" * 32}"..., IPC_NOWAIT) = -1 EAGAIN (full) <0.000021>'),
        ("msgrcv", [0, 9, 0, 0], Reply(-1, errno=errno.ETIMEDOUT), 1_000_000_000,
         "msgrcv(0, 9, 0, 0) = -1 ETIMEDOUT (Connection timed out) <1.000021> timed out"),
        ("msgrcv", [0, 9, 0, 0], Reply(-1, errno=errno.EINTR), 1_000_000_000,
         "msgrcv(0, 9, 0, 0) = -1 EINTR (Interrupted system call) <1.000021> interrupted"),
        ("msgrcv", [0, 9, 0, 0], Reply(-1, errno=errno.EIDRM), 1_000_000_000,
         "msgrcv(0, 9, 0, 0) = -1 EIDRM (Identifier removed) <1.000021> waited"),
        ("semget", [0, 3, 0o1600, [1, 2, 3]], Reply(7), None,
         "semget(IPC_PRIVATE, 3, IPC_CREAT|0600, [1, 2, 3]) = 7 <0.000021>"),
        ("open", [b"./a b".decode(), 0o1101, 0o644], Reply(3), None,
         'open("./a b", O_WRONLY|O_CREAT|O_TRUNC, 0644) = 3 <0.000021>'),
        ("pipe", [0], Reply(0, {"read": 3, "write": 4}), None, "pipe(0) = 0 read=3 write=4 <0.000021>"),
    ],
)  # fmt: skip
def test_lines(name: str, values: list[Any], reply: Reply, parked_ns: int | None, written: str) -> None:
    assert strace.body(ended(name, values, reply, parked_ns), whole=True) == written


def test_who_may_not_see_all_of_a_call_sees_neither_what_went_in_nor_what_came_out() -> None:
    secret = ended("msgsnd", [0, 1, b"secret", 0], Reply(-1, errno=errno.EAGAIN, message="secret"))
    assert strace.body(secret, whole=False) == ("msgsnd(...) = -1 EAGAIN (Resource temporarily unavailable) <0.000021>")
    received = ended("msgrcv", [0, 9, 0, 0], Reply(6, {"mtype": 77}, b"secret"))
    assert strace.body(received, whole=False) == "msgrcv(...) = 6 <0.000021>"


def test_data_and_lists_beyond_what_is_kept_are_cut_and_marked() -> None:
    sent = ended("msgsnd", [0, 1, b"x" * (KEPT + 1), 0], Reply(0))
    assert strace.is_cut(sent.values)
    with pytest.raises(SynosError, match="cut short"):
        text.parse(strace.call_text(ROWS["msgsnd"], sent.values).encode())
    assert not strace.is_cut(ended("msgsnd", [0, 1, b"x" * KEPT, 0], Reply(0)).values)
    assert strace.is_cut(ended("semctl", [0, 0, 17, [1] * 65] + [None] * 3, Reply(0)).values)


def test_a_removal_says_what_whose_by_whom_and_why() -> None:
    removal = Removal(0.0, "sem", 7, 0x51, 1000, "its last owner has ended", 4242, 1000, "a b")
    assert strace.removal_line(0, removal)[15:] == (
        ' 4242 --- removed sem/sysv/7 key=0x51 owner=1000 uid=1000 program="a b": its last owner has ended ---'
    )
