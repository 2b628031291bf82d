"""Locks of files: flock(2), and the commands of fcntl(2) that lock.

A lock is written ``F_WRLCK start len whence`` behind the command, or as C's struct flock; it is answered as
type=, whence=, start=, len= and pid=.
"""

import errno

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import file_lock
from synosfs.ipc.file_lock import Range
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, file_call
from synosfs.syscall_gate.record import Reply

_OF_PROCESS = (abi.F_GETLK, abi.F_SETLK, abi.F_SETLKW)
_OF_OPEN_FILE = (abi.F_OFD_GETLK, abi.F_OFD_SETLK, abi.F_OFD_SETLKW)

COMMANDS = (*_OF_PROCESS, *_OF_OPEN_FILE)

_TYPES = {number: name for name, number in abi.LOCK_TYPES.items()}
_WHENCE = {number: name for name, number in abi.SEEK.items()}


def sys_flock(caller: Caller, fd: int, operation: int) -> Answer:
    description = _lockable(caller.descriptors.get(fd), fd)
    if caller.nonblock:
        operation |= abi.LOCK_NB
    return file_call(caller, description, lambda host_fd: file_lock.flock_blocking(host_fd, operation))


def lock(caller: Caller, fd: int, cmd: int, wanted: Range) -> Answer:
    """fcntl(2) with one of ``COMMANDS``."""
    table = caller.descriptors
    description, locks, pid = _lockable(table.get(fd), fd), table.locks, caller.process.pid
    if cmd in _OF_OPEN_FILE:
        command = abi.F_OFD_SETLK if caller.nonblock and cmd == abi.F_OFD_SETLKW else cmd
        return file_call(
            caller,
            description,
            lambda host_fd: _answer(cmd, file_lock.open_file_lock_blocking(host_fd, command, wanted)),
        )
    if description.file_type == "fifo":  # an open file for the locks alone would be a reader, or a writer
        raise SynosError(
            errno.EINVAL, f"descriptor {fd} is a FIFO: flock and the F_OFD_ commands lock one, F_SETLK does not"
        )
    if cmd == abi.F_GETLK:
        return file_call(caller, description, lambda host_fd: _answer(cmd, locks.get_blocking(host_fd, wanted)))
    wait = cmd == abi.F_SETLKW and not caller.nonblock
    return file_call(
        caller, description, lambda host_fd: _answer(cmd, locks.set_blocking(pid, host_fd, wanted, wait=wait))
    )


def _lockable(description: Description, fd: int) -> Description:
    """A stream that the process was started with is lent for one call, and what is no file is nobody's to lock."""
    if not description.apart or description.file_type in ("pipe", "socket"):
        raise SynosError(
            errno.EBADF, f"descriptor {fd} is a {description.file_type}: files, directories and FIFOs are locked here"
        )
    return description


def _answer(cmd: int, found: Range) -> int | Reply:
    if cmd not in (abi.F_GETLK, abi.F_OFD_GETLK):
        return 0
    return Reply(
        0,
        {
            "type": _TYPES[found.type],
            "whence": _WHENCE.get(found.whence, str(found.whence)),
            "start": found.start,
            "len": found.length,
            "pid": found.pid,
        },
    )
