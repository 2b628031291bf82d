"""Blocked calls, and how each one ends.

Whoever is blocked is *parked* here, with who, what, and since when; ``proc/<pid>/blocked`` and ``stats`` show it. A
parked call ends in one of seven ways, and the count of parked callers then falls again:

======================  ==========================================================================================
its result              the host call succeeded, or failed by itself (EIDRM: the object was removed)
EINTR                   a signal, SIGKILL included, reached the caller (``Parked.end``, by the door)
any that is asked for   who may act for its process has ended it (``interrupt``)
ETIMEDOUT, or EAGAIN    its time-out passed (the row's ``timed_out``)
EAGAIN                  at once, on a session opened with O_NONBLOCK: such a call is never parked
ESRCH                   its process died while another process held the session
ECANCELED               the mount is going away (``close``), or is gone from the caller's sight (``let_go``)
======================  ==========================================================================================

A call that takes something from an object sleeps in the host itself, with its whole buffer, so that Linux hands it over
and keeps the order. Between a signal to the caller and the end of that sleep lies some time (the door's, and a signal
to the thread): what was taken in it goes back (``give_back``), and so does what came for a caller that the door knows
to be signalled by now.
"""

import errno
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.host.thread import ThreadPool
from synosfs.process.descriptors import Description, held
from synosfs.process.host_process import HostProcess
from synosfs.process.process import Process
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.spec import Row
from synosfs.syscall_gate.waiting import Blocking, InSteps, InThread, OnAvatar, Sleep, Until, WhenReady

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How often to try to send back what a full queue does not take, in seconds.
_LOOK_FOR_ROOM = 0.02


@dataclass(slots=True, eq=False)
class Parked:
    """One blocked call; ``since`` on the monotonic clock, in seconds; ``tid`` the host thread that sleeps for it.

    ``row`` and ``values`` are the call and its arguments, where it is one call; ``about`` the open thing that it names
    by a descriptor; ``ends`` whether it has a time-out.
    """

    caller: Caller
    what: str
    since: float
    scope: trio.CancelScope
    reason: SynosError | None = None
    tid: int = 0
    row: Row | None = None
    values: Sequence[Any] = ()
    about: Description | None = None
    ends: bool = False

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


class FirstSteps(NamedTuple):
    """When each of the calls that one step was enough for was over, on the performance counter, and what ended the rest
    from outside, if anything did.
    """

    over_ns: list[int]
    reason: SynosError | None


class Parking:
    """All parked calls. Used from the trio thread only."""

    def __init__(self) -> None:
        self._parked: set[Parked] = set()
        #: The same by process, the longest waiting first: a thousand that die together are looked for one by one.
        self._of: dict[HostProcess, dict[Parked, None]] = {}
        #: Callers in the middle of a long write, while others are let in.
        self._pausing: set[Parked] = set()
        self._lines: dict[Hashable, tuple[trio.StrictFIFOLock, list[int]]] = {}
        self._threads = ThreadPool("blocked call")
        self._closing = False
        self._emptied = trio.Event()
        self._total = 0
        self._ended: dict[str, int] = {}

    def __iter__(self) -> Iterator[Parked]:
        return iter(list(self._parked))

    def __len__(self) -> int:
        return len(self._parked)

    def __contains__(self, parked: Parked) -> bool:
        return parked in self._parked or parked in self._pausing

    def of(self, process: HostProcess) -> list[Parked]:
        """The parked calls of one process, the longest waiting first."""
        return list(self._of.get(process, ()))

    def interruptible(self) -> list[Parked]:
        """All that a signal to its caller is to end: parked calls, and long writes between two of their requests."""
        return [*self._parked, *self._pausing]

    def statistics(self) -> ParkingStatistics:
        return ParkingStatistics(len(self._parked), self._total, dict(self._ended))

    @contextmanager
    def parked(self, caller: Caller, what: str) -> Iterator[Parked]:
        """The caller is parked for the length of the body. ECANCELED: nobody is any more. EAGAIN: too many of its
        user's calls are.
        """
        if self._closing or caller.origin.let_go():
            raise _going_away()
        account = caller.process.account
        account.charge("waiting")
        parked = Parked(caller, what, time.monotonic(), trio.CancelScope())
        self._parked.add(parked)
        self._of.setdefault(caller.process, {})[parked] = None
        self._total += 1
        ended_by = "result"
        try:
            yield parked
        except SynosError as error:
            ended_by = errno.errorcode.get(error.errno, str(error.errno))
            raise
        finally:
            account.give_back("waiting")
            self._parked.discard(parked)
            own = self._of[caller.process]
            del own[parked]
            if not own:
                del self._of[caller.process]
            if not self._parked:
                self._emptied.set()
                self._emptied = trio.Event()
            self._ended[ended_by] = self._ended.get(ended_by, 0) + 1

    async def wait(self, parked: Parked, blocking: Blocking, timeout: float | None, timed_out: int) -> Any:
        """Wait until the call has a result. Raises the error that it ends with; ``timed_out`` is the time-out's errno,
        ``timeout`` in seconds, None for ever.
        """
        try:
            with parked.scope, trio.move_on_after(float("inf") if timeout is None else timeout):
                return await self._wait(parked, blocking)
            if parked.reason is None and isinstance(blocking, Until) and blocking.on_timeout is not None:
                return blocking.on_timeout()
            raise parked.reason or SynosError(timed_out, f"{parked.what}: nothing came within {timeout:g} s")
        except SynosError:
            if isinstance(blocking, WhenReady | InSteps | Until) and blocking.so_far:
                answer = blocking.so_far()
                if answer is not None:
                    return answer
            raise

    async def first_steps(self, caller: Caller, what: Sequence[str], calls: Sequence[InSteps]) -> FirstSteps:
        """Make the first step of each call, in order, in one job of the avatar's, so that two threads wake for all of
        them and not for each. It stops at one that is not over then. That one is to be waited for alone; so is one that
        failed, whatever the reason: it fails there again. All are parked as one, which shows the one it is at.
        """
        over_ns: list[int] = []
        reason = None
        with ExitStack() as stack, suppress(Exception), self.parked(caller, what[0]) as parked:
            for call in calls:
                for description in call.descriptions:
                    stack.enter_context(held(description))

            def make() -> None:  # it is called again after an EINTR that was not for it
                for place in range(len(over_ns), len(calls)):
                    parked.what = what[place]
                    if parked.reason is not None or not calls[place].first():
                        return
                    over_ns.append(time.perf_counter_ns())

            try:
                with parked.scope:
                    await caller.process.avatar.run(caller.credentials, make)
            finally:
                reason = parked.reason
            if reason is not None and len(over_ns) < len(calls):
                raise reason
        return FirstSteps(over_ns, reason)

    async def let_others_in(self, caller: Caller) -> None:
        """Between two requests of a long write. A signal meanwhile makes the caller ``interrupted``."""
        pausing = Parked(caller, "a long write", time.monotonic(), trio.CancelScope())
        self._pausing.add(pausing)
        try:
            await caller.process.account.line.next_turn()
        finally:
            self._pausing.discard(pausing)

    def end_process(self, process: Process) -> Iterable[None]:
        """Its process is dead: nobody is left to take the answers of its sessions. No steps are left to take."""
        for parked in self.of(process):
            parked.end(SynosError(errno.ESRCH, f"process {process.pid} has ended"))
        return ()

    def interrupt(self, process: Process, tid: int | None, number: int) -> int:
        """End the parked calls of a thread, or of all threads, with this errno; how many there were."""
        found = [parked for parked in self.of(process) if tid in (None, parked.caller.tid)]
        for parked in found:
            parked.end(SynosError(number, f"{parked.what}: ended by interrupt"))
        return len(found)

    def let_go(self) -> None:
        """A door has closed for some: end the calls of those whom it no longer lets wait."""
        for parked in self:
            if parked.caller.origin.let_go():
                parked.end(_going_away())

    async def watch(self, credentials: Credentials, call: Callable[[], T]) -> T:
        """Run a host call that blocks and takes nothing, in a thread of its own. Cancelling interrupts it."""
        return await self._threads.run(credentials, call)

    def give_back(self, send: Callable[[], object]) -> None:
        """Put back what was taken: now, or as soon as there is room, while its object and the daemon exist.

        ``send`` raises WouldBlock while there is no room. When the daemon ends before there is, it is lost.
        """
        try:
            send()
        except WouldBlock:
            trio.lowlevel.spawn_system_task(_send_when_possible, send, name="what was taken, back to where it was")
        except SynosError as error:
            _not_given_back(error)

    async def close(self) -> None:
        """End every parked call, park none from now on, and return when all have been answered."""
        self._closing = True
        for parked in self:
            parked.end(_going_away())
        while self._parked:
            await self._emptied.wait()
        self._threads.close()

    async def _wait(self, parked: Parked, blocking: Blocking) -> Any:
        match blocking:
            case InThread(description=description):
                with held(description) if description else nullcontext():
                    return await self._sleep_in_host(parked, blocking, self._threads)
            case OnAvatar(description=description, uses=uses):
                with ExitStack() as stack:
                    for used in (description, *uses) if description else uses:
                        stack.enter_context(held(used))
                    return await self._sleep_in_host(parked, blocking, parked.caller.process.avatar)
            case WhenReady(host_fd=host_fd, writable=writable, description=description):
                with held(description) if description else nullcontext():
                    async with self._in_line((host_fd, writable)):
                        return await self._wait_ready(parked, blocking)
            case InSteps(step=step, so_far=so_far, descriptions=descriptions):
                with ExitStack() as holding:
                    for description in descriptions:
                        holding.enter_context(held(description))
                    while parked.reason is None:
                        if await parked.caller.process.avatar.run(parked.caller.credentials, step):
                            return so_far()
                    raise parked.reason
            case Until(wait=wait):
                return await wait()
            case Sleep(seconds=seconds):
                await trio.sleep(seconds)
                return 0

    async def _sleep_in_host(self, parked: Parked, blocking: InThread | OnAvatar, threads: ThreadPool) -> Any:
        caller, call = parked.caller, blocking.call

        def sleep() -> Any:
            # The host may name this very thread as who received (ipc/msg.c, pipelined_send), before we know of it.
            parked.tid = threading.get_native_id()
            caller.ipc.acting[parked.tid] = caller.process.pid
            return call()

        try:
            result = await threads.run(caller.credentials, sleep)
        except SynosError as error:
            if blocking.was_there and error.errno == errno.EINVAL:
                gone = f"{parked.what}: the object was removed while the call waited"
                raise SynosError(errno.EIDRM, gone) from None
            raise
        if blocking.give_back is not None and (parked.reason is not None or caller.origin.was_interrupted()):
            await self._put_back(caller, blocking, result)
            parked.end(SynosError(errno.EINTR, f"{parked.what}: interrupted by a signal"))
            assert parked.reason is not None
            raise parked.reason
        return blocking.finish(result) if blocking.finish else result

    async def _put_back(self, caller: Caller, blocking: InThread | OnAvatar, result: Any) -> None:
        """With the daemon's own rights: who may receive need not be allowed to send. What left a SEM_UNDO entry is
        reverted in the same undo list; where that is gone, with its process, the host has reverted it.
        """
        assert blocking.give_back is not None
        send = partial(blocking.give_back, result)
        if isinstance(blocking, InThread):
            self.give_back(send)
        elif not caller.process.ended:
            with trio.CancelScope(shield=True), suppress(SynosError):
                await caller.process.avatar.run(rights.OWN, send)

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

    async def _wait_ready(self, parked: Parked, blocking: WhenReady) -> Any:
        wait = trio.lowlevel.wait_writable if blocking.writable else trio.lowlevel.wait_readable
        while parked.reason is None:
            try:
                await wait(blocking.host_fd)
            except trio.ClosedResourceError:
                raise SynosError(errno.EBADF, f"{parked.what}: the descriptor was closed meanwhile") from None
            with suppress(WouldBlock):
                # A pipe can have been set apart while the call waited.
                if blocking.on_avatar or (blocking.description is not None and blocking.description.apart):
                    return await parked.caller.process.avatar.run(parked.caller.credentials, blocking.attempt)
                with rights.acting_as(parked.caller.credentials):
                    return blocking.attempt()
        raise parked.reason


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
    if error.errno not in (errno.EINVAL, errno.EIDRM):  # these: the object is gone, with all that was in it
        log.warning("something taken for a caller that has gone is lost: %s", error.message)


def _going_away() -> SynosError:
    return SynosError(errno.ECANCELED, "the mount is going away")
