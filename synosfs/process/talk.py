"""What is said to a child that waits, and what it answers. See ``host/fork_program.c``."""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import trio

from synosfs.errors import SynosError, printable
from synosfs.host import forking
from synosfs.host.forking import ANSWER, MOST_FDS, counted

Words = list[bytes | int]

#: Each in words, and with the descriptors that go with it, which are closed once it is sent.
Orders = list[tuple[Words, list[int]]]


class Program(NamedTuple):
    """What a child is to become: execve(2). ``environment`` is all of it, or with ``is_whole`` false what is to be
    changed in the one that it began with (a name alone: taken out). ``numbers`` are the descriptors that it will have,
    each a number of the child's own, or what is called to make one. ``umask`` -1: the child's own. It begins in
    ``directory`` (a descriptor; -1: where the child is), or where the path ``chdir`` leads to from there. ``files``:
    its RLIMIT_NOFILE, if not the child's. ``at`` makes the directory (or the very file) that ``path`` is looked up
    from, with the ``flags`` of execveat(2).
    """

    path: bytes
    argv: list[bytes]
    environment: list[bytes]
    is_whole: bool
    umask: int
    numbers: dict[int, int | Callable[[], int]]
    directory: int = -1
    chdir: bytes = b""
    files: tuple[int, ...] = ()
    at: Callable[[], int] | None = None
    flags: int = 0

    @property
    def is_quick(self) -> bool:
        """Whether nothing has to be opened for it."""
        return self.at is None and not any(callable(source) for source in self.numbers.values())

    def orders(self) -> Orders:
        """How a child is told."""
        numbers: Words = []
        fds: list[int] = []
        try:
            for number, source in self.numbers.items():
                if isinstance(source, int):
                    numbers += [number, ~source]
                else:
                    numbers += [number, len(fds)]
                    fds.append(source())
            if self.at is not None:
                fds.append(self.at())
            directory = [os.dup(self.directory)] if self.directory >= 0 else []
        except BaseException:
            forking.close(fds)
            raise
        words: Words = [
            *(b"execute", self.path),
            *counted(self.argv),
            self.is_whole,
            *counted(self.environment),
            *(self.umask, self.chdir),
            *(-1 if self.at is None else len(fds) - 1, self.flags),
            len(self.numbers),
            *numbers,
            *self.files,
        ]
        pieces = [fds[start : start + MOST_FDS] for start in range(0, len(fds), MOST_FDS)]
        return [*((list[bytes | int]([b"descriptors"]), piece) for piece in pieces), (words, directory)]


class Connection:
    """The daemon's end of the socket of a child. It is closed when nobody holds it any more, so that a conversation
    that its end interrupts does not go on with another's descriptor.
    """

    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.birth = -1
        ours.setblocking(False)
        #: An eventfd that has the child's pid once that is there, from the child while it has the daemon's rights.
        self.birth = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def pid(self) -> int:
        """The child's; 0 while it is not there. Asked once."""
        try:
            return os.eventfd_read(self.birth)
        except BlockingIOError:
            return 0
        finally:
            self._close_birth()

    def end(self) -> None:
        """Nothing is said any more; a child that waits ends by this."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        self.socket.close()
        self._close_birth()

    def _close_birth(self) -> None:
        if self.birth >= 0:
            os.close(self.birth)
            self.birth = -1


async def send_soon(connection: socket.socket, words: Words, fds: list[int]) -> None:
    """Send as soon as there is room."""
    while True:
        try:
            forking.send(connection, words, fds)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(connection)
        else:
            return


class Talk:
    """One conversation: some orders, of which each is answered but "descriptors"."""

    def __init__(self, connection: Connection, orders: Orders, *, unasked: int = 0) -> None:
        """``unasked``: so many answers come beside those to the orders. What answers is its user's, who may tamper with
        it: nothing in an answer is believed.
        """
        self._connection = connection
        self._orders = orders
        self._missing = unasked + sum(words[0] != b"descriptors" for words, _ in orders)
        #: The child has become its program, or has ended: there are no answers any more.
        self.is_over = False

    async def hold(self) -> None:
        """The errno that the child answers is raised, with what it was doing then."""
        try:
            for words, fds in self._orders:
                await send_soon(self._connection.socket, words, fds)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):  # these: it has ended, which listening tells
                raise SynosError(error.errno or errno.EIO, f"an order to a child: {error.strerror}") from None
        finally:
            for _, fds in self._orders:
                forking.close(fds)
        while self._missing and not self.is_over:
            await self._listen()

    async def _listen(self) -> None:
        await trio.lowlevel.wait_readable(self._connection.socket)
        try:
            answer = self._connection.socket.recv(256)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self.is_over = True
            return
        self._missing -= 1
        (failed,) = ANSWER.unpack_from(answer.ljust(ANSWER.size, b"\xff"))
        if failed:
            doing = printable(answer[ANSWER.size :].decode("utf-8", "replace"))
            raise SynosError(failed if 0 < failed < 4096 else errno.EIO, f"{doing}: {os.strerror(failed).lower()}")
