"""The latest of what has been done here: the calls that have ended, and the objects that are gone.

A ring of plain tuples, in the order in which they ended. On a call's path a tuple is put into it and nothing more is
done; who reads makes lines of them (``strace``). What a tuple leads to is small: data and lists are cut when they are
put there (``KEPT``), and of who called there is only what does not keep the process.

Who follows the ring has a place in it of its own (``since``), and sets ``wake`` to be told, once, of the next. Used
from the trio thread only.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from synosfs.ipc.journal import Removal
from synosfs.syscall_gate.caller import Identity
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.spec import Row

#: So many are kept; a power of two.
LATEST = 1024

#: Of data as many bytes are kept, which is a whole System V message (MSGMAX), and of a list as many items.
KEPT, _ITEMS = 8192, 64


class Called(Protocol):
    """What the dispatcher knows of a call."""

    @property
    def row(self) -> Row: ...


class Ended(NamedTuple):
    """A call that has ended. ``began_ns`` on the performance counter; ``call`` is None when there is no such call;
    ``values`` are its bound arguments, none when binding failed; ``ran_ns`` on the daemon's own path, ``parked_ns``
    waiting (None: it never waited). ``of`` is what its descriptor stands for, if it named one.
    """

    began_ns: int
    who: Identity
    call: Called | None
    values: Sequence[Any]
    reply: Reply
    ran_ns: int
    parked_ns: int | None
    of: str = ""


class Gone(NamedTuple):
    """An object that is gone; when, on the performance counter."""

    at_ns: int
    removal: Removal


#: As they stand in the ring: the fields of an ``Ended``, or a ``Gone``.
Entry = tuple[Any, ...]


def told(entry: Entry) -> Ended | Gone:
    """What an entry says."""
    return entry if isinstance(entry, Gone) else Ended._make(entry)


class CutData(bytes):
    """The beginning of data that was longer."""


class CutList(list[Any]):
    """The beginning of a list that was longer."""


class CutDict(dict[Any, Any]):
    """A part of a dictionary that had more."""


class Trace:
    """One for the mount."""

    __slots__ = ("entries", "mask", "next", "wake")

    def __init__(self, size: int = LATEST) -> None:
        assert size & (size - 1) == 0, "a power of two"
        self.entries: list[Entry] = [()] * size
        self.mask = size - 1
        #: How many there have been, and so the place of the next.
        self.next = 0
        #: Is called when the next has come, and is forgotten then.
        self.wake: Callable[[], None] | None = None

    def ended(self, entry: Entry) -> None:
        """A call has ended: the fields of an ``Ended``, of which nothing is large."""
        place = self.next
        self.entries[place & self.mask] = entry
        self.next = place + 1
        if self.wake is not None:
            self.tell()

    def gone(self, removal: Removal) -> None:
        """An object is gone."""
        self.ended(Gone(time.perf_counter_ns(), removal))

    def since(self, place: int) -> tuple[int, list[Entry]]:
        """How many from this place on are there no more, and those behind them, the oldest first."""
        first = max(place, self.next - len(self.entries), 0)
        begin, end = first & self.mask, self.next & self.mask
        if first == self.next:
            return first - place, []
        entries = self.entries[begin:end] if begin < end else self.entries[begin:] + self.entries[:end]
        return first - place, entries

    def tell(self) -> None:
        """Whoever wants to be told of the next is."""
        wake, self.wake = self.wake, None
        assert wake is not None
        wake()


def cut_values(values: Sequence[Any]) -> list[Any]:
    """The values of a call, each as much of it as is kept."""
    return [value if type(value) is int else _cut(value) for value in values]


def cut_reply(reply: Reply) -> Reply:
    """As much of a reply as is kept."""
    data = None if reply.data is None else _cut(reply.data)
    results = {name: _cut(value) for name, value in reply.results.items()}
    return Reply(reply.ret, results, data, reply.errno, reply.message[:KEPT])


def _cut(value: Any) -> Any:
    if isinstance(value, bytes):
        return CutData(value[:KEPT]) if len(value) > KEPT else value
    if isinstance(value, str):
        return value[:KEPT]
    if isinstance(value, dict):
        some_of_it = {_cut(name): _cut(item) for name, item in islice(value.items(), _ITEMS)}
        return CutDict(some_of_it) if len(value) > _ITEMS else some_of_it
    if type(value) is list:
        some = [_cut(item) for item in value[:_ITEMS]]
        return CutList(some) if len(value) > _ITEMS else some
    return value
