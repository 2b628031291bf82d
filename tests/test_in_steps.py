"""What is large is decoded in steps: to the same values and errors as at once, and each step is short."""

import base64
import errno
import json

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from synosfs.errors import SynosError
from synosfs.syscall_gate import in_steps, notations, text
from synosfs.syscall_gate.codecs import JSON, MAX_BATCH, MSGPACK, PAUSE, Notation, RequestStream
from synosfs.syscall_gate.in_steps import MAX_PARTS, Steps, json_steps, msgpack_steps
from synosfs.syscall_gate.notations import decode
from synosfs.syscall_gate.record import MAX_DATA, Request
from synosfs.syscall_gate.text import parse, quote

to_json, to_msgpack = msgspec.json.encode, msgspec.msgpack.encode

SMALL_WINDOWS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_windows_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a few bytes long is large."""
    monkeypatch.setattr(in_steps, "_WINDOW", 24)
    monkeypatch.setattr(in_steps, "_BATCH_WINDOW", 60)
    monkeypatch.setattr(in_steps, "_ITEMS", 6)
    monkeypatch.setattr(in_steps, "_PIECE", 16)
    monkeypatch.setattr(text, "_WINDOW", 24)
    monkeypatch.setattr(notations, "_SMALL", 0)
    monkeypatch.setattr(notations, "_BASE64", 8)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    make_windows_small(monkeypatch)


def taken(steps: Steps) -> object:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


STRINGS = st.text(alphabet=st.characters(codec="utf-8"), max_size=60) | st.text(alphabet='"\\,[]{}: éx😀', max_size=60)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS
)
VALUES = st.recursive(
    SCALARS, lambda of: st.lists(of, max_size=8) | st.dictionaries(STRINGS, of, max_size=8), max_leaves=40
)


@SMALL_WINDOWS
@given(VALUES, st.sampled_from(["", " ", "\n" * 40]))
@example(["😀" * 40], "")
@example({"x" * 100: ["\\" * 100, '"' * 100]}, "")
def test_json_is_the_same_value_in_steps(small_windows: None, value: object, blank: str) -> None:
    separators = (f"{blank},{blank}", f"{blank}:{blank}")
    for written in (
        to_json(value),
        *(json.dumps(value, ensure_ascii=a, separators=separators).encode() for a in (0, 1)),
    ):
        assert taken(json_steps(blank.encode() + written + blank.encode())) == msgspec.json.decode(written)


@SMALL_WINDOWS
@given(VALUES | st.binary(max_size=80) | st.lists(st.binary(max_size=80)))
@example("é" * 70_000)
@example(list(range(70_000 // 2)))
def test_messagepack_is_the_same_value_in_steps(small_windows: None, value: object) -> None:
    assert taken(msgpack_steps(to_msgpack(value))) == value


@SMALL_WINDOWS
@given(VALUES, st.data())
def test_malformed_json_is_refused_in_steps_too(small_windows: None, value: object, data: st.DataObject) -> None:
    written = bytearray(to_json([value, {"a": value}]))
    at = data.draw(st.integers(0, len(written) - 1))
    match data.draw(st.sampled_from(["cut", "put", "change"])):
        case "cut":
            del written[at:]
        case "put":
            written[at:at] = data.draw(
                st.sampled_from([b",", b"[", b"]", b"{", b"}", b'"', b":", b"\\", b"x", b" ", b"0"])
            )
        case _:
            written[at] = data.draw(st.integers(0, 255))
    raw = bytes(written)
    try:
        whole = msgspec.json.decode(raw)
    except ValueError:
        whole = ...
    assert value_of(raw) == whole


def value_of(raw: bytes) -> object:
    try:
        return taken(json_steps(raw))
    except ValueError:
        return ...


FIELDS = st.fixed_dictionaries(
    {"call": st.text(max_size=30) | st.integers(0, 500)},
    optional={
        "args": st.lists(VALUES, max_size=5),
        "kwargs": st.dictionaries(STRINGS, VALUES, max_size=4),
        "timeout": st.floats(0, 10) | st.none(),
        "id": st.integers(0, 99) | STRINGS,
        "data": STRINGS | st.integers(0, 9),
        "data64": st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()) | STRINGS,
        "dat": STRINGS,
    },
)


@given(st.lists(FIELDS, max_size=6) | FIELDS)
def test_a_record_is_the_same_in_steps(asked: object) -> None:
    for notation, record in ((JSON, to_json(asked)), (MSGPACK, to_msgpack(asked))):
        with pytest.MonkeyPatch.context() as patch:
            make_windows_small(patch)
            found = decode(notation, record)
            steps = 0
            while found.undecoded is not None:
                found.settle()
                steps += 1
        assert steps
        whole = decode(notation, record)
        assert found.requests == whole.requests
        assert found.batch is whole.batch
        assert bool(found.error) is bool(whole.error)
        if found.error is not None and not isinstance(asked, list):
            assert str(found.error) == str(whole.error)


WORDS = st.binary(max_size=80) | st.text(alphabet='\\x4"17n ,', max_size=80).map(str.encode)


@SMALL_WINDOWS
@given(st.lists(WORDS, min_size=1, max_size=6))
@example([b"\\" * 200])
@example([b"\x01" * 30 + b"7" * 30])
def test_strings_in_text_are_the_same_in_small_windows(small_windows: None, words: list[bytes]) -> None:
    quoted = [quote(word) for word in words]
    hexadecimal = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in words]
    for written in (quoted, hexadecimal):
        assert parse(f"f {' '.join(written)}".encode()).args == words
        assert parse(f"f({', '.join(written)})".encode()).args == words


@given(
    st.binary(max_size=200) | st.text(alphabet='\\x4"17n ,f([{=a', max_size=200).map(lambda tail: b"f " + tail.encode())
)
def test_text_is_the_same_in_small_windows(line: bytes) -> None:
    whole = outcome(line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_WINDOW", 30)
        pieces = outcome(line)
    if not (isinstance(pieces, str) and "is longer than 30 bytes" in pieces):
        assert pieces == whole


def outcome(line: bytes) -> Request | str:
    """The request, or what is wrong with it; of what is repeated of the line, no more than a small window holds."""
    try:
        return parse(line)
    except SynosError as error:
        return error.message[:80]


# --- limits


@pytest.mark.parametrize("notation", [JSON, MSGPACK])
def test_more_parts_than_a_request_may_have_are_e2big_before_they_are_decoded(notation: Notation) -> None:
    encoded = {JSON: to_json, MSGPACK: to_msgpack}[notation]
    for item in (0, "a", [], [[]], {"a": 0}):
        record = encoded({"call": "f", "args": [item] * (MAX_PARTS + 1)})
        error = settled(notation, record).error
        assert error is not None
        assert (error.errno, error.message) == (errno.E2BIG, "a request may have 60000 parts, and this one has more")
    for many in (MAX_PARTS // 2, MAX_PARTS - 100):
        (request,) = settled(notation, encoded({"call": "f", "args": [[1] * many]})).requests
        assert request.args == [[1] * many]
    things = [["msgq/1", "POLLIN"]] * 10_000
    assert settled(notation, encoded({"call": "poll", "args": [things]})).requests[0].args == [things]


@pytest.mark.parametrize("notation", [JSON, MSGPACK])
def test_the_requests_of_a_batch_count_for_themselves(notation: Notation) -> None:
    batch = [{"call": "f", "args": [[0] * (MAX_PARTS // 2)]}] * 3 + [{"call": "g"}] * 1000
    record = settled(notation, {JSON: to_json, MSGPACK: to_msgpack}[notation](batch))
    assert [request.call for request in record.requests] == ["f"] * 3 + ["g"] * 1000


def test_a_batch_in_json_has_a_limit() -> None:
    error = settled(JSON, to_json([{"call": 39}] * (MAX_BATCH + 1))).error
    assert error is not None
    assert (error.errno, error.message) == (errno.EMSGSIZE, "a batch may hold 65536 requests, and this one has more")


@pytest.mark.parametrize("notation", [JSON, MSGPACK])
def test_what_is_large_and_nests_too_deeply_is_refused(notation: Notation) -> None:
    deep: object = ["x" * 40_000]
    for _ in range(100):
        deep = [deep]
    error = settled(notation, {JSON: to_json, MSGPACK: to_msgpack}[notation]({"call": "f", "args": deep})).error
    assert error is not None
    assert error.message == f"{notation.value}: nested too deeply"


@pytest.mark.parametrize("written", [b'a%d="b" ', b'"%d" ', b"%d\v "])
def test_names_and_strings_count_as_words(written: bytes) -> None:
    with pytest.raises(SynosError, match="a request may have 4096 words") as refused:
        parse(b"f " + b"".join(written % number for number in range(5000)))
    assert refused.value.errno == errno.E2BIG


@pytest.mark.parametrize(
    "line", [b"f " + b"x" * (MAX_DATA + 1), b"f \v" + b"x" * (MAX_DATA + 1), b'f "' + b"\\x41" * (MAX_DATA + 1) + b'"']
)
def test_a_word_of_text_holds_one_mebibyte(line: bytes) -> None:
    with pytest.raises(SynosError, match="may hold 1 MiB") as refused:
        parse(line)
    assert refused.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize("line", [b"x" * 20_000 + b"\v", b"f(" + b"1" * 20_000 + b")"])
def test_a_name_or_number_has_a_limit_in_text(line: bytes) -> None:
    with pytest.raises(SynosError, match="is longer than 16384 bytes") as refused:
        parse(line)
    assert refused.value.errno == errno.E2BIG


def settled(notation: Notation, raw: bytes) -> notations.Record:
    record = decode(notation, raw)
    while record.undecoded is not None:
        record.settle()
    return record


# --- steps

FOUR_MIB = 4 << 20

LARGE: dict[str, bytes] = {
    "JSON, a list of lists": b'{"call":"f","args":[[' + b"[0,1]," * 9_000 + b"0]]}\n",
    "JSON, a string": b'{"call":"f","args":["' + b"x" * MAX_DATA + b'"]}\n',
    "JSON, a string of escapes": b'{"call":"f","args":["' + b"\\u00e9" * (MAX_DATA // 2) + b'"]}\n',
    "JSON, blanks": b'{"call":"f"' + b" " * MAX_DATA + b"}\n",
    "JSON, base64": b'{"call":"f","data64":"' + b"AAAA" * (MAX_DATA // 3) + b'"}\n',
    "JSON, a batch": b"[" + b'{"call":"getppid"},' * 50_000 + b'{"call":"f"}]\n',
    "JSON, a batch of braces": b"[" + b'{"call":"f","args":["},{"]},' * 30_000 + b'{"call":"f"}]\n',
    "JSON, without a newline": b'{"call":"f","args":["' + b"x" * MAX_DATA + b'"]}',
    "MessagePack, a list of lists": to_msgpack({"call": "f", "args": [[[0, 1]] * 15_000]}),
    "MessagePack, a string": to_msgpack({"call": "f", "args": ["é" * (MAX_DATA // 2)]}),
    "MessagePack, a batch": to_msgpack([{"call": "getppid"}] * 50_000),
    "text, escapes": b'f "' + b"\\xe9" * MAX_DATA + b'"\n',
    "text, strings": b"f " + b'"\\n" ' * 4000 + b" " * 40_000 + b"\n",
    "text, blanks": b"f\v" + b" " * MAX_DATA + b"\n",
    "text, in C's form": b"f(" + b"1, " * 4000 + b" " * 40_000 + b"1)\n",
}


@pytest.mark.parametrize("what", LARGE)
def test_there_are_pauses_in_what_is_large(what: str) -> None:
    found = list(RequestStream().feed(LARGE[what]))
    *pauses, record = found
    assert record.error is None
    assert record.requests
    assert set(map(id, pauses)) == {id(PAUSE)}
    assert len(pauses) >= 30
