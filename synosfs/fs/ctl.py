"""Control files: reading gives a table of the objects, writing runs command words.

A command is a row of a table, with parameters as the system calls have them, and is carried out as the system call
that it stands for: same rights, same errno, same statistics. One that takes several calls is a ``Work``, a request of
its own, and ends as a call that waits does. Its reply is read where a system call's is: on the same descriptor, or with
``cat /mnt/synos/syscall``. A wrong word or argument is EINVAL, and the message echoes the line.
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from errno import EINVAL
from functools import partial
from typing import Protocol

from synosfs.errors import SynosError, excerpt
from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, reads, writes
from synosfs.fs.session import Session, open_caller
from synosfs.fs.tables import table
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.slices import Slices
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.codecs import Record
from synosfs.syscall_gate.converters import suggestion
from synosfs.syscall_gate.dispatch import NOT_RUN
from synosfs.syscall_gate.record import Reply, Request
from synosfs.syscall_gate.spec import Row, bind

Table = Callable[[Who], Iterable[tuple[object, ...]]]


class Work(Protocol):
    """What a command word stands for that makes several system calls."""

    async def run(self, caller: Caller) -> Reply:
        """Make them as this caller; the reply to all of it."""
        ...

    def so_far(self) -> Reply | None:
        """The reply when it is ended midway; None: nothing has been done."""
        ...


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
        return _CommandSession(self, caller, readable=reads(flags))

    async def change(self, change: Change, who: Who) -> None:
        await super().change(replace(change, size=None), who)


def meaning(commands: Mapping[str, Row], request: Request) -> tuple[Request | Work, float | None]:
    """What a command word stands for, and its time-out in seconds. EINVAL."""
    row = commands.get(str(request.call))
    if row is None:
        near = suggestion(str(request.call), commands) or f"; the words are {', '.join(commands)}"
        raise SynosError(EINVAL, f"{_echo(request)}: no such command{near}")
    try:
        values, timeout = bind(row, request)
        return row.handler(*values), timeout
    except SynosError as error:
        raise SynosError(error.errno, f"{_echo(request)}: {error.message}") from None


def translated(commands: Mapping[str, Row], request: Request) -> Request:
    """The system call that a command word stands for."""
    meant, _ = meaning(commands, request)
    if isinstance(meant, Request):
        return meant
    raise SynosError(EINVAL, f"{_echo(request)}: it makes calls of its own, and stands in no batch: send it alone")


class _CommandSession(Session):
    """A session of command words."""

    def __init__(self, file: CtlFile, caller: Caller, *, readable: bool) -> None:
        super().__init__(file.kernel, caller, readable=readable, translate=partial(translated, file.commands))
        self._commands = file.commands

    async def _answer(self, record: Record) -> list[Reply]:
        if record.error is None and len(record.requests) == 1:
            try:
                meant, timeout = meaning(self._commands, record.requests[0])
            except SynosError:
                meant = None  # which is answered as all other errors are
            if meant is not None and not isinstance(meant, Request):
                what = _echo(record.requests[0])
                work = partial(meant.run, self._caller)
                if self._turn.stopped is not None:
                    return [self._turn.stopped]
                reply = await self._dispatcher.work(self._caller, what, work, meant.so_far, timeout)
                if self._caller.interrupted:
                    self._turn.stop(NOT_RUN)
                return [reply]
        return await super()._answer(record)


def _echo(request: Request) -> str:
    words = [request.call, *(arg for arg in request.args if isinstance(arg, bytes))]
    return f"'{' '.join(excerpt(word) for word in words)}'"
