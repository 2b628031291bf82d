"""``sem/``: the host's System V semaphore sets as files, whoever made them.

``sysv/<semid>`` and ``key/0x<key>`` are sets. Reading shows the values on one line and changes nothing; each line
written is one semop, made by the caller: ``0:-1 1:+1`` takes one of semaphore 0 and gives one to 1, both or neither,
and waits as semop does. An operation without flags has SEM_UNDO, so that what a shell takes comes back when the shell
dies; an operation with flags has these alone (``0:-1:0`` is for good). A file made in ``key/`` is a set of one
semaphore with the value 0, as semget(2) makes it; ``create`` in ``ctl`` makes others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from errno import EINVAL

from synosfs.errors import SynosError
from synosfs.fs import orphans, posix_sem, removed, sysv, uses
from synosfs.fs.ctl import CtlFile
from synosfs.fs.lines import LineHandle
from synosfs.fs.node import Attributes, Directory, Handle, Node, Who, credentials_of, no_such, writes
from synosfs.fs.session import open_caller
from synosfs.host import abi, rights
from synosfs.host.credentials import Credentials
from synosfs.ipc import sysv_sem
from synosfs.ipc.change import Change
from synosfs.ipc.sysv_sem import SemaphoreSet, SetStatus
from synosfs.kernel import Kernel
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.converters import BadArgument
from synosfs.syscall_gate.kinds import semaphore_operation
from synosfs.syscall_gate.readiness import SemaphoreSource, Source
from synosfs.syscall_gate.record import Request
from synosfs.syscall_gate.spec import row
from synosfs.syscall_gate.text import joined


@dataclass(frozen=True)
class SetFile(Node):
    """One semaphore set."""

    kernel: Kernel
    semid: int
    seen: sysv.Seen = sysv.Seen.AS_ALL

    fresh = True  # an operation blocks, and must not block the one that would wake it
    steady = True

    def attributes(self, who: Who) -> Attributes:
        status = self._status()
        mtime = max(status.otime, status.ctime)
        return sysv.attributes(
            status, self.seen, who, size=self._size(status, who), atime=0, mtime=mtime, ctime=status.ctime
        )

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            credentials = credentials_of(who)
            with rights.acting_as(credentials):
                SemaphoreSet(self.semid).status()  # EACCES
            return _Values(SemaphoreSet(self.semid), credentials)
        return _Operations(self.kernel, open_caller(self.kernel, who, flags, inode), SemaphoreSet(self.semid))

    async def change(self, change: Change, who: Who) -> None:
        if change.size:
            raise SynosError(EINVAL, "a set's values are not changed by truncation; write operations, or use sem/ctl")
        await SETS.change_owner(self.kernel, self.semid, change, who)

    def xattrs(self, who: Who) -> Mapping[str, str]:
        status = self._status()
        fields = ("nsems", "otime", "ctime", "cuid", "cgid")
        return {
            "key": f"{status.key:#x}",
            **{name: str(getattr(status, name)) for name in fields},
        }

    def _status(self) -> SetStatus:
        return sysv.existing(SemaphoreSet(self.semid).status_any)

    def _size(self, status: SetStatus, who: Who) -> int:
        """The length of the text, as tar(1) wants it; 0 for those who do not plainly have the right to read it."""
        owner = who.uid in (status.uid, status.cuid) and status.mode & 0o400
        if who.uid and not owner and status.mode & 0o444 != 0o444:
            return 0
        try:
            values = SemaphoreSet(self.semid).values(status.nsems)
        except SynosError:
            return 0
        return len(_text(values))


class _Values(Handle):
    """Shows the values as they are when a reader begins at the front, with the rights of the opener."""

    def __init__(self, semaphores: SemaphoreSet, credentials: Credentials) -> None:
        self._semaphores = semaphores
        self._credentials = credentials
        self._shown = b""

    async def read(self, offset: int, size: int) -> bytes:
        if offset == 0 or not self._shown:
            with rights.acting_as(self._credentials):
                self._shown = _text(self._semaphores.values())
        return self._shown[offset : offset + size]


class _Operations(LineHandle):
    """Takes part: each line of a write is one semop; reading shows the values."""

    def __init__(self, kernel: Kernel, caller: Caller, semaphores: SemaphoreSet) -> None:
        super().__init__(kernel, caller)
        self._semaphores = semaphores
        self._values = _Values(semaphores, caller.credentials)

    def requests_of(self, line: bytes) -> list[Request]:
        try:
            operations = [semaphore_operation(word, "SEM_UNDO") for word in line.split()]
        except BadArgument as problem:
            raise SynosError(EINVAL, f"a semaphore set {problem}") from None
        return [Request("semop", [self._semaphores.semid, operations])] if operations else []

    async def read(self, offset: int, size: int) -> bytes:
        return await self._values.read(offset, size)

    def source(self) -> Source:
        return SemaphoreSource(self._caller.parking, self._caller.credentials, self._semaphores)


def _text(values: list[int]) -> bytes:
    return joined(values).replace(b",", b" ") + b"\n"


def _file(kernel: Kernel, semid: int, selection: str | None, seen: sysv.Seen) -> Node:
    if selection is not None:
        raise no_such(f"{semid}@{selection}")
    return SetFile(kernel, semid, seen)


def _control(semid: int, command: int, **given: int | None) -> Request:
    return sysv.request("semctl", semid, 0, command, **given)


SETS = sysv.Family(
    table="sem",
    file=_file,
    status=lambda semid: SemaphoreSet(semid).status_any(),
    find=lambda key: sysv_sem.find(key).semid,
    create=lambda key, mode: sysv.request("semget", key, 1, abi.IPC_CREAT | mode),
    control=_control,
)

# --- sem/ctl ---------------------------------------------------------------------------------------------------------

_HEADER = ("key", "semid", "uid", "gid", "perms", "nsems", "otime", "ctime", "cuid", "cgid", *sysv.USED, "owners")


def _create(key: int, nsems: int, mode: int, init: list[int] | None) -> Request:
    return sysv.request("semget", key, nsems, abi.IPC_CREAT | abi.IPC_EXCL | mode & 0o777, init=init)


def _remove(semid: int) -> Request:
    return _control(semid, abi.IPC_RMID)


def _set(semid: int, uid: int | None, gid: int | None, mode: int | None) -> Request:
    return _control(semid, abi.IPC_SET, uid=uid, gid=gid, mode=mode)


def _setval(semid: int, num: int, value: int) -> Request:
    return sysv.request("semctl", semid, num, abi.SETVAL, value=value)


def _setall(semid: int, values: list[int]) -> Request:
    return sysv.request("semctl", semid, 0, abi.SETALL, value=values)


# fmt: off
_COMMANDS = {
    command.name: command
    for command in (
        row(None, "create", _create, "key:key=IPC_PRIVATE nsems:int=1 mode:mode=0600 init:values?",
            help="make a set; the reply is its id; init=1,2,3 gives the values"),
        row(None, "remove", _remove, "semid:int", help="remove a set, waking all who wait in it with EIDRM"),
        row(None, "set", _set, "semid:int uid:uid? gid:uid? mode:mode?", help="change owner or mode"),
        row(None, "setval", _setval, "semid:int num:int value:int", help="set one value, clearing undo entries for it"),
        row(None, "setall", _setall, "semid:int values:values", help="set all values v,v,v, clearing undo entries"),
        *sysv.owning("sem", "semid"),
    )
}
# fmt: on


def directory(kernel: Kernel) -> Directory:
    """``sem/``."""

    def status(semid: int) -> SetStatus:
        return SemaphoreSet(semid).status_any()

    commands = _COMMANDS | {"reap": orphans.command(kernel, uses.SETS)}
    return Directory(
        {
            "ctl": CtlFile(kernel, _HEADER, lambda _who: sysv.rows(kernel, _HEADER, SETS, status), commands),
            "orphans": orphans.file(kernel, uses.SETS),
            "sysv": sysv.ById(kernel, SETS),
            "key": sysv.ByKey(kernel, SETS),
            "posix": posix_sem.directory(kernel),
            "removed": removed.file(kernel, "sem"),
        }
    )
