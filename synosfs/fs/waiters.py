"""Who waits on the whole host, for what, and behind whom: SynOS processes (``kernel.parking``) and native programs
(``process.sleepers``) alike. ``waiting`` and ``advice`` render it, each for who looks (``fs.looker``).

``Waiters`` lives as long as the mount. One look at a time is made, and serves all who came before it began. What
/proc tells of many processes is of no one moment, so a deadlock is told of only where a second look finds the same
threads in the same calls, and each other behind them: who was in a call at both times was in it between them.
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from synosfs.errors import SynosError
from synosfs.host import abi, procfs
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.ipc.verdict import Deed, Fate, Use, fate
from synosfs.kernel import Kernel
from synosfs.process import blocked_calls, waits
from synosfs.process.blocked_calls import NOTHING, Object
from synosfs.process.host_process import HostProcess, Stranger
from synosfs.process.sleepers import Ends, Sleeper, Sleepers
from synosfs.process.waits import Deadlock, Holders, Steps, T
from synosfs.slices import Line, Slices
from synosfs.syscall_gate.parking import Parked

#: In the names of the kernel functions that threads sleep in who wait for what is told of here: __do_semtimedop,
#: do_msgrcv, wq_sleep (POSIX queues), anon_pipe_read, futex_do_wait.
_CHANNELS = ("sem", "msg", "wq_sleep", "pipe", "futex")

#: So often is looked again, in seconds, and for no more than a twentieth of the time, until nobody has asked for so
#: long.
_LOOK_S = 1.0
_SHARE = 20
_INTEREST_S = 60.0


class Waiter(NamedTuple):
    """One thread that waits. ``process`` is whose call it is; ``since`` on the monotonic clock, None when this look is
    the first that saw it; ``ends``: it has a time-out. Just one of ``parked`` and ``sleeper`` is there.
    """

    process: Stranger
    tid: int
    program: str
    state: str
    since: float | None
    call: str
    object: Object
    ends: bool
    parked: Parked | None = None
    sleeper: Sleeper | None = None

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(slots=True)
class Look:
    """What one look has found. ``holders`` are those that can end the waits for an object, and ``hints`` the pids that
    have to do with it otherwise: who sent to a queue last may send again. ``dead``: who operated last on a semaphore
    and has ended. ``late``: pids that could not be looked at in time.
    """

    began: float
    waiters: list[Waiter] = field(default_factory=list)
    holders: dict[Object, Holders] = field(default_factory=dict)
    hints: dict[Object, int] = field(default_factory=dict)
    dead: dict[Object, tuple[int, str]] = field(default_factory=dict)
    deadlocks: list[Deadlock[Object]] = field(default_factory=list)
    late: frozenset[int] = frozenset()
    #: Threads that only others of their process can wake.
    idle: frozenset[int] = frozenset()


class Waiters:
    """One for the mount. Used from the trio thread only."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._sleepers = Sleepers()
        self._lock = trio.StrictFIFOLock()
        #: Its own: whoever has much under way must not hold up those who wait for the same look.
        self._line = Line()
        self._last = Look(float("-inf"))
        self._asked = float("-inf")
        #: When each native wait was seen first: by its thread, and how often that had run.
        self._seen: dict[tuple[int, int, int], float] = {}

    async def look(self) -> Look:
        """A look that begins now, or one that began since this was asked for."""
        self._asked = time.monotonic()
        return await self._look_since(self._asked)

    async def watch(self) -> None:
        """Look on while somebody waits and somebody asks, so that it is known since when natives do."""
        while True:
            await trio.sleep(_LOOK_S)
            began = time.monotonic()
            if self._last.waiters and began - self._asked < _INTEREST_S:
                await self._look_since(began - _LOOK_S / 2)
                await trio.sleep(_SHARE * (time.monotonic() - began))

    async def _look_since(self, when: float) -> Look:
        async with self._lock:
            if self._last.began < when:
                self._last = await self._look(Slices(self._line))
            return self._last

    def close(self) -> None:
        self._sleepers.close()

    async def _look(self, slices: Slices) -> Look:
        look = Look(time.monotonic())
        own = os.getpid()
        threads = await self._kernel.witnesses.threads_in(_CHANNELS, slices)
        asked = await self._sleepers.ask((thread for thread in threads if thread[0] != own), slices)
        look.late, look.idle = asked.late, asked.idle
        look.waiters = [*await self._natives(asked.sleepers, slices), *await self._parked(slices)]
        await self._judge(look, slices)
        if look.deadlocks:
            await self._confirm(look, slices)
        return look

    async def _natives(self, sleepers: Iterable[Sleeper], slices: Slices) -> list[Waiter]:
        now, seen, found = time.monotonic(), {}, []
        for sleeper in sleepers:
            place = sleeper.pid, sleeper.tid, sleeper.runs
            since = self._seen.get(place)
            seen[place] = now if since is None else since
            found.append(
                Waiter(
                    Stranger(self._kernel.processes, sleeper.pid, sleeper.start_time),
                    sleeper.tid,
                    sleeper.program,
                    sleeper.state,
                    since,
                    blocked_calls.shown(sleeper),
                    _blocked_at(blocked_calls.about(sleeper), sleeper.operations),
                    sleeper.call == "semtimedop" and bool(sleeper.args[3]),
                    sleeper=sleeper,
                )
            )
            await slices.pause()
        self._seen = seen
        return found

    async def _parked(self, slices: Slices) -> list[Waiter]:
        found = []
        for parked in self._kernel.parking:
            await slices.pause()
            process = parked.caller.process
            try:
                program, state = procfs.command(process.pid), procfs.state(parked.caller.tid)
            except ProcessLookupError:
                continue  # it is being told so
            stranger = Stranger(self._kernel.processes, process.pid, process.start_time)
            about, ends = _about(parked), parked.ends or _has_time_out(parked)
            found.append(
                Waiter(
                    stranger, parked.caller.tid, program, state, parked.since, parked.what, about, ends, parked=parked
                )
            )
        return found

    # --- who holds ---------------------------------------------------------------------------------------------------

    async def _judge(self, look: Look, slices: Slices) -> None:
        """Find who holds what is waited for, and who waits in a circle."""
        pipes = {int(waiter.object.name) for waiter in look.waiters if waiter.object.kind in _PIPE}
        ends = await self._sleepers.ends(pipes, slices) if pipes else Ends({}, {}, complete=True)
        wanted: dict[int, list[Object]] = {}
        seeking: dict[Object, set[int]] = {}
        for waiter in look.waiters:
            seeking.setdefault(waiter.object, set()).add(waiter.pid)
            await slices.pause()
        asked: set[Object] = set()
        for waiter in look.waiters:
            await slices.pause()
            thing = waiter.object
            if thing not in asked:
                asked.add(thing)
                if thing.kind in _PIPE:
                    await self._hold_pipe(look, waiter, ends, slices)
                else:
                    self._hold(look, waiter, seeking[thing])
            # One with a time-out ends by itself: as far as that goes, nobody holds what it waits for.
            wanted.setdefault(waiter.pid, []).append(NOTHING if waiter.ends else thing)
        # Others may make calls in the name of a process that does not wait for them.
        asleep = {waiter.tid for waiter in look.waiters if waiter.parked is None or waiter.parked.caller.by_itself}
        asleep |= look.idle
        for pid, things in list(wanted.items()):
            held = all(thing in look.holders and look.holders[thing].pids for thing in things)
            if not (held and _is_asleep(pid, asleep)):
                del wanted[pid]  # it can help others, whatever some of its threads wait for
            await slices.pause()
        look.deadlocks = await _in_slices(waits.deadlocks(wanted, look.holders), slices)

    def _hold(self, look: Look, waiter: Waiter, seeking: set[int]) -> None:
        thing = waiter.object
        try:
            if thing.kind == "sem" and thing.num >= 0:
                self._hold_semaphore(look, thing, seeking)
            elif thing.kind == "msg":
                self._hint_queue(look, waiter)
        except SynosError:
            pass  # it is gone, or not the daemon's to read

    def _hold_semaphore(self, look: Look, thing: Object, seeking: set[int]) -> None:
        """Who has taken of it by SEM_UNDO through the gate; else who operated on it last. One that seeks it too is
        rather a consumer that has taken the last of what others give.
        """
        semid, books = int(thing.name), self._kernel.ipc
        holders = frozenset(
            owner.pid for owner in books.undo.holders(semid, thing.num) if isinstance(owner, HostProcess)
        )
        if holders:
            look.holders[thing] = Holders(holders, exact=True)
            return
        semaphores = SemaphoreSet(semid)
        last = books.semaphore_pid(semid, thing.num, semaphores.figure(thing.num, abi.GETPID))
        if last in seeking:
            return
        status = semaphores.status_any()
        use = Use(Deed.OPERATED, last, max(status.otime, status.ctime))
        [witness] = self._kernel.witnesses.look(names=True).witnesses([use])
        match fate(witness):
            case Fate.ALIVE:
                look.holders[thing] = Holders(frozenset({last}))
            case Fate.DEAD | Fate.ANOTHER:
                look.dead[thing] = last, witness.program

    def _hint_queue(self, look: Look, waiter: Waiter) -> None:
        status = self._kernel.ipc.with_true_pids(MessageQueue(int(waiter.object.name)).status_any())
        peer = status.lrpid if waiter.call.startswith("msgsnd") else status.lspid
        if peer and procfs.is_there(peer):
            look.hints[waiter.object] = peer

    async def _hold_pipe(self, look: Look, waiter: Waiter, ends: Ends, slices: Slices) -> None:
        """Those that have the other end: who reads waits for who can write."""
        inode, other = int(waiter.object.name), "w" if waiter.object.kind == "data" else "r"
        pids = (ends.writers if other == "w" else ends.readers).get(inode, frozenset())
        own = os.getpid()
        if own in pids:  # the daemon has it for others
            pids -= {own}
            for process in self._kernel.processes:
                for record in process.own_descriptors() or ():
                    if record.ipc_id == str(inode) and other in record.permissions:
                        pids |= {process.pid}
                await slices.pause()
        if pids != {waiter.pid}:  # one that has both ends alone may have a handler of signals that serves it
            look.holders[waiter.object] = Holders(pids, exact=ends.complete)

    async def _confirm(self, look: Look, slices: Slices) -> None:
        """Keep the deadlocks that a second look finds too."""
        threads = [(pid, tid) for pid in {waiter.pid for waiter in look.waiters} for tid in _threads(pid)]
        asked = await self._sleepers.ask(threads, slices)
        runs = {sleeper.tid: sleeper.runs for sleeper in asked.sleepers}
        again = Look(look.began, idle=asked.idle)
        for waiter in look.waiters:
            if waiter.parked is not None:
                still = waiter.parked in self._kernel.parking and _about(waiter.parked) == waiter.object
            else:
                assert waiter.sleeper is not None
                thing = _blocked_at(blocked_calls.about(waiter.sleeper), waiter.sleeper.operations)
                still = runs.get(waiter.tid) == waiter.sleeper.runs and thing == waiter.object
            if still:
                again.waiters.append(waiter)
            await slices.pause()
        await self._judge(again, slices)
        before = [dict(deadlock.waits) for deadlock in look.deadlocks]
        look.deadlocks = [found for found in again.deadlocks if dict(found.waits) in before]
        look.holders.update(again.holders)


#: Pipes: one waits for data in it, or for room.
_PIPE = ("data", "room")


def _about(parked: Parked) -> Object:
    """What a call at the gate is about, as far as it is known who could end it."""
    if parked.row is None or parked.row.about is None:
        return NOTHING
    kind, place = parked.row.about
    if kind == "sem":
        return _blocked_at(Object(kind, parked.values[place]), parked.values[1])
    if kind == "msg":
        return Object(kind, parked.values[place])
    description = parked.about
    if description is None:
        return NOTHING
    match description.file_type:
        case "mqueue":
            return Object("mqueue", description.ipc_id)
        case "sem":
            return Object("semaphore", description.ipc_id)
        case "fifo":
            return Object("fifo", description.path)
        case "pipe":
            return Object("data" if description.readable else "room", int(description.ipc_id))
    return NOTHING


def _has_time_out(parked: Parked) -> bool:
    return parked.row is not None and parked.row.name == "semtimedop" and parked.values[2] is not None


def _blocked_at(thing: Object, operations: Sequence[tuple[int, int, int]] | None) -> Object:
    """Which semaphore of the set the operations wait for: the first that does not let its operation be done."""
    if thing.kind != "sem" or not operations:
        return thing
    if len(operations) == 1:
        return _at(thing, operations[0])
    values: dict[int, int] = {}
    try:
        nums = sorted({num for num, _, _ in operations})
        values = dict(zip(nums, SemaphoreSet(int(thing.name)).figures(nums, abi.GETVAL), strict=True))
    except SynosError:
        return thing  # it is gone, or not the daemon's to read
    for operation in operations:
        num, delta, _ = operation
        if values[num] + delta < 0 or (not delta and values[num]):
            return _at(thing, operation)
        values[num] += delta
    return thing  # it is about to go on


def _at(thing: Object, operation: tuple[int, int, int]) -> Object:
    num, delta, _ = operation
    return Object("sem" if delta else "zero", thing.name, num)


def _is_asleep(pid: int, asleep: set[int]) -> bool:
    """Whether every thread of the process waits, so that it has none to help others with."""
    threads = _threads(pid)
    return bool(threads) and asleep.issuperset(threads)


def _threads(pid: int) -> list[int]:
    try:
        return list(procfs.threads(pid))
    except ProcessLookupError:
        return []


async def _in_slices(steps: Steps[T], slices: Slices) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        await slices.pause()
