"""SyscallDispatcher: from a request to its reply.

The straight path: find the row, bind the arguments, call the handler with the caller's rights, make a reply. A handler
answers at once, or says how it wants to wait; only then is anything awaited, and the call is parked. Whatever comes out
of a handler becomes a reply, and every call that has ended passes by ``completion``.

Calls in steps that follow each other (``Row.in_steps``) are parked and made in one go: each would cost two threads'
waking, some 100 us, a third of what a splice of a megabyte takes.

``run_all`` is the one runner of many requests; a ``Turn`` is what they share: the slice of time after which others are
let in, and the cap on what their replies hold.
"""

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from errno import EAGAIN, ECANCELED, EIO, ENOBUFS, ETIMEDOUT
from typing import Any, NamedTuple

from synosfs.errors import SynosError, WouldBlock, excerpt
from synosfs.host import rights
from synosfs.ipc.manager import IPCManager
from synosfs.process.descriptors import Description
from synosfs.slices import Slice
from synosfs.syscall_gate import table
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.calls import Call, calls
from synosfs.syscall_gate.completion import UNKNOWN, Completion
from synosfs.syscall_gate.parking import Parking
from synosfs.syscall_gate.record import Reply, Request
from synosfs.syscall_gate.spec import Row
from synosfs.syscall_gate.statistics import SyscallStatistics
from synosfs.syscall_gate.waiting import Blocking, InSteps, OnAvatar, Sleep, Until, WhenReady

log = logging.getLogger(__name__)

#: The most bytes that the replies of one session may hold unread, and those of one write at all.
MAX_REPLIES = 16 << 20

#: The answer to what follows a call that was interrupted.
NOT_RUN = Reply(-1, errno=ECANCELED, message="not run: a call before it was interrupted")
_ENOUGH = Reply(-1, errno=ENOBUFS, message="not run: the replies to this write hold 16 MiB already; write less at once")

#: So many calls are made in one go at most: the main thread asks for them, and takes their ends, in a row.
_LONGEST_RUN = 32

_perf = time.perf_counter_ns
_cpu = time.thread_time_ns

#: A request as it came in, to the system call that it stands for (the commands of ``ctl``).
Translate = Callable[[Request], Request]


class Waiting(NamedTuple):
    """A call that cannot be answered now, and what it is waiting for."""

    call: Call
    values: Sequence[Any]
    timeout: float | None
    blocking: Blocking
    about: Description | None
    began_ns: int
    ran_ns: int


class Turn:
    """What the requests of one write share: since when they hold the daemon (a slice at a time), how many bytes their
    replies hold, and, once no more of them is to be run, the reply that the rest gets.
    """

    __slots__ = ("_caller", "_parking", "_slice", "held", "is_due", "stopped")

    def __init__(self, parking: Parking, caller: Caller) -> None:
        self._parking = parking
        self._caller = caller
        self._slice = Slice()
        #: Whether the slice is over.
        self.is_due = self._slice.is_over
        self.begin()

    def begin(self) -> None:
        """A new write: what was before it is forgotten, a signal included."""
        self._caller.interrupted = False
        self._slice.begin()
        self.held = 0
        self.stopped: Reply | None = None

    def hold(self, size: int) -> None:
        """The replies so far take this many bytes."""
        self.held = size
        if size > MAX_REPLIES:
            self.stop(_ENOUGH)

    def stop(self, reply: Reply) -> None:
        """No more is run; this is what the rest is answered."""
        self.stopped = self.stopped or reply

    def slept(self, ns: int) -> None:
        """As long as the daemon slept, nobody was held up."""
        self._slice.prolong(ns)

    async def let_others_in(self) -> None:
        """The slice is over: whoever has waited for the daemon is served now."""
        await self._parking.let_others_in(self._caller)
        if self._caller.interrupted:
            self.stopped = NOT_RUN
        self._slice.begin()


class SyscallDispatcher:
    """Runs requests. One for the mount; used from the trio thread only."""

    def __init__(self, parking: Parking, statistics: SyscallStatistics, books: IPCManager) -> None:
        self.parking = parking
        completion = Completion(statistics, books)
        self.observers, self.trace = completion.observers, completion.trace
        self._complete = completion.ended
        self._books = books
        self._calls: dict[str | int, Call] = {}
        for call in calls(books.usages):
            statistics.add(call.name, ipc=call.row.is_ipc)
            self._calls[call.name] = call
            if call.row.number is not None:
                self._calls[call.row.number] = call
        statistics.add(UNKNOWN)

    def turn(self, caller: Caller) -> Turn:
        """What the requests of one write are to share; see ``run_all``."""
        return Turn(self.parking, caller)

    async def call(self, caller: Caller, request: Request) -> Reply:
        """Answer one request."""
        answer = self._begin(caller, request)
        return answer if isinstance(answer, Reply) else await self._finish(caller, answer)

    async def called(self, caller: Caller, request: Request) -> Reply:
        """As ``call``; the error of a call that failed is raised."""
        reply = await self.call(caller, request)
        if reply.errno:
            raise SynosError(reply.errno, reply.message)
        return reply

    async def work(
        self,
        caller: Caller,
        what: str,
        work: Callable[[], Awaitable[Reply]],
        so_far: Callable[[], Reply | None],
        timeout: float | None,
    ) -> Reply:
        """Answer what makes calls of its own, each of which comes by here. It is parked for as long as it takes, and so
        can be ended as a call that waits; ``so_far`` is then its answer, unless nothing has been done.
        """
        try:
            with self.parking.parked(caller, what) as parked:
                reply: Reply = await self.parking.wait(parked, Until(work, so_far=so_far), timeout, ETIMEDOUT)
                return reply
        except Exception as error:  # as in _begin
            return _failed(error)

    async def run_all(
        self,
        caller: Caller,
        requests: Sequence[Request],
        turn: Turn,
        *,
        translate: Translate | None = None,
        until_error: bool = False,
    ) -> list[Reply]:
        """Answer many in order, in slices: a reply to each, or with ``until_error`` up to the first that fails.

        A signal ends it: a call that waits answers EINTR, and what follows is not run. Neither is what comes once the
        replies hold too much. Where one cannot be translated, none is run, and its error answers for each.
        """
        replies: list[Reply] = []
        begin = self._begin
        if translate is not None:
            requests, refused = await self._translated(caller, requests, turn, translate)
            if refused is not None:
                return [refused] * len(requests)
        made: deque[Reply] = deque()  # of the calls that were made in one go with the last
        for place, request in enumerate(requests):
            if made:
                replies.append(made.popleft())
                if until_error and replies[-1].errno:
                    break
                continue
            if turn.stopped is not None:
                replies.append(turn.stopped)
                if until_error:
                    break
                continue
            reply = begin(caller, request)
            if not isinstance(reply, Reply):
                began, used = _perf(), _cpu()
                run = self._run_of(caller, reply, requests[place + 1 : place + _LONGEST_RUN], turn)
                made.extend(
                    await self._finish_run(caller, run) if len(run) > 1 else [await self._finish(caller, reply)]
                )
                turn.slept(_perf() - began - (_cpu() - used))
                reply = made.popleft()
                if caller.interrupted or (made or [reply])[-1].errno == ECANCELED:
                    turn.stopped = NOT_RUN
            replies.append(reply)
            if reply.data is not None:
                turn.held += len(reply.data)
                if turn.held > MAX_REPLIES:
                    turn.stopped = _ENOUGH
            if turn.is_due():
                await turn.let_others_in()
            if until_error and reply.errno:
                break
        return replies

    async def _translated(
        self, caller: Caller, requests: Iterable[Request], turn: Turn, translate: Translate
    ) -> tuple[list[Request], Reply | None]:
        """The calls that the requests stand for, and the error that speaks against them all."""
        translated = []
        requests = list(requests)
        for request in requests:
            try:
                translated.append(translate(request))
            except Exception as error:  # as in _begin: a bug of ours is one record's answer
                return requests, self._complete(None, caller, (), _failed(error), _perf(), 0)
            if turn.is_due():
                await turn.let_others_in()
        return translated, None

    def _begin(self, caller: Caller, request: Request) -> Reply | Waiting:
        """Answer without waiting, or say how to wait. This is the hot path: no coroutine, no thread."""
        began = _perf()
        call = self._calls.get(request.call)
        values: Sequence[Any] = ()
        about = None
        try:
            if call is None:
                table.find(request.call)  # raises: says what is wrong with the name
                raise AssertionError(request.call)
            values, timeout = call.bind(request)
            if call.object_at >= 0:
                about = caller.descriptors.find(values[call.object_at])
            if caller.credentials is rights.OWN:
                answer = _run(call, caller, values)
            else:
                with rights.acting_as(caller.credentials):
                    answer = _run(call, caller, values)
        except Exception as error:  # a bug of ours must cost this request and no other
            return self._complete(call, caller, values, _failed(error), began, _perf() - began, about=about)
        if isinstance(answer, Reply):
            return self._complete(call, caller, values, answer, began, _perf() - began, about=about)
        return Waiting(call, values, timeout, answer, about, began, _perf() - began)

    def _run_of(self, caller: Caller, first: Waiting, following: Iterable[Request], turn: Turn) -> list[Waiting]:
        """The call, and those behind it that can be made in one go with it: they are in steps, and have no time-out."""
        run = [first]
        if not first.call.row.in_steps or first.timeout is not None:
            return run
        for request in following:
            call = self._calls.get(request.call)
            if call is None or not call.row.in_steps or turn.is_due():
                break
            began = _perf()
            try:
                values, timeout = call.bind(request)
                about = caller.descriptors.find(values[call.object_at])
                blocking = call.handler(caller, *values)
            except SynosError:
                break  # it is refused when it is its turn
            if timeout is not None:
                break
            run.append(Waiting(call, values, None, blocking, about, began, _perf() - began))
        return run

    async def _finish_run(self, caller: Caller, run: Sequence[Waiting]) -> list[Reply]:
        """Replies to calls in steps that come one after the other: up to the first that a step was not enough for, or
        that failed.
        """
        began_ns = _perf()
        what = [described(each.call.row, each.values) for each in run]
        steps = [each.blocking for each in run if isinstance(each.blocking, InSteps)]
        over_ns, reason = await self.parking.first_steps(caller, what, steps)
        replies = []
        for (call, values, _, _, about, _, ran_ns), step, ended_ns in zip(run, steps, over_ns, strict=False):
            reply = step.so_far()
            replies.append(self._complete(call, caller, values, reply, began_ns, ran_ns, ended_ns - began_ns, about))
            began_ns = ended_ns
        if len(over_ns) == len(run):
            return replies
        call, values, _, _, about, _, ran_ns = waiting = run[len(over_ns)]
        if reason is None:
            return [*replies, await self._finish(caller, waiting)]
        reply = steps[len(over_ns)].so_far() or _failed(reason)
        return [*replies, self._complete(call, caller, values, reply, began_ns, ran_ns, _perf() - began_ns, about)]

    async def _finish(self, caller: Caller, waiting: Waiting) -> Reply:
        """Park the call until it has an answer."""
        call, values, timeout, blocking, about, began_ns, ran_ns = waiting
        parked_at, tid = _perf(), 0
        try:
            with self.parking.parked(caller, described(call.row, values)) as parked:
                parked.row, parked.values, parked.about = call.row, values, about
                parked.ends = timeout is not None
                try:
                    answer = await self.parking.wait(parked, blocking, timeout, call.row.timed_out)
                finally:
                    tid = parked.tid
            reply = answer if isinstance(answer, Reply) else Reply(answer)
        except Exception as error:  # as in _begin
            reply = _failed(error)
        self._complete(call, caller, values, reply, began_ns, ran_ns, _perf() - parked_at, about, tid)
        self._books.acting.pop(tid, None)
        return reply


def _failed(error: Exception) -> Reply:
    if isinstance(error, SynosError):
        return Reply(-1, errno=error.errno, message=error.message)
    if isinstance(error, OSError):  # the daemon's own want of descriptors or memory: as true for the caller
        return Reply(-1, errno=error.errno or EIO, message=str(error))
    log.error("a call fails for a reason of our own", exc_info=error)
    return Reply(-1, errno=EIO, message=f"an error of synosfs itself ({type(error).__name__}); its log tells more")


def _run(call: Call, caller: Caller, values: Sequence[Any]) -> Reply | Blocking:
    """Handle, and if the handler would wait and left the first try to us, try once. Runs with the caller's rights."""
    answer = call.handler(caller, *values)
    # By exact type where it can be: isinstance(answer, Reply) is slow when it is none.
    if type(answer) is Reply:
        return answer
    if isinstance(answer, int):
        return Reply(answer)
    assert call.row.waits, f"{call.row.name} may not wait, and its handler does"
    blocking: Blocking = answer
    if isinstance(blocking, OnAvatar | InSteps):
        return blocking
    if isinstance(blocking, WhenReady) and blocking.on_avatar:
        return OnAvatar(blocking.attempt, description=blocking.description) if caller.nonblock else blocking
    if not isinstance(blocking, Sleep) and blocking.attempt is not None:
        try:
            answer = blocking.attempt()
        except WouldBlock:
            pass
        else:
            return answer if type(answer) is Reply else Reply(answer)
    if caller.nonblock and not (isinstance(blocking, Until) and blocking.prompt):
        raise SynosError(EAGAIN, f"{call.row.name} would wait, and this session was opened with O_NONBLOCK")
    return blocking


def described(row: Row, values: Sequence[Any]) -> str:
    """A call as strace writes it, for people: ``msgrcv(3, 8192, 0, 0)``."""
    return f"{row.name}({', '.join(_described(value) for value in values if value is not None)})"


def _described(value: Any) -> str:
    if isinstance(value, bytes):
        return f"'{excerpt(value, 32)}'"
    return excerpt(value, 200)
