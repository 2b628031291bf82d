"""Threads for host calls that block, and how such a call is cancelled.

A host call that sleeps in the kernel cannot be awaited; it gets a thread, and trio waits for the thread. Invariants:

- A job ends exactly once, with a result or an exception, and its thread then takes the next one.
- A cancelled job is *interrupted*: the thread gets a signal whose handler does nothing, so that the host call returns
  EINTR. The signal can arrive just before the call sleeps, so it is sent again until the job has ended.
- A call that succeeded in spite of the cancellation has happened: its result is returned, never dropped.

It does not know what the calls are, nor whose they are beyond the credentials that each one runs with.
"""

import _thread
import contextlib
import errno
import queue
import signal
import sys
from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, TypeVar

import outcome
import trio

from synosfs.errors import SynosError
from synosfs.host import rights
from synosfs.host.credentials import Credentials

T = TypeVar("T")

#: Ignored by default, so that one sent too late hurts nobody (the signal Go preempts its threads with).
_INTERRUPT = signal.SIGURG

#: Threads kept for the next job by a pool that has nothing to do.
_MOST_IDLE = 2

#: Where more threads than this are busy they may all wake at once. Who waits for the interpreter asks for it every so
#: often, in seconds: by the first figure, else by the second. With a thousand, most of the time went into asking: the
#: main thread stood still for 1 s, and for 0.1 s with the second.
_CROWD, _IMPATIENT_S, _PATIENT_S = 64, 0.005, 0.02

#: Threads that are interrupted at the same time.
_MOST_INTERRUPTED = 8

#: A blocked call needs little stack; a thousand of them should need little memory.
_STACK_BYTES = 256 << 10


def install_interrupt_handler() -> None:
    """Let ``_INTERRUPT`` end host calls in other threads with EINTR. Call once, in the main thread."""
    signal.signal(_INTERRUPT, lambda *_: None)
    signal.siginterrupt(_INTERRUPT, True)


class _Job(Generic[T]):
    """One blocking call, its credentials, and where its outcome goes."""

    def __init__(self, credentials: Credentials, call: Callable[[], T]) -> None:
        self.credentials = credentials
        self.call = call
        self.cancelled = False
        self.ended = trio.Event()
        self.outcome: outcome.Maybe[T]

    def run(self) -> None:
        def attempt() -> T:
            with rights.acting_as(self.credentials):
                while True:
                    try:
                        return self.call()
                    except SynosError as error:
                        # A signal that nobody here meant for this call (a late one for the job before): wait on.
                        if error.errno != errno.EINTR or self.cancelled:
                            raise

        self.outcome = outcome.capture(attempt)


class _Worker:
    """One host thread that runs jobs until it is told to stop."""

    def __init__(self, pool: "ThreadPool") -> None:
        self._pool = pool
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._ident = 0
        self._token = trio.lowlevel.current_trio_token()

    def start(self) -> None:
        self._ident = start_thread(self._run)

    def submit(self, job: "_Job[object] | None") -> None:
        self._jobs.put(job)

    def interrupt(self) -> None:
        signal.pthread_kill(self._ident, _INTERRUPT)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            # The loop is gone when the daemon is ending: nobody waits for the outcome any more.
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ended, job)

    def _ended(self, job: _Job[object]) -> None:
        job.ended.set()
        self._pool.idle_again(self)


class ThreadPool:
    """As many host threads as calls are blocked in it at once, and a few idle ones. Used from the trio thread only."""

    #: Of all pools.
    _all_busy: ClassVar[int] = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self._idle: list[_Worker] = []
        self._closed = False
        self.busy = 0

    async def run(self, credentials: Credentials, call: Callable[[], T]) -> T:
        """Run a blocking host call with these credentials. Cancelling interrupts it (see the module's docstring)."""
        job = _Job(credentials, call)
        worker = self._idle.pop() if self._idle else await self._start_worker()
        self._count(1)
        worker.submit(job)  # type: ignore[arg-type]  # a worker does not look at the type of the result
        try:
            await job.ended.wait()
        except trio.Cancelled:
            job.cancelled = True
            with trio.CancelScope(shield=True):
                async with _interrupting():
                    await _until_ended(job, worker)
            if isinstance(job.outcome, outcome.Error):
                raise
        return job.outcome.unwrap()

    def close(self) -> None:
        """End the idle threads now, and the busy ones after their call."""
        self._closed = True
        for worker in self._idle:
            worker.submit(None)
        self._idle.clear()

    def _count(self, more: int) -> None:
        self.busy += more
        ThreadPool._all_busy += more
        if ThreadPool._all_busy == _CROWD + max(more, 0):
            sys.setswitchinterval(_PATIENT_S if more > 0 else _IMPATIENT_S)

    async def _start_worker(self) -> _Worker:
        worker = _Worker(self)
        worker.start()
        return worker

    def idle_again(self, worker: _Worker) -> None:
        """A worker has ended its job; the workers call this."""
        self._count(-1)
        if self._closed or len(self._idle) >= _MOST_IDLE:
            worker.submit(None)
        else:
            self._idle.append(worker)


def start_thread(run: Callable[[], object]) -> int:
    """Start a thread with a small stack, and return its identity. EAGAIN when the host has no more threads for us.

    ``threading.Thread`` would wait until the thread runs, which may be long where many do.
    """
    previous = _thread.stack_size(_STACK_BYTES)
    try:
        return _thread.start_new_thread(run, ())
    except RuntimeError as error:
        raise SynosError(
            errno.EAGAIN,
            "no more threads for blocked calls; free some, or raise the daemon's process limit (ulimit -u)",
        ) from error
    finally:
        _thread.stack_size(previous)


def run_apart(call: Callable[[], object]) -> trio.Event:
    """Run what may take long and cannot be taken back, such as close(2) of a file that others have a hold on. Whoever
    wants to wait for its end waits for the event.
    """
    token, ended = trio.lowlevel.current_trio_token(), trio.Event()

    def run() -> None:
        call()
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    leave_apart(run)
    return ended


def leave_apart(call: Callable[[], object]) -> None:
    """As ``run_apart``, from any thread, where nobody waits for the end."""
    try:
        start_thread(call)
    except SynosError:  # no more threads: late is better than never
        call()


def _interrupting() -> trio.Semaphore:
    """So many are interrupted at a time: each thread that wakes wants the interpreter, and who wants it with a thousand
    others waits for seconds.
    """
    try:
        return _semaphore.get()
    except LookupError:
        _semaphore.set(trio.Semaphore(_MOST_INTERRUPTED))
        return _semaphore.get()


_semaphore: trio.lowlevel.RunVar[trio.Semaphore] = trio.lowlevel.RunVar("interrupting")


async def _until_ended(job: _Job[T], worker: _Worker) -> None:
    pause = 0.0005
    while not job.ended.is_set():
        worker.interrupt()
        with trio.move_on_after(pause):
            await job.ended.wait()
        pause = min(2 * pause, 0.1)


class Questions(Generic[T]):
    """What the host is asked about threads of others, one after the other, in a thread of the daemon's: some of its
    answers wait for locks that a process can hold for as long as it likes. Used from the trio thread only.
    """

    def __init__(self, ask: Callable[[int], T], patience_s: float, most_unanswered: int) -> None:
        """``ask`` is of a thread's id, and raises nothing. An answer that has not come after so long, with those before
        it, is let be. While so many are outstanding, each of which keeps a thread, nothing more is asked.
        """
        self._ask = ask
        self._patience_s = patience_s
        self._most_unanswered = most_unanswered
        self._unanswered: set[int] = set()

    async def answers(self, about: Iterable[int]) -> dict[int, T]:
        """What is answered about these threads. About one that does not let the host answer there is nothing, nor is it
        asked about again before it does.
        """
        found: dict[int, T] = {}
        left = [tid for tid in about if tid not in self._unanswered]
        while left and len(self._unanswered) < self._most_unanswered:
            asking = _Asking(self._ask, left, self._unanswered)
            try:
                start_thread(asking.run)
            except SynosError:
                break  # no more threads
            with trio.move_on_after(self._patience_s):
                await asking.ended.wait()
            answers = asking.stop()
            found.update(zip(left, answers, strict=False))
            left = left[len(answers) + 1 :]
        return found


class _Asking(Generic[T]):
    """One thread that asks, until one question is not answered in time."""

    def __init__(self, ask: Callable[[int], T], about: list[int], unanswered: set[int]) -> None:
        self.ended = trio.Event()
        self._ask = ask
        self._about = about
        self._unanswered = unanswered
        self._token = trio.lowlevel.current_trio_token()
        self._answers: list[T] = []
        self._stopped = False

    def run(self) -> None:
        for tid in self._about:
            answer = self._ask(tid)
            if self._stopped:
                break
            self._answers.append(answer)
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._end)

    def stop(self) -> list[T]:
        """The answers so far. Where one is missing, it is waited for by nobody but its thread."""
        self._stopped = True
        answers = self._answers.copy()
        if not self.ended.is_set() and len(answers) < len(self._about):
            self._unanswered.add(self._about[len(answers)])
        return answers

    def _end(self) -> None:
        self.ended.set()
        if self._stopped:
            self._unanswered.difference_update(self._about[len(self._answers) :][:1])
