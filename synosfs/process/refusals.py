"""Why operations on files have failed, for processes that take no part: their last reply, should they ask for one.

It is kept for a few processes of each user, the latest, and costs no process a descriptor. A process is known by pid
and start time. Used from the trio thread only.
"""

from typing import NamedTuple

from synosfs.host import procfs
from synosfs.host.credentials import Credentials

#: For so many processes of so many users.
_MOST, _MOST_USERS = 64, 256


class Refusal(NamedTuple):
    """What the process was told that began then, and with which rights it had asked."""

    start_time: int
    to: Credentials
    reply: bytes


class Refusals:
    """One for the mount."""

    def __init__(self) -> None:
        self._of_user: dict[int, dict[int, Refusal]] = {}

    def remember(self, pid: int, refusal: Refusal) -> None:
        """The oldest are forgotten for it."""
        held = self._of_user.pop(refusal.to.uid, {})
        self._of_user[refusal.to.uid] = held
        held.pop(pid, None)
        held[pid] = refusal
        for table, most in ((held, _MOST), (self._of_user, _MOST_USERS)):
            if len(table) > most:
                del table[next(iter(table))]

    def of(self, pid: int, asks: Credentials) -> bytes | None:
        """What a process was told, for this user. Raises ProcessLookupError when it has ended."""
        refusal = self._of_user.get(asks.uid, {}).get(pid)
        if refusal is None or not asks.may_know(refusal.to) or procfs.stat(pid).start_time != refusal.start_time:
            return None
        return refusal.reply
