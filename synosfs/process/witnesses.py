"""Which processes there are, as far as they tell who uses an object: who has a pid now, who had it, who waits.

``Witnesses`` lives as long as the mount: it remembers the programs of processes that it has seen, by pid and start, and
how the host's clock has been set meanwhile. A ``Look`` is one look at many objects, and asks for each pid once.

The walk over all processes is made in the main thread, in slices. Of those that may sleep in a queue the host is asked
in which, in a thread (``host.thread.Questions``): one that does not let it answer within a second leaves a doubt.
"""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from synosfs.host import procfs
from synosfs.host.arch import CALLS
from synosfs.host.thread import Questions
from synosfs.ipc.verdict import Found, Use, Witness, started_later
from synosfs.slices import Slices

#: Remember the programs of so many processes; then forget the older half.
_MOST = 1 << 16

#: How long the host may take to say what processes sleep in, in seconds.
_PATIENCE_S = 1.0

#: Where a thread may be that waits for a queue: in msgsnd or msgrcv, stopped or frozen there, or not told where.
_MAYBE_WAITING = ("msg", "stop", "freez", "refrigerator")

_WAITING_CALLS = (CALLS["msgsnd"], CALLS["msgrcv"])


class Waiters(NamedTuple):
    """How many threads wait in each queue; the users whose processes could not be looked at, and whether any did not
    answer in time, whosever it is.
    """

    of: Counter[int]
    unseen: frozenset[int]
    is_late: bool


class Witnesses:
    """One for the mount. Used from the trio thread only."""

    def __init__(self) -> None:
        #: Whether every process has a pid in the daemon's pid namespace.
        self.see_all = procfs.sees_all()
        self._programs: dict[int, tuple[float, str]] = {}
        self._least_offset = _clock_offset()
        self._waiting = Questions(_waiting_blocking, _PATIENCE_S, most_unanswered=1)

    def look(self, *, names: bool) -> "Look":
        """A look at the processes as they are now; without ``names`` it tells neither programs nor starts."""
        # Where the clock has been set forward meanwhile, who started before did so earlier than it says now.
        self._least_offset = min(self._least_offset, _clock_offset())
        return Look(self, names)

    def remember(self, pid: int, start_time: int, program: str) -> None:
        """A process runs, or ran, ``program``; it started ``start_time`` ticks after boot."""
        self._programs[pid] = self.started(start_time), program
        if len(self._programs) > _MOST:
            self._programs = dict(list(self._programs.items())[_MOST // 2 :])

    def started(self, start_time: int) -> float:
        """Ticks after boot in seconds since the epoch."""
        return start_time / procfs.TICKS + self._least_offset

    def program(self, use: Use) -> str:
        """What ran in the process that made this use, if it was seen; else ''."""
        started, program = self._programs.get(use.pid, (0.0, ""))
        return "" if started_later(started, use.time) else program

    async def waiters(self, slices: Slices) -> Waiters:
        """Who sleeps in msgsnd or msgrcv, of all processes."""
        maybe = [tid for _, tid in await self.threads_in(_MAYBE_WAITING, slices)]
        told = await self._waiting.answers(maybe)
        queues = Counter(each.queue for each in told.values() if each.queue is not None)
        unseen = frozenset(each.unseen for each in told.values() if each.unseen is not None)
        return Waiters(queues, unseen, len(told) < len(maybe))

    async def threads_in(self, channels: tuple[str, ...], slices: Slices) -> list[tuple[int, int]]:
        """Walk over all processes: the threads (pid, tid) that may sleep in a kernel function with one of these words
        in its name.
        """
        maybe: list[tuple[int, int]] = []
        for pid in procfs.processes():
            if pid == 1 and self.see_all:
                continue  # init, which may be kept from all eyes, and waits in no queue
            with suppress(OSError):  # it has ended
                for tid in procfs.threads(pid):
                    channel = procfs.wait_channel(tid)
                    if channel == "0" or any(word in channel for word in channels):
                        maybe.append((pid, tid))
                    await slices.pause()
        return maybe


class Look:
    """One look. Each pid is asked for once."""

    def __init__(self, witnesses: Witnesses, names: bool) -> None:
        self._witnesses = witnesses
        self._names = names
        self._found: dict[int, Found | None] = {}

    def witnesses(self, uses: Iterable[Use]) -> tuple[Witness, ...]:
        """The uses, with who has the pids now and the programs that had them."""
        return tuple(self._witness(use) for use in uses)

    def _witness(self, use: Use) -> Witness:
        if not use.pid and self._witnesses.see_all:
            use = use._replace(time=0)  # who looked at the bytes of a segment has left a time, and no pid
        if not use.pid or not use.time:
            return Witness(use)
        if use.pid not in self._found:
            self._found[use.pid] = self._find(use.pid)
        found, program = self._found[use.pid], self._witnesses.program(use)
        return Witness(use, found, program) if self._names else Witness(use, found and found._replace(program=""))

    def _find(self, pid: int) -> Found | None:
        """Who has the pid. It may be a thread's: the host names the thread that slept (ipc/msg.c, pipelined_send)."""
        try:
            stat = procfs.stat(pid)
            if stat.state in "ZX" and len([*islice(procfs.threads(pid), 2)]) < 2:
                return None  # a first thread may end before others
        except ProcessLookupError:
            return Found("", 0.0) if procfs.hides_processes() and procfs.is_there(pid) else None
        self._witnesses.remember(pid, stat.start_time, stat.command)
        return Found(stat.command, self._witnesses.started(stat.start_time))


class _Waiting(NamedTuple):
    """The queue that a thread waits in, if it does; the user of one that may not be looked at."""

    queue: int | None = None
    unseen: int | None = None


def _waiting_blocking(tid: int) -> _Waiting:
    try:
        call = procfs.current_call_blocking(tid)
        if call and call[0] in _WAITING_CALLS:
            is_here = procfs.ipc_namespace_blocking(tid) == procfs.ipc_namespace_blocking("self")
            return _Waiting(queue=call[1]) if is_here else _Waiting()
        if call and "msg" in procfs.wait_channel(tid):  # by a number of another ABI
            return _Waiting(unseen=procfs.owner(tid))
    except PermissionError:
        with suppress(OSError):  # it has ended
            return _Waiting(unseen=procfs.owner(tid))
    except OSError:
        pass  # it has ended
    return _Waiting()


def _clock_offset() -> float:
    """What the clock says of the moment when the host was started, in seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
