"""The avatar of a SynOS process: host threads that block on its behalf and hold what the kernel keeps per process.

The kernel keeps a process's semaphore adjustments in a list that its threads share (CLONE_SYSVSEM). The avatar's
*leader* thread unshares that list from the daemon's; every other thread of the avatar is started by the leader and so
shares the leader's. When all of them end, the kernel applies the adjustments, also when the daemon is killed.
They share a umask of their own in the same way (CLONE_FS).
The leader itself never blocks in a host call: it must be free to start the next thread.
"""

import errno
import queue
from collections.abc import Callable

import outcome
import trio

from synosfs.errors import SynosError
from synosfs.host import rights
from synosfs.host.thread import ThreadPool, _Worker, start_thread


class Avatar(ThreadPool):
    """A thread pool with a SEM_UNDO list of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._refusal: SynosError | None = None
        start_thread(self._lead)

    def close(self) -> None:
        super().close()
        self._orders.put(None)

    async def _start_worker(self) -> _Worker:
        if self._closed:
            raise SynosError(errno.ESRCH, f"{self.name} has ended")
        worker = _Worker(self)
        token = trio.lowlevel.current_trio_token()
        started = trio.Event()
        result: list[outcome.Maybe[None]] = []

        def start() -> None:
            result.append(outcome.Error(self._refusal) if self._refusal else outcome.capture(worker.start))
            token.run_sync_soon(started.set)

        self._orders.put(start)
        with trio.CancelScope(shield=True):  # short, and a thread that is starting must not be lost
            await started.wait()
        result[0].unwrap()
        return worker

    def _lead(self) -> None:
        try:
            rights.unshare_undo_and_umask()
        except SynosError as error:
            message = f"the host refuses {self.name} an undo list of its own (unshare): {error.message}"
            self._refusal = SynosError(error.errno, message)
        while (order := self._orders.get()) is not None:
            order()
