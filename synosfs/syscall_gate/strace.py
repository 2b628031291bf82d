"""What ``trace`` holds as lines: strace's notation.

A call is written as the text notation reads it (``text``): ``msgget(0x1234, IPC_CREAT|0600) = 0``. So a line, from the
call on, can be given to the gate again, unless something in it was cut. What it gave stands behind ``=``: the return
value, results by name, and data in quotes; or -1, the errno and the reason. In ``<>`` is how long it took, in seconds,
and behind that how it waited, if it did. What is no call stands between dashes, as signals do with strace.

Invariant: where nothing was cut, ``text.parse`` of ``call_text``, bound to the row, gives the values.
"""

import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from synosfs.errors import errno_name, printable
from synosfs.ipc.journal import Removal
from synosfs.ipc.things import Thing
from synosfs.syscall_gate.converters import WORDS, Convert
from synosfs.syscall_gate.kinds import EVENT_FLAGS, KINDS, SEM_FLAGS, Kind
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.spec import REQUIRED, Param, Row
from synosfs.syscall_gate.text import quote, word
from synosfs.syscall_gate.trace import CutData, CutDict, CutList, Ended

#: Of data as many bytes are shown, as with strace.
SHOWN = 32

#: Kinds whose values are written in hexadecimal, and in octal.
_HEX = (KINDS["key"], KINDS["address"])
_OCTAL = (KINDS["mode"],)

#: Kinds with flags that hold a mode too.
_WITH_MODE = (KINDS["get_flags"], KINDS["shm_get_flags"])

#: Kinds of which one item is a struct.
_STRUCTS = (KINDS["operations"], KINDS["polled"])

#: Kinds that are times in nanoseconds here: into how many C's struct divides a second, and whether of two of them the
#: second comes first.
_TIMES = {
    KINDS["timespec"]: (1_000_000_000, False),
    KINDS["itimerspec"]: (1_000_000_000, True),
    KINDS["timeval"]: (1_000_000, False),
    KINDS["timevals"]: (1_000_000, False),
    KINDS["utimbuf_time"]: (1, False),
    KINDS["utimbuf"]: (1, False),
}

_NAME = re.compile(rb"[A-Z_][A-Z0-9_]*")


class Symbol(int):
    """A number that is written as a symbol (``script``)."""

    name: str

    def __new__(cls, number: int, name: str) -> "Symbol":
        made = super().__new__(cls, number)
        made.name = name
        return made

    def __str__(self) -> str:
        return f"${self.name}"


class Symbolic(str):
    """A word with a symbol in it, which stands without quotes."""

    __slots__ = ()


def line(ended: Ended, *, whole: bool, shown: int | None = SHOWN) -> str:
    """One call, with when it began and who made it. Not ``whole``: neither what it was given nor what it got."""
    return f"{clock(ended.began_ns)} {ended.who.pid} {body(ended, whole=whole, shown=shown)}"


def body(ended: Ended, *, whole: bool, shown: int | None = SHOWN) -> str:
    """The same without that."""
    seconds = (ended.ran_ns + (ended.parked_ns or 0)) / 1e9
    row = ended.call.row if ended.call else None
    if row is None:
        called = "unknown()"
    elif whole:
        called = call_text(row, ended.values, shown)
    else:
        called = f"{row.name}(...)"
    return f"{called} = {result_text(called, ended.reply, whole=whole, shown=shown)} <{seconds:.6f}>{_waited(ended)}"


def removal_line(at_ns: int, removal: Removal) -> str:
    """An object that is gone."""
    key = f" key={removal.key:#x}" if removal.key else ""
    owner = f" owner={removal.owner}" if removal.owner >= 0 else ""
    by = f" uid={removal.uid}" if removal.uid >= 0 else ""
    program = f" program={word(printable(removal.program))}" if removal.program else ""
    what = word(str(Thing(removal.kind, removal.name)))
    return f"{clock(at_ns)} {removal.pid} --- removed {what}{key}{owner}{by}{program}: {printable(removal.why)} ---"


def clock(at_ns: int) -> str:
    """The time of day, in this place's time, of a reading of the performance counter."""
    at = time.time_ns() - time.perf_counter_ns() + at_ns
    return f"{_second(at // 1_000_000_000)}.{at // 1000 % 1_000_000:06d}"


@lru_cache(64)
def _second(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _waited(ended: Ended) -> str:
    """How a call ended that waited."""
    if ended.parked_ns is None:
        return ""
    reply, row = ended.reply, ended.call.row if ended.call else None
    if reply.errno == errno.EINTR:
        return " interrupted"
    if row is not None and (reply.errno == row.timed_out or (row.name == "poll" and not reply.ret)):
        return " timed out"
    return " waited"


# --- results ---


def result_text(called: str, reply: Reply, *, whole: bool, shown: int | None = SHOWN) -> str:
    """What stands behind the ``=``."""
    if reply.errno:
        name = called.partition("(")[0]
        reason = reply.message.removeprefix(f"{called}: ").removeprefix(f"{name}: ") if whole else ""
        return f"-1 {errno_name(reply.errno)} ({printable(reason or os.strerror(reply.errno))})"
    words = [str(reply.ret)]
    if whole:
        words += [f"{name}={_result(value)}" for name, value in reply.results.items()]
        if reply.data is not None:
            words.append(_data(reply.data, shown))
    return " ".join(words)


def _result(value: Any) -> str:
    return word(value) + "..." * isinstance(value, CutList)


# --- calls ---


def call_text(row: Row, values: Sequence[Any], shown: int | None = None) -> str:
    """``msgrcv(3, 8192, 0, 0)``: the call as C writes it; what C has no place for by name. ``shown`` bytes of data, all
    if None.
    """
    return f"{row.name}({', '.join(_arguments(row, values, shown))})"


def is_cut(values: Sequence[Any]) -> bool:
    """Whether the values are not all there."""
    return any(
        isinstance(value, CutData | CutList | CutDict) or (type(value) is list and is_cut(value)) for value in values
    )


def _arguments(row: Row, values: Sequence[Any], shown: int | None) -> Iterator[str]:
    in_place = True
    for place, (param, value) in enumerate(zip(row.params, values, strict=False)):
        if param.kind.rest:
            yield from (f"{name.decode()}={_data(item, shown)}" for name, item in value.items() if _is_name(name))
        elif value is None and param.default is None and not _is_null(param):
            in_place = False
        elif in_place and place < row.in_place:
            is_plain_zero = value == 0 and param.kind is KINDS["open_flags"] and "open" not in row.name
            yield "0" if is_plain_zero else _value(param.kind, value, shown)
            if place == row.variadic and type(value) is list and param.kind is not KINDS["words"]:
                yield str(len(value))  # C says how many there are
            in_place = place != row.variadic or param.kind is not KINDS["words"] or row.name.startswith("exec")
        elif value != param.default or param.default is REQUIRED:
            yield f"{param.name}={_by_name(param.kind, value, shown)}"


def _is_name(name: bytes) -> bool:
    return _NAME.fullmatch(name) is not None


def _is_null(param: Param) -> bool:
    return param.kind is KINDS["path_or_null"]


def _value(kind: Kind, value: Any, shown: int | None) -> str:
    if isinstance(value, Symbol | Symbolic):
        return str(value)
    if kind in _TIMES and value is not None:
        return _time(kind, value)
    if type(value) is int:
        return _number(kind, value)
    if isinstance(value, bytes):
        return _data(value, shown)
    if isinstance(value, str):
        return quote(value.encode("utf-8", "surrogateescape"))
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        items = [_struct(kind, item) if kind in _STRUCTS else _value(kind, item, shown) for item in value]
        return f"[{', '.join(items)}{', ...' * isinstance(value, CutList)}]"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(_value(kind, item, shown) for item in value)}]"
    return quote(str(value).encode("utf-8", "surrogateescape"))


def _by_name(kind: Kind, value: Any, shown: int | None) -> str:
    """As ``_value``; a struct cannot stand there, so a time is written in decimals."""
    if kind in _TIMES and type(value) is int and _TIMES[kind][0] > 1:
        return f"{'-' if value < 0 else ''}{abs(value) // 1_000_000_000}.{abs(value) % 1_000_000_000:09d}"
    return _value(kind, value, shown)


def _time(kind: Kind, value: Any) -> str:
    """A struct of seconds and what is left of one, or two of them."""
    per_second, second_first = _TIMES[kind]
    if isinstance(value, tuple):
        pair = value[::-1] if second_first else value
        if None not in pair:
            return f"[{', '.join(_one_time(each, per_second) for each in pair)}]"
        value = value[0]
    return "NULL" if value is None else _one_time(value, per_second)


def _one_time(ns: int, per_second: int) -> str:
    seconds, rest = divmod(ns, 1_000_000_000)
    return str(seconds) if per_second == 1 else f"{{{seconds}, {rest * per_second // 1_000_000_000}}}"


def _struct(kind: Kind, item: Sequence[Any]) -> str:
    if kind is KINDS["polled"]:
        what, events = item
        if isinstance(what, Symbolic):
            return "{" + f"{what}, {_named(EVENT_FLAGS, events)}" + "}"
        return "{" + f"{quote(what.encode('utf-8', 'surrogateescape'))}, {_named(EVENT_FLAGS, events)}" + "}"
    num, delta, flags = item
    return "{" + f"{num}, {delta}, {_named(SEM_FLAGS, flags)}" + "}"


def _number(kind: Kind, value: int) -> str:
    if kind in _OCTAL:
        return f"0{value:o}" if value else "0"
    if kind in _HEX and value:
        return f"{value & 0xFFFFFFFFFFFFFFFF if kind is KINDS['address'] else value & 0xFFFFFFFF:#x}"
    return _named(kind.convert, value, rest_octal=kind in _WITH_MODE)


@lru_cache(1024)
def _named(convert: Convert, value: int, *, rest_octal: bool = False) -> str:
    """A number by the names that its conversion knows."""
    words = WORDS.get(convert)
    if words is None:
        return str(value)
    for name, number in words.names.items():
        if number == value and name[:1].isalpha():
            return name
    if not words.joined:
        return str(value)
    found, rest = [], value
    for name, number in sorted(words.names.items(), key=lambda item: -item[1].bit_count()):
        if number > 0 and rest & number == number:
            found.append(name)
            rest &= ~number
    if rest:
        found.append(f"0{rest:o}" if rest_octal else f"{rest:#x}")
    return "|".join(found) or "0"


def _data(data: bytes, shown: int | None) -> str:
    text = quote(data, shown)
    return text + "..." if isinstance(data, CutData) and not text.endswith("...") else text
