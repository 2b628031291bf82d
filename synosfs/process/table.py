"""The SynOS processes: who they are, for how long, and what they hold.

A SynOS process is a host process. It is known by its thread-group id *and* its start time, because pids are used again;
a pidfd held from the first touch makes that exact: while the pidfd has not fired, the pid still names this process.
A process enters the table when it first takes part (opens the gate for writing) and leaves it when it dies, however
it dies; what it holds here goes with it at once.

The table does not know what processes do; it calls ``at_exit`` so that others can let go of what they keep for one.
"""

import logging
import os
import select
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from errno import EAGAIN, EMFILE, ENFILE, ENOENT, ESRCH
from functools import partial

import trio

from synosfs.errors import SynosError
from synosfs.host import pidfd, procfs
from synosfs.host.confinement import equally_confined
from synosfs.host.credentials import Credentials
from synosfs.host.pidfd import Ids
from synosfs.ipc.manager import IPCManager
from synosfs.process.accounts import Account, Accounts, Holding
from synosfs.process.address_space import AddressSpace
from synosfs.process.avatar import Avatar
from synosfs.process.descriptors import Description, DescriptorTable, let_go
from synosfs.process.forks import Child, Forks, Variables
from synosfs.process.queue_bytes import QueueBytes
from synosfs.slices import Line, Slices, take_slice

log = logging.getLogger(__name__)

#: A last reply of up to so many bytes is not charged.
_FREE = 4096


class Process:
    """One live SynOS process."""

    def __init__(
        self,
        table: "ProcessTable",
        pid: int,
        process_fd: int,
        stat: procfs.Stat,
        used: Callable[[int], None],
        account: Account,
    ) -> None:
        self._table = table
        self.pid = pid
        self.pidfd = process_fd
        self.start_time = stat.start_time
        #: To whom what it holds is charged: its owner when it began to take part.
        self.account = account
        self.last_reply: bytes | None = None
        self._last_reply_held = Holding(account, "memory")
        self.last_reply_to: Credentials | None = None
        self.calls = 0
        self.errors = 0
        self.bytes = 0
        self.ended = False
        #: Its working directory and its file mode creation mask, once chdir(2) and umask(2) are called here; until
        #: then they are those that the host has for it.
        self.directory: Description | None = None
        self.own_umask: int | None = None
        self.address_space = AddressSpace(used, account)
        #: Where it came to be by fork here: itself as its parent knows it.
        self.child: Child | None = None
        self.children: dict[int, Child] = {}
        self.child_changed = trio.Event()
        #: What its children will find otherwise in their environment than it found itself.
        self.variables: Variables = {}
        self._avatar: Avatar | None = None
        self._descriptors: DescriptorTable | None = None
        self._death = select.poll()
        self._death.register(process_fd, select.POLLIN)

    def __repr__(self) -> str:
        return f"<Process {self.pid} started {self.start_time}>"

    @property
    def queue_bytes(self) -> QueueBytes:
        """The shares of POSIX queues, everybody's."""
        return self._table.queue_bytes

    def own_pidfd(self) -> int:
        """Another descriptor of it, to be given away. ESRCH when it has ended."""
        if self.ended:
            raise SynosError(ESRCH, f"process {self.pid} has ended")
        return os.dup(self.pidfd)

    @property
    def forks(self) -> Forks:
        """Where children come from, everybody's."""
        return self._table.forks

    def adopt(self, child: Child, descriptors: DescriptorTable) -> None:
        """The child has been born: it takes part, with these descriptors. ESRCH: this process has ended."""
        if self.ended:
            raise SynosError(ESRCH, f"process {self.pid} has ended")
        newborn = self._table.add_child(child)
        newborn.be(child, descriptors, {} if child.is_executed else dict(self.variables))
        if not child.is_executed:
            newborn.inherit_place(self)
        self.children[child.pid] = child
        if child.ended is not None:
            self.notice()

    def notice(self) -> None:
        """Something has become of a child: whoever waits looks again."""
        self.child_changed.set()
        self.child_changed = trio.Event()

    def be(self, child: Child, descriptors: DescriptorTable, variables: Variables) -> None:
        """It is that child of another."""
        descriptors.account = self.account
        self.child, self._descriptors, self.variables = child, descriptors, variables

    def known_child(self, pid: int) -> "Process":
        """A child of this process that is alive. ESRCH: there is none with this pid."""
        process = self._table.find(pid) if pid in self.children else None
        if process is None:
            raise SynosError(ESRCH, f"process {pid} is neither the caller nor a child that fork or spawn made for it")
        return process

    def executed(self, numbers: Iterable[int]) -> None:
        """It has become a program, which has these descriptors itself, and all that was set here for it."""
        self.variables = {}
        self.own_umask = None
        if self.directory is not None:
            let_go(self.directory)
            self.directory = None
        self.descriptors.executed(numbers)

    async def bury(self, child: Child) -> None:
        """The child has been waited for. Returns when its pid is free."""
        pid = child.pid
        with trio.CancelScope(shield=True):  # short, and what is taken from here has to be answered
            await child.reap()
        self._table.forget(pid)

    @property
    def avatar(self) -> Avatar:
        """The host threads of this process, started when first needed. ESRCH when it has ended."""
        if self.ended:
            raise SynosError(ESRCH, f"process {self.pid} has ended")
        if self._avatar is None:
            self._avatar = Avatar(f"pid {self.pid}")
        return self._avatar

    @property
    def has_descriptors(self) -> bool:
        """Whether it has a descriptor table yet."""
        return self._descriptors is not None

    @property
    def descriptors(self) -> DescriptorTable:
        """The descriptor table: at its first use a copy of the nearest SynOS ancestor's, as after fork(2)."""
        if self._descriptors is None:
            self._descriptors = self.seen_descriptors().copy(self.account)
            if self.ended:
                for _ in self._descriptors.close_all():
                    pass
        return self._descriptors

    def seen_descriptors(self) -> DescriptorTable:
        """The table, to look at only: its own or, while it has none, the one that it would get a copy of."""
        if self._descriptors is not None:
            return self._descriptors
        # fork(2) hands a table on as it was then; this is later, and a child that gave up its rights since then, or
        # confined itself, must not get what its parent has opened without that.
        candidates = (process for process in self._ancestry() if process.has_descriptors)
        parent = next((process for process in candidates if process.is_like(self)), None)
        return parent.descriptors if parent is not None else DescriptorTable()

    def _ancestry(self) -> Iterator["Process"]:
        return (process for process in self._table.ancestry(self.pid) if process is not self)

    @property
    def has_its_pid(self) -> bool:
        """Whether its pid is its own: it runs, or is a zombie, for which whoever forked it has still to wait."""
        return self.is_alive() or (self.child is not None and self.child.parent is not None)

    def ppid(self) -> int:
        """Its parent: who forked it here, 1 when that has ended; else the host's word. ESRCH."""
        if self.child is not None:
            return 1 if self.child.parent is None else self.child.parent.pid
        try:
            return procfs.stat(self.pid).ppid
        except ProcessLookupError:
            raise SynosError(ESRCH, f"process {self.pid} has ended") from None

    def change_directory(self, directory: Description) -> None:
        """chdir(2) here: from now on its relative paths begin there. EMFILE: its user holds too many descriptors.
        ESRCH: it has ended. A directory that cannot be had is released.
        """
        directory.references += 1
        try:
            if self.ended:
                raise SynosError(ESRCH, f"process {self.pid} has ended")
            if self.directory is None:
                self.account.charge("descriptors")
        except SynosError:
            let_go(directory)
            raise
        before, self.directory = self.directory, directory
        if before is not None:
            let_go(before)

    def inherit_place(self, parent: "Process") -> None:
        """As after fork(2): the working directory and the mask that the parent has set here."""
        if parent.directory is not None:
            self.change_directory(parent.directory)
        self.own_umask = parent.own_umask

    def is_alive(self) -> bool:
        """Whether the process still runs, asked of the kernel now."""
        return not self.ended and not self._death.poll(0)

    def ids(self) -> Ids:
        """All its user and group ids, as they are now. ESRCH: it has ended."""
        try:
            if self.is_alive():
                return pidfd.ids(self.pidfd, self.pid)
        except ProcessLookupError:
            pass
        raise SynosError(ESRCH, f"process {self.pid} has ended")

    def is_like(self, other: "Process") -> bool:
        """Whether it has the ids of the other, and is as confined. ESRCH: one of them has ended."""
        return self.ids() == other.ids() and equally_confined(self.pid, other.pid)

    def owner(self) -> tuple[int, int]:
        """The effective user and group that own the process, as ``/proc`` shows them. ENOENT: it has ended."""
        with suppress(FileNotFoundError):
            status = os.stat(f"/proc/{self.pid}")
            if self.has_its_pid:  # else it may be another's by now
                return status.st_uid, status.st_gid
        raise SynosError(ENOENT, f"process {self.pid} has ended")

    def remember(self, reply: bytes, to: Credentials) -> None:
        """Its last reply, and with which rights it was given."""
        try:
            if len(reply) > _FREE or self._last_reply_held.amount:
                self._last_reply_held.set(len(reply))
        except SynosError as error:
            reply = f"-1 ENOMEM the last reply is not kept: {error.message}\n".encode()
            self._last_reply_held.close()
        self.last_reply, self.last_reply_to = reply, to

    def close(self) -> Iterator[None]:
        """It has ended; what it holds goes in these steps."""
        self.ended = True
        self.last_reply = None
        self._last_reply_held.close()
        self.account.give_back("descriptors")
        if self._avatar is not None:
            self._avatar.close()
        for child in list(self.children.values()):
            child.let_go()
            self._table.forget(child.pid)
        os.close(self.pidfd)
        return self._let_go()

    def _let_go(self) -> Iterator[None]:
        if self._descriptors is not None:
            yield from self._descriptors.close_all()
        if self.directory is not None:
            self.account.give_back("descriptors")
            let_go(self.directory)
            self.directory = None
        yield from self.address_space.close()


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
        self.at_exit: list[Callable[[Process], None]] = []
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

    def zombies(self) -> list[Process]:
        """Children that have ended and are still to be waited for."""
        return list(self._zombies.values())

    def add_child(self, child: Child) -> Process:
        """The process that a child is. ESRCH: it has been killed already."""
        try:
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
        slices = Slices(Line())
        while True:
            await trio.lowlevel.wait_readable(self._deaths.fileno())
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
        steps = process.close()
        if process.child is not None and process.child.parent is not None:
            self._zombies[process.pid] = process
        if self._leaving or take_slice(steps):
            self._leaving.append(steps)
            if len(self._leaving) == 1:
                trio.lowlevel.spawn_system_task(self._let_go, name="what the dead hold")
        for forget in self.at_exit:
            forget(process)

    async def _let_go(self) -> None:
        while self._leaving:
            await trio.lowlevel.checkpoint()
            if not take_slice(self._leaving[0]):
                self._leaving.popleft()
