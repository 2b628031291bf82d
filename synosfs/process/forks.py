"""Children of SynOS processes, from fork(2) to wait(2).

A child is made by a small program (``host/fork_program.c``), one for each user, and is a process of the host's from its
first moment, with a pid of its own and what fork(2) hands down. It *waits*: orders prepare it, and one of them turns it
into a program. Who forked it is its parent here; to the host that is the program that made it.

Invariants: the connection to a child that waits is the one reason for it to live, so that it goes with its parent and
with the daemon. One that has ended stays a zombie until it is waited for, or its parent ends.

Used from the trio thread only. What may take long is done by the child, which nobody else waits for.
"""

import errno
import logging
import os
import socket
import subprocess
from contextlib import suppress
from typing import NamedTuple, Protocol

import trio

from synosfs.errors import SynosError
from synosfs.host import forking, program
from synosfs.host.forking import EVENT
from synosfs.process.accounts import Account
from synosfs.process.talk import Connection, Orders, Talk, send_soon

log = logging.getLogger(__name__)


class Usage(NamedTuple):
    """``struct rusage`` (getrusage(2)): times in microseconds, maxrss in KiB."""

    utime_us: int
    stime_us: int
    maxrss: int
    minflt: int
    majflt: int
    inblock: int
    oublock: int
    nvcsw: int
    nivcsw: int

    @classmethod
    def of(cls, fields: list[int]) -> "Usage":
        """From the 18 numbers of the structure."""
        seconds, micros, system_s, system_us, maxrss, _, _, _, minflt, majflt, _, inblock, oublock, *_ = fields
        times = seconds * 1_000_000 + micros, system_s * 1_000_000 + system_us
        return cls(*times, maxrss, minflt, majflt, inblock, oublock, *fields[-2:])


class Change(NamedTuple):
    """What has become of a child: CLD_* and a status, as waitid(2) has them."""

    code: int
    status: int
    usage: Usage


#: CLD_EXITED, CLD_KILLED, CLD_DUMPED.
_ENDS = (1, 2, 3)

#: What a maker tells when a zombie is gone.
_REAPED = 0

#: More than execve(2) takes.
_MOST_ENVIRONMENT = 8 << 20

#: Changes to an environment; None takes a variable out.
Variables = dict[bytes, bytes | None]


class Parent(Protocol):
    """What is wanted of a SynOS process that has children."""

    pid: int
    account: Account
    children: dict[int, "Child"]

    def notice(self) -> None:
        """Something has become of a child."""


class Child:
    """A child, from the order to make it until it is waited for."""

    def __init__(self, maker: "Maker", serial: int, parent: Parent) -> None:
        self._maker = maker
        self._serial = serial
        self._connection: Connection | None = None
        self.parent: Parent | None = parent
        self.pid = 0
        #: The environment that it began with, where that is not its parent's program's.
        self.environment: list[bytes] | None = None
        #: RLIMIT_NOFILE of the program to come, where that is not the parent's: it needs more numbers while it waits.
        self.files: tuple[int, int] | None = None
        self.stopped: Change | None = None
        self.ended: Change | None = None
        self.is_executed = False

    @property
    def waits(self) -> bool:
        """Whether it is still no program of its own."""
        return self._connection is not None and self.ended is None and not self.is_executed

    async def be_born(self, orders: Orders) -> Talk:
        """Be made, and follow the orders, the first of which is to become what the parent is."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection = Connection(ours)
        with theirs:
            await self._maker.order(b"fork", self._serial, [theirs.fileno()])
        talk = Talk(self._connection, orders, is_first=True)
        await talk.hold()
        if talk.answers < 2:  # it is there, and has become what its parent is
            raise SynosError(errno.EAGAIN, "the child has been ended before it was one")
        self.pid, self.is_executed = talk.pid, talk.is_over
        return talk

    async def follow(self, orders: Orders) -> Talk:
        """Do what is ordered. ECHILD: it waits no more."""
        if self._connection is None or not self.waits:
            for _, fds in orders:
                forking.close(fds)
            raise SynosError(errno.ECHILD, f"process {self.pid} does not wait for orders any more")
        talk = Talk(self._connection, orders)
        await talk.hold()
        return talk

    async def tell_environment(self) -> list[bytes]:
        """The environment that it has from its parent, NAME=value each."""
        fd = os.memfd_create("environment")
        try:
            await self.follow([([b"environment"], [os.dup(fd)])])
            return os.pread(fd, _MOST_ENVIRONMENT, 0).split(b"\0")[:-1]
        finally:
            os.close(fd)

    def executed(self) -> None:
        """It has become a program."""
        self.is_executed = True
        self._disconnect()

    def changed(self, change: Change) -> None:
        """What its maker says has become of it."""
        if change.code in _ENDS:
            self.ended = change
        else:
            self.stopped = change
        if self.parent is not None:
            self.parent.notice()

    async def reap(self) -> None:
        """It has been waited for; returns when its pid is free."""
        maker, serial = self._maker, self._serial
        self._leave(b"reap")
        await maker.reaped(serial)

    def let_go(self) -> None:
        """Nobody will wait for it. While it is no program, it ends."""
        self._leave(b"let_go")

    def _leave(self, word: bytes) -> None:
        self._disconnect()
        if self.parent is not None:
            self._maker.tell(word, self._serial)
            self.parent.children.pop(self.pid, None)
            self.parent.account.give_back("children")
            self.parent = None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.end()
            self._connection = None


class Maker:
    """The program that makes one user's children."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._reaped: dict[int, trio.Event] = {}
        self._serial = 0
        self._orders, their_orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._events, their_events = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        self._events.setblocking(False)
        with their_orders, their_events:
            self._process = program.start([forking.PROGRAM], their_orders, their_events)
        self.is_over = False
        trio.lowlevel.spawn_system_task(self._listen, name="what becomes of children")

    def __len__(self) -> int:
        return len(self._children)

    def child(self, parent: Parent) -> Child:
        """One that is to be born."""
        self._serial += 1
        child = self._children[self._serial] = Child(self, self._serial, parent)
        return child

    async def order(self, word: bytes, serial: int, fds: list[int]) -> None:
        try:
            await send_soon(self._orders, [word, serial], fds)
        except OSError as error:
            message = f"the program that makes children has ended ({error.strerror}); try again"
            raise SynosError(errno.EAGAIN, message) from None

    async def reaped(self, serial: int) -> None:
        """Wait until a zombie is gone that is told to be reaped."""
        if not self.is_over:
            gone = self._reaped[serial] = trio.Event()
            await gone.wait()

    def tell(self, word: bytes, serial: int) -> None:
        """An order that is carried out later."""
        self._children.pop(serial, None)
        try:
            forking.send(self._orders, [word, serial], [])
        except BlockingIOError:
            trio.lowlevel.spawn_system_task(self._tell_late, word, serial, name="an order to make no child")
        except OSError:  # it has ended, and its children are nobody's
            pass

    async def _tell_late(self, word: bytes, serial: int) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            await send_soon(self._orders, [word, serial], [])

    def close(self) -> None:
        """It ends, and with it its children that wait."""
        self.is_over = True
        for child in list(self._children.values()):
            child.let_go()
        for gone in self._reaped.values():
            gone.set()
        for connection in (self._orders, self._events):
            if connection.fileno() >= 0:
                trio.lowlevel.notify_closing(connection)
            connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)

    async def _listen(self) -> None:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._events)
                event = self._events.recv(EVENT.size)
            except BlockingIOError:
                continue
            except (trio.ClosedResourceError, OSError):
                return
            if not event:
                break
            serial, _, code, status, *usage = EVENT.unpack(event)
            if code == _REAPED and (gone := self._reaped.pop(serial, None)) is not None:
                gone.set()
            elif (child := self._children.get(serial)) is not None:
                child.changed(Change(code, status, Usage.of(usage)))
        if self._children:
            log.error("the program that makes children has ended: %d are not waited for any more", len(self._children))
        self.close()


#: How long a maker that is no longer wanted may take to end, in seconds.
_PATIENCE_S = 1.0


class Forks:
    """Every user's."""

    def __init__(self) -> None:
        self._makers: dict[int, Maker] = {}

    def child(self, parent: Parent) -> Child:
        """One that is to be born. EAGAIN: its user has too many."""
        parent.account.charge("children")
        try:
            maker = self._makers.get(parent.account.uid)
            if maker is None or maker.is_over:
                maker = self._makers[parent.account.uid] = Maker()
        except OSError as error:
            parent.account.give_back("children")
            raise SynosError(errno.EAGAIN, f"no program to make children can be started: {error.strerror}") from None
        return maker.child(parent)

    def close(self) -> None:
        for maker in self._makers.values():
            maker.close()

    def statistics(self) -> int:
        """How many children there are."""
        return sum(map(len, self._makers.values()))
