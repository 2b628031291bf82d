"""Readiness, as poll(2) means it, of things that the host can poll and of things that it cannot.

A ``Source`` tells what is ready now, and waits for more. A host descriptor is polled; a System V queue or semaphore,
which the host cannot poll, has a thread that sleeps in a call which takes nothing (``MessageQueue.wait_message``,
``SemaphoreSet.wait_allows_taking``). For room in a full queue, any of several semaphores, and a POSIX semaphore there
is no such call: these are looked at, at growing intervals, while somebody waits.

An empty message is the one thing a watcher cannot leave where it is: it is sent back, and so goes to the queue's end.
"""

import os
import select
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from errno import EIDRM, EINVAL
from functools import partial
from typing import Any, Protocol

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.posix_sem import Semaphore
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.syscall_gate.caller import Watchers

IN = select.POLLIN | select.POLLRDNORM
OUT = select.POLLOUT | select.POLLWRNORM
#: What is reported whether asked for or not (poll(2)).
ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL

#: How often to look at what cannot be waited for, in seconds: at first, and at most.
_FIRST_LOOK, _SLOWEST_LOOK = 0.001, 0.05


class Source(Protocol):
    """Something that can be ready."""

    def ready(self) -> int:
        """The events that hold now, as poll(2)'s revents; POLLERR | POLLHUP when the thing is gone."""
        ...

    async def wait(self, events: int) -> None:
        """Return when one of ``events`` may hold, or the thing is gone."""
        ...


class QueueSource:
    """A System V message queue; ``mtype`` selects the messages that count as input."""

    def __init__(self, parking: Watchers, credentials: Credentials, queue: MessageQueue, mtype: int = 0) -> None:
        self._parking = parking
        self._credentials = credentials
        self._queue = queue
        self._mtype = mtype

    def ready(self) -> int:
        try:
            status = self._queue.status_any()
            room = OUT if status.qnum < status.qbytes and status.cbytes < status.qbytes else 0
            return room | (IN if status.qnum and self._has_message() else 0)
        except SynosError as error:
            if error.errno != EINVAL:
                raise
            return select.POLLERR | select.POLLHUP

    async def wait(self, events: int) -> None:
        waits: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if events & IN:
            waits.append(self._wait_message)
        if events & OUT:
            waits.append(self._wait_room)
        await first_of(waits)

    def _has_message(self) -> bool:
        if self._mtype == 0:
            return True
        with rights.acting_as(self._credentials):
            index = 0
            while True:
                try:
                    found = self._queue.peek(index).mtype
                except WouldBlock:
                    return False
                if found == self._mtype or found <= -self._mtype:
                    return True
                index += 1

    async def _wait_message(self) -> None:
        with _gone_is_ready():
            watch = partial(self._queue.wait_message, self._mtype)
            taken = await self._parking.watch(self._credentials, watch)
            if taken is not None:
                self._parking.give_back(partial(self._queue.send_nowait, taken.mtype, taken.data))

    async def _wait_room(self) -> None:
        await _look_until(lambda: self.ready() & (OUT | ALWAYS))


class SemaphoreSource:
    """A System V semaphore; without ``num`` a whole set, which has input when any of its semaphores has.

    Input is there when a decrement by 1 would not wait. An increment never waits.
    """

    def __init__(
        self, parking: Watchers, credentials: Credentials, semaphores: SemaphoreSet, num: int | None = None
    ) -> None:
        self._parking = parking
        self._credentials = credentials
        self._semaphores = semaphores
        self._num = num

    def ready(self) -> int:
        try:
            with rights.acting_as(self._credentials):
                if self._num is None:
                    return OUT | (IN if any(self._semaphores.values()) else 0)
                return OUT | (IN if self._semaphores.allows_taking(self._num) else 0)
        except SynosError as error:
            if error.errno not in (EINVAL, EIDRM):
                raise
            return select.POLLERR | select.POLLHUP

    async def wait(self, events: int) -> None:
        if not events & IN:
            await trio.sleep_forever()
        with _gone_is_ready():
            num = 0 if self._num is None and self._semaphores.status_any().nsems == 1 else self._num
            if num is None:
                await _look_until(lambda: self.ready() & (IN | ALWAYS))
            else:
                await self._parking.watch(self._credentials, partial(self._semaphores.wait_allows_taking, num))


class PosixSemaphoreSource:
    """A POSIX semaphore: input when its value is above 0. A post never waits."""

    def __init__(self, semaphore: Semaphore) -> None:
        self._semaphore = semaphore

    def ready(self) -> int:
        return OUT | (IN if self._semaphore.value() else 0)

    async def wait(self, events: int) -> None:
        # A sleeper on its futex would take the wake-up that a post has for one of those who wait.
        await _look_until(lambda: self.ready() & events)


class Fixed:
    """What stays as it is: a number that is not open, or that poll(2) is to pass over."""

    def __init__(self, revents: int) -> None:
        self._revents = revents

    def ready(self) -> int:
        return self._revents

    async def wait(self, events: int) -> None:
        await trio.sleep_forever()


class DescriptorSource:
    """A host descriptor of the daemon's."""

    def __init__(self, host_fd: int) -> None:
        self._host_fd = host_fd

    def ready(self) -> int:
        poll = select.poll()
        poll.register(self._host_fd, IN | OUT)
        return next((revents for _, revents in poll.poll(0)), 0)

    async def wait(self, events: int) -> None:
        # A number of its own: trio lets one task wait for each, and a blocked read may wait for the original.
        fd = os.dup(self._host_fd)
        try:
            waits: list[Callable[[], Coroutine[Any, Any, None]]] = []
            if events & IN:
                waits.append(partial(trio.lowlevel.wait_readable, fd))
            if events & OUT:
                waits.append(partial(trio.lowlevel.wait_writable, fd))
            await first_of(waits)
        finally:
            os.close(fd)


@contextmanager
def _gone_is_ready() -> Iterator[None]:
    """An object that is removed ends the wait: ``ready`` then says so. Any other error is for who waits."""
    try:
        yield
    except SynosError as error:
        if error.errno not in (EINVAL, EIDRM):
            raise


async def _look_until(reached: Callable[[], int]) -> None:
    pause = _FIRST_LOOK
    while not reached():
        await trio.sleep(pause)
        pause = min(2 * pause, _SLOWEST_LOOK)


async def first_of(waits: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Run all until one of them returns, or fails with a SynosError, which is raised; for ever when there are none."""
    if not waits:
        await trio.sleep_forever()
    failures: list[SynosError] = []
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
            try:
                await wait()
            except SynosError as failure:
                failures.append(failure)
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(run, wait)
    if failures:
        raise failures[0]
