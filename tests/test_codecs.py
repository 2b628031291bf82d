"""Framing and the notations: which bytes make which records, however they arrive."""

import base64
import errno
import time

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from streams import RequestStream, calls, error_of, records, shown, split

from synosfs.syscall_gate.codecs import JSON, MSGPACK, TEXT, Notation, encode
from synosfs.syscall_gate.object_end import ObjectEnd
from synosfs.syscall_gate.record import Bare, Reply, Request
from synosfs.syscall_gate.text import quote

GETPID = Request("getpid")

to_json = msgspec.json.encode
to_msgpack = msgspec.msgpack.encode


# --- framing ---


@pytest.mark.parametrize(
    ("piece", "notation", "batch"),
    [
        (b"getpid\n", TEXT, False),
        (b"getpid()\n", TEXT, False),
        (b'{"call":"getpid"}\n', JSON, False),
        (b' \n\t[{"call":"getpid"}]\n', JSON, True),
        (to_msgpack({"call": "getpid"}), MSGPACK, False),
        (to_msgpack([{"call": "getpid"}]), MSGPACK, True),
        (b"\xde\x00\x01\xa4call\xa6getpid", MSGPACK, False),
        (b"\xdf\x00\x00\x00\x01\xa4call\xa6getpid", MSGPACK, False),
        (b"\xdc\x00\x01\x81\xa4call\xa6getpid", MSGPACK, True),
        (b"\xdd\x00\x00\x00\x01\x81\xa4call\xa6getpid", MSGPACK, True),
    ],
)
def test_the_first_byte_tells_the_notation(piece: bytes, notation: Notation, batch: bool) -> None:
    assert shown(records(piece)) == [(notation, [GETPID], batch, None)]


def test_notations_may_follow_one_another_in_one_piece() -> None:
    piece = b"a\n" + to_msgpack({"call": "b"}) + b'{"call":"c"}\n' + to_msgpack([{"call": "d"}]) + b"\n e"
    assert calls(records(piece)) == ["a", "b", "c", "d", "e"]


def test_blank_lines_and_comments_make_no_record() -> None:
    assert records(b"\n \n# one\n", b"  # two\n", b"#three", b"\t") == []


@pytest.mark.parametrize("piece", [b"getpid", b'{"call":"getpid"}', b' [{"call":"getpid"}] \t'])
def test_a_piece_without_a_newline_is_a_record_at_once(piece: bytes) -> None:
    assert calls(RequestStream().feed(piece)) == ["getpid"]


@pytest.mark.parametrize("size", [512, 4096, 1 << 17, (1 << 20) - 4096, (1 << 20) - 1])
def test_text_in_a_piece_that_may_be_a_full_buffer_goes_on_in_the_next(size: int) -> None:
    stream = RequestStream(full_piece=(1 << 20) - 4096)
    begin = b"write 1 ".ljust(size, b"x")
    assert list(stream.feed(begin)) == []
    (record,) = stream.feed(b"yz")
    assert record.requests == [Request("write", [Bare(b"1"), Bare(begin[8:] + b"yz")])]


@pytest.mark.parametrize("piece", [b"getpid".ljust(512), b'{"call":"getpid"', to_msgpack({"call": "getpid"})[:-1]])
def test_finish_completes_or_refuses_what_is_pending(piece: bytes) -> None:
    stream = RequestStream()
    assert list(stream.feed(piece)) == []
    (record,) = stream.finish()
    assert (record.error is None) == (record.notation is TEXT)
    assert stream.finish() == []
    assert calls(stream.feed(b"getpid\n")) == ["getpid"]


def test_json_without_a_newline_waits_while_it_is_unfinished() -> None:
    stream = RequestStream()
    pieces = [b'{"call":"f",', b'"kwargs":{"a":1}', b',"args":["}"', b',"{}', b'"]', b"}"]
    assert [list(stream.feed(piece)) for piece in pieces[:-1]] == [[]] * 5
    (record,) = stream.feed(pieces[-1])
    assert record.requests == [Request("f", ["}", "{}"], {"a": 1})]


def test_a_full_buffer_that_ends_amid_json_is_no_error() -> None:
    stream = RequestStream()
    record = to_json({"call": "f", "args": [{"x": "y" * 600}, {}]})
    cut = record.replace(b"y", b"", record.index(b"}") % 512)
    cut = b" " * (-(cut.index(b"}") + 1) % 512) + cut
    assert list(stream.feed(cut[: cut.index(b"}") + 1])) == []
    assert calls(stream.feed(cut[cut.index(b"}") + 1 :])) == ["f"]


names = st.sampled_from(["getpid", "msgsnd", "ü"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
json_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=6)
values = st.one_of(json_values, st.binary(max_size=900))
fields = {
    "args": st.lists(json_values, max_size=4),
    "id": st.one_of(st.integers(), st.text()),
    "timeout": st.floats(0, 9),
}
json_requests = st.fixed_dictionaries({"call": names}, optional=fields)
requests = st.fixed_dictionaries(
    {"call": names},
    optional=fields
    | {
        "args": st.lists(values, max_size=4),
        "id": st.integers(-(2**63), 2**64 - 1),
        "data": st.one_of(st.text(max_size=400), st.binary(max_size=900)),
        "kwargs": st.dictionaries(st.text(), values, max_size=2),
    },
)
objects = st.one_of(requests, st.lists(requests, max_size=5))
text_lines = st.lists(st.one_of(st.integers().map(str), st.binary(max_size=700).map(quote)), max_size=4).map(
    lambda words: " ".join(["write", *words]).encode() + b"\n"
)
json_lines = st.one_of(json_requests, st.lists(json_requests, max_size=5)).map(lambda value: to_json(value) + b"\n")
packed = objects.map(to_msgpack)


@given(st.lists(packed, max_size=5).map(b"".join), st.lists(st.integers(1, 300)))
def test_messagepack_records_are_the_same_in_any_pieces(data: bytes, sizes: list[int]) -> None:
    assert shown(records(*split(data, sizes))) == shown(records(data))


@settings(max_examples=25)
@given(packed)
def test_messagepack_records_are_the_same_byte_by_byte(data: bytes) -> None:
    assert shown(records(*split(data, [1] * len(data)))) == shown(records(data))


@given(
    st.lists(
        st.one_of(text_lines, json_lines, packed, st.sampled_from([b"\n", b"# x\n", b'f "\n', b"{]\n"])), max_size=9
    ),
    st.lists(st.integers(1, 3).map(lambda blocks: blocks * 512)),
)
def test_records_are_the_same_in_full_buffers_as_one_by_one(parts: list[bytes], sizes: list[int]) -> None:
    alone = [record for part in parts for record in shown(records(part))]
    assert shown(records(*split(b"".join(parts), sizes))) == alone


@given(st.one_of(json_requests, st.lists(json_requests, min_size=1)).map(to_json), st.lists(st.integers(1, 9)))
def test_a_json_record_without_a_newline_is_the_same_in_any_pieces(data: bytes, sizes: list[int]) -> None:
    assert shown(records(*split(data, sizes))) == shown(records(data + b"\n"))


SEEDS = [
    b"getpid",
    b'{"call":',
    b'"a"}',
    b"[",
    b"]",
    b"\n",
    b'"',
    b"\x81\xa4call",
    b"\x92",
    b"\xdd\xff\xff",
    b"\xc1",
    b"\xdf",
]


@given(st.lists(st.one_of(st.binary(), st.lists(st.sampled_from(SEEDS)).map(b"".join))))
@example([b"\x82\xa4call\x01\xa4args" + b"\x91" * 100_000])
@example([b'{"call":1,"args":' + b"[" * 100_000 + b"]"])
@example([b"\x82\xa4call\x01\xa4args\x91\xc7\x0c\xff" + b"\xff" * 12])
@example([b'{"call":1,"id":' + b"9" * 5000 + b"}\n"])
@example([b"\x81\xa4call\xa6\xff\xff\xff\xff\xff\xff", b'{"call":"\xff"}\n'])
def test_garbage_makes_records_and_errors_and_hurts_nobody(pieces: list[bytes]) -> None:
    stream = RequestStream()
    found = [record for piece in pieces for record in stream.feed(piece)] + stream.finish()
    for record in found:
        assert bool(record.requests) != (record.error is not None)
        if record.error is not None:
            assert record.error.message.isprintable()
            assert encode(record, [Reply(-1, errno=22, message=record.error.message)])
    assert calls(stream.feed(b"getpid\n")) == ["getpid"]


@given(st.binary(max_size=60))
def test_the_scanner_and_the_decoder_agree_on_where_an_object_ends(data: bytes) -> None:
    end = ObjectEnd()
    try:
        complete = end.search(bytearray(data))
    except ValueError:
        complete = False
    decoded = True
    try:
        msgspec.msgpack.decode(data[: end.position] if complete else data, type=msgspec.Raw)
    except msgspec.DecodeError:
        decoded = False
    assert complete == decoded or (data and not complete and b"\xc1" in data)


@pytest.mark.parametrize(
    "record",
    [
        to_msgpack([{"call": "f", "args": [1, "abc", b"x"]}] * 40_000),
        to_json([{"call": "f", "args": [1, "abc", "x"]}] * 40_000),
        b'write 1 "' + b"x" * 1_000_000 + b'"\n',
    ],
)
def test_a_large_record_in_small_pieces_costs_a_search_not_a_square(record: bytes) -> None:
    began = time.process_time()
    whole = records(record)
    once = time.process_time() - began
    pieces = split(record, [512] * (len(record) // 512))
    began = time.process_time()
    found = records(*pieces)
    assert calls(found) == calls(whole)
    # A square would be a thousand times as much.
    assert time.process_time() - began < 30 * once + 0.5


# --- requests ---


@given(json_requests)
def test_json_and_messagepack_of_the_same_request_are_equal(request: dict) -> None:
    request = {name: value for name, value in request.items() if name != "id"} | {"id": 7}
    (json,) = records(to_json(request) + b"\n")
    (msgpack,) = records(to_msgpack(request))
    assert json.requests == msgpack.requests


@given(st.binary())
def test_data64_comes_as_the_bytes_that_messagepack_calls_bin(data: bytes) -> None:
    (json,) = records(to_json({"call": "f", "data64": base64.b64encode(data).decode()}))
    (msgpack,) = records(to_msgpack({"call": "f", "data": data}))
    assert json.requests == msgpack.requests == [Request("f", data=data)]


def test_all_fields_of_a_request_arrive() -> None:
    fields = {
        "call": 29,
        "args": [2**64 - 1, -(2**63), 1.5, "x", [1, [2]]],
        "kwargs": {"a": "b"},
        "timeout": 5,
        "id": "i",
    }
    for piece in (to_json(fields), to_msgpack(fields)):
        (record,) = records(piece)
        assert record.requests == [Request(**fields)]


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (b'{"args":[]}', "the field call is missing"),
        (b'{"call":"f","args":3}', "args: expected an array, got int"),
        (b'{"call":true}', "call: expected int or str, got bool"),
        (b'{"call":"f","kwargs":[]}', "kwargs: expected an object, got array"),
        (b'{"call":"f","timeout":"1"}', "timeout: expected float or null, got str"),
        (b'{"call":"f","id":[]}', "id: expected int or float or str or null, got array"),
        (b'{"call":"f","data":5}', "data: expected str or bytes, got int"),
        (b'{"call":"f","data64":"x!"}', "data64: not base64: only base64 data is allowed"),
        (b'{"call":"f","data":"","data64":""}', "data and data64 are both given"),
        (b'{"call":"f","arg":[]}', "unknown field arg; did you mean args?"),
        (b'{"call":"f","\\n":1}', "unknown field \\n; there are call, args, kwargs, timeout, id, data, data64"),
        (b'[{"call":"f"},{"call":"f","args":3}]', "batch[1].args: expected an array, got int"),
        (b'[{"call":"f"},{}]', "batch[1]: the field call is missing"),
        (b"[1]", "batch[0]: expected an object, got int"),
        (b'{"call":"f","args":[1e999]}', "args[0]: number out of range"),
        (b"[]", "an empty batch"),
        (b'{"call" "f"}', "JSON: expected ':' near column 9"),
        (b'{"call":"f"} {"call":"g"}', "JSON: trailing characters near column 15"),
        (b'{"call":"f","args":[1,]}', "JSON: trailing comma in array near column 23"),
        (b'{"call":"\xff"}', "JSON: a string is not UTF-8; other data goes as data64"),
        (b'{"call":"f"\n', "JSON: unfinished after column 11; one object or array a line"),
        (b'{"call":1,"args":' + b"[" * 9999 + b"\n", "JSON: nested too deeply"),
        (b"\x90", "an empty batch"),
        (b"\x81\xa4call\xc3", "call: expected int or str, got bool"),
        (b"\x81\xa3arg\x01", "unknown field arg; did you mean args?"),
        (b"\x81\x01\x01", "a field's name: expected str, got int"),
        (b"\x91\x01", "batch[0]: expected an object, got int"),
        (b"\x81\xa4call\xa1\xff", "MessagePack: a string is not UTF-8; other data goes as bin"),
        (b"\x81\xa4call", "MessagePack: the object is unfinished after 6 bytes"),
        (b"\x81\xa4call\xc1 and more", "MessagePack: invalid byte 0xc1 at byte 6"),
        (b'msgsnd 3 1 "hel\n', 'unterminated string starting at column 12: "hel'),
    ],
)
def test_a_malformed_record_is_einval_with_a_message_that_names_the_part(piece: bytes, message: str) -> None:
    assert error_of(piece) == (errno.EINVAL, message)


def test_a_wrong_record_takes_nothing_of_the_next() -> None:
    pieces = [b'{"call":3.5}\ngetpid\n', to_msgpack({"call": []}) + to_msgpack({"call": "getpid"}), b'f "\ngetpid\n']
    for wrong, right in map(records, pieces):
        assert wrong.error is not None
        assert calls([right]) == ["getpid"]
