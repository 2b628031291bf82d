"""Kernel: all that answers calls, and nothing of how they come in.

It owns the processes, the blocked calls, the objects, the statistics, the dispatcher and those who look on, for as long
as a mount lives. Doors (``fs``) bring calls in; ``caller`` and ``caller_for`` make who they act as, from what the
host's kernel said and nothing else.
"""

import errno

from synosfs.errors import SynosError
from synosfs.host import credentials, rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.manager import IPCManager
from synosfs.process.table import Process, ProcessTable
from synosfs.syscall_gate.caller import Caller, Origin
from synosfs.syscall_gate.dispatch import SyscallDispatcher
from synosfs.syscall_gate.parking import Parking
from synosfs.syscall_gate.statistics import SyscallStatistics


class Kernel:
    """One for the mount. Used from the trio thread only."""

    def __init__(self) -> None:
        self.ipc = IPCManager()
        self.processes = ProcessTable(self.ipc)
        self.parking = Parking()
        self.statistics = SyscallStatistics()
        self.dispatcher = SyscallDispatcher(self.parking, self.statistics, self.ipc)
        self.observers = self.dispatcher.observers
        self.processes.at_exit += [self.parking.end_process, self.ipc.ended]

    async def close(self) -> None:
        """Answer all who are blocked, and let go of every process."""
        await self.parking.close()
        self.processes.close()

    def caller(self, tid: int, uid: int, gid: int, origin: Origin) -> Caller:
        """The thread that opens a file to take part, with the rights that it has now. ESRCH when it is gone."""
        process = self.processes.enter(tid)
        return Caller(self.ipc, self.parking, process, tid, effective(tid, uid, gid), origin)

    def caller_for(self, process: Process, tid: int, uid: int, gid: int, origin: Origin) -> Caller:
        """``tid`` opens the kernel on behalf of ``process``.

        As ptrace(2) would have it: all of the process's ids must be the opener's, and its rights may not be more than
        the opener's own; a privileged opener (CAP_SYS_PTRACE) may act for everybody. Else EPERM.
        """
        opener = effective(tid, uid, gid)
        try:
            ids = credentials.identifiers(process.pid)
        except ProcessLookupError:
            raise SynosError(errno.ESRCH, f"process {process.pid} has ended") from None
        theirs = effective(process.pid, ids.uids[1], ids.gids[1])
        if not opener.capabilities & credentials.CAP_SYS_PTRACE:
            same = set(ids.uids) == {uid} and set(ids.gids) == {gid} and set(ids.groups) <= {*opener.groups, gid}
            if not same:
                raise SynosError(errno.EPERM, f"process {process.pid} has other rights than the caller")
        lent = theirs._replace(capabilities=theirs.capabilities & opener.capabilities)
        lent = rights.OWN if lent == rights.OWN else lent
        return Caller(self.ipc, self.parking, process, process.pid, lent, origin, own=process.pid == tid)

    def last_reply(self, tid: int, uid: int) -> bytes:
        """The last reply of the thread's process or of its nearest ancestor that has one; nothing if none has.

        Only its own user's: what root's shell was told is not for a child that has given up root.
        """
        for process in self.processes.ancestry(tid):
            if process.last_reply is not None and uid in (process.last_reply_uid, 0):
                return process.last_reply
        return b""


def effective(tid: int, uid: int, gid: int) -> Credentials:
    """The credentials of a live thread; the daemon's own object where they equal the daemon's."""
    try:
        found = credentials.of_thread(tid, uid, gid)
    except ProcessLookupError:
        raise SynosError(errno.ESRCH, f"thread {tid} has ended, or is outside the mount's pid namespace") from None
    return rights.OWN if found == rights.OWN else found
