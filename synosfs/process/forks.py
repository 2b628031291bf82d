"""Children of SynOS processes, from fork(2) to wait(2).

A child is made by a small program (``host/fork_program.c``), one for each user, and is a process of the host's from its
first moment, with a pid of its own, its parent's rights, limits, directories and environment. It *waits*: orders
prepare it, and ``execute`` turns it into a program. Who forked it is its parent here; to the host that is the program
that made it.

Invariants: the connection to a child that waits is the one reason for it to live, so that it goes with its parent and
with the daemon. One that has ended stays a zombie until it is waited for, or its parent ends.

``Birth`` and ``Child.order`` talk to a child and may sleep: they belong in a thread. Everything else is used from the
trio thread only.
"""

import errno
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

import trio

from synosfs.errors import SynosError, printable
from synosfs.host import file, forking, program
from synosfs.host.forking import ANSWER, EVENT, MOST_FDS, counted
from synosfs.host.heritage import Heritage
from synosfs.host.thread import leave_apart
from synosfs.process.accounts import Account

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


class Program(NamedTuple):
    """What a child is to become: execve(2). ``numbers`` are the descriptors that it will have, each one of the child's
    own (by its number), or what is called to make one. It begins in ``directory`` (a descriptor; -1: where the child
    is), or where the path ``chdir`` leads to from there.
    """

    path: bytes
    argv: list[bytes]
    environment: dict[bytes, bytes]
    umask: int
    numbers: dict[int, "int | Callable[[], int]"]
    directory: int = -1
    chdir: bytes | None = None


class Parent(Protocol):
    """What is wanted of a SynOS process that has children."""

    pid: int
    account: Account
    children: dict[int, "Child"]
    child_changed: trio.Event


class Child:
    """A child, from the order to make it until it is waited for."""

    def __init__(self, maker: "Maker", serial: int, parent: Parent) -> None:
        self.maker = maker
        self.serial = serial
        self.parent: Parent | None = parent
        self.pid = 0
        self.connection: socket.socket | None = None
        self.environment: dict[bytes, bytes] = {}
        #: The resource limits that its program will have; until then it has the daemon's.
        self.limits: list[tuple[int, int]] = []
        self.stopped: Change | None = None
        self.ended: Change | None = None
        self.is_executed = False

    @property
    def waits(self) -> bool:
        """Whether it is still no program of its own."""
        return self.connection is not None and self.ended is None and not self.is_executed

    def ordered(self, *words: bytes | int) -> "Talk":
        """Something for it to do, done once what this answers has been called. ECHILD: it waits no more."""
        return Talk(self, lambda: [(list(words), [])])

    def executes(self, program: Program) -> "Talk":
        """As ``ordered``: to become a program."""
        return Talk(self, partial(_execution, program, self.limits))

    def close_connection(self) -> None:
        """A child that waits ends by this."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def changed(self, change: Change) -> None:
        """What its maker says has become of it."""
        if change.code in _ENDS:
            self.ended = change
            self.close_connection()
        else:
            self.stopped = change
        if self.parent is not None:
            self.parent.child_changed.set()
            self.parent.child_changed = trio.Event()

    def reap(self) -> None:
        """It has been waited for."""
        self._leave(b"reap")

    def let_go(self) -> None:
        """Nobody will wait for it. While it is no program, it ends."""
        self._leave(b"let_go")

    def _leave(self, word: bytes) -> None:
        self.close_connection()
        if self.parent is not None:
            self.maker.tell(word, self.serial)
            self.maker.children.pop(self.serial, None)
            self.parent.children.pop(self.pid, None)
            self.parent.account.give_back("children")
            self.parent = None


_Words = list[bytes | int]
_Orders = list[tuple[_Words, list[int]]]


def _execution(program: Program, limits: list[tuple[int, int]]) -> _Orders:
    """The orders that turn a child into a program; they own the descriptors in them."""
    numbers: _Words = []
    fds: list[int] = []
    try:
        for number, source in program.numbers.items():
            if isinstance(source, int):
                numbers += [number, ~source]
            else:
                numbers += [number, len(fds)]
                fds.append(source())
        directory = [os.dup(program.directory)] if program.directory >= 0 else []
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    words: _Words = [
        b"execute",
        program.path,
        *counted(program.argv),
        *counted(name + b"=" + value for name, value in program.environment.items()),
        program.umask,
        program.chdir or b"",
        len(program.numbers),
        *numbers,
        *(bound for limit in limits for bound in limit),
    ]
    return [*_descriptors(fds), (words, directory)]


def _descriptors(fds: list[int]) -> _Orders:
    return [([b"descriptors"], fds[start : start + MOST_FDS]) for start in range(0, len(fds), MOST_FDS)]


class Talk:
    """A conversation with a child that waits: orders, and an answer to each.

    Calling it sends and listens. When a signal interrupts that it can be called again, and goes on where it was.
    """

    def __init__(self, child: Child, orders: Callable[[], _Orders]) -> None:
        self._child = child
        self._make = orders
        self._missing = 0
        self._is_sent = False
        self.values: list[int] = []
        #: The child has become its program, or has ended: there are no answers any more.
        self.is_over = False

    def __call__(self) -> "Talk":
        """The errno that the child answers is raised, with what it was doing then."""
        connection = self._child.connection
        if connection is None:
            raise SynosError(errno.ECHILD, f"process {self._child.pid} does not wait any more")
        if not self._is_sent:
            self._is_sent = True
            self._send(connection)
        while self._missing and not self.is_over:
            self._listen(connection)
        return self

    def expect(self, answers: int) -> None:
        """So many more come unasked."""
        self._missing += answers

    def _send(self, connection: socket.socket) -> None:
        orders = self._make()
        try:
            for words, fds in orders:
                self._missing += 1
                forking.send(connection, words, fds)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):  # these: it has ended, which listening tells
                raise SynosError(error.errno or errno.EIO, f"an order to a child: {error.strerror}") from None
        finally:
            for _, fds in orders:
                for fd in fds:
                    os.close(fd)

    def _listen(self, connection: socket.socket) -> None:
        try:
            answer = file.read_blocking(connection.fileno(), 256)
        except SynosError as error:
            if error.errno != errno.ECONNRESET:
                raise
            answer = b""
        if not answer:
            self.is_over = True
            return
        self._missing -= 1
        # It is its user's by now, who may have tampered with it: nothing here is believed.
        failed, value = ANSWER.unpack_from(answer.ljust(ANSWER.size, b"\xff"))
        if failed:
            self._missing = 0
            doing = printable(answer[ANSWER.size :].decode("utf-8", "replace"))
            raise SynosError(failed if 0 < failed < 4096 else errno.EIO, f"{doing}: {os.strerror(failed).lower()}")
        self.values.append(value)


class Birth:
    """A child that is about to be; with ``program``, at once to become one. To be called as a ``Talk`` is."""

    def __init__(
        self,
        child: Child,
        inherit: Callable[[], Heritage],
        program: Callable[[dict[bytes, bytes]], Program] | None = None,
    ) -> None:
        self.child = child
        self._inherit = inherit
        self._program = program
        self._talk: Talk | None = None
        self._least = 0

    def __call__(self) -> "Birth":
        child = self.child
        if self._talk is None:
            heritage = self._inherit()
            child.environment, child.limits = heritage.environment, heritage.limits
            try:
                child.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    child.maker.order(b"fork", child.serial, [theirs.fileno()])
            except BaseException:
                heritage.close()
                raise
            self._talk = Talk(child, partial(self._orders, heritage))
            self._talk.expect(1)  # first of all it tells its pid
        self._talk()
        if len(self._talk.values) < self._least:
            raise SynosError(errno.EAGAIN, "the child has been ended before it was one")
        child.pid = self._talk.values[0]
        child.is_executed = self._talk.is_over
        return self

    def _orders(self, heritage: Heritage) -> _Orders:
        orders: _Orders = [*_descriptors(heritage.streams), ([b"become", *heritage.terms], heritage.fds)]
        self._least = 1 + len(orders)
        if self._program is not None:
            orders += _execution(self._program(heritage.environment), heritage.limits)
        return orders


class Maker:
    """The program that makes one user's children, started when the first is wanted."""

    def __init__(self) -> None:
        self.children: dict[int, Child] = {}
        self._orders, self._their_orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._events, self._their_events = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._events.setblocking(False)
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.is_over = False
        trio.lowlevel.spawn_system_task(self._listen, name="what becomes of children")

    def order(self, word: bytes, serial: int, fds: list[int]) -> None:
        """In a thread: it may have to be started, and may be busy."""
        with self._starting:
            if self._process is None:
                self._process = program.start([forking.PROGRAM], self._their_orders, self._their_events)
                self._their_orders.close()
                self._their_events.close()
        try:
            forking.send(self._orders, [word, serial], fds)
        except OSError as error:
            message = f"the program that makes children has ended ({error.strerror}); try again"
            raise SynosError(errno.EAGAIN, message) from None

    def tell(self, word: bytes, serial: int) -> None:
        """From the main thread; nothing to tell when it was never started, or has ended."""
        with suppress(OSError):
            try:
                forking.send(self._orders, [word, serial], [], socket.MSG_DONTWAIT)
            except BlockingIOError:  # it is busy, and so are others who order from it
                leave_apart(partial(self._tell_late, word, serial))

    def _tell_late(self, word: bytes, serial: int) -> None:
        with suppress(OSError):
            forking.send(self._orders, [word, serial], [])

    def close(self) -> None:
        """It ends, and with it its children that wait."""
        self.is_over = True
        for child in list(self.children.values()):
            child.close_connection()
        self._orders.close()
        self._events.close()
        with suppress(ProcessLookupError):
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    async def _listen(self) -> None:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._events)
                event = self._events.recv(1024)
            except BlockingIOError:
                continue
            except (trio.ClosedResourceError, OSError):
                return
            if not event:
                break
            serial, _, code, status, *usage = EVENT.unpack(event)
            child = self.children.get(serial)
            if child is not None:
                child.changed(Change(code, status, Usage.of(usage)))
        self.is_over = True
        if self.children:
            log.error("the program that makes children has ended: %d are not waited for", len(self.children))
        for child in list(self.children.values()):
            child.let_go()


class Forks:
    """Every user's."""

    def __init__(self) -> None:
        self._makers: dict[int, Maker] = {}
        self._serial = 0

    def child(self, parent: Parent) -> Child:
        """One that is to be born. EAGAIN: its user has too many."""
        parent.account.charge("children")
        maker = self._makers.get(parent.account.uid)
        if maker is None or maker.is_over:
            maker = self._makers[parent.account.uid] = Maker()
        self._serial += 1
        child = maker.children[self._serial] = Child(maker, self._serial, parent)
        return child

    def close(self) -> None:
        for maker in self._makers.values():
            maker.close()

    def statistics(self) -> int:
        """How many children there are."""
        return sum(len(maker.children) for maker in self._makers.values())
