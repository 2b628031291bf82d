"""``shm/``: the host's System V segments as files of a fixed size, whoever made them.

``sysv/<shmid>`` and ``key/0x<key>`` are one file, the segment's bytes. Opened for writing, it is attached for as long
as it is open; opened read-only, it is attached during each read alone. A read ends at the segment's end, a write that
reaches it is short, and one behind it is ENOSPC, as on a device. ``>`` truncates nothing; to clear a segment, write
zeros.

Creating a file in ``key/`` reserves the name for its user; ``truncate -s`` or the first write gives the size and makes
the segment, which then keeps it: what is written in several pieces needs the truncate first.

Looking leaves a trace that the host gives no way around: atime, dtime, and its own lpid (not the one shown here).
"""

import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EIDRM, EINVAL, ENOENT, ENOSPC
from functools import partial

from synosfs.errors import SynosError, WouldBlock
from synosfs.fs import orphans, removed, sysv, uses
from synosfs.fs.ctl import CtlFile
from synosfs.fs.memory import apart, copied
from synosfs.fs.node import FOREVER, Attributes, Directory, Handle, Node, Who, credentials_of, no_such, writes
from synosfs.fs.session import open_caller
from synosfs.host import abi, rights
from synosfs.host.credentials import Credentials
from synosfs.ipc import sysv_shm
from synosfs.ipc.change import Change
from synosfs.ipc.sysv_shm import Segment, SegmentStatus
from synosfs.kernel import Kernel
from synosfs.process.address_space import AddressSpace
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Octal, Request
from synosfs.syscall_gate.spec import row

#: The most names without a size that one user may hold; the oldest is forgotten.
_MOST_NEW = 64


@dataclass(frozen=True)
class SegmentFile(Node):
    """One segment."""

    kernel: Kernel
    shmid: int
    seen: sysv.Seen = sysv.Seen.AS_ALL

    def attributes(self, who: Who) -> Attributes:
        status = self._status()
        # mtime is ctime: the host keeps no time of the last write, and looking, which sets dtime, is no change.
        return sysv.attributes(
            status, self.seen, who, size=status.segsz, atime=status.atime, mtime=status.ctime, ctime=status.ctime
        )

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if writes(flags):
            return await _attached(self.kernel, open_caller(self.kernel, who, flags, inode), self.shmid)
        credentials = credentials_of(who)
        with rights.acting_as(credentials):
            size = Segment(self.shmid).status().segsz
        return _Look(self.kernel, credentials, Segment(self.shmid), size)

    async def change(self, change: Change, who: Who) -> None:
        # A shell's > truncates before it writes, and truncating to the size it has is no change.
        if change.size and change.size != self._status().segsz:
            raise SynosError(EINVAL, "a segment keeps the size that it was made with")
        await _SEGMENTS.change_owner(self.kernel, self.shmid, change, who)

    def xattrs(self, who: Who) -> Mapping[str, str]:
        status = self.kernel.ipc.segment_with_true_pids(self._status())
        fields = ("shmid", "cuid", "cgid", "cpid", "lpid", "nattch", "atime", "dtime", "ctime")
        shown = {name: str(getattr(status, name)) for name in fields}
        return {"key": f"{status.key:#x}", **shown, "status": _state(status)}

    def _status(self) -> SegmentStatus:
        return sysv.existing(Segment(self.shmid).status_any)


class _Look(Handle):
    """Reads, and has the segment attached only meanwhile, so that a removed one lives no longer than a read.

    ``size`` is the segment's when it was opened. EIDRM: it has been removed since.
    """

    def __init__(self, kernel: Kernel, credentials: Credentials, segment: Segment, size: int) -> None:
        self._kernel = kernel
        self._credentials = credentials
        self._segment = segment
        self._size = size

    async def read(self, offset: int, size: int) -> bytes:
        if offset >= self._size:
            return b""
        shmid = self._segment.shmid
        try:
            self._kernel.ipc.was("shm_used", shmid, self._segment.status_any().lpid)
            if self._size <= sysv_shm.AT_ONCE:
                with rights.acting_as(self._credentials), suppress(WouldBlock):
                    return self._segment.read_nowait(offset, size)
            assert self.account is not None
            read = partial(self._segment.read_blocking, offset, size)
            return await apart(self._kernel, self.account, self._credentials, read)
        except SynosError as error:
            if error.errno == EINVAL:
                raise SynosError(EIDRM, f"segment {shmid} was removed") from None
            raise


class _Endpoint(Handle):
    """Takes part: attached with the caller's rights from open to close, in an address space of its own."""

    def __init__(self, kernel: Kernel, caller: Caller, address: int) -> None:
        self._kernel = kernel
        self._caller = caller
        self._address = address
        self._memory = next(iter(caller.address_space)).memory

    async def read(self, offset: int, size: int) -> bytes:
        within = self._memory.within(offset, size)
        return await copied(self._kernel, self._caller, self._address + offset, within)

    async def write(self, offset: int, data: bytes) -> int:
        room = self._memory.size - offset
        if room <= 0 and data:
            raise SynosError(ENOSPC, f"segment {self._memory.shmid} ends at byte {self._memory.size}")
        piece = data if len(data) <= room else data[:room]
        request = Request("process_vm_writev", [self._caller.process.pid, piece, self._address + offset])
        return (await self._kernel.dispatcher.called(self._caller, request)).ret

    async def close(self) -> None:
        await self._kernel.dispatcher.call(self._caller, Request("shmdt", [self._address]))


async def _attached(kernel: Kernel, caller: Caller, shmid: int) -> _Endpoint:
    caller.space = AddressSpace(caller.process.address_space.used, caller.process.account)
    reply = await kernel.dispatcher.called(caller, Request("shmat", [shmid]))
    return _Endpoint(kernel, caller, int(reply.ret))


# --- segments that have a name and no size yet -----------------------------------------------------------------------


@dataclass(eq=False)
class NewSegment:
    """A key whose segment is yet to be made: by whom, and once it is made, its id."""

    key: int
    mode: int
    uid: int
    gid: int
    since_ns: int = field(default_factory=time.time_ns)
    shmid: int | None = None


class NewSegments:
    """The new segments of a mount. Each user sees their own."""

    def __init__(self) -> None:
        self._of_user: dict[int, dict[int, NewSegment]] = {}

    def of(self, who: Who) -> dict[int, NewSegment]:
        """By key, the oldest first."""
        return self._of_user.get(who.uid, {})

    def add(self, new: NewSegment) -> None:
        held = self._of_user.setdefault(new.uid, {})
        held[new.key] = new
        if len(held) > _MOST_NEW:
            del held[next(iter(held))]

    def drop(self, uid: int, key: int) -> bool:
        """Forget it; whether there was one."""
        held = self._of_user.get(uid, {})
        found = held.pop(key, None)
        if not held:
            self._of_user.pop(uid, None)
        return found is not None


@dataclass(frozen=True)
class NewSegmentFile(Node):
    """A new segment until it is made, and for those who have it open then, the segment."""

    kernel: Kernel
    registry: NewSegments
    new: NewSegment

    def attributes(self, who: Who) -> Attributes:
        made, new = self._made(), self.new
        if made is not None:
            return made.attributes(who)
        times = (new.since_ns, new.since_ns, new.since_ns)
        return Attributes(stat.S_IFREG | new.mode, new.uid, new.gid, 0, *times)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        made = self._made()
        if made is not None:
            return await made.open(flags, who, inode)
        return _NewEndpoint(self, open_caller(self.kernel, who, flags, inode))

    async def change(self, change: Change, who: Who) -> None:
        made = self._made()
        if made is not None:
            await made.change(change, who)
        elif change.uid is not None or change.gid is not None:
            raise SynosError(EINVAL, "the segment is not made yet: give it a size with truncate -s, then an owner")
        else:
            if change.mode is not None:
                self.new.mode = change.mode & 0o777
            if change.size:
                await self.make(open_caller(self.kernel, who), change.size)

    async def make(self, caller: Caller, size: int) -> int:
        """Make the segment, unless it is made already; its id. EEXIST: somebody else made one of this key meanwhile."""
        new = self.new
        if new.shmid is None:
            request = Request("shmget", [new.key, size, abi.IPC_CREAT | abi.IPC_EXCL | new.mode])
            new.shmid = (await self.kernel.dispatcher.called(caller, request)).ret
            self.registry.drop(new.uid, new.key)
        return new.shmid

    def _made(self) -> SegmentFile | None:
        return None if self.new.shmid is None else SegmentFile(self.kernel, self.new.shmid)


class _NewEndpoint(Handle):
    """An open new segment: empty, until it is made by a truncate or by the first write, whose end is its size."""

    def __init__(self, file: NewSegmentFile, caller: Caller) -> None:
        self._file = file
        self._caller = caller
        self._endpoint: _Endpoint | None = None

    async def read(self, offset: int, size: int) -> bytes:
        if self._file.new.shmid is None:
            return b""
        return await (await self._attached(0)).read(offset, size)

    async def write(self, offset: int, data: bytes) -> int:
        return await (await self._attached(offset + len(data))).write(offset, data)

    async def close(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.close()

    async def _attached(self, size: int) -> _Endpoint:
        if self._endpoint is None:
            shmid = await self._file.make(self._caller, size)
            self._endpoint = await _attached(self._file.kernel, self._caller, shmid)
        return self._endpoint


@dataclass(frozen=True)
class SegmentsByKey(sysv.ByKey):
    """``key/``: the segments that have a key, and the caller's new ones."""

    registry: NewSegments

    def lookup(self, name: str, who: Who) -> Node:
        key = sysv.key_named(name)
        try:
            found = super().lookup(name, who)
        except SynosError as error:
            new = self.registry.of(who).get(key)
            if error.errno != ENOENT or new is None:
                raise
            return NewSegmentFile(self.kernel, self.registry, new)
        self.registry.drop(who.uid, key)
        return found

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        names = set()
        for name, node in super().entries(who):
            names.add(name)
            yield name, node
        for key, new in list(self.registry.of(who).items()):
            if (name := f"{key & 0xFFFFFFFF:#x}") not in names:
                yield name, NewSegmentFile(self.kernel, self.registry, new)

    async def create(self, name: str, mode: int, who: Who) -> Node:
        key = sysv.key_named(name)
        if key == abi.IPC_PRIVATE:
            raise SynosError(EINVAL, "key 0 is IPC_PRIVATE, which names no segment")
        new = NewSegment(key, mode & 0o777, who.uid, who.gid)
        self.registry.add(new)
        return NewSegmentFile(self.kernel, self.registry, new)

    async def unlink(self, name: str, who: Who) -> None:
        try:
            await super().unlink(name, who)
        except SynosError as error:
            if error.errno != ENOENT or not self.registry.drop(who.uid, sysv.key_named(name)):
                raise


# --- shm/ and shm/ctl ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link(Node):
    """A symbolic link that never changes."""

    target: str

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFLNK | 0o777, size=len(self.target))

    def readlink(self, who: Who) -> str:
        return self.target


def _file(kernel: Kernel, shmid: int, selection: str | None, seen: sysv.Seen) -> Node:
    if selection is not None:
        raise no_such(f"{shmid}@{selection}")
    return SegmentFile(kernel, shmid, seen)


def _create(key: int, size: int, mode: int) -> Request:
    return sysv.request("shmget", key, size, abi.IPC_CREAT | abi.IPC_EXCL | mode & 0o777)


def _control(shmid: int, command: int, **given: int | None) -> Request:
    return sysv.request("shmctl", shmid, command, **given)


_SEGMENTS = sysv.Family(
    table="shm",
    file=_file,
    status=lambda shmid: Segment(shmid).status_any(),
    find=lambda key: sysv_shm.find(key).shmid,
    create=lambda key, mode: _create(key, 0, mode),  # a new one has no size yet: SegmentsByKey makes it otherwise
    control=_control,
)

_HEADER = (
    *("key", "shmid", "uid", "gid", "perms", "segsz", "nattch", "status"),
    *("cpid", "lpid", "atime", "dtime", "ctime", "cuid", "cgid", "rss", "swap", *sysv.USED, "owners"),
)


def _state(status: SegmentStatus) -> str:
    """As ``ipcs`` has it: ``dest`` goes with the last detach, ``locked`` is kept out of swap."""
    words = [word for word, bit in (("dest", abi.SHM_DEST), ("locked", abi.SHM_LOCKED)) if status.mode & bit]
    return ",".join(words) or "-"


def _rows(kernel: Kernel) -> Iterable[tuple[object, ...]]:
    for listed in sysv_shm.listing():
        status = kernel.ipc.segment_with_true_pids(listed.status)
        shown = status._asdict() | {
            "key": f"{status.key:#x}",
            "perms": Octal(status.mode & 0o777),
            "status": _state(status),
            "rss": listed.rss,
            "swap": listed.swap,
            "owners": sysv.owners(kernel, _SEGMENTS, status.shmid),
            **sysv.used(kernel.ipc.usages.of("shm", status.shmid)),
        }
        yield tuple(shown[name] for name in _HEADER)


def _commanded(command: int, shmid: int) -> Request:
    return _control(shmid, command)


def _set(shmid: int, uid: int | None, gid: int | None, mode: int | None) -> Request:
    return _control(shmid, abi.IPC_SET, uid=uid, gid=gid, mode=mode)


_COMMANDS = {
    command.name: command
    for command in (
        row(None, "create", _create, "key:key size:size_t mode:mode=0600", help="make a segment; the reply is its id"),
        row(None, "remove", partial(_commanded, abi.IPC_RMID), "shmid:int", help="remove it, with its last detach"),
        row(None, "set", _set, "shmid:int uid:uid? gid:uid? mode:mode?", help="change owner or mode"),
        row(None, "lock", partial(_commanded, abi.SHM_LOCK), "shmid:int", help="keep it out of swap"),
        row(None, "unlock", partial(_commanded, abi.SHM_UNLOCK), "shmid:int", help="let it be swapped again"),
        *sysv.owning("shm", "shmid"),
    )
}


def directory(kernel: Kernel) -> Directory:
    """``shm/``."""
    commands = _COMMANDS | {"reap": orphans.command(kernel, uses.SEGMENTS)}
    return Directory(
        {
            "ctl": CtlFile(kernel, _HEADER, lambda _who: _rows(kernel), commands),
            "orphans": orphans.file(kernel, uses.SEGMENTS),
            "posix": Link("/dev/shm"),
            "removed": removed.file(kernel, "shm"),
            "sysv": sysv.ById(kernel, _SEGMENTS),
            "key": SegmentsByKey(kernel, _SEGMENTS, NewSegments()),
        }
    )
