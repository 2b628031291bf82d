"""A session: one open file of the gate. Requests come in by writes, replies go out by reads, in order.

It is a stream: offsets do not matter, with one exception that shells need. bash's ``read`` takes more bytes than the
line it wants and seeks back over the rest; a read that goes back over bytes just read gets them again.

The kernel hands a write of more than about 1 MiB on in pieces. When one fails that is not the first, write(2) is short,
and a client's loop writes the rest anew: what has been run would be run twice. So a request that fails makes the write
fail only where it came in one piece; otherwise its errno stands in the reply alone, as for batches. What may be another
piece of a write is taken for one: a piece behind one of full size, unless replies were read in between.
"""

import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from synosfs.errors import SynosError
from synosfs.syscall_gate.codecs import SPLIT_WRITE, TEXT, Record, RequestStream, encode
from synosfs.syscall_gate.dispatch import MAX_REPLIES, NOT_RUN, SLICE_NS, SyscallDispatcher
from synosfs.syscall_gate.parking import Caller
from synosfs.syscall_gate.record import Reply, Request

Translate = Callable[[Request], Request]

_ENOUGH = Reply(
    -1, errno=errno.ENOBUFS, message="not run: the replies to this write hold 16 MiB already; write less at once"
)


@dataclass(slots=True)
class Session:
    """The requests and replies of one open file, of ``caller``; without ``readable`` the replies are not kept for it.

    ``translate`` turns what is written into the system call that it stands for. The writes come one at a time: the
    kernel holds the inode's lock.
    """

    dispatcher: SyscallDispatcher
    caller: Caller
    readable: bool
    translate: Translate | None = None
    _requests: RequestStream = field(default_factory=RequestStream)
    _replies: bytes | bytearray = b""
    _read: int = 0  # how much of _replies has been read; kept until the next write, for a reader that goes back
    _offset: int = 0  # where the file's position is after the last read or write
    _goes_on: bool = False  # the kernel may hand the rest of the same write on in another piece

    async def write(self, offset: int, data: bytes) -> int:
        """Take a piece of a request, and run every request that it completes.

        Raises the error of a text request that is alone in its write, in one piece; all other errors are in the
        replies. ENOBUFS: the caller does not read its replies. ESRCH: the process that opened the session has ended.
        """
        if len(self._replies) - self._read > MAX_REPLIES:
            raise SynosError(errno.ENOBUFS, "16 MiB of replies are unread in this session: read them first")
        size = len(data)
        self._offset = offset + size
        whole = not self._goes_on and self._requests.idle
        if not self._goes_on:
            self.caller.interrupted = False  # else a signal ends the rest of the write too
        self._goes_on = size >= SPLIT_WRITE
        error = await self._run(self._requests.feed(data))
        if error is not None and whole and self._requests.idle:
            self._goes_on = False  # what fails does not
            raise error
        return size

    async def read(self, offset: int, size: int) -> bytes:
        """The next bytes of the replies; nothing when all have been read."""
        self._goes_on = False
        if not self._requests.idle:
            await self._run_rest()
        back = self._offset - offset
        if 0 < back <= self._read:
            self._read -= back
        chunk = bytes(self._replies[self._read : self._read + size])
        self._read += len(chunk)
        self._offset = offset + len(chunk)
        return chunk

    async def close(self) -> None:
        """Run a request that the writer left without a newline."""
        if not self._requests.idle:
            await self._run_rest()

    async def _run_rest(self) -> None:
        self.caller.interrupted = False
        await self._run(self._requests.finish())

    async def _run(self, records: Iterable[Record]) -> SynosError | None:
        """Answer the records of one write. Returns the error of a single text request, if it failed."""
        process = self.caller.process
        answers = []
        size = 0
        failed = None
        began = time.perf_counter_ns()
        for record in records:
            if not process.is_alive():
                raise SynosError(
                    errno.ESRCH, f"process {process.pid}, which opened this session, has ended; open it anew"
                )
            replies = await self._answer(record) if size <= MAX_REPLIES else [_ENOUGH] * (len(record.requests) or 1)
            answers.append(encode(record, replies))
            size += len(answers[-1])
            if record.notation is TEXT and replies[0].errno:
                failed = SynosError(replies[0].errno, replies[0].message)
            if time.perf_counter_ns() - began > SLICE_NS:
                await self.dispatcher.parking.let_others_in(self.caller)
                began = time.perf_counter_ns()
        if not answers:
            return None
        answer = answers[0] if len(answers) == 1 else b"".join(answers)
        process.last_reply, process.last_reply_uid = answer, self.caller.credentials.uid
        if self.readable:
            self._keep(answer)
        return failed if len(answers) == 1 else None

    def _keep(self, answer: bytes) -> None:
        """Let the reader have it, after what it has not read yet."""
        if self._read == len(self._replies):
            self._replies = answer
        else:
            self._replies = bytearray(self._replies) if isinstance(self._replies, bytes) else self._replies
            del self._replies[: self._read]
            self._replies += answer
        self._read = 0

    async def _answer(self, record: Record) -> list[Reply]:
        """The replies to one record, each request of it translated first."""
        requests, caller = record.requests, self.caller
        if caller.interrupted:
            return [NOT_RUN] * (len(requests) or 1)
        try:
            if record.error is not None:
                raise record.error
            if self.translate is not None:
                requests = [self.translate(request) for request in requests]
        except SynosError as error:
            return [Reply(-1, errno=error.errno, message=error.message)] * (len(requests) or 1)  # none of it is run
        if len(requests) > 1:
            return await self.dispatcher.call_all(caller, requests)
        answer = self.dispatcher.begin(caller, requests[0])
        return [answer if isinstance(answer, Reply) else await self.dispatcher.finish(caller, answer)]
