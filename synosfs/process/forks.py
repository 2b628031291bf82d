"""Children of SynOS processes, from fork(2) to wait(2).

A child is made by a small program (``host/fork_program.c``), one for each user, and is a process of the host's from its
first moment, with a pid of its own and what fork(2) hands down. It *waits*: orders prepare it, and one of them turns it
into a program. Who forked it is its parent here; to the host that is the program that made it.

Invariants: the connection to a child that waits is the one reason for it to live, so that it goes with its parent and
with the daemon. One that has ended stays a zombie until it is waited for, or its parent ends; when somebody waits for
it already, its maker reaps it at once and tells both in one message.

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
from synosfs.process.talk import Connection, Orders, Talk, Words, send_soon

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

#: More than execve(2) takes.
_MOST_ENVIRONMENT = 8 << 20

#: Changes to an environment; None takes a variable out.
Variables = dict[bytes, bytes | None]


class Parent(Protocol):
    """What is wanted of a SynOS process that has children."""

    pid: int
    account: Account
    children: dict[int, "Child"]
    child_changed: trio.Event

    def own_pidfd(self) -> int:
        """Another descriptor of it, to be given away. ESRCH when it has ended."""

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
        #: Its end has been told with its pid free already: who waits has to take it.
        self.is_reaped = False
        #: Who waits for it, and whether its maker knows that.
        self._collectors = 0
        self._is_collected = False
        self.is_executed = False

    @property
    def waits(self) -> bool:
        """Whether it is still no program of its own."""
        return self._connection is not None and self.ended is None and not self.is_executed

    async def be_born(self, heritage: Words, orders: Orders) -> Talk:
        """Become what the parent is, and follow the orders. ESRCH: the parent has ended."""
        words, fds = orders[0] if orders else ([], [])
        made_of: list[int] = []
        try:
            if self.parent is None:
                raise SynosError(errno.EAGAIN, "the program that makes children has ended; try again")
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            made_of.append(theirs.detach())
            self._connection = connection = Connection(ours)
            made_of.append(self.parent.own_pidfd())
            await self._maker.order([b"fork", self._serial, *heritage, *words], [*made_of, connection.birth, *fds])
        except BaseException:
            for _, unsent in orders[1:]:
                forking.close(unsent)
            raise
        finally:
            forking.close(made_of)
            forking.close(fds)
        talk = Talk(connection, orders[1:], unasked=not orders or words[0] != b"descriptors")
        await talk.hold()
        self.pid = connection.pid()
        if not self.pid or (talk.is_over and not orders):
            raise SynosError(errno.EAGAIN, "the child has been ended before it was one")
        self.is_executed = talk.is_over
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

    async def collect(self) -> None:
        """Wait until something has become of it. It is reaped as it ends, which saves who waits for it the asking.

        Who waits and is cancelled takes it all the same when it ``is_reaped``: then this returns.
        """
        assert self.parent is not None
        changed = self.parent.child_changed
        self._collectors += 1
        self._is_collected |= self._maker.told(b"collect", self._serial)
        try:
            await changed.wait()
        except trio.Cancelled:
            await self._keep()
            if not self.is_reaped:
                raise
        else:
            await self._keep()

    async def _keep(self) -> None:
        """It is to be a zombie when it ends, unless somebody else waits for it or it has ended."""
        self._collectors -= 1
        if self._is_collected and not self._collectors and self.ended is None:
            self._is_collected = False
            with trio.CancelScope(shield=True):
                await self._maker.ask(b"keep", self._serial)

    def changed(self, change: Change, *, is_reaped: bool) -> None:
        """What its maker says has become of it."""
        if change.code in _ENDS:
            self.ended, self.is_reaped = change, is_reaped
        else:
            self.stopped = change
        if self.parent is not None:
            self.parent.notice()

    async def reap(self) -> None:
        """It has been waited for; returns when its pid is free."""
        self._leave()
        if not self.is_reaped:
            await self._maker.ask(b"reap", self._serial)

    def let_go(self) -> None:
        """Nobody will wait for it. While it is no program, it ends."""
        if self.parent is not None and not self.is_reaped:
            self._maker.tell(b"let_go", self._serial)
        self._leave()

    def _leave(self) -> None:
        self._disconnect()
        self._maker.forget(self._serial)
        if self.parent is not None:
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
        self._asked: dict[int, trio.Event] = {}
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

    async def order(self, words: Words, fds: list[int]) -> None:
        try:
            await send_soon(self._orders, words, fds)
        except OSError as error:
            message = f"the program that makes children has ended ({error.strerror}); try again"
            raise SynosError(errno.EAGAIN, message) from None

    async def ask(self, word: bytes, serial: int) -> None:
        """Order, and wait until that is done, or the maker has ended."""
        self._serial += 1
        number, done = self._serial, trio.Event()
        self._asked[number] = done
        with suppress(SynosError):
            await self.order([word, serial, number], [])
            await done.wait()
        self._asked.pop(number, None)

    def told(self, word: bytes, serial: int) -> bool:
        """Order what can as well be left undone, and is where there is no room."""
        try:
            forking.send(self._orders, [word, serial], [])
        except OSError:
            return False
        return True

    def tell(self, word: bytes, serial: int) -> None:
        """An order that is carried out later. When the maker has ended, its children are nobody's."""
        if not self.is_over and not self.told(word, serial):
            trio.lowlevel.spawn_system_task(self._tell_late, word, serial, name="an order to make no child")

    def forget(self, serial: int) -> None:
        """What becomes of this child does not matter any more."""
        self._children.pop(serial, None)

    async def _tell_late(self, word: bytes, serial: int) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            await send_soon(self._orders, [word, serial], [])

    def close(self) -> None:
        """It ends, and with it its children that wait."""
        self.is_over = True
        for child in list(self._children.values()):
            parent = child.parent
            child.let_go()
            if parent is not None:
                parent.notice()
        for done in self._asked.values():
            done.set()
        for connection in (self._orders, self._events):
            if connection.fileno() >= 0:
                trio.lowlevel.notify_closing(connection)
            connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)

    async def _listen(self) -> None:
        while self._events.fileno() >= 0:  # it may be closed before this begins
            try:
                await trio.lowlevel.wait_readable(self._events)
                event = self._events.recv(EVENT.size)
            except BlockingIOError:
                continue
            except (trio.ClosedResourceError, OSError):
                return
            if not event:
                break
            serial, is_reaped, code, status, *usage = EVENT.unpack(event)
            if not code:
                if (done := self._asked.pop(serial, None)) is not None:
                    done.set()
            elif (child := self._children.get(serial)) is not None:
                child.changed(Change(code, status, Usage.of(usage)), is_reaped=bool(is_reaped))
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
