"""Kinds of arguments: what a word of text, or a value of JSON or MessagePack, means as a parameter of a call.

A kind is a name for people and a conversion, which raises BadArgument with words that complete "<call>: <parameter> …".
"""

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from synosfs import abi

Convert = Callable[[Any], Any]


class BadArgument(Exception):
    """A value that is not of its parameter's kind; the message completes "<call>: <parameter> …"."""


class Kind(NamedTuple):
    """A kind of argument: the word for it in messages and ``help``, and the conversion.

    A ``variadic`` kind takes all words from its place on, as a list; in JSON and MessagePack it is given as one list.
    """

    label: str
    convert: Convert
    variadic: bool = False


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: Any) -> str:
    """A user's value inside a message: short and printable."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text.encode("unicode_escape").decode()
    return f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"


def parse_int(value: Any) -> int:
    """A number in C notation: 10, -3, 0x1f, 0666."""
    if type(value) is int:
        return value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise BadArgument(f"wants a number, not {shown(value)}")
    sign, digits = (-1, value[1:]) if value[:1] == "-" else (1, value[1:] if value[:1] == "+" else value)
    if digits.isascii() and digits[:1].isdigit():  # int() would take blanks, underscores and other scripts' digits
        try:
            if digits[0] == "0" and len(digits) > 1 and digits[1] not in "xX":
                return sign * int(digits, 8)
            if "_" not in digits:
                return sign * int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
        except ValueError:
            pass
    raise BadArgument(f"wants a number such as 10, 0x1f or 0666, not {shown(value)}")


def _ranged(bits: int, *, signed: bool = True, wrap: bool = False) -> Convert:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def convert(value: Any) -> int:
        number = value if type(value) is int else parse_int(value)
        if low <= number <= high:
            return number
        if wrap and 0 <= number < 1 << bits:  # 0xffffffff is how a negative key is written
            return number - (1 << bits)
        raise BadArgument(f"wants a number from {low} to {high}, not {number}")

    return convert


def _named_number(names: Mapping[str, int], *, bits: int = 32, wrap: bool = False) -> Convert:
    number_of = _ranged(bits, wrap=wrap)

    def convert(value: Any) -> int:
        if type(value) is int:
            return int(number_of(value))
        word = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(word, str) and word[:1].isalpha():
            if word in names:
                return names[word]
            raise BadArgument(f"has no value named {shown(word)}{suggestion(word, names)}")
        return int(number_of(word))

    return convert


def _flags(names: Mapping[str, int]) -> Convert:
    one = _named_number(names, bits=64)

    def convert(value: Any) -> int:
        if type(value) is int:
            return value & 0xFFFFFFFF
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            raise BadArgument(f"wants numbers or names joined by |, not {shown(value)}")
        return functools.reduce(lambda flags, word: flags | one(word.strip()), value.split("|"), 0) & 0xFFFFFFFF

    return convert


def _data(value: Any) -> bytes:
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise BadArgument(f"wants a string, not {shown(value)}")


def seconds(value: Any) -> float:
    """A time-out or a sleep, with a fraction: 0 up to 1e9."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1e9:  # also refuses nan
        raise BadArgument(f"wants seconds, such as 0.5, not {shown(value)}")
    return number


_MSG_FLAGS = {name: getattr(abi, name) for name in ("IPC_NOWAIT", "MSG_NOERROR", "MSG_EXCEPT", "MSG_COPY")}
_GET_FLAGS = {name: getattr(abi, name) for name in ("IPC_CREAT", "IPC_EXCL")}
_IPC_COMMANDS = {name: getattr(abi, name) for name in ("IPC_RMID", "IPC_SET", "IPC_STAT", "IPC_INFO")}
_MSG_COMMANDS = _IPC_COMMANDS | {name: getattr(abi, name) for name in ("MSG_STAT", "MSG_INFO", "MSG_STAT_ANY")}


def _polled(value: Any) -> list[tuple[str, int]]:
    """Things to poll, each ``what[:events]`` or a pair of these; input is waited for when no events are given."""
    things = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list) and len(item) == 2:
            what, events = item
        else:
            what, _, events = _data(str(item) if isinstance(item, int) else item).partition(b":")
        text = what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)
        things.append((text, _EVENT_FLAGS(events) if events else abi.POLL_EVENTS["POLLIN"]))
    return things


_EVENT_FLAGS = _flags(abi.POLL_EVENTS)

KINDS: dict[str, Kind] = {
    "polled": Kind("what:events", _polled, variadic=True),
    "int": Kind("number", _ranged(32)),
    "long": Kind("number", _ranged(64)),
    "size": Kind("number", _ranged(64)),
    "data": Kind("data", _data),
    "seconds": Kind("seconds", seconds),
    "uid": Kind("number", _ranged(32, signed=False)),
    "mode": Kind("mode", _ranged(32, signed=False)),
    "key": Kind("key", _named_number({"IPC_PRIVATE": abi.IPC_PRIVATE}, wrap=True)),
    "get_flags": Kind("flags", _flags(_GET_FLAGS)),
    "msg_flags": Kind("flags", _flags(_MSG_FLAGS)),
    "msg_command": Kind("command", _named_number(_MSG_COMMANDS)),
    "clock": Kind("clock", _named_number(abi.CLOCKS)),
}
