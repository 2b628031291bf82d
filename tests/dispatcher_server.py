"""A dispatcher without a mount: ``SyscallDispatcher`` behind a Unix socket, in a process of its own.

usage: dispatcher_server.py PATH       prints "ready" when it can be called, ends when its standard input does

A connection is what a session is in the mount. Frames are pickled, and each is preceded by its size; ``doors`` has the
other end.
"""

import os
import pickle
import socket
import struct
import sys
from errno import EINTR
from functools import partial

import trio

from synosfs.errors import SynosError, errno_name
from synosfs.host.thread import install_interrupt_handler
from synosfs.kernel import Kernel
from synosfs.syscall_gate.parking import Caller
from synosfs.syscall_gate.record import Request


async def main(path: str) -> None:
    install_interrupt_handler()
    kernel = Kernel()
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(path)
    listener.listen(1024)
    os.chmod(path, 0o777)
    os.write(1, b"ready\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.processes.watch)
        nursery.start_soon(trio.serve_listeners, partial(serve, kernel), [trio.SocketListener(listener)])
        await trio.lowlevel.wait_readable(0)
        nursery.cancel_scope.cancel()
    await kernel.close()


class Connection:
    """The ``Origin`` of this door: a signal to the caller comes as a frame, and is acted upon as soon as it is read."""

    def was_interrupted(self) -> bool:
        return False

    def let_go(self) -> bool:
        return False


async def serve(kernel: Kernel, stream: trio.SocketStream) -> None:
    """One connection, for as long as its process lives."""
    pid, uid, gid = struct.unpack("3i", stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    caller = kernel.caller(pid, uid, gid, Connection())
    try:
        async with trio.open_nursery() as nursery:
            while header := await receive(stream, 4):
                (size,) = struct.unpack("I", header)
                message = pickle.loads(await receive(stream, size))
                match message:
                    case ("call", *request):
                        nursery.start_soon(answer, kernel, caller, stream, *request)
                    case ("interrupt",):
                        for parked in kernel.parking:
                            if parked.caller is caller:
                                parked.end(SynosError(EINTR, "interrupted by a signal"))
                    case ("parked",):
                        parking = kernel.parking
                        await send(stream, [(parked.caller.process.pid, parked.what) for parked in parking])
    except* (trio.BrokenResourceError, ConnectionResetError):
        pass  # killed while it waited


async def answer(
    kernel: Kernel,
    caller: Caller,
    stream: trio.SocketStream,
    call: str,
    args: list,
    kwargs: dict,
    timeout: float | None,
) -> None:
    reply = await kernel.dispatcher.call(caller, Request(call, args, kwargs, timeout))
    name = errno_name(reply.errno) if reply.errno else ""
    await send(stream, (int(reply.ret), name, reply.results, reply.data, reply.message))


async def send(stream: trio.SocketStream, message: object) -> None:
    pickled = pickle.dumps(message)
    await stream.send_all(struct.pack("I", len(pickled)) + pickled)


async def receive(stream: trio.SocketStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = await stream.receive_some(size - len(received))
        if not piece:
            return b""
        received += piece
    return received


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
