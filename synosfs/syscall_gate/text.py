r"""The text notation: one line in, one ``Request`` out; one ``Reply`` in, its lines out. Pure functions.

A line is either words (``msgsnd 3 1 "hello\n" IPC_NOWAIT``) or the C call that strace prints
(``shmget(0x1234, 4096, IPC_CREAT|0600) = 5``); the name may be the x86-64 number in both. The module knows the shape of
words and nothing of what they mean: a word without quotes stays a ``Bare`` for the table to read as a number, a flag,
``name=value`` or data; a quoted one is bytes and never anything else.

A long line is parsed in steps, each of which takes about as long as a short line: ``parse_in_steps``.

Invariants: what ``quote`` writes, ``parse`` reads back, for any bytes; ``parse`` raises nothing but ``SynosError``
(EINVAL), whose message names the part by its column, counted in bytes from 1; every pattern is linear in the line.
"""

import functools
import re
import sys
from errno import E2BIG, EINVAL
from typing import Any, NoReturn

import msgspec

from synosfs.errors import SynosError, errno_name, excerpt, printable
from synosfs.syscall_gate.in_steps import Steps
from synosfs.syscall_gate.record import MAX_DATA, Bare, Reply, Request, too_large

#: How deep ``[...]`` and ``{...}`` may nest; the deepest that a known call needs is 2 (semop).
MAX_NESTING = 16

#: The most words that a request may have, and the most arguments and items of one in C's form.
MAX_WORDS, MAX_C_PARTS = 4096, 4096

#: So many bytes are looked at in a row, and no word is longer that is a number or a name.
_WINDOW = 16 << 10

#: So many words are taken in a row.
_HANDFUL = 64

#: Names of calls up to this length are remembered, in bytes; they come again and again.
_SHORT_NAME = 32

# Long repetitions are possessive (``*+``): nothing is kept for backtracking, so a megabyte of escapes costs no memory.
# What is repeated must not fail after its first byte: Python before 3.11.5 then goes on behind that byte
# (cpython gh-106052). So a string is matched with any escape at all, and its escapes are looked at afterwards.
_ESCAPE = rb"""(?:[abefnrtv"'\\]|x[0-9a-fA-F]{2}|[0-3][0-7]{0,2}|[4-7][0-7]?(?![0-7]))"""
_BODY = rb'[^"\\]*+(?:\\(?s:.)[^"\\]*+)*+'
_NAME = rb"[A-Za-z_]\w*+"
_BARE = rb'[^" \t\r\n][^ \t\r\n]*+'
_C_BARE = rb'[^ \t\r\n,()\[\]{}"|]++'

_QUOTE, _PAREN, _BACKSLASH, _VT, _FF = b'"(\\\v\f'  # as ints: looking for bytes in bytes is several times slower
_BLANK_BYTES = b" \t\r\n"
_BLANKS = re.compile(rb"[ \t\r\n]*+")
_STRING_BODY = re.compile(_BODY)
_NO_ESCAPE = re.compile(rb"\\(?!%b)" % _ESCAPE)
_BAD_ESCAPE = re.compile(rb"\\(?:[0-7]{1,3}|.[\x80-\xbf]*+)", re.DOTALL)
_FIRST_WORD = re.compile(_BARE)
#: name=, string, bare word: groups 1 and 2, or 2, or 3.
_WORD = re.compile(rb'[ \t\r\n]*+(?:(?:(%b)=)?"(%b)"(?![^ \t\r\n])|((?!%b=")%b))' % (_NAME, _BODY, _NAME, _BARE))
_QUOTED_VALUE = re.compile(rb'(%b)=(?=")' % _NAME)
_C_CALL = re.compile(rb"(\w++)\(")
_C_FLAGS = re.compile(rb"%b(?:[ \t]*+\|[ \t]*+%b){0,63}" % (_C_BARE, _C_BARE))
_C_FIELD = re.compile(rb"%b[ \t]*+=[ \t]*+" % _NAME)
_NUMBER = re.compile(rb"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,18}")
_UNSAFE = re.compile(rb"[^ !#-\[\]-~](?=([0-9])?)")
_PLAIN_WORD = re.compile(r"""[^\s"'\\]+""")
_SHORT_ESCAPES = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def is_blank(line: bytes) -> bool:
    """Whether a line is no record: nothing but blanks, or a comment."""
    return line.lstrip(_BLANK_BYTES)[:1] in (b"", b"#")


def parse(line: bytes) -> Request:
    """The request that one line, without its newline, asks for."""
    steps = parse_in_steps(line)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            request: Request = end.value
            return request


def parse_in_steps(line: bytes) -> Steps[Request]:
    """The same, with a ``yield`` between the steps."""
    if _QUOTE not in line and _PAREN not in line and _VT not in line and _FF not in line:
        # Nothing but bare words: no part of it can be wrong. (split takes \v and \f for blanks.)
        if len(line) > MAX_DATA + _WINDOW:  # nor is any of it an escape
            raise too_large()
        words = line.split(None, MAX_WORDS + 1)
        if len(words) > MAX_WORDS:
            raise _too_many_words()
        if words:
            if len(line) > MAX_DATA and max(map(len, words)) > MAX_DATA:
                raise too_large()
            request = Request(_call(words[0]))
            if len(words) > 1:
                request.args = [Bare(word) for word in words[1:]]
            return request
    start = yield from _blanks(line, 0)
    call = _C_CALL.match(line, start, start + _WINDOW)
    if call is not None:
        return (yield from _CForm(line, start).parse(call))
    name = _FIRST_WORD.match(line, start, start + _WINDOW)
    if name is None:
        _refuse("a request begins with the name of a call, not with", line, start)
    if len(name[0]) == _WINDOW:
        raise _too_long(name[0])
    return (yield from _parse_words(line, name))


def render(reply: Reply) -> bytes:
    """The lines of a reply: return value and named results; then the data, exactly as it is, and a newline."""
    if reply.errno:
        return f"-1 {errno_name(reply.errno)} {printable(reply.message)}\n".encode()
    head = b"%d" % reply.ret
    if reply.results:
        head += "".join(f" {name}={word(value)}" for name, value in reply.results.items()).encode()
    return head + b"\n" if reply.data is None else b"%b\n%b\n" % (head, reply.data)


def quote(data: bytes, limit: int | None = None) -> str:
    """``data`` in ASCII, quoted and escaped as strace does it; cut after ``limit`` bytes, with ``...`` behind it."""
    shown = data if limit is None else data[:limit]
    return f'"{_UNSAFE.sub(_escaped, shown).decode("ascii")}"' + ("..." if len(shown) < len(data) else "")


# --- words ---


def _parse_words(line: bytes, call: re.Match[bytes]) -> Steps[Request]:
    request = Request(_call(call[0]))
    args, position = request.args, call.end()
    while True:
        word = _WORD.match(line, position, position + _WINDOW)
        if word is not None and word.end() < position + _WINDOW and _bad_escape(word[2] or b"") < 0:
            name, string, bare = word.groups()
            value = Bare(bare) if string is None else _unescaped(string)
            position = word.end()
        else:  # it is the last, or it is long, or wrong
            position = yield from _blanks(line, position)
            if position >= len(line):
                return request
            name, value, position = yield from _long_word(line, position)
        if name is None:
            args.append(value)
        else:
            _put(request, name, value)
        if len(args) + len(request.kwargs) >= MAX_WORDS:
            raise _too_many_words()
        if not len(args) % _HANDFUL:
            yield


def _long_word(line: bytes, start: int) -> Steps[tuple[bytes | None, bytes, int]]:
    """The name of the word that begins there, if it has one, its value, and where it ends."""
    named = _QUOTED_VALUE.match(line, start, start + _WINDOW)
    if named is None and line[start] != _QUOTE:
        bare = _FIRST_WORD.match(line, start, start + MAX_DATA + 1)
        if bare is None or len(bare[0]) > MAX_DATA:
            raise too_large()
        return None, Bare(bare[0]), bare.end()
    value, end = yield from _string(line, start if named is None else named.end())
    if line[end : end + 1] not in _BLANK_BYTES:
        _refuse("missing blank before", line, end)
    return named and named[1], value, end


def _too_many_words() -> SynosError:
    return SynosError(E2BIG, f"a request may have {MAX_WORDS} words, and this one has more; a list is one: 1,2,3")


def _put(request: Request, name: bytes, value: bytes) -> None:
    if request.kwargs.setdefault(name.decode("ascii"), value) is not value:
        raise SynosError(EINVAL, f"{excerpt(name)}= is given twice")


def _call(name: bytes) -> str | int:
    """The name of a call, or its number when it is one in C notation."""
    return _short_name(name) if len(name) <= _SHORT_NAME else _long_name(name)


def _long_name(name: bytes) -> str | int:
    if name[:1].isdigit() and _NUMBER.fullmatch(name) is not None:
        return int(name, 8 if name[:1] == b"0" and name.isdigit() else 0)
    return name.decode("utf-8", "backslashreplace")


_short_name = functools.lru_cache(1024)(_long_name)


def _string(line: bytes, start: int) -> Steps[tuple[bytes, int]]:
    """The bytes of the quoted string that opens at ``start``, and where the line goes on."""
    pieces, size, position = [], 0, start + 1
    while True:
        end, is_cut = _body_end(line, position)
        body = line[position:end]
        bad = _bad_escape(body)
        if bad >= 0 and (position := position + bad) < len(line) - 1:
            shown = line[position : _end(_BAD_ESCAPE, line, position)]
            raise SynosError(EINVAL, f"bad escape {excerpt(shown)} at column {position + 1}")
        if not is_cut and line[end : end + 1] != b'"':
            begun = excerpt(line[start : start + _WINDOW])
            raise SynosError(EINVAL, f"unterminated string starting at column {start + 1}: {begun}")
        pieces.append(_unescaped(body))
        size += len(pieces[-1])
        if size > MAX_DATA:
            raise too_large()
        if not is_cut:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces), end + 1
        position = end
        yield


def _body_end(line: bytes, start: int) -> tuple[int, bool]:
    """Where the body of a string ends, or where it may be cut in two."""
    limit = start + _WINDOW
    end = _end(_STRING_BODY, line, start, limit)
    if limit >= len(line) or end < limit - 1 or (end < limit and line[end] == _QUOTE):
        return end, False
    # Before the last escape: all of it may not be there yet. What is no escape begins with an even number of \.
    body = line[start:end]
    last = body.rfind(b"\\")
    if last >= 0 and (last + 1 - len(body[: last + 1].rstrip(b"\\"))) % 2 == 0:
        last -= 1
    return (end if last < len(body) - _LONGEST_ESCAPE else start + last), True


#: The bytes of an escape.
_LONGEST_ESCAPE = 4


def _bad_escape(body: bytes) -> int:
    """Where the first backslash stands that begins no escape of C's; -1 if there is none."""
    if _BACKSLASH not in body:
        return -1
    found = _NO_ESCAPE.search(body.replace(b"\\\\", b"__"))  # so that what is left of a pair begins nothing
    return -1 if found is None else found.start()


def _unescaped(body: bytes) -> bytes:
    if _BACKSLASH not in body:
        return body
    # The body has matched, so Python's codec knows every escape in it but \e, and meets none that C has not.
    body = body.replace(b"\\\\", b"\\x5c").replace(b"\\e", b"\\x1b")
    return body.decode("unicode_escape").encode("latin-1")


# --- the C call ---


class _CForm:
    """A call as C writes it; ``start`` is where it begins in the line."""

    def __init__(self, line: bytes, start: int) -> None:
        self._line = line
        self._start = start
        self._left = MAX_C_PARTS

    def parse(self, call: re.Match[bytes]) -> Steps[Request]:
        line, request = self._line, Request(_call(call[1]))
        position = yield from _blanks(line, call.end())
        while line[position : position + 1] != b")":
            named = _QUOTED_VALUE.match(line, position, position + _WINDOW)
            if named is not None:
                value, position = yield from _string(line, named.end())
                _put(request, named[1], value)
            else:
                argument, position = yield from self._argument(position, b")", 0)
                request.args.append(argument)
            position = yield from self._next(position, b")")
        position = yield from _blanks(line, position + 1)
        if line[position : position + 1] == b";":
            position = yield from _blanks(line, position + 1)
        if line[position : position + 1] not in (b"", b"="):
            _refuse("nothing but ; or = and a result may follow the ), not", line, position)
        return request

    def _argument(self, position: int, closer: bytes, depth: int) -> Steps[tuple[Any, int]]:
        """One argument that stands there inside a list which ``closer`` ends, and where the line goes on."""
        line = self._line
        match line[position : position + 1]:
            case b'"':
                value, position = yield from _string(line, position)
                if line.startswith(b"...", position):
                    _refuse("the string was cut short (strace -s shows more) before", line, position)
                return value, position
            case b"[":
                return (yield from self._group(position, b"]", depth + 1))
            case b"{":
                return (yield from self._group(position, b"}", depth + 1))
        word = _C_FLAGS.match(line, position, position + _WINDOW)
        if word is None:
            if position >= len(line):
                self._refuse_open(self._start, closer)
            _refuse("missing argument before", line, position)
        if len(word[0]) == _WINDOW:
            raise _too_long(word[0])
        return Bare(re.sub(rb"[ \t]+", b"", word[0])), word.end()

    def _group(self, start: int, closer: bytes, depth: int) -> Steps[tuple[list[Any], int]]:
        """An array or a struct as a list; the names of a struct's fields are dropped, their order is C's."""
        line = self._line
        if depth > MAX_NESTING:
            _refuse("brackets nest too deeply in", line, start)
        items: list[Any] = []
        position = yield from _blanks(line, start + 1)
        while line[position : position + 1] != closer:
            field = _C_FIELD.match(line, position, position + _WINDOW)
            item, position = yield from self._argument(field.end() if field else position, closer, depth)
            items.append(item)
            position = yield from self._next(position, closer, start)
        return items, position + 1

    def _next(self, position: int, closer: bytes, start: int = -1) -> Steps[int]:
        """Past the comma to the argument that must follow it, or to the closer that ends the list."""
        line = self._line
        self._left -= 1
        if self._left < 0:
            raise SynosError(E2BIG, f"a request in C's form may have {MAX_C_PARTS} parts, and this one has more")
        yield
        position = yield from _blanks(line, position)
        separator = line[position : position + 1]
        if separator == closer:
            return position
        if separator == b",":
            position = yield from _blanks(line, position + 1)
            if line[position : position + 1] == closer:
                _refuse("missing argument before", line, position)
        elif separator:
            _refuse(f"missing , or {closer.decode()} before", line, position)
        if position >= len(line):
            self._refuse_open(self._start if start < 0 else start, closer)
        return position

    def _refuse_open(self, start: int, closer: bytes) -> NoReturn:
        shown = excerpt(self._line[start : start + _WINDOW])
        raise SynosError(EINVAL, f"missing {closer.decode()} after {shown}")


# --- shared ---


def _blanks(line: bytes, position: int) -> Steps[int]:
    """Where the blanks end that stand there."""
    while (end := _end(_BLANKS, line, position, position + _WINDOW)) == position + _WINDOW:
        position = end
        yield
    return end


def _end(pattern: re.Pattern[bytes], line: bytes, position: int, limit: int = sys.maxsize) -> int:
    """Where the match of ``pattern`` at ``position`` ends; ``position`` itself when there is none."""
    match = pattern.match(line, position, limit)
    return position if match is None else match.end()


def _refuse(problem: str, line: bytes, position: int) -> NoReturn:
    shown = excerpt(line[position : position + _WINDOW]) or "the end"
    raise SynosError(EINVAL, f"{problem} {shown} at column {position + 1}")


def _too_long(word: bytes) -> SynosError:
    return SynosError(E2BIG, f"{excerpt(word)} is longer than {_WINDOW} bytes")


def _escaped(found: re.Match[bytes]) -> bytes:
    code = found[0][0]
    short = _SHORT_ESCAPES.get(code)
    if short is not None:
        return short.encode()
    # Three digits when a digit follows, which would otherwise belong to the escape.
    return b"\\%03o" % code if found[1] else b"\\%o" % code


def joined(numbers: list[int]) -> bytes:
    """Numbers with commas between. There can be tens of thousands, and this is the fastest way to write them."""
    return _encode(numbers)[1:-1]


_encode = msgspec.json.Encoder(enc_hook=int).encode


def word(value: Any) -> str:
    """A result as one word, a list joined by commas: strings with blanks and bytes that do not stand for themselves
    in quotes.
    """
    if isinstance(value, list):
        if str not in set(map(type, value)):
            return joined(value).decode()
        return ",".join(_quoted(item) if isinstance(item, str) and "," in item else word(item) for item in value)
    if isinstance(value, str) and not (_PLAIN_WORD.fullmatch(value) and value.isprintable()):
        return _quoted(value)
    return str(value)


def _quoted(value: str) -> str:
    # A name that is not UTF-8 comes from the host as surrogates, and goes out as the bytes it was.
    return quote(value.encode("utf-8", "surrogateescape"))
