"""How replies are written in each notation."""

import base64
import errno
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synosfs.syscall_gate.codecs import JSON, MSGPACK, TEXT, Notation, Record, RequestStream, encode
from synosfs.syscall_gate.record import Hexadecimal, Octal, Reply, Request

REPLIES = [
    Reply(3),
    Reply(0, {"read": 3, "write": 4}),
    Reply(13, {"mtype": 1}, b"hello, kernel"),
    Reply(2, {}, b"\xff\x00"),
    Reply(0, {"values": [1, 2**64 - 1], "mode": Octal(0o600), "key": Hexadecimal(-(2**63)), "name": "ü"}),
    Reply(-1, errno=errno.ENOMSG, message="no message of the desired type"),
]
PLAIN = [
    {"ret": 3},
    {"ret": 0, "read": 3, "write": 4},
    {"ret": 13, "mtype": 1, "data": b"hello, kernel"},
    {"ret": 2, "data": b"\xff\x00"},
    {"ret": 0, "values": [1, 2**64 - 1], "mode": 0o600, "key": -(2**63), "name": "ü"},
    {"ret": -1, "errno": "ENOMSG", "message": "no message of the desired type"},
]


def encoded(notation: Notation, replies: list[Reply], batch: bool = False, id: Any = None) -> bytes:
    """The answer to as many requests in one record."""
    return encode(Record(notation, [Request("f", id=id) for _ in replies], batch), replies)


def test_a_batch_is_answered_by_one_array_in_order() -> None:
    assert msgspec.msgpack.decode(encoded(MSGPACK, REPLIES, True)) == PLAIN
    line = encoded(JSON, REPLIES, True)
    assert line.count(b"\n") == 1
    in_json = [*PLAIN]
    in_json[2:4] = [{"ret": 13, "mtype": 1, "data": "hello, kernel"}, {"ret": 2, "data64": "/wA="}]
    assert msgspec.json.decode(line) == in_json


@pytest.mark.parametrize("notation", [JSON, MSGPACK])
def test_a_single_request_is_answered_by_one_object_with_its_id(notation: Notation) -> None:
    decode = msgspec.json.decode if notation is JSON else msgspec.msgpack.decode
    for id in (0, "", "abc", 2**64 - 1, 1.5):
        assert decode(encoded(notation, [Reply(7)], id=id)) == {"ret": 7, "id": id}


def test_an_id_of_any_size_comes_back_in_json() -> None:
    (record,) = RequestStream().feed(b'{"call":"f","id":123456789012345678901234567890}\n')
    assert encode(record, [Reply(0)]) == b'{"ret":0,"id":123456789012345678901234567890}\n'


@given(st.binary())
def test_data_of_a_reply_survives_every_notation(data: bytes) -> None:
    reply = [Reply(len(data), {}, data)]
    assert encoded(TEXT, reply) == b"%d\n%b\n" % (len(data), data)
    assert msgspec.msgpack.decode(encoded(MSGPACK, reply))["data"] == data
    answer = msgspec.json.decode(encoded(JSON, reply))
    assert (answer["data"].encode() if "data" in answer else base64.b64decode(answer["data64"])) == data


def test_a_name_that_is_not_utf8_is_escaped_where_a_notation_cannot_carry_it() -> None:
    reply = [Reply(0, {"name": "a\udcff", "n": [1]})]
    assert encoded(JSON, reply) == b'{"ret":0,"name":"a\\\\udcff","n":[1]}\n'
    assert msgspec.msgpack.decode(encoded(MSGPACK, reply, True)) == [{"ret": 0, "name": "a\\udcff", "n": [1]}]
