"""IPCManager: what the host cannot know of its own objects, because a daemon made the calls.

The host keeps the pid of the last sender and receiver of a queue, and that is the daemon's for every call that came
through the gate. The manager remembers whom the daemon acted for, and puts the true pids into what is published.
"""

import os

from synosfs.ipc import sysv_msg
from synosfs.ipc.sysv_msg import QueueStatus

#: Forget the pids of removed objects when this many are remembered.
_MOST = 1 << 16


class IPCManager:
    """One for the mount; used from the trio thread only."""

    def __init__(self) -> None:
        self._daemon = os.getpid()
        self._senders: dict[int, int] = {}
        self._receivers: dict[int, int] = {}

    def sent(self, msqid: int, pid: int) -> None:
        """``pid`` has sent to the queue."""
        self._senders[msqid] = pid
        if len(self._senders) > _MOST:
            self._senders = _existing(self._senders)

    def received(self, msqid: int, pid: int) -> None:
        """``pid`` has received from the queue."""
        self._receivers[msqid] = pid
        if len(self._receivers) > _MOST:
            self._receivers = _existing(self._receivers)

    def with_true_pids(self, status: QueueStatus) -> QueueStatus:
        """The status with lspid and lrpid of the SynOS processes that used it, where the host says the daemon's."""
        if self._daemon not in (status.lspid, status.lrpid):
            return status
        return status._replace(
            lspid=self._true_pid(status.lspid, self._senders, status.msqid),
            lrpid=self._true_pid(status.lrpid, self._receivers, status.msqid),
        )

    def _true_pid(self, pid: int, actors: dict[int, int], msqid: int) -> int:
        return actors.get(msqid, pid) if pid == self._daemon else pid


def _existing(actors: dict[int, int]) -> dict[int, int]:
    present = {status.msqid for status in sysv_msg.listing()}
    return {msqid: pid for msqid, pid in actors.items() if msqid in present}
