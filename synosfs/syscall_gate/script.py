"""A script out of what ``trace`` holds: the calls of each process as the text notation has them, to be made again.

What the host gives a number to has a symbol instead: ``msgsnd($msg1, 1, "job", 0) = 0``. A symbol comes into being
with the result that it stands for, in its process where it is a descriptor, and a number that no call here has given
stays one. Keys, paths and names are names already. ``# process p1`` says whose the calls are that follow; other
comments are what cannot be made again. The order is that in which the calls ended, so what waited finds what it waited
for. ``synosfs.replay`` makes the calls.
"""

import errno
from collections.abc import Iterator
from typing import Any

from synosfs.host import abi
from synosfs.syscall_gate import strace
from synosfs.syscall_gate.kinds import KINDS
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.spec import BY_DESCRIPTOR, Row
from synosfs.syscall_gate.strace import Symbol, Symbolic
from synosfs.syscall_gate.trace import Ended

HEAD = "# calls to be made again: python -m synosfs.replay MOUNTPOINT SCRIPT\n"

#: Parameters that are descriptors, and that are process ids.
_DESCRIPTORS = frozenset(
    ("fd", "mqd", "sem", "newfd", "fd_in", "fd_out", "in_fd", "out_fd", "pidfd", "stdin", "stdout", "stderr")
) | {"dirfd", "olddirfd", "newdirfd"}
_PIDS = frozenset(("pid", "tgid", "tid", "who", "pgid"))

#: Calls of which the result is a descriptor though they are about something else, or a process id.
_GIVE_DESCRIPTORS = frozenset(("mq_open", "sem_open", "shm_open", "dup", "openat", "openat2"))
_GIVE_PIDS = frozenset(
    ("fork", "vfork", "clone", "spawn", "getpid", "gettid", "getppid", "getpgrp", "getsid", "setsid")
)
_COPY_DESCRIPTORS = frozenset(("fork", "vfork", "clone"))

#: Results that are descriptors.
_ENDS = frozenset(("read", "write", "first", "second"))

#: Directories of the System V kinds, as ``poll`` and ``own`` name objects.
_DIRECTORIES = {"msgq": "msg", "sem": "sem", "shm": "shm"}


class Script:
    """The lines for calls that are told of in the order in which they ended."""

    def __init__(self) -> None:
        self._names: dict[tuple[Any, ...], Symbol] = {}
        self._counts: dict[str, int] = {}
        self._process = 0

    def lines(self, ended: Ended) -> Iterator[str]:
        """For one call: whose it is, where that is another's than the last, and the call."""
        pid = ended.who.pid
        if pid != self._process:
            self._process = pid
            yield f"# process {self._symbol('pid', pid).name}"
        row = ended.call.row if ended.call else None
        why = _not_again(row, ended)
        if row is None or why:
            yield f"# {why}: {strace.body(ended, whole=True)}"
            return
        values = [self._value(pid, row, place, value) for place, value in enumerate(ended.values)]
        called = strace.call_text(row, values)
        if ended.parked_ns is not None and ended.reply.errno == row.timed_out and "timeout" not in _names(row):
            called = f"{called[:-1]}{', ' if ended.values else ''}timeout={ended.parked_ns / 1e9:.6f})"
        self._forget(pid, row, ended)
        reply = self._reply(pid, row, ended)
        yield f"{called} = {strace.result_text(strace.call_text(row, ended.values), reply, whole=True, shown=None)}"

    def _value(self, pid: int, row: Row, place: int, value: Any) -> Any:
        param = row.params[place]
        if type(value) is int:
            if param.name in _DESCRIPTORS:
                return self._names.get(("fd", pid, value), value)
            if param.name in _PIDS:
                return self._names.get(("pid", value), value)
            if param.kind is KINDS["address"]:
                return self._names.get(("addr", value), value)
            if row.about is not None and row.about.place == place:
                return self._names.get((row.about.kind, value), value)
        if param.kind is KINDS["polled"]:
            return [(self._word(pid, what), events) for what, events in value]
        if param.kind is KINDS["object"]:
            return self._word(pid, str(value))
        return value

    def _word(self, pid: int, what: str) -> str:
        """A word that names a descriptor, or an object by its directory and id."""
        if what.isdigit():
            return Symbolic(self._names.get(("fd", pid, int(what)), what))
        directory, _, rest = what.partition("/")
        number, *more = rest.removeprefix("sysv/").split("/")
        if directory in _DIRECTORIES and number.isdigit():
            name = self._names.get((_DIRECTORIES[directory], int(number)), number)
            return Symbolic("/".join((directory, str(name), *more)))
        return what

    def _reply(self, pid: int, row: Row, ended: Ended) -> Reply:
        reply = ended.reply
        if reply.errno:
            return reply
        ret: int = reply.ret
        about = row.about
        if about is not None and about.place < 0:
            ret = self._symbol(*(("fd", pid) if about.kind == BY_DESCRIPTOR else (about.kind,)), ret)
        elif row.name in _GIVE_DESCRIPTORS or (row.name == "fcntl" and ended.values[1] in _DUPLICATING):
            ret = self._symbol("fd", pid, ret)
        elif row.name == "shmat":
            ret = self._symbol("addr", ret)
        elif row.name in _GIVE_PIDS or (("pid", ret) in self._names and row.name in ("wait4", "waitid")):
            ret = self._symbol("pid", ret)
            if row.name in _COPY_DESCRIPTORS:
                self._copy(pid, int(ret))
        results = {
            name: self._symbol("fd", pid, value) if name in _ENDS and type(value) is int else value
            for name, value in reply.results.items()
        }
        return Reply(ret, results, reply.data)

    def _symbol(self, kind: str, *of: int) -> Symbol:
        key = (kind, *of)
        found = self._names.get(key)
        if found is None:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            found = self._names[key] = Symbol(of[-1], f"{kind}{self._counts[kind]}")
        return found

    def _forget(self, pid: int, row: Row, ended: Ended) -> None:
        """A number that is free from now on comes to mean another thing."""
        if not ended.reply.errno and row.name in ("close", "sem_close"):
            self._names.pop(("fd", pid, ended.values[0]), None)
        elif not ended.reply.errno and row.name == "shmdt":
            self._names.pop(("addr", ended.values[0]), None)

    def _copy(self, parent: int, child: int) -> None:
        for (kind, *of), symbol in list(self._names.items()):
            if kind == "fd" and of[0] == parent:
                self._names["fd", child, of[1]] = symbol


_DUPLICATING = (abi.F_DUPFD, abi.F_DUPFD_CLOEXEC)


def _names(row: Row) -> set[str]:
    return {param.name for param in row.params}


def _not_again(row: Row | None, ended: Ended) -> str:
    """Why a call cannot be made again; nothing if it can."""
    if row is None:
        return "no such call"
    if len(ended.values) < len(row.params):
        return "could not be understood"
    if strace.is_cut(ended.values):
        return "too large to be kept"
    if row.name.startswith(("exec", "exit")):
        return "ends the program that calls"
    return "was interrupted" if ended.parked_ns is not None and ended.reply.errno == errno.EINTR else ""
