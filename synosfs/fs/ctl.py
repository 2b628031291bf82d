"""Control files: reading gives a table of the objects, writing runs command words.

A command is a row of a table, with parameters as the system calls have them, and is carried out as the system call
that it stands for: same rights, same errno, same statistics. Its reply is read where a system call's is: on the same
descriptor, or with ``cat /mnt/synos/syscall``. A wrong word or argument is EINVAL, and the message echoes the line.
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from errno import EINVAL
from functools import partial

from synosfs.errors import SynosError, excerpt
from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, reads, writes
from synosfs.fs.session import Session, open_caller
from synosfs.fs.tables import table
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.slices import Slices
from synosfs.syscall_gate.converters import suggestion
from synosfs.syscall_gate.record import Request
from synosfs.syscall_gate.spec import Row, bind

Table = Callable[[Who], Iterable[tuple[object, ...]]]


@dataclass(frozen=True)
class CtlFile(Node):
    """A control file: the ``header`` of its table and the ``rows`` that somebody is shown, and its command words."""

    kernel: Kernel
    header: tuple[str, ...]
    rows: Table
    commands: Mapping[str, Row]

    fresh = True
    steady = True
    entry_timeout = FOREVER

    def __hash__(self) -> int:
        return id(self.commands)

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o666)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            slices = Slices(self.kernel.accounts.of(who.uid).line)
            return Snapshot(await table(self.header, self.rows(who), slices))
        caller = open_caller(self.kernel, who, flags, inode)
        return Session(self.kernel, caller, readable=reads(flags), translate=partial(translated, self.commands))

    async def change(self, change: Change, who: Who) -> None:
        await super().change(replace(change, size=None), who)


def translated(commands: Mapping[str, Row], request: Request) -> Request:
    """The system call that a command word stands for."""
    row = commands.get(str(request.call))
    if row is None:
        near = suggestion(str(request.call), commands) or f"; the words are {', '.join(commands)}"
        raise SynosError(EINVAL, f"{_echo(request)}: no such command{near}")
    try:
        values, _ = bind(row, request)
    except SynosError as error:
        raise SynosError(error.errno, f"{_echo(request)}: {error.message}") from None
    meant: Request = row.handler(*values)
    return meant


def _echo(request: Request) -> str:
    words = [request.call, *(arg for arg in request.args if isinstance(arg, bytes))]
    return f"'{' '.join(excerpt(word) for word in words)}'"
