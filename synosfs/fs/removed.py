"""``removed`` in ``msgq/``, ``sem/``, ``shm/`` and ``pipes/``: what is gone, whose it was, why, and by whom."""

import time
from collections.abc import Iterable

from synosfs.errors import printable
from synosfs.fs.node import Who
from synosfs.fs.shown import ShownFile
from synosfs.fs.tables import Row, table
from synosfs.host import procfs
from synosfs.ipc.things import Thing
from synosfs.kernel import Kernel
from synosfs.slices import Slices
from synosfs.syscall_gate.text import word

_HEADER = ("time", "object", "key", "owner", "pid", "uid", "program", "why")


def file(kernel: Kernel, directory: str) -> ShownFile:
    """A table, the latest first. Where /proc hides the processes of others, what they removed of others' too."""

    async def shown(who: Who, slices: Slices) -> str:
        return await table(_HEADER, _rows(kernel, directory, who), slices)

    return ShownFile(kernel, shown)


def _rows(kernel: Kernel, directory: str, who: Who) -> Iterable[Row]:
    hides = procfs.hides_processes() and who.uid != 0
    for removal in kernel.ipc.removals.of(directory):
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
