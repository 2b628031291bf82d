"""Arguments: what a word means as a parameter, and that every notation binds to the same values."""

import errno
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synosfs.errors import SynosError, excerpt
from synosfs.syscall_gate import table
from synosfs.syscall_gate.codecs import RequestStream
from synosfs.syscall_gate.converters import BadArgument, parse_int
from synosfs.syscall_gate.kinds import KINDS
from synosfs.syscall_gate.record import Bare, Request
from synosfs.syscall_gate.spec import bind, binder, row

numbers = st.integers(-(1 << 70), 1 << 70)
ints = st.integers(-(1 << 31), (1 << 31) - 1)
anything = st.one_of(
    st.none(), st.booleans(), numbers, st.floats(), st.text(), st.binary(), st.binary().map(Bare), st.lists(st.text())
)


def refusal(convert: Callable[[], Any]) -> Any:
    """What it returns, or the error that it raises."""
    try:
        return convert()
    except (BadArgument, SynosError) as error:
        return error


def handler() -> None:
    raise AssertionError("never called here")


PROBE = row(None, "probe", handler, "first:int data:data flags:msg_flags=0 more:int?", help="")


# --- numbers


@given(numbers, st.sampled_from(["{}", "{:#x}", "{:#X}"]))
def test_what_c_writes_is_read_back(number: int, form: str) -> None:
    text = form.format(number)
    assert parse_int(text) == parse_int(text.encode()) == parse_int(Bare(text.encode())) == number


@given(st.integers(0, 1 << 70), st.sampled_from(["", "-", "+"]))
def test_a_leading_zero_means_octal(number: int, sign: str) -> None:
    assert parse_int(f"{sign}0{number:o}") == (-number if sign == "-" else number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-",
        "+",
        "08",
        "0x",
        "0xg",
        "1_000",
        " 1",
        "1 ",
        "1.5",
        "1e3",
        "--1",
        "+-1",
        "²",
        "\u0661",
        "0b1",
        "0o7",
    ],
)
def test_what_is_no_number_in_c_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="wants a number"):
        parse_int(text)


@given(anything)
def test_a_number_is_read_or_refused_in_words(value: Any) -> None:
    answer = refusal(lambda: parse_int(value))
    assert isinstance(answer, int) or str(answer).startswith("wants a number")


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("int", -(1 << 31), (1 << 31) - 1), ("long", -(1 << 63), (1 << 63) - 1), ("uid", 0, (1 << 32) - 1)],
)
@given(data=st.data())
def test_a_number_of_a_kind_is_in_its_range(kind: str, low: int, high: int, data: st.DataObject) -> None:
    number = data.draw(st.one_of(numbers, st.sampled_from([low - 1, low, high, high + 1])))
    convert = KINDS[kind].convert
    if low <= number <= high:
        assert convert(number) == convert(str(number)) == number
    else:
        with pytest.raises(BadArgument, match="wants a number from"):
            convert(number)


@given(st.integers(0, (1 << 32) - 1))
def test_a_key_above_the_signed_range_is_the_negative_one(key: int) -> None:
    assert KINDS["key"].convert(f"{key:#x}") == (key - (1 << 32) if key >> 31 else key)


# --- flags

FLAG_VALUES = {"IPC_NOWAIT": 0o4000, "MSG_NOERROR": 0o10000, "MSG_EXCEPT": 0o20000, "MSG_COPY": 0o40000}


@given(st.lists(st.sampled_from([*FLAG_VALUES, "0", "0x10", "04000", "1"]), min_size=1))
def test_flags_are_joined_by_a_bar(words: list[str]) -> None:
    expected = 0
    for word in words:
        expected |= FLAG_VALUES[word] if word in FLAG_VALUES else parse_int(word)
    assert KINDS["msg_flags"].convert("|".join(words)) == KINDS["msg_flags"].convert(expected) == expected


@pytest.mark.parametrize(
    ("word", "hint"), [("IPC_NOWIAT", "IPC_NOWAIT"), ("MSG_NOEROR", "MSG_NOERROR"), ("ipc_nowait|MSG_COPI", None)]
)
def test_an_unknown_flag_is_refused_with_the_nearest_word(word: str, hint: str | None) -> None:
    with pytest.raises(BadArgument, match=f"did you mean {hint}" if hint else "has no value named"):
        KINDS["msg_flags"].convert(word)


# --- binding


@given(ints, st.binary(), st.one_of(st.none(), st.sampled_from(list(FLAG_VALUES))), st.one_of(st.none(), ints))
def test_a_value_means_the_same_in_place_and_by_name(
    first: int, data: bytes, flags: str | None, more: int | None
) -> None:
    given_ = {"first": first, "data": data, "flags": flags, "more": more}
    named = {name: value for name, value in given_.items() if value is not None}
    expected = [first, data, FLAG_VALUES[flags] if flags else 0, more]
    assert bind(PROBE, Request("probe", [], named)) == (expected, None)
    # As many in place as stand there without a gap.
    for count in range(5):
        head = list(given_.values())[:count]
        if None not in head:
            rest = {name: value for name, value in list(given_.items())[count:] if value is not None}
            assert bind(PROBE, Request("probe", head, rest)) == (expected, None)


@given(ints, st.binary(), st.floats(0, 1e9))
def test_text_words_bind_as_values_do(first: int, data: bytes, timeout: float) -> None:
    words = [Bare(b"%d" % first), data, Bare(b"timeout=%r" % timeout)]
    assert bind(PROBE, Request("probe", words)) == ([first, data, 0, None], timeout)
    assert bind(PROBE, Request("probe", [first, data], {}, timeout)) == ([first, data, 0, None], timeout)


@given(st.sampled_from(table.ROWS), st.lists(anything, max_size=8), st.dictionaries(st.text(), anything, max_size=3))
def test_binding_anything_to_any_call_gives_its_values_or_einval(
    row: Any, args: list[Any], named: dict[str, Any]
) -> None:
    answer = refusal(lambda: bind(row, Request(row.name, args, named)))
    if isinstance(answer, SynosError):
        assert answer.errno == errno.EINVAL
        assert answer.message.startswith(f"{row.name}: ")
        assert "\n" not in answer.message
    else:
        values, timeout = answer
        assert len(values) == len(row.params)
        assert timeout is None or 0 <= timeout <= 1e9


@pytest.mark.parametrize(
    ("args", "named", "message"),
    [
        ([], {}, "probe: first is missing; usage: probe first data [flags] [more]"),
        ([1], {}, "probe: data is missing"),
        ([1, b"", 0, 0, 5], {}, "probe: one argument too many: '5'"),
        ([1, b""], {"first": 2}, "probe: first is given twice, in place and by name"),
        ([1, b""], {"flag": 2}, "probe: no argument is named 'flag'; did you mean flags?"),
        ([1, b""], {"timeout": -1}, "probe: timeout wants seconds, such as 0.5, not '-1'"),
        ([1, b""], {"timeout": "soon"}, "probe: timeout wants seconds"),
        (["x", b""], {}, "probe: first wants a number such as 10, 0x1f or 0666, not 'x'"),
        ([1 << 31, b""], {}, "probe: first wants a number from -2147483648 to 2147483647"),
        ([1, 2], {}, "probe: data wants a string, not '2'"),
        ([1, b"", "IPC_NOWIAT"], {}, "probe: flags has no value named 'IPC_NOWIAT'; did you mean IPC_NOWAIT?"),
    ],
)
def test_what_cannot_be_bound_is_named(args: list[Any], named: dict[str, Any], message: str) -> None:
    with pytest.raises(SynosError) as raised:
        bind(PROBE, Request("probe", args, named))
    assert raised.value.errno == errno.EINVAL
    assert raised.value.message.startswith(message)


@pytest.mark.parametrize("name", ["getpit", "msgrvc", "semopp"])
def test_an_unknown_call_is_enosys_with_the_nearest_name(name: str) -> None:
    with pytest.raises(SynosError, match="did you mean") as raised:
        table.find(name)
    assert raised.value.errno == errno.ENOSYS


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("bpf", "bpf is not built"),
        (321, "bpf .321. is not built"),
        (101, "ptrace is refused: .*strace"),
        (9999, "no call has number 9999"),
    ],
)
def test_a_call_that_is_not_built_is_enosys_by_name(call: str | int, message: str) -> None:
    with pytest.raises(SynosError, match=message) as raised:
        table.find(call)
    assert raised.value.errno == errno.ENOSYS


# --- long lists


def test_many_values_are_decimal_and_few_are_of_any_form() -> None:
    for values in ([7] * 32_000, b",".join([b"7"] * 32_000)):
        assert KINDS["values"].convert(values) == [7] * 32_000
    assert KINDS["values"].convert(b"7,010,0x10,-1") == [7, 8, 16, -1]
    assert KINDS["values"].convert([b"7", "010", 3]) == [7, 8, 3]
    for values in (b"1, 2", b"1,,2", b"1.0,2", b"[1],2", b"true,1"):
        with pytest.raises(BadArgument, match="wants a number"):
            KINDS["values"].convert(values)
    for values in (b"010," * 8192 + b"1", [b"010"] * 8193):
        with pytest.raises(BadArgument, match="plain decimal numbers where there are more than 8192"):
            KINDS["values"].convert(values)
    for values in (b"1," * 65_535 + b"1", [1] * 65_536):
        with pytest.raises(BadArgument, match="65535 at most, not 65536"):
            KINDS["values"].convert(values)


def test_a_poll_may_name_one_thing_ten_thousand_times_and_two_thousand_different_ones() -> None:
    def convert(things: list[Any]) -> list[tuple[str, int]]:
        return KINDS["polled"].convert(things)

    one = [["msgq/1", "POLLIN"], b"msgq/1:POLLIN", "msgq/1", ["msgq/1", 1]] * 2500
    assert convert(one) == [("msgq/1", 1)] * 10_000
    with pytest.raises(SynosError, match="10001 things are more than 10000") as raised:
        convert([*one, 3])
    assert raised.value.errno == errno.EINVAL
    with pytest.raises(SynosError, match="2049 different things are more than 2048") as raised:
        convert([str(number) for number in range(2049)])
    assert raised.value.errno == errno.EINVAL
    for wrong in ([["a", []]], [{}], [["a"]], [["a", 1, 2]]):
        with pytest.raises(BadArgument, match="wants"):
            convert(wrong)


def test_of_a_long_list_the_beginning_is_shown() -> None:
    assert excerpt([1, [2, 3]]) == "[1, [2, 3]]"
    assert excerpt([[1] * 1000] * 1000) == "[[" + "1, " * 19 + "1..."
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert len(excerpt(deep)) <= 63


# --- times of files


def timeval(*args: Any, call: str = "utimes") -> Any:
    return refusal(lambda: bind(table.find(call), Request(call, [Bare(b"./file"), *args]))[0][1:])


@given(st.integers(-(1 << 62), 1 << 62), st.integers(0, 999_999), ints, st.integers(0, 999_999))
def test_a_struct_timeval_and_its_decimals_are_the_same_time(sec: int, usec: int, sec2: int, usec2: int) -> None:
    both = sec * 10**9 + usec * 1000, sec2 * 10**9 + usec2 * 1000
    assert timeval([[sec, usec], [sec2, usec2]]) == [both, None]
    assert timeval([sec, usec], [sec2, usec2]) == [(both[0], None), both[1]]
    if sec >= 0:
        assert timeval(Bare(b"%d.%06d" % (sec, usec))) == [(both[0], None), None]
        assert timeval(Bare(b"%d.%06d999" % (sec, usec))) == [(both[0], None), None]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (([1, 1_000_000],), "atime wants tv_usec from 0 to 999999, not 1000000"),
        (([1, 2, 3],), "atime wants seconds, or tv_sec and tv_usec"),
        ((1, [1 << 63, 0]), "mtime wants a number from"),
        ((Bare(b"nan"),), "atime wants seconds"),
        ((Bare(b"yesterday"),), "atime wants seconds, such as 0.5, not 'yesterday'"),
    ],
)
def test_what_is_no_time_of_a_file(args: tuple, words: str) -> None:
    assert words in timeval(*args).message


def test_whole_seconds_have_no_fraction() -> None:
    assert "actime wants a number" in timeval(Bare(b"1.5"), 1, call="utime").message
    assert timeval([1, -2], call="utime") == [(10**9, -2 * 10**9), None]


# --- arguments that C has in another order


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (b"splice 3 4 100", [3, 4, 100, 0, None, None]),
        (b"splice 3 4 100 SPLICE_F_MOVE off_out=7", [3, 4, 100, 1, None, 7]),
        (b"splice 3 NULL 4 7 100 1", [3, 4, 100, 1, None, 7]),
        (b"splice(3, [5], 4, NULL, 100, SPLICE_F_MOVE) = 100", [3, 4, 100, 1, 5, None]),
        (b"sendfile 4 3 100", [4, 3, 100, None]),
        (b"sendfile 4 3 100 offset=5", [4, 3, 100, 5]),
        (b"sendfile(4, 3, [5], 100)", [4, 3, 100, 5]),
        (b'{"call": "splice", "args": [3, null, 4, 7, 100, 0]}', [3, 4, 100, 0, None, 7]),
        (b'{"call": "sendfile", "args": [4, 3, null, 100]}', [4, 3, 100, None]),
    ],
)
def test_all_in_place_they_are_in_cs_order(line: bytes, values: list) -> None:
    (record,) = RequestStream().feed(line + b"\n")
    request = record.requests[0]
    call = table.find(request.call)
    assert bind(call, request)[0] == binder(call)(request)[0] == values


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"splice 3 4 100 0 7", "one argument too many: '7'; usage: splice fd_in fd_out len [flags] [off_in=]"),
        (b"splice 3 NULL 4 NULL 100 0 0", "one argument too many"),
        (b"splice 3 NULL 4 NULL 100 0 off_in=3", "off_in is given twice"),
        (b"splice 3 x 4 NULL 100 0", "off_in wants a number"),
        (b"sendfile 4 3 NULL 100 0", "usage: sendfile out_fd in_fd count [offset=]"),
    ],
)
def test_neither_too_few_nor_too_many_for_cs_order(line: bytes, words: str) -> None:
    (record,) = RequestStream().feed(line + b"\n")
    request = record.requests[0]
    for bound in (partial(bind, table.find(request.call)), binder(table.find(request.call))):
        assert words in refusal(lambda bound=bound: bound(request)).message
