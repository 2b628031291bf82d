"""The three notations: bytes of one record in, its ``Requests`` out; ``Reply``s in, the bytes that answer it out.

Nothing but ``SynosError`` is made of what a caller wrote, and nothing is raised. What calls mean is not known here.

No step takes long, whatever was written: a record of more than ``_SMALL`` bytes is decoded in steps (``Record.settle``,
``in_steps``), and a batch is encoded by the handful (``encoded``), so that others can be let in between.
"""

import binascii
import re
from collections.abc import Generator, Iterator
from difflib import get_close_matches
from enum import Enum
from errno import EINVAL, EMSGSIZE
from typing import Any

import msgspec

from synosfs.errors import SynosError, alone, errno_name, excerpt
from synosfs.syscall_gate.in_steps import Batch, Malformed, Steps, array_header, batch_size, json_steps, msgpack_steps
from synosfs.syscall_gate.record import MAX_DATA, MAX_RECORD, Reply, Request, too_large
from synosfs.syscall_gate.text import is_blank, parse, parse_in_steps, render


class Notation(Enum):
    """How a record is written, and so how its reply is."""

    TEXT = "text"
    JSON = "JSON"
    MSGPACK = "MessagePack"


TEXT, JSON, MSGPACK = Notation  # reading a global takes a third of the time

#: The most requests one array may hold. Encoded they are small; decoded, with their replies, they are not.
MAX_BATCH = 1 << 16

#: A record of up to this many bytes is decoded at once, whatever is in it; in text, of which each byte costs more.
_SMALL, _SMALL_TEXT = 32 << 10, 4 << 10

#: How many replies of a batch are encoded in a row, and values measured.
_HANDFUL = 512

#: How much of what is base64 is decoded in a row: a multiple of 4.
_BASE64 = 64 << 10


class Record(msgspec.Struct):
    """What one record asks for: one request, the several of a batch, or the error that it could not be read. One that
    has neither asks for nothing. Of a large one ``undecoded`` is what is still to be done.
    """

    notation: Notation
    requests: list[Request] = []
    batch: bool = False
    error: SynosError | None = None
    undecoded: Generator[None, None, tuple[list[Request], bool]] | None = None

    def settle(self) -> None:
        """Take the next step, if any is left. An error in one of a batch is the error of the whole."""
        if self.undecoded is None:
            return
        try:
            next(self.undecoded)
        except StopIteration as end:
            self.requests, self.batch = end.value
            self.undecoded = None
        except SynosError as error:
            self.error, self.undecoded = alone(error), None


def decode(notation: Notation, raw: bytes) -> Record:
    """One whole record, or its error; no requests when it is a comment. See ``Record.settle`` for the rest of it."""
    try:
        if len(raw) > MAX_RECORD:
            raise too_large()
        if notation is TEXT:
            if raw[:1] <= b"#" and is_blank(raw):
                return Record(notation)
            return (
                Record(notation, [parse(raw)])
                if len(raw) <= _SMALL_TEXT
                else Record(notation, undecoded=_large_text(raw))
            )
        if len(raw) > _SMALL:
            return Record(notation, undecoded=_large(notation, raw))
        decoded = _DECODERS[notation].decode(raw)
        batch = isinstance(decoded, list)
        requests = decoded if isinstance(decoded, list) else [decoded]
        if batch and not 0 < len(requests) <= MAX_BATCH:
            raise _bad_batch(len(requests))
        for request in requests:
            if request.data is not None or request.data64 is not None:
                _settle_data(request)
    except SynosError as error:
        return Record(notation, error=alone(error))
    except (ValueError, RecursionError, OverflowError) as error:
        return Record(notation, error=alone(_readable(notation, error, len(raw))))
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
    yield b"[" if as_json else array_header(len(replies))
    for start in range(0, len(replies), _HANDFUL):
        some = range(start, min(start + _HANDFUL, len(replies)))
        answers = [_answer(replies[place], ids[place], as_json) for place in some]
        whole = _encoded(answers, as_json)
        yield b"," * (start > 0) + whole[1:-1] if as_json else whole[len(array_header(len(answers))) :]
    if as_json:
        yield b"]\n"


# --- requests ---


class Incomplete(SynosError):
    """The record ends too early: more bytes could make it right."""


_JSON_DECODER = msgspec.json.Decoder(Request | list[Request])
_MSGPACK_DECODER = msgspec.msgpack.Decoder(Request | list[Request])
_DECODERS: dict[Notation, Any] = {JSON: _JSON_DECODER, MSGPACK: _MSGPACK_DECODER}
_ONE: dict[Notation, Any] = {JSON: msgspec.json.Decoder(Request), MSGPACK: msgspec.msgpack.Decoder(Request)}


def _large(notation: Notation, raw: bytes) -> Steps[tuple[list[Request], bool]]:
    """The requests of a large record, and whether they are a batch."""
    try:
        if notation is JSON:
            steps, batch = json_steps, raw[:1] == b"["
        else:
            size = batch_size(raw)
            steps, batch = msgpack_steps, size is not None
            if size is not None and not 0 < size <= MAX_BATCH:
                raise _bad_batch(size)
        if not batch:
            value = yield from steps(raw)
            request = yield from _converted(value, len(raw))
            return [request], False
        requests = yield from steps(raw, _Counted(notation).made)
        if not requests:
            raise _bad_batch(0)
    except Malformed as error:
        raise _readable(notation, error.error, len(raw), error.start) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise _readable(notation, error, len(raw)) from None
    return requests, True


def _large_text(raw: bytes) -> Steps[tuple[list[Request], bool]]:
    request = yield from parse_in_steps(raw)
    return [request], False


class _Counted:
    """The requests of a batch as they are found, which are not too many."""

    def __init__(self, notation: Notation) -> None:
        self._notation = notation
        self._left = MAX_BATCH
        self.made = Batch(self._small, self._large)

    def _small(self, raw: bytes) -> Request:
        self._count()
        try:
            request: Request = _ONE[self._notation].decode(raw)
        except (ValueError, RecursionError, OverflowError) as error:
            raise _readable(self._notation, error, len(raw)) from None
        if request.data is not None or request.data64 is not None:
            _settle_data(request)
        return request

    def _large(self, value: Any, size: int) -> Steps[Request]:
        self._count()
        return _converted(value, size)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _bad_batch()


def _converted(value: Any, size: int) -> Steps[Request]:
    """The request that a value is which was decoded in steps."""
    if isinstance(value, dict):
        for name in value.keys() - set(Request.__struct_fields__):
            if isinstance(name, str):
                raise _unknown_field(name)
    request = msgspec.convert(value, Request)
    if size > MAX_DATA:
        yield from _check_size(request)
    if request.data64 is not None and len(request.data64) > _BASE64 and request.data is None:
        request.data, request.data64 = (yield from _from_base64(request.data64)), None
        if len(request.data) > MAX_DATA:
            raise too_large()
    elif request.data is not None or request.data64 is not None:
        _settle_data(request)
    return request


def _from_base64(text: str) -> Steps[bytes]:
    pieces = []
    for start in range(0, len(text), _BASE64):
        piece = text[start : start + _BASE64]
        if piece.endswith("=") and start + _BASE64 < len(text):
            raise SynosError(EINVAL, "data64: not base64: excess data after padding")
        pieces.append(_decoded_base64(piece))
        yield
    return b"".join(pieces)


def _settle_data(request: Request) -> None:
    """Bring what the two fields may say to one: ``data`` is str or bytes."""
    if request.data64 is not None:
        if request.data is not None:
            raise SynosError(EINVAL, "data and data64 are both given")
        request.data = _decoded_base64(request.data64)
        request.data64 = None
    elif not isinstance(request.data, str | bytes):
        raise SynosError(EINVAL, f"data: expected str or bytes, got {type(request.data).__name__}")


def _decoded_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise SynosError(EINVAL, f"data64: not base64: {str(error).lower()}") from None


def _check_size(request: Request) -> Steps[None]:
    """EMSGSIZE: it holds too much data. Nothing grows in decoding, so a small record holds no large data."""
    values = [request.call, request.id, request.data, *request.kwargs.values(), *request.args]
    if request.data64 is not None and len(request.data64) > _MAX_BASE64:
        raise too_large()
    while values:
        for _ in range(min(_HANDFUL, len(values))):
            value = values.pop()
            if isinstance(value, list):
                values += value
            elif isinstance(value, str | bytes) and _size(value) > MAX_DATA:
                raise too_large()
        yield


#: As long is what a mebibyte is in base64.
_MAX_BASE64 = (MAX_DATA + 2) // 3 * 4


def _size(value: str | bytes) -> int:
    """In bytes; of what is surely too large, or surely is not, about."""
    if isinstance(value, bytes) or not MAX_DATA // 4 < len(value) <= MAX_DATA or value.isascii():
        return len(value)
    return len(value.encode())


def _bad_batch(size: int | str = "more") -> SynosError:
    if size == 0:
        return SynosError(EINVAL, "an empty batch")
    return SynosError(EMSGSIZE, f"a batch may hold {MAX_BATCH} requests, and this one has {size}")


def incomplete(notation: Notation, size: int) -> SynosError:
    if notation is JSON:
        return Incomplete(EINVAL, f"JSON: unfinished after column {size}; one object or array a line")
    return Incomplete(EINVAL, f"MessagePack: the object is unfinished after {size} bytes")


def _readable(notation: Notation, error: Exception, size: int, start: int = 0) -> SynosError:
    """What a decoder said, in the words of the gate. It was given what begins at ``start``."""
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
        byte = start + int(malformed[2])
        near = f"column {byte + 1}" if notation is JSON else f"byte {byte}"
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
        return _unknown_field(unknown[1]).message
    return problem[:1].lower() + problem[1:]


def _unknown_field(name: str) -> SynosError:
    fields = Request.__struct_fields__
    nearest = get_close_matches(name[:100], fields, 1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(fields)}"
    return SynosError(EINVAL, f"unknown field {excerpt(name[:100].encode('utf-8', 'backslashreplace'))}; {hint}")


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
