"""Waiting for children: wait4(2), waitid(2). They are those that fork and spawn made here, and no others."""

import errno
from collections.abc import Callable
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.process import scheduling
from synosfs.process.forks import Change, Child
from synosfs.process.process import Process
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import Until

_WAIT4_OPTIONS = abi.WNOHANG | abi.WUNTRACED | abi.WCONTINUED | abi.WALL | abi.WCLONE | abi.WNOTHREAD
_WAITID_OPTIONS = abi.WNOHANG | abi.WSTOPPED | abi.WEXITED | abi.WCONTINUED | abi.WNOWAIT

#: CLD_* of <signal.h> as text has them.
CODES = {1: "exited", 2: "killed", 3: "dumped", 4: "trapped", 5: "stopped", 6: "continued"}
_STOPPED = 5


class _Wanted(NamedTuple):
    """Which changes of which children are waited for, and whether they stay to be waited for again. ``pid``: it is
    this child's alone.
    """

    options: int
    matches: Callable[[Child], bool]
    pid: int = 0

    def find(self, process: Process) -> tuple[Child, Change] | None:
        """What there is to tell. ECHILD: the process has no such child."""
        children = [child for child in process.children.values() if self.matches(child)]
        if not children:
            raise SynosError(errno.ECHILD, f"process {process.pid} has no such child of fork or spawn to wait for")
        found = ((child, change) for child in children if (change := self._change(child)) is not None)
        return next(found, None)

    async def take(self, process: Process) -> tuple[Child, Change] | None:
        """As ``find``; what is told is not told again."""
        found = self.find(process)
        if found is not None and not self.options & abi.WNOWAIT:
            child, change = found
            if change is child.ended:
                await process.bury(child)
            else:
                child.stopped = None
        return found

    async def wait(self, process: Process) -> None:
        """Wait until something has become of a child."""
        child = process.children.get(self.pid)
        if child is None or child.ended is not None or not self.options & abi.WEXITED or self.options & abi.WNOWAIT:
            await process.child_changed.wait()
        else:
            await child.collect()

    def _change(self, child: Child) -> Change | None:
        if child.ended is not None:
            return child.ended if self.options & abi.WEXITED else None
        stopped = child.stopped
        if stopped is None or not self.options & (abi.WSTOPPED if stopped.code == _STOPPED else abi.WCONTINUED):
            return None
        return stopped


def sys_wait4(caller: Caller, pid: int, options: int) -> Reply | Until:
    """``status`` is what became of it: ``exited:0``, ``killed:9``, ``dumped:6``, ``stopped:19``, ``continued:18``."""
    if options & ~_WAIT4_OPTIONS:
        raise SynosError(errno.EINVAL, f"wait4 takes WNOHANG, WUNTRACED and WCONTINUED, not {options:#x}")
    matches = _any if pid == -1 else _is(pid) if pid > 0 else _in_group(caller.process.pid, -pid)

    def answer(found: tuple[Child, Change] | None) -> Reply:
        if found is None:
            return Reply(0)
        child, (code, status, usage) = found
        return Reply(child.pid, {"status": f"{CODES[code]}:{status}", **usage._asdict()})

    return _wait(caller, _Wanted(options | abi.WEXITED, matches, max(pid, 0)), answer)


def sys_waitid(caller: Caller, idtype: int, id: int, options: int) -> Reply | Until:
    """The fields of ``siginfo_t`` that waitid(2) fills in, and the usage."""
    if options & ~_WAITID_OPTIONS or not options & (abi.WEXITED | abi.WSTOPPED | abi.WCONTINUED):
        raise SynosError(errno.EINVAL, "waitid takes one or more of WEXITED, WSTOPPED, WCONTINUED; WNOHANG, WNOWAIT")
    matches: Callable[[Child], bool]
    pid = 0
    match idtype:
        case abi.P_ALL:
            matches = _any
        case abi.P_PID if id > 0:
            matches, pid = _is(id), id
        case abi.P_PGID if id >= 0:
            matches = _in_group(caller.process.pid, id)
        case abi.P_PIDFD:
            pid = caller.descriptors.get(id, "pidfd").thing
            matches = _is(pid)
        case _:
            raise SynosError(errno.EINVAL, f"waitid waits for P_ALL, P_PID, P_PGID and P_PIDFD, not {idtype} {id}")

    def answer(found: tuple[Child, Change] | None) -> Reply:
        if found is None:
            return Reply(0, {"pid": 0})
        child, (code, status, usage) = found
        return Reply(0, {"pid": child.pid, "code": CODES[code], "status": status, **usage._asdict()})

    return _wait(caller, _Wanted(options, matches, pid), answer)


def _wait(caller: Caller, wanted: _Wanted, answer: Callable[[tuple[Child, Change] | None], Reply]) -> Reply | Until:
    process = caller.process
    found = wanted.find(process)
    if found is None and wanted.options & abi.WNOHANG:
        return answer(None)

    async def wait() -> Reply:
        while True:
            if (found := await wanted.take(process)) is not None:
                return answer(found)
            if wanted.options & abi.WNOHANG:
                return answer(None)
            await wanted.wait(process)

    return Until(wait, prompt=found is not None)


def _any(_child: Child) -> bool:
    return True


def _is(pid: int) -> Callable[[Child], bool]:
    return lambda child: child.pid == pid


def _in_group(caller: int, pgid: int) -> Callable[[Child], bool]:
    """``pgid`` 0 is the caller's own process group."""
    wanted = pgid or scheduling.process_group(caller)
    return lambda child: scheduling.process_group_if_there(child.pid) == wanted
