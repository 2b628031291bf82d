"""System V shared memory: the host's own segments, by id.

A ``Segment`` holds an id and nothing else, so it can never be stale: each method is one host call, made with the
calling thread's credentials, and an id that is gone is the host's EINVAL. ``Segment.attach`` maps it into the daemon,
at an address that only this layer knows, and gives an ``Attached``, which reads and writes the bytes until it is
detached.

The daemon's address space is one for all callers: ``attach`` keeps within its part of it (ENOMEM). Whoever copies in a
thread, the memory stays where it is until the copy is done, though it be detached meanwhile.

The host gives memory back page by page, with a segment's removal or last detach (0.2 s a GiB): what does that to a
segment above ``AT_ONCE`` bytes runs in a thread.
"""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import shm as host_shm
from synosfs.host.abi import (
    IPC_INFO,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    SHM_LOCK,
    SHM_RDONLY,
    SHM_STAT,
    SHM_STAT_ANY,
    SHM_UNLOCK,
)
from synosfs.host.errors import explained, explaining
from synosfs.host.shm import SHMID_DS
from synosfs.ipc.sysv import Limits, in_its_slot, new_perm, refuse_private, table_of

#: The most attachments at once (vm.max_map_count is 65530 by default, and the daemon has other maps), and the most
#: bytes (the address space has 128 TiB; a segment without reservation may claim any size).
_MOST_ATTACHED = 32_768
_MOST_BYTES = 64 << 40

#: A segment up to this size is removed, unlocked or detached at once: 256 pages, 0.1 ms.
AT_ONCE = 1 << 20


class SegmentStatus(NamedTuple):
    """``struct shmid_ds`` with the C names without prefix; times in seconds, the size in bytes."""

    shmid: int
    key: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    mode: int
    seq: int
    segsz: int
    atime: int
    dtime: int
    ctime: int
    cpid: int
    lpid: int
    nattch: int


@dataclass(frozen=True, slots=True)
class Segment:
    """The segment with this id."""

    shmid: int

    def attach(self, *, readonly: bool = False) -> "Attached":
        """shmat(2). EINVAL: no such id; EACCES; ENOMEM; EIDRM: being removed at this moment."""
        with explaining(_ATTACH, shmid=self.shmid):
            if _attached.count >= _MOST_ATTACHED:
                raise SynosError(errno.ENOMEM)
            address = host_shm.shmat(self.shmid, SHM_RDONLY if readonly else 0)
            try:
                # Asked now, the answer is this segment's: an attached one keeps its id.
                size = self.status_any().segsz
                if _attached.size + size > _MOST_BYTES:
                    raise SynosError(errno.ENOMEM)
            except SynosError:
                host_shm.shmdt(address)
                raise
        return Attached(self.shmid, address, size, readonly)

    def read_nowait(self, offset: int, size: int) -> bytes:
        """Bytes of it, attached for that long. WouldBlock: they are not in memory, or it is above ``AT_ONCE`` bytes."""
        attached = self.attach(readonly=True)
        try:
            wanted = attached.within(offset, size)
            if wanted and (attached.size > AT_ONCE or not attached.is_resident(offset, wanted)):
                raise WouldBlock(errno.EAGAIN, f"pages of segment {self.shmid} are not in memory")
            return attached.read_nowait(offset, wanted) if wanted else b""
        finally:
            attached.detach()

    def read_blocking(self, offset: int, size: int) -> bytes:
        """As ``read_nowait``, of any segment."""
        attached = self.attach(readonly=True)
        try:
            return attached.read_blocking(offset, size)
        finally:
            attached.detach()

    def status(self) -> SegmentStatus:
        """shmctl(IPC_STAT): EACCES without read permission."""
        buffer = SHMID_DS.buffer()
        self._control(IPC_STAT, buffer)
        return SegmentStatus(self.shmid, *SHMID_DS.unpack(buffer))

    def status_any(self) -> SegmentStatus:
        """The status as ``ipcs`` shows it to everybody, whatever the permissions (SHM_STAT_ANY). EINVAL: no such id."""
        found = in_its_slot(self.shmid, lambda slot: stat_slot(slot, SHM_STAT_ANY))
        if found is None:
            raise explained(SynosError(errno.EINVAL), _CONTROL, shmid=self.shmid)
        return found

    def set(self, uid: int | None = None, gid: int | None = None, mode: int | None = None) -> None:
        """shmctl(IPC_SET); what is None stays. EPERM: neither owner nor creator."""
        self._control(IPC_SET, SHMID_DS.buffer(**new_perm(self.status_any(), uid, gid, mode)))

    def remove(self) -> None:
        """shmctl(IPC_RMID): at once when nobody has it attached, else with the last detach. EPERM, EINVAL."""
        self._control(IPC_RMID)

    def remove_blocking(self) -> None:
        """As ``remove``, for one of any size."""
        with explaining(_CONTROL, shmid=self.shmid):
            host_shm.shmctl_blocking(self.shmid, IPC_RMID)

    def lock(self) -> None:
        """shmctl(SHM_LOCK): keep it out of swap. EPERM: not the owner; ENOMEM: above RLIMIT_MEMLOCK of the daemon."""
        self._control(SHM_LOCK)

    def unlock(self) -> None:
        """shmctl(SHM_UNLOCK). EPERM: not the owner."""
        self._control(SHM_UNLOCK)

    def unlock_blocking(self) -> None:
        """As ``unlock``, for one of any size."""
        with explaining(_CONTROL, shmid=self.shmid):
            host_shm.shmctl_blocking(self.shmid, SHM_UNLOCK)

    def _control(self, command: int, buffer: Any = None) -> None:
        with explaining(_CONTROL, shmid=self.shmid):
            host_shm.shmctl(self.shmid, command, buffer)


class _Tally:
    """How much of the daemon's address space is segments; any thread may count, with the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.size = 0


_attached = _Tally()


class Attached:
    """One attachment of a segment to the daemon. ``size`` is the segment's, in bytes.

    The ``*_nowait`` ones are for what ``is_resident``, ``within`` the segment, in the thread that detaches; the others
    for any thread.
    """

    def __init__(self, shmid: int, address: int, size: int, readonly: bool) -> None:
        self.shmid = shmid
        self.size = size
        self.readonly = readonly
        self._address = address
        self._detached = False
        self._copies = 0
        with _attached.lock:
            _attached.count += 1
            _attached.size += size

    def within(self, offset: int, size: int) -> int:
        """How many of the bytes from ``offset`` on are before the segment's end."""
        return max(0, min(size, self.size - offset)) if offset >= 0 else 0

    def is_resident(self, offset: int, size: int) -> bool:
        """Whether the host has these bytes in memory, so that copying them takes nothing but that."""
        return host_shm.is_resident(self._address + offset, size)

    def read_nowait(self, offset: int, size: int) -> bytes:
        """The bytes from ``offset`` on. EIO: the host has no page for them."""
        try:
            return host_shm.read_nowait(self._address + offset, size)
        except SynosError as error:
            raise self._explained(error) from None

    def read_blocking(self, offset: int, size: int) -> bytes:
        """The bytes from ``offset`` on, up to the segment's end. EFAULT: it is detached; EIO."""
        with self._kept():
            try:
                return host_shm.read_blocking(self._address + offset, self.within(offset, size))
            except SynosError as error:
                raise self._explained(error) from None

    def write_nowait(self, offset: int, data: bytes) -> int:
        """Write; how many bytes. EIO: the host has no page."""
        try:
            return host_shm.write_nowait(self._address + offset, data)
        except SynosError as error:
            raise self._explained(error) from None

    def write_blocking(self, offset: int, data: bytes) -> int:
        """Write up to the segment's end; how many bytes. EACCES: attached read-only; EFAULT: it is detached; EIO."""
        with self._kept():
            try:
                return host_shm.write_blocking(self._address + offset, self._writable(offset, data))
            except SynosError as error:
                raise self._explained(error) from None

    def detach(self) -> None:
        """shmdt(2), once; again is nothing. Where a thread still copies, it is that thread that does it at its end."""
        with _attached.lock:
            last = not self._detached and not self._copies
            self._detached = True
        if last:
            self._unmap()

    def _writable(self, offset: int, data: bytes) -> bytes:
        if self.readonly:
            raise SynosError(errno.EACCES, f"segment {self.shmid} was attached with SHM_RDONLY")
        room = self.within(offset, len(data))
        return data if len(data) <= room else data[:room]

    def _unmap(self) -> None:
        if self.size <= AT_ONCE:
            host_shm.shmdt(self._address)
        else:
            host_shm.shmdt_blocking(self._address, self.size)
        with _attached.lock:
            _attached.count -= 1
            _attached.size -= self.size

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Attached for the length of the body: other maps of the daemon's could come to be at the address."""
        with _attached.lock:
            if self._detached:
                raise SynosError(errno.EFAULT, f"segment {self.shmid} was detached meanwhile")
            self._copies += 1
        try:
            yield
        finally:
            with _attached.lock:
                self._copies -= 1
                last = self._detached and not self._copies
            if last:
                self._unmap()

    def _explained(self, error: SynosError) -> SynosError:
        """The host says EFAULT of its own buffer, which is none of the caller's."""
        if error.errno != errno.EFAULT:
            return error
        return SynosError(errno.EIO, f"the host has no memory for this page of segment {self.shmid}")


# Why the host said no, in the man pages' words. One errno can have several causes: the sentence names each of them.
_ATTACH = {
    errno.EINVAL: "no segment {shmid}",
    errno.EACCES: "segment {shmid} does not let the caller read, or write and SHM_RDONLY is not given; see its mode",
    errno.ENOMEM: "no room for another attachment of segment {shmid}; detach some",
    errno.EIDRM: "segment {shmid} was removed",
}
_CONTROL = {
    errno.EINVAL: "no segment {shmid}",
    errno.EACCES: "segment {shmid} does not let the caller read; see its mode and owner",
    errno.EPERM: "the caller is neither owner nor creator of segment {shmid}, or may lock no memory",
    errno.ENOMEM: "locking segment {shmid} would exceed the daemon's limit of locked memory (ulimit -l)",
    errno.EIDRM: "segment {shmid} was removed",
}
_SLOT = {errno.EINVAL: "no segment in slot {slot}"}
_GET = {
    errno.EINVAL: "a size of {size} is 0 or above kernel.shmmax, or the segment with key {key:#x} is smaller",
    errno.ENOENT: "no segment has key {key:#x}; add IPC_CREAT to make it",
    errno.EEXIST: "a segment with key {key:#x} exists, and IPC_CREAT|IPC_EXCL asked for a new one",
    errno.EACCES: "the segment with key {key:#x} does not grant the caller the mode asked for",
    errno.ENOSPC: "kernel.shmmni segments or kernel.shmall pages exist already; remove some (see shm/ctl)",
    errno.ENOMEM: "the host has no memory for {size} bytes",
    errno.EPERM: "SHM_HUGETLB needs CAP_IPC_LOCK or a group in vm.hugetlb_shm_group",
}


def get(key: int, size: int, flags: int) -> Segment:
    """shmget(2): find or make the segment of ``key``. IPC_PRIVATE is always new."""
    with explaining(_GET, key=key & 0xFFFFFFFF, size=size):
        return Segment(host_shm.shmget(key, size, flags))


def find(key: int) -> Segment:
    """The segment of ``key``, whatever its permissions. ENOENT when there is none; IPC_PRIVATE names none."""
    refuse_private(key)
    return get(key, 0, 0)


def stat_slot(slot: int, command: int = SHM_STAT) -> SegmentStatus:
    """SHM_STAT, SHM_STAT_ANY: the segment in this slot of the kernel's table. EINVAL: none there; EACCES."""
    buffer = SHMID_DS.buffer()
    with explaining(_SLOT, slot=slot):
        shmid = host_shm.shmctl(slot, command, buffer)
    return SegmentStatus(shmid, *SHMID_DS.unpack(buffer))


def limits(command: int = IPC_INFO) -> Limits:
    """IPC_INFO: the system's limits, ``shmmax`` in bytes, ``shmall`` in pages. SHM_INFO: how many segments there are,
    and their pages in all, in memory, and swapped.
    """
    layout = host_shm.SHM_INFO if command == IPC_INFO else host_shm.SHM_USE
    buffer = layout.buffer()
    highest = host_shm.shmctl(0, command, buffer)
    return Limits(highest, layout.named(buffer))


class Listed(NamedTuple):
    """A segment as it is listed, with the bytes of it that are in memory and in swap."""

    status: SegmentStatus
    rss: int
    swap: int


def listing() -> Iterator[Listed]:
    """Every segment of the namespace in the kernel's order, whoever made it (``/proc/sysvipc/shm``)."""
    for line in table_of("shm"):
        fields = line.split()
        key, shmid, _, segsz, cpid, lpid, nattch, uid, gid, cuid, cgid, atime, dtime, ctime, rss, swap = map(
            int, fields
        )
        mode = int(fields[2], 8)
        perm = (shmid, key & 0xFFFFFFFF, uid, gid, cuid, cgid, mode, 0)
        yield Listed(SegmentStatus(*perm, segsz, atime, dtime, ctime, cpid, lpid, nattch), rss, swap)
