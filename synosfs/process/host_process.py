"""A process of the host's, whether or not it takes part: who it is, and what can be said of it.

It is known by its pid *and* its start time, which are asked of ``/proc`` at every use. A ``Stranger`` takes no part and
is only looked at: nothing is kept of it, no descriptor and no entry anywhere, and nothing is charged. A process that
takes part (``process.Process``) is held by a pidfd besides.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import ENOENT, ESRCH
from typing import Protocol

from synosfs.errors import SynosError
from synosfs.host import credentials, procfs
from synosfs.host.confinement import equally_confined
from synosfs.host.pidfd import Ids
from synosfs.process.address_space import Attachment
from synosfs.process.descriptors import DescriptorTable
from synosfs.process.figures import Figures


class Ancestors(Protocol):
    """What a process needs of the table, to know what it would inherit."""

    def ancestry(self, tid: int) -> Iterator["HostProcess"]:
        """The SynOS processes among the caller and its ancestors, nearest first."""
        ...


class HostProcess:
    """What both kinds answer."""

    pid: int
    #: In clock ticks since boot.
    start_time: int
    last_reply: bytes | None
    _table: Ancestors

    def is_alive(self) -> bool:
        """Whether the process still runs, asked of the kernel now."""
        raise NotImplementedError

    @property
    def has_its_pid(self) -> bool:
        """Whether its pid is its own: no other can have it yet."""
        return self.is_alive()

    def ids(self) -> Ids:
        """All its user and group ids, as they are now. ESRCH: it has ended."""
        raise NotImplementedError

    def counted(self) -> tuple[int, int]:
        """How many calls of its have ended, and how many of them failed."""
        return 0, 0

    def figures(self) -> Iterable[tuple[str, Figures]]:
        """What its calls took, by name; found as they are taken."""
        return ()

    def children_pids(self) -> Iterable[int]:
        """Those that it has forked here, and not waited for."""
        return ()

    def attachments(self) -> Iterable[Attachment]:
        """What it has attached, by address."""
        return ()

    def ppid(self) -> int:
        """Its parent, by the host's word. ESRCH."""
        try:
            return procfs.ppid(self.pid)
        except ProcessLookupError:
            raise self._gone() from None

    def owner(self) -> tuple[int, int]:
        """The effective user and group that own the process, as ``/proc`` shows them. ENOENT: it has ended."""
        with suppress(FileNotFoundError):
            status = os.stat(f"/proc/{self.pid}")
            if self.has_its_pid:  # else it may be another's by now
                return status.st_uid, status.st_gid
        raise SynosError(ENOENT, f"process {self.pid} has ended")

    def is_like(self, other: "HostProcess") -> bool:
        """Whether it has the ids of the other, and is as confined. ESRCH: one of them has ended."""
        return self.ids() == other.ids() and equally_confined(self.pid, other.pid)

    def own_descriptors(self) -> DescriptorTable | None:
        """The descriptor table, if it has one yet."""
        return None

    def seen_descriptors(self) -> DescriptorTable:
        """The table, to look at only: its own or, while it has none, the one that it would get a copy of."""
        own = self.own_descriptors()
        if own is not None:
            return own
        # fork(2) hands a table on as it was then; this is later, and a child that gave up its rights since then, or
        # confined itself, must not get what its parent has opened without that.
        for ancestor in self._table.ancestry(self.pid):
            inherited = ancestor.own_descriptors()
            if ancestor is not self and inherited is not None and ancestor.is_like(self):
                return inherited
        return DescriptorTable()

    def _gone(self) -> SynosError:
        return SynosError(ESRCH, f"process {self.pid} has ended")


class Stranger(HostProcess):
    """A live process that takes no part. Equal ones are the same process."""

    last_reply = None

    def __init__(self, table: Ancestors, pid: int, start_time: int) -> None:
        self._table = table
        self.pid = pid
        self.start_time = start_time

    def __repr__(self) -> str:
        return f"<Stranger {self.pid} started {self.start_time}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stranger) and (self.pid, self.start_time) == (other.pid, other.start_time)

    def __hash__(self) -> int:
        return hash((self.pid, self.start_time))

    def is_alive(self) -> bool:
        try:
            now = procfs.stat(self.pid)
        except ProcessLookupError:
            return False
        return now.start_time == self.start_time and now.state not in _ENDED

    def ids(self) -> Ids:
        try:
            found = credentials.identifiers(self.pid)
        except ProcessLookupError:
            raise self._gone() from None
        if not self.is_alive():  # else these were its own
            raise self._gone()
        return Ids(frozenset(found.uids), frozenset(found.gids))


#: The states of one that has ended, and is still to be waited for.
_ENDED = ("Z", "X")


def stranger(table: Ancestors, pid: int) -> Stranger | None:
    """The live process with this pid, if there is one: no thread of another, and none of the kernel's own, which have
    no program that could call.
    """
    try:
        found = procfs.stat(pid)
        if found.is_kernels or found.state in _ENDED or procfs.thread_group(pid) != pid:
            return None
    except ProcessLookupError:
        return None
    return Stranger(table, pid, found.start_time)
