"""The SynOS processes: who they are, for how long, and what they hold.

A SynOS process is a host process. It is known by its thread-group id *and* its start time, because pids are used again;
a pidfd held from the first touch makes that exact: while the pidfd has not fired, the pid still names this process.
A process enters the table when it first takes part (opens the gate for writing) and leaves it when it dies, however
it dies; what it holds here goes with it at once.

The table does not know what processes do; it calls ``at_exit`` so that others can let go of what they keep for one,
at once or in the steps that they return.
"""

import logging
import os
import select
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from errno import EAGAIN, EMFILE, ENFILE, ESRCH
from functools import partial
from itertools import chain

import trio

from synosfs.errors import SynosError
from synosfs.host import pidfd, procfs
from synosfs.ipc.manager import IPCManager
from synosfs.process.accounts import Accounts
from synosfs.process.forks import Child, Forks
from synosfs.process.host_process import HostProcess, stranger
from synosfs.process.process import Process
from synosfs.process.queue_bytes import QueueBytes
from synosfs.slices import Line, Slices, take_slice

log = logging.getLogger(__name__)


class ProcessTable:
    """Every SynOS process, by pid. Used from the trio thread only."""

    def __init__(self, books: IPCManager, accounts: Accounts) -> None:
        self._books = books
        self._accounts = accounts
        self.queue_bytes = QueueBytes()
        self.forks = Forks()
        self._processes: dict[int, Process] = {}
        #: Children that have ended, and have not been waited for.
        self._zombies: dict[int, Process] = {}
        self._by_pidfd: dict[int, Process] = {}
        self._deaths = select.epoll()
        #: What the dead still hold, and let go of one after the other.
        self._leaving: deque[Iterator[None]] = deque()
        self.at_exit: list[Callable[[Process], Iterable[None]]] = []
        self.entered = 0

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._processes.values()))

    def __len__(self) -> int:
        return len(self._processes)

    def find(self, pid: int) -> Process | None:
        """The live process with this pid, if it takes part."""
        process = self._processes.get(pid)
        if process is None or process.is_alive():
            return process
        self._remove(process)
        return None

    def known(self, pid: int) -> Process | None:
        """As ``find``, and a child that has ended and is still to be waited for."""
        return self.find(pid) or self._zombies.get(pid)

    def again(self, pid: int, start_time: int) -> Process | None:
        """The process that took part before this daemon did, made to do so; None when it has ended."""
        try:
            process = self.find(pid) or (self._add(pid) if procfs.stat(pid).start_time == start_time else None)
        except ProcessLookupError:
            return None
        return process if process is not None and process.start_time == start_time else None

    def take_part(self, seen: HostProcess) -> Process:
        """The process that somebody has looked at, which takes part from now on. ESRCH: it has ended; EAGAIN: no
        descriptor left; EMFILE: its user holds too much.
        """
        if isinstance(seen, Process):
            return seen
        known = self.find(seen.pid)
        try:
            process = known or self._add(seen.pid)
        except ProcessLookupError:
            raise SynosError(ESRCH, f"process {seen.pid} has ended") from None
        if process.start_time != seen.start_time or not process.is_alive():
            if known is None:  # it came into being between the look and this, and takes no part
                self._remove(process)
            raise SynosError(ESRCH, f"process {seen.pid} has ended")
        return process

    def now(self, seen: HostProcess) -> HostProcess:
        """What a process is that somebody has looked at: it may take part by now."""
        if isinstance(seen, Process):
            return seen
        process = self.find(seen.pid)
        return process if process is not None and process.start_time == seen.start_time else seen

    def stranger(self, pid: int) -> HostProcess | None:
        """A live process of the host's that takes no part; not the daemon, whose calls these would be."""
        return None if pid == os.getpid() else stranger(self, pid)

    def zombies(self) -> list[Process]:
        """Children that have ended and are still to be waited for."""
        return list(self._zombies.values())

    def add_child(self, child: Child) -> Process:
        """The process that a child is. ESRCH: it has been killed already."""
        try:
            self.find(child.pid)  # lets go of one that had this pid and has ended, should its death not be noticed yet
            return self._add(child.pid)
        except ProcessLookupError:
            raise SynosError(ESRCH, f"process {child.pid} has ended") from None

    def forget(self, pid: int) -> None:
        """A child has been waited for, or nobody is left to do so."""
        self._zombies.pop(pid, None)
        process = self._processes.get(pid)
        if process is not None and not process.is_alive():  # its death has not been noticed yet
            self._remove(process)

    def enter(self, tid: int) -> Process:
        """The process of a thread that takes part, made if it is its first time.

        ESRCH: the thread is not to be seen from here (another pid namespace) or just died; EAGAIN: no descriptor left.
        """
        # The main thread's id is the process's: the common caller costs one look-up and one poll.
        process = self.find(tid)
        if process is not None:
            return process
        if tid <= 0:
            raise SynosError(ESRCH, "the caller lives outside the mount's pid namespace and cannot be told from others")
        try:
            pid = procfs.thread_group(tid)
            return self.find(pid) or self._add(pid)
        except ProcessLookupError:
            raise SynosError(ESRCH, f"thread {tid} has ended") from None

    def ancestry(self, tid: int) -> Iterator[Process]:
        """The SynOS processes among the caller and its ancestors, nearest first."""
        for pid in procfs.ancestors(tid):
            process = self.find(pid)
            if process is not None:
                yield process

    async def watch(self) -> None:
        """Remove processes as they die. Runs for as long as the daemon does."""
        line = Line()
        while True:
            await trio.lowlevel.wait_readable(self._deaths.fileno())
            slices = Slices(line)  # the wait was no work
            for fd, _ in self._deaths.poll(0):
                process = self._by_pidfd.get(fd)
                if process is not None and not process.is_alive():  # while others were let in it was removed
                    self._remove(process)
                await slices.pause()

    def close(self) -> None:
        for process in self:
            self._remove(process)
        self.forks.close()
        for steps in self._leaving:
            for _ in steps:
                pass
        self._deaths.close()

    def _add(self, pid: int) -> Process:
        try:
            process_fd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno in (EMFILE, ENFILE):
                message = "the daemon has no file descriptor left for another process; raise its limit (ulimit -n)"
                raise SynosError(EAGAIN, message) from None
            raise ProcessLookupError(pid) from None
        try:
            account = self._accounts.of(max(pidfd.ids(process_fd, pid).uids))
            account.charge("descriptors")  # the pidfd
        except BaseException:
            os.close(process_fd)
            raise
        try:
            used = partial(self._books.acted, "shm_used", pid=pid)
            process = Process(self, pid, process_fd, procfs.stat(pid), used, account)
            self._deaths.register(process_fd, select.EPOLLIN)
        except BaseException:
            account.give_back("descriptors")
            os.close(process_fd)
            raise
        self._processes[pid] = process
        self._by_pidfd[process_fd] = process
        self.entered += 1
        log.debug("pid %d takes part", pid)
        return process

    def _remove(self, process: Process) -> None:
        if process.ended:
            return
        log.debug("pid %d has ended", process.pid)
        self._deaths.unregister(process.pidfd)
        del self._processes[process.pid], self._by_pidfd[process.pidfd]
        steps = chain(process.close(), *(let_go(process) for let_go in self.at_exit))
        if process.child is not None and process.child.parent is not None:
            self._zombies[process.pid] = process
        if self._leaving or take_slice(steps):
            self._leaving.append(steps)
            if len(self._leaving) == 1:
                trio.lowlevel.spawn_system_task(self._let_go, name="what the dead hold")

    async def _let_go(self) -> None:
        while self._leaving:
            await trio.lowlevel.checkpoint()
            if not take_slice(self._leaving[0]):
                self._leaving.popleft()
