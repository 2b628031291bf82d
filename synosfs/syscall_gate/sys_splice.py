"""Data between two descriptors that does not pass through here: splice(2), tee(2), sendfile(2), copy_file_range(2).

Offsets are given by name, ``off_in=`` and ``off_out=``, or in C's places, and answered as C leaves them; without one
the file's own counts and moves on.
"""

import errno

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import copying, pipe
from synosfs.ipc.copying import End, Move, Transfer
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, borrowed
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import InSteps

_PIPES = ("pipe", "fifo")


def sys_splice(
    caller: Caller, fd_in: int, fd_out: int, len: int, flags: int, off_in: int | None, off_out: int | None
) -> Answer:
    wait = not flags & abi.SPLICE_F_NONBLOCK
    # What waits does so where it can be ended, and holds no pipe's lock meanwhile.
    move = copying.splice(flags | abi.SPLICE_F_NONBLOCK)
    return _transfer(caller, move, (fd_in, off_in), (fd_out, off_out), len, once=True, wait=wait)


def sys_tee(caller: Caller, fd_in: int, fd_out: int, len: int, flags: int) -> Answer:
    wait = not flags & abi.SPLICE_F_NONBLOCK
    move = copying.tee(flags | abi.SPLICE_F_NONBLOCK)
    return _transfer(caller, move, (fd_in, None), (fd_out, None), len, once=True, wait=wait)


def sys_sendfile(caller: Caller, out_fd: int, in_fd: int, count: int, offset: int | None) -> Answer:
    """Into a pipe it is one splice; into a file or a socket it goes on until all is there."""
    to_pipe = caller.descriptors.get(out_fd).file_type in _PIPES
    return _transfer(
        caller, copying.sendfile, (in_fd, offset), (out_fd, None), count, once=to_pipe, wait=True, name="offset"
    )


def sys_copy_file_range(
    caller: Caller, fd_in: int, fd_out: int, len: int, flags: int, off_in: int | None, off_out: int | None
) -> Answer:
    move = copying.copy_file_range(flags)
    return _transfer(caller, move, (fd_in, off_in), (fd_out, off_out), len, once=False, wait=True)


def _transfer(
    caller: Caller,
    move: Move,
    source: tuple[int, int | None],
    target: tuple[int, int | None],
    size: int,
    *,
    once: bool,
    wait: bool,
    name: str = "off_in",
) -> Answer:
    reading, writing = caller.descriptors.get(source[0]), caller.descriptors.get(target[0])
    if size < 0:
        raise SynosError(errno.EINVAL, f"the length {size} is negative")
    for end in (reading, writing):
        if end.file_type == "pipe":
            end.set_apart()
        if end.file_type in _PIPES and end.flags & abi.O_NONBLOCK:
            wait = False
    if caller.nonblock:
        wait = False
        if writing.file_type == "socket":  # the host would wait for room for all of it
            size = min(size, pipe.PIPE_BUF)
    transfer = Transfer(
        move,
        End(borrowed(caller, reading, abi.O_RDONLY), source[1]),
        End(borrowed(caller, writing, abi.O_WRONLY), target[1], writing.file_type not in (*_PIPES, "socket")),
        size,
        caller.process.pid,
        once=once,
        wait=wait,
    )

    def answer() -> Reply | None:
        done = transfer.so_far()
        ends = ((name, transfer.source.offset), ("off_out", transfer.target.offset))
        return None if done is None else Reply(done, {name: offset for name, offset in ends if offset is not None})

    return InSteps(transfer.first, transfer.step, answer, (reading, writing))
