"""What chmod(2), chown(2), truncate(2) and utimensat(2) ask for, and how it is carried out on a file of the host."""

import os
from dataclasses import dataclass
from time import time_ns
from typing import NamedTuple

#: What differs from the present by less than this is now.
_NOW_NS = 1_000_000_000


class Named(NamedTuple):
    """An object of the host's by its family (``mqueue``, ``semaphore``) and name, as a door may hand it to a call."""

    family: str
    name: bytes

    def __str__(self) -> str:
        return f"{self.family}:{self.name.decode('utf-8', 'backslashreplace')}"


@dataclass(frozen=True, slots=True)
class Change:
    """New attributes; None: leave it. Times in nanoseconds since the epoch."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    @classmethod
    def of_times(cls, atime_ns: int | None, mtime_ns: int | None) -> "Change":
        """utimensat(2): without either, both are set to now."""
        if atime_ns is None and mtime_ns is None:
            atime_ns = mtime_ns = time_ns()
        return cls(atime_ns=atime_ns, mtime_ns=mtime_ns)

    def sets_times_only_to_now(self) -> bool:
        """As touch(1) does, which who may write may do. FUSE tells the time and not that it was asked for as "now"."""
        if self.mode is not None or self.uid is not None or self.gid is not None or self.size is not None:
            return False
        times = [time for time in (self.atime_ns, self.mtime_ns) if time is not None]
        return all(abs(time_ns() - time) < _NOW_NS for time in times)


def apply(change: Change, path: str, directory: int | None = None) -> None:
    """Change the file at ``path`` below ``directory``, with the calling thread's rights; its size stays."""
    if change.mode is not None:
        os.chmod(path, change.mode, dir_fd=directory)
    if change.uid is not None or change.gid is not None:
        uid, gid = (-1 if id is None else id for id in (change.uid, change.gid))
        os.chown(path, uid, gid, dir_fd=directory)
    if change.atime_ns is not None or change.mtime_ns is not None:
        now = os.stat(path, dir_fd=directory)
        atime_ns = now.st_atime_ns if change.atime_ns is None else change.atime_ns
        mtime_ns = now.st_mtime_ns if change.mtime_ns is None else change.mtime_ns
        os.utime(path, ns=(atime_ns, mtime_ns), dir_fd=directory)
