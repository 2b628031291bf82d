"""System V shared memory: the host's own segments, by id.

A ``Segment`` holds an id and nothing else, so it can never be stale: each method is one host call, made with the
calling thread's credentials, and an id that is gone is the host's EINVAL. ``Segment.attach`` maps it into the daemon,
at an address that only this layer knows, and gives an ``Attached``, which reads and writes the bytes until it is
detached.

The daemon's address space is one for all callers: ``attach`` keeps within its part of it (ENOMEM).
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from synosfs.errors import SynosError
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

    def lock(self) -> None:
        """shmctl(SHM_LOCK): keep it out of swap. EPERM: not the owner; ENOMEM: above RLIMIT_MEMLOCK of the daemon."""
        self._control(SHM_LOCK)

    def unlock(self) -> None:
        """shmctl(SHM_UNLOCK). EPERM: not the owner."""
        self._control(SHM_UNLOCK)

    def _control(self, command: int, buffer: Any = None) -> None:
        with explaining(_CONTROL, shmid=self.shmid):
            host_shm.shmctl(self.shmid, command, buffer)


class _Tally:
    """How much of the daemon's address space is segments. Used from the trio thread only."""

    count = 0
    size = 0


_attached = _Tally()


class Attached:
    """One attachment of a segment to the daemon. ``size`` is the segment's, in bytes; 0 once it is detached."""

    def __init__(self, shmid: int, address: int, size: int, readonly: bool) -> None:
        self.shmid = shmid
        self.size = size
        self.readonly = readonly
        self._address = address
        _attached.count += 1
        _attached.size += size

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from ``offset`` on, up to the segment's end. EIO: the host has no page for them."""
        size = min(size, self.size - offset)
        if offset < 0 or size <= 0:
            return b""
        with self._no_page_is_eio():
            return host_shm.read(self._address + offset, size)

    def write(self, offset: int, data: bytes) -> int:
        """Write up to the segment's end; how many bytes. EACCES: attached read-only; EIO: the host has no page."""
        if self.readonly:
            raise SynosError(errno.EACCES, f"segment {self.shmid} was attached with SHM_RDONLY")
        room = self.size - offset
        if offset < 0 or room <= 0:
            return 0
        with self._no_page_is_eio():
            return host_shm.write(self._address + offset, data if len(data) <= room else data[:room])

    def detach(self) -> None:
        """shmdt(2), once; again is nothing."""
        if self._address:
            host_shm.shmdt(self._address)
            _attached.count -= 1
            _attached.size -= self.size
            self._address = self.size = 0

    @contextmanager
    def _no_page_is_eio(self) -> Iterator[None]:
        """The host says EFAULT of its own buffer, which is none of the caller's."""
        try:
            yield
        except SynosError as error:
            if error.errno != errno.EFAULT:
                raise
            raise SynosError(errno.EIO, f"the host has no memory for this page of segment {self.shmid}") from None


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
