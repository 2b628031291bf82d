"""Argument kinds: what a word or a value of a request means, and how a row of the table binds them.

A ``Row`` describes one call; ``bind`` turns a request's arguments into the handler's positional values. Every error is
EINVAL with a message that names the call, the parameter, what stood there, and what would be right.
"""

import difflib
import errno
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from synosfs import abi
from synosfs.errors import SynosError
from synosfs.syscall_gate.record import Bare, Request

Convert = Callable[[Any], Any]


class BadArgument(Exception):
    """A value that is not of its parameter's kind; the message completes "<call>: <parameter> …"."""


class Kind(NamedTuple):
    """A kind of argument: the word for it in messages and ``help``, and the conversion."""

    label: str
    convert: Convert


class Param(NamedTuple):
    """A parameter: its name as in the man page, its kind, its default (``REQUIRED`` if it has none)."""

    name: str
    kind: Kind
    default: Any


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


class Row(NamedTuple):
    """One call: x86-64 number or None, name, handler, parameters, whether it may block, one line of help."""

    number: int | None
    name: str
    handler: Callable[..., Any]
    params: tuple[Param, ...]
    blocks: bool
    help: str

    def usage(self) -> str:
        """The text form, as ``help`` prints it: ``msgrcv msqid size [mtype] [flags]``."""
        words = [self.name]
        words += [p.name if p.default is REQUIRED else f"[{p.name}]" for p in self.params]
        return " ".join(words)


def row(
    number: int | None, name: str, handler: Callable[..., Any], parameters: str = "", *, blocks: bool = False, help: str
) -> Row:
    """A row from its short form: ``"msqid:int cmd:msg_command mode:int? flags:msg_flags=0"``.

    ``=`` gives a default; ``?`` makes the argument optional, and None when it is not given.
    """
    params = []
    for item in parameters.split():
        label, _, default_text = item.partition("=")
        param, _, kind_name = label.rstrip("?").partition(":")
        kind = KINDS[kind_name]
        default = kind.convert(Bare(default_text.encode())) if default_text else REQUIRED
        params.append(Param(param, kind, None if label[-1] == "?" else default))
    return Row(number, name, handler, tuple(params), blocks, help)


def bind(row: Row, request: Request) -> tuple[list[Any], float | None]:
    """The handler's values in order, and the time-out in seconds (None: for ever)."""
    params, args = row.params, request.args
    if not args and not params and not request.kwargs and request.timeout is None:
        return [], None
    named: dict[str, Any] = dict(request.kwargs)
    positional = args
    if any(type(arg) is Bare and b"=" in arg for arg in args):
        positional = _split_named(row, args, named)
    if request.data is not None:
        named["data"] = request.data
    timeout = request.timeout
    if "timeout" in named and "timeout" not in [p.name for p in params]:
        timeout = named.pop("timeout")
    if len(positional) > len(params):
        raise _too_many(row, positional)
    values = list(positional)
    try:
        for index, (param, value) in enumerate(zip(params, positional, strict=False)):
            if param.name in named:
                raise SynosError(errno.EINVAL, f"{row.name}: {param.name} is given twice, in place and by name")
            values[index] = param.kind.convert(value)
        for param in params[len(positional) :]:
            if param.name in named:
                values.append(param.kind.convert(named.pop(param.name)))
            elif param.default is REQUIRED:
                raise SynosError(errno.EINVAL, f"{row.name}: {param.name} is missing; usage: {row.usage()}")
            else:
                values.append(param.default)
        if timeout is not None:
            timeout = _seconds(timeout)
    except BadArgument as problem:
        name = param.name if timeout is request.timeout else "timeout"
        raise SynosError(errno.EINVAL, f"{row.name}: {name} {problem}") from None
    if named:
        raise _unknown_name(row, next(iter(named)))
    return values, timeout


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: Any) -> str:
    """A user's value inside a message: short and printable."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text.encode("unicode_escape").decode()
    return f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"


def _split_named(row: Row, args: list[Any], named: dict[str, Any]) -> list[Any]:
    """Move the ``name=value`` words whose name is a parameter (or timeout) into ``named``; the rest stays in place."""
    names = {param.name for param in row.params} | {"timeout"}
    positional = []
    for arg in args:
        name, equals, value = arg.partition(b"=") if type(arg) is Bare else (b"", b"", b"")
        if equals and (text := name.decode("utf-8", "replace")) in names:
            named[text] = Bare(value)
        else:
            positional.append(arg)
    return positional


def _too_many(row: Row, positional: list[Any]) -> SynosError:
    extra = positional[len(row.params)]
    hint = f"; usage: {row.usage()}" if row.params else "; it takes none"
    if type(extra) is Bare and b"=" in extra:
        return _unknown_name(row, extra.partition(b"=")[0].decode("utf-8", "replace"))
    if any(param.kind.label == "data" for param in row.params):
        hint += '; data with blanks goes in "double quotes"'
    return SynosError(errno.EINVAL, f"{row.name}: one argument too many: {shown(extra)}{hint}")


def _unknown_name(row: Row, name: str) -> SynosError:
    known = [param.name for param in row.params] + ["timeout"]
    near = suggestion(name, known)
    return SynosError(errno.EINVAL, f"{row.name}: no argument is named {shown(name)}{near or '; usage: ' + row.usage()}")


# --- Conversions ---------------------------------------------------------------------------------------------------


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


def _seconds(value: Any) -> float:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= 1e9:  # also refuses nan
        raise BadArgument(f"wants seconds, such as 0.5, not {shown(value)}")
    return seconds



_MSG_FLAGS = {name: getattr(abi, name) for name in ("IPC_NOWAIT", "MSG_NOERROR", "MSG_EXCEPT", "MSG_COPY")}
_GET_FLAGS = {name: getattr(abi, name) for name in ("IPC_CREAT", "IPC_EXCL")}
_IPC_COMMANDS = {name: getattr(abi, name) for name in ("IPC_RMID", "IPC_SET", "IPC_STAT", "IPC_INFO")}
_MSG_COMMANDS = _IPC_COMMANDS | {name: getattr(abi, name) for name in ("MSG_STAT", "MSG_INFO", "MSG_STAT_ANY")}

KINDS: dict[str, Kind] = {
    "int": Kind("number", _ranged(32)),
    "long": Kind("number", _ranged(64)),
    "size": Kind("number", _ranged(64)),
    "data": Kind("data", _data),
    "seconds": Kind("seconds", _seconds),
    "uid": Kind("number", _ranged(32, signed=False)),
    "mode": Kind("mode", _ranged(32, signed=False)),
    "key": Kind("key", _named_number({"IPC_PRIVATE": abi.IPC_PRIVATE}, wrap=True)),
    "get_flags": Kind("flags", _flags(_GET_FLAGS)),
    "msg_flags": Kind("flags", _flags(_MSG_FLAGS)),
    "msg_command": Kind("command", _named_number(_MSG_COMMANDS)),
    "clock": Kind("clock", _named_number(abi.CLOCKS)),
}
