"""The gate as a file: ``/syscall``, and ``proc/<pid>/syscall`` on behalf of another process.

Opened for writing, or for both, it is a session; opened for reading, it shows the last reply of the caller or of its
nearest ancestor that has one. What requests mean is ``syscall_gate``'s business.
"""

import stat
from dataclasses import dataclass, replace

from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, reads, writes
from synosfs.fs.session import Session, look_into, open_caller
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.process.host_process import HostProcess


@dataclass(frozen=True)
class SyscallFile(Node):
    """The gate, for the process that opens it, or for ``process`` when its owner opens it there: opened for
    writing, it makes that one take part.
    """

    kernel: Kernel
    process: HostProcess | None = None

    fresh = True  # a blocked write must not block the next caller's
    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        if self.process is None:
            return Attributes(stat.S_IFREG | 0o666)
        uid, gid = self.process.owner()
        return Attributes(stat.S_IFREG | 0o600, uid, gid)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if writes(flags):
            caller = open_caller(self.kernel, who, flags, inode, self.process)
            return Session(self.kernel, caller, readable=reads(flags))
        if self.process is not None:
            look_into(self.kernel, self.process, who)
            return Snapshot(self.kernel.processes.now(self.process).last_reply or b"")
        return Snapshot(self.kernel.last_reply(who.pid, who.uid, who.gid))

    async def change(self, change: Change, who: Who) -> None:
        """It is a stream: ``>``, ``>>`` and truncate(1) are all welcome and change nothing."""
        await super().change(replace(change, size=None), who)


@dataclass(frozen=True)
class ProcessSyscallFile(SyscallFile):
    """``proc/<pid>/syscall``: its name and its owner go with the process."""

    entry_timeout = 0.0
    attr_timeout = 0.0
