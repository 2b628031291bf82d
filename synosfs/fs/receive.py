"""How the daemon waits for the kernel's next request: the part of pyfuse3's session loop that decides its speed.

pyfuse3 takes a ``trio.Lock`` and a full trio cycle for every request: some 40 µs, where handling one takes five. It
looks up ``Lock`` and ``lowlevel.wait_readable`` in its module global ``trio`` so that other loops can stand in (that is
how ``pyfuse3.asyncio`` works); ``install`` puts a stand-in there which differs in these two:

- The lock is handed on when its holder starts to wait for something else, not each time it is released.
- The wait is one ``poll(2)`` of the FUSE descriptor *and* of trio's own epoll descriptor, as long as no trio task is
  ready to run and no deadline has passed: the next request is taken without a turn of trio's loop, and whatever trio
  waits for ends the poll too. trio gets its turn soon after it has anything to do, so nobody starves; and a piece of
  long work learns from here that others wait (``slices``).

It sleeps, it does not spin: an idle daemon uses no CPU. After the wait pyfuse3 reads, with a read(2) that blocks, and
that may find nothing: the kernel takes a request back whose caller was killed before it was read. Then the whole daemon
would sleep, trio and all, until the next request. So a timer goes off while requests are read; the signal ends the
read with EINTR, upon which pyfuse3 waits anew.

It also notices FUSE_INTERRUPT (see ``fs.interrupts``): a
message that woke the loop and reached no handler.

All this stands on what trio and pyfuse3 promise nobody: so ``install`` lets it be only with versions that it was tried
with, after trio's parts have done before its eyes what they are taken to do, and ``watch`` makes sure that pyfuse3
calls it. Where one of these fails, it is *off*: trio's own wait serves, as right and slower, the log and ``stats`` say
why, and as nothing tells of interrupts then, ``watch`` has all blocked callers looked at again and again.
"""

import logging
import select
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pyfuse3
import trio

from synosfs import slices

log = logging.getLogger(__name__)

#: The versions that this was tried with: from the first up to and without the second.
_TRIED = {pyfuse3: ((3, 5), (3, 6)), trio: ((0, 30), (0, 36))}

#: The longest sleep without a turn of trio's, in seconds: poll(2) takes an int of milliseconds.
_LONGEST = 86400.0

#: pyfuse3 must have begun to wait by way of this after so long, in seconds.
_ENTERED_BY = 2.0

#: Without notices, have blocked callers looked at this often, in seconds; less often, down to the second figure, where
#: the looks, with all else that the daemon does meanwhile, take more than this share of the time.
_LOOK, _SLOWEST_LOOK, _SHARE = 0.05, 0.25, 0.1

_COSTS = (
    "requests take about twice as long, and a blocked caller that is signalled or killed is free after 50 ms, "
    "or 250 ms when the daemon is busy, instead of 3 ms"
)

#: The timer goes off so long after it was set, and again and again; a read that begins later than the second figure
#: after that sets it anew. In seconds.
_ROUSE, _ROUSE_LATEST = 0.03, 0.02

#: While tasks of trio's are ready, requests that are there already are taken for so long before trio gets its turn, in
#: nanoseconds.
_IN_A_ROW_NS = 100_000

#: What is told of a daemon that was asked to do without.
_ASKED = "receive=plain"


class ReceiveStatistics(NamedTuple):
    """``off`` says why the stand-in is not in force, and nothing while it is. ``unhandled`` are the messages that
    reached no handler: interrupts.
    """

    off: str
    requests: int
    unhandled: int


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


class _Inside(NamedTuple):
    """The parts of trio that have no public name: when it must wake up by itself, and what it sleeps on."""

    next_deadline: Callable[[], float]
    sleep_time: Callable[[float], float]
    epoll: select.epoll


class _Unfit(Exception):
    """Why the stand-in cannot be in force."""


class Receiver:
    """Waits for requests. ``handled`` is counted up by every handler when it begins; ``unhandled`` is called when a
    message came that no handler got, or where that cannot be told, when one may have come.
    """

    def __init__(self, unhandled: Callable[[], None], set_timer: Callable[[float, float], object]) -> None:
        """``set_timer`` is setitimer(2): in so many seconds, and every so many, ``rouse`` is the signal's handler."""
        self._set_timer = set_timer
        self._roused_until = 0.0
        self._reading = True
        self.handled = 0
        self._received = 0
        self._unhandled = unhandled
        self._unhandled_count = 0
        self._off = "not installed"
        self._entered = trio.Event()
        self._inside: _Inside
        self._ready: _ReadyTasks
        self._next_is_request: Callable[[], bool] | None = None

    def statistics(self) -> ReceiveStatistics:
        return ReceiveStatistics(self._off, self.handled, self._unhandled_count)

    async def install(self, *, plain: bool = False) -> None:
        """Stand in for trio inside pyfuse3, unless ``plain``. Call before other tasks are started, and
        ``pyfuse3.main``.
        """
        if plain:
            self._off = _ASKED
            log.info("requests are received the plain way, as %s asks for: %s", _ASKED, _COSTS)
            self._set_timer(_ROUSE, _ROUSE)
            return
        ready = _ReadyTasks()
        try:
            _check_versions()
            self._inside = await _checked(ready)
        except _Unfit as why:
            trio.lowlevel.remove_instrument(ready)
            self._turn_off(str(why))
            return
        self._ready = ready
        lowlevel = types.SimpleNamespace(**{name: getattr(trio.lowlevel, name) for name in trio.lowlevel.__dict__})
        lowlevel.wait_readable = self._wait_readable
        stand_in = types.SimpleNamespace(**vars(trio))
        stand_in.lowlevel = lowlevel
        stand_in.Lock = _LazyLock
        _replace_trio(stand_in)
        self._off = ""

    async def watch(self, anybody: Callable[[], bool]) -> None:
        """Make sure that pyfuse3 waits by way of this. While it does not, have those looked at who may have been
        interrupted, as long as there is ``anybody``. Runs for as long as the daemon does.
        """
        if not self._off:
            with trio.move_on_after(_ENTERED_BY):
                await self._entered.wait()
                return
            self._turn_off(f"pyfuse3 {pyfuse3.__version__} does not wait by way of its global trio")
        pause, used = _LOOK, time.thread_time()
        while True:
            await trio.sleep(pause)
            began, used = used, time.thread_time()
            pause = min(max(_LOOK, (used - began) * (1 / _SHARE - 1)), _SLOWEST_LOOK)
            if anybody():
                self._unhandled()

    def rouse(self, *_: object) -> None:
        """The timer has gone off. While nothing is read it is not needed."""
        if not self._reading:
            self._roused_until = 0.0
            self._set_timer(0.0, 0.0)

    def _turn_off(self, why: str) -> None:
        self._off = why
        self._set_timer(_ROUSE, _ROUSE)  # and it goes on and on: nothing tells when pyfuse3 reads
        log.warning("requests are received the plain way: %s. The mount works, but %s", why, _COSTS)

    async def _wait_readable(self, fd: int) -> None:
        self._reading = False
        if self._received != self.handled:
            # The handler of a request begins in the very step that received it, so this one had none.
            self._received = self.handled
            self._unhandled_count += 1
            self._unhandled()
        if self._next_is_request is None:
            self._next_is_request = self._combined_wait(fd)
            self._entered.set()
        if not self._next_is_request():
            await trio.lowlevel.wait_readable(fd)
        self._received += 1
        self._reading = True
        if (now := time.monotonic()) > self._roused_until:
            self._roused_until = now + _ROUSE_LATEST
            self._set_timer(_ROUSE, _ROUSE)

    def _combined_wait(self, fd: int) -> Callable[[], bool]:
        """A function that sleeps until a request or anything for trio to do is there; True for a request alone."""
        next_deadline, sleep_time, epoll = self._inside
        ready, request = self._ready.tasks, [(fd, select.POLLIN)]
        look, poll = select.poll(), select.poll()
        look.register(fd, select.POLLIN)
        poll.register(fd, select.POLLIN)
        poll.register(epoll, select.POLLIN)
        slices.others.wait = lambda: bool(poll.poll(0))
        turn_ns = 0

        def next_is_request() -> bool:
            nonlocal turn_ns
            if ready:
                now = time.perf_counter_ns()
                turn_ns = turn_ns or now
                if now - turn_ns < _IN_A_ROW_NS and look.poll(0):
                    return True
                turn_ns = 0
                return False
            turn_ns = 0
            seconds = sleep_time(next_deadline())
            # Rounded down: the rest of the last millisecond is left to trio's own wait.
            return seconds > 0 and poll.poll(int(min(seconds, _LONGEST) * 1000)) == request

        return next_is_request


def _replace_trio(stand_in: types.SimpleNamespace) -> None:
    pyfuse3.trio = stand_in  # type: ignore[attr-defined]  # a global of the extension module


def _check_versions() -> None:
    for module, (first, beyond) in _TRIED.items():
        version = module.__version__
        numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
        if not first <= numbers < beyond:
            raise _Unfit(f"{module.__name__} {version} was not tried ({_dotted(first)} up to below {_dotted(beyond)})")


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


async def _checked(ready: _ReadyTasks) -> _Inside:
    """The parts of trio, after each has been seen to do what it is taken to do."""
    if getattr(pyfuse3, "trio", None) is not trio:
        raise _Unfit(f"pyfuse3 {pyfuse3.__version__} has no global trio to stand in for")
    try:
        runner = _runner()
        epoll = runner.io_manager._epoll  # noqa: SLF001 - see the module's docstring
        inside = _Inside(runner.deadlines.next_deadline, runner.clock.deadline_to_sleep_time, epoll)
        slept = _sleep_before_deadline(inside)
    except (AttributeError, TypeError) as error:
        raise _unfit(f"keeps its deadlines and its epoll otherwise ({error})") from None
    if not 0 < slept <= _LONGEST / 2:
        raise _unfit("does not tell its next deadline")
    if not await _wakes(epoll):
        raise _unfit("is not woken by its epoll")
    if not await _tells_ready(ready):
        raise _unfit("does not tell which tasks are ready")
    return inside


def _sleep_before_deadline(inside: _Inside) -> float:
    """For how long trio would sleep when its next deadline is not before half of the longest sleep."""
    scope = trio.CancelScope(deadline=trio.current_time() + _LONGEST / 2)
    with scope:  # its deadline counts while it is entered; nothing is awaited
        return inside.sleep_time(inside.next_deadline())
    raise AssertionError  # for mypy: a scope may swallow what ends it


async def _wakes(epoll: select.epoll) -> bool:
    """Whether something for trio to do shows in its epoll."""
    await trio.sleep(0.001)  # until the task that is woken here has gone to sleep
    woken = trio.Event()
    trio.lowlevel.current_trio_token().run_sync_soon(woken.set)
    poll = select.poll()
    poll.register(epoll, select.POLLIN)
    shown = bool(poll.poll(0))
    await woken.wait()
    return shown


async def _tells_ready(ready: _ReadyTasks) -> bool:
    begun = trio.Event()

    async def begin() -> None:
        begun.set()

    task = trio.lowlevel.spawn_system_task(begin)
    scheduled = task in ready.tasks
    await begun.wait()
    return scheduled and task not in ready.tasks


def _unfit(why: str) -> _Unfit:
    return _Unfit(f"trio {trio.__version__} {why}")


def _runner() -> Any:
    return trio._core._run.GLOBAL_RUN_CONTEXT.runner  # noqa: SLF001 - see the module's docstring
