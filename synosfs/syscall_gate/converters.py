"""Conversions that kinds of arguments are made of: numbers, names of numbers, flags, data.

Each takes a word of text, or a value of JSON or MessagePack, and raises BadArgument with words that complete
"<call>: <parameter> …".
"""

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from synosfs.errors import excerpt, shown

Convert = Callable[[Any], Any]


class Words(NamedTuple):
    """The names that a conversion knows, and whether they are joined by ``|``."""

    names: Mapping[str, int]
    joined: bool


#: By the conversion, for who writes its values.
WORDS: dict[Convert, Words] = {}


class BadArgument(Exception):
    """A value that is not of its parameter's kind; the message completes "<call>: <parameter> …"."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the nearest known word, or nothing."""
    near = _nearest(word[:64], tuple(known))
    return f"; did you mean {near}?" if near else ""


@functools.lru_cache(1024)
def _nearest(word: str, known: tuple[str, ...]) -> str:
    # Half a millisecond, and one write may hold 100,000 wrong words: most often the same.
    return "".join(difflib.get_close_matches(word, known, n=1))


#: No number that means anything is longer.
_MOST_DIGITS = 100

_NUMBER = re.compile(r"[+-]?(?:(0[xX][0-9a-fA-F]+)|(0[0-7]+)|0|[1-9][0-9]*)")


def parse_int(value: Any) -> int:
    """A number in C notation: 10, -3, 0x1f, 0666."""
    if type(value) is int:
        return value
    if isinstance(value, bytes):
        value = value[: _MOST_DIGITS + 1].decode("utf-8", "replace")
    if not isinstance(value, str):
        raise BadArgument(f"wants a number, not {shown(value)}")
    # int() would take blanks, underscores, 0o7 and other scripts' digits.
    found = _NUMBER.fullmatch(value) if len(value) <= _MOST_DIGITS else None
    if found is not None:
        return int(value, 16 if found[1] else 8 if found[2] else 10)
    raise BadArgument(f"wants a number such as 10, 0x1f or 0666, not {shown(value)}")


def ranged(bits: int, *, signed: bool = True, wrap: bool = False) -> Convert:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def convert(value: Any) -> int:
        number = value if type(value) is int else parse_int(value)
        if low <= number <= high:
            return number
        if wrap and 0 <= number < 1 << bits:  # 0xffffffff is how a negative key is written
            return number - (1 << bits)
        raise BadArgument(f"wants a number from {low} to {high}, not {excerpt(number)}")

    return convert


def unsigned_long(value: Any) -> int:
    """A size_t, which C takes a negative number for as well: whether there can be as much is the host's to say."""
    number = parse_int(value)
    if not -(1 << 63) <= number < 1 << 64:
        raise BadArgument(f"wants a number from 0 to {(1 << 64) - 1}, not {excerpt(number)}")
    return number & (1 << 64) - 1


#: No call has as many flags.
_MOST_FLAGS = 64


def named_number(names: Mapping[str, int], *, bits: int = 32, wrap: bool = False) -> Convert:
    number_of = ranged(bits, wrap=wrap)

    def convert(value: Any) -> int:
        if type(value) is int:
            return int(number_of(value))
        word = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(word, str) and (word[:1].isalpha() or word[:2] == "__"):
            if word in names:
                return names[word]
            raise BadArgument(f"has no value named {shown(word)}{suggestion(word, names)}")
        return int(number_of(word))

    WORDS[convert] = Words(names, joined=False)
    return convert


def flags(names: Mapping[str, int]) -> Convert:
    one = named_number(names, bits=64)

    def convert(value: Any) -> int:
        if type(value) is int:
            return value & 0xFFFFFFFF
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            raise BadArgument(f"wants numbers or names joined by |, not {shown(value)}")
        if value.count("|") > _MOST_FLAGS:
            raise BadArgument(f"wants up to {_MOST_FLAGS} names or numbers joined by |")
        return functools.reduce(lambda flags, word: flags | one(word.strip()), value.split("|"), 0) & 0xFFFFFFFF

    WORDS[convert] = Words(names, joined=True)
    return convert


def data(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str):
        with suppress(UnicodeEncodeError):  # half of a surrogate pair
            return value.encode("utf-8", "surrogateescape")
    raise BadArgument(f"wants a string, not {shown(value)}")


def is_null(value: Any) -> bool:
    """Whether it is C's word for no pointer."""
    return value in (b"NULL", "NULL")


def seconds(value: Any, least: float = 0) -> float:
    """A time-out, a sleep or a time, with a fraction: from ``least`` to what a time_t holds."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number < 2**63:  # also refuses nan
        raise BadArgument(f"wants seconds, such as 0.5, not {shown(value)}")
    return number
