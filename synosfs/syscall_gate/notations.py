"""The three notations: bytes of one record in, its ``Requests`` out; ``Reply``s in, the bytes that answer it out.

Nothing but ``SynosError`` is made of what a caller wrote, and nothing is raised. What calls mean is not known here.

No step takes long, whatever was written: a record of more than ``_SMALL`` bytes is looked at before it is decoded
(``MAX_PARTS``), and a batch is decoded and encoded by the handful (``Record.settle``, ``encoded``), so that others can
be let in between.
"""

import binascii
import re
from collections.abc import Iterator
from difflib import get_close_matches
from enum import Enum
from errno import E2BIG, EINVAL, EMSGSIZE
from typing import Any

import msgspec

from synosfs.errors import SynosError, errno_name, excerpt
from synosfs.syscall_gate.object_end import ObjectEnd
from synosfs.syscall_gate.record import MAX_DATA, MAX_RECORD, Reply, Request
from synosfs.syscall_gate.text import has_too_many_parts, is_blank, parse, render


class Notation(Enum):
    """How a record is written, and so how its reply is."""

    TEXT = "text"
    JSON = "JSON"
    MSGPACK = "MessagePack"


TEXT, JSON, MSGPACK = Notation  # reading a global takes a third of the time

#: The most requests one array may hold. Encoded they are small; decoded, with their replies, they are not.
MAX_BATCH = 1 << 16

#: The most parts (strings, items, fields) that one request in JSON or MessagePack may have: SETALL of SEMMSL values,
#: and some. Decoding as many takes some 7 ms.
MAX_PARTS = 60_000

#: A record of up to this many bytes is decoded at once, whatever is in it.
_SMALL = 32 << 10

#: How many requests or replies of a batch are decoded or encoded in a row.
_HANDFUL = 512


class Record(msgspec.Struct):
    """What one record asks for: one request, the several of a batch, or the error that it could not be read. One that
    has neither asks for nothing. ``undecoded`` is what of a large batch is still to be decoded, from the end.
    """

    notation: Notation
    requests: list[Request] = []
    batch: bool = False
    error: SynosError | None = None
    undecoded: list[msgspec.Raw] = []

    def settle(self) -> bool:
        """Decode the next handful; whether there is more. An error in any of them is the error of the whole."""
        handful = [self.undecoded.pop() for _ in range(min(_HANDFUL, len(self.undecoded)))]
        try:
            self.requests += [_request(self.notation, bytes(raw)) for raw in handful]
        except SynosError as error:
            self.requests, self.batch, self.undecoded, self.error = [], False, [], error
        return bool(self.undecoded)


def decode(notation: Notation, raw: bytes) -> Record:
    """One whole record, or its error; no requests when it is a comment. See ``Record.settle`` for the rest of it."""
    try:
        if len(raw) > MAX_RECORD:
            raise too_large()
        if notation is TEXT:
            return Record(notation, [] if raw[:1] <= b"#" and is_blank(raw) else [_checked(parse(raw), len(raw))])
        if len(raw) > _SMALL:
            return _decode_large(notation, raw)
        decoded = _DECODERS[notation].decode(raw)
        batch = isinstance(decoded, list)
        requests = decoded if isinstance(decoded, list) else [decoded]
        if batch and not 0 < len(requests) <= MAX_BATCH:
            raise _bad_batch(len(requests))
        for request in requests:
            if request.data is not None or request.data64 is not None:
                _settle_data(request)
    except SynosError as error:
        return Record(notation, error=error)
    except (ValueError, RecursionError, OverflowError) as error:
        return Record(notation, error=_readable(notation, error, len(raw)))
    return Record(notation, requests, batch)


def encode(record: Record, replies: list[Reply]) -> bytes:
    """The bytes that answer one record: a reply to each of its requests, or one to what could not be read."""
    return b"".join(encoded(record, replies))


def encoded(record: Record, replies: list[Reply]) -> Iterator[bytes]:
    """The same, by the handful."""
    if record.notation is TEXT:
        yield render(replies[0])
        return
    as_json = record.notation is JSON
    ids = [request.id for request in record.requests] or [None]
    if not record.batch:
        yield _encoded(_answer(replies[0], ids[0], as_json), as_json) + b"\n" * as_json
        return
    yield b"[" if as_json else _array_header(len(replies))
    for start in range(0, len(replies), _HANDFUL):
        some = range(start, min(start + _HANDFUL, len(replies)))
        answers = [_answer(replies[place], ids[place], as_json) for place in some]
        whole = _encoded(answers, as_json)
        yield b"," * (start > 0) + whole[1:-1] if as_json else whole[len(_array_header(len(answers))) :]
    if as_json:
        yield b"]\n"


# --- requests ---


class Incomplete(SynosError):
    """The record ends too early: more bytes could make it right."""


_JSON_DECODER = msgspec.json.Decoder(Request | list[Request])
_MSGPACK_DECODER = msgspec.msgpack.Decoder(Request | list[Request])
_DECODERS: dict[Notation, Any] = {JSON: _JSON_DECODER, MSGPACK: _MSGPACK_DECODER}
_ONE: dict[Notation, Any] = {JSON: msgspec.json.Decoder(Request), MSGPACK: msgspec.msgpack.Decoder(Request)}
_SPLIT: dict[Notation, Any] = {
    JSON: msgspec.json.Decoder(list[msgspec.Raw]),
    MSGPACK: msgspec.msgpack.Decoder(list[msgspec.Raw]),
}


def _decode_large(notation: Notation, raw: bytes) -> Record:
    """A batch is taken apart, which is quick, and left to ``settle``; a single request is decoded."""
    if raw[:1] == b"[" or (notation is MSGPACK and not 0x80 <= raw[0] <= 0x8F and raw[0] not in (0xDE, 0xDF)):
        items = _SPLIT[notation].decode(raw)
        if not 0 < len(items) <= MAX_BATCH:
            raise _bad_batch(len(items))
        items.reverse()
        return Record(notation, batch=True, undecoded=items)
    return Record(notation, [_request(notation, raw)])


def _request(notation: Notation, raw: bytes) -> Request:
    """One request, by itself or of a large batch."""
    too_many = len(raw) > _SMALL and _has_too_many_parts(notation, raw)
    try:
        # Of one with too many parts the beginning tells whether they nest too deeply.
        request: Request = _ONE[notation].decode(raw[:_SMALL] if too_many else raw)
    except (ValueError, RecursionError, OverflowError) as error:
        if too_many and not isinstance(error, RecursionError):
            raise SynosError(E2BIG, f"a request may have {MAX_PARTS} parts, and this one has more") from None
        raise _readable(notation, error, len(raw)) from None
    if request.data is not None or request.data64 is not None:
        _settle_data(request)
    return _checked(request, len(raw))


def _has_too_many_parts(notation: Notation, raw: bytes) -> bool:
    if notation is JSON:
        return has_too_many_parts(raw, MAX_PARTS)
    end = ObjectEnd()
    end.search(bytearray(raw), MAX_PARTS)
    return end.missing > 0


def _checked(request: Request, size: int) -> Request:
    """EMSGSIZE: it holds too much data. Nothing grows in decoding, so a small record holds no large data."""
    if size > MAX_DATA:
        _check_size(request)
    return request


def _settle_data(request: Request) -> None:
    """Bring what the two fields may say to one: ``data`` is str or bytes."""
    if request.data64 is not None:
        if request.data is not None:
            raise SynosError(EINVAL, "data and data64 are both given")
        try:
            request.data = binascii.a2b_base64(request.data64, strict_mode=True)
        except ValueError as error:
            raise SynosError(EINVAL, f"data64: not base64: {str(error).lower()}") from None
        request.data64 = None
    elif not isinstance(request.data, str | bytes):
        raise SynosError(EINVAL, f"data: expected str or bytes, got {type(request.data).__name__}")


def _check_size(request: Request) -> None:
    values = [request.data, *request.kwargs.values(), *request.args]
    while values:
        value = values.pop()
        if isinstance(value, list):
            values += value
        elif isinstance(value, str | bytes) and len(value.encode() if isinstance(value, str) else value) > MAX_DATA:
            raise too_large()


def too_large() -> SynosError:
    return SynosError(EMSGSIZE, "a record may hold 1 MiB of data, and this one is larger")


def _bad_batch(size: int) -> SynosError:
    if size == 0:
        return SynosError(EINVAL, "an empty batch")
    return SynosError(EMSGSIZE, f"a batch may hold {MAX_BATCH} requests, and this one has {size}")


def incomplete(notation: Notation, size: int) -> SynosError:
    if notation is JSON:
        return Incomplete(EINVAL, f"JSON: unfinished after column {size}; one object or array a line")
    return Incomplete(EINVAL, f"MessagePack: the object is unfinished after {size} bytes")


def _readable(notation: Notation, error: Exception, size: int) -> SynosError:
    """What a decoder said, in the words of the gate."""
    said = str(error)
    if said == "Input data was truncated":
        return incomplete(notation, size)
    if isinstance(error, UnicodeDecodeError):
        binary = "data64" if notation is JSON else "bin"
        return SynosError(EINVAL, f"{notation.value}: a string is not UTF-8; other data goes as {binary}")
    if isinstance(error, RecursionError):
        return SynosError(EINVAL, f"{notation.value}: nested too deeply")
    if malformed := re.fullmatch(r".* is malformed: (.*) \(byte (\d+)\)", said, re.DOTALL):
        # msgspec says how far it had read, which is the culprit or just behind it.
        near = f"column {int(malformed[2]) + 1}" if notation is JSON else f"byte {malformed[2]}"
        return SynosError(EINVAL, f"{notation.value}: {malformed[1]} near {near}")
    problem, _, path = said.partition(" - at ")
    part = re.sub(r"^\$\.?", "", path.replace("`", "").replace("$[", "batch[")).replace("key in $", "a field's name")
    return SynosError(EINVAL, f"{part}: {_problem(problem)}" if part else _problem(problem))


def _problem(problem: str) -> str:
    if mismatch := re.fullmatch(r"Expected `(.*)`, got `(.*)`", problem):
        expected = re.sub(r"(array|object)", r"an \1", mismatch[1].replace(" | ", " or "))
        return f"expected {expected}, got {mismatch[2]}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"the field {missing[1]} is missing"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        fields = Request.__struct_fields__
        nearest = get_close_matches(unknown[1][:100], fields, 1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(fields)}"
        return f"unknown field {excerpt(unknown[1].encode())}; {hint}"
    return problem[:1].lower() + problem[1:]


# --- replies ---


def _answer(reply: Reply, id: Any, as_json: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"ret": reply.ret}
    if reply.errno:
        answer["errno"] = errno_name(reply.errno)
        answer["message"] = reply.message
    if reply.results:
        answer.update(reply.results)
    if reply.data is not None:
        if as_json:
            _put_json_data(answer, reply.data)
        else:
            answer["data"] = reply.data
    if id is not None:
        answer["id"] = id
    return answer


def _put_json_data(answer: dict[str, Any], data: bytes) -> None:
    try:
        answer["data"] = data.decode()
    except UnicodeDecodeError:
        answer["data64"] = binascii.b2a_base64(data, newline=False).decode("ascii")


def _encoded(answer: dict[str, Any] | list[dict[str, Any]], as_json: bool) -> bytes:
    encoder = _JSON_ENCODER if as_json else _MSGPACK_ENCODER
    try:
        return encoder.encode(answer)
    except UnicodeEncodeError:
        # A host name that is not UTF-8: neither notation can carry it as a string, so it goes out escaped, or in a list
        # of names as base64.
        return encoder.encode(_well_formed(answer))


def _array_header(size: int) -> bytes:
    if size < 16:
        return bytes((0x90 | size,))
    return b"\xdc" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xdd" + size.to_bytes(4, "big")


# The hook makes a plain int of an ``Octal`` or ``Hexadecimal``.
_JSON_ENCODER = msgspec.json.Encoder(enc_hook=int)
_MSGPACK_ENCODER = msgspec.msgpack.Encoder(enc_hook=int)


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return dict(_named_well(name, item) for name, item in value.items())
    return value


def _named_well(name: str, value: Any) -> tuple[str, Any]:
    """Of a list of names (getdents64) each is wanted as it is: all of them go as data64 does, where one must."""
    if isinstance(value, list) and any(isinstance(item, str) and not item.isascii() for item in value):
        try:
            "".join(value).encode()
        except UnicodeEncodeError:
            as_bytes = (item.encode("utf-8", "surrogateescape") for item in value)
            return f"{name}64", [binascii.b2a_base64(item, newline=False).decode("ascii") for item in as_bytes]
    return name, _well_formed(value)
