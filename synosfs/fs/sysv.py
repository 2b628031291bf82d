"""What the directories of the System V families (``msgq/``, ``sem/``, ``shm/``) have in common.

``sysv/<id>`` and ``key/0x<key>`` lead to an object of the host, whoever made it; a *selection* may stand after the name
and an ``@``, where a family has one. A ``Family`` says how to find, make and remove its objects, and what file shows
one; ``ById`` and ``ByKey`` are the two directories, ``rows`` the table of ``ctl``.
"""

import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Flag, auto
from errno import EIDRM, EINVAL, ENOENT, ESTALE
from functools import partial
from typing import Any, Protocol, TypeVar

from synosfs.errors import SynosError
from synosfs.fs.node import FOREVER, Attributes, Node, Who, credentials_of, no_such
from synosfs.fs.session import call_as
from synosfs.host.abi import IPC_PRIVATE, IPC_RMID, IPC_SET
from synosfs.host.credentials import CAP_DAC_OVERRIDE
from synosfs.ipc.change import Change
from synosfs.ipc.sysv import Listed, key_in, listing
from synosfs.ipc.usage import Usage
from synosfs.kernel import Kernel
from synosfs.syscall_gate.record import Octal, Request
from synosfs.syscall_gate.spec import Row, row

T = TypeVar("T")

NS = 1_000_000_000


class Status(Protocol):
    """The fields of ``struct ipc_perm`` that every family's status has; the key as an unsigned number."""

    @property
    def key(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def cuid(self) -> int: ...
    @property
    def cgid(self) -> int: ...
    @property
    def mode(self) -> int: ...
    def _asdict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Family:
    """One family of objects: how each is found, and the calls that make, change and remove one.

    ``table`` is the family's name in ``/proc/sysvipc``. ``file`` makes the node of (kernel, id, selection, as whom it
    is seen), the selection being None without an ``@``; it raises ENOENT for one that means nothing. ``status`` is of
    an id. ``find`` gives the id of a key.
    ``create`` is of a key and a mode, finding the object when it exists; ``control`` of an id, a command of ``*ctl``
    and its named arguments.
    """

    table: str
    file: Callable[[Kernel, int, str | None, "Seen"], Node]
    status: Callable[[int], Status]
    find: Callable[[int], int]
    create: Callable[[int, int], Request]
    control: Callable[..., Request]

    async def change_owner(self, kernel: Kernel, number: int, change: Change, who: Who) -> None:
        """Carry chmod and chown out, as IPC_SET."""
        if change.mode is not None or change.uid is not None or change.gid is not None:
            mode = None if change.mode is None else change.mode & 0o777
            await call_as(kernel, who, self.control(number, IPC_SET, uid=change.uid, gid=change.gid, mode=mode))


@dataclass(frozen=True)
class ById(Node):
    """``sysv/``: every object of the namespace by id."""

    kernel: Kernel
    family: Family

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        # Not sticky: who may remove an object is the host's to say, and the kernel here does not know its creator.
        return Attributes(stat.S_IFDIR | 0o777)

    def lookup(self, name: str, who: Who) -> Node:
        return self._seen(*self._named(name), who)

    def _seen(self, number: int, selection: str | None, who: Who) -> Node:
        status = existing(lambda: self.family.status(number))
        return self.family.file(self.kernel, number, selection, seen_by(status, who))

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        return (
            (str(listed.number), self.family.file(self.kernel, listed.number, None, Seen.AS_ALL))
            for listed in look_at_all(self.kernel, self.family)
        )

    async def unlink(self, name: str, who: Who) -> None:
        number, _ = self._named(name)
        try:
            await call_as(self.kernel, who, self.family.control(number, IPC_RMID))
        except SynosError as error:
            raise SynosError(ENOENT, error.message) if error.errno in (EINVAL, EIDRM) else error from None

    def _named(self, name: str) -> tuple[int, str | None]:
        """The id and the selection that a name means."""
        base, selection = split_selection(name)
        if not re.fullmatch(r"0|[1-9][0-9]{0,9}", base) or (number := int(base)) > 0x7FFFFFFF:
            raise no_such(name)
        return number, selection


@dataclass(frozen=True)
class ByKey(ById):
    """``key/``: the objects that have a key, by key. Creating a file here makes the object."""

    keeps_names = False  # a key comes to mean another object

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        return (
            (f"{listed.key:#x}", self.family.file(self.kernel, listed.number, None, Seen.AS_ALL))
            for listed in look_at_all(self.kernel, self.family)
            if listed.key
        )

    async def create(self, name: str, mode: int, who: Who) -> Node:
        base, selection = split_selection(name)
        self.family.file(
            self.kernel, 0, selection, Seen.AS_ALL
        )  # a selection that means nothing is refused before anything is made
        key = key_named(base)
        if key == IPC_PRIVATE:
            raise SynosError(EINVAL, "key 0 is IPC_PRIVATE, which names nothing; write 'create' to ctl")
        reply = await call_as(self.kernel, who, self.family.create(key, mode & 0o777))
        return self._seen(reply.ret, selection, who)

    def _named(self, name: str) -> tuple[int, str | None]:
        base, selection = split_selection(name)
        return self.family.find(key_named(base)), selection


def split_selection(name: str) -> tuple[str, str | None]:
    """``base@selection``; None without an ``@``."""
    base, at, selection = name.partition("@")
    return base, selection if at else None


def key_named(name: str) -> int:
    """A key as it stands in a name: hexadecimal after 0x; as the signed number that the host takes."""
    key = key_in(name)
    if key is None:
        raise SynosError(ENOENT, f"a key is named 0x and up to 8 hexadecimal digits, not {name}")
    return key


class Seen(Flag):
    """As whom somebody sees an object: its creator, one of its creator's group, or as everybody does."""

    AS_ALL = 0
    AS_CREATOR = auto()
    AS_GROUP = auto()


def seen_by(status: Status, who: Who) -> Seen:
    """The kernel checks a file's mode against its owner and group, and knows no creator, who has the owner's rights,
    nor a creator's group (sysvipc(7)): to these, where they are others, the creator is shown as the owner. What the
    kernel keeps of that must not reach anybody else, so it is another file, with an inode number of its own. Who may
    override modes sees what is.
    """
    if status.cuid == status.uid and status.cgid == status.gid:
        return Seen.AS_ALL
    rights = credentials_of(who)
    if rights.capabilities & CAP_DAC_OVERRIDE:
        return Seen.AS_ALL
    groups = (rights.gid, *rights.groups)
    seen = Seen.AS_CREATOR if rights.uid == status.cuid != status.uid else Seen.AS_ALL
    return seen | (Seen.AS_GROUP if status.cgid in groups and status.gid not in groups else Seen.AS_ALL)


def attributes(status: Status, seen: Seen, who: Who, *, size: int, atime: int, mtime: int, ctime: int) -> Attributes:
    """What stat(2) shows of an object that was looked up as ``seen``; times in seconds.

    ESTALE: it was seen as all do, and by now ``who`` is to see it otherwise; the kernel then looks the name up again.
    """
    if not seen and seen_by(status, who):
        raise SynosError(ESTALE)
    uid = status.cuid if Seen.AS_CREATOR in seen else status.uid
    gid = status.cgid if Seen.AS_GROUP in seen else status.gid
    return Attributes(stat.S_IFREG | status.mode & 0o777, uid, gid, size, atime * NS, mtime * NS, ctime * NS)


def existing(status: Callable[[], T]) -> T:
    """The status of an object that a name led to. ENOENT when it is gone."""
    try:
        return status()
    except SynosError as error:
        raise SynosError(ENOENT, error.message) from None


def look_at_all(kernel: Kernel, family: Family) -> Iterator[Listed]:
    """Every object of the family; what a look before this one showed and this one does not, is noted as gone."""
    return kernel.ipc.removals.looking(family.table, listing(family.table))


def rows(
    kernel: Kernel, header: tuple[str, ...], family: Family, status: Callable[[int], Status]
) -> Iterable[tuple[object, ...]]:
    """The lines of a ``ctl`` table: for each object the fields of its status that ``header`` names, its usage
    and its owners.
    """
    for listed in look_at_all(kernel, family):
        try:
            found = status(listed.number)
        except SynosError:
            continue  # removed since it was listed
        shown = found._asdict() | {
            "key": f"{found.key:#x}",
            "perms": Octal(found.mode & 0o777),
            "owners": owners(kernel, family, listed.number),
            **used(kernel.ipc.usages.of(family.table, listed.number)),
        }
        yield tuple(shown[name] for name in header)


#: The columns of what the calls here have done with an object: how many there were, the bytes that they moved, and how
#: many of them were parked.
USED = ("calls", "moved", "waits")


def used(usage: Usage) -> dict[str, int]:
    return dict(zip(USED, (usage.calls, usage.bytes, usage.waits), strict=True))


def owners(kernel: Kernel, family: Family, number: int) -> str:
    """The pids of an object's owners, for a table."""
    return ",".join(str(owner.pid) for owner in kernel.ipc.ownership.owners(family.table, number)) or "-"


def owning(directory: str, number: str) -> tuple[Row, Row]:
    """The command words that make the caller an owner of an object, and no longer one."""

    def request_to(call: str, number: int) -> Request:
        return Request(call, [f"{directory}/{number}"])

    return (
        row(None, "own", partial(request_to, "own"), f"{number}:int", help="it goes when the last of its owners ends"),
        row(None, "disown", partial(request_to, "disown"), f"{number}:int", help="it does not go with the caller"),
    )


def request(call: str, *args: int, **given: Any) -> Request:
    """A system call with those of the named arguments that were given."""
    return Request(call, list(args), {name: value for name, value in given.items() if value is not None})
