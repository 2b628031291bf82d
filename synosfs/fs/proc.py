"""``proc/``: the SynOS processes. ``self`` is the caller, or its nearest ancestor that takes part.

Those that take part are listed. A process that does not has its directory all the same, for who may act for it: so a
shell can be given a pipe by its subshell, which dies with its own. Looking there makes nobody take part; opening
``syscall`` for writing does.
"""

import stat
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from errno import ENOENT, ESRCH
from functools import cache, partial

from synosfs.errors import SynosError, printable
from synosfs.fs.descriptors import Descriptors, records_table
from synosfs.fs.memory import MemoryFile, attachments_table
from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, no_such, writes
from synosfs.fs.observe import process_stats
from synosfs.fs.process_ctl import ProcessCtl
from synosfs.fs.session import look_into
from synosfs.fs.syscall_file import ProcessSyscallFile
from synosfs.fs.tables import Table, table
from synosfs.host import credentials, procfs
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.kernel import Kernel
from synosfs.process.host_process import HostProcess, Stranger
from synosfs.slices import Slices
from synosfs.syscall_gate.text import word


@dataclass(frozen=True)
class Self(Node):
    """``proc/self``, a link to the caller's own directory."""

    kernel: Kernel

    entry_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFLNK | 0o777)

    def readlink(self, who: Who) -> str:
        for process in self.kernel.processes.ancestry(who.pid):
            return str(process.pid)
        # Nobody takes part yet: the caller itself, which has a directory all the same.
        try:
            return str(procfs.thread_group(who.pid))
        except ProcessLookupError:
            raise SynosError(ENOENT, "the caller lives outside the mount's pid namespace") from None


@dataclass(frozen=True)
class Processes(Node):
    """``proc/``: one directory a live process; see above for which are listed."""

    kernel: Kernel

    entry_timeout = FOREVER
    attr_timeout = FOREVER
    keeps_names = False  # a pid comes to mean another process

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFDIR | 0o555)

    def lookup(self, name: str, who: Who) -> Node:
        if name == "self":
            return Self(self.kernel)
        is_pid = name.isascii() and name.isdigit() and name[0] != "0" and len(name) <= _MOST_DIGITS
        process = self.kernel.process_seen(int(name), who.pid, who.uid, who.gid) if is_pid else None
        if process is None:
            raise no_such(name)
        return ProcessDirectory(self.kernel, process)

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        yield "self", Self(self.kernel)
        for process in self.kernel.processes:
            if process.is_alive() and self.kernel.sees(process, who.pid, who.uid, who.gid):
                yield str(process.pid), ProcessDirectory(self.kernel, process)
        for process in self.kernel.processes.zombies():
            if self.kernel.sees(process, who.pid, who.uid, who.gid):
                yield str(process.pid), ProcessDirectory(self.kernel, process)


#: No pid has more (PID_MAX_LIMIT).
_MOST_DIGITS = 7


@dataclass(frozen=True)
class ProcessDirectory(Node):
    """``proc/<pid>/``."""

    kernel: Kernel
    process: HostProcess

    is_kept = False

    def attributes(self, who: Who) -> Attributes:
        if not self.process.has_its_pid:
            raise SynosError(ENOENT, f"process {self.process.pid} has ended")
        return Attributes(stat.S_IFDIR | 0o555, *self.process.owner())

    def lookup(self, name: str, who: Who) -> Node:
        for entry, node in self.entries(who):
            if entry == name:
                return node
        raise no_such(name)

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        process = self.kernel.processes.now(self.process)
        for name, (render, mode) in _FILES.items():
            yield name, ProcessFile(self.kernel, process, render, mode)
        for name in ("cmdline", "exe"):
            yield name, HostLink(process, name)
        yield "fd", Descriptors(self.kernel, process)
        yield "mem", MemoryFile(self.kernel, process)
        yield "syscall", ProcessSyscallFile(self.kernel, process)
        yield "ctl", ProcessCtl(self.kernel, process)


@dataclass(frozen=True)
class HostLink(Node):
    """What the host itself tells of the process: its word, and its rule for who may see it."""

    process: HostProcess
    name: str

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFLNK | 0o777, *self.process.owner())

    def readlink(self, who: Who) -> str:
        return f"/proc/{self.process.pid}/{self.name}"


@dataclass(frozen=True)
class ProcessFile(Node):
    """A text about one process, or a table. ESRCH when it has ended."""

    kernel: Kernel
    process: HostProcess
    render: "Render"
    mode: int

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | self.mode, *self.process.owner())

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if writes(flags):
            return await super().open(flags, who, inode)
        process = self.kernel.processes.now(self.process)
        if not self.mode & 0o004 or isinstance(process, Stranger):
            look_into(self.kernel, process, who)
        elif not self.kernel.sees(process, who.pid, who.uid, who.gid):
            raise no_such(str(process.pid))
        try:
            text, slices = self.render(self.kernel, process), Slices(self.kernel.accounts.of(who.uid).line)
            if isinstance(text, Table):
                text = await table(*text, slices)
            shown = Snapshot(text if isinstance(text, str) else await text(slices))
        except (FileNotFoundError, ProcessLookupError):
            shown = None
        if shown is None or not process.has_its_pid:  # else its pid was its own when the text was made
            raise SynosError(ESRCH, f"process {process.pid} has ended")
        return shown


#: A text, a table, or what makes a text in slices.
Render = Callable[[Kernel, HostProcess], str | Table | Callable[[Slices], Awaitable[str]]]


def _status(kernel: Kernel, process: HostProcess) -> str:
    ids, stat_now = credentials.identifiers(process.pid), procfs.stat(process.pid)
    calls, errors = process.counted()
    fields = {
        "Name": printable(stat_now.command),
        "Pid": process.pid,
        "PPid": process.ppid(),
        "State": stat_now.state,
        "StartTime": process.start_time,
        "Uid": "\t".join(map(str, ids.uids)),
        "Gid": "\t".join(map(str, ids.gids)),
        "Groups": " ".join(map(str, ids.groups)),
        "Calls": calls,
        "Errors": errors,
        "Blocked": len(kernel.parking.of(process)),
        "Owns": " ".join(word(str(thing)) for thing in kernel.ipc.ownership.of(process)),
    }
    return "".join(f"{name}:\t{value}\n" for name, value in fields.items())


def _blocked(kernel: Kernel, process: HostProcess) -> Table:
    now = time.monotonic()
    rows = ((parked.caller.tid, f"{now - parked.since:.3f}", parked.what) for parked in kernel.parking.of(process))
    return Table(("tid", "seconds", "call"), rows)


def _children(_kernel: Kernel, process: HostProcess) -> str:
    """Those that it has forked here, as /proc/<pid>/task/<tid>/children has others."""
    return "".join(f"{pid} " for pid in process.children_pids())


def _undo(kernel: Kernel, process: HostProcess) -> Table:
    """What the end of the process will add to semaphores; see ``ipc.undo`` for what this cannot know."""
    is_set = cache(_is_set)
    entries = (entry for entry in kernel.ipc.undo.of(process) if is_set(entry[0]))
    return Table(("semid", "num", "adjustment"), entries)


def _is_set(semid: int) -> bool:
    try:
        SemaphoreSet(semid).status_any()
    except SynosError:
        return False  # a native program has removed it
    return True


#: Each file's text and mode; what a process says in its calls is for its owner.
_FILES: dict[str, tuple[Render, int]] = {
    "status": (_status, 0o444),
    "blocked": (_blocked, 0o400),
    "attach": (attachments_table, 0o400),
    "fds": (records_table, 0o400),
    "stats": (lambda _kernel, process: partial(process_stats, process), 0o444),
    "children": (_children, 0o444),
    "undo": (_undo, 0o400),
}
