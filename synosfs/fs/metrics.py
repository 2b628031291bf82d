"""``metrics``: all that is counted here and all objects of the IPC namespace, whoever made them, as OpenMetrics.

Who reads it sees what the host would show them: how full a queue or how large a segment is, is for everybody, as in
``/proc/sysvipc``; the values of a set, and what is in a POSIX queue, for those who may read it. Semaphores are shown
singly up to a bound; of larger sets, and beyond it, there is only how many there are.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from synosfs import __version__
from synosfs.errors import SynosError
from synosfs.fs.msgq import QUEUES
from synosfs.fs.node import Who, credentials_of
from synosfs.fs.observe import Door, look, user_name
from synosfs.fs.openmetrics import Family, labels, text
from synosfs.fs.posix_mq import PosixQueues
from synosfs.fs.sem import SETS
from synosfs.fs.sysv import look_at_all
from synosfs.host import abi, rights
from synosfs.host.credentials import Credentials
from synosfs.ipc import mqueue_fs, posix_mq, sysv_shm
from synosfs.ipc.limits import Forecast, limits, pages
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.kernel import Kernel
from synosfs.process.figures import Figures
from synosfs.slices import Slices
from synosfs.syscall_gate.statistics import named

#: Sets of up to so many semaphores are shown one by one, and so many semaphores in all.
_SMALL_SET, _MOST_SEMAPHORES = 16, 2048

#: So long, in seconds, the names of the POSIX queues are waited for: others can keep the host from telling them.
_PATIENCE_S = 2

#: The buckets end at 1 us, 4 us … 1 s of running, and at 16 us, 65 us … 275 s of being parked.
_RUNNING, _PARKED = range(10, 32, 2), range(14, 40, 2)

#: What never becomes less of the single figures of ``stats``; the others are what there is now.
_COUNTERS = frozenset(
    ("blocked_total", "requests", "interrupts", "look_ups", "opens_too_late", "opens_overdue", "polls")
) | {"watches_started"}


@dataclass
class Metrics:
    """The maker of the file's text, with what it remembers from one look to the next."""

    kernel: Kernel
    door: Door
    forecast: Forecast = field(default_factory=Forecast)

    async def render(self, who: Who, slices: Slices) -> bytearray:
        one = _Exposition(self.kernel, who, slices)
        await one.calls(self.door)
        used = {
            **await one.queues(),
            **await one.sets(),
            **await one.segments(),
            **await one.posix_queues(),
        }
        one.limits(used, self.forecast)
        return await text(one.families, slices)


class _Exposition:
    """One text under way."""

    def __init__(self, kernel: Kernel, who: Who, slices: Slices) -> None:
        self._kernel = kernel
        self._slices = slices
        self._rights: Credentials | None = None
        with suppress(SynosError):  # of another pid namespace: it sees what everybody does
            self._rights = credentials_of(who)
        self.families: list[Family] = []
        self._used = [
            self._family("object_calls", "counter", "calls here on an object"),
            self._family("object_errors", "counter", "calls here on an object that failed"),
            self._family("object_moved_bytes", "counter", "bytes that calls here put into an object or took", "bytes"),
            self._family("object_waits", "counter", "calls here on an object that were parked"),
            self._family("object_running_seconds", "counter", "how long calls here on an object ran", "seconds"),
            self._family("object_parked_seconds", "counter", "how long calls here on an object were parked", "seconds"),
        ]

    def _family(self, name: str, kind: str, told: str, unit: str = "") -> Family:
        family = Family(f"synosfs_{name}", kind, told, unit)
        self.families.append(family)
        return family

    # --- calls ---

    async def calls(self, door: Door) -> None:
        """What was called, by name and by user; and the single figures of the daemon."""
        found = await look(self._kernel, door, self._slices)
        self._family("build_info", "gauge", "1, with the version").add(labels(version=__version__), 1)
        for name, figure in found.head.items():
            kind = "counter" if name in _COUNTERS else "gauge"
            number = figure if isinstance(figure, int) else int(figure == "on")
            self._family(name.removesuffix("_total"), kind, f"{name} of stats").add("", number)
        ipc = self._family("ipc_calls", "counter", "calls that were interprocess communication")
        ipc.add("", found.totals.ipc_calls)
        await self._figures("", "call", found.calls)
        users = [(user_name(uid), figures) for uid, figures in found.users]
        await self._figures("user_", "uid", users)
        held = self._family("held", "gauge", "what a user holds of the daemon")
        most = self._family("held_limit", "gauge", "how much of the daemon a user may hold")
        for each in self._kernel.accounts.statistics():
            for resource, used in each.used.items():
                marked = labels(uid=each.uid, resource=resource)
                held.add(marked, used)
                most.add(marked, each.limits[resource])
            await self._slices.pause()

    async def _figures(self, prefix: str, label: str, found: Iterable[tuple[str, Figures]]) -> None:
        """Of each call a histogram, of each user a summary: of users there are more."""
        kind = "summary" if prefix else "histogram"
        calls = self._family(f"{prefix}calls", "counter", f"calls that have ended, by {label}")
        errors = self._family(f"{prefix}errors", "counter", f"calls that failed, by {label} and errno")
        moved = self._family(f"{prefix}moved_bytes", "counter", f"bytes that calls moved, by {label}", "bytes")
        running = self._family(f"{prefix}running_seconds", kind, f"how long calls ran, by {label}", "seconds")
        parked = self._family(f"{prefix}parked_seconds", kind, f"how long calls were parked, by {label}", "seconds")
        for name, figures in found:
            marked = labels(**{label: name})
            calls.add(marked, figures.count)
            moved.add(marked, figures.bytes)
            for errno, count in named(figures.errnos).items():
                errors.add(f"{marked},{labels(errno=errno)}", count)
            for family, times, octaves in (
                (running, figures.running, _RUNNING),
                (parked, figures.parked, _PARKED),
            ):
                if not times.count:
                    continue
                if kind == "histogram":
                    family.histogram(marked, times, octaves)
                else:
                    family.summary(marked, times)
                await self._slices.pause()

    # --- objects ---

    def _used_by_calls(self, kind: str, name: int | str) -> None:
        usage = self._kernel.ipc.usages.of(kind, name)
        if usage.calls:
            marked = labels(kind=kind, id=name)
            sums = (usage.calls, usage.errors, usage.bytes, usage.waits, usage.running_ns / 1e9, usage.parked_ns / 1e9)
            for family, value in zip(self._used, sums, strict=True):
                family.add(marked, value)

    async def queues(self) -> dict[str, int]:
        """System V message queues. How many there are, by the limit on that; so those below."""
        messages = self._family("queue_messages", "gauge", "messages in a System V queue")
        size = self._family("queue_bytes", "gauge", "bytes of the messages in a System V queue", "bytes")
        most = self._family("queue_limit_bytes", "gauge", "msg_qbytes: bytes that a System V queue may hold", "bytes")
        count = 0
        for listed in look_at_all(self._kernel, QUEUES):
            with suppress(SynosError):  # removed since it was listed
                status = MessageQueue(listed.number).status_any()
                marked = labels(msqid=status.msqid, key=f"{status.key:#x}", uid=status.uid)
                messages.add(marked, status.qnum)
                size.add(marked, status.cbytes)
                most.add(marked, status.qbytes)
                self._used_by_calls("msg", status.msqid)
                count += 1
            await self._slices.pause()
        return {"msgmni": count}

    async def sets(self) -> dict[str, int]:
        """Semaphore sets."""
        size = self._family("set_semaphores", "gauge", "semaphores of a System V set")
        values = self._family("semaphore_value", "gauge", "the value of a System V semaphore")
        waiting = self._family("semaphore_waiting", "gauge", "who waits: GETNCNT for an increase, GETZCNT for zero")
        count = semaphores = shown = 0
        for listed in look_at_all(self._kernel, SETS):
            with suppress(SynosError):
                status = SemaphoreSet(listed.number).status_any()
                marked = labels(semid=status.semid, key=f"{status.key:#x}", uid=status.uid)
                size.add(marked, status.nsems)
                self._used_by_calls("sem", status.semid)
                count += 1
                semaphores += status.nsems
                if status.nsems <= _SMALL_SET and shown + status.nsems <= _MOST_SEMAPHORES:
                    shown += await self._semaphores(status.semid, status.nsems, values, waiting)
            await self._slices.pause()
        self._family("semaphores_shown", "gauge", "semaphores with a value in synosfs_semaphore_value").add("", shown)
        return {"semmni": count, "semmns": semaphores}

    async def _semaphores(self, semid: int, nsems: int, values: Family, waiting: Family) -> int:
        """One by one, for who may read the set; how many."""
        if self._rights is None:
            return 0
        found = SemaphoreSet(semid)
        for num in range(nsems):
            try:
                with rights.acting_as(self._rights):
                    value, *counts = (found.figure(num, command) for command in (abi.GETVAL, abi.GETNCNT, abi.GETZCNT))
            except SynosError:  # it is not for who asks, or gone by now
                return num
            marked = labels(semid=semid, num=num)
            values.add(marked, value)
            for awaited, count in zip(("increase", "zero"), counts, strict=True):
                waiting.add(f'{marked},for="{awaited}"', count)
            await self._slices.pause()  # the host goes through all who wait
        return nsems

    async def segments(self) -> dict[str, int]:
        """Segments of System V shared memory."""
        size = self._family("segment_bytes", "gauge", "the size of a System V segment", "bytes")
        resident = self._family("segment_resident_bytes", "gauge", "what of a segment is in memory", "bytes")
        attached = self._family("segment_attachments", "gauge", "shm_nattch: attachments of a System V segment")
        count = used = 0
        for listed in sysv_shm.listing():
            status = listed.status
            marked = labels(shmid=status.shmid, key=f"{status.key:#x}", uid=status.uid)
            size.add(marked, status.segsz)
            resident.add(marked, listed.rss)
            attached.add(marked, status.nattch)
            self._used_by_calls("shm", status.shmid)
            count += 1
            used += pages(status.segsz)
            await self._slices.pause()
        return {"shmmni": count, "shmall": used}

    async def posix_queues(self) -> dict[str, int]:
        """POSIX message queues, of which there is more to see for who may read them."""
        size = self._family("posix_queue_bytes", "gauge", "bytes of the messages in a POSIX queue", "bytes")
        messages = self._family("posix_queue_messages", "gauge", "messages in a POSIX queue")
        most = self._family("posix_queue_limit_messages", "gauge", "mq_maxmsg: messages that a POSIX queue may hold")
        largest = self._family("posix_queue_message_limit_bytes", "gauge", "mq_msgsize: the largest message", "bytes")
        there = self._family("posix_queue_mode", "gauge", "the permission bits of a POSIX queue")
        names, latest = None, self._kernel.ipc.usages.latest
        with trio.move_on_after(_PATIENCE_S if mqueue_fs.is_seen() else 0):
            names = await trio.to_thread.run_sync(mqueue_fs.names, abandon_on_cancel=True, limiter=PosixQueues.listers)
        listed = self._family("posix_queues_listed", "gauge", "1: all POSIX queues are here; 0: the host did not say")
        listed.add("", int(names is not None))
        if names is not None:
            self._kernel.ipc.usages.keep("mqueue", frozenset(names), latest)
        for name in names or ():
            with suppress(SynosError):  # it is gone, or not for who asks, or somebody has a lease on it
                marked = labels(name=f"/{name}", uid=mqueue_fs.status(name).st_uid)
                there.add(marked, mqueue_fs.status(name).st_mode & 0o777)
                self._used_by_calls("mqueue", name)
                if self._rights is not None:
                    with rights.acting_as(self._rights):
                        line, found = mqueue_fs.line(name), posix_mq.attributes_now(name)
                    size.add(marked, line.qsize)
                    messages.add(marked, found.curmsgs)
                    most.add(marked, found.maxmsg)
                    largest.add(marked, found.msgsize)
            await self._slices.pause()
        return {} if names is None else {"queues_max": len(names)}

    def limits(self, used: dict[str, int], forecast: Forecast) -> None:
        """The limits of the namespace, what is used of each, and when it will be reached."""
        limit = self._family("limit", "gauge", "how many there may be: msgmni queues, semmni sets, shmall pages")
        use = self._family("limit_used", "gauge", "how many there are")
        left = self._family(
            "limit_reached_seconds", "gauge", "how long until ENOSPC at the rate of the last looks", "seconds"
        )
        now = time.monotonic()
        for name, most in limits().items():
            marked = labels(limit=name)
            limit.add(marked, most)
            if name in used:
                use.add(marked, used[name])
                left.add(marked, forecast.seconds(name, used[name], most, now))
