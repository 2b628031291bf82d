"""mq_notify(3) for others, by a small process that is registered in the daemon's place.

The kernel ends a registration when *any* descriptor of the queue is closed by the registered process. The daemon opens
and closes queues for everybody, so it cannot be that process; ``mq_notifier_program`` is, and ends with the daemon,
however that ends. Here is the daemon's side. Used from the trio thread only.

Where the program ends before, the kernel ends its registrations, and tells who waits for them that they are removed.
The next registration starts another. One that does not answer in time is ended, for the daemon has others to serve.
"""

import errno
import socket
import sys

import trio

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import mq_notifier_program, program
from synosfs.host.arch import CALLS
from synosfs.host.mq_notifier_program import ANSWER, COOKIE, LET_GO, REQUEST, WOKEN_UP

#: How long the program may take for an answer, in seconds, its start included, which takes some 15 ms.
_PATIENCE_S = 5.0


class Event:
    """Where one notification arrives."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)

    def fileno(self) -> int:
        return self._socket.fileno()

    def why(self) -> str:
        """``message``, or ``removed`` when the registration has ended; as often as asked. WouldBlock: nothing yet."""
        try:
            notification = self._socket.recv(len(COOKIE), socket.MSG_PEEK)
        except BlockingIOError:
            raise WouldBlock(errno.EAGAIN, "no message has come to the empty queue yet") from None
        return "message" if notification[-1] == WOKEN_UP else "removed"

    def close(self) -> None:
        """Who waits for it is told so."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class _Program:
    """The running program."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(_PATIENCE_S)
        with theirs:
            command = [sys.executable, "-I", "-S", mq_notifier_program.__file__, str(CALLS["mq_notify"])]
            self._process = program.start(command, theirs)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: bytes, fds: list[int]) -> int | None:
        """The errno that it answers, or 0; None: it has ended, or has been."""
        try:
            socket.send_fds(self._connection, [request], fds)
            answer = self._connection.recv(ANSWER.size)
        except OSError:  # TimeoutError too
            answer = b""
        return int(ANSWER.unpack(answer)[0]) if answer else None

    def end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


class Notifier:
    """Registrations by queue, each with its owner and the owner's pid. The program is started at the first one."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, int], tuple[object, int]] = {}
        self._program: _Program | None = None

    def register(
        self, queue: tuple[int, int], queue_fd: int, notification: int, event: Event, owner: object, pid: int
    ) -> None:
        """mq_notify(3). ``queue`` is its identity, ``pid`` the owner's. EBUSY: somebody is registered."""
        for _ in range(2):  # the program may have ended since it was last asked
            failed = self._try_to_register(queue, queue_fd, notification, event)
            if failed == 0:
                self._owners[queue] = owner, pid
                return
            if failed is not None:
                raise SynosError(failed, _FAILED.get(failed, ""))
        raise SynosError(errno.EIO, _FAILED[errno.EIO])

    def _try_to_register(self, queue: tuple[int, int], queue_fd: int, notification: int, event: Event) -> int | None:
        if self._program is None:
            self._program = _Program()
        known = queue in self._owners
        # A second descriptor of one queue would end the registration when it is closed.
        fds = [event.fileno()] if known else [event.fileno(), queue_fd]
        failed = self._ask(REQUEST.pack(*queue, notification), fds)
        if failed and not known:
            self._ask(REQUEST.pack(*queue, LET_GO), [])
        return failed

    def true_pid(self, queue: tuple[int, int], pid: int) -> int:
        """Whose the registration is that the host shows as ``pid``'s: a SynOS process's where that is the program's."""
        _, true_pid = self._owners.get(queue, (None, pid))
        return true_pid if self._program is not None and pid == self._program.pid else pid

    def release(self, queue: tuple[int, int], owner: object) -> None:
        """End the registration that ``owner`` has for the queue, if it has one, and let go of the queue."""
        if queue in self._owners and self._owners[queue][0] is owner:
            del self._owners[queue]
            self._ask(REQUEST.pack(*queue, LET_GO), [])

    def _ask(self, request: bytes, fds: list[int]) -> int | None:
        """None: the program has ended, and so has every registration."""
        if self._program is None:
            return None
        answer = self._program.ask(request, fds)
        if answer is None:
            self._program.end()
            self._program = None
            self._owners.clear()
        return answer


_FAILED = {
    errno.EBUSY: "another process is registered for this queue, and one at a time can be",
    errno.EIO: "the daemon's notifier ends as soon as it is started",
}
