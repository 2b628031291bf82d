"""The FIFOs of ``pipes/``: names, owners and modes. Their data is the kernel's and never comes here.

``FifoRegistry`` owns the names. A ``Fifo`` is one node and lives on without a name while somebody has it open, as an
unlinked file does. Names outlive a daemon that is killed; what was in a FIFO does not. The rules are those of a sticky
directory that everybody may write to (mkfifo(3), unlink(2)).
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import EDQUOT, EEXIST, EINVAL, ENAMETOOLONG, ENOENT, EPERM

from synosfs.errors import SynosError
from synosfs.host.credentials import Credentials
from synosfs.ipc.change import Change
from synosfs.ipc.journal import Journal, KeptFifo

#: The most names that one user may have here, as a disk quota.
MOST_PER_USER = 16384

_NAME_MAX = 255


@dataclass(eq=False)
class Fifo:
    """One FIFO: permission bits, owner, and times in nanoseconds since the epoch.

    Its data is read and written behind our back, so atime and mtime are when it was made, or what utimensat(2) set.
    """

    mode: int
    uid: int
    gid: int
    made_ns: int = field(default_factory=time.time_ns)
    atime_ns: int = field(default_factory=time.time_ns)
    mtime_ns: int = field(default_factory=time.time_ns)
    ctime_ns: int = field(default_factory=time.time_ns)

    def apply(self, change: Change) -> None:
        """chmod(2), chown(2), utimensat(2). Whether the caller may is decided before."""
        self.mode = self.mode if change.mode is None else change.mode & 0o7777
        self.uid = self.uid if change.uid is None else change.uid
        self.gid = self.gid if change.gid is None else change.gid
        self.atime_ns = self.atime_ns if change.atime_ns is None else change.atime_ns
        self.mtime_ns = self.mtime_ns if change.mtime_ns is None else change.mtime_ns
        self.ctime_ns = time.time_ns()


class FifoRegistry:
    """The names of ``pipes/``. Used from the trio thread only."""

    def __init__(self, journal: Journal) -> None:
        """Those that ``journal`` has are there again."""
        self._journal = journal
        self._fifos = {kept.name: Fifo(kept.mode, kept.uid, kept.gid, kept.made_ns) for kept in journal.fifos()}
        self._of_user = Counter(fifo.uid for fifo in self._fifos.values())

    def __iter__(self) -> Iterator[tuple[str, Fifo]]:
        return iter(list(self._fifos.items()))

    def __len__(self) -> int:
        return len(self._fifos)

    def find(self, name: str) -> Fifo | None:
        return self._fifos.get(name)

    def make(self, name: str, mode: int, uid: int, gid: int) -> Fifo:
        """mkfifo(3). EEXIST; EINVAL: a name that is kept; EDQUOT: too many of one user; ENAMETOOLONG."""
        self._check_free(name)
        if self._of_user[uid] >= MOST_PER_USER:
            raise SynosError(EDQUOT, f"user {uid} has {MOST_PER_USER} FIFOs in pipes/ already; remove some")
        fifo = Fifo(mode & 0o7777, uid, gid)
        self._of_user[uid] += 1
        self._put(name, fifo)
        return fifo

    def remove(self, name: str, caller: Credentials) -> None:
        """unlink(2) in a sticky directory: EPERM for all but the owner and root; ENOENT."""
        fifo = self._owned(name, caller)
        del self._fifos[name]
        self._journal.fifo_gone(name)
        self._forget_owner(fifo.uid)

    def rename(self, name: str, new_name: str, caller: Credentials) -> None:
        """A FIFO that has the new name is replaced, if the caller may remove it."""
        fifo = self._owned(name, caller)
        if self._fifos.get(new_name) is fifo:
            return
        if new_name in self._fifos:
            self.remove(new_name, caller)
        self._check_free(new_name)
        del self._fifos[name]
        fifo.ctime_ns = time.time_ns()
        self._put(new_name, fifo)
        self._journal.fifo_gone(name)

    def name_of(self, fifo: Fifo) -> str | None:
        """The FIFO's name, if it still has one."""
        return next((name for name, found in self._fifos.items() if found is fifo), None)

    def change(self, name: str, change: Change, caller: Credentials) -> None:
        """chmod(2), chown(2), utimensat(2). EPERM: not the owner; who may write may set the times to now. ENOENT."""
        fifo = self._found(name)
        if not caller.may_change(fifo.uid) and not (change.sets_times_only_to_now() and _writable(fifo, caller)):
            raise SynosError(EPERM, f"pipes/{name} belongs to user {fifo.uid}")
        if not caller.may_give(fifo.uid, change.uid, change.gid):
            raise SynosError(EPERM, f"giving pipes/{name} away takes CAP_CHOWN, or for a group that you are in it")
        if change.uid is not None:
            self._forget_owner(fifo.uid)
            self._of_user[change.uid] += 1
        fifo.apply(change)
        self._put(name, fifo)

    def _put(self, name: str, fifo: Fifo) -> None:
        self._fifos[name] = fifo
        self._journal.fifo(KeptFifo(name, fifo.mode, fifo.uid, fifo.gid, fifo.made_ns))

    def _owned(self, name: str, caller: Credentials) -> Fifo:
        fifo = self._found(name)
        if not caller.may_change(fifo.uid):
            raise SynosError(EPERM, f"pipes/{name} belongs to user {fifo.uid}, and pipes/ is sticky")
        return fifo

    def _found(self, name: str) -> Fifo:
        fifo = self._fifos.get(name)
        if fifo is None:
            _check_length(name)
            raise SynosError(ENOENT, f"no FIFO {name} in pipes/")
        return fifo

    def _check_free(self, name: str) -> None:
        if name in self._fifos or name in ("ctl", "removed", ".", ".."):
            raise SynosError(EEXIST, f"pipes/{name} exists already")
        if not name or "/" in name or is_reserved(name):
            raise SynosError(EINVAL, f"pipes/{name}: names such as 12.3 are those of anonymous pipes; choose another")
        _check_length(name)

    def _forget_owner(self, uid: int) -> None:
        self._of_user[uid] -= 1
        if not self._of_user[uid]:
            del self._of_user[uid]


def _check_length(name: str) -> None:
    if len(name.encode("utf-8", "surrogateescape")) > _NAME_MAX:
        raise SynosError(ENAMETOOLONG, f"a name has up to {_NAME_MAX} bytes")


def _writable(fifo: Fifo, caller: Credentials) -> bool:
    if caller.uid == fifo.uid:
        return bool(fifo.mode & 0o200)
    return bool(fifo.mode & (0o020 if fifo.gid in (caller.gid, *caller.groups) else 0o002))


def is_reserved(name: str) -> bool:
    """Whether the name is one of an anonymous pipe: <pid>.<descriptor>."""
    pid, dot, number = name.partition(".")
    return bool(dot) and name.isascii() and pid.isdigit() and number.isdigit()
