"""IPCManager: what the host cannot know of its own objects, because a daemon made the calls.

The host keeps the pid of the last sender, receiver, creator or operator of an object, and that is the daemon's for every
call that came through the gate. The manager remembers whom the daemon acted for, and puts the true pids into what is
published.
"""

import os
from collections.abc import Hashable

from synosfs.ipc.sysv_msg import QueueStatus

#: Remember the actors of this many objects a role; then forget the older half.
_MOST = 1 << 16


class IPCManager:
    """One for the mount. ``acted`` may be called from an avatar's thread too: it is one store."""

    def __init__(self) -> None:
        self._daemon = os.getpid()
        self._actors: dict[str, dict[Hashable, int]] = {}

    def acted(self, role: str, thing: Hashable, pid: int) -> None:
        """``pid`` has done ``role`` (such as ``msg_sent``) to ``thing`` (such as an id)."""
        actors = self._actors.setdefault(role, {})
        actors[thing] = pid
        if len(actors) > _MOST:
            self._actors[role] = dict(list(actors.items())[_MOST // 2 :])

    def true_pid(self, role: str, thing: Hashable, pid: int) -> int:
        """The SynOS process that did it last, where the host's ``pid`` is the daemon's."""
        return self._actors.get(role, {}).get(thing, pid) if pid == self._daemon else pid

    def with_true_pids(self, status: QueueStatus) -> QueueStatus:
        """The status of a queue with lspid and lrpid of the SynOS processes that used it."""
        return status._replace(
            lspid=self.true_pid("msg_sent", status.msqid, status.lspid),
            lrpid=self.true_pid("msg_received", status.msqid, status.lrpid),
        )
