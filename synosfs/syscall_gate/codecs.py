"""Framing and the three notations: bytes of a session in, ``Record``s out; replies in, bytes out.

``RequestStream`` owns what a session has written and not yet completed. Its rules:

- The first byte of a record tells its notation: ``{`` and ``[`` JSON, 0x80-0x9f and 0xdc-0xdf MessagePack (a map or an
  array), anything else text. Blanks and newlines between records are nothing.
- Text and JSON end at a newline. Without one, a piece (one write) ends a text record, unless the piece may go on in the
  next; JSON ends when it is complete. MessagePack is self-delimiting, across pieces and within one.
- Records come out in the order they went in, and a malformed one comes out as its error, in its notation.
- No byte is searched for an end twice, however small the pieces. What is pending never exceeds ``MAX_RECORD``: a record
  that would is EMSGSIZE, its rest is dropped unread and the stream goes on behind it.

Nothing but ``SynosError`` is made of what a caller wrote, and nothing is raised. What calls mean is not known here.
"""

import binascii
import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from enum import Enum
from errno import EINVAL, EMSGSIZE
from typing import Any

import msgspec

from synosfs.errors import SynosError, errno_name, excerpt
from synosfs.syscall_gate.object_end import ObjectEnd
from synosfs.syscall_gate.record import MAX_DATA, MAX_RECORD, Reply, Request
from synosfs.syscall_gate.text import is_blank, parse, render


class Notation(Enum):
    """How a record is written, and so how its reply is."""

    TEXT = "text"
    JSON = "JSON"
    MSGPACK = "MessagePack"


TEXT, JSON, MSGPACK = Notation  # reading a global takes a third of the time

#: The notation that each first byte tells.
_NOTATIONS = [TEXT] * 256
_NOTATIONS[ord("{")] = _NOTATIONS[ord("[")] = JSON
_NOTATIONS[0x80:0xA0] = [MSGPACK] * 0x20
_NOTATIONS[0xDC:0xE0] = [MSGPACK] * 4

#: The most requests one array may hold. Encoded they are small; decoded, with their replies, they are not.
MAX_BATCH = 1 << 16

#: A piece that is a multiple of this may be a full stdio buffer, so more of its record may follow.
_STDIO_BLOCK = 512

#: The blank with the highest code.
_BLANK = ord(" ")


class Record(msgspec.Struct):
    """What one record asks for: one request, the several of a batch, or the error that it could not be read."""

    notation: Notation
    requests: list[Request] = []
    batch: bool = False
    error: SynosError | None = None


class RequestStream:
    """The requests of one session, from the pieces in which they are written.

    A piece of at least ``full_piece`` bytes may be continued by the next, as its door hands them on.
    """

    def __init__(self, full_piece: int = sys.maxsize) -> None:
        self._full_piece = full_piece
        self._pending = bytearray()
        #: How far ``_pending`` is known to hold no newline.
        self._searched = 0
        self._object = ObjectEnd()
        #: The notation of a refused record whose rest is still to be dropped.
        self._refused: Notation | None = None

    @property
    def idle(self) -> bool:
        """Whether the next piece begins a record: nothing is pending."""
        return not self._pending and self._refused is None

    def feed(self, piece: bytes) -> Iterable[Record]:
        """The records that are complete now that ``piece`` has been written; take all of them before the next piece.

        They are decoded as they are taken: a megabyte may hold half a million.
        """
        if piece and self.idle:
            notation = _NOTATIONS[piece[0]]
            if notation is MSGPACK or (piece[0] > _BLANK and piece.find(b"\n") == len(piece) - 1):
                record = _decode(notation, piece)
                if record.error is None:
                    return [record] if record.requests else []
                # Several objects, a part of one, or a bad one: the way below finds out where each ends.
        self._pending += piece
        size = len(piece)
        return self._records(more=(size > 0 and size % _STDIO_BLOCK == 0) or size >= self._full_piece)

    def finish(self) -> list[Record]:
        """What is pending, as it stands: nothing will be added to it."""
        records = list(self._records(more=False, closed=True))
        if self._pending and self._refused is None:
            # Only an unfinished MessagePack object is left over by a closed stream.
            records.append(Record(MSGPACK, error=_incomplete(MSGPACK, len(self._pending))))
        self._reset()
        return records

    def _reset(self) -> None:
        self._pending.clear()
        self._searched = 0
        self._object = ObjectEnd()
        self._refused = None

    def _records(self, more: bool, closed: bool = False) -> Iterator[Record]:
        """Take complete records off ``_pending``. ``more``: the last piece may be continued by the next."""
        pending = self._pending
        while pending:
            if self._refused is not None and not self._drop_refused(more):
                return
            if self._searched == 0:
                _skip_blanks(pending)
            if not pending:
                return
            notation = _NOTATIONS[pending[0]]
            record = self._next_object() if notation is MSGPACK else self._next_line(notation, more, closed)
            if record is None:
                return
            if record.requests or record.error is not None:
                yield record

    def _next_line(self, notation: Notation, more: bool, closed: bool) -> Record | None:
        """The text or JSON record that ``_pending`` begins with, or None while it may go on."""
        pending = self._pending
        end = pending.find(b"\n", self._searched)
        if end > MAX_RECORD or (end < 0 and len(pending) > MAX_RECORD):
            return self._refuse(notation)
        if end < 0:
            self._searched = end = len(pending)
            if not closed and (more if notation is TEXT else not _may_be_whole_json(pending)):
                return None
            record = _decode(notation, bytes(pending))
            hopeful = more or isinstance(record.error, _Incomplete)
            if notation is JSON and not closed and record.error is not None and hopeful:
                # A part of an object may end in a bracket too: only what can never become right is refused now.
                return None
        else:
            record = _decode(notation, bytes(memoryview(pending)[:end]))
        del pending[: end + 1]
        self._searched = 0
        return record

    def _next_object(self) -> Record | None:
        """The MessagePack record that ``_pending`` begins with, or None while it is incomplete."""
        pending = self._pending
        try:
            complete = self._object.search(pending)
        except ValueError as error:
            # Where the next record begins cannot be known.
            self._reset()
            return Record(MSGPACK, error=SynosError(EINVAL, f"MessagePack: {error}"))
        if self._object.at_least > MAX_RECORD:
            return self._refuse(MSGPACK)
        if not complete:
            return None
        end = self._object.position
        record = _decode(MSGPACK, bytes(memoryview(pending)[:end]))
        del pending[:end]
        self._object = ObjectEnd()
        return record

    def _refuse(self, notation: Notation) -> Record:
        self._refused = notation
        self._searched = 0
        return Record(notation, error=_too_large())

    def _drop_refused(self, more: bool) -> bool:
        """Drop what ``_pending`` holds of the refused record; whether that was all of it."""
        pending = self._pending
        if self._refused is MSGPACK:
            ended = self._drop_object()
        else:
            end = pending.find(b"\n")
            # Half of a JSON batch could pass for requests of its own, so only a newline ends it. Text ends as ever.
            ended = end >= 0 or (self._refused is TEXT and not more)
            del pending[: end + 1 if end >= 0 else len(pending)]
        if ended:
            self._refused = None
        return ended

    def _drop_object(self) -> bool:
        try:
            complete = self._object.search(self._pending)
        except ValueError:
            self._reset()
            return True
        known = min(self._object.position, len(self._pending))
        del self._pending[:known]
        self._object.position -= known
        if complete:
            self._object = ObjectEnd()
        return complete


def encode(record: Record, replies: list[Reply]) -> bytes:
    """The bytes that answer one record: a reply to each of its requests, or one to what could not be read."""
    if record.notation is TEXT:
        return render(replies[0])
    as_json = record.notation is JSON
    ids = [request.id for request in record.requests] or [None]
    answers = [_answer(reply, id, as_json) for reply, id in zip(replies, ids, strict=True)]
    encoder = _JSON_ENCODER if as_json else _MSGPACK_ENCODER
    try:
        encoded = encoder.encode(answers if record.batch else answers[0])
    except UnicodeEncodeError:
        # A host name that is not UTF-8: neither notation can carry it as a string, so it goes out escaped.
        encoded = encoder.encode(_well_formed(answers if record.batch else answers[0]))
    return encoded + b"\n" if as_json else encoded


# --- requests ---


class _Incomplete(SynosError):
    """The record ends too early: more bytes could make it right."""


_BLANKS = re.compile(rb"[ \t\r\n]*+")
_JSON_DECODER = msgspec.json.Decoder(Request | list[Request])
_MSGPACK_DECODER = msgspec.msgpack.Decoder(Request | list[Request])
# The hook makes a plain int of an ``Octal`` or ``Hexadecimal``.
_JSON_ENCODER = msgspec.json.Encoder(enc_hook=int)
_MSGPACK_ENCODER = msgspec.msgpack.Encoder(enc_hook=int)


def _skip_blanks(pending: bytearray) -> None:
    blanks = _BLANKS.match(pending)
    if blanks is not None:
        del pending[: blanks.end()]


def _may_be_whole_json(pending: bytearray) -> bool:
    return pending[-64:].rstrip().endswith(b"}" if pending[0] == ord("{") else b"]")


def _decode(notation: Notation, raw: bytes) -> Record:
    """One whole record, or its error; no requests when it is a comment."""
    try:
        if len(raw) > MAX_RECORD:
            raise _too_large()
        if notation is TEXT:
            requests, batch = [] if raw[:1] <= b"#" and is_blank(raw) else [parse(raw)], False
        else:
            decoded = (_JSON_DECODER if notation is JSON else _MSGPACK_DECODER).decode(raw)
            batch = isinstance(decoded, list)
            requests = decoded if isinstance(decoded, list) else [decoded]
            if batch and not 0 < len(requests) <= MAX_BATCH:
                raise _bad_batch(len(requests))
            for request in requests:
                if request.data is not None or request.data64 is not None:
                    _settle_data(request)
        # Nothing grows in decoding, so a small record holds no large data.
        if len(raw) > MAX_DATA:
            for request in requests:
                _check_size(request)
    except SynosError as error:
        return Record(notation, error=error)
    except (ValueError, RecursionError, OverflowError) as error:
        return Record(notation, error=_readable(notation, error, len(raw)))
    return Record(notation, requests, batch)


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
            raise _too_large()


def _too_large() -> SynosError:
    return SynosError(EMSGSIZE, "a record may hold 1 MiB of data, and this one is larger")


def _bad_batch(size: int) -> SynosError:
    if size == 0:
        return SynosError(EINVAL, "an empty batch")
    return SynosError(EMSGSIZE, f"a batch may hold {MAX_BATCH} requests, and this one has {size}")


def _incomplete(notation: Notation, size: int) -> SynosError:
    if notation is JSON:
        return _Incomplete(EINVAL, f"JSON: unfinished after column {size}; one object or array a line")
    return _Incomplete(EINVAL, f"MessagePack: the object is unfinished after {size} bytes")


def _readable(notation: Notation, error: Exception, size: int) -> SynosError:
    """What a decoder said, in the words of the gate."""
    said = str(error)
    if said == "Input data was truncated":
        return _incomplete(notation, size)
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


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {name: _well_formed(item) for name, item in value.items()}
    return value
