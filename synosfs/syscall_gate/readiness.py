"""Readiness, as poll(2) means it, of things that the host can poll and of things that it cannot.

A ``Source`` tells what is ready now, and what to *watch* to learn of more (``watches``). A host descriptor is polled; a
System V queue or semaphore, which the host cannot poll, has a thread that sleeps in a call which takes nothing
(``MessageQueue.wait_message``, ``SemaphoreSet.wait_allows_taking``). For room in a full queue, any of several
semaphores, and a POSIX semaphore there is no such call: these are looked at.

Rights are never borrowed here: ``ready``, and ``reached`` of a watch, run with those of the calling thread, which are
to be the source's ``credentials``. The dispatcher lends them, and ``with_rights`` does where it has not. EACCES is for
who may not know what it asks for.

An empty message is the one thing a watcher cannot leave where it is: it is sent back, and so goes to the queue's end.
A look at a queue for a type does so only behind the messages that it can copy in a short time.
"""

import os
import select
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from errno import E2BIG, EFBIG, EIDRM, EINVAL, ENOSYS
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.posix_sem import Semaphore
from synosfs.ipc.sysv_msg import MessageQueue, QueueStatus
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.syscall_gate.caller import Watchers

T = TypeVar("T")

IN = select.POLLIN | select.POLLRDNORM
OUT = select.POLLOUT | select.POLLWRNORM
#: What is reported whether asked for or not (poll(2)).
ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL

_GONE = select.POLLERR | select.POLLHUP

#: So many messages at the front of a queue are copied to see of which types they are: some 100 µs.
_COPIED = 32


def with_rights(credentials: Credentials, look: Callable[[], T]) -> T:
    """Look with these rights, from where none are lent."""
    with rights.acting_as(credentials):
        return look()


class Watch(NamedTuple):
    """One thing to wait for. Watches with the same ``key`` wait for the same thing, and see it with the same rights.

    ``sleep`` returns when it may have come about: in a host thread (``in_thread``), or on a descriptor. Without it, and
    where there are threads enough, ``reached`` is asked now and then.
    """

    key: Hashable
    credentials: Credentials
    reached: Callable[[], bool]
    sleep: Callable[[], Awaitable[None]] | None = None
    in_thread: bool = False


class Look:
    """One look at many things, with one caller's rights: what is found out of one queue serves all who ask."""

    def __init__(self) -> None:
        self._statuses: dict[MessageQueue, QueueStatus] = {}
        self._empty: dict[MessageQueue, bool] = {}
        self._first_types: dict[MessageQueue, tuple[list[int], bool]] = {}

    def status(self, queue: MessageQueue) -> QueueStatus:
        found = self._statuses.get(queue)
        if found is None:
            found = self._statuses[queue] = queue.status_any()
        return found

    def is_empty(self, queue: MessageQueue) -> bool:
        """Asked with the right to read: EACCES. Nothing is taken: the first message is copied."""
        if queue not in self._empty:
            try:
                queue.peek(0)
                self._empty[queue] = False
            except WouldBlock:
                self._empty[queue] = True
            except SynosError as error:
                if error.errno not in (E2BIG, ENOSYS):
                    raise
                # ENOSYS: the host makes no copies (CONFIG_CHECKPOINT_RESTORE); it tells everybody how many there are.
                self._empty[queue] = error.errno == ENOSYS and not self.status(queue).qnum
        return self._empty[queue]

    def first_types(self, queue: MessageQueue) -> tuple[list[int], bool]:
        """The types of the messages at the front that could be copied, and whether these are all there are."""
        found = self._first_types.get(queue)
        if found is None:
            types: list[int] = []
            is_all = False
            try:
                while len(types) < _COPIED:
                    types.append(queue.peek(len(types)).mtype)
            except WouldBlock:
                is_all = True
            except SynosError as error:
                if error.errno not in (E2BIG, ENOSYS):
                    raise
            found = self._first_types[queue] = (types, is_all)
        return found


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
            yield Watch(key, self.credentials, reached, self._wait_message, in_thread=True)
        if events & OUT:
            yield Watch(("msgq", self._queue.msqid, OUT), rights.OWN, partial(_reached, self, OUT))

    def _has_message(self, look: Look) -> bool:
        if look.is_empty(self._queue):
            return False
        if self._mtype == 0:
            return True
        types, is_all = look.first_types(self._queue)
        if any(mtype == self._mtype or mtype <= -self._mtype for mtype in types):
            return True
        return not is_all and self._has_message_behind()

    def _has_message_behind(self) -> bool:
        """One call, which walks through the queue in the host, and takes the message only if it is empty."""
        try:
            taken = self._queue.receive_nowait(0, self._mtype)
        except WouldBlock:
            return False
        except SynosError as error:
            if error.errno != E2BIG:
                raise
        else:
            self._parking.give_back(partial(self._queue.send_nowait, taken.mtype, taken.data))
        return True

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
    """A host descriptor of the daemon's. Who watches it sees to it that it is not closed meanwhile."""

    credentials = rights.OWN

    def __init__(self, host_fd: int) -> None:
        self.key = ("descriptor", host_fd)
        self._host_fd = host_fd

    def ready(self, events: int, look: Look) -> int:
        poll = select.poll()
        poll.register(self._host_fd, IN | OUT)
        return next((revents for _, revents in poll.poll(0)), 0)

    def watches(self, events: int) -> Iterator[Watch]:
        for event, wait in ((IN, trio.lowlevel.wait_readable), (OUT, trio.lowlevel.wait_writable)):
            if events & event:
                yield Watch(
                    (*self.key, event), self.credentials, partial(_reached, self, event), partial(self._wait, wait)
                )

    async def _wait(self, wait: Callable[[int], Awaitable[None]]) -> None:
        # A number of its own: trio lets one task wait for each, and a blocked read may wait for the original.
        fd = os.dup(self._host_fd)
        try:
            await wait(fd)
        finally:
            os.close(fd)


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
