"""The names of POSIX message queues: the mqueue file system of the daemon's IPC namespace (mq_overview(7)).

A privileged daemon gets that file system by itself, mounted nowhere (fsopen(2), fsmount(2)), and so sees every queue
whether ``/dev/mqueue`` is mounted or not. Another daemon looks into ``/dev/mqueue``; where that is missing too, it
knows the names that were opened through it, and no others.

All but ``change`` are looks, which never sleep (``host.shared_directory``).
"""

import errno
import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from synosfs.errors import SynosError, shown
from synosfs.host import posix as host_posix
from synosfs.host import shared_directory
from synosfs.host.errors import explaining
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
    with _found(name) as (_, found):
        return found


def line(name: str) -> QueueLine:
    """What reading the queue as a file of the mqueue file system shows. EACCES without read permission.

    WouldBlock (EAGAIN): somebody has a lease on it.
    """
    with _found(name) as (found, _), shared_directory.opened_now(found, os.O_RDONLY) as fd:
        return QueueLine(*(int(number) for number in re.findall(rb":(\d+)", os.read(fd, 128))))


def change(name: str, wanted: Change) -> None:
    """Change mode, owner and times; in a thread."""
    with _found(name) as (found, _):
        apply(wanted, shared_directory.path_of(found))


@contextmanager
def _found(name: str) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of the queue as a file, and its status."""
    directory = _directory()
    with explaining(_REASONS, name=shown(os.fsencode(name))):
        if directory is not None:
            with shared_directory.found(directory, name) as found:
                yield found
            return
        fd = _open_by_name(name)
        try:
            yield fd, os.fstat(fd)
        finally:
            os.close(fd)


_REASONS = {
    errno.ENOENT: "no queue is named {name}",
    errno.EACCES: "the mode of queue {name} does not let the caller do this",
    errno.EPERM: "queue {name} belongs to another user, who may change it",
    errno.EAGAIN: "somebody has a lease on queue {name}; look again later",
}


def _open_by_name(name: str) -> int:
    return host_posix.mq_open_blocking(b"/" + os.fsencode(name), os.O_RDONLY | os.O_NONBLOCK)


def _exists(name: str) -> bool:
    try:
        os.close(_open_by_name(name))
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
