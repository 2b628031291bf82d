"""Readiness, as poll(2) means it, of things that the host can poll and of things that it cannot.

A ``Source`` tells what is ready now, and what to *watch* to learn of more (``watches``). A host descriptor is polled; a
System V queue or semaphore, which the host cannot poll, has a thread that sleeps in a call which takes nothing
(``MessageQueue.wait_message``, ``SemaphoreSet.wait_allows_taking``). For room in a full queue, any of several
semaphores, and a POSIX semaphore there is no such call: these are looked at.

Rights are never borrowed here: ``ready``, and ``reached`` of a watch, run with those of the calling thread, which are
to be the source's ``credentials``. The dispatcher lends them, and ``with_rights`` does where it has not. EACCES is for
who may not know what it asks for.

A look takes nothing, ever. Of which types the messages are, it learns by copying them one by one (MSG_COPY), for which
the host walks to each: 32 take 0.1 ms, 16,384 take 2 s. So a look copies the first few, and where that does not answer,
the source is *unsure*. Who has time has more copied, bit by bit (``Look.copy_more``), up to a bound; who waits has the
watch's word, whose host call sees a message wherever it is: ``tells``. Receiving with no room at all (E2BIG) would
answer in one call, but would take a message that is empty.

So does the call in which a watcher sleeps: an empty message is the one thing that it cannot leave where it is. It is
sent back, and so goes to the queue's end: at once by the thread that sleeps, with its rights, else from here. A daemon
that is killed in between takes it along.
"""

import os
import select
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from errno import EFBIG, EIDRM, EINVAL, ENOSYS
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.posix_sem import Semaphore
from synosfs.ipc.sysv_msg import MessageQueue, QueueStatus
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.process.descriptors import Description, held
from synosfs.process.process import Process

T = TypeVar("T")

IN = select.POLLIN | select.POLLRDNORM
OUT = select.POLLOUT | select.POLLWRNORM
#: What is reported whether asked for or not (poll(2)).
ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL

_GONE = select.POLLERR | select.POLLHUP

#: So many messages at the front of a queue are copied at once, and so many in the end: some 0.1 ms, and 0.15 s.
_COPIED, _MOST_COPIED = 32, 4096


def with_rights(credentials: Credentials, look: Callable[[], T]) -> T:
    """Look with these rights, from where none are lent."""
    with rights.acting_as(credentials):
        return look()


class Watchers(Protocol):
    """What handlers ask of ``parking.Parking``: to wait for what the host cannot poll, and to end what waits."""

    async def watch(self, credentials: Credentials, call: Callable[[], T]) -> T:
        """Run a host call that blocks and takes nothing, in a thread of its own. Cancelling interrupts it."""
        ...

    def give_back(self, send: Callable[[], object]) -> None:
        """Put back what had to be taken."""
        ...

    def interrupt(self, process: Process, tid: int | None, number: int) -> int:
        """End the parked calls of a thread, or of all threads, with this errno; how many there were."""
        ...


class Watch(NamedTuple):
    """One thing to wait for. Watches with the same ``key`` wait for the same thing, and see it with the same rights.

    ``sleep`` returns when it may have come about: in a host thread (``in_thread``), or on a descriptor. Without it, and
    where there are threads enough, ``reached`` is asked now and then. ``tells``: an event that held when ``sleep``
    returned, or the thing is gone; a look may not see it.
    """

    key: Hashable
    credentials: Credentials
    reached: Callable[[], bool]
    sleep: Callable[[], Awaitable[None]] | None = None
    in_thread: bool = False
    tells: int = 0


class _Front:
    """The types of the first ``count`` messages of a queue; ``is_all``: there are no more."""

    __slots__ = ("count", "is_all", "types")

    def __init__(self) -> None:
        self.types: set[int] = set()
        self.count = 0
        self.is_all = False

    def copy(self, queue: MessageQueue, most: int) -> None:
        try:
            for _ in range(most):
                self.types.add(queue.peek(self.count).mtype)
                self.count += 1
        except WouldBlock:
            self.is_all = True
        except SynosError as error:
            if error.errno != ENOSYS:  # the host makes no copies (CONFIG_CHECKPOINT_RESTORE)
                raise


class Look:
    """One look at many things, with one caller's rights: what is found out of one queue serves all who ask.

    ``unsure`` are the sources, by key, whose input may be behind the messages that have been copied.
    """

    def __init__(self) -> None:
        self._statuses: dict[MessageQueue, QueueStatus] = {}
        self._readable: dict[MessageQueue, QueueStatus] = {}
        self._fronts: dict[MessageQueue, _Front] = {}
        self.unsure: dict[Hashable, MessageQueue] = {}

    def status(self, queue: MessageQueue) -> QueueStatus:
        found = self._statuses.get(queue)
        if found is None:
            found = self._statuses[queue] = queue.status_any()
        return found

    def is_empty(self, queue: MessageQueue) -> bool:
        """Asked with the right to read: EACCES."""
        found = self._readable.get(queue)
        if found is None:
            found = self._readable[queue] = queue.status()
        return not found.qnum

    def has_type(self, key: Hashable, queue: MessageQueue, mtype: int) -> bool:
        """Whether a message that ``mtype`` selects, other than 0, is among those that have been copied. If none is, and
        there are more, the source of this ``key`` is unsure.
        """
        front = self._fronts.get(queue)
        if front is None:
            front = self._fronts[queue] = _Front()
            front.copy(queue, _COPIED)
        if mtype in front.types or (mtype < 0 and min(front.types, default=1 - mtype) <= -mtype):
            self.unsure.pop(key, None)
            return True
        if front.is_all:
            self.unsure.pop(key, None)
        else:
            self.unsure[key] = queue
        return False

    def copy_more(self) -> Iterator[None]:
        """Copy more of the queues of unsure sources, a few messages a step. Who is asked again then knows more."""
        for queue in set(self.unsure.values()):
            front = self._fronts[queue]
            while not front.is_all and front.count < _MOST_COPIED:
                before = front.count
                with _gone_is_ready():
                    front.copy(queue, _COPIED // 4)
                if front.count == before:
                    break
                yield


class Source(Protocol):
    """Something that can be ready; ``key`` is the same for the same thing."""

    @property
    def key(self) -> Hashable: ...
    @property
    def credentials(self) -> Credentials: ...

    def ready(self, events: int, look: Look) -> int:
        """Which of the events hold now, as poll(2)'s revents, and others perhaps; _GONE when the thing is gone."""
        ...

    def watches(self, events: int) -> Iterator[Watch]:
        """What to watch for these events, none of which holds now; or the thing is gone."""
        ...


class QueueSource:
    """A System V message queue; ``mtype`` selects the messages that count as input. Room is no secret (msgctl(2),
    MSG_STAT_ANY); whether there is input, and of which type, is for who may read.
    """

    def __init__(self, parking: Watchers, credentials: Credentials, queue: MessageQueue, mtype: int = 0) -> None:
        self.key = ("msgq", queue.msqid, mtype)
        self.credentials = credentials
        self._parking = parking
        self._queue = queue
        self._mtype = mtype

    def ready(self, events: int, look: Look) -> int:
        try:
            status = look.status(self._queue)
            room = OUT if status.qnum < status.qbytes and status.cbytes < status.qbytes else 0
            return room | (IN if events & IN and self._has_message(look) else 0)
        except SynosError as error:
            if error.errno not in (EINVAL, EIDRM):
                raise
            return _GONE

    def watches(self, events: int) -> Iterator[Watch]:
        if events & IN:
            key = (*self.key, IN, self.credentials)
            reached = partial(_reached, self, IN)
            yield Watch(key, self.credentials, reached, self._wait_message, in_thread=True, tells=IN)
        if events & OUT:
            yield Watch(("msgq", self._queue.msqid, OUT), rights.OWN, partial(_reached, self, OUT))
        yield from _end(self, events)

    def _has_message(self, look: Look) -> bool:
        if look.is_empty(self._queue):
            return False
        return self._mtype == 0 or look.has_type(self.key, self._queue, self._mtype)

    async def _wait_message(self) -> None:
        with _gone_is_ready():
            watch = partial(self._queue.wait_message, self._mtype)
            taken = await self._parking.watch(self.credentials, watch)
            if taken is not None:
                self._parking.give_back(partial(self._queue.send_nowait, taken.mtype, taken.data))


class SemaphoreSource:
    """A System V semaphore; without ``num`` a whole set, which has input when any of its semaphores has.

    Input is there when a decrement by 1 would not wait. An increment never waits.
    """

    def __init__(
        self, parking: Watchers, credentials: Credentials, semaphores: SemaphoreSet, num: int | None = None
    ) -> None:
        self.key = ("sem", semaphores.semid, num)
        self.credentials = credentials
        self._parking = parking
        self._semaphores = semaphores
        self._num = num

    def ready(self, events: int, look: Look) -> int:
        try:
            if not events & IN:
                nsems = self._semaphores.status_any().nsems
                if self._num is not None and self._num >= nsems:
                    raise SynosError(EFBIG, f"set {self._semaphores.semid} has {nsems} semaphores")
                return OUT
            if self._num is None:
                return OUT | (IN if any(self._semaphores.values()) else 0)
            return OUT | (IN if self._semaphores.allows_taking(self._num) else 0)
        except SynosError as error:
            if error.errno not in (EINVAL, EIDRM):
                raise
            return _GONE

    def watches(self, events: int) -> Iterator[Watch]:
        if events & IN:
            num = self._num
            if num is None:
                with _gone_is_ready():
                    num = 0 if self._semaphores.status_any().nsems == 1 else None
            sleep = None if num is None else partial(self._wait_allows_taking, num)
            key = ("sem", self._semaphores.semid, num, self.credentials)
            yield Watch(key, self.credentials, partial(_reached, self, IN), sleep, in_thread=True)
        yield from _end(self, events)

    async def _wait_allows_taking(self, num: int) -> None:
        with _gone_is_ready():
            await self._parking.watch(self.credentials, partial(self._semaphores.wait_allows_taking, num))


class PosixSemaphoreSource:
    """A POSIX semaphore: input when its value is above 0. A post never waits."""

    credentials = rights.OWN

    def __init__(self, semaphore: Semaphore) -> None:
        self.key = ("posix semaphore", id(semaphore))
        self._semaphore = semaphore

    def ready(self, events: int, look: Look) -> int:
        return OUT | (IN if self._semaphore.value() else 0)

    def watches(self, events: int) -> Iterator[Watch]:
        # A sleeper on its futex would take the wake-up that a post has for one of those who wait.
        if events & IN:
            yield Watch(self.key, self.credentials, partial(_reached, self, IN))


class Fixed:
    """What stays as it is: a number that is not open, or that poll(2) is to pass over."""

    credentials = rights.OWN

    def __init__(self, revents: int) -> None:
        self.key = ("fixed", revents)
        self._revents = revents

    def ready(self, events: int, look: Look) -> int:
        return self._revents

    def watches(self, events: int) -> Iterator[Watch]:
        return iter(())


class DescriptorSource:
    """A host descriptor of the daemon's, of a kind that the host can tell of without delay: a pipe, FIFO, socket,
    POSIX queue or event. Not of a file, which may belong to a file system that asks others (fuse_file_poll).
    """

    credentials = rights.OWN

    def __init__(self, description: Description) -> None:
        self.key = ("descriptor", description.host_fd)
        self._description = description

    def ready(self, events: int, look: Look) -> int:
        poll = select.poll()
        poll.register(self._description.host_fd, IN | OUT)
        return next((revents for _, revents in poll.poll(0)), 0)

    def watches(self, events: int) -> Iterator[Watch]:
        for event, wait in ((IN, trio.lowlevel.wait_readable), (OUT, trio.lowlevel.wait_writable)):
            if events & event:
                yield Watch(
                    (*self.key, event), self.credentials, partial(_reached, self, event), partial(self._wait, wait)
                )
        yield from _end(self, events)

    async def _wait(self, wait: Callable[[int], Awaitable[None]]) -> None:
        if not self._description.references:
            return  # released before this task had its turn: the number may be another's
        # Held, so that the copy is never the last of them: closing a FIFO can take long (see ``Description.apart``).
        with held(self._description):
            # A number of its own: trio lets one task wait for each, and a blocked read may wait for the original.
            fd = os.dup(self._description.host_fd)
            try:
                await wait(fd)
            finally:
                os.close(fd)


def _end(source: Source, events: int) -> Iterator[Watch]:
    """For who waits for nothing else: that it is gone, or broken, is told unasked."""
    if events & ALWAYS and not events & (IN | OUT):
        yield Watch(("end", source.key, source.credentials), source.credentials, partial(_reached, source, 0))


def _reached(source: Source, event: int) -> bool:
    return bool(source.ready(event, Look()) & (event | ALWAYS))


@contextmanager
def _gone_is_ready() -> Iterator[None]:
    """An object that is removed ends the wait: ``ready`` then says so. Any other error is for who waits."""
    try:
        yield
    except SynosError as error:
        if error.errno not in (EINVAL, EIDRM):
            raise
