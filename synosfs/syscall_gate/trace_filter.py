"""Which lines of ``trace`` a reader wants: ``pid=42 call=msgsnd,msgrcv slower=0.1``.

All words have to be true of a line; of several values, joined by commas, any. A later word of a name takes the place of
an earlier one. An object is one by its name below the mount, as ``own`` takes it: calls that name it by its id, key or
name match, and those by a descriptor of it.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from synosfs.errors import SynosError, excerpt, shown
from synosfs.ipc.things import Thing
from synosfs.syscall_gate import table
from synosfs.syscall_gate.converters import BadArgument, parse_int, ranged, seconds, suggestion
from synosfs.syscall_gate.trace import Ended, Gone

#: What stands for ``call=`` where an object is gone.
REMOVED = "removed"

#: For ``errno=``: whichever.
ANY = -1

#: No filter is longer, in bytes.
_LONGEST = 4096


@dataclass(frozen=True)
class Filter:
    """What is asked of a line; an empty set, or 0, asks nothing."""

    pids: frozenset[int] = frozenset()
    uids: frozenset[int] = frozenset()
    calls: frozenset[str] = frozenset()
    errnos: frozenset[int] = frozenset()
    things: frozenset[Thing] = frozenset()
    slower_ns: int = 0
    #: What the words said, as they were written.
    words: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def matches(self, entry: Ended | Gone) -> bool:
        return self._is_of(entry) if isinstance(entry, Ended) else self._is_gone(entry)

    def _is_of(self, ended: Ended) -> bool:
        if self.pids and ended.who.pid not in self.pids:
            return False
        if self.uids and ended.who.credentials.uid not in self.uids:
            return False
        number = ended.reply.errno
        if self.errnos and number not in self.errnos and not (number and ANY in self.errnos):
            return False
        if self.slower_ns and ended.ran_ns + (ended.parked_ns or 0) < self.slower_ns:
            return False
        row = ended.call.row if ended.call else None
        if self.calls and (row.name if row else "unknown") not in self.calls:
            return False
        return not self.things or any(_is_about(ended, thing) for thing in self.things)

    def _is_gone(self, gone: Gone) -> bool:
        removal = gone.removal
        return (
            not (self.errnos or self.slower_ns)
            and (not self.pids or removal.pid in self.pids)
            and (not self.uids or removal.uid in self.uids)
            and (not self.calls or REMOVED in self.calls)
            and (not self.things or Thing(removal.kind, removal.name) in self.things)
        )


def _is_about(ended: Ended, thing: Thing) -> bool:
    if ended.of:
        return ended.of == thing.name
    row = ended.call.row if ended.call else None
    if row is None or row.about is None or (ended.reply.errno and not ended.values):
        return False
    named: Any = ended.reply.ret if row.about.place < 0 else ended.values[row.about.place]
    if isinstance(named, int):
        return Thing(row.about.kind, named) == thing and not (row.about.place < 0 and ended.reply.errno)
    name = named.decode("utf-8", "surrogateescape") if isinstance(named, bytes) else str(named)
    return name in (str(thing), thing.name, f"/{thing.name}", f"{thing.kind}:/{thing.name}") or (
        row.about.kind == "object" and name == str(thing).replace("/sysv/", "/")
    )


def parse(line: bytes, named: Callable[[str], Thing]) -> Filter:
    """The filter that words say; none for a blank line. ``named`` finds the object of a name. EINVAL, which says what
    words there are; what ``named`` raises.
    """
    if len(line) > _LONGEST:
        raise SynosError(errno.EINVAL, f"a filter has up to {_LONGEST} bytes")
    values: dict[str, Any] = {}
    words = {}
    for word in line.decode("utf-8", "replace").split():
        name, equals, value = word.partition("=")
        part = _PARTS.get(name)
        if part is None or not equals:
            near = suggestion(name, _PARTS)
            raise SynosError(errno.EINVAL, f"trace has no filter {shown(word)}{near}; the words are {_USAGE}")
        field_name, convert = part
        try:
            if name == "slower":
                values[field_name] = round(seconds(value.encode()) * 1e9)
            elif name == "object":
                values[field_name] = frozenset(named(each) for each in value.split(","))
            else:
                values[field_name] = frozenset(convert(each) for each in value.split(","))
        except BadArgument as problem:
            raise SynosError(errno.EINVAL, f"trace: {name}= {problem}; the words are {_USAGE}") from None
        words[name] = excerpt(value)
    return Filter(**values, words=tuple(words.items()))


def _call(word: str) -> str:
    if word in _CALLS:
        return word
    raise BadArgument(f"wants calls, and {shown(word)} is none{suggestion(word, _CALLS)}")


def _errno(word: str) -> int:
    if word == "any":
        return ANY
    if word in _ERRNOS:
        return _ERRNOS[word]
    if word.isdigit():
        return parse_int(word)
    raise BadArgument(f"wants names such as ENOMSG, or any, not {shown(word)}{suggestion(word, _ERRNOS)}")


_CALLS = frozenset((*(row.name for row in table.ROWS), "unknown", REMOVED))
_ERRNOS = {name: number for number, name in errno.errorcode.items()} | {"EDEADLK": errno.EDEADLK}
_ID = ranged(32, signed=False)

#: By its name in a filter: the field, and how one value is read.
_PARTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "pid": ("pids", _ID),
    "uid": ("uids", _ID),
    "call": ("calls", _call),
    "errno": ("errnos", _errno),
    "object": ("things", str),
    "slower": ("slower_ns", str),
}
_USAGE = "pid= uid= call= errno= object= slower=SECONDS"
