"""Nodes: what a name in the mount leads to, and the handles that opening one gives.

A node is a small immutable value that names a thing (a queue, a process, a table); it holds no state of the thing, so
it is never stale. Equal nodes share an inode number; those whose writes can block are ``fresh``: each open for writing
has a number of its own, because the kernel locks an inode while it is being written (``inodes``).

What changes something is a call of the caller's, made through the dispatcher, and may wait; what looks answers at once.
Nothing here knows pyfuse3: ``operations`` translates. Errors are SynosError; the defaults below are what a file
without the ability answers.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from errno import EACCES, EINVAL, EISDIR, ENOENT, ENOTDIR, EPERM
from typing import ClassVar, NamedTuple, Protocol

from synosfs.errors import SynosError
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.change import Change
from synosfs.kernel import effective
from synosfs.process.accounts import Account
from synosfs.syscall_gate.readiness import Source

#: For attributes and names that never change while the mount lives, in seconds.
FOREVER = 86400.0


class Who(Protocol):
    """Who asks, as the kernel says: pyfuse3.RequestContext. ``pid`` is a thread id."""

    @property
    def pid(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def umask(self) -> int: ...


def credentials_of(who: Who) -> Credentials:
    return effective(who.pid, who.uid, who.gid)


class Attributes(NamedTuple):
    """What stat(2) shows; times in nanoseconds since the epoch, 0 for a time that the thing does not have."""

    mode: int
    uid: int = rights.OWN.uid
    gid: int = rights.OWN.gid
    size: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0


class Handle:
    """An open file. One exists for each open(2); ``close`` comes when its last descriptor is gone."""

    #: The inode number that it has open for writing.
    written: int | None = None
    #: Who opened it for writing, and is left the reason where a read or write fails.
    who: Who | None = None
    #: Whether that is for the door to do: a file whose every write has a reply leaves that.
    leaves_reasons: ClassVar[bool] = True
    #: The bytes of a text that it keeps, and to whom they and the open file are charged.
    held: int = 0
    account: Account | None = None

    async def read(self, offset: int, size: int) -> bytes:
        raise SynosError(EINVAL, "this file cannot be read")

    async def write(self, offset: int, data: bytes) -> int:
        raise SynosError(EINVAL, "this file cannot be written")

    def source(self) -> Source | None:
        """What poll(2) on the open file asks; None: it is always ready, as a regular file is."""
        return None

    async def close(self) -> None:
        """Let go of what the handle holds."""


class Node:
    """A name's meaning. Subclasses are frozen dataclasses, so that equal nodes are one inode."""

    fresh: ClassVar[bool] = False
    #: For fresh nodes: stat(2) shows one inode number for all of them.
    steady: ClassVar[bool] = False
    #: For how long the kernel may keep the name and the attributes after a look-up, in seconds.
    entry_timeout: ClassVar[float] = 0.0
    attr_timeout: ClassVar[float] = 0.0
    #: For directories: whether the kernel may keep what they list. Not where a name may come to mean another thing.
    keeps_names: ClassVar[bool] = True
    #: Whether the kernel may have kept its name when the thing is gone.
    is_kept: ClassVar[bool] = True

    def attributes(self, who: Who) -> Attributes:
        """ENOENT when the thing is gone."""
        raise NotImplementedError

    def readlink(self, who: Who) -> str:
        raise SynosError(EINVAL, "not a symbolic link")

    def lookup(self, name: str, who: Who) -> "Node":
        raise SynosError(ENOTDIR)

    def entries(self, who: Who) -> Iterable[tuple[str, "Node"]]:
        """What is in the directory; taken bit by bit, while things come and go."""
        raise SynosError(ENOTDIR)

    async def listed(self, who: Who) -> Iterable[tuple[str, "Node"]]:
        """``entries``, for who opens the directory; in a thread where others can make the host slow to say."""
        return self.entries(who)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        raise SynosError(EISDIR)

    async def create(self, name: str, mode: int, who: Who) -> "Node":
        """Make what ``name`` will lead to. EPERM where nothing can be made."""
        raise SynosError(EPERM, "nothing can be made here")

    async def mkfifo(self, name: str, mode: int, who: Who) -> "Node":
        """Make a FIFO, which the kernel serves. EPERM but in ``pipes/``."""
        raise SynosError(EPERM, "FIFOs are made in pipes/")

    async def unlink(self, name: str, who: Who) -> None:
        raise SynosError(EPERM, "nothing can be removed here")

    async def rename(self, name: str, new_name: str, who: Who) -> None:
        """Give another name in the same directory, which another thing of that name loses."""
        raise SynosError(EPERM, "nothing can be renamed here")

    async def change(self, change: Change, who: Who) -> None:
        """Set attributes. A truncation to 0, which ``>`` asks for, is nothing to a file without contents of its own."""
        if change.size:
            raise SynosError(EINVAL, "this file has no length of its own")
        if change.mode is not None or change.uid is not None or change.gid is not None:
            raise SynosError(EPERM, "the mode and owner of this file are fixed")

    def xattrs(self, who: Who) -> Mapping[str, str]:
        """The extended attributes, without the ``user.`` prefix."""
        return {}


def no_such(name: str) -> SynosError:
    return SynosError(ENOENT, f"nothing here is named {name}")


def writes(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_RDONLY


def reads(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_WRONLY


class Snapshot(Handle):
    """A file whose text was made when it was opened, so that its parts fit together."""

    def __init__(self, text: str | bytes | bytearray) -> None:
        self._data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        self.held = len(self._data)

    async def read(self, offset: int, size: int) -> bytes:
        return bytes(memoryview(self._data)[offset : offset + size])


@dataclass(frozen=True)
class TextFile(Node):
    """A read-only file that shows the text which a function makes at each open."""

    render: Callable[[], str]
    mode: int = 0o444

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | self.mode)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if writes(flags):
            raise SynosError(EACCES, "this file is for reading")
        return Snapshot(self.render())


@dataclass(frozen=True)
class Directory(Node):
    """A directory whose names never change. Compared by identity of its table, which the tree makes once."""

    names: Mapping[str, Node]

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def __hash__(self) -> int:
        return id(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Directory) and other.names is self.names

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFDIR | 0o755)

    def lookup(self, name: str, who: Who) -> Node:
        try:
            return self.names[name]
        except KeyError:
            raise no_such(name) from None

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        return self.names.items()
