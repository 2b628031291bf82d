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
from collections.abc import Callable, Iterator
from errno import EAGAIN, EMFILE, ENFILE, ENOENT, ESRCH
from functools import partial

import trio

from synosfs.errors import SynosError
from synosfs.host import pidfd, procfs
from synosfs.host.confinement import equally_confined
from synosfs.host.pidfd import Ids
from synosfs.ipc.manager import IPCManager
from synosfs.process.accounts import Account, Accounts, Holding
from synosfs.process.address_space import AddressSpace
from synosfs.process.avatar import Avatar
from synosfs.process.descriptors import Description, DescriptorTable, let_go
from synosfs.process.queue_bytes import QueueBytes

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
        self.last_reply_uid = -1
        self.calls = 0
        self.errors = 0
        self.bytes = 0
        self.ended = False
        #: Its working directory and its file mode creation mask, once chdir(2) and umask(2) are called here; until
        #: then they are those that the host has for it.
        self.directory: Description | None = None
        self.own_umask: int | None = None
        self.address_space = AddressSpace(used, account)
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
                self._descriptors.close_all()
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
        try:
            status = os.stat(f"/proc/{self.pid}")
        except FileNotFoundError:
            raise SynosError(ENOENT, f"process {self.pid} has ended") from None
        return status.st_uid, status.st_gid

    def remember(self, reply: bytes, uid: int) -> None:
        """Its last reply, which was given to this user."""
        try:
            if len(reply) > _FREE or self._last_reply_held.amount:
                self._last_reply_held.set(len(reply))
        except SynosError as error:
            reply = f"-1 ENOMEM the last reply is not kept: {error.message}\n".encode()
            self._last_reply_held.close()
        self.last_reply, self.last_reply_uid = reply, uid

    def close(self) -> None:
        self.ended = True
        self.last_reply = None
        self._last_reply_held.close()
        self.account.give_back("descriptors")
        if self._avatar is not None:
            self._avatar.close()
        if self._descriptors is not None:
            self._descriptors.close_all()
        if self.directory is not None:
            self.account.give_back("descriptors")
            let_go(self.directory)
            self.directory = None
        self.address_space.close()
        os.close(self.pidfd)


class ProcessTable:
    """Every SynOS process, by pid. Used from the trio thread only."""

    def __init__(self, books: IPCManager, accounts: Accounts) -> None:
        self._books = books
        self._accounts = accounts
        self.queue_bytes = QueueBytes()
        self._processes: dict[int, Process] = {}
        self._by_pidfd: dict[int, Process] = {}
        self._deaths = select.epoll()
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
        try:
            pid = procfs.thread_group(tid)
            while pid > 0:
                process = self.find(pid)
                if process is not None:
                    yield process
                pid = procfs.stat(pid).ppid
        except ProcessLookupError:
            return

    async def watch(self) -> None:
        """Remove processes as they die. Runs for as long as the daemon does."""
        while True:
            await trio.lowlevel.wait_readable(self._deaths.fileno())
            for fd, _ in self._deaths.poll(0):
                self._remove(self._by_pidfd[fd])

    def close(self) -> None:
        for process in self:
            self._remove(process)
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
        process.close()
        for forget in self.at_exit:
            forget(process)
