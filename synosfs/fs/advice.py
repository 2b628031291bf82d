"""``advice``: what of the waits on this host will not end by itself, and the way out: deadlocks, semaphores that died
with who had taken them, queues that only grow, semaphores near their limit.

Each is shown to who may look into one of the processes, or read the object. What is a guess says so.
"""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from synosfs.errors import SynosError
from synosfs.fs.looker import Looker
from synosfs.fs.waiters import Look, Waiter
from synosfs.host import rights
from synosfs.ipc import sysv_msg, sysv_sem
from synosfs.ipc.sysv_msg import QueueStatus
from synosfs.ipc.sysv_sem import SemaphoreSet, SetStatus
from synosfs.ipc.verdict import named
from synosfs.kernel import Kernel
from synosfs.process.blocked_calls import Object
from synosfs.process.waits import Deadlock, Holders
from synosfs.slices import Slices

#: The most that a semaphore can hold (SEMVMX), and what is near it.
_SEMVMX = 32767
_NEAR = 30_000

#: A queue grows where it was seen to so often, at looks so far apart, in seconds, and nobody received for so long.
_MOST_GROWN = 2
_APART_S = 0.25
_UNRECEIVED_S = 2

#: So many processes of a circle are named.
_MOST_NAMED = 16


@dataclass(slots=True)
class _Growth:
    """A queue as it was when it began to grow, and as it was last seen; how often it was seen to have grown."""

    began: float
    first: int
    seen: float
    last: QueueStatus
    grown: int = 0


class Advice:
    """One for the mount."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._growth: dict[int, _Growth] = {}

    async def text(self, look: Look, looker: Looker, slices: Slices) -> str:
        """What there is to say to who looks."""
        found = [text for deadlock in look.deadlocks if (text := _deadlock(deadlock, look, looker))]
        await slices.pause()
        found += _dead(look, looker)
        found += [each async for each in self._growing(slices)]
        found += [each async for each in _full(looker, slices)]
        return "".join(found) or "nothing to advise\n"

    async def _growing(self, slices: Slices) -> AsyncIterator[str]:
        """Queues that more and more is sent to, and nobody receives from."""
        before, now = self._growth, time.monotonic()
        self._growth = {}
        for status in sysv_msg.listing():
            if status.qnum:
                growth = self._growth[status.msqid] = _grown(before.get(status.msqid), status, now)
                unreceived = time.time() - status.rtime
                if growth.grown >= _MOST_GROWN and unreceived > _UNRECEIVED_S:
                    yield (
                        f"growing: msgq/sysv/{status.msqid} had {growth.first} messages {now - growth.began:.1f} s ago,"
                        f" has {status.qnum} now ({status.cbytes} bytes), and nobody has received meanwhile\n"
                        f"  the way out: start or mend its receiver, or look who sends: pid {status.lspid} did last\n"
                    )
            await slices.pause()


def _grown(before: _Growth | None, status: QueueStatus, now: float) -> _Growth:
    if before is None or status.qnum < before.last.qnum or status.rtime != before.last.rtime:
        return _Growth(now, status.qnum, now, status)
    if now - before.seen >= _APART_S:
        before.grown += status.qnum > before.last.qnum
        before.seen, before.last = now, status
    return before


# --- deadlocks -------------------------------------------------------------------------------------------------------


def _deadlock(deadlock: Deadlock[Object], look: Look, looker: Looker) -> str:
    """Nothing for who may look into none of them."""
    members = [waiter for waiter in look.waiters if waiter.object in deadlock.waits.get(waiter.pid, ())]
    shown = [waiter for waiter in members if looker.may_look_into(waiter.process)]
    if not shown:
        return ""
    count = len(deadlock.waits)
    words = "a process waits for itself" if count == 1 else f"{count} processes wait for each other"
    lines = [f"deadlock ({'exact' if deadlock.exact else 'probable'}): {words}"]
    for waiter in members[:_MOST_NAMED]:
        if waiter in shown:
            holders = look.holders.get(waiter.object, Holders())
            held = " or ".join(f"pid {pid}" for pid in sorted(holders.pids & deadlock.waits.keys()))
            lines.append(
                f"  {_named(waiter)} waits for {waiter.object} in {waiter.call}; {_HOLD[holders.exact]} {held}"
            )
        elif looker.sees(waiter.process):
            lines.append(f"  {_named(waiter)} waits; what for is not yours to see")
    if len(members) > _MOST_NAMED:
        lines.append(f"  and {len(members) - _MOST_NAMED} more")
    return "\n".join([*lines, f"  the shortest way out: {_way_out(shown)}", ""])


_HOLD = {True: "that is with", False: "that was last with"}


def _named(waiter: Waiter) -> str:
    return named(waiter.pid, waiter.program)


def _way_out(waiters: list[Waiter]) -> str:
    """A call at the gate can be ended, and its program goes on; a native one takes a signal."""
    for waiter in waiters:
        if waiter.parked is not None:
            command = f"echo end {waiter.tid} > proc/{waiter.pid}/ctl"
            return f"{command}, which ends {_named(waiter)}'s {_name_of(waiter)} with EINTR"
    waiter = max(waiters, key=lambda each: (each.since or float("inf"), each.pid))  # who has waited shortest
    return f"kill {waiter.pid}, which ends {_named(waiter)} in its {_name_of(waiter)}, unless it handles SIGTERM"


def _name_of(waiter: Waiter) -> str:
    return waiter.call.partition("(")[0]


# --- semaphores ------------------------------------------------------------------------------------------------------


def _dead(look: Look, looker: Looker) -> Iterator[str]:
    """Semaphores that are waited for, and were last with a process that has ended."""
    for thing, (pid, program) in look.dead.items():
        waiters = [
            waiter
            for waiter in look.waiters
            if waiter.object == thing and not waiter.ends and looker.may_look_into(waiter.process)
        ]
        if waiters:
            who = ", ".join(_named(waiter) for waiter in waiters[:_MOST_NAMED])
            more = f" and {len(waiters) - _MOST_NAMED} more" if len(waiters) > _MOST_NAMED else ""
            yield (
                f"dead holder (probable): {named(pid, program)} operated on {thing} last and has ended without"
                f" SEM_UNDO; for it waits {who}{more}\n"
                f"  the way out, if it had taken it: echo {thing.num}:+1:0 > sem/sysv/{thing.name}\n"
            )


async def _full(looker: Looker, slices: Slices) -> AsyncIterator[str]:
    """Semaphores near the most that they can hold, of sets that the looker may read."""
    for status in sysv_sem.listing():
        values = _values(status, looker)
        near = [(num, value) for num, value in enumerate(values) if value >= _NEAR]
        if near:
            num, value = near[0]
            more = f", and so have {len(near) - 1} more of the set" if len(near) > 1 else ""
            yield (
                f"near the limit: semaphore {num} of sem/sysv/{status.semid} has {value} of {_SEMVMX}{more};"
                " giving more will fail with ERANGE\n"
                f"  the way out: take what was given too often, or echo setval {status.semid} {num} 0 > sem/ctl\n"
            )
        await slices.pause()


def _values(status: SetStatus, looker: Looker) -> list[int]:
    if looker.credentials is None:
        return []
    try:
        with rights.acting_as(looker.credentials):
            return SemaphoreSet(status.semid).values(status.nsems)
    except SynosError:
        return []  # not for this user to read, or gone
