"""Readiness, as poll(2) means it, of things that the host can poll and of things that it cannot.

A ``Source`` tells what is ready now, and waits for more. A host descriptor is polled; a System V queue or semaphore
set, which the host cannot poll, has a thread that sleeps in a call which takes nothing
(``MessageQueue.wait_message``). Room in a full queue is the one thing no such call can wait for: it is looked for, at
growing intervals, while somebody waits for it.

An empty message is the one thing a watcher cannot leave where it is: it is sent back, and so goes to the queue's end.
"""

import os
import select
from collections.abc import Callable, Coroutine
from errno import EINVAL
from functools import partial
from typing import Any, Protocol

import trio

from synosfs.credentials import Credentials
from synosfs.errors import SynosError, WouldBlock
from synosfs.ipc import host
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.syscall_gate.parking import Parking

IN = select.POLLIN | select.POLLRDNORM
OUT = select.POLLOUT | select.POLLWRNORM
#: What is reported whether asked for or not (poll(2)).
ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL

#: How often to look for room in a full queue, in seconds: at first, and at most.
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

    def __init__(self, parking: Parking, credentials: Credentials, queue: MessageQueue, mtype: int = 0) -> None:
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
        with host.acting_as(self._credentials):
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
        try:
            watch = partial(self._queue.wait_message, self._mtype)
            taken = await self._parking.watch(self._credentials, watch)
        except SynosError:
            return  # removed: ``ready`` says so
        if taken is not None:
            self._queue.send_nowait(taken.mtype, taken.data)

    async def _wait_room(self) -> None:
        pause = _FIRST_LOOK
        while not self.ready() & (OUT | ALWAYS):
            await trio.sleep(pause)
            pause = min(2 * pause, _SLOWEST_LOOK)


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


async def first_of(waits: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Run all until one of them returns; for ever when there are none."""
    if not waits:
        await trio.sleep_forever()
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(run, wait)
