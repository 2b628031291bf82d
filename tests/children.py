"""Processes of a test's own, forked from it: each runs one function and hands back what it returns.

A child can be made to sleep in a call, and then be signalled or killed: what blocks belongs in one.
"""

import os
import pickle
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

#: The longest that anything here may take, in seconds; a state that is not reached by then is never reached.
PATIENCE_S = 30.0


def wait_until(reached: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    """Look until it is so. For states that can be seen but not waited for."""
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        time.sleep(0.0005)


class Child:
    """A forked process that runs ``body``; ``uid`` makes it that user and group, without others and privileges.

    SIGUSR1 has a handler in it, which calls ``on_signal``; ``restart`` sets SA_RESTART.
    """

    def __init__(
        self,
        body: Callable[[], Any],
        *,
        uid: int = 0,
        on_signal: Callable[[], None] | None = None,
        restart: bool = False,
    ) -> None:
        self._reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the only other thread here is the fault handler's
            self.pid = os.fork()
        if self.pid == 0:
            _live(body, writer, uid, on_signal, restart)
        os.close(writer)
        self._pickled = b""
        self.status: int | None = None

    @property
    def state(self) -> str:
        """As in /proc/<pid>/stat: R, S, D, Z, ..."""
        with open(f"/proc/{self.pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1].decode()

    def ended(self) -> bool:
        """Whether it has ended; reaps it."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def result(self, patience_s: float = PATIENCE_S) -> Any:
        """What ``body`` returned. Fails when it raised, or does not end."""
        deadline = time.monotonic() + patience_s
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        while True:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            assert ready, f"process {self.pid} gives no result within {patience_s:g} s"
            piece = os.read(self._reader, 1 << 16)
            if not piece:
                break
            self._pickled += piece
        wait_until(self.ended, f"the end of process {self.pid}")
        assert self._pickled, f"process {self.pid} ended with status {self.status} and no result"
        failed, value = pickle.loads(self._pickled)
        assert not failed, value
        return value

    def interrupt(self) -> None:
        """A signal that has a handler."""
        os.kill(self.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            wait_until(self.ended, f"the death of process {self.pid}")

    def close(self) -> None:
        self.kill()
        with suppress(OSError):
            os.close(self._reader)


def _live(
    body: Callable[[], Any], writer: int, uid: int, on_signal: Callable[[], None] | None, restart: bool
) -> NoReturn:
    try:
        signal.signal(signal.SIGUSR1, lambda *_: on_signal() if on_signal else None)
        signal.siginterrupt(signal.SIGUSR1, not restart)
        signal.signal(signal.SIGURG, signal.SIG_DFL)  # a test that ran parts of the daemon may have left its handler
        if uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        try:
            outcome = (False, body())
        except BaseException:
            outcome = (True, traceback.format_exc())
        pickled = memoryview(pickle.dumps(outcome))
        while pickled:
            pickled = pickled[os.write(writer, pickled) :]
    finally:
        os._exit(0)
