"""Blocked calls, and how each one ends.

Whoever is blocked is *parked* here, with who, what, and since when; ``proc/<pid>/blocked`` and ``stats`` show it. A
parked call ends in one of six ways, and the count of parked callers then falls again:

======================  ==========================================================================================
its result              the host call succeeded, or failed by itself (EIDRM: the object was removed)
EINTR                   a signal, SIGKILL included, reached the caller (``interrupted``)
ETIMEDOUT, or EAGAIN    its time-out passed (the errno of the native timed call, where there is one)
EAGAIN                  at once, on a session opened with O_NONBLOCK: such a call is never parked
ESRCH                   its process died while another process held the session
ECANCELED               the mount is going away (``close``), or is gone from the caller's sight (``detach``)
======================  ==========================================================================================

How a blocked call waits is one of four shapes that a handler may answer with: ``InTurn``, ``WhenReady``,
``OnAvatar``, ``Until``.
"""

import errno
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.host.thread import ThreadPool
from synosfs.ipc.manager import IPCManager
from synosfs.process.descriptors import Description, held
from synosfs.process.table import Process

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How often to try to send back what a full queue does not take, in seconds.
_LOOK_FOR_ROOM = 0.02


class InTurn(msgspec.Struct, frozen=True):
    """Wait without taking, in a line of those who wait for the same thing, then attempt.

    ``watch`` blocks in a host thread until ``attempt`` may succeed, and takes nothing. Only the head of the line
    watches, so a thousand callers who wait for one thing cost one thread and one wake-up, and are served in order.

    A caller that is cancelled has taken nothing: what ``watch`` could not leave where it was, it returns, and that is
    handed to ``give_back`` (see ``Parking.give_back``).
    """

    line: Hashable
    attempt: Callable[[], Any]
    watch: Callable[[], Any]
    give_back: Callable[[Any], None]


class WhenReady(msgspec.Struct, frozen=True):
    """Wait until a host descriptor of the daemon's is readable (or writable), in a line as ``InTurn``, then attempt.

    ``description``, if given, is held for as long as the call waits, so that closing its number meanwhile does not end
    the call (as in Linux). Without it a descriptor that is closed meanwhile is EBADF; who closes it calls
    ``trio.lowlevel.notify_closing`` first. ``so_far`` is asked when the call ends with an error: what it answers (not
    None) is the call's result, because something had been done already.
    """

    attempt: Callable[[], Any]
    host_fd: int
    writable: bool
    description: Description | None = None
    so_far: Callable[[], Any] | None = None


class OnAvatar(msgspec.Struct, frozen=True):
    """The host call itself blocks, in a thread of the caller's avatar.

    ``attempt`` may be None: then the call is made by the avatar from the start (one that leaves a SEM_UNDO entry must).
    ``finish`` makes the answer out of what ``call`` returned, in the main thread. ``description`` as for ``WhenReady``.
    """

    attempt: Callable[[], Any] | None
    call: Callable[[], Any]
    finish: Callable[[Any], Any] | None = None
    description: Description | None = None


class Until(msgspec.Struct, frozen=True):
    """Wait for something that trio can await.

    ``on_timeout`` makes the answer of a call for which a time-out is no error (poll(2)).
    """

    wait: Callable[[], Awaitable[Any]]
    attempt: Callable[[], Any] | None = None
    on_timeout: Callable[[], Any] | None = None


Blocking = InTurn | WhenReady | OnAvatar | Until


@dataclass(slots=True, eq=False)
class Caller:
    """Who makes a call: one open session of one process.

    ``tid`` is the thread that calls, ``waiter`` the one that opened the session and, unless the descriptor was handed
    on, waits in it (another one only on ``proc/<pid>/syscall``); ``inode`` is the session's own inode number, by which
    the waiting thread can be found when it is yet another. ``interrupted`` says that a call was ended from outside,
    even if it had a result by then: the calls that follow it in the same write are not to be made.
    """

    ipc: IPCManager
    parking: "Parking"
    process: Process
    tid: int
    waiter: int
    credentials: Credentials
    nonblock: bool = False
    inode: int = 0
    interrupted: bool = False


@dataclass(slots=True, eq=False)
class Parked:
    """One blocked call; ``since`` on the monotonic clock, in seconds; ``seen``: its waiter was seen to wait for it."""

    caller: Caller
    what: str
    since: float
    scope: trio.CancelScope
    reason: SynosError | None = None
    seen: bool = False

    def end(self, reason: SynosError) -> None:
        """End the call with this error, unless it has a result by the time it can be stopped."""
        if self.reason is None:
            self.reason = reason
            self.caller.interrupted = True
            self.scope.cancel()


class ParkingStatistics(NamedTuple):
    """How many calls are parked now, were ever, and ended by each reason."""

    parked: int
    total: int
    ended: dict[str, int]


class Parking:
    """All parked calls. Used from the trio thread only."""

    def __init__(self) -> None:
        self._parked: set[Parked] = set()
        #: Callers in the middle of a long write, while others are let in.
        self._pausing: set[Parked] = set()
        self._lines: dict[Hashable, tuple[trio.StrictFIFOLock, list[int]]] = {}
        self._watchers = ThreadPool("watcher")
        self._closing = False
        self._detached: Callable[[int], bool] | None = None
        self._emptied = trio.Event()
        self._total = 0
        self._ended: dict[str, int] = {}

    def __iter__(self) -> Iterator[Parked]:
        return iter(list(self._parked))

    def __len__(self) -> int:
        return len(self._parked)

    def interruptible(self) -> list[Parked]:
        """All that a signal to its caller is to end: parked calls, and long writes between two of their requests."""
        return [*self._parked, *self._pausing]

    def statistics(self) -> ParkingStatistics:
        return ParkingStatistics(len(self._parked), self._total, dict(self._ended))

    async def wait(
        self, caller: Caller, what: str, blocking: Blocking, timeout: float | None, timed_out: int = errno.ETIMEDOUT
    ) -> Any:
        """Park until the call has a result. Raises the error that it ends with; ``timed_out`` is the time-out's
        errno.
        """
        if self._closing or (self._detached and self._detached(caller.waiter)):
            raise _going_away()
        parked = Parked(caller, what, time.monotonic(), trio.CancelScope())
        self._parked.add(parked)
        self._total += 1
        ended_by = "result"
        try:
            with parked.scope, trio.move_on_after(float("inf") if timeout is None else timeout):
                return await self._wait(caller, parked, blocking)
            if parked.reason is None and isinstance(blocking, Until) and blocking.on_timeout is not None:
                return blocking.on_timeout()
            error = parked.reason or SynosError(timed_out, f"{what}: nothing came within {timeout:g} s")
            raise error
        except SynosError as error:
            ended_by = errno.errorcode.get(error.errno, str(error.errno))
            if isinstance(blocking, WhenReady) and blocking.so_far and (answer := blocking.so_far()) is not None:
                return answer
            raise
        finally:
            self._parked.discard(parked)
            if not self._parked:
                self._emptied.set()
                self._emptied = trio.Event()
            self._ended[ended_by] = self._ended.get(ended_by, 0) + 1

    async def let_others_in(self, caller: Caller) -> None:
        """Between two requests of a long write. A signal meanwhile makes the caller ``interrupted``."""
        pausing = Parked(caller, "a long write", time.monotonic(), trio.CancelScope())
        self._pausing.add(pausing)
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._pausing.discard(pausing)

    def end_process(self, process: Process) -> None:
        """Its process is dead: nobody is left to take the answers of its sessions."""
        for parked in self:
            if parked.caller.process is process:
                parked.end(SynosError(errno.ESRCH, f"process {process.pid} has ended"))

    def detach(self, unseen: Callable[[int], bool]) -> None:
        """The mount point is gone: from now on nobody is parked whose thread does not see the mount elsewhere, such as
        in another mount namespace.
        """
        self._detached = unseen
        for parked in self:
            if unseen(parked.caller.waiter):
                parked.end(_going_away())

    async def watch(self, credentials: Credentials, call: Callable[[], T]) -> T:
        """Run a host call that blocks and takes nothing, in a thread of its own. Cancelling interrupts it."""
        return await self._watchers.run(credentials, call)

    def give_back(self, send: Callable[[], object]) -> None:
        """Send back what had to be taken: now, or as soon as there is room, while its queue and the daemon exist.

        ``send`` raises WouldBlock while there is no room. When the daemon ends before there is, it is lost.
        """
        try:
            send()
        except WouldBlock:
            trio.lowlevel.spawn_system_task(_send_when_possible, send, name="an empty message back to its queue")
        except SynosError as error:
            _not_given_back(error)

    async def close(self) -> None:
        """End every parked call, park none from now on, and return when all have been answered."""
        self._closing = True
        for parked in self:
            parked.end(_going_away())
        while self._parked:
            await self._emptied.wait()
        self._watchers.close()

    async def _wait(self, caller: Caller, parked: Parked, blocking: Blocking) -> Any:
        match blocking:
            case InTurn(line=line):
                async with self._in_line(line):
                    return await self._wait_in_turn(caller, parked, blocking)
            case WhenReady(host_fd=host_fd, writable=writable, description=description):
                with held(description) if description else nullcontext():
                    async with self._in_line((host_fd, writable)):
                        return await self._wait_ready(caller, parked, blocking)
            case OnAvatar(attempt=attempt, call=call, finish=finish, description=description):
                with held(description) if description else nullcontext():
                    with _known_before(parked) if attempt is not None else nullcontext():
                        result = await caller.process.avatar.run(caller.credentials, call)
                    return finish(result) if finish else result
            case Until(wait=wait):
                return await wait()

    @asynccontextmanager
    async def _in_line(self, line: Hashable) -> AsyncIterator[None]:
        """The body runs when all who came before for the same thing have been served or are gone."""
        lock, users = self._lines.setdefault(line, (trio.StrictFIFOLock(), [0]))
        users[0] += 1
        try:
            async with lock:
                yield
        finally:
            users[0] -= 1
            if not users[0]:
                self._lines.pop(line, None)

    async def _wait_in_turn(self, caller: Caller, parked: Parked, blocking: InTurn) -> Any:
        with _known_before(parked):
            while parked.reason is None:
                with suppress(WouldBlock), rights.acting_as(caller.credentials):
                    return blocking.attempt()
                taken = await self._watchers.run(caller.credentials, blocking.watch)
                if taken is not None:
                    if parked.reason is None:
                        return taken
                    self.give_back(partial(blocking.give_back, taken))
            raise parked.reason

    async def _wait_ready(self, caller: Caller, parked: Parked, blocking: WhenReady) -> Any:
        wait = trio.lowlevel.wait_writable if blocking.writable else trio.lowlevel.wait_readable
        while parked.reason is None:
            with suppress(WouldBlock), rights.acting_as(caller.credentials):
                return blocking.attempt()
            try:
                await wait(blocking.host_fd)
            except trio.ClosedResourceError:
                raise SynosError(errno.EBADF, f"{parked.what}: the descriptor was closed meanwhile") from None
        raise parked.reason


@contextmanager
def _known_before(parked: Parked) -> Iterator[None]:
    """The object was there when the call was attempted: an id that is unknown now was removed meanwhile."""
    try:
        yield
    except SynosError as error:
        if error.errno == errno.EINVAL:
            raise SynosError(errno.EIDRM, f"{parked.what}: the object was removed while the call waited") from None
        raise


async def _send_when_possible(send: Callable[[], object]) -> None:
    """Nothing tells of room in a queue but a send that blocks; a thread for that would outlive the daemon's end."""
    while True:
        await trio.sleep(_LOOK_FOR_ROOM)
        try:
            send()
        except WouldBlock:
            continue
        except SynosError as error:
            _not_given_back(error)
        return


def _not_given_back(error: SynosError) -> None:
    if error.errno not in (errno.EINVAL, errno.EIDRM):  # these: the queue is gone, with all that was in it
        log.warning("an empty message is lost: %s", error.message)


def _going_away() -> SynosError:
    return SynosError(errno.ECANCELED, "the mount is going away")
