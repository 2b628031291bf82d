"""Files that take lines: each line is a call or several of the caller's, made in order up to the first that fails.

A line that means nothing stops them all before any is made. A writer is told how many bytes of whole lines were carried
out; it writes the rest again, as every writer does, and so meets the error of the line that failed.
"""

import errno
import re
from collections.abc import Iterator

from synosfs.errors import SynosError
from synosfs.fs.node import Handle
from synosfs.kernel import Kernel
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply, Request

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


class LineHandle(Handle):
    """Takes part by lines. What a line means is ``requests_of``'s to say, and what is left of one that failed midway,
    ``undone``'s to mend.
    """

    def __init__(self, kernel: Kernel, caller: Caller) -> None:
        self._dispatcher = kernel.dispatcher
        self._caller = caller

    def requests_of(self, line: bytes) -> list[Request]:
        """The calls that a line stands for; none for a blank one. EINVAL for what means nothing."""
        raise NotImplementedError

    def undone(self, made: list[Request]) -> list[Request]:
        """The calls that take back what a line has done that was stopped before its end."""
        return []

    async def write(self, offset: int, data: bytes) -> int:
        """The bytes of the lines that were carried out; the error of the first line if it was not."""
        turn = self._dispatcher.turn(self._caller)
        for line in _lines(data):  # read twice rather than kept: a megabyte of them is a million objects
            self.requests_of(line)
            if turn.is_due():
                await turn.let_others_in()
        done = 0
        for line in _lines(data):
            requests = self.requests_of(line)
            replies = await self._dispatcher.run_all(self._caller, requests, turn, until_error=True) if requests else []
            if replies and (failed := replies[-1]).errno:
                for request in self.undone(requests[: len(replies) - 1]):
                    await self._dispatcher.call(self._caller, request)
                if done:
                    break
                raise _error(failed)
            done += len(line)
            if turn.is_due():
                await turn.let_others_in()
            if turn.stopped is not None:
                break
        return done


def _lines(data: bytes) -> Iterator[bytes]:
    """One by one: a megabyte of newlines is a million lines."""
    return (match[0] for match in _LINE.finditer(data))


def _error(reply: Reply) -> SynosError:
    if reply.errno == errno.ECANCELED:  # a signal came between two calls, before the first line was through
        return SynosError(errno.EINTR, "interrupted by a signal")
    return SynosError(reply.errno, reply.message)
