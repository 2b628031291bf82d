"""Signals to callers that are blocked in the mount.

A blocked caller sleeps inside the kernel's FUSE client, in state S. When an unblocked signal is pending for it, SIGKILL
included, the kernel sends FUSE_INTERRUPT to the daemon and lets the caller go on sleeping in state D until its request
is answered (``request_wait_answer`` in fs/fuse/dev.c). pyfuse3 does not hand FUSE_INTERRUPT on, but its arrival can be
noticed (``notice``), and the state D then tells who it was for. So an interrupt costs one look at each parked caller,
and nothing is polled between interrupts but a slow look for safety's sake.

The thread that waits is the one that opened the session, unless the descriptor was handed on to a child or another
thread; then it is found by the session's inode number, in the descriptors of the threads that wait in FUSE. Which these
are a program can keep the host from telling, so that is asked in a thread of the daemon's (``Questions``). Some files
show a number that all their sessions share (``shown_inode``); there the thread is taken for a descendant of the process
that opened the session. Where that leaves several, which of the parked calls is whose cannot be known: a signal to one
ends them all.
"""

import errno
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import ClassVar

import trio

from synosfs.errors import SynosError
from synosfs.host import procfs
from synosfs.host.inode import in_use_blocking
from synosfs.host.thread import Questions
from synosfs.mountpoint import sees
from synosfs.syscall_gate.parking import Parked, Parking

#: When to look, in seconds after a notice: the caller may not have fallen asleep again at the first look. Where a look
#: takes so long that the next is due already, that is left out, but never the last.
_LOOKS = (0.0, 0.0005, 0.0025, 0.0125, 0.0625)

#: The bits of an inode number that tell the sessions of one file apart; 0 above them: the file has one number only.
SESSION_BITS = 24

#: So long the host is given to tell which files threads are in, in seconds.
_PATIENCE_S = 0.1

#: So many threads may keep it from that at a time; then nobody is looked for among strangers.
_MOST_UNANSWERED = 64

#: Look this often without a notice, in seconds.
_SLOW_LOOK = 2.0

#: Looking through all threads lets others in after so long, in seconds.
_TURN = 0.0005

#: Look at this many callers in a row, and for at most this share of the time, however often they are signalled.
_SLICE = 25
_SHARE = 0.1


class Waiter:
    """Who waits in the kernel's FUSE client for a session: the thread ``tid`` that opened it, unless the descriptor was
    handed on; then another one, which is found by the session's own ``inode`` number. It is the ``Origin`` of a caller.
    """

    __slots__ = ("inode", "tid")

    #: The mount's device number once it is detached: only who sees it elsewhere may wait any more.
    detached: ClassVar[int | None] = None

    def __init__(self, tid: int, inode: int) -> None:
        self.tid = tid
        self.inode = inode

    def was_interrupted(self) -> bool:
        return _state(self.tid) == "interrupted"

    def let_go(self) -> bool:
        return Waiter.detached is not None and not sees(self.tid, Waiter.detached)


def _waiter(parked: Parked) -> Waiter:
    origin = parked.caller.origin
    assert isinstance(origin, Waiter)
    return origin


class InterruptWatch:
    """Ends parked calls whose caller was signalled, with EINTR; a long write in which none is parked, likewise."""

    def __init__(self, parking: Parking, device: Callable[[], int]) -> None:
        """``device`` tells the mount's device number."""
        self._parking = parking
        self._device = device
        self._in_use = Questions(in_use_blocking, _PATIENCE_S, _MOST_UNANSWERED)
        self._noticed = trio.Event()
        #: Calls whose waiter was seen to wait for them.
        self._seen: set[Parked] = set()

    def notice(self) -> None:
        """A message came through FUSE that no handler got: probably an interrupt."""
        self._noticed.set()

    async def run(self) -> None:
        """Run for as long as the daemon does."""
        while True:
            with trio.move_on_after(_SLOW_LOOK):
                await self._noticed.wait()
            looks = _LOOKS if self._noticed.is_set() else _LOOKS[-1:]
            self._noticed = trio.Event()
            began = trio.current_time()
            for due, next_due in pairwise((*looks, math.inf)):
                if trio.current_time() < began + next_due:
                    await trio.sleep_until(began + due)
                    if not self._parking.interruptible():
                        break
                    await self._look(last=next_due == math.inf)

    async def _look(self, *, last: bool) -> None:
        """Look at every caller, in slices between which others are served."""
        strangers, unsure = [], []
        began = time.perf_counter()
        callers = self._parking.interruptible()
        waiters = Counter(_waiter(parked).tid for parked in callers)
        inodes = Counter(_waiter(parked).inode for parked in callers)
        self._seen.intersection_update(callers)
        for count, parked in enumerate(callers, start=1):
            if count % _SLICE == 0:
                await trio.sleep((time.perf_counter() - began) / _SHARE)
                began = time.perf_counter()
            tid, inode = _waiter(parked).tid, _waiter(parked).inode
            # A thread waits in one call at a time: of two, one is another thread's.
            state = _state(tid, parked in self._seen) if waiters[tid] == inodes[inode] == 1 else "elsewhere"
            if state == "waiting" and parked not in self._seen:
                unsure.append(parked)
            if state == "interrupted":
                _end(parked)
            elif state == "elsewhere" or (last and state == "running"):
                strangers.append(parked)
        in_use = await self._in_use.answers([_waiter(parked).tid for parked in unsure if _waiter(parked).inode])
        for parked in unsure:
            tid, inode = _waiter(parked).tid, _waiter(parked).inode
            if not inode or (tid in in_use and self._may_be_in(in_use[tid], inode)):
                self._seen.add(parked)
            else:
                strangers.append(parked)  # or the host has not answered: then it is asked again
        if strangers:
            await self._look_for(strangers)

    async def _look_for(self, strangers: list[Parked]) -> None:
        """Find who waits for these among all threads of the host, and end those of who was signalled."""
        began = time.perf_counter()
        signalled = []
        for tid in _threads():
            if procfs.waits_for_fuse(tid) and _state(tid) == "interrupted":
                signalled.append(tid)
            if time.perf_counter() - began > _TURN:
                await trio.lowlevel.checkpoint()
                began = time.perf_counter()
        found = await self._in_use.answers(signalled)
        still = set(self._parking.interruptible())
        strangers = [parked for parked in strangers if parked in still]
        for tid, in_use in found.items():
            if in_use is not None and in_use[0] == self._device() and _state(tid) == "interrupted":
                for parked in _calls_of(tid, in_use[1], strangers):
                    _end(parked)

    def _may_be_in(self, in_use: tuple[int, int] | None, inode: int) -> bool:
        """Whether the file that a thread waits in may be this one: it may wait in another, of another mount even. None:
        the daemon may not see it.
        """
        return in_use is None or (in_use[0] == self._device() and in_use[1] in (inode, shown_inode(inode)))


def shown_inode(inode: int) -> int:
    """The number that stat(2) and /proc/<pid>/fdinfo show of an inode: its own, or one that it shares with all inodes
    of one file (``fs.inodes``), in its upper bits.
    """
    return inode >> SESSION_BITS or inode


def _calls_of(tid: int, inode: int, strangers: list[Parked]) -> list[Parked]:
    """Those of the parked calls that the thread may be waiting for, in a file that shows this number."""
    own = [parked for parked in strangers if _waiter(parked).inode == inode]
    if own:
        return own
    sharing = [parked for parked in strangers if shown_inode(_waiter(parked).inode) == inode]
    ancestors = set(procfs.ancestors(tid))
    return [parked for parked in sharing if parked.caller.process.pid in ancestors] or sharing


def _end(parked: Parked) -> None:
    parked.end(SynosError(errno.EINTR, f"{parked.what}: interrupted by a signal"))


def _state(tid: int, seen: bool = False) -> str:
    """``waiting`` in FUSE, ``interrupted`` there, ``running`` (perhaps on its way to either), or ``elsewhere``.

    ``seen``: it was seen waiting for a call that is parked still, so if it sleeps it does there.
    """
    try:
        state = procfs.state(tid)
    except ProcessLookupError:
        return "elsewhere"
    except OSError:  # no descriptor left to look with: look again later
        return "waiting"
    if state == "R":
        return "running"
    if state not in ("S", "D"):  # such as a zombie, whose process lives on in its other threads
        return "elsewhere"
    if state == "S" and seen:
        return "waiting"
    if procfs.waits_for_fuse(tid) is False:
        return "elsewhere"
    return "interrupted" if state == "D" else "waiting"


def _threads() -> Iterator[int]:
    """All threads of the host, bit by bit: there can be tens of thousands, of one user's."""
    for process in _numbers("/proc"):
        yield from _numbers(f"/proc/{process}/task")


def _numbers(directory: str) -> Iterator[int]:
    with suppress(OSError), os.scandir(directory) as entries:  # it may have ended
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)
