"""Who polls open files, and is to be told when they become ready: poll(2), select(2), epoll(7) on files here."""

import logging
from collections.abc import Callable

import trio

from synosfs.syscall_gate.readiness import Source

log = logging.getLogger(__name__)


class Pollers:
    """One watch for each open file that is polled; the kernel tells all who poll it itself."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._watches: dict[int, trio.CancelScope] = {}

    def watch(self, fh: int, source: Source, events: int, notify: Callable[[], None]) -> None:
        """Call ``notify`` once, when one of the events may have come about."""
        scope = self._watches[fh] = trio.CancelScope()

        async def wait() -> None:
            with scope:
                try:
                    await source.wait(events)
                except (
                    Exception
                ):  # whatever went wrong is for the next poll or read to tell, and no cause to end the mount
                    log.debug("poll of file %d", fh, exc_info=True)
                notify()

        self._nursery.start_soon(wait, name=f"poll of file {fh}")

    def forget(self, fh: int) -> None:
        """The file is closed, or asked about anew."""
        scope = self._watches.pop(fh, None)
        if scope is not None:
            scope.cancel()
