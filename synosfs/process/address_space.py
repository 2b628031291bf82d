"""The address space of a SynOS process: where its segments are attached, as far as it can tell.

Each attachment is one of the host's, held by the daemon, so nattch and the times follow. The *address* is only a name
for it in this table: mapping at an address of a caller's choice would overwrite the daemon. The rules are those of
shmat(2). An attachment belongs to the process that made it, and goes when it dies; a program that execve(2) starts has
none.
"""

import errno
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from synosfs.errors import SynosError
from synosfs.host.abi import SHM_EXEC, SHM_RDONLY, SHM_REMAP, SHM_RND
from synosfs.ipc.sysv_shm import Attached, Segment
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

    def detach(self, address: int) -> None:
        """shmdt(2). EINVAL: nothing is attached at this very address."""
        index = self._after(address) - 1
        if index < 0 or self._attachments[index].address != address:
            raise SynosError(errno.EINVAL, f"no segment is attached at {address & (1 << 64) - 1:#x}")
        attachment = self._attachments.pop(index)
        self._full_to = min(self._full_to, max(attachment.address, BASE))
        attachment.memory.detach()
        self._give_back()
        self.used(attachment.memory.shmid)

    def read(self, address: int, size: int) -> bytes:
        """The bytes from ``address`` on, up to the first that is not attached. EFAULT when that is the first of all."""
        pieces = []
        while size > 0 and (attachment := self._at(address)):
            within = min(size, attachment.end - address)
            piece = attachment.memory.read(address - attachment.address, within)
            pieces.append(piece.ljust(within, b"\0"))
            address += within
            size -= within
        if size > 0 and not pieces:
            raise _unmapped(address)
        return b"".join(pieces)

    def write(self, address: int, data: bytes) -> int:
        """Write from ``address`` on, up to the first byte that cannot be; how many. EFAULT when that is the
        first of all.

        What is attached with SHM_RDONLY cannot be written.
        """
        done = 0
        while done < len(data) and (attachment := self._at(address + done)) and not attachment.memory.readonly:
            within = min(len(data) - done, attachment.end - address - done)
            attachment.memory.write(address + done - attachment.address, data[done : done + within])
            done += within
        if data and not done:
            raise _unmapped(address)
        return done

    def close(self) -> Iterator[None]:
        """Detach all, one at a step."""
        while self._attachments:
            self.detach(self._attachments[-1].address)
            yield

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


def _unmapped(address: int) -> SynosError:
    return SynosError(
        errno.EFAULT, f"nothing is attached at {address:#x}, or not for writing; see attach beside this file"
    )
