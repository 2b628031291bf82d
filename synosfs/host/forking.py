"""What the daemon and ``fork_program.c`` say to each other: see there."""

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

#: ``struct answer`` of a child: errno or 0; behind it stands, in words, what it was doing.
ANSWER = struct.Struct("@i")

#: ``struct event``: serial number, whether it is reaped already, CLD_*, status, and ``struct rusage``. Without a CLD_*
#: it says that what has been asked for under this number is done.
EVENT = struct.Struct("@4i18l")

#: So many descriptors come with one message, beside the one of a long order.
MOST_FDS = 249

PROGRAM = str(Path(__file__).with_name("fork_program"))

#: No longer order is the message itself.
_MOST_BYTES = 60_000


def send(connection: socket.socket, words: Iterable[bytes | int], fds: list[int]) -> None:
    """Send an order; on a socket that does not wait, BlockingIOError when there is no room."""
    text = b"".join(b"%b\0" % (b"%d" % word if isinstance(word, int) else word) for word in words)
    if len(text) <= _MOST_BYTES:
        socket.send_fds(connection, [b"i" + text], fds)
        return
    in_memory = os.memfd_create("order", os.MFD_CLOEXEC)
    try:
        os.write(in_memory, text)
        socket.send_fds(connection, [b"m"], [in_memory, *fds])
    finally:
        os.close(in_memory)


def counted(words: Iterable[bytes | int]) -> list[bytes | int]:
    """A list in an order: how many there are, and each."""
    words = list(words)
    return [len(words), *words]


def close(fds: list[int]) -> None:
    """Those of an order that has been sent, or is not."""
    while fds:
        os.close(fds.pop())
