"""POSIX shared memory calls: shm_open(3) and shm_unlink(3); ftruncate(2) gives an object its size."""

from contextlib import suppress
from functools import partial

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import posix_shm
from synosfs.ipc.file import Opened
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import on_file
from synosfs.syscall_gate.sys_own import opened, removed_on_avatar
from synosfs.syscall_gate.sys_pipe import close_host_fd
from synosfs.syscall_gate.waiting import OnAvatar


def sys_shm_open(caller: Caller, name: bytes, flags: int, mode: int) -> OnAvatar:
    def finish(opened: Opened) -> int:
        description = Description(
            opened.file_type,
            flags & (abi.O_ACCMODE | abi.O_NONBLOCK),
            opened.host_fd,
            ipc_id=posix_shm.file_name(name),
            path=posix_shm.path(name),
            release=close_host_fd,
            apart=True,
        )
        return caller.descriptors.add(description, close_on_exec=True)

    given = flags & ~abi.IPC_EPHEMERAL
    make = partial(posix_shm.open_, name, given, mode, caller.umask(), nonblock=caller.nonblock)
    return opened(caller, "memory", _file_name(name), flags, OnAvatar(on_file(caller, name, make), finish=finish))


def _file_name(name: bytes) -> str:
    """Also of what is no name, of which the call itself says so."""
    with suppress(SynosError):
        return posix_shm.file_name(name)
    return ""


def sys_shm_unlink(caller: Caller, name: bytes) -> OnAvatar:
    unlink = on_file(caller, name, partial(posix_shm.unlink, name))
    return removed_on_avatar(caller, "memory", _file_name(name), "shm_unlink", unlink)
