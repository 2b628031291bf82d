"""``proc/<pid>/fd/`` and ``proc/<pid>/fds``: the descriptors of a SynOS process.

``fd/<n>`` is a symbolic link to the real thing: to the daemon's own descriptor of a pipe or file, which the host opens
for root and the daemon's user alone, or to the process's own standard stream. ``fds`` is the table of the records,
because a symbolic link cannot have extended attributes (``xattr(7)``). Looking makes no table: a process that has used
no descriptor yet shows what it would inherit.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from errno import ENOENT

from synosfs.errors import SynosError
from synosfs.fs.node import Attributes, Node, Who, no_such
from synosfs.fs.session import look_into
from synosfs.fs.tables import Table
from synosfs.kernel import Kernel
from synosfs.process.descriptors import Description
from synosfs.process.host_process import HostProcess
from synosfs.syscall_gate.text import word


@dataclass(frozen=True)
class DescriptorLink(Node):
    """A link to what one number of a process stands for; its mode shows how it is open, as in ``/proc/<pid>/fd``."""

    kernel: Kernel
    process: HostProcess
    number: int

    def attributes(self, who: Who) -> Attributes:
        description = self._description()
        mode = 0o500 * description.readable | 0o300 * description.writable
        return Attributes(stat.S_IFLNK | mode, *self.process.owner())

    def readlink(self, who: Who) -> str:
        look_into(self.kernel, self.process, who)
        description = self._description()
        if description.file_type == "standard":
            return f"/proc/{self.process.pid}/fd/{description.thing}"
        if description.is_ours:
            return f"/proc/{os.getpid()}/fd/{description.host_fd}"
        return description.path or f"{description.file_type}:[{description.ipc_id}]"

    def _description(self) -> Description:
        try:
            return self.process.seen_descriptors().get(self.number)
        except SynosError as error:
            raise SynosError(ENOENT, error.message) from None


@dataclass(frozen=True)
class Descriptors(Node):
    """``fd/``: one link a descriptor, for the process's owner."""

    kernel: Kernel
    process: HostProcess

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFDIR | 0o500, *self.process.owner())

    def lookup(self, name: str, who: Who) -> Node:
        look_into(self.kernel, self.process, who)
        if name.isascii() and name.isdigit() and str(int(name)) == name:
            link = DescriptorLink(self.kernel, self.process, int(name))
            if link.number in self.process.seen_descriptors():
                return link
        raise no_such(name)

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        look_into(self.kernel, self.process, who)
        for record in self.process.seen_descriptors():
            yield str(record.fd_number), DescriptorLink(self.kernel, self.process, record.fd_number)


def records_table(_kernel: Kernel, process: HostProcess) -> Table:
    """``fds``: a FileDescriptor a line; an empty field is shown as -."""
    header = ("fd_number", "file_type", "permissions", "offset", "ipc_id", "path", "close_on_exec")
    table = process.seen_descriptors()
    rows = (
        (
            record.fd_number,
            record.file_type,
            record.permissions or "-",
            record.offset,
            word(record.ipc_id or "-"),
            word(record.path or "-"),
            "yes" if table.close_on_exec(record.fd_number) else "no",
        )
        for record in table
    )
    return Table(header, rows)
