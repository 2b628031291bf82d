"""Framing: the bytes that a session has written, and the records that they make (``notations``).

``RequestStream`` owns what a session has written and not yet completed. Its rules:

- The first byte of a record tells its notation: ``{`` and ``[`` JSON, 0x80-0x9f and 0xdc-0xdf MessagePack (a map or an
  array), anything else text. Blanks and newlines between records are nothing.
- Text and JSON end at a newline. Without one, a piece (one write) ends a text record, unless the piece may go on in the
  next; JSON ends when it is complete. MessagePack is self-delimiting, across pieces and within one.
- Records come out in the order they went in, and a malformed one comes out as its error, in its notation.
- No byte is searched for an end twice, however small the pieces. What is pending never exceeds ``MAX_RECORD``: a record
  that would is EMSGSIZE, its rest is dropped unread and the stream goes on behind it.
- Where finding or decoding a record takes more than one short step, a ``PAUSE`` comes out between two.
"""

import re
import sys
from collections.abc import Generator, Iterable, Iterator
from errno import EINVAL

from synosfs.errors import SynosError
from synosfs.syscall_gate.notations import (
    JSON,
    MAX_BATCH,
    MSGPACK,
    TEXT,
    Incomplete,
    Notation,
    Record,
    decode,
    encode,
    encoded,
    incomplete,
)
from synosfs.syscall_gate.object_end import ObjectEnd
from synosfs.syscall_gate.record import MAX_RECORD, too_large

__all__ = ["JSON", "MAX_BATCH", "MSGPACK", "PAUSE", "TEXT", "Notation", "Record", "RequestStream", "encode", "encoded"]

#: What comes out between two steps of a long search: it asks for nothing.
PAUSE = Record(TEXT)

#: The notation that each first byte tells.
_NOTATIONS = [TEXT] * 256
_NOTATIONS[ord("{")] = _NOTATIONS[ord("[")] = JSON
_NOTATIONS[0x80:0xA0] = [MSGPACK] * 0x20
_NOTATIONS[0xDC:0xE0] = [MSGPACK] * 4

#: A piece that is a multiple of this may be a full stdio buffer, so more of its record may follow.
_STDIO_BLOCK = 512

#: The blank with the highest code.
_BLANK = ord(" ")

#: A piece of up to this many bytes may be decoded at once.
_SMALL = 32 << 10

#: How many items of a MessagePack object are passed over in a row.
_ITEMS = 8192

_BLANKS = re.compile(rb"[ \t\r\n]*+")


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

    @property
    def pending(self) -> int:
        """How many bytes have been written of records that are not complete."""
        return len(self._pending)

    def feed(self, piece: bytes) -> Iterable[Record]:
        """The records that are complete now that ``piece`` has been written; take all of them before the next piece.

        They are decoded as they are taken: a megabyte may hold half a million.
        """
        if piece and self.idle:
            notation = _NOTATIONS[piece[0]]
            one_line = piece[0] > _BLANK and piece.find(b"\n") == len(piece) - 1
            if len(piece) <= _SMALL if notation is MSGPACK else one_line:
                record = decode(notation, piece)
                if record.error is None and record.undecoded is None:
                    return [record] if record.requests else []
                # Several objects, a part of one, or a bad one: the way below finds out where each ends.
        self._pending += piece
        size = len(piece)
        return self._records(more=(size > 0 and size % _STDIO_BLOCK == 0) or size >= self._full_piece)

    def finish(self) -> Iterator[Record]:
        """What is pending, as it stands: nothing will be added to it."""
        yield from self._records(more=False, closed=True)
        if self._pending and self._refused is None:
            # Only an unfinished MessagePack object is left over by a closed stream.
            yield Record(MSGPACK, error=incomplete(MSGPACK, len(self._pending)))
        self._reset()

    def _reset(self) -> None:
        self._pending.clear()
        self._searched = 0
        self._object = ObjectEnd()
        self._refused = None

    def _records(self, more: bool, closed: bool = False) -> Iterator[Record]:
        """Take complete records off ``_pending``. ``more``: the last piece may be continued by the next."""
        pending = self._pending
        while pending:
            if self._refused is not None:
                dropped = self._drop_refused(more)
                if dropped is None:
                    yield PAUSE
                    continue
                if not dropped:
                    return
            if self._searched == 0:
                _skip_blanks(pending)
            if not pending:
                return
            notation = _NOTATIONS[pending[0]]
            if notation is MSGPACK:
                record = self._next_object()
            else:
                record = yield from self._next_line(notation, more, closed)
            if record is None:
                return
            yield from _settled(record)
            if record is PAUSE or record.requests or record.error is not None:
                yield record

    def _next_line(self, notation: Notation, more: bool, closed: bool) -> Generator[Record, None, Record | None]:
        """The text or JSON record that ``_pending`` begins with, or None while it may go on."""
        pending = self._pending
        end = pending.find(b"\n", self._searched)
        if end > MAX_RECORD or (end < 0 and len(pending) > MAX_RECORD):
            return self._refuse(notation)
        if end < 0:
            self._searched = end = len(pending)
            if not closed and (more if notation is TEXT else not _may_be_whole_json(pending)):
                return None
            record = decode(notation, bytes(pending))
            yield from _settled(record)
            hopeful = more or isinstance(record.error, Incomplete)
            if notation is JSON and not closed and record.error is not None and hopeful:
                # A part of an object may end in a bracket too: only what can never become right is refused now.
                return None
        else:
            record = decode(notation, bytes(memoryview(pending)[:end]))
        del pending[: end + 1]
        self._searched = 0
        return record

    def _next_object(self) -> Record | None:
        """The MessagePack record that ``_pending`` begins with, or None while it is incomplete."""
        pending = self._pending
        try:
            complete = self._object.search(pending, _ITEMS)
        except ValueError as error:
            # Where the next record begins cannot be known.
            self._reset()
            return Record(MSGPACK, error=SynosError(EINVAL, f"MessagePack: {error}"))
        if self._object.at_least > MAX_RECORD:
            return self._refuse(MSGPACK)
        if not complete:
            return PAUSE if complete is None else None
        end = self._object.position
        record = decode(MSGPACK, bytes(memoryview(pending)[:end]))
        del pending[:end]
        self._object = ObjectEnd()
        return record

    def _refuse(self, notation: Notation) -> Record:
        self._refused = notation
        self._searched = 0
        return Record(notation, error=too_large())

    def _drop_refused(self, more: bool) -> bool | None:
        """Drop what ``_pending`` holds of the refused record; whether that was all; None: there is more to drop."""
        pending = self._pending
        ended: bool | None
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

    def _drop_object(self) -> bool | None:
        try:
            complete = self._object.search(self._pending, _ITEMS)
        except ValueError:
            self._reset()
            return True
        known = min(self._object.position, len(self._pending))
        del self._pending[:known]
        self._object.position -= known
        if complete:
            self._object = ObjectEnd()
        return complete


def _settled(record: Record) -> Iterator[Record]:
    """Decode all of it, pausing between the steps."""
    while record.undecoded is not None:
        yield PAUSE
        record.settle()


def _skip_blanks(pending: bytearray) -> None:
    blanks = _BLANKS.match(pending)
    if blanks is not None:
        del pending[: blanks.end()]


def _may_be_whole_json(pending: bytearray) -> bool:
    return pending[-64:].rstrip().endswith(b"}" if pending[0] == ord("{") else b"]")
