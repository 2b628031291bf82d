"""SyscallDispatcher: from a request to its reply.

The straight path: find the row, bind the arguments, call the handler with the caller's rights, make a reply. A handler
answers at once, or says how it wants to wait; only then is anything awaited, and the call is parked. The dispatcher
keeps the statistics and turns every SynosError into a reply; nothing else may come out of a handler.
"""

import time
from collections.abc import Callable, Sequence
from errno import EAGAIN, ECANCELED, EIO, ENOBUFS, ETIMEDOUT
from typing import Any, NamedTuple

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import rights
from synosfs.syscall_gate import table
from synosfs.syscall_gate.parking import Blocking, Caller, OnAvatar, Parking
from synosfs.syscall_gate.record import Reply, Request
from synosfs.syscall_gate.spec import Bound, Row, binder
from synosfs.syscall_gate.statistics import CallCounter, SyscallStatistics

#: A long batch, or a write of many requests, lets others in after this long, in nanoseconds.
SLICE_NS = 2_000_000

#: The most bytes that the replies of one session may hold unread, and those of one batch at all.
MAX_REPLIES = 16 << 20

#: The answer to what follows a call that was interrupted.
NOT_RUN = Reply(-1, errno=ECANCELED, message="not run: a call before it was interrupted")

_perf = time.perf_counter_ns

#: Calls whose native form has a time-out of its own and says EAGAIN when it passes (semop(2)).
_TIMED_OUT_SAYS_EAGAIN = frozenset({"semop", "semtimedop"})


class _Call(NamedTuple):
    """All that the hot path needs of a call, found by one look-up."""

    row: Row
    handler: Callable[..., Any]
    bind: Callable[[Request], Bound]
    counter: CallCounter
    data_at: int  # where its data stands among the values; -1: it takes none


class Waiting(NamedTuple):
    """A call that cannot be answered now, and what it is waiting for."""

    call: _Call
    values: Sequence[Any]
    timeout: float | None
    blocking: Blocking


class SyscallDispatcher:
    """Runs requests. One for the mount; used from the trio thread only."""

    def __init__(self, parking: Parking, statistics: SyscallStatistics) -> None:
        self.parking = parking
        self.statistics = statistics
        self._calls: dict[str | int, _Call] = {}
        for row in table.ROWS:
            kinds = [param.kind.label for param in row.params]
            data_at = kinds.index("data") if "data" in kinds else -1
            call = _Call(row, row.handler, binder(row), statistics.counter(row.name, ipc=table.is_ipc(row)), data_at)
            self._calls[row.name] = call
            if row.number is not None:
                self._calls[row.number] = call
        self._unknown = statistics.counter("unknown")

    async def call(self, caller: Caller, request: Request) -> Reply:
        """Answer one request."""
        answer = self.begin(caller, request)
        return answer if isinstance(answer, Reply) else await self.finish(caller, answer)

    async def called(self, caller: Caller, request: Request) -> Reply:
        """As ``call``; the error of a call that failed is raised."""
        answer = self.begin(caller, request)
        reply = answer if isinstance(answer, Reply) else await self.finish(caller, answer)
        if reply.errno:
            raise SynosError(reply.errno, reply.message)
        return reply

    async def call_all(self, caller: Caller, requests: list[Request]) -> list[Reply]:
        """Answer a batch in order. A signal ends it: a call that waits answers EINTR, what follows is not run."""
        replies: list[Reply] = []
        held = 0
        begin, began = self.begin, _perf()
        for request in requests:
            reply = begin(caller, request)
            if not isinstance(reply, Reply):
                reply = await self.finish(caller, reply)
                if caller.interrupted or reply.errno == ECANCELED:
                    return [*replies, reply, *[NOT_RUN] * (len(requests) - len(replies) - 1)]
            replies.append(reply)
            if reply.data is not None:
                held += len(reply.data)
                if held > MAX_REPLIES:
                    message = "not run: the replies of this batch hold 16 MiB already; make smaller batches"
                    return replies + [Reply(-1, errno=ENOBUFS, message=message)] * (len(requests) - len(replies))
            if _perf() - began > SLICE_NS:
                await self.parking.let_others_in(caller)
                if caller.interrupted:
                    return replies + [NOT_RUN] * (len(requests) - len(replies))
                began = _perf()
        return replies

    def begin(self, caller: Caller, request: Request) -> Reply | Waiting:
        """Answer without waiting, or say how to wait. This is the hot path: no coroutine, no thread."""
        began = _perf()
        call = self._calls.get(request.call)
        counter = self._unknown if call is None else call.counter
        try:
            if call is None:
                table.find(request.call)  # raises: says what is wrong with the name
                raise AssertionError(request.call)
            if caller.credentials is rights.OWN:
                answer = _run(call, caller, request)
            else:
                with rights.acting_as(caller.credentials):
                    answer = _run(call, caller, request)
        except OSError as error:
            answer = self._failed(caller, counter, error)
        if isinstance(answer, Reply):
            counter.add(_perf() - began)
            caller.process.calls += 1
        return answer

    async def finish(self, caller: Caller, waiting: Waiting) -> Reply:
        """Park the call until it has an answer."""
        (row, _, _, counter, _), values, timeout, blocking = waiting
        timed_out = EAGAIN if row.name in _TIMED_OUT_SAYS_EAGAIN else ETIMEDOUT
        try:
            answer = await self.parking.wait(caller, described(row, values), blocking, timeout, timed_out)
            reply = answer if isinstance(answer, Reply) else Reply(answer)
            if reply.data is not None:
                counter.bytes += len(reply.data)
        except OSError as error:
            reply = self._failed(caller, counter, error)
        counter.add_blocked()
        caller.process.calls += 1
        return reply

    def _failed(self, caller: Caller, counter: CallCounter, error: OSError) -> Reply:
        # Not a SynosError: the daemon's own want of descriptors or memory. Its errno is as true for the caller.
        number = error.errno or EIO
        counter.errnos[number] += 1
        caller.process.errors += 1
        return Reply(-1, errno=number, message=error.message if isinstance(error, SynosError) else str(error))


def _run(call: _Call, caller: Caller, request: Request) -> Reply | Waiting:
    """Bind, handle, and if the handler would wait, attempt once. Runs with the caller's rights."""
    _, handler, bind, counter, data_at = call
    values, timeout = bind(request)
    answer = handler(caller, *values)
    # By exact type where it can be: isinstance(answer, Reply) is slow when it is none.
    if type(answer) is not Reply and not isinstance(answer, int):
        blocking = answer
        if blocking.attempt is None:
            # Made by the avatar from the start is not waiting: the handler has seen to nonblock.
            waiting = Waiting(call, values, timeout, blocking)
            return waiting if isinstance(blocking, OnAvatar) else _must_wait(waiting, caller)
        try:
            answer = blocking.attempt()
        except WouldBlock:
            return _must_wait(Waiting(call, values, timeout, blocking), caller)
    if data_at >= 0:
        counter.bytes += len(values[data_at])
    if type(answer) is not Reply:
        return Reply(answer)
    if answer.data is not None:
        counter.bytes += len(answer.data)
    return answer


def _must_wait(waiting: Waiting, caller: Caller) -> Waiting:
    if caller.nonblock:
        name = waiting.call.row.name
        raise SynosError(EAGAIN, f"{name} would wait, and this session was opened with O_NONBLOCK")
    return waiting


def described(row: Row, values: Sequence[Any]) -> str:
    """A call as strace writes it, for people: ``msgrcv(3, 8192, 0, 0)``."""
    return f"{row.name}({', '.join(_shown(value) for value in values if value is not None)})"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        text = value[:32].decode("utf-8", "backslashreplace")
        return repr(text) + "..." * (len(value) > 32)
    return str(value)
