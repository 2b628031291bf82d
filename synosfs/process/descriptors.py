"""Descriptor tables: the numbers of a SynOS process, and the open things they stand for.

As in Unix there are two levels. A ``Description`` is an open thing (a pipe end, a queue, a file) with what is shared
by all numbers that stand for it: offset, status flags, the daemon's own host descriptor. A ``FileDescriptor`` is one
number of one process. dup and fork make new numbers for the same description; it is released when its last number is
closed, and no call that uses it is under way.

A number is the lowest that is free, found in a bit mask of constant size. A table begins with 0, 1 and 2, which stand
for the process's own standard streams; they can be closed and replaced here, which leaves the host's own untouched.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from errno import EBADF, EINVAL, EMFILE, ESRCH
from functools import partial
from typing import Any

import trio

from synosfs.errors import SynosError
from synosfs.host.thread import run_apart
from synosfs.process.accounts import Account

#: As RLIMIT_NOFILE has it by default: numbers are below this.
MOST_DESCRIPTORS = 1024

_STANDARD_STREAMS = ("stdin", "stdout", "stderr")


@dataclass(eq=False)
class Description:
    """An open thing, shared by the numbers that stand for it.

    ``file_type`` names its kind (``pipe``, ``fifo``, ``socket``, ``file``, ``standard``, ``mqueue``, ``shm``; what
    can be done with each is a row of ``syscall_gate.file_types``); ``flags`` are the status flags of open(2),
    O_ACCMODE and O_NONBLOCK among them; ``host_fd`` is the daemon's descriptor of the real
    thing, or -1, always O_NONBLOCK on the host side; ``flush`` is called whenever a number is closed, with the table
    that had it; ``release`` is called once, when the last number is gone;
    ``thing`` is what the family keeps; ``apart`` says that others can make a host call on ``host_fd`` slow, closing it
    included (a file on slow storage, a FIFO): none is made in the main thread.
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
    references: int = 0
    account: Account | None = None  # to whom it is charged, once it has a number

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
    def is_ipc(self) -> bool:
        """Whether its use is interprocess communication: all but files, and streams of which nobody knows."""
        return self.file_type not in ("file", "standard")

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
    """The numbers of one process. ``_used`` has bit n set when n is open. What is opened is charged to ``account``."""

    _slots: dict[int, _Slot] = field(default_factory=_standard_streams)
    _used: int = 0b111
    _closed: bool = False
    account: Account | None = None

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

    def set(self, number: int, description: Description, *, close_on_exec: bool = False) -> None:
        """dup2(2): make this very number stand for the description, closing what it stood for."""
        if not 0 <= number < MOST_DESCRIPTORS:
            raise SynosError(EBADF, f"{number} is not from 0 to {MOST_DESCRIPTORS - 1}")
        with held(description):  # closing the number must not release what it is to stand for again
            if number in self._slots:
                self.close(number)
            self._put(number, description, close_on_exec=close_on_exec)

    def close(self, number: int) -> trio.Event | None:
        """Give the number back, and release the description with its last one. EBADF when it is not open.

        Where that may take long, what is returned is set once it is done.
        """
        self.get(number)
        return self._close(number, run_apart)

    def _close(self, number: int, apart: Callable[[Callable[[], object]], trio.Event | None]) -> trio.Event | None:
        description = self._slots.pop(number).description
        self._used &= ~(1 << number)
        if description.flush is not None:
            description.flush(description, self)
        description.references -= 1
        return _release_unused(description, apart)

    def close_all(self) -> Iterator[None]:
        """The process has ended: nothing can be added from now on. Its numbers are closed one at a step, and as it
        would have closed them itself: what takes long, one after the other.
        """
        self._closed = True
        later: list[Callable[[], object]] = []
        while self._slots:
            self._close(min(self._slots), later.append)
            yield
        if later:
            run_apart(lambda: [release() for release in later])

    def copy(self, account: Account | None = None) -> "DescriptorTable":
        """The table of a child after fork(2): the same numbers for the same descriptions."""
        slots = {number: replace(slot) for number, slot in self._slots.items()}
        for slot in slots.values():
            slot.description.references += 1
        return DescriptorTable(slots, self._used, account=account)

    def close_on_exec(self, number: int, value: bool | None = None) -> bool:
        """The FD_CLOEXEC flag of a number; with ``value``, set first."""
        self.get(number)
        if value is not None:
            self._slots[number].close_on_exec = value
        return self._slots[number].close_on_exec

    def _lowest_free(self, lowest: int) -> int:
        if self._closed:
            raise SynosError(ESRCH, "the process has ended")
        if not 0 <= lowest < MOST_DESCRIPTORS:
            raise SynosError(EINVAL, f"{lowest} is not from 0 to {MOST_DESCRIPTORS - 1}")
        free = ~self._used >> lowest
        number = lowest + (free & -free).bit_length() - 1
        if number >= MOST_DESCRIPTORS:
            raise SynosError(EMFILE, f"{len(self._slots)} descriptors are open already; close some")
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
    try:
        yield description
    finally:
        description.references -= 1
        _release_unused(description)


def _release_unused(
    description: Description, apart: Callable[[Callable[[], object]], trio.Event | None] = run_apart
) -> trio.Event | None:
    if description.references or description.release is None:
        return None
    release, description.release = description.release, None
    if description.account is not None:
        description.account.give_back("descriptors")
        description.account = None
    if description.apart:
        return apart(partial(release, description))
    release(description)
    return None
