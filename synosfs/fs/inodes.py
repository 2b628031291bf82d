"""Inode numbers: which node a number of the kernel's means.

The kernel counts its references to an inode (one for each lookup, create and readdirplus entry) and gives them back
with forget; a number is dropped when the count is zero. Equal nodes share a number.

The kernel also locks an inode while it is being written, so a number of a *fresh* node, whose writes can block, is open
for writing once at most. A look-up gives a number that is not; an open that comes too late, because another has opened
the same number since the look-up, is refused with ESTALE, upon which the kernel looks the name up again, once
(``do_filp_open`` in fs/namei.c), and is given a number reserved for the thread: the second try cannot be too late. So
the name of a fresh node may be kept by the kernel as any other.

Such a second look-up takes the name's other number from the kernel, and so whoever else is at theirs has to look again:
a thousand threads at once would make a million look-ups. So they are told one at a time: who comes too late while
another is on the way back waits in *line* until that one has come, or is overdue. A line takes its users in turn. Who
is signalled while waiting in it cannot be told apart from who is killed: it is told in its turn as the others are, and
nobody waits for it to come.

A name that was listed is kept longer, and it may be removed meanwhile, for which the kernel locks the inode too. So a
fresh node is listed with a number that is never open for writing; who opens it so is sent to look the name up.

stat(2) is to show one number for one file, or cp(1) takes it for replaced between two looks. So a fresh node that is
``steady`` has numbers whose upper bits are the node's, and these alone are shown (``shown_inode``).
"""

import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from errno import ECANCELED, ESTALE
from typing import NamedTuple

import trio

from synosfs.errors import SynosError
from synosfs.fs.interrupts import SESSION_BITS, Waiter
from synosfs.fs.node import Node

ROOT = 1

#: For how long those in line wait for the one who was told to come again, in seconds. It takes some 200 µs.
_OVERDUE = 0.05

#: Look for threads that died on their way back when so many more are on it than at the last look.
_MANY = 1000


class InodeStatistics(NamedTuple):
    """``look_ups`` are all numbers given but for listings, ``refused`` the opens that came too late, of which so many
    ``waited`` in line, or are ``waiting`` now; ``overdue`` never came again, or not in time.
    """

    numbers: int
    written: int
    look_ups: int
    refused: int
    waiting: int
    waited: int
    overdue: int


@dataclass(slots=True)
class _Retry:
    """A thread whose open of a number was refused, and the number that was then reserved for it."""

    node: Node
    refused: int
    reserved: int = 0


@dataclass(slots=True, eq=False)
class _Late:
    """An open that waits in line; ``failure`` is how it ended, once ``ended``."""

    inode: int
    tid: int
    ended: trio.Event = field(default_factory=trio.Event)
    failure: Exception | None = None


class _Line:
    """Those who came too late for one node: who was told and is on the way back, and who waits, by user."""

    def __init__(self) -> None:
        self.told = 0
        self.told_at = 0.0
        self.came = trio.Event()
        self.is_served = False
        self._waiting: dict[int, deque[_Late]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def tell(self, tid: int) -> None:
        self.told, self.told_at, self.came = tid, time.monotonic(), trio.Event()

    def come(self) -> None:
        self.told = 0
        self.came.set()

    def join(self, uid: int, late: _Late) -> None:
        self._waiting.setdefault(uid, deque()).append(late)

    def next(self) -> _Late:
        """Take the longest waiting of the user who was not served for the longest time."""
        uid, theirs = next(iter(self._waiting.items()))
        late = theirs.popleft()
        del self._waiting[uid]
        if theirs:
            self._waiting[uid] = theirs
        return late

    def leave(self, uid: int, late: _Late) -> None:
        theirs = self._waiting.get(uid)
        if theirs is not None and late in theirs:
            theirs.remove(late)
            if not theirs:
                del self._waiting[uid]


class Inodes:
    """Numbers of nodes. ENOENT never comes from here: the kernel asks only for numbers that it was given."""

    def __init__(self, root: Node) -> None:
        self._nodes: dict[int, Node] = {ROOT: root}
        self._references: dict[int, int] = {ROOT: 1}
        #: The number that the next look-up of a node gets.
        self._numbers: dict[Node, int] = {root: ROOT}
        self._next = ROOT + 1
        #: The numbers under which fresh nodes are listed.
        self._listed: dict[Node, int] = {}
        #: How often a fresh number is open for writing: once, or more by way of /proc/<pid>/fd.
        self._writers: dict[int, int] = {}
        #: The threads that were refused and are to come again, and the numbers reserved for such.
        self._retries: dict[int, _Retry] = {}
        self._reserved: dict[int, int] = {}
        self._look_for_dead_at = _MANY
        #: The nodes that somebody is on the way back to, or waits for.
        self._lines: dict[Node, _Line] = {}
        self._closing = False
        self._look_ups = self._refused = self._waiting = self._waited = self._overdue = 0

    def statistics(self) -> InodeStatistics:
        return InodeStatistics(
            numbers=len(self._nodes),
            written=len(self._writers),
            look_ups=self._look_ups,
            refused=self._refused,
            waiting=self._waiting,
            waited=self._waited,
            overdue=self._overdue,
        )

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, inode: int) -> Node:
        return self._nodes[inode]

    def refer(self, node: Node, tid: int) -> int:
        """The node's number, with one more reference. ``tid`` is the thread that looks it up."""
        self._look_ups += 1
        retry = self._retries.get(tid)
        if retry is not None and retry.node == node:
            if retry.reserved not in self._nodes:
                retry.reserved = self._add(node)
                self._reserved[retry.reserved] = tid
            inode = retry.reserved
        else:
            known = self._numbers.get(node)
            if known is None or known in self._writers or known in self._reserved:
                known = self._numbers[node] = self._add(node)
            inode = known
        self._references[inode] += 1
        return inode

    def refer_listed(self, node: Node) -> int:
        """The number under which a directory lists the node, with one more reference."""
        numbers = self._listed if node.fresh else self._numbers
        inode = numbers.get(node)
        if inode is None:
            inode = numbers[node] = self._add(node)
        self._references[inode] += 1
        return inode

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        for inode, count in inodes:
            left = self._references.get(inode, 0) - count
            if left > 0 or inode == ROOT:
                self._references[inode] = left
            elif inode in self._nodes:
                node = self._nodes.pop(inode)
                del self._references[inode]
                self._reserved.pop(inode, None)
                for numbers in (self._numbers, self._listed):
                    if numbers.get(node) == inode:
                        del numbers[node]

    async def open_in_turn(self, inode: int, tid: int, uid: int) -> None:
        """``open_for_writing``, in line when it comes too late. ECANCELED: the mount is going away."""
        line = self._lines.get(self._nodes[inode]) if self._lines else None
        if line is None or self._closing or not self._is_late(inode, tid):
            self.open_for_writing(inode, tid)
            return
        late = _Late(inode, tid)
        if not line.is_served:
            line.is_served = True
            trio.lowlevel.spawn_system_task(self._serve, self._nodes[inode], line, name="opens in line")
        line.join(uid, late)
        self._waiting += 1
        self._waited += 1
        try:
            await late.ended.wait()
        except trio.Cancelled:
            line.leave(uid, late)
            if late.ended.is_set() and late.failure is None:
                self.close_for_writing(inode)
            raise
        finally:
            self._waiting -= 1
        if late.failure is not None:
            raise late.failure

    def open_for_writing(self, inode: int, tid: int) -> None:
        """A thread opens the number to write. ESTALE: it has a writer, look the name up again.

        An open by way of /proc/<pid>/fd names the inode itself and has nothing to look up: it comes again at once, and
        then shares the number.
        """
        node = self._nodes[inode]
        if not node.fresh:
            return
        late = self._is_late(inode, tid)
        self._retries.pop(tid, None)
        if late:
            self._refused += 1
            self._retries[tid] = _Retry(node, inode)
            self._lines.setdefault(node, _Line()).tell(tid)
            self._forget_dead()
            raise SynosError(ESTALE)
        line = self._lines.get(node)
        if line is not None and line.told == tid:
            line.come()
            if not line:
                del self._lines[node]
        self._reserved.pop(inode, None)
        self._writers[inode] = self._writers.get(inode, 0) + 1

    def close_for_writing(self, inode: int) -> None:
        if inode in self._writers:
            self._writers[inode] -= 1
            if not self._writers[inode]:
                del self._writers[inode]

    def close(self) -> None:
        """Let nobody wait in line any more."""
        self._closing = True
        for line in self._lines.values():
            while line:
                late = line.next()
                late.failure = SynosError(ECANCELED, "the mount is going away")
                late.ended.set()

    def _is_late(self, inode: int, tid: int) -> bool:
        """Whether the number is not, or no longer, for this thread to write to, and it has not been told so yet."""
        node = self._nodes[inode]
        reserved = self._reserved.get(inode, tid) != tid
        if not (inode in self._writers or reserved or self._listed.get(node) == inode):
            return False
        retry = self._retries.get(tid)
        return retry is None or retry.refused != inode

    async def _serve(self, node: Node, line: _Line) -> None:
        """Let those in line open, one at a time. Runs for as long as somebody is in it."""
        while line:
            if line.told:
                with trio.move_on_after(max(0.0, line.told_at + _OVERDUE - time.monotonic())):
                    await line.came.wait()
                if line.told:
                    self._overdue += 1
                    line.told = 0
                continue  # who waited may have gone meanwhile
            late = line.next()
            try:
                self.open_for_writing(late.inode, late.tid)
            except Exception as failure:  # whatever it is, it is for who waits
                late.failure = failure
                if Waiter(late.tid, late.inode).was_interrupted():
                    line.told = 0
            late.ended.set()
            await trio.lowlevel.checkpoint()
        line.is_served = False
        if not line.told and self._lines.get(node) is line:
            del self._lines[node]

    def _forget_dead(self) -> None:
        """Who died on the way back does not come: let nothing remind of it."""
        if len(self._retries) >= self._look_for_dead_at:
            dead = {tid for tid in self._retries if not os.path.exists(f"/proc/{tid}")}
            for tid in dead:
                del self._retries[tid]
            for node, line in [*self._lines.items()]:
                if line.told in dead and not line:
                    del self._lines[node]
            self._look_for_dead_at = len(self._retries) + _MANY

    def _add(self, node: Node) -> int:
        """A new number for the node, with no reference yet."""
        inode = self._unused(node)
        self._nodes[inode] = node
        self._references[inode] = 0
        return inode

    def _unused(self, node: Node) -> int:
        while True:
            number = self._next
            self._next += 1
            if node.steady:
                number = _steady(node) << SESSION_BITS | number & (1 << SESSION_BITS) - 1
            if number not in self._nodes:
                return number


def _steady(node: Node) -> int:
    """A number of 32 bits, above all that are counted, the same for equal nodes."""
    return 1 << 31 | hash((type(node), node)) & (1 << 31) - 1
