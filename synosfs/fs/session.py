"""A session: one open file of the gate. Requests come in by writes, replies go out by reads, in order.

It is a stream: offsets do not matter, with one exception that shells need. bash's ``read`` takes more bytes than the
line it wants and seeks back over the rest; a read that goes back over bytes just read gets them again.

The kernel hands a write of more than about 1 MiB on in pieces. When one fails that is not the first, write(2) is short,
and a client's loop writes the rest anew: what has been run would be run twice. So a request that fails makes the write
fail only where it came in one piece; otherwise its errno stands in the reply alone, as for batches. What may be another
piece of a write is taken for one: a piece behind one of full size, unless replies were read in between.

``open_caller`` is the one way in which opening a file makes somebody who calls.
"""

import errno
import os
from collections.abc import Iterable
from typing import Any

from synosfs.errors import SynosError
from synosfs.fs.interrupts import Waiter
from synosfs.fs.node import Handle, Who, credentials_of
from synosfs.host import usernamespace
from synosfs.kernel import Kernel
from synosfs.process.accounts import Holding
from synosfs.process.host_process import HostProcess
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.codecs import PAUSE, TEXT, Record, RequestStream, encoded
from synosfs.syscall_gate.dispatch import MAX_REPLIES, Translate
from synosfs.syscall_gate.record import Reply, Request

#: The kernel splits a larger write into requests of 256 pages; the first is shorter when the buffer is not aligned.
SPLIT_WRITE = 256 * 4096 - 4096


def open_caller(kernel: Kernel, who: Who, flags: int = 0, inode: int = 0, process: HostProcess | None = None) -> Caller:
    """The caller that an open file acts as, or who asks for a change by name; ``process`` when it is on its behalf."""
    origin = Waiter(who.pid, inode)
    if process is None:
        caller = kernel.caller(who.pid, who.uid, who.gid, origin)
    else:
        caller = kernel.caller_for(process, who.pid, who.uid, who.gid, origin)
    caller.nonblock = bool(flags & os.O_NONBLOCK)
    return caller


def look_into(kernel: Kernel, process: HostProcess, who: Who) -> None:
    """That who asks now may see what the process holds: asked of the host at every use, for a process changes, and what
    had its pid may be another by now. EACCES, ESRCH.
    """
    kernel.look_into(process, who.pid, credentials_of(who))


#: So many requests are let go of in a row.
_HANDFUL = 512

#: What a session holds up to so many bytes is not charged.
_FREE = 4096


class Session(Handle):
    """The requests and replies of one open file, of ``caller``; without ``readable`` the replies are not kept for it.

    ``translate`` turns what is written into the system call that it stands for. The writes come one at a time: the
    kernel holds the inode's lock.
    """

    leaves_reasons = False

    def __init__(self, kernel: Kernel, caller: Caller, *, readable: bool, translate: Translate | None = None) -> None:
        self._dispatcher = kernel.dispatcher
        self._caller = caller
        self._readable = readable
        self._translate = translate
        self._turn = kernel.dispatcher.turn(caller)
        self._requests = RequestStream(SPLIT_WRITE)
        self._replies: bytes | bytearray = b""
        self._read = 0  # how much of _replies has been read; kept until the next write, for a reader that goes back
        self._memory = Holding(caller.process.account, "memory")
        self._offset = 0  # where the file's position is after the last read or write
        self._goes_on = False  # the kernel may hand the rest of the same write on in another piece

    async def write(self, offset: int, data: bytes) -> int:
        """Take a piece of a request, and run every request that it completes.

        Raises the error of a text request that is alone in its write, in one piece; all other errors are in the
        replies. ENOBUFS: the caller does not read its replies. ESRCH: the process that opened the session has ended.
        """
        if len(self._replies) - self._read > MAX_REPLIES:
            raise SynosError(errno.ENOBUFS, "16 MiB of replies are unread in this session: read them first")
        size = len(data)
        if size > _FREE or self._holds_much():
            self._hold(size)
        self._offset = offset + size
        whole = not self._goes_on and self._requests.idle
        if not self._goes_on:
            self._turn.begin()  # in the middle of a write a signal ends the rest of it too
        self._goes_on = size >= SPLIT_WRITE
        try:
            error = await self._run(self._requests.feed(data))
        finally:
            if self._holds_much():
                self._hold()
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
        if self._memory.amount and self._read == len(self._replies):
            self._replies, self._read = chunk, len(chunk)  # a reader may go back over these
            self._hold()
        return chunk

    async def close(self) -> None:
        """Run a request that the writer left without a newline."""
        try:
            if not self._requests.idle:
                await self._run_rest()
        finally:
            self._memory.close()

    def _hold(self, coming: int = 0) -> None:
        """Charge what is held now, and what is coming. ENOMEM: the user holds too much."""
        self._memory.set(self._requests.pending + len(self._replies) + coming)

    def _holds_much(self) -> bool:
        return len(self._replies) > _FREE or self._memory.amount > 0 or not self._requests.idle

    async def _run_rest(self) -> None:
        self._turn.begin()
        await self._run(self._requests.finish())

    async def _run(self, records: Iterable[Record]) -> SynosError | None:
        """Answer the records of one write. Returns the error of a single text request, if it failed."""
        process, turn = self._caller.process, self._turn
        self._caller.check()
        answer: bytes | bytearray = b""
        count = 0
        failed = None
        for record in records:
            if record is PAUSE:
                if turn.is_due():
                    await turn.let_others_in()
                continue
            replies = await self._answer(record)
            pieces = []
            for piece in encoded(record, replies):
                pieces.append(piece)
                if turn.is_due():
                    await turn.let_others_in()
            await self._let_go(record.requests, replies)
            count += 1
            if count == 2:
                answer = bytearray(answer)  # and not a list: joining a hundred thousand takes long
            answer += pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._hold_answers(len(answer))
            if record.notation is TEXT and replies[0].errno:
                failed = SynosError(replies[0].errno, replies[0].message)
        if not count:
            return None
        answer = bytes(answer)
        process.remember(answer, self._caller.credentials)
        if self._readable:
            self._keep(answer)
        return failed if count == 1 else None

    async def _let_go(self, *lists: list[Any]) -> None:
        """Of the requests and replies of a batch: 65,536 of them take long to go."""
        for each in lists:
            while len(each) > _HANDFUL:
                del each[-_HANDFUL:]
                if self._turn.is_due():
                    await self._turn.let_others_in()

    def _hold_answers(self, size: int) -> None:
        """The answers of this write hold so much by now. When that is too much, no more of it is run."""
        self._turn.hold(size)
        if size > _FREE:
            try:
                self._hold(size)
            except SynosError as error:
                self._turn.stop(Reply(-1, errno=error.errno, message=f"not run: {error.message}"))

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
        """The replies to one record."""
        if record.error is None:
            return await self._dispatcher.run_all(self._caller, record.requests, self._turn, translate=self._translate)
        if self._turn.is_due():
            await self._turn.let_others_in()
        return [self._turn.stopped or Reply(-1, errno=record.error.errno, message=record.error.message)]


async def call_as(kernel: Kernel, who: Who, request: Request) -> Reply:
    """A call that an operation by name stands for (rm, chmod, mkfifo …), made by who asked. Its error is raised."""
    caller = open_caller(kernel, who)
    caller.because = "rm"  # what else removes anything by name
    caller.user_namespace = usernamespace.OURS  # the kernel has translated the ids of a chown already
    return await kernel.dispatcher.called(caller, request)
