"""What each user holds of the daemon: how much there may be of each resource, and who has how much of it.

The daemon's descriptors, threads and memory serve all users, so none may take what others need. A resource is charged
*before* it is taken, to the user whose rights it is taken with, and given back with what it was taken for. A limit is
far above what programs need; root has the same ones, so that a runaway script of root's stops itself alone.
"""

import errno
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.slices import Line


def _share_of_descriptors() -> int:
    """A quarter of what the daemon may have; where that is next to nothing, so much that the host refuses first."""
    return max(64, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4, 65_536))


def _share_of_queue_bytes() -> int:
    """What Linux gives each user by default (MQ_BYTES_MAX), and half where the daemon itself has no more."""
    most, default = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0], 819_200
    return default if most == resource.RLIM_INFINITY or most >= 4 * default else most // 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one user may hold. Each is a mount option of this name: ``-o max_sessions=100``."""

    max_sessions: int = 16_384
    max_memory: int = 256 << 20
    max_descriptors: int = field(default_factory=_share_of_descriptors)
    max_attachments: int = 8192
    max_waiting: int = 4096
    max_queue_bytes: int = field(default_factory=_share_of_queue_bytes)
    max_children: int = 1024


class Kind(NamedTuple):
    """A resource: the errno of its limit, and the words for it and for the way out."""

    errno: int
    unit: str
    way_out: str


#: By the name of the limit without ``max_``.
KINDS = {
    "sessions": Kind(errno.EMFILE, "open files of the mount", "close some"),
    "memory": Kind(errno.ENOMEM, "bytes of replies, half records and texts", "read them, and end what you began"),
    "descriptors": Kind(errno.EMFILE, "descriptors, processes and semaphores", "close some"),
    "attachments": Kind(errno.ENOMEM, "attached segments", "detach some"),
    "waiting": Kind(errno.EAGAIN, "calls that wait", "end some"),
    "queue_bytes": Kind(errno.EMFILE, "bytes in POSIX queues", "unlink and close some"),
    "children": Kind(errno.EAGAIN, "children of fork and spawn", "wait for some"),
}
assert {f"max_{name}" for name in KINDS} == {limit.name for limit in fields(Limits)}


class Account:
    """One user's. Used from the trio thread only."""

    __slots__ = ("_limits", "line", "uid", "used")

    def __init__(self, uid: int, limits: Limits) -> None:
        self.uid = uid
        self.used = dict.fromkeys(KINDS, 0)
        self._limits = limits
        #: Where what it has under way waits for the next slice of time.
        self.line = Line()

    def charge(self, name: str, amount: int = 1) -> None:
        """Take so much more; the resource's errno when that would be more than the user may hold."""
        most = self.limit(name)
        if self.used[name] + amount > most:
            kind = KINDS[name]
            raise SynosError(
                kind.errno,
                f"user {self.uid} has {self.used[name]} of {most} {kind.unit}: {kind.way_out}, "
                f"or mount with a larger -o max_{name}=",
            )
        self.used[name] += amount

    def give_back(self, name: str, amount: int = 1) -> None:
        self.used[name] -= amount
        assert self.used[name] >= 0, f"more {name} are given back than were taken"

    def limit(self, name: str) -> int:
        most: int = getattr(self._limits, f"max_{name}")
        return most


class Holding:
    """An amount of one resource that grows and shrinks, such as the bytes that a session holds."""

    __slots__ = ("_account", "_name", "amount")

    def __init__(self, account: Account, name: str, amount: int = 0) -> None:
        self._account = account
        self._name = name
        self.amount = 0
        self.set(amount)

    def set(self, amount: int) -> None:
        """Hold so much from now on. More than there may be raises the resource's error, and leaves it as it was."""
        more = amount - self.amount
        if more > 0:
            self._account.charge(self._name, more)
        elif more < 0:
            self._account.give_back(self._name, -more)
        self.amount = amount

    def close(self) -> None:
        self.set(0)


class AccountStatistics(NamedTuple):
    """What a user holds, by resource, and how much that may be."""

    uid: int
    used: dict[str, int]
    limits: dict[str, int]


class Accounts:
    """Everybody's. An account that holds nothing is forgotten when the next is made."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._of_user: dict[int, Account] = {}

    def of(self, uid: int) -> Account:
        account = self._of_user.get(uid)
        if account is None:
            if len(self._of_user) >= _MANY:
                self._of_user = {
                    uid: each for uid, each in self._of_user.items() if any(each.used.values()) or each.line
                }
            account = self._of_user[uid] = Account(uid, self._limits)
        return account

    def statistics(self) -> Iterator[AccountStatistics]:
        for account in sorted(self._of_user.values(), key=lambda account: account.uid):
            if any(account.used.values()):
                limits = {name: account.limit(name) for name in KINDS}
                yield AccountStatistics(account.uid, dict(account.used), limits)


#: So many users' accounts are kept before those that hold nothing are looked for.
_MANY = 1024
