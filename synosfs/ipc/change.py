"""What chmod(2), chown(2), truncate(2) and utimensat(2) ask for, and how it is carried out on a file of the host."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """New attributes; None: leave it. Times in nanoseconds since the epoch."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


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
