"""Large JSON and MessagePack, decoded in short steps: the decoder itself does a megabyte in one, and none waits less.

``json_steps`` and ``msgpack_steps`` give what the decoder would give, after as many ``yield``s as it takes. A container
that is large is taken apart here; runs of its items that are small are left to the decoder, and so are its errors.
What is large besides is data in strings: they are taken by pieces too. So no step costs more than a few kilobytes do.

Two things are refused that the decoder would take: more than ``MAX_PARTS`` parts in one value, and large ones that nest
deeper than ``_DEEPEST``. A batch is an array whose items count for themselves: ``BATCH`` says what is made of each.
"""

import re
from collections.abc import Callable, Generator
from contextlib import suppress
from errno import E2BIG
from typing import Any, NamedTuple, TypeVar

import msgspec

from synosfs.errors import SynosError
from synosfs.syscall_gate.object_end import ObjectEnd

T = TypeVar("T")

#: A computation in steps.
Steps = Generator[None, None, T]

#: The most parts (strings, items, brackets) that one request in JSON or MessagePack may have: SETALL of SEMMSL values,
#: and some.
MAX_PARTS = 60_000

#: How deep what is large may nest: a call needs 3.
_DEEPEST = 64

#: The bytes, and the items, that are taken in a row.
_WINDOW, _ITEMS = 2048, 512
#: The bytes of a batch in JSON that are taken in a row where its items end as requests do.
_BATCH_WINDOW = 8192

#: The bytes of a string, or of blanks, that are taken in a row.
_PIECE = 32 << 10

#: Numbers and literals are shorter.
_LONGEST_WORD = 1024


class Malformed(ValueError):
    """What the decoder said of a part, and where that part begins in the whole."""

    def __init__(self, error: Exception, start: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.start = start


class Batch(NamedTuple):
    """What is made of an item that is small, from its bytes, and of one that is large, from its value and size."""

    small: Callable[[bytes], Any]
    large: Callable[[Any, int], Steps[Any]]


class _Value:
    """What both notations share: the bytes, and how many parts have been taken."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._parts = 0

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MAX_PARTS:
            raise SynosError(E2BIG, f"a request may have {MAX_PARTS} parts, and this one has more")

    def _decoded(self, decode: Callable[[bytes], T], before: bytes, start: int, end: int, after: bytes = b"") -> T:
        try:
            return decode(before + self.raw[start:end] + after)
        except (ValueError, RecursionError) as error:
            raise Malformed(error, start - len(before)) from None


# --- JSON ---

_JSON_BLANKS = re.compile(rb"[ \t\r\n]*+")
_JSON_WORD = re.compile(rb'[^ \t\r\n,:\[\]{}"]*+')
_JSON_BODY = re.compile(rb'[^"\\]*+(?:\\(?s:.)[^"\\]*+)*+')
#: Up to and with what matters: a string, or a quote that the window cuts off from its other one; a comma, a bracket;
#: the window's end, lest the search begin anew at every byte.
_JSON_STRUCTURE = re.compile(rb'[^",\[\]{}]*+(?:"%b"|[",\[\]{}]|(\Z))' % _JSON_BODY.pattern)
_QUOTE, _COMMA, _COLON, _OPEN_ARRAY, _CLOSE_ARRAY, _OPEN_OBJECT, _CLOSE_OBJECT = b'",:[]{}'

#: The longest that can be cut in two: a pair of surrogates.
_ESCAPE = 12

_from_json = msgspec.json.Decoder().decode
_str_from_json = msgspec.json.Decoder(str).decode
_split_json = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Json(_Value):
    def value(self, start: int, depth: int = 0) -> Steps[tuple[Any, int]]:
        """The value that begins there, and where it ends."""
        first = self._at(start)
        if first in (_OPEN_ARRAY, _OPEN_OBJECT):
            if depth == _DEEPEST:
                raise RecursionError
            yield
            if first == _OPEN_ARRAY:
                return (yield from self.array(start, depth + 1))
            return (yield from self._object(start, depth + 1))
        if first == _QUOTE:
            return (yield from self._string(start))
        word = _JSON_WORD.match(self.raw, start, start + _LONGEST_WORD)
        assert word is not None
        if len(word[0]) == _LONGEST_WORD:
            raise ValueError("a number is too long")
        if not word[0]:
            self._decoded(_from_json, b"", start, start + 1)  # says what is wrong
        return self._decoded(_from_json, b"", start, word.end()), word.end()

    def array(self, start: int, depth: int) -> Steps[tuple[Any, int]]:
        items: list[Any] = []
        position = yield from self.blanks(start + 1)
        while self._at(position) != _CLOSE_ARRAY or items:
            end, parts = self._run(position)
            self._count(parts + 1)
            if end > position:
                items += self._decoded(_from_json, b"[", position, end, b"]")
            else:
                value, end = yield from self.value(position, depth)
                items.append(value)
            yield
            position = yield from self.blanks(end)
            if self._at(position) == _CLOSE_ARRAY:
                break
            position = yield from self._comma(position)
        return items, position + 1

    def batch(self, start: int, made: Batch) -> Steps[tuple[Any, int]]:
        items: list[Any] = []
        position = yield from self.blanks(start + 1)
        while self._at(position) != _CLOSE_ARRAY or items:
            run, end = self._requests(position)
            if run:
                items += [made.small(bytes(each)) for each in run]
            else:
                self._parts = 0
                value, end = yield from self.value(position)
                items.append((yield from made.large(value, end - position)))
            yield
            position = yield from self.blanks(end)
            if self._at(position) == _CLOSE_ARRAY:
                break
            position = yield from self._comma(position)
        return items, position + 1

    def _object(self, start: int, depth: int) -> Steps[tuple[Any, int]]:
        members: dict[str, Any] = {}
        position = yield from self.blanks(start + 1)
        while self._at(position) != _CLOSE_OBJECT or members:
            end, parts = self._run(position)
            self._count(parts + 1)
            if end > position:
                members |= self._decoded(_from_json, b"{", position, end, b"}")
            else:
                if self._at(position) != _QUOTE:
                    self._decoded(_from_json, b"{", position, position + 1)
                name, position = yield from self._string(position)
                position = yield from self.blanks(position)
                if self._at(position) != _COLON:
                    self._decoded(_from_json, b'{""', position, position + 1)
                position = yield from self.blanks(position + 1)
                members[name], end = yield from self.value(position, depth)
            yield
            position = yield from self.blanks(end)
            if self._at(position) == _CLOSE_OBJECT:
                break
            position = yield from self._comma(position)
        return members, position + 1

    def _requests(self, start: int) -> tuple[list[msgspec.Raw], int]:
        """The items that are whole in a window, and where they end."""
        guess = self.raw.rfind(b"},", start, start + _BATCH_WINDOW) + 1
        if guess:
            # If it is in a string, or in an object within an item, what is before it is no array.
            with suppress(ValueError, RecursionError):
                return _split_json(b"[" + self.raw[start:guess] + b"]"), guess
        end, _ = self._run(start)
        return self._decoded(_split_json, b"[", start, end, b"]") if end > start else [], end

    def _run(self, start: int) -> tuple[int, int]:
        """Where the last of the items ends that are whole in the window, and how many parts they have."""
        end, parts, seen, depth = start, 0, 0, 0
        for token in _JSON_STRUCTURE.finditer(self.raw, start, start + _WINDOW):
            if token.lastindex:
                break
            position = token.end() - 1
            what = self.raw[position]
            if what in (_CLOSE_ARRAY, _CLOSE_OBJECT):
                if not depth:
                    return position, seen
                depth -= 1
                continue
            seen += 1
            if what == _QUOTE:
                if self.raw.find(b'"', token.start(), position) < 0:
                    break  # the window cuts the string in two
            elif what != _COMMA:
                depth += 1
            elif not depth:
                end, parts = position, seen
        return end, parts

    def _string(self, start: int) -> Steps[tuple[str, int]]:
        pieces = []
        position = start + 1
        while True:
            body = _JSON_BODY.match(self.raw, position, position + _PIECE)
            assert body is not None
            end = body.end()
            if self._at(end) == _QUOTE and end < position + _PIECE:
                pieces.append(self._decoded(_str_from_json, b'"', position, end, b'"'))
                return "".join(pieces), end + 1
            if end >= len(self.raw) - 1:
                raise ValueError("Input data was truncated")
            piece, position = self._piece(position, end)
            pieces.append(piece)
            yield

    def _piece(self, start: int, end: int) -> tuple[str, int]:
        """What stands there up to about ``end``, which may be in the middle of a character."""
        for cut in range(end, max(end - _ESCAPE, start), -1):
            try:
                return _str_from_json(b'"' + self.raw[start:cut] + b'"'), cut
            except ValueError as error:
                wrong = error
        raise Malformed(wrong, start - 1)

    def check_end(self, position: int) -> None:
        if position < len(self.raw):
            self._decoded(_from_json, b"0 ", position, position + 1)

    def blanks(self, position: int) -> Steps[int]:
        while True:
            blanks = _JSON_BLANKS.match(self.raw, position, position + _PIECE)
            assert blanks is not None
            if blanks.end() < position + _PIECE:
                return blanks.end()
            position = blanks.end()
            yield

    def _comma(self, position: int) -> Steps[int]:
        """Where the item begins that must follow."""
        if self._at(position) != _COMMA:
            self._decoded(_from_json, b"[0 ", position, position + 1)
        position = yield from self.blanks(position + 1)
        return position

    def _at(self, position: int) -> int:
        """EINVAL's beginning: the end comes too early."""
        if position >= len(self.raw):
            raise ValueError("Input data was truncated")
        return self.raw[position]


def json_steps(raw: bytes, made: Batch | None = None) -> Steps[Any]:
    """The one value that ``raw`` is, or the batch of what is ``made`` of its items."""
    json = _Json(raw)
    start = yield from json.blanks(0)
    value, end = yield from json.value(start) if made is None else json.batch(start, made)
    end = yield from json.blanks(end)
    json.check_end(end)
    return value


# --- MessagePack ---

_from_msgpack = msgspec.msgpack.Decoder().decode
_split_msgpack = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_STR, _BIN, _ARRAY, _MAP = "str", "bin", "array", "map"


class _MessagePack(_Value):
    """All of it is there: the framing has passed over every item."""

    def value(self, start: int, depth: int = 0) -> Steps[tuple[Any, int]]:
        """The value that begins there, and where it ends."""
        kind, count, body = _head(self.raw, start)
        if kind in (_ARRAY, _MAP):
            if depth == _DEEPEST:
                raise RecursionError
            yield
            items, end = yield from self.items(body, count * (2 if kind == _MAP else 1), depth + 1)
            return items if kind == _ARRAY else self._mapping(items), end
        self._count(1)
        if kind == _STR and count > _PIECE:
            return (yield from self._string(body, body + count)), body + count
        end = body + count
        return self._decoded(_from_msgpack, b"", start, end), end

    def items(self, start: int, count: int, depth: int) -> Steps[tuple[list[Any], int]]:
        """So many values."""
        items: list[Any] = []
        position = start
        while len(items) < count:
            some, end, parts = self._run(position, count - len(items))
            if some:
                self._count(parts)
                items += self._decoded(_from_msgpack, array_header(some), position, end)
            else:
                value, end = yield from self.value(position, depth)
                items.append(value)
            position = end
            yield
        return items, position

    def batch(self, start: int, count: int, made: Batch) -> Steps[list[Any]]:
        items: list[Any] = []
        position = start
        while len(items) < count:
            some, end, _ = self._run(position, count - len(items))
            if some:
                run = self._decoded(_split_msgpack, array_header(some), position, end)
                items += [made.small(bytes(each)) for each in run]
            else:
                self._parts = 0
                value, end = yield from self.value(position)
                items.append((yield from made.large(value, end - position)))
            position = end
            yield
        return items

    def _run(self, start: int, most: int) -> tuple[int, int, int]:
        """How many of the values from there on are small enough together, where they end, how many parts they have."""
        seeker = ObjectEnd(start)
        end, parts = start, 0
        for count in range(most):
            seeker.missing = 1
            if not seeker.search(self.raw, _ITEMS - parts) or seeker.position - start > _WINDOW:
                return count, end, parts
            end, parts = seeker.position, seeker.passed
        return most, end, parts

    def _string(self, start: int, end: int) -> Steps[str]:
        pieces = []
        while start < end:
            cut = min(start + _PIECE, end)
            while cut < end and self.raw[cut] & 0xC0 == 0x80 and cut > start:
                cut -= 1
            pieces.append(self.raw[start:cut].decode())
            start = cut
            yield
        return "".join(pieces)

    def _mapping(self, items: list[Any]) -> dict[Any, Any]:
        names = items[::2]
        for name in names:
            if isinstance(name, list | dict):
                raise msgspec.ValidationError("Expected `str`, got `array` - at `key` in `$`")
        return dict(zip(names, items[1::2], strict=True))


def _head(raw: bytes, start: int) -> tuple[str, int, int]:
    """What begins there: its kind, how many items (or bytes) it has, and where they begin."""
    first = raw[start]
    if first in _HEADS:
        kind, width = _HEADS[first]
        body = start + 1 + width
        return kind, int.from_bytes(raw[start + 1 : body], "big"), body
    if 0x80 <= first <= 0x9F:
        return _MAP if first < 0x90 else _ARRAY, first & 0x0F, start + 1
    seeker = ObjectEnd(start)
    seeker.search(raw)
    return "", seeker.position - start - 1, start + 1


_HEADS = {0xD9 + n: (_STR, width) for n, width in enumerate((1, 2, 4))} | {
    0xC4 + n: (_BIN, width) for n, width in enumerate((1, 2, 4))
}
_HEADS |= {0xDC + n: (_ARRAY, width) for n, width in enumerate((2, 4))}
_HEADS |= {0xDE + n: (_MAP, width) for n, width in enumerate((2, 4))}


def array_header(size: int) -> bytes:
    """What an array of so many items begins with."""
    if size < 16:
        return bytes((0x90 | size,))
    return b"\xdc" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xdd" + size.to_bytes(4, "big")


def msgpack_steps(raw: bytes, made: Batch | None = None) -> Steps[Any]:
    """As ``json_steps``."""
    pack = _MessagePack(raw)
    if made is None:
        value, _ = yield from pack.value(0)
        return value
    _, count, body = _head(raw, 0)
    return (yield from pack.batch(body, count, made))


def batch_size(raw: bytes) -> int | None:
    """How many requests a batch in MessagePack has; None when it is none."""
    kind, count, _ = _head(raw, 0)
    return count if kind == _ARRAY else None
