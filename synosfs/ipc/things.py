"""Objects by name, whatever their kind: what is there now, and how it is removed. So one mechanism serves for all that
owners, and the log of removals, have to do with them.

A name can come to mean another object: an id after 32,768 others, a name in /dev/shm at any time. ``Seen.mark`` tells
them apart as far as the host does.
"""

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from errno import EINVAL, ENOENT
from typing import NamedTuple

from synosfs.errors import SynosError, shown
from synosfs.host import devshm
from synosfs.host.credentials import Credentials
from synosfs.ipc import mqueue_fs, posix_mq, posix_sem, posix_shm, sysv_msg, sysv_sem, sysv_shm
from synosfs.ipc.fifo import FifoRegistry
from synosfs.ipc.journal import Intent
from synosfs.ipc.sysv import Perm, key_in


class Seen(NamedTuple):
    """An object: its key (0: none), its owner, the users who may remove it, and what tells it from others of its name
    before and after it.
    """

    key: int
    uid: int
    removers: frozenset[int]
    mark: str


class Thing(NamedTuple):
    """What a name leads to: ``msg`` 3, ``mqueue`` "mail"."""

    kind: str
    name: int | str

    def __str__(self) -> str:
        return f"{_DIRECTORIES[self.kind]}/{self.name}"


#: Where in the mount those of each kind are.
_DIRECTORIES = {
    "msg": "msgq/sysv",
    "sem": "sem/sysv",
    "shm": "shm/sysv",
    "mqueue": "msgq/posix",
    "semaphore": "sem/posix",
    "memory": "shm/posix",
    "fifo": "pipes",
}


def directory_of(kind: str) -> str:
    """The directory at the top of the mount that those of a kind are in."""
    return _DIRECTORIES[kind].partition("/")[0]


class Kind(NamedTuple):
    """How those of a kind are looked at, without sleeping (ENOENT, EINVAL: there is none), and removed, by who acts
    already with these rights. ``may_sleep``: removing one may, so it is for a thread.
    """

    look: Callable[[int | str], Seen]
    remove: Callable[[int | str, Credentials], object]
    may_sleep: bool


class Things:
    """Every kind. ``fifos`` are those of the mount."""

    def __init__(self, fifos: FifoRegistry) -> None:
        self._fifos = fifos
        self.kinds = {
            "msg": Kind(_of_sysv(lambda n: sysv_msg.MessageQueue(n).status_any()), _remove_queue, may_sleep=False),
            "sem": Kind(_of_sysv(lambda n: sysv_sem.SemaphoreSet(n).status_any()), _remove_set, may_sleep=False),
            "shm": Kind(_of_sysv(lambda n: sysv_shm.Segment(n).status_any()), _remove_segment, may_sleep=True),
            "mqueue": Kind(_of_file(mqueue_fs.status), _unlinking(posix_mq.unlink), may_sleep=True),
            "semaphore": Kind(_of_file(posix_sem.status), _unlinking(posix_sem.unlink), may_sleep=True),
            "memory": Kind(_of_file(_memory_status), _unlinking(posix_shm.unlink), may_sleep=True),
            "fifo": Kind(self._fifo, lambda name, rights: fifos.remove(str(name), rights), may_sleep=False),
        }

    def look(self, thing: Thing) -> Seen:
        return self.kinds[thing.kind].look(thing.name)

    def find(self, kind: str, key: int) -> Thing:
        """The System V object of a key. ENOENT."""
        return Thing(kind, _FIND[kind](key))

    def is_new(self, thing: Thing, intent: Intent, maker: int) -> bool:
        """Whether a System V object may be what ``maker`` (a pid) made then for that user, unused since."""
        number = int(thing.name)
        with suppress(SynosError):
            match thing.kind:
                case "msg":
                    queue = sysv_msg.MessageQueue(number).status_any()
                    return _made_then(queue, queue.ctime, intent) and not (queue.stime or queue.rtime or queue.qnum)
                case "sem":
                    found = sysv_sem.SemaphoreSet(number).status_any()
                    # Values to begin with are set and then confirmed by an operation.
                    return _made_then(found, found.ctime, intent) and found.otime in (0, found.ctime)
                case "shm":
                    segment = sysv_shm.Segment(number).status_any()
                    return _made_then(segment, segment.ctime, intent) and segment.cpid == maker and not segment.nattch
        return False

    def named(self, path: str) -> Thing:
        """What a path below the mount means: ``msgq/3``, ``msgq/sysv/3``, ``msgq/key/0x7``, ``msgq/posix/mail``,
        ``pipes/jobs``. EINVAL: it has no such form; ENOENT.
        """
        directory, _, rest = path.partition("/")
        if directory == "pipes" and rest:
            return Thing("fifo", rest)
        family, posix = _FAMILIES.get(directory, ("", ""))
        way, _, name = rest.rpartition("/")
        if family and way in ("", "sysv") and re.fullmatch(r"[0-9]{1,10}", name):
            return Thing(family, int(name))
        if family and way in ("", "key") and (key := key_in(name)) is not None:
            return self.find(family, key)
        if family and way == "posix" and name:
            return Thing(posix, name)
        raise SynosError(
            EINVAL,
            f"{shown(path)} names no object; as msgq/3, sem/key/0x7, shm/posix/name or pipes/name do: an id, a key, or"
            " a name below msgq, sem, shm or pipes",
        )

    def _fifo(self, name: int | str) -> Seen:
        fifo = self._fifos.find(str(name))
        if fifo is None:
            raise SynosError(ENOENT, f"no FIFO {name} in pipes/")
        return Seen(0, fifo.uid, frozenset((fifo.uid,)), str(fifo.made_ns))


#: System V's and POSIX's kinds by the directory that holds them.
_FAMILIES = {"msgq": ("msg", "mqueue"), "sem": ("sem", "semaphore"), "shm": ("shm", "memory")}

_FIND: dict[str, Callable[[int], int]] = {
    "msg": lambda key: sysv_msg.find(key).msqid,
    "sem": lambda key: sysv_sem.find(key).semid,
    "shm": lambda key: sysv_shm.find(key).shmid,
}


#: Between the time of an intent and that of what was made, in seconds: the host's times are whole ones.
_AT_ONCE = 2


def _made_then(status: Perm, ctime: int, intent: Intent) -> bool:
    creator = status.cuid, status.cgid
    return creator == (intent.uid, intent.gid) and int(intent.at) <= ctime <= intent.at + _AT_ONCE


def _of_sysv(status: Callable[[int], Perm]) -> Callable[[int | str], Seen]:
    def look(number: int | str) -> Seen:
        found = status(int(number))
        return Seen(found.key, found.uid, frozenset((found.uid, found.cuid)), f"{found.key:#x} {found.cuid}")

    return look


def _of_file(status: Callable[[str], os.stat_result]) -> Callable[[int | str], Seen]:
    def look(name: int | str) -> Seen:
        found = status(str(name))
        return Seen(0, found.st_uid, frozenset((found.st_uid,)), f"{found.st_dev} {found.st_ino}")

    return look


def _memory_status(name: str) -> os.stat_result:
    with devshm.found(name) as (_, found):
        if not stat.S_ISREG(found.st_mode):
            raise SynosError(ENOENT, f"no shared memory object is named {shown(name)}")
        return found


def _remove_queue(number: int | str, _: Credentials) -> None:
    sysv_msg.MessageQueue(int(number)).remove()


def _remove_set(number: int | str, _: Credentials) -> None:
    sysv_sem.SemaphoreSet(int(number)).remove()


def _remove_segment(number: int | str, _: Credentials) -> None:
    sysv_shm.Segment(int(number)).remove_blocking()


def _unlinking(unlink: Callable[[bytes], None]) -> Callable[[int | str, Credentials], object]:
    return lambda name, _: unlink(b"/" + os.fsencode(str(name)))
