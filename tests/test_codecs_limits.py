"""How large a record, its data and a batch may be, and what is said of what is larger."""

import base64
import errno
import gc

import msgspec
import pytest
from streams import RequestStream, calls, error_of, records, shown, split

from synosfs.syscall_gate.codecs import JSON, MAX_BATCH, MSGPACK, TEXT, Notation
from synosfs.syscall_gate.record import MAX_DATA, MAX_RECORD

TOO_LARGE = "a record may hold 1 MiB of data, and this one is larger"

to_json = msgspec.json.encode
to_msgpack = msgspec.msgpack.encode


@pytest.mark.parametrize("notation", [TEXT, JSON, MSGPACK])
def test_a_record_holds_one_mebibyte_of_data_and_not_a_byte_more(notation: Notation) -> None:
    for size in (MAX_DATA, MAX_DATA + 1):
        data = b"\xff" * size
        record = {
            TEXT: b'write 1 "' + b"\\xff" * size + b'"\n',
            JSON: to_json({"call": "write", "args": [1], "data64": base64.b64encode(data).decode()}) + b"\n",
            MSGPACK: to_msgpack({"call": "write", "args": [1, data]}),
        }[notation]
        stream = RequestStream()
        pieces = split(record, [1 << 20] * (len(record) >> 20))
        (found,) = [found for piece in pieces for found in stream.feed(piece)]
        if size == MAX_DATA:
            (request,) = found.requests
            assert data in (request.data, *request.args)
        else:
            assert shown([found]) == [(notation, [], False, (errno.EMSGSIZE, TOO_LARGE))]
        assert calls(stream.feed(b"getpid\n")) == ["getpid"]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda big: {"call": "f", "args": [[1, [big]]]},
        lambda big: {"call": "f", "kwargs": {"a": big}},
        lambda big: {"call": "f", "data": big},
        lambda big: [{"call": "f"}, {"call": "f", "data": big}],
    ],
)
def test_data_is_measured_wherever_it_stands(request_of) -> None:
    for big in ("x" * (MAX_DATA + 1), "ü" * (MAX_DATA // 2 + 1)):
        assert error_of(to_msgpack(request_of(big))) == (errno.EMSGSIZE, TOO_LARGE)
        assert error_of(to_json(request_of(big)) + b"\n") == (errno.EMSGSIZE, TOO_LARGE)


HUGE = MAX_RECORD + 100_000


@pytest.mark.parametrize("size", [4096, 1 << 20])
@pytest.mark.parametrize(
    "record",
    [
        b"write 1 " + b"x" * HUGE + b"\n",
        b'{"call":"f","data":"' + b"x" * HUGE + b'"}\n',
        b"[" + b'{"call":"unlink"},' * (HUGE // 18) + b'{"call":"unlink"}]\n',
        to_msgpack({"call": "f", "data": b"x" * HUGE}),
        to_msgpack([{"call": "f", "args": ["abcdefg"]}] * (HUGE // 16)),
        to_msgpack({"call": "f", "args": [b"x" * (HUGE // 2), b"y" * (HUGE // 2)]}),
    ],
)
def test_a_huge_record_is_emsgsize_once_and_the_stream_goes_on_behind_it(record: bytes, size: int) -> None:
    stream = RequestStream()
    pieces = split(record + b"getpid\n", [size] * (len(record) // size + 1))
    found = []
    for piece in pieces:
        found += stream.feed(piece)
        assert len(stream._pending) <= MAX_RECORD
    refused, getpid = found
    assert refused.error is not None
    assert (refused.error.errno, refused.error.message) == (errno.EMSGSIZE, TOO_LARGE)
    assert calls([getpid]) == ["getpid"]


def test_a_huge_text_record_ends_with_the_piece_that_would_end_any() -> None:
    stream = RequestStream()
    (refused,) = [record for _ in range(5) for record in stream.feed(b"x" * (1 << 20))]
    assert refused.error is not None
    assert list(stream.feed(b"x" * 1000)) == []
    assert calls(stream.feed(b"getpid")) == ["getpid"]


@pytest.mark.parametrize("begin", [b"x", b'{"', b"\xdd\xff\xff\xff\xff"])
def test_finish_ends_a_refused_record(begin: bytes) -> None:
    stream = RequestStream()
    (refused,) = [record for piece in (begin.ljust(4096), *[b"x" * (1 << 20)] * 5) for record in stream.feed(piece)]
    assert refused.error is not None
    assert refused.error.errno == errno.EMSGSIZE
    assert stream.finish() == []
    assert calls(stream.feed(b"getpid\n")) == ["getpid"]


def test_a_messagepack_header_that_promises_too_much_is_refused_at_once() -> None:
    (refused,) = RequestStream().feed(b"\x82\xa4call\xa1f\xa4data\xc6\x00\x80\x00\x00")
    assert refused.error is not None
    assert refused.error.errno == errno.EMSGSIZE


def test_a_batch_has_a_limit() -> None:
    assert len(records(to_msgpack([{"call": 39}] * MAX_BATCH))[0].requests) == MAX_BATCH
    found = error_of(to_msgpack([{"call": 39}] * (MAX_BATCH + 1)))
    assert found == (errno.EMSGSIZE, "a batch may hold 65536 requests, and this one has 65537")


@pytest.mark.parametrize(
    "record",
    [
        b'{"call":"x","args":[' + b'"aaaa",' * 60_000 + b'"a"]}\n',
        b'{"call":"x","args":[' + b'"aaaa",' * 50_000 + b"]}\n",
        b'[{"call":"x"},' * 1000 + b"\n",
        b"[" * 30_000 + b"\n",
        b'{"call":1.5}\n',
        b'getpid "\n',
        b"getpid " + b"a " * 50_000 + b"\n",
        b"\xdc\xff\xfe" + b"\xa4aaaa" * 65_000,
        b"\x81\xa4call\xc1",
    ],
)
def test_what_is_refused_goes_at_once(record: bytes) -> None:
    """A circle of it would be the collector's, which frees all that it finds in one step."""
    stream = RequestStream()
    gc.collect()
    gc.disable()
    try:
        for found in (*stream.feed(record), *stream.finish()):
            error = found.error
            del found
        assert error is not None
        del error
        assert gc.collect() == 0
    finally:
        gc.enable()
