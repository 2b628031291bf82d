"""Waiting for children: wait4(2), waitid(2). They are those that fork and spawn made here, and no others."""

import errno
from collections.abc import Callable, Iterator
from typing import NamedTuple

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import abi
from synosfs.process import scheduling
from synosfs.process.forks import Change, Child
from synosfs.process.table import Process
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import Until

_WAIT4_OPTIONS = abi.WNOHANG | abi.WUNTRACED | abi.WCONTINUED | abi.WALL | abi.WCLONE | abi.WNOTHREAD
_WAITID_OPTIONS = abi.WNOHANG | abi.WSTOPPED | abi.WEXITED | abi.WCONTINUED | abi.WNOWAIT

#: CLD_* of <signal.h> as text has them.
CODES = {1: "exited", 2: "killed", 3: "dumped", 4: "trapped", 5: "stopped", 6: "continued"}
_STOPPED, _CONTINUED = 5, 6


class _Wanted(NamedTuple):
    """Which changes of which children are waited for, and whether they stay to be waited for again."""

    options: int
    matches: Callable[[Child], bool]

    def find(self, process: Process) -> tuple[Child, Change] | None:
        """What there is to tell. ECHILD: the process has no such child."""
        children = [child for child in process.children.values() if self.matches(child)]
        if not children:
            raise SynosError(errno.ECHILD, f"process {process.pid} has no such child of fork or spawn to wait for")
        return next((found for child in children for found in self._changes(process, child)), None)

    def _changes(self, process: Process, child: Child) -> Iterator[tuple[Child, Change]]:
        if child.ended is not None and self.options & abi.WEXITED:
            if not self.options & abi.WNOWAIT:
                process.bury(child)
            yield child, child.ended
        stopped = child.stopped
        wanted = abi.WSTOPPED * (stopped is not None and stopped.code == _STOPPED)
        wanted |= abi.WCONTINUED * (stopped is not None and stopped.code == _CONTINUED)
        if stopped is not None and self.options & wanted and child.ended is None:
            if not self.options & abi.WNOWAIT:
                child.stopped = None
            yield child, stopped


def sys_wait4(caller: Caller, pid: int, options: int) -> Until:
    """``status`` is what became of it: ``exited:0``, ``killed:9``, ``dumped:6``, ``stopped:19``, ``continued:18``."""
    if options & ~_WAIT4_OPTIONS:
        raise SynosError(errno.EINVAL, f"wait4 takes WNOHANG, WUNTRACED and WCONTINUED, not {options:#x}")
    matches = _any if pid == -1 else _is(pid) if pid > 0 else _in_group(caller.process.pid, -pid)

    def answer(found: tuple[Child, Change] | None) -> Reply:
        if found is None:
            return Reply(0)
        child, (code, status, usage) = found
        return Reply(child.pid, {"status": f"{CODES[code]}:{status}", **usage._asdict()})

    return _wait(caller, _Wanted(options | abi.WEXITED, matches), answer)


def sys_waitid(caller: Caller, idtype: int, id: int, options: int) -> Until:
    """The fields of ``siginfo_t`` that waitid(2) fills in, and the usage."""
    if options & ~_WAITID_OPTIONS or not options & (abi.WEXITED | abi.WSTOPPED | abi.WCONTINUED):
        raise SynosError(errno.EINVAL, "waitid takes one or more of WEXITED, WSTOPPED, WCONTINUED; WNOHANG, WNOWAIT")
    matches: Callable[[Child], bool]
    match idtype:
        case abi.P_ALL:
            matches = _any
        case abi.P_PID if id > 0:
            matches = _is(id)
        case abi.P_PGID if id >= 0:
            matches = _in_group(caller.process.pid, id)
        case abi.P_PIDFD:
            matches = _is(caller.descriptors.get(id, "pidfd").thing)
        case _:
            raise SynosError(errno.EINVAL, f"waitid waits for P_ALL, P_PID, P_PGID and P_PIDFD, not {idtype} {id}")

    def answer(found: tuple[Child, Change] | None) -> Reply:
        if found is None:
            return Reply(0, {"pid": 0})
        child, (code, status, usage) = found
        return Reply(0, {"pid": child.pid, "code": CODES[code], "status": status, **usage._asdict()})

    return _wait(caller, _Wanted(options, matches), answer)


def _wait(caller: Caller, wanted: _Wanted, answer: Callable[[tuple[Child, Change] | None], Reply]) -> Until:
    process = caller.process

    def attempt() -> Reply:
        found = wanted.find(process)
        if found is None and not wanted.options & abi.WNOHANG:
            raise WouldBlock(errno.EAGAIN, "no child has changed")
        return answer(found)

    async def wait() -> Reply:
        while True:
            changed = process.child_changed
            try:
                return attempt()
            except WouldBlock:
                await changed.wait()

    return Until(wait, attempt)


def _any(_child: Child) -> bool:
    return True


def _is(pid: int) -> Callable[[Child], bool]:
    return lambda child: child.pid == pid


def _in_group(caller: int, pgid: int) -> Callable[[Child], bool]:
    """``pgid`` 0 is the caller's own process group."""
    wanted = pgid or scheduling.process_group(caller)
    return lambda child: scheduling.process_group_if_there(child.pid) == wanted
