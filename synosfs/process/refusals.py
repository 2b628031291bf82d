"""Why operations on files have failed, for processes that take no part: their last reply, should they ask for one.

It is kept for a few processes of each user, the latest, and costs no process a descriptor. A process is known by pid
and start time. Used from the trio thread only.
"""

from typing import NamedTuple

from synosfs.host import procfs

#: For so many processes of so many users.
_MOST, _MOST_USERS = 64, 256


class Refusal(NamedTuple):
    """What ``uid`` was told, as a reply; for the process that began then."""

    start_time: int
    uid: int
    reply: bytes


class Refusals:
    """One for the mount."""

    def __init__(self) -> None:
        self._of_user: dict[int, dict[int, Refusal]] = {}

    def remember(self, pid: int, refusal: Refusal) -> None:
        """The oldest are forgotten for it."""
        held = self._of_user.pop(refusal.uid, {})
        self._of_user[refusal.uid] = held
        held.pop(pid, None)
        held[pid] = refusal
        for table, most in ((held, _MOST), (self._of_user, _MOST_USERS)):
            if len(table) > most:
                del table[next(iter(table))]

    def of(self, pid: int, uid: int) -> bytes | None:
        """What a process was told as this user. Raises ProcessLookupError when it has ended."""
        refusal = self._of_user.get(uid, {}).get(pid)
        if refusal is None or procfs.stat(pid).start_time != refusal.start_time:
            return None
        return refusal.reply
