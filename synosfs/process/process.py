"""One SynOS process: what it holds, whose child it is, and what became of it."""

import os
import resource
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from errno import ESRCH
from typing import Protocol

import trio

from synosfs.errors import SynosError
from synosfs.host import pidfd, procfs
from synosfs.host.credentials import Credentials
from synosfs.host.limits import UNLIMITED, Limits, limits
from synosfs.host.pidfd import Ids
from synosfs.process.accounts import Account, Holding
from synosfs.process.address_space import AddressSpace, Attachment
from synosfs.process.avatar import Avatar
from synosfs.process.descriptors import Description, DescriptorTable, let_go
from synosfs.process.forks import Child, Forks, Variables
from synosfs.process.host_process import HostProcess
from synosfs.process.queue_bytes import QueueBytes

#: A last reply of up to so many bytes is not charged.
_FREE = 4096


class Others(Protocol):
    """What a process needs of the table that it stands in."""

    queue_bytes: QueueBytes
    forks: Forks

    def find(self, pid: int) -> "Process | None":
        """The live process with this pid, if it takes part."""
        ...

    def ancestry(self, tid: int) -> Iterator[HostProcess]:
        """The SynOS processes among the caller and its ancestors, nearest first."""
        ...

    def add_child(self, child: Child) -> "Process":
        """The process that a child is."""
        ...

    def forget(self, pid: int) -> None:
        """A child has been waited for, or nobody is left to do so."""
        ...


class Process(HostProcess):
    """One live SynOS process."""

    _table: Others

    def __init__(
        self,
        table: Others,
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
        #: What ran in it when it began to take part.
        self.program = stat.command
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

    async def adopt(self, child: Child, descriptors: DescriptorTable) -> None:
        """The child has been born: it takes part, with these descriptors. ESRCH: this process has ended."""
        while child.pid in self.children:  # of one that was reaped as it ended, which who waits for it takes just now
            await trio.lowlevel.checkpoint()
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
        descriptors.account, descriptors.most = self.account, self._most_descriptors
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
            self._descriptors.most = self._most_descriptors
            if self.ended:
                for _ in self._descriptors.close_all():
                    pass
        return self._descriptors

    def limits(self, number: int) -> Limits:
        """A resource limit, as it is now. Of a child that waits, RLIMIT_NOFILE is what its program will have: until
        then it needs more numbers. ESRCH: it has ended.
        """
        pid, child = self.pid, self.child
        if child is not None and self.keeps_back(number):
            if child.files is not None:
                return Limits(*child.files)
            pid = pid if child.parent is None else child.parent.pid
        return limits(pid, number)

    def keeps_back(self, number: int) -> bool:
        """Whether the limit is for the program that a child that waits will become (``Child.files``)."""
        return self.child is not None and self.child.waits and number == resource.RLIMIT_NOFILE

    def _most_descriptors(self) -> int:
        soft = self.limits(resource.RLIMIT_NOFILE).soft
        return sys.maxsize if soft == UNLIMITED else soft

    def own_descriptors(self) -> DescriptorTable | None:
        return self._descriptors

    def children_pids(self) -> Iterable[int]:
        return self.children

    def attachments(self) -> Iterable[Attachment]:
        return self.address_space

    @property
    def has_its_pid(self) -> bool:
        """Whether its pid is its own: it runs, or is a zombie, for which whoever forked it has still to wait."""
        return self.is_alive() or (self.child is not None and self.child.parent is not None)

    def ppid(self) -> int:
        """Its parent: who forked it here, 1 when that has ended; else the host's word. ESRCH."""
        if self.child is not None:
            return 1 if self.child.parent is None else self.child.parent.pid
        return super().ppid()

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
        return not self.ended and not self._death.poll(0)

    def ids(self) -> Ids:
        try:
            if self.is_alive():
                return pidfd.ids(self.pidfd, self.pid)
        except ProcessLookupError:
            pass
        raise self._gone()

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
