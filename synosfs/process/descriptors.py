"""Descriptor tables: the numbers of a SynOS process, and the open things they stand for.

As in Unix there are two levels. A ``Description`` is an open thing (a pipe end, a queue, a file) with what is shared
by all numbers that stand for it: offset, status flags, the daemon's own host descriptor. A ``FileDescriptor`` is one
number of one process. dup and fork make new numbers for the same description; it is released when its last number is
closed, and no call that uses it is under way.

A number is the lowest that is free, found in a bit mask of constant size. A table begins with 0, 1 and 2, which stand
for the process's own standard streams; they can be closed and replaced here, which leaves the host's own untouched.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from errno import EBADF, EINVAL, EMFILE, ESRCH
from functools import partial
from typing import Any

from trio import Event

from synosfs.errors import SynosError
from synosfs.host.thread import run_apart
from synosfs.ipc.file_lock import RecordLocks
from synosfs.ipc.usage import Usage
from synosfs.process.accounts import Account

#: Set once what was closed is, where that may take long.
Closed = Event | None

#: Has done in a thread what it is given, or later by the others who ask it.
Apart = Callable[[Callable[[], object]], Closed]

#: As RLIMIT_NOFILE is by default.
MOST_DESCRIPTORS = 1024

#: What no limit lets a process go beyond: a number that is a duplicate takes memory of the daemon, and is not charged.
_MOST_NUMBERS = 4096

_WAY_OUT = f"raise RLIMIT_NOFILE (ulimit -n), up to {_MOST_NUMBERS}"

_STANDARD_STREAMS = ("stdin", "stdout", "stderr")


@dataclass(eq=False)
class Description:
    """An open thing, shared by the numbers that stand for it.

    ``file_type`` names its kind (``pipe``, ``fifo``, ``socket``, ``file``, ``directory``, ``path`` for O_PATH,
    ``standard``, ``mqueue``, ``shm``; what
    can be done with each is a row of ``syscall_gate.file_types``); ``flags`` are the status flags of open(2),
    O_ACCMODE and O_NONBLOCK among them; ``host_fd`` is the daemon's descriptor of the real
    thing, or -1; ``flush`` is called whenever a number is closed, with the table that had it; ``release`` is called
    once, when the last number is gone;
    ``thing`` is what the family keeps; ``apart`` says that others can make a host call on ``host_fd`` slow, closing it
    included (a file on slow storage, a FIFO): none is made in the main thread. ``peer`` is the other end of a pipe.

    On the host side a pipe and a FIFO are O_NONBLOCK, and a program is given an open file of its own for the same end.
    All others have the O_NONBLOCK that the user asked for, since a program shares the open file (``shared``).
    ``users`` counts the calls that are under way with it.
    """

    file_type: str
    flags: int
    host_fd: int = -1
    ipc_id: str = ""
    path: str = ""
    offset: int = 0
    flush: Callable[["Description", "DescriptorTable"], None] | None = None
    release: Callable[["Description"], None] | None = None
    thing: Any = None
    apart: bool = False
    peer: "Description | None" = None
    shared: bool = False
    users: int = 0
    #: Whether a read that must not wait is worth a try: its file system has not refused one.
    reads_cached: bool = True
    references: int = 0
    account: Account | None = None  # to whom it is charged, once it has a number
    usage: Usage = field(default_factory=Usage)  # kept of what is interprocess communication

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def is_ours(self) -> bool:
        """Whether the host descriptor is the daemon's own, and not one of the process's."""
        return self.host_fd >= 0

    @property
    def is_free(self) -> bool:
        """Whether nobody else can be in a host call with this open file, or hold a lock of it."""
        return not (self.shared or self.users)

    def set_apart(self) -> None:
        """From now on others can hold the lock of this pipe for as long as they like: by a splice, or in a program."""
        self.apart = True
        if self.peer is not None:
            self.peer.apart = True

    def share(self) -> None:
        """A program is given it, and may use it at any time."""
        self.shared = True
        if self.file_type in ("pipe", "socket"):
            self.set_apart()

    @property
    def is_ipc(self) -> bool:
        """Whether its use is interprocess communication: all but files, and streams of which nobody knows."""
        return self.file_type not in ("file", "directory", "path", "standard")

    @property
    def permissions(self) -> str:
        return "r" * self.readable + "w" * self.writable


@dataclass(frozen=True)
class FileDescriptor:
    """What one number of a process stands for, as ``proc/<pid>/fd`` shows it."""

    fd_number: int
    file_type: str
    permissions: str
    offset: int
    ipc_id: str
    path: str


@dataclass
class _Slot:
    description: Description
    close_on_exec: bool = False


def _standard_streams() -> dict[int, _Slot]:
    """Slots 0, 1 and 2. ``thing`` is the stream's number in the host's table of whatever process uses it."""
    return {
        number: _Slot(Description("standard", os.O_RDWR, path=name, thing=number, references=1))
        for number, name in enumerate(_STANDARD_STREAMS)
    }


@dataclass
class DescriptorTable:
    """The numbers of one process. ``_used`` has bit n set when n is open. What is opened is charged to ``account``.
    ``locks`` are the process's, of files: closing any number of a file lets go of them.

    Numbers are below what ``most`` answers, RLIMIT_NOFILE: it is asked whenever one is given, as the host does, so it
    may change at any time, and what is open beyond it stays open.
    """

    _slots: dict[int, _Slot] = field(default_factory=_standard_streams)
    _used: int = 0b111
    _closed: bool = False
    account: Account | None = None
    most: Callable[[], int] = lambda: MOST_DESCRIPTORS
    locks: RecordLocks = field(default_factory=RecordLocks)

    @property
    def limit(self) -> int:
        """What numbers are below that are given now."""
        return min(self.most(), _MOST_NUMBERS)

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[FileDescriptor]:
        for number in sorted(self._slots):
            if number in self._slots:  # not closed since the first was taken
                yield self.describe(number)

    def __contains__(self, number: int) -> bool:
        return number in self._slots

    def describe(self, number: int) -> FileDescriptor:
        """The record of one number. EBADF when it is not open."""
        description = self.get(number)
        return FileDescriptor(
            number,
            description.file_type,
            description.permissions,
            description.offset,
            description.ipc_id,
            description.path,
        )

    def find(self, number: int) -> Description | None:
        """What the number stands for, if it is open."""
        slot = self._slots.get(number)
        return None if slot is None else slot.description

    def get(self, number: int, file_type: str = "") -> Description:
        """What the number stands for. EBADF when it is not open, or is not of the type asked for."""
        slot = self._slots.get(number)
        if slot is None:
            raise SynosError(EBADF, f"descriptor {number} is not open; proc/self/fd lists those that are")
        if file_type and slot.description.file_type != file_type:
            raise SynosError(EBADF, f"descriptor {number} is a {slot.description.file_type}, not a {file_type}")
        return slot.description

    def add(self, description: Description, *, close_on_exec: bool = False, lowest: int = 0) -> int:
        """Give the description the lowest free number that is not below ``lowest``.

        EMFILE: the table is full, or the user holds too many; EINVAL: no number may be as high as ``lowest``; ESRCH:
        the process has ended. A description that has no other number is released then.
        """
        try:
            number = self._lowest_free(lowest)
            if self.account is not None and description.account is None and description.file_type != "standard":
                self.account.charge("descriptors")
                description.account = self.account
        except SynosError:
            _release_unused(description)
            raise
        self._put(number, description, close_on_exec=close_on_exec)
        return number

    def set(self, number: int, description: Description, *, close_on_exec: bool = False) -> Closed:
        """dup2(2): make this very number stand for the description, closing what it stood for, as ``close`` does."""
        limit = self.limit
        if not 0 <= number < limit:
            raise SynosError(EBADF, f"{number} is not from 0 to {limit - 1}: {_WAY_OUT}")
        closed = None
        with held(description):  # closing the number must not release what it is to stand for again
            if number in self._slots:
                closed = self.close(number)
            self._put(number, description, close_on_exec=close_on_exec)
        return closed

    def close(self, number: int) -> Closed:
        """Give the number back, and release the description with its last one. EBADF when it is not open.

        Where that may take long, what is returned is set once it is done.
        """
        self.get(number)
        return self._close(number, run_apart)

    def _close(self, number: int, apart: Apart) -> Closed:
        description = self._slots.pop(number).description
        self._used &= ~(1 << number)
        if description.flush is not None:
            description.flush(description, self)
        # Only what is apart can be locked.
        unlock = self.locks.closing(description.host_fd) if self.locks and description.apart else None
        description.references -= 1
        return _release_unused(description, unlock, apart)

    def close_range(self, first: int, last: int) -> list[Event]:
        """Close what is open from ``first`` to ``last``."""
        closed = [self.close(number) for number in sorted(self._slots) if first <= number <= last]
        return [event for event in closed if event is not None]

    def mark_range(self, first: int, last: int) -> None:
        """CLOSE_RANGE_CLOEXEC of close_range(2)."""
        for number, slot in self._slots.items():
            if first <= number <= last:
                slot.close_on_exec = True

    def close_all(self) -> Iterator[None]:
        """The process has ended: nothing can be added from now on. Its numbers are closed one at a step, and as it
        would have closed them itself: what takes long, one after the other.
        """
        self._closed = True
        if self.locks:
            locks, self.locks = self.locks, RecordLocks()
            run_apart(locks.close_blocking)
        later: list[Callable[[], object]] = []
        while self._slots:
            self._close(min(self._slots), later.append)
            yield
        if later:
            run_apart(lambda: [release() for release in later])

    def discard(self) -> None:
        """Close all at once, of a table that no process has had."""
        for _ in self.close_all():
            pass

    def copy(self, account: Account | None = None) -> "DescriptorTable":
        """The table of a child after fork(2): the same numbers for the same descriptions."""
        slots = {number: replace(slot) for number, slot in self._slots.items()}
        for slot in slots.values():
            slot.description.references += 1
        return DescriptorTable(slots, self._used, account=account, most=self.most)

    def own(self) -> list[Description]:
        """Those that are of the process's own on the host."""
        return [slot.description for slot in self._slots.values() if slot.description.file_type == "standard"]

    def for_program(self) -> dict[int, Description]:
        """What a program that the process becomes is to have: all but what is close-on-exec."""
        return {number: slot.description for number, slot in sorted(self._slots.items()) if not slot.close_on_exec}

    def executed(self, numbers: Iterable[int]) -> None:
        """The process has become a program, which has these numbers itself from now on: as 0, 1 and 2 of any process,
        they are looked for there, and nothing is held here that would keep an end of a pipe open.
        """
        kept = ((number, self.find(number)) for number in numbers)
        shared = {
            number: Description("standard", description.flags, path=description.path, thing=number)
            for number, description in kept
            if description is not None  # else the program has ended by now
        }
        for number, slot in list(self._slots.items()):
            if number in shared:  # given away, which is no close(2): locks of the file stay
                del self._slots[number]
                let_go(slot.description)
            else:
                self.close(number)
        for number, description in shared.items():
            self._put(number, description, close_on_exec=False)

    def close_on_exec(self, number: int, value: bool | None = None) -> bool:
        """The FD_CLOEXEC flag of a number; with ``value``, set first."""
        self.get(number)
        if value is not None:
            self._slots[number].close_on_exec = value
        return self._slots[number].close_on_exec

    def _lowest_free(self, lowest: int) -> int:
        if self._closed:
            raise SynosError(ESRCH, "the process has ended")
        limit = self.limit
        if lowest and not 0 <= lowest < limit:
            raise SynosError(EINVAL, f"{lowest} is not from 0 to {limit - 1}: {_WAY_OUT}")
        free = ~self._used >> lowest
        number = lowest + (free & -free).bit_length() - 1
        if number >= limit:
            raise SynosError(EMFILE, f"no number below {limit} is free: close some, or {_WAY_OUT}")
        return number

    def _put(self, number: int, description: Description, *, close_on_exec: bool) -> None:
        self._slots[number] = _Slot(description, close_on_exec)
        self._used |= 1 << number
        description.references += 1


@contextmanager
def held(description: Description) -> Iterator[Description]:
    """Keep the description for the length of a call that uses it, as the kernel does: closing its number meanwhile
    neither ends the call nor frees the host descriptor for another use.
    """
    description.references += 1
    description.users += 1
    try:
        yield description
    finally:
        description.users -= 1
        let_go(description)


def let_go(description: Description) -> None:
    """One that has counted itself among the references does not use it any longer."""
    description.references -= 1
    _release_unused(description)


def _release_unused(
    description: Description, first: Callable[[], None] | None = None, apart: Apart = run_apart
) -> Closed:
    """Release what has no number and no user. ``first`` is done before, in a thread."""
    if description.references or description.release is None:
        return run_apart(first) if first else None
    release, description.release = description.release, None
    if description.account is not None:
        description.account.give_back("descriptors")
        description.account = None
    if description.apart or first:
        return apart(partial(_in_order, first, partial(release, description)))
    release(description)
    return None


def _in_order(first: Callable[[], None] | None, then: Callable[[], None]) -> None:
    try:
        if first is not None:
            first()
    finally:
        then()
