"""POSIX shared memory calls: shm_open(3), shm_unlink(3), and ftruncate(2), which gives an object its size."""

import os

from synosfs.ipc import posix_shm
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, type_of


def sys_shm_open(caller: Caller, name: bytes, flags: int, mode: int) -> int:
    host_fd = posix_shm.open_(name, flags, mode, caller.umask())
    path = posix_shm.path(name)
    description = Description(
        "shm",
        flags & os.O_ACCMODE,
        host_fd,
        ipc_id=path.removeprefix("/dev/shm/"),
        path=path,
        release=lambda description: os.close(description.host_fd),
    )
    return caller.descriptors.add(description, close_on_exec=True)


def sys_shm_unlink(caller: Caller, name: bytes) -> int:
    posix_shm.unlink(name)
    return 0


def sys_ftruncate(caller: Caller, fd: int, length: int) -> Answer:
    description = caller.descriptors.get(fd)
    return type_of(description).host_call(caller, description, lambda host_fd: posix_shm.truncate(host_fd, length))
