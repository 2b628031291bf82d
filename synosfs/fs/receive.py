"""How the daemon waits for the kernel's next request: the part of pyfuse3's session loop that decides its speed.

pyfuse3 takes a ``trio.Lock`` and a full trio cycle for every request: some 40 µs, where handling one takes five. It
looks up ``Lock`` and ``lowlevel.wait_readable`` in its module global ``trio`` so that other loops can stand in (that
is how
``pyfuse3.asyncio`` works); ``install`` puts a stand-in there which differs in these two:

- The lock is handed on when its holder starts to wait for something else, not each time it is released.
- The wait is one ``poll(2)`` of the FUSE descriptor *and* of trio's own epoll descriptor, as long as no trio task is
  ready to run: the next request is taken without a turn of trio's loop, and whatever trio waits for ends the poll too.
  trio gets a real turn when anything but a request is ready, and after ``_TURNS`` requests in a row, so nobody starves.

It sleeps, it does not spin: an idle daemon uses no CPU. trio's epoll descriptor has no public name; where this trio
keeps it elsewhere, the wait is trio's own, slower and just as right.

It also notices FUSE_INTERRUPT (see ``syscall_gate.interrupts``): a message that woke the loop and reached no handler.
"""

import logging
import math
import select
import types
from collections.abc import Callable

import pyfuse3
import trio

log = logging.getLogger(__name__)

#: Requests taken without a turn of trio's loop before it gets one. A turn costs 20 µs: 0.3 µs a request.
_TURNS = 64


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


class Receiver:
    """Waits for requests. ``handled`` is counted up by every handler when it begins."""

    def __init__(self, unhandled: Callable[[], None]) -> None:
        self.handled = 0
        self._received = 0
        self._unhandled = unhandled
        self._turns = 0
        self._poll: select.poll | None = None

    def install(self) -> None:
        """Stand in for trio inside pyfuse3. Call before ``pyfuse3.main``."""
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
        if not self._next_is_request(fd):
            self._turns = 0
            await trio.lowlevel.wait_readable(fd)
        self._received += 1

    def _next_is_request(self, fd: int) -> bool:
        """Sleep until a request or anything that trio waits for is there; True for a request alone."""
        self._turns += 1
        if self._turns > _TURNS:
            return False
        try:
            runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner  # noqa: SLF001 - see the module's docstring
            if runner.runq:
                return False
            deadline = runner.deadlines.next_deadline()
            seconds = runner.clock.deadline_to_sleep_time(deadline)
            if self._poll is None:
                self._poll = select.poll()
                self._poll.register(fd, select.POLLIN)
                self._poll.register(runner.io_manager._epoll.fileno(), select.POLLIN)  # noqa: SLF001 - as above
        except AttributeError as error:
            log.warning("this trio keeps its epoll elsewhere (%s); requests will take longer", error)
            self._next_is_request = lambda fd: False  # type: ignore[method-assign]
            return False
        ready = self._poll.poll(None if seconds == math.inf else max(0, math.floor(seconds * 1000)))
        return len(ready) == 1 and ready[0] == (fd, select.POLLIN)
