"""How the daemon waits for the kernel's next request: the part of pyfuse3's session loop that decides its speed.

pyfuse3 takes a ``trio.Lock`` and a full trio cycle for every request: some 40 µs, where handling one takes five. It
looks up ``Lock`` and ``lowlevel.wait_readable`` in its module global ``trio`` so that other loops can stand in (that is
how ``pyfuse3.asyncio`` works); ``install`` puts a stand-in there which differs in these two:

- The lock is handed on when its holder starts to wait for something else, not each time it is released.
- The wait is one ``poll(2)`` of the FUSE descriptor *and* of trio's own epoll descriptor, as long as no trio task is
  ready to run and no deadline has passed: the next request is taken without a turn of trio's loop, and whatever trio
  waits for ends the poll too. trio gets its turn as soon as it has anything to do, so nobody starves.

It sleeps, it does not spin: an idle daemon uses no CPU. trio's deadlines and epoll descriptor have no public names;
where this trio keeps them elsewhere, the wait is trio's own, slower and just as right.

It also notices FUSE_INTERRUPT (see ``syscall_gate.interrupts``): a message that woke the loop and reached no handler.
"""

import logging
import select
import types
from collections.abc import Callable

import pyfuse3
import trio

log = logging.getLogger(__name__)

#: The longest sleep without a turn of trio's, in seconds: poll(2) takes an int of milliseconds.
_LONGEST = 86400.0


class _LazyLock(trio.abc.Instrument):
    """pyfuse3's read lock: a holder that reads again at once keeps it, without waking the next reader in between."""

    def __init__(self) -> None:
        self._locked = False
        self._waiting = trio.lowlevel.ParkingLot()
        trio.lowlevel.add_instrument(self)

    async def __aenter__(self) -> None:
        if self._locked:
            await self._waiting.park()  # woken as the holder
        else:
            self._locked = True

    async def __aexit__(self, *_: object) -> None:
        self._locked = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._locked and self._waiting:
            self._locked = True
            self._waiting.unpark()


class _ReadyTasks(trio.abc.Instrument):
    """The tasks that trio has scheduled and not yet run. Its queue is not enough to look at: trio takes all of that
    as a batch, and what is left of the batch while one of its tasks runs, is ready too.
    """

    def __init__(self) -> None:
        self.tasks: set[trio.lowlevel.Task] = set()
        trio.lowlevel.add_instrument(self)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.tasks.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.tasks.discard(task)


class Receiver:
    """Waits for requests. ``handled`` is counted up by every handler when it begins."""

    def __init__(self, unhandled: Callable[[], None]) -> None:
        self.handled = 0
        self._received = 0
        self._unhandled = unhandled
        self._ready: _ReadyTasks
        self._next_is_request: Callable[[], bool] | None = None

    def install(self) -> None:
        """Stand in for trio inside pyfuse3. Call before other tasks are started, and ``pyfuse3.main``."""
        self._ready = _ReadyTasks()
        lowlevel = types.SimpleNamespace(**{name: getattr(trio.lowlevel, name) for name in trio.lowlevel.__dict__})
        lowlevel.wait_readable = self._wait_readable
        stand_in = types.SimpleNamespace(**vars(trio))
        stand_in.lowlevel = lowlevel
        stand_in.Lock = _LazyLock
        pyfuse3.trio = stand_in  # type: ignore[attr-defined]  # a global of the extension module

    async def _wait_readable(self, fd: int) -> None:
        if self._received != self.handled:
            # The handler of a request begins in the very step that received it, so this one had none.
            self._received = self.handled
            self._unhandled()
        if self._next_is_request is None:
            self._next_is_request = self._combined_wait(fd)
        if not self._next_is_request():
            await trio.lowlevel.wait_readable(fd)
        self._received += 1

    def _combined_wait(self, fd: int) -> Callable[[], bool]:
        """A function that sleeps until a request or anything for trio to do is there; True for a request alone."""
        try:
            runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner  # noqa: SLF001 - see the module's docstring
            next_deadline, sleep_time = runner.deadlines.next_deadline, runner.clock.deadline_to_sleep_time
            epoll = runner.io_manager._epoll  # noqa: SLF001 - as above
        except AttributeError as error:
            log.warning("this trio keeps its epoll elsewhere (%s); requests will take longer", error)
            return lambda: False
        ready, request = self._ready.tasks, [(fd, select.POLLIN)]
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(epoll, select.POLLIN)

        def next_is_request() -> bool:
            if ready:
                return False
            seconds = sleep_time(next_deadline())
            # Rounded down: the rest of the last millisecond is left to trio's own wait.
            return seconds > 0 and poll.poll(int(min(seconds, _LONGEST) * 1000)) == request

        return next_is_request
