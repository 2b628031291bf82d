"""``removed`` in ``msgq/``, ``sem/``, ``shm/`` and ``pipes/``: what is gone, whose it was, why, and by whom."""

import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass

from synosfs.errors import printable
from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, writes
from synosfs.fs.tables import table
from synosfs.host import procfs
from synosfs.ipc.things import Thing
from synosfs.kernel import Kernel
from synosfs.slices import Slices
from synosfs.syscall_gate.text import word

_HEADER = ("time", "object", "key", "owner", "pid", "uid", "program", "why")


@dataclass(frozen=True)
class RemovedFile(Node):
    """A table, the latest first. Where /proc hides the processes of others, what they removed of others' too."""

    kernel: Kernel
    directory: str

    entry_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o444)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if writes(flags):
            return await super().open(flags, who, inode)
        slices = Slices(self.kernel.accounts.of(who.uid).line)
        return Snapshot(await table(_HEADER, self._rows(who), slices))

    def _rows(self, who: Who) -> Iterable[tuple[object, ...]]:
        hides = procfs.hides_processes() and who.uid != 0
        for removal in self.kernel.ipc.removals.of(self.directory):
            if hides and who.uid not in (removal.uid, removal.owner):
                continue
            yield (
                time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(removal.at)),
                word(str(Thing(removal.kind, removal.name))),
                f"{removal.key:#x}" if removal.key else "-",
                _number(removal.owner),
                removal.pid or "-",
                _number(removal.uid),
                word(printable(removal.program)) if removal.program else "-",
                removal.why,
            )


def _number(uid: int) -> object:
    return "-" if uid < 0 else uid
