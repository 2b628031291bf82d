"""The address space of a SynOS process: where its segments are attached, as far as it can tell.

Each attachment is one of the host's, held by the daemon, so nattch and the times follow. The *address* is only a name
for it in this table: mapping at an address of a caller's choice would overwrite the daemon. The rules are those of
shmat(2). An attachment belongs to the process that made it, and goes when it dies; a program that execve(2) starts has
none.
"""

import errno
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.host.abi import SHM_EXEC, SHM_RDONLY, SHM_REMAP, SHM_RND
from synosfs.host.thread import leave_apart, run_apart
from synosfs.ipc.sysv_shm import AT_ONCE, Attached, Segment
from synosfs.process.accounts import Account

#: Where x86-64 Linux places maps: the lowest free place from here on is taken when the caller asks for none.
BASE = 0x7F0000000000

#: The end of a process's address space (TASK_SIZE).
_TOP = 0x7FFFFFFFF000

#: Below it only the privileged may map (vm.mmap_min_addr), so that NULL leads nowhere.
_LOWEST = 0x10000

#: The most attachments of one process: the host's SHMSEG, which is its default SHMMNI.
_MOST = 4096

_PAGE = 4096  # SHMLBA too


@dataclass(frozen=True, eq=False)
class Attachment:
    """One attachment: where it begins and where its last page ends, the memory, the flags of shmat(2) that made it.

    Whole pages are attached: zeros follow a segment that ends within one.
    """

    address: int
    end: int
    memory: Attached
    flags: int


class Piece(NamedTuple):
    """A part of what is read or written: ``size`` bytes of one attachment, of which its segment has the first ``had``;
    zeros follow.
    """

    memory: Attached
    offset: int
    size: int
    had: int


class _Copy:
    """A copy from or to attached memory, of pieces that follow each other.

    It is made at once, in the trio thread (``nowait``: WouldBlock where a page is not in memory), or in any thread
    (``blocking``).
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces

    def _resident_only(self) -> None:
        for memory, offset, _, had in self._pieces:
            if had and not memory.is_resident(offset, had):
                raise WouldBlock(errno.EAGAIN, f"pages of segment {memory.shmid} are not in memory")


class Reading(_Copy):
    """Gives the bytes; fewer where the host has no page."""

    def nowait(self) -> bytes:
        self._resident_only()
        return self._read(Attached.read_nowait)

    def blocking(self) -> bytes:
        return self._read(Attached.read_blocking)

    def _read(self, read: Callable[[Attached, int, int], bytes]) -> bytes:
        found = []
        for memory, offset, size, had in self._pieces:
            data = read(memory, offset, had) if had else b""
            found.append(data if len(data) < had else data.ljust(size, b"\0"))
            if len(data) < had:
                break
        return found[0] if len(found) == 1 else b"".join(found)


class Writing(_Copy):
    """Gives how many bytes were written; fewer where the host has no page."""

    def __init__(self, pieces: Sequence[Piece], data: bytes) -> None:
        super().__init__(pieces)
        self._data = data

    def nowait(self) -> int:
        self._resident_only()
        return self._write(Attached.write_nowait)

    def blocking(self) -> int:
        return self._write(Attached.write_blocking)

    def _write(self, write: Callable[[Attached, int, bytes], int]) -> int:
        done = 0
        for memory, offset, size, had in self._pieces:
            written = write(memory, offset, self._data[done : done + had]) if had else 0
            if written < had:
                return done + written
            done += size
        return done


class AddressSpace:
    """The attachments of one process, in the order of their addresses; they never overlap. For the trio thread.

    ``used`` is told the shmid at every attach and detach, as the host sets lpid; each attachment is charged to
    ``account``.
    """

    def __init__(self, used: Callable[[int], None], account: Account | None = None) -> None:
        self.used = used
        self._account = account
        self._attachments: list[Attachment] = []
        self._full_to = BASE  # nothing is free from BASE to here, so that is where to look for the lowest free place

    def __iter__(self) -> Iterator[Attachment]:
        return iter(list(self._attachments))

    def __len__(self) -> int:
        return len(self._attachments)

    def attach(self, segment: Segment, address: int, flags: int) -> int:
        """shmat(2): the address. The segment is attached with the calling thread's rights.

        EINVAL: unaligned without SHM_RND, overlapping without SHM_REMAP, SHM_REMAP without an address, no such segment.
        ENOMEM: no room. EPERM: below vm.mmap_min_addr. EACCES.
        """
        if len(self._attachments) >= _MOST:
            raise SynosError(errno.ENOMEM, f"{_MOST} segments are attached already; detach some")
        if flags & SHM_EXEC:
            raise SynosError(errno.EINVAL, "memory that is attached here cannot be executed: leave SHM_EXEC out")
        start = _start(address, flags)
        size = _pages(segment.status_any().segsz)
        overlapped: list[Attachment] = []
        if address:
            overlapped = self._asked(start, size, flags)
        else:
            start = self._lowest_free(size)
        if self._account is not None:
            self._account.charge("attachments")
        try:
            memory = segment.attach(readonly=bool(flags & SHM_RDONLY))
            if _pages(memory.size) != size:
                memory.detach()
                raise SynosError(errno.EIDRM, f"segment {segment.shmid} was removed")
        except SynosError:
            self._give_back()
            raise
        self.used(segment.shmid)
        for attachment in overlapped:
            self.detach(attachment.address)
        self._attachments.insert(self._after(start), Attachment(start, start + size, memory, flags))
        if start <= self._full_to < start + size:
            self._full_to = start + size
        return start

    def detach(self, address: int) -> trio.Event | None:
        """shmdt(2). EINVAL: nothing is attached at this very address. What is large goes in a thread: the event says
        when it has.
        """
        index = self._after(address) - 1
        if index < 0 or self._attachments[index].address != address:
            raise SynosError(errno.EINVAL, f"no segment is attached at {address & (1 << 64) - 1:#x}")
        attachment = self._attachments.pop(index)
        self._full_to = min(self._full_to, max(attachment.address, BASE))
        self._give_back()
        self.used(attachment.memory.shmid)
        if attachment.memory.size > AT_ONCE:
            return run_apart(attachment.memory.detach)
        attachment.memory.detach()
        return None

    def read_nowait(self, address: int, size: int) -> bytes:
        """As ``reading`` gives it, at once; else WouldBlock."""
        if (attachment := self._at(address)) is not None:
            offset, memory = address - attachment.address, attachment.memory
            if 0 < size <= memory.size - offset and memory.is_resident(offset, size):
                return memory.read_nowait(offset, size)
        return self.reading(address, size).nowait()

    def write_nowait(self, address: int, data: bytes) -> int:
        """As ``writing`` does it, at once; else WouldBlock."""
        if (attachment := self._at(address)) is not None and not attachment.memory.readonly:
            offset, memory = address - attachment.address, attachment.memory
            if 0 < len(data) <= memory.size - offset and memory.is_resident(offset, len(data)):
                return memory.write_nowait(offset, data)
        return self.writing(address, data).nowait()

    def reading(self, address: int, size: int) -> "Reading":
        """Of the bytes from ``address`` on, up to the first that is not attached. EFAULT when that is the first of
        all.
        """
        pieces = self._pieces(address, size, to_write=False)
        if size > 0 and not pieces:
            raise _unmapped(address)
        return Reading(pieces)

    def writing(self, address: int, data: bytes) -> "Writing":
        """From ``address`` on, up to the first byte that cannot be written. EFAULT when that is the first of all.

        What is attached with SHM_RDONLY cannot be written.
        """
        pieces = self._pieces(address, len(data), to_write=True)
        if data and not pieces:
            raise _unmapped(address)
        return Writing(pieces, data)

    def close(self) -> Iterator[None]:
        """Detach all, one at a step; what is large, in a thread."""
        held = [attachment.memory for attachment in self._attachments]
        self._attachments.clear()
        is_large = sum(memory.size for memory in held) > AT_ONCE
        for memory in held:
            self._give_back()
            self.used(memory.shmid)
            if not is_large:
                _detach_all([memory])
            yield
        if is_large:
            leave_apart(partial(_detach_all, held))

    def shmid_at(self, address: int) -> int | None:
        """The segment that is attached there."""
        place = self._after(address) - 1
        if place < 0:
            return None
        found = self._attachments[place]
        return found.memory.shmid if address < found.address + found.memory.size else None

    def _pieces(self, address: int, size: int, *, to_write: bool) -> list[Piece]:
        pieces = []
        while size > 0 and (attachment := self._at(address)):
            if to_write and attachment.memory.readonly:
                break
            within = min(size, attachment.end - address)
            offset = address - attachment.address
            pieces.append(Piece(attachment.memory, offset, within, attachment.memory.within(offset, within)))
            address += within
            size -= within
        return pieces

    def _give_back(self) -> None:
        if self._account is not None:
            self._account.give_back("attachments")

    def _after(self, address: int) -> int:
        """The index of the first attachment that begins behind ``address``."""
        return bisect_right(self._attachments, address, key=lambda attachment: attachment.address)

    def _at(self, address: int) -> Attachment | None:
        index = self._after(address) - 1
        if index < 0 or address >= self._attachments[index].end:
            return None
        return self._attachments[index]

    def _asked(self, start: int, size: int, flags: int) -> list[Attachment]:
        """Check the place that the caller asked for; what SHM_REMAP replaces there."""
        if start < 0 or start + size > _TOP:
            raise SynosError(errno.EINVAL, f"the segment would not end below {_TOP:#x}")
        if start < _LOWEST:
            raise SynosError(errno.EPERM, f"nothing is attached below {_LOWEST:#x} (vm.mmap_min_addr)")
        near = self._attachments[max(self._after(start) - 1, 0) : self._after(start + size - 1)]
        overlapped = [other for other in near if start < other.end]
        if overlapped and not flags & SHM_REMAP:
            there = overlapped[0]
            raise SynosError(
                errno.EINVAL,
                f"segment {there.memory.shmid} is attached there, at {there.address:#x}; SHM_REMAP replaces it",
            )
        return overlapped

    def _lowest_free(self, size: int) -> int:
        start = self._full_to
        for attachment in self._attachments[self._after(start - 1) :]:
            if attachment.address - start >= size:
                break
            start = max(start, attachment.end)
        if start + size > _TOP:
            raise SynosError(errno.ENOMEM, f"no {size} bytes of addresses are free; detach something")
        return start


def _start(address: int, flags: int) -> int:
    """The address that shmat(2) means. EINVAL: unaligned without SHM_RND, or NULL with SHM_REMAP."""
    start = address & -_PAGE
    if start != address and not flags & SHM_RND:
        raise SynosError(errno.EINVAL, f"address {address:#x} is not a multiple of {_PAGE:#x}; SHM_RND rounds it down")
    if not start and flags & SHM_REMAP:
        raise SynosError(errno.EINVAL, "SHM_REMAP needs an address")
    return start


def _pages(size: int) -> int:
    return (size + _PAGE - 1) & -_PAGE


def _detach_all(held: Iterable[Attached]) -> None:
    for memory in held:
        memory.detach()


def _unmapped(address: int) -> SynosError:
    return SynosError(
        errno.EFAULT, f"nothing is attached at {address:#x}, or not for writing; see attach beside this file"
    )
