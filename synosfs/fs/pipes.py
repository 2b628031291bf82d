"""``pipes/``: FIFOs, which everybody may make here, and the anonymous pipes of SynOS processes.

A FIFO is a real node of its kind: the kernel serves its data, and no byte comes to the daemon, which keeps name, owner
and mode (``ipc.fifo``). The directory is sticky, like /tmp. An anonymous pipe shows as ``<pid>.<descriptor>``, a link
to the daemon's descriptor of it, which the host opens for root and the daemon's user alone.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from errno import EINVAL, ENOENT
from functools import partial

from synosfs.errors import SynosError
from synosfs.fs import removed
from synosfs.fs.ctl import CtlFile
from synosfs.fs.descriptors import DescriptorLink
from synosfs.fs.node import FOREVER, Attributes, Node, Who, no_such
from synosfs.fs.posix import change_attributes
from synosfs.fs.session import call_as
from synosfs.fs.sysv import USED, used
from synosfs.ipc import pipe
from synosfs.ipc.change import Change
from synosfs.ipc.fifo import Fifo, is_reserved
from synosfs.kernel import Kernel
from synosfs.process.process import Process
from synosfs.syscall_gate.record import Octal, Request
from synosfs.syscall_gate.spec import row
from synosfs.syscall_gate.text import word


@dataclass(frozen=True)
class FifoNode(Node):
    """One FIFO. The same FIFO is the same inode: the kernel keeps the pipe there."""

    kernel: Kernel
    fifo: Fifo

    def attributes(self, who: Who) -> Attributes:
        fifo = self.fifo
        return Attributes(
            stat.S_IFIFO | fifo.mode,
            fifo.uid,
            fifo.gid,
            atime_ns=fifo.atime_ns,
            mtime_ns=fifo.mtime_ns,
            ctime_ns=fifo.ctime_ns,
        )

    async def change(self, change: Change, who: Who) -> None:
        await super().change(Change(size=change.size), who)
        name = self.kernel.ipc.fifos.name_of(self.fifo)
        if name is None:
            raise SynosError(ENOENT, "this FIFO has no name any more")
        await change_attributes(self.kernel, who, name, change)


@dataclass(frozen=True)
class Pipes(Node):
    """The directory."""

    kernel: Kernel
    files: Mapping[str, Node] = field(compare=False)

    entry_timeout = FOREVER
    attr_timeout = FOREVER
    keeps_names = False  # a FIFO lives on without its name while it is open

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFDIR | 0o1777)

    def lookup(self, name: str, who: Who) -> Node:
        if name in self.files:
            return self.files[name]
        fifo = self.kernel.ipc.fifos.find(name)
        if fifo is not None:
            return FifoNode(self.kernel, fifo)
        if is_reserved(name):
            pid, _, number = name.partition(".")
            process = self.kernel.processes.find(int(pid))
            hidden = process is None or not self.kernel.sees(process, who.pid, who.uid, who.gid)
            if process is not None and not hidden and (int(pid), int(number)) in _numbers_of_pipes(process):
                return DescriptorLink(self.kernel, process, int(number))
        raise no_such(name)

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        yield from self.files.items()
        for name, fifo in self.kernel.ipc.fifos:
            yield name, FifoNode(self.kernel, fifo)
        for process in _seen(self.kernel, who):
            for pid, number in _numbers_of_pipes(process):
                yield f"{pid}.{number}", DescriptorLink(self.kernel, process, number)

    async def mkfifo(self, name: str, mode: int, who: Who) -> Node:
        await call_as(self.kernel, who, Request("mkfifo", [name, mode]))
        return self.lookup(name, who)

    async def unlink(self, name: str, who: Who) -> None:
        await call_as(self.kernel, who, Request("unlink", [name]))

    async def rename(self, name: str, new_name: str, who: Who) -> None:
        await call_as(self.kernel, who, Request("rename", [name, new_name]))


def _seen(kernel: Kernel, who: Who) -> Iterable[Process]:
    return (process for process in kernel.processes if kernel.sees(process, who.pid, who.uid, who.gid))


def _numbers_of_pipes(process: Process) -> list[tuple[int, int]]:
    """(pid, number) of every end of an anonymous pipe in the process's own table."""
    if not process.has_descriptors:
        return []
    return [(process.pid, record.fd_number) for record in process.descriptors if record.file_type == "pipe"]


# --- pipes/ctl -------------------------------------------------------------------------------------------------------

_HEADER = ("name", "type", "pid", "fd", "end", "size", "bytes", "uid", "gid", "perms", "ipc_id", *USED)


def _create(name: str, mode: int) -> Request:
    return Request("mkfifo", [_plain(name), mode])


def _remove(name: str) -> Request:
    return Request("unlink", [_plain(name)])


def _owning(call: str, name: str) -> Request:
    return Request(call, [f"pipes/{_plain(name)}"])


def _plain(name: str) -> str:
    if "/" in name:
        raise SynosError(EINVAL, f"a name in pipes/ has no slash, as {name} has")
    return name


_COMMANDS = {
    command.name: command
    for command in (
        row(None, "create", _create, "name:path mode:mode=0666", help="make a FIFO here"),
        row(None, "own", partial(_owning, "own"), "name:path", help="it goes when the last of its owners ends"),
        row(None, "disown", partial(_owning, "disown"), "name:path", help="it does not go with the caller"),
        row(None, "remove", _remove, "name:path", help="remove a FIFO; those who have it open keep it"),
    )
}


def directory(kernel: Kernel) -> Pipes:
    """``pipes/``."""

    def rows(who: Who) -> Iterable[tuple[object, ...]]:
        for name, fifo in kernel.ipc.fifos:
            yield (word(name), "fifo", *5 * ("-",), fifo.uid, fifo.gid, Octal(fifo.mode), *4 * ("-",))
        for process in _seen(kernel, who):
            for pid, number in _numbers_of_pipes(process):
                description = process.descriptors.get(number)
                end = "read" if description.readable else "write"
                size: int | str = "-"
                count: int | str = "-"
                if not description.apart:  # else another may hold the pipe's lock
                    size, count = pipe.size(description.host_fd), pipe.readable_bytes(description.host_fd)
                owner = (*process.owner(), "0600")
                yield (
                    f"{pid}.{number}",
                    "pipe",
                    pid,
                    number,
                    end,
                    size,
                    count,
                    *owner,
                    description.ipc_id,
                    *used(description.usage).values(),
                )

    ctl = CtlFile(kernel, _HEADER, rows, _COMMANDS)
    return Pipes(kernel, {"ctl": ctl, "removed": removed.file(kernel, "pipes")})
