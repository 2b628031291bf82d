"""The names of POSIX message queues: the mqueue file system of the daemon's IPC namespace (mq_overview(7)).

A privileged daemon gets that file system by itself, mounted nowhere (fsopen(2), fsmount(2)), and so sees every queue
whether ``/dev/mqueue`` is mounted or not. Another daemon looks into ``/dev/mqueue``; where that is missing too, no name
is to be seen, and queues are there for who opens them by ``mq_open``.

All but ``names`` and ``change`` are looks, which never sleep (``host.shared_directory``). A look never asks mq_open(3):
that takes the lock of all names, and who waits there for a lease (F_SETLEASE) keeps it for as long as they wait.
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

_REASONS = {
    errno.ENOENT: "no queue is named {name}",
    errno.EACCES: "the mode of queue {name} does not let the caller do this",
    errno.EPERM: "queue {name} belongs to another user, who may change it",
}


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
    directory = _directory()
    if directory is not None:
        shared_directory.is_in_memory(directory)


def is_seen() -> bool:
    """Whether names of queues can be seen at all."""
    return _directory() is not None


def names() -> list[str]:
    """Every queue of the namespace, as os.fsdecode has its name: names are for everybody. In a thread (see above)."""
    directory = _directory()
    return [] if directory is None else os.listdir(directory)


def status(name: str) -> os.stat_result:
    """stat(2) of a queue; ENOENT."""
    with _found(name) as (_, found):
        return found


def line(name: str) -> QueueLine:
    """What reading the queue as a file of the mqueue file system shows. EACCES without read permission.

    WouldBlock (EAGAIN): somebody has a lease on it.
    """
    with opened_now(name) as fd:
        return QueueLine(*(int(number) for number in re.findall(rb":(\d+)", os.read(fd, 128))))


@contextmanager
def opened_now(name: str) -> Iterator[int]:
    """A descriptor for reading, for the length of the body, which serves as mq_open's does. Errors as ``line`` has."""
    with _found(name) as (found, _), shared_directory.opened_now(found, os.O_RDONLY) as fd:
        yield fd


def change(name: str, wanted: Change) -> None:
    """Change mode, owner and times; in a thread."""
    with _found(name) as (found, _):
        apply(wanted, shared_directory.path_of(found))


@contextmanager
def _found(name: str) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of the queue as a file, and its status."""
    directory = _directory()
    with explaining(_REASONS, name=shown(os.fsencode(name))):
        if directory is None:
            raise SynosError(errno.ENOENT)
        with shared_directory.found(directory, name) as found:
            yield found


@functools.cache
def _directory() -> int | None:
    """A descriptor of the file system's root; None where there is none to be had."""
    with suppress(SynosError):
        return host_posix.mqueue_filesystem()
    with suppress(OSError):
        if os.path.ismount(_DEV_MQUEUE):
            return os.open(_DEV_MQUEUE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return None
