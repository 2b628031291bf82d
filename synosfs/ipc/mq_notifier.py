"""mq_notify(3) for others, by a small process that is registered in the daemon's place.

The kernel ends a registration when *any* descriptor of the queue is closed by the registered process. The daemon opens
and closes queues for everybody, so it cannot be that process; ``host_mq_notifier`` is, and ends with the daemon,
however that ends. Here is the daemon's side. Used from the trio thread only.
"""

import errno
import socket
import subprocess
import sys

from synosfs.errors import SynosError, WouldBlock
from synosfs.host import mq_notifier_program as host_mq_notifier
from synosfs.host.abi import SIGEV_CANCEL
from synosfs.host.mq_notifier_program import ANSWER, COOKIE, REQUEST, WOKEN_UP


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
        self._socket.close()


class Notifier:
    """Registrations by queue, each with its owner. The program is started at the first one, which takes some 15 ms."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, int], tuple[object, int]] = {}
        self._program: tuple[socket.socket, subprocess.Popen[bytes]] | None = None

    def register(
        self, queue: tuple[int, int], queue_fd: int, notification: int, event: Event, owner: object, pid: int
    ) -> None:
        """mq_notify(3). ``queue`` is its identity, ``pid`` the owner's. EBUSY: somebody is registered."""
        known = queue in self._owners
        # A second descriptor of one queue would end the registration when it is closed.
        fds = [event.fileno()] if known else [event.fileno(), queue_fd]
        failed = self._ask(REQUEST.pack(*queue, notification), fds)
        if failed and not known:
            self._ask(REQUEST.pack(*queue, SIGEV_CANCEL), [])
        if failed:
            raise SynosError(failed, _FAILED.get(failed, ""))
        self._owners[queue] = owner, pid

    def true_pid(self, queue: tuple[int, int], pid: int) -> int:
        """Whose the registration is that the host shows as ``pid``'s: a SynOS process's where that is the program's."""
        _, true_pid = self._owners.get(queue, (None, pid))
        return true_pid if self._program is not None and pid == self._program[1].pid else pid

    def release(self, queue: tuple[int, int], owner: object) -> None:
        """End the registration that ``owner`` has for the queue, if it has one, and let go of the queue."""
        if queue in self._owners and self._owners[queue][0] is owner:
            del self._owners[queue]
            self._ask(REQUEST.pack(*queue, SIGEV_CANCEL), [])

    def _ask(self, request: bytes, fds: list[int]) -> int:
        if self._program is None:
            self._program = _start()
        connection, _ = self._program
        try:
            socket.send_fds(connection, [request], fds)
            answer = connection.recv(ANSWER.size)
        except OSError:
            answer = b""
        return int(ANSWER.unpack(answer)[0]) if answer else errno.EIO


_FAILED = {
    errno.EBUSY: "another process is registered for this queue, and one at a time can be",
    errno.EIO: "the daemon's notifier has ended; mount anew",
}


def _start() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the program. It ends when the socket that is returned is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-I", "-S", host_mq_notifier.__file__]
        program = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/", start_new_session=True
        )
    return ours, program
