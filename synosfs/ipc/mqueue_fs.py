"""The names of POSIX message queues: the mqueue file system of the daemon's IPC namespace (mq_overview(7)).

A privileged daemon gets that file system by itself, mounted nowhere (fsopen(2), fsmount(2)), and so sees every queue
whether ``/dev/mqueue`` is mounted or not. Another daemon looks into ``/dev/mqueue``; where that is missing too, it
knows the names that were opened through it, and no others.
"""

import errno
import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import posix as host_posix
from synosfs.ipc.change import Change, apply

_DEV_MQUEUE = "/dev/mqueue"

#: Names that were opened through the daemon, for one that has no directory to list.
_opened: set[str] = set()


class QueueLine(NamedTuple):
    """What the mqueue file system shows of a queue: bytes in it, and who is registered for a notification."""

    qsize: int
    notify: int
    signo: int
    notify_pid: int

    def __str__(self) -> str:
        return "QSIZE:{:<10d} NOTIFY:{:<5d} SIGNO:{:<5d} NOTIFY_PID:{:<6d}\n".format(*self)


def prepare() -> None:
    """Get the file system, with the daemon's own rights; call once, before anything else here."""
    _directory()


def note_opened(name: str) -> None:
    """Remember a name that was opened through the daemon."""
    if _directory() is None:
        _opened.add(name)


def names() -> list[str]:
    """Every queue of the namespace, as os.fsdecode has its name, with the daemon's rights: names are for everybody."""
    directory = _directory()
    if directory is not None:
        return os.listdir(directory)
    return [name for name in sorted(_opened) if _exists(name)]


def status(name: str) -> os.stat_result:
    """stat(2) of a queue; ENOENT."""
    with _place(name) as (path, directory):
        return os.stat(path, dir_fd=directory)


def line(name: str) -> QueueLine:
    """What reading the queue as a file of the mqueue file system shows. EACCES without read permission."""
    with _place(name) as (path, directory):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return QueueLine(*(int(number) for number in re.findall(rb":(\d+)", os.read(fd, 128))))
    finally:
        os.close(fd)


def change(name: str, wanted: Change) -> None:
    """Change mode, owner and times."""
    with _place(name) as (path, directory):
        apply(wanted, path, directory)


@contextmanager
def _place(name: str) -> Iterator[tuple[str, int | None]]:
    """Where the queue is as a file: a path and the directory it starts at. Host errors become SynosError."""
    directory, fd = _directory(), -1
    try:
        if directory is None:
            fd = host_posix.mq_open(b"/" + os.fsencode(name), os.O_RDONLY, 0, None, None)
            yield f"/proc/self/fd/{fd}", None
        else:
            yield name, directory
    except OSError as error:
        number = error.errno or 0
        raise SynosError(number, f"queue {name}: {os.strerror(number).lower()}") from None
    finally:
        if fd >= 0:
            os.close(fd)


def _exists(name: str) -> bool:
    try:
        os.close(host_posix.mq_open(b"/" + os.fsencode(name), os.O_RDONLY, 0, None, None))
    except SynosError as error:
        if error.errno == errno.ENOENT:
            _opened.discard(name)
            return False
    return True


@functools.cache
def _directory() -> int | None:
    """A descriptor of the file system's root; None where there is none to be had."""
    with suppress(SynosError):
        return host_posix.mqueue_filesystem()
    with suppress(OSError):
        if os.path.ismount(_DEV_MQUEUE):
            return os.open(_DEV_MQUEUE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return None
