"""The five doors to one object: libc itself, the dispatcher, and the mount in three notations.

A conformance case is written once, against a ``Door``: ``door.call("msgrcv", msqid, 8192, 0, "MSG_NOERROR")`` gives
a ``Result``; ``door.start(...)`` makes the call in a process of its own, where it may block. How arguments are written
is in ``wire``; native calls are in ``native_*``, one module a family.
"""

import ctypes
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import native
import wire
from children import PATIENCE_S, Child, wait_until
from mounts import Mount
from native import Result

#: What Linux and the gate call the ordinary user of these tests.
NOBODY = 65534


class Blocked(Child):
    """A call that was started in a process of its own."""

    def __init__(self, door: "Door", call: str, body: Callable[[], Result], **options: Any) -> None:
        super().__init__(body, on_signal=door.signalled, **options)
        self._door = door
        self._call = call

    def is_blocked(self) -> bool:
        return not self.ended() and self._door.is_blocked(self.pid, self._call)

    def wait_until_blocked(self) -> "Blocked":
        wait_until(lambda: self.is_blocked() or self.ended(), f"{self._call} blocks")
        assert self.status is None, f"{self._call} did not block: {self.result()}"
        return self


class Door:
    """One way to make calls. Those of a process go out in order; each process has its own identity behind the door."""

    name: str

    def __init__(self) -> None:
        self._children: list[Child] = []

    def call(self, call: str, *args: Any, **kwargs: Any) -> Result:
        """Make the call as this process."""
        raise NotImplementedError

    def ok(self, call: str, *args: Any, **kwargs: Any) -> Result:
        """Make a call that has to succeed."""
        result = self.call(call, *args, **kwargs)
        assert not result.errno, (call, args, result)
        return result

    def start(self, call: str, *args: Any, as_uid: int = 0, restart: bool = False, **kwargs: Any) -> Blocked:
        """Make the call in a process of its own, as another user if ``as_uid`` is given. See ``Child``."""
        started = Blocked(self, call, partial(self.call, call, *args, **kwargs), uid=as_uid, restart=restart)
        self._children.append(started)
        return started

    def block(self, call: str, *args: Any, **options: Any) -> Blocked:
        """``start`` a call that blocks, and return when it does."""
        return self.start(call, *args, **options).wait_until_blocked()

    def call_as(self, as_uid: int, call: str, *args: Any, **kwargs: Any) -> Result:
        """Make the call as another user, in a process that ends with it."""
        return self.start(call, *args, as_uid=as_uid, **kwargs).result()

    def spawn(self, body: Callable[[], Any], *, uid: int = 0) -> Child:
        """A process that makes calls of its own through this door."""
        child = Child(body, uid=uid, on_signal=self.signalled)
        self._children.append(child)
        return child

    def spawn_member(self, *, uid: int = 0) -> Child:
        """A process that takes part: it has made a call, had its answer, and sleeps."""
        reader, writer = os.pipe()

        def body() -> None:
            self.ok("getuid")
            os.write(writer, b".")
            signal.pause()

        child = self.spawn(body, uid=uid)
        os.close(writer)
        try:
            assert os.read(reader, 1), f"process {child.pid} had no answer"
        finally:
            os.close(reader)
        return child

    def is_blocked(self, pid: int, call: str) -> bool:
        """Whether a process sleeps in a call of this name."""
        raise NotImplementedError

    def blocked_callers(self) -> int:
        """How many calls are blocked behind the door, whoever made them."""
        return 0

    def signalled(self) -> None:
        """In a child: a signal has come."""

    def end_children(self) -> None:
        """End what a test has started; whatever was blocked is then gone."""
        while self._children:
            self._children.pop().close()
        wait_until(lambda: self.blocked_callers() == 0, f"no caller is blocked at {self.name}")

    def close(self) -> None:
        self.end_children()


class NativeDoor(Door):
    """libc, in the calling process."""

    name = "native"

    def call(self, call: str, *args: Any, **kwargs: Any) -> Result:
        return native.perform(call, args, kwargs)

    def is_blocked(self, pid: int, call: str) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
            return state == "S" and Path(f"/proc/{pid}/syscall").read_text().split()[0] == str(native.sleeps_in(call))
        except (FileNotFoundError, ProcessLookupError):
            return False


class MountDoor(Door):
    """A mount: a session of one open file for each process."""

    _NOTATIONS: ClassVar = {
        "text": (wire.encode_text, wire.decode_text),
        "json": (wire.encode_json, wire.decode_json),
        "msgpack": (wire.encode_msgpack, wire.decode_msgpack),
    }

    def __init__(self, mount: Mount, notation: str) -> None:
        super().__init__()
        self.name = notation
        self.mount = mount
        self._encode, self._decode = self._NOTATIONS[notation]
        self._session = (0, -1)

    def call(self, call: str, *args: Any, **kwargs: Any) -> Result:
        fd = self._open()
        error = write(fd, self._encode(call, args, kwargs))
        reply = b""
        while piece := os.read(fd, 2 << 20):
            reply += piece
        result = self._decode(reply)
        # A single text request that fails makes the write fail with its errno; other notations answer in the reply.
        assert error == (result.errno if self.name == "text" else ""), (error, result)
        return result

    def is_blocked(self, pid: int, call: str) -> bool:
        return any(what.startswith(f"{call}(") for what in self.mount.blocked(pid))

    def blocked_callers(self) -> int:
        return self.mount.blocked_callers()

    def close(self) -> None:
        super().close()
        owner, fd = self._session
        if owner == os.getpid():
            os.close(fd)
        self._session = (0, -1)

    def _open(self) -> int:
        owner, fd = self._session
        if owner != os.getpid():  # the first call, or this is a child: what it inherits is its parent's session
            fd = os.open(self.mount.gate, os.O_RDWR | os.O_CLOEXEC)
            self._session = (os.getpid(), fd)
        return fd


def write(fd: int, data: bytes) -> str:
    """write(2) until all is written; the name of the errno if it fails. os.write would hide EINTR by trying again."""
    address = ctypes.cast(data, ctypes.c_void_p).value or 0
    written = 0
    while written < len(data):
        count = native.libc.write(fd, ctypes.c_void_p(address + written), ctypes.c_size_t(len(data) - written))
        if count == -1:
            return native.errno_name(ctypes.get_errno())
        written += count
    return ""


class DispatcherDoor(Door):
    """SyscallDispatcher in a process of its own (``dispatcher_server``), called over a socket, without FUSE.

    The server knows its callers as the mount does: by the kernel's word, from the socket's peer credentials.
    """

    name = "dispatcher"

    def __init__(self, directory: Path, prefix: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._path = str(directory / "dispatcher")
        self._connection: tuple[int, socket.socket | None] = (0, None)
        server = Path(__file__).with_name("dispatcher_server.py")
        command = [*prefix, sys.executable, str(server), self._path]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self._server.stdout
        assert self._server.stdout.readline() == b"ready\n"

    def call(self, call: str, *args: Any, **kwargs: Any) -> Result:
        # A list of operations is one argument here too, as it is in JSON.
        timeout = kwargs.pop("timeout", None)
        connection = self._connect()
        send_frame(connection, ("call", call, wire.operations_joined(args), kwargs, timeout))
        # poll(2) returns on a signal also where SA_RESTART would let recv(2) sleep on, and the handler below runs.
        select.select([connection], [], [])
        return Result(*receive_frame(connection))

    def is_blocked(self, pid: int, call: str) -> bool:
        if not any(parked == pid and what.startswith(f"{call}(") for parked, what in self._parked()):
            return False
        # A signal that comes just before the process sleeps would not wake it: it has to sleep already.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "S"

    def blocked_callers(self) -> int:
        return len(self._parked())

    def signalled(self) -> None:
        # What the kernel's FUSE client does for a process that waits in the mount.
        send_frame(self._connect(), ("interrupt",))

    def close(self) -> None:
        super().close()
        owner, connection = self._connection
        if connection is not None and owner == os.getpid():
            connection.close()
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.close()
        self._server.stdout.close()
        assert self._server.wait(PATIENCE_S) == 0
        os.unlink(self._path)

    def _parked(self) -> list[tuple[int, str]]:
        send_frame(self._connect(), ("parked",))
        return receive_frame(self._connect())

    def _connect(self) -> socket.socket:
        owner, connection = self._connection
        if connection is None or owner != os.getpid():
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self._path)
            self._connection = (os.getpid(), connection)
        return connection


def send_frame(connection: socket.socket, message: Any) -> None:
    pickled = pickle.dumps(message)
    connection.sendall(struct.pack("I", len(pickled)) + pickled)


def receive_frame(connection: socket.socket) -> Any:
    (size,) = struct.unpack("I", connection.recv(4, socket.MSG_WAITALL))
    return pickle.loads(connection.recv(size, socket.MSG_WAITALL))
