"""Descriptor tables: the numbers of a SynOS process, and the open things they stand for.

As in Unix there are two levels. A ``Description`` is an open thing (a pipe end, a queue, a file) with what is shared
by all numbers that stand for it: offset, status flags, the daemon's own host descriptor. A ``FileDescriptor`` is one
number of one process. dup and fork make new numbers for the same description; it is released when its last number is
closed.

A number is the lowest that is free, found in O(log n) of the numbers freed before. 0, 1 and 2 are the process's own
standard streams, in the host's table and not in this one, so the first number given is 3.
"""

import heapq
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from errno import EBADF, EMFILE
from typing import Any

from synosfs.errors import SynosError

#: As RLIMIT_NOFILE has it by default.
MOST_DESCRIPTORS = 1024

_FIRST = 3


@dataclass(eq=False)
class Description:
    """An open thing, shared by the numbers that stand for it.

    ``file_type`` names its kind (``pipe``, ``mqueue``, ``sem``, ``shm``, ``socket``, ``file``); ``flags`` are the
    status flags of open(2), O_ACCMODE and O_NONBLOCK among them; ``host_fd`` is the daemon's descriptor of the real
    thing, or -1, always O_NONBLOCK on the host side; ``release`` is called once, when the last number is gone;
    ``thing`` is what the family keeps.
    """

    file_type: str
    flags: int
    host_fd: int = -1
    ipc_id: str = ""
    path: str = ""
    offset: int = 0
    release: Callable[["Description"], None] | None = None
    thing: Any = None
    references: int = 0

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

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


@dataclass
class DescriptorTable:
    """The numbers of one process."""

    _slots: dict[int, _Slot] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)
    _next: int = _FIRST

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[FileDescriptor]:
        for number in sorted(self._slots):
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

    def get(self, number: int, file_type: str = "") -> Description:
        """What the number stands for. EBADF when it is not open, or is not of the type asked for."""
        slot = self._slots.get(number)
        if slot is None:
            raise SynosError(EBADF, f"descriptor {number} is not open; proc/self/fd lists those that are")
        if file_type and slot.description.file_type != file_type:
            raise SynosError(EBADF, f"descriptor {number} is a {slot.description.file_type}, not a {file_type}")
        return slot.description

    def add(self, description: Description, *, close_on_exec: bool = False) -> int:
        """Give the description the lowest free number. EMFILE: the table is full; the description is released then."""
        if len(self._slots) >= MOST_DESCRIPTORS - _FIRST:
            if not description.references:
                _release(description)
            raise SynosError(EMFILE, f"{len(self._slots)} descriptors are open already; close some")
        number = self._next
        while self._free:
            freed = heapq.heappop(self._free)
            if freed < self._next and freed not in self._slots:  # it may have been taken by number since
                number = freed
                break
        if number == self._next:
            self._next += 1
            while self._next in self._slots:
                self._next += 1
        self._put(number, description, close_on_exec=close_on_exec)
        return number

    def set(self, number: int, description: Description, *, close_on_exec: bool = False) -> None:
        """dup2(2): make this very number stand for the description, closing what it stood for."""
        if not 0 <= number < MOST_DESCRIPTORS:
            raise SynosError(EBADF, f"{number} is not from 0 to {MOST_DESCRIPTORS - 1}")
        if number in self._slots:
            if self._slots[number].description is description:
                return
            self.close(number)
        self._put(number, description, close_on_exec=close_on_exec)
        while self._next in self._slots:
            self._next += 1

    def close(self, number: int) -> None:
        """As close(2). EBADF when it is not open."""
        self.get(number)
        description = self._slots.pop(number).description
        if number >= _FIRST:
            heapq.heappush(self._free, number)
        description.references -= 1
        if not description.references:
            _release(description)

    def close_all(self) -> None:
        for number in list(self._slots):
            self.close(number)

    def copy(self) -> "DescriptorTable":
        """The table of a child after fork(2): the same numbers for the same descriptions."""
        slots = {number: replace(slot) for number, slot in self._slots.items()}
        for slot in slots.values():
            slot.description.references += 1
        return DescriptorTable(slots, list(self._free), self._next)

    def close_on_exec(self, number: int, value: bool | None = None) -> bool:
        """The FD_CLOEXEC flag of a number; with ``value``, set first."""
        self.get(number)
        if value is not None:
            self._slots[number].close_on_exec = value
        return self._slots[number].close_on_exec

    def _put(self, number: int, description: Description, *, close_on_exec: bool) -> None:
        self._slots[number] = _Slot(description, close_on_exec)
        description.references += 1


def _release(description: Description) -> None:
    if description.release is not None:
        description.release(description)
        description.release = None
