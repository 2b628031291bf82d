"""The bytes of the POSIX queues that each user has made through the mount.

The host charges a queue to the user of the process that makes it (RLIMIT_MSGQUEUE, mq_overview(7)), and that is the
daemon's, whoever it acts for. So each user has a share of their own here, which is charged before a queue is made, and
given back when the queue is gone: its name leads to no queue or to another, and nobody has it open through the mount.
That is looked at when a share is used up. Used from the trio thread only.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from synosfs.errors import SynosError
from synosfs.ipc import mqueue_fs
from synosfs.process.accounts import Account, Holding

#: What the host counts for each message beside its bytes (``mqueue_get_inode``): a message's head and a node of a tree.
_PER_MESSAGE = 48 + 64

_NAME_MAX = 255

Identity = tuple[int, int]


@dataclass(eq=False)
class Share:
    """What one queue takes of its maker's share. One that comes to nothing gives itself back."""

    holding: Holding
    name: str
    identity: Identity | None = None
    opens: int = 0

    def __del__(self) -> None:
        self.holding.close()


class QueueBytes:
    """The shares of all queues that were made here, by device and inode number."""

    def __init__(self) -> None:
        self._made: dict[Identity, Share] = {}

    def reserve(self, account: Account, name: str, maxmsg: int | None, msgsize: int | None) -> Share | None:
        """A share for a queue that is about to be made. EMFILE: used up. None when there is one of this name, or the
        host is to refuse it: for the name, or for more than it lets an unprivileged user have in one queue.
        """
        messages = _limit("msg_default") if maxmsg is None else maxmsg
        size = _limit("msgsize_default") if msgsize is None else msgsize
        ordinary = 0 < messages <= _limit("msg_max") and 0 < size <= _limit("msgsize_max")
        if not ordinary or "/" in name or not 0 < len(os.fsencode(name)) <= _NAME_MAX or _identity(name) is not None:
            return None
        amount = messages * (size + _PER_MESSAGE)
        try:
            return Share(Holding(account, "queue_bytes", amount), name)
        except SynosError:
            self._forget_the_gone()
        return Share(Holding(account, "queue_bytes", amount), name)

    def opened(self, identity: Identity, share: Share | None) -> None:
        """A queue has been opened through the mount; ``share`` when it has been made by that."""
        if share is not None:
            share.identity = identity
            self._made[identity] = share
        known = self._made.get(identity)
        if known is not None:
            known.opens += 1

    def closed(self, identity: Identity) -> None:
        known = self._made.get(identity)
        if known is not None:
            known.opens -= 1
            if not known.opens and _identity(known.name) != identity:
                del self._made[identity]

    def _forget_the_gone(self) -> None:
        gone = [known for known, share in self._made.items() if not share.opens and _identity(share.name) != known]
        for identity in gone:
            del self._made[identity]


def _identity(name: str) -> Identity | None:
    try:
        found = mqueue_fs.status(name)
    except SynosError:
        return None
    return found.st_dev, found.st_ino


def _limit(name: str) -> int:
    return int(Path(f"/proc/sys/fs/mqueue/{name}").read_text())
