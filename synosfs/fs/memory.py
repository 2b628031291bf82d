"""``proc/<pid>/mem`` and ``attach``: what a SynOS process has attached, by address and as a table.

``mem`` is as ``/proc/<pid>/mem``: the offset is the address, an address where nothing is attached is EIO, a read or
write that reaches one is short. Its size is 0, so that what copies trees leaves it alone; seeking works all the same.
"""

import stat
from dataclasses import dataclass, replace
from errno import ESRCH

from synosfs.errors import SynosError
from synosfs.fs.ctl import columns
from synosfs.fs.node import Attributes, Handle, Node, Who
from synosfs.host import abi
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.process.table import Process

_FLAGS = {name: getattr(abi, name) for name in ("SHM_RDONLY", "SHM_RND", "SHM_REMAP")}


@dataclass(frozen=True)
class MemoryFile(Node):
    """The attached memory of one process, for its owner."""

    kernel: Kernel
    process: Process

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o600, *self.process.owner())

    def open(self, flags: int, who: Who, inode: int) -> Handle:
        self.kernel.caller_for(self.process, who.pid, who.uid, who.gid)  # EPERM for others
        return _Memory(self.process)

    def change(self, change: Change, who: Who) -> None:
        """A shell's > truncates before it writes, and changes nothing."""
        super().change(replace(change, size=None), who)


class _Memory(Handle):
    """What is attached when it is read or written, not when it was opened. ESRCH when the process has ended."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def read(self, offset: int, size: int) -> bytes:
        self._alive()
        return self._process.address_space.read(offset, size)

    async def write(self, offset: int, data: bytes) -> int:
        self._alive()
        return self._process.address_space.write(offset, data)

    def _alive(self) -> None:
        if not self._process.is_alive():
            raise SynosError(ESRCH, f"process {self._process.pid} has ended")


def attachments_text(_kernel: Kernel, process: Process) -> str:
    """``attach``: a line an attachment, by address; the size in bytes."""
    rows = [
        (
            f"{attachment.address:#x}",
            attachment.memory.shmid,
            attachment.memory.size,
            "|".join(name for name, bit in _FLAGS.items() if attachment.flags & bit) or "-",
        )
        for attachment in process.address_space
    ]
    return columns(("address", "shmid", "size", "flags"), rows)
