"""``proc/<pid>/ctl``: what there is to command of one process, and the words for it.

A word stands for a call of that process (``close``, ``shmdt``, ``disown``, ``interrupt``), so it is for who may act for
it, and all that the call checks and says holds here. Opening it for writing makes a process take part, as its
``syscall`` does.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace

from synosfs.fs.ctl import CommandSession
from synosfs.fs.node import Attributes, Handle, Node, Snapshot, Who, reads, writes
from synosfs.fs.session import look_into, open_caller
from synosfs.fs.tables import Row, table
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.process.host_process import HostProcess
from synosfs.slices import Slices
from synosfs.syscall_gate.record import Request
from synosfs.syscall_gate.spec import row
from synosfs.syscall_gate.text import word


def _close(fd: int) -> Request:
    return Request("close", [fd])


def _detach(address: int) -> Request:
    return Request("shmdt", [address])


def _disown(object: str) -> Request:
    return Request("disown", [object])


def _end(tid: int, number: int) -> Request:
    return Request("interrupt", [tid, number])


_COMMANDS = {
    command.name: command
    for command in (
        row(None, "close", _close, "fd:int", help="close a descriptor of its"),
        row(None, "detach", _detach, "address:address", help="detach a segment"),
        row(None, "disown", _disown, "object:object", help="an object of its stays when it ends"),
        row(None, "end", _end, "tid:waiting_thread errno:errno=EINTR", help="end a waiting call, or all"),
    )
}


@dataclass(frozen=True)
class ProcessCtl(Node):
    """The file, for the process's owner."""

    kernel: Kernel
    process: HostProcess

    fresh = True  # a command that is carried out must not hold up the next

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o600, *self.process.owner())

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        process = self.kernel.processes.now(self.process)
        if writes(flags):
            caller = open_caller(self.kernel, who, flags, inode, process)
            return CommandSession(self.kernel, _COMMANDS, caller, readable=reads(flags))
        look_into(self.kernel, process, who)
        slices = Slices(self.kernel.accounts.of(who.uid).line)
        return Snapshot(await table(("word", "argument", "what"), self._rows(process), slices))

    async def change(self, change: Change, who: Who) -> None:
        await super().change(replace(change, size=None), who)

    def _rows(self, process: HostProcess) -> Iterable[Row]:
        for record in process.seen_descriptors():
            yield "close", record.fd_number, f"{record.file_type} {word(record.path or record.ipc_id or '-')}"
        for attachment in process.attachments():
            yield (
                "detach",
                f"{attachment.address:#x}",
                f"segment {attachment.memory.shmid}, {attachment.memory.size} bytes",
            )
        for thing in self.kernel.ipc.ownership.of(process):
            yield "disown", word(str(thing)), "goes with its last owner"
        for parked in self.kernel.parking.of(process):
            yield "end", parked.caller.tid, parked.what
