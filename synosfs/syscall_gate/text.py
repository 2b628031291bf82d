r"""The text notation: one line in, one ``Request`` out; one ``Reply`` in, its lines out. Pure functions.

A line is either words (``msgsnd 3 1 "hello\n" IPC_NOWAIT``) or the C call that strace prints
(``shmget(0x1234, 4096, IPC_CREAT|0600) = 5``); the name may be the x86-64 number in both. The module knows the shape of
words and nothing of what they mean: a word without quotes stays a ``Bare`` for the table to read as a number, a flag,
``name=value`` or data; a quoted one is bytes and never anything else.

Invariants: what ``quote`` writes, ``parse`` reads back, for any bytes; ``parse`` raises nothing but ``SynosError``
(EINVAL), whose message names the part by its column, counted in bytes from 1; every pattern is linear in the line.
"""

import functools
import re
from errno import E2BIG, EINVAL
from typing import Any, NoReturn

from synosfs.errors import SynosError, errno_name, excerpt, printable
from synosfs.syscall_gate.record import Bare, Reply, Request

#: How deep ``[...]`` and ``{...}`` may nest; the deepest that a known call needs is 2 (semop).
MAX_NESTING = 16

#: The most words that a request may have, and the most parts (words, items, brackets) of one in C's form.
MAX_WORDS, MAX_C_PARTS = 16_384, 4096

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
_C_TAIL = re.compile(rb"[ \t\r\n]*+;?[ \t\r\n]*+(?:=.*)?", re.DOTALL)
_PART = re.compile(rb'[^",\[{]*+(?:"%b"?|[,\[{])' % _BODY)
_NUMBER = re.compile(rb"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,18}")
_UNSAFE = re.compile(rb"[^ !#-\[\]-~](?=([0-9])?)")
_PLAIN_WORD = re.compile(r"""[^\s"'\\]+""")
_SHORT_ESCAPES = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def is_blank(line: bytes) -> bool:
    """Whether a line is no record: nothing but blanks, or a comment."""
    return line.lstrip(_BLANK_BYTES)[:1] in (b"", b"#")


def parse(line: bytes) -> Request:
    """The request that one line, without its newline, asks for."""
    if _QUOTE not in line and _PAREN not in line and _VT not in line and _FF not in line:
        # Nothing but bare words: no part of it can be wrong. (split takes \v and \f for blanks.)
        words = line.split(None, MAX_WORDS + 1)
        if len(words) > MAX_WORDS:
            raise _too_many_words()
        if words:
            request = Request(_call(words[0]))
            if len(words) > 1:
                request.args = [Bare(word) for word in words[1:]]
            return request
    start = _end(_BLANKS, line, 0)
    call = _C_CALL.match(line, start)
    if call is not None:
        if has_too_many_parts(line, MAX_C_PARTS):
            raise SynosError(E2BIG, f"a request in C's form may have {MAX_C_PARTS} parts, and this one has more")
        return _parse_c(line, start, call)
    name = _FIRST_WORD.match(line, start)
    if name is None:
        _refuse("a request begins with the name of a call, not with", line, start)
    return _parse_words(line, name)


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


def has_too_many_parts(line: bytes, most: int) -> bool:
    """Whether more than ``most`` strings, commas and opening brackets stand in a line, those in strings not counted."""
    if line.count(b",") + line.count(b"[") + line.count(b"{") + line.count(b'"') <= most:
        return False
    position, part = 0, _PART.match(line)
    while part is not None and most >= 0:
        position, most = part.end(), most - 1
        part = _PART.match(line, position)
    return most < 0


# --- words ---


def _parse_words(line: bytes, call: re.Match[bytes]) -> Request:
    request = Request(_call(call[0]))
    position = call.end()
    while (word := _WORD.match(line, position)) is not None:
        name, string, bare = word.groups()
        if bare is None and _bad_escape(string) >= 0:
            break
        position = word.end()
        if bare is not None:
            request.args.append(Bare(bare))
        elif name is None:
            request.args.append(_unescaped(string))
        else:
            _put(request, name, _unescaped(string))
        if len(request.args) >= MAX_WORDS:
            raise _too_many_words()
    position = _end(_BLANKS, line, position)
    if position < len(line):
        # Only a string can be wrong: it is not well formed, or the next word touches it.
        _, position = _string(line, line.index(b'"', position))
        _refuse("missing blank before", line, position)
    return request


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


def _string(line: bytes, start: int) -> tuple[bytes, int]:
    """The bytes of the quoted string that opens at ``start``, and where the line goes on."""
    end = _end(_STRING_BODY, line, start + 1)
    body = line[start + 1 : end]
    bad = _bad_escape(body)
    if bad >= 0 and (position := start + 1 + bad) < len(line) - 1:
        shown = line[position : _end(_BAD_ESCAPE, line, position)]
        raise SynosError(EINVAL, f"bad escape {excerpt(shown)} at column {position + 1}")
    if line[end : end + 1] != b'"':
        raise SynosError(EINVAL, f"unterminated string starting at column {start + 1}: {excerpt(line[start:])}")
    return _unescaped(body), end + 1


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


def _parse_c(line: bytes, start: int, call: re.Match[bytes]) -> Request:
    request = Request(_call(call[1]))
    position = _end(_BLANKS, line, call.end())
    while line[position : position + 1] != b")":
        named = _QUOTED_VALUE.match(line, position)
        if named is not None:
            value, position = _string(line, named.end())
            _put(request, named[1], value)
        else:
            argument, position = _argument(line, position, start, b")", 0)
            request.args.append(argument)
        position = _next_argument(line, position, start, b")")
    if _C_TAIL.fullmatch(line, position + 1) is None:
        _refuse("nothing but ; or = and a result may follow the ), not", line, _end(_BLANKS, line, position + 1))
    return request


def _argument(line: bytes, position: int, start: int, closer: bytes, depth: int) -> tuple[Any, int]:
    """One argument that stands at ``position`` inside a list which ``closer`` ends, and where the line goes on."""
    match line[position : position + 1]:
        case b'"':
            value, position = _string(line, position)
            if line.startswith(b"...", position):
                _refuse("the string was cut short (strace -s shows more) before", line, position)
            return value, position
        case b"[":
            return _group(line, position, b"]", depth + 1)
        case b"{":
            return _group(line, position, b"}", depth + 1)
    word = _C_FLAGS.match(line, position)
    if word is None:
        if position >= len(line):
            _refuse_open(line, start, closer)
        _refuse("missing argument before", line, position)
    return Bare(re.sub(rb"[ \t]+", b"", word[0])), word.end()


def _group(line: bytes, start: int, closer: bytes, depth: int) -> tuple[list[Any], int]:
    """An array or a struct as a list; the names of a struct's fields are dropped, their order is C's."""
    if depth > MAX_NESTING:
        _refuse("brackets nest too deeply in", line, start)
    items: list[Any] = []
    position = _end(_BLANKS, line, start + 1)
    while line[position : position + 1] != closer:
        field = _C_FIELD.match(line, position)
        item, position = _argument(line, field.end() if field else position, start, closer, depth)
        items.append(item)
        position = _next_argument(line, position, start, closer)
    return items, position + 1


def _next_argument(line: bytes, position: int, start: int, closer: bytes) -> int:
    """Past the comma to the argument that must follow it, or to the closer that ends the list."""
    position = _end(_BLANKS, line, position)
    separator = line[position : position + 1]
    if separator == closer:
        return position
    if separator == b",":
        position = _end(_BLANKS, line, position + 1)
        if line[position : position + 1] == closer:
            _refuse("missing argument before", line, position)
    elif separator:
        _refuse(f"missing , or {closer.decode()} before", line, position)
    if position >= len(line):
        _refuse_open(line, start, closer)
    return position


# --- shared ---


def _end(pattern: re.Pattern[bytes], line: bytes, position: int) -> int:
    """Where the match of ``pattern`` at ``position`` ends; ``position`` itself when there is none."""
    match = pattern.match(line, position)
    return position if match is None else match.end()


def _refuse(problem: str, line: bytes, position: int) -> NoReturn:
    raise SynosError(EINVAL, f"{problem} {excerpt(line[position:]) or 'the end'} at column {position + 1}")


def _refuse_open(line: bytes, start: int, closer: bytes) -> NoReturn:
    raise SynosError(EINVAL, f"missing {closer.decode()} after {excerpt(line[start:])}")


def _escaped(found: re.Match[bytes]) -> bytes:
    code = found[0][0]
    short = _SHORT_ESCAPES.get(code)
    if short is not None:
        return short.encode()
    # Three digits when a digit follows, which would otherwise belong to the escape.
    return b"\\%03o" % code if found[1] else b"\\%o" % code


def word(value: Any) -> str:
    """A result as one word, a list joined by commas: strings with blanks and bytes that do not stand for themselves
    in quotes.
    """
    if isinstance(value, list):
        return ",".join(_quoted(item) if isinstance(item, str) and "," in item else word(item) for item in value)
    if isinstance(value, str) and not (_PLAIN_WORD.fullmatch(value) and value.isprintable()):
        return _quoted(value)
    return str(value)


def _quoted(value: str) -> str:
    # A name that is not UTF-8 comes from the host as surrogates, and goes out as the bytes it was.
    return quote(value.encode("utf-8", "surrogateescape"))
