"""Pairs of connected sockets, by the daemon's descriptors of them.

The host's O_NONBLOCK is what the user asked for and nothing else: a program that is given the socket shares it. What
must not wait here says so in each call (MSG_DONTWAIT). A function is one host call; one that would wait raises
``WouldBlock``.
"""

import socket
from errno import EAGAIN, EINVAL, EMSGSIZE, EPIPE

from synosfs.errors import WouldBlock
from synosfs.host.errors import explained
from synosfs.ipc import pipe

_REASONS = {
    **pipe.REASONS,
    EPIPE: "the other end is closed",
    EMSGSIZE: "the message is larger than the socket's buffer, and goes whole or not at all",
    EINVAL: "the socket type is SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET",
}


def create(type: int, *, nonblock: bool) -> tuple[socket.socket, socket.socket]:
    """socketpair(2), AF_UNIX."""
    try:
        return socket.socketpair(socket.AF_UNIX, type | socket.SOCK_NONBLOCK * nonblock | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise pipe.exhausted(error, _REASONS) from None


def receive(end: socket.socket, size: int) -> bytes:
    """recv(2): up to ``size`` bytes, or one packet; none when the other end is closed."""
    try:
        return end.recv(size, socket.MSG_DONTWAIT)
    except BlockingIOError:
        raise WouldBlock(EAGAIN, "nothing has come, and O_NONBLOCK says not to wait") from None
    except OSError as error:
        raise explained(error, _REASONS) from None


def send(end: socket.socket, data: bytes | memoryview) -> int:
    """How many bytes went in."""
    try:
        return end.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except BlockingIOError:
        raise WouldBlock(EAGAIN, "there is no room, and O_NONBLOCK says not to wait") from None
    except OSError as error:
        raise explained(error, _REASONS) from None


def close(end: socket.socket) -> None:
    end.close()
