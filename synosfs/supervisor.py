"""A small parent of the daemon, which starts it again when it has been killed or has failed.

It holds nothing that anybody could miss: what lives in the mount is the host's, or ends with the daemon. What a dead
daemon leaves is a dead mount, which the next one replaces. A daemon that ends well (by unmounting, SIGTERM or SIGINT)
ends its supervisor too, and such a signal to the supervisor is handed on and ends both. The first daemon is not started
again before it has been ready once: why it was not is for who starts it.

The next start is at once; where a daemon has failed soon after its start, each pause is twice the one before. The pipe
in which it says ``ready`` is its life line while it starts, as in ``daemon``: when nobody reads it, the mount is taken
down. A daemon that serves goes on without a supervisor when that is killed.
"""

import errno
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from synosfs import mountpoint
from synosfs.errors import SynosError
from synosfs.options import MountOptions

#: The pause when a daemon has failed soon, and the longest, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0

#: Who has served for so long has not failed soon, in seconds.
_LONG_S = 10.0

#: Mounts, calls what it is given when the mount answers, and returns after a clean end. SynosError when it cannot.
Serve = Callable[[MountOptions, Callable[[], None]], None]

_ENDING = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


def supervise(options: MountOptions, serve: Serve, ready: Callable[[], None], start_timeout_s: float) -> None:
    """Run ``serve`` in a child, again and again until it ends well, or until a signal to this process.

    ``ready`` is called when the mount answers for the first time. SynosError when it never does.
    """
    pause, was_ready = 0.0, False
    with _signals() as signals:
        while not signals.came:
            began = time.monotonic()
            daemon = _Daemon(options, serve, signals)
            try:
                reason = daemon.wait_ready(start_timeout_s)
                if not reason and not was_ready and not signals.came:
                    ready()
                    was_ready = True
                how = daemon.wait_end()
            finally:
                daemon.close()
            if signals.came:
                break
            if not was_ready:
                raise SynosError(errno.EIO, reason)
            if not how:
                log.info("the daemon (pid %d) has ended well, and so does its supervisor", daemon.pid)
                return
            lasted = time.monotonic() - began
            pause = 0.0 if lasted >= _LONG_S else min(max(2 * pause, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            facts = (daemon.pid, lasted, reason or how, pause)
            log.warning("the daemon (pid %d) has ended after %.1f s (%s); it is started again in %.1f s", *facts)
            signals.wait(None, pause)
        log.info("the supervisor ends on %s", signals.came)
        with suppress(SynosError):  # where no daemon was left to take its mount along
            mountpoint.clear_dead(options.mountpoint)


class _Signals:
    """``came``: the name of the signal that is to end all, once it has come."""

    def __init__(self) -> None:
        self.came = ""
        self.woken, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def heed(self, number: int, _frame: object) -> None:
        self.came = signal.Signals(number).name

    def wait(self, fd: int | None, timeout_s: float | None = None) -> bool:
        """Return when ``fd`` has something to read, which is the answer; or a signal has come, or the time is over."""
        poll = select.poll()
        poll.register(self.woken, select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLIN)
        ready = dict(poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))
        if self.woken in ready:
            os.read(self.woken, 4096)
        return fd in ready


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    before = {number: signal.signal(number, signals.heed) for number in _ENDING}
    signal.set_wakeup_fd(signals.wake)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(signals.wake)
        os.close(signals.woken)


class _Daemon:
    """One run of it, from its fork to its end."""

    def __init__(self, options: MountOptions, serve: Serve, signals: _Signals) -> None:
        self._options = options
        self._signals = signals
        self._is_reaped = False
        self._says, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(serve, say)
        os.close(say)
        self._pidfd = os.pidfd_open(self.pid)

    def wait_ready(self, timeout_s: float) -> str:
        """Why it is not ready; empty when it is, or a signal is to end all. One that gives no sign is killed."""
        said, deadline = b"", time.monotonic() + timeout_s
        while not said.endswith(b"\n"):
            left = deadline - time.monotonic()
            if self._signals.came:
                return ""
            if left <= 0:
                os.kill(self.pid, signal.SIGKILL)
                return f"the daemon gave no sign for {timeout_s:.0f} s"
            if self._signals.wait(self._says, left):
                piece = os.read(self._says, 4096)
                if not piece:
                    return "the daemon died while it started"
                said += piece
        word = said.decode(errors="replace").strip()
        if word != "ready":
            return word
        log.info("the daemon (pid %d) serves %s", self.pid, self._options.mountpoint)
        return ""

    def wait_end(self) -> str:
        """How it has ended; empty when well. A signal that is to end all is handed on."""
        told = False
        while True:
            if self._signals.came and not told:
                told = True
                os.kill(self.pid, signal.SIGTERM)
            if self._signals.wait(self._pidfd):
                return self._reap()

    def close(self) -> None:
        """End it if it lives."""
        if not self._is_reaped:
            os.kill(self.pid, signal.SIGTERM)
            self._reap()
        os.close(self._says)
        os.close(self._pidfd)

    def _reap(self) -> str:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._is_reaped = True
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"status {status}" if status else ""

    def _live(self, serve: Serve, say: int) -> NoReturn:
        """The child's side. Leaves by _exit, so that nothing of the parent's runs twice."""
        status, told = 1, False

        def tell(word: str) -> None:
            nonlocal told
            if not told:
                told = True
                os.write(say, " ".join(word.split()).encode() + b"\n")
                os.close(say)

        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for fd in (self._says, self._signals.woken, self._signals.wake):
                os.close(fd)
            mountpoint.clear_dead(self._options.mountpoint)
            serve(self._options, lambda: tell("ready"))
            status = 0
        except SynosError as error:
            log.error("%s", error.message)  # noqa: TRY400 - the message is the whole story
            with suppress(BrokenPipeError):
                tell(error.message)
        except BaseException as error:
            log.exception("the daemon fails")
            with suppress(BrokenPipeError):
                tell(f"internal error: {type(error).__name__}: {error}")
        finally:
            logging.shutdown()
            os._exit(status)
