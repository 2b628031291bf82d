"""Calls on what is in files: readv(2) and its kin, pread(2), fsync(2), fallocate(2), ftruncate(2), posix_fadvise(2),
getdents64(2), memfd_create(2).

Data of several buffers comes and goes as one; what tells them apart are sizes.
"""

import errno

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import file_data
from synosfs.ipc.file_data import Entries
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, data_reply, file_call, read_file_at, reads_as_file
from synosfs.syscall_gate.record import MAX_DATA, Reply
from synosfs.syscall_gate.sys_file import sys_read, sys_write
from synosfs.syscall_gate.sys_pipe import close_host_fd

#: The most buffers of one call (<limits.h>).
_IOV_MAX = 1024


def sys_pread64(caller: Caller, fd: int, size: int, offset: int) -> Answer:
    description = caller.descriptors.get(fd)
    _check_readable(description, fd)
    if size < 0 or offset < 0:
        raise SynosError(errno.EINVAL, f"size {size} or offset {offset} is negative")
    return _read_at(caller, description, size, offset, 0)


def sys_pwrite64(caller: Caller, fd: int, data: bytes, offset: int) -> Answer:
    description = caller.descriptors.get(fd)
    _check_writable(description, fd)
    if offset < 0:
        raise SynosError(errno.EINVAL, f"offset {offset} is negative")
    return _write_at(caller, description, data, offset, 0)


def sys_readv(caller: Caller, fd: int, sizes: list[int]) -> Answer:
    return sys_read(caller, fd, _total(sizes))


def sys_writev(caller: Caller, fd: int, data: list[bytes]) -> Answer:
    return sys_write(caller, fd, _joined(data))


def sys_preadv(caller: Caller, fd: int, sizes: list[int], offset: int) -> Answer:
    return sys_pread64(caller, fd, _total(sizes), offset)


def sys_pwritev(caller: Caller, fd: int, data: list[bytes], offset: int) -> Answer:
    return sys_pwrite64(caller, fd, _joined(data), offset)


def sys_preadv2(caller: Caller, fd: int, sizes: list[int], offset: int, flags: int) -> Answer:
    """An offset of -1 is where the file stands."""
    if offset == -1 and not flags:
        return sys_readv(caller, fd, sizes)
    description = caller.descriptors.get(fd)
    _check_readable(description, fd)
    _check_offset(offset)
    return _read_at(caller, description, _total(sizes), offset, flags)


def sys_pwritev2(caller: Caller, fd: int, data: list[bytes], offset: int, flags: int) -> Answer:
    """An offset of -1 is where the file stands."""
    if offset == -1 and not flags:
        return sys_writev(caller, fd, data)
    description = caller.descriptors.get(fd)
    _check_writable(description, fd)
    _check_offset(offset)
    return _write_at(caller, description, _joined(data), offset, flags)


def sys_ftruncate(caller: Caller, fd: int, length: int) -> Answer:
    description, pid = caller.descriptors.get(fd), caller.process.pid
    return file_call(caller, description, lambda host_fd: file_data.truncate_blocking(pid, host_fd, length))


def sys_fallocate(caller: Caller, fd: int, mode: int, offset: int, length: int) -> Answer:
    description, pid = caller.descriptors.get(fd), caller.process.pid
    return file_call(
        caller, description, lambda host_fd: file_data.allocate_blocking(pid, host_fd, mode, offset, length)
    )


def sys_fsync(caller: Caller, fd: int) -> Answer:
    return file_call(caller, caller.descriptors.get(fd), file_data.sync_blocking)


def sys_fdatasync(caller: Caller, fd: int) -> Answer:
    return file_call(caller, caller.descriptors.get(fd), file_data.sync_data_blocking)


def sys_syncfs(caller: Caller, fd: int) -> Answer:
    return file_call(caller, caller.descriptors.get(fd), file_data.sync_file_system_blocking)


def sys_sync_file_range(caller: Caller, fd: int, offset: int, length: int, flags: int) -> Answer:
    description = caller.descriptors.get(fd)
    return file_call(caller, description, lambda host_fd: file_data.sync_range_blocking(host_fd, offset, length, flags))


def sys_fadvise64(caller: Caller, fd: int, offset: int, length: int, advice: int) -> Answer:
    description = caller.descriptors.get(fd)
    return file_call(caller, description, lambda host_fd: file_data.advise_blocking(host_fd, offset, length, advice))


def sys_readahead(caller: Caller, fd: int, offset: int, count: int) -> Answer:
    description = caller.descriptors.get(fd)
    return file_call(caller, description, lambda host_fd: file_data.read_ahead_blocking(host_fd, offset, count))


def sys_getdents64(caller: Caller, fd: int, size: int) -> Answer:
    """The next entries: as many as C's buffer of ``size`` bytes holds. None are left: 0."""
    description = caller.descriptors.get(fd)
    if size < 0:
        raise SynosError(errno.EINVAL, f"size {size} is negative")

    def read(host_fd: int) -> Reply:
        return _entries_reply(file_data.entries_blocking(host_fd, min(size, MAX_DATA)))

    return file_call(caller, description, read)


def sys_memfd_create(caller: Caller, name: bytes, flags: int) -> int:
    host_fd = file_data.create_memory(name, flags)
    description = Description(
        "memfd",
        abi.O_RDWR | abi.O_LARGEFILE,
        host_fd,
        path=f"/memfd:{name.decode('utf-8', 'surrogateescape')} (deleted)",
        release=close_host_fd,
        apart=True,
    )
    return caller.descriptors.add(description, close_on_exec=bool(flags & abi.MFD["MFD_CLOEXEC"]))


def _read_at(caller: Caller, description: Description, size: int, offset: int, flags: int) -> Answer:
    if not flags and reads_as_file(description):
        return read_file_at(caller, description, size, offset)
    size = min(size, MAX_DATA)
    return file_call(
        caller, description, lambda host_fd: data_reply(file_data.read_blocking(host_fd, size, offset, flags))
    )


def _write_at(caller: Caller, description: Description, data: bytes, offset: int, flags: int) -> Answer:
    pid = caller.process.pid
    return file_call(caller, description, lambda host_fd: file_data.write_blocking(pid, host_fd, data, offset, flags))


def _entries_reply(entries: Entries) -> Reply:
    types = [abi.DIRECTORY_TYPES.get(type, str(type)) for type in entries.types]
    return Reply(entries.used, {"names": entries.names, "types": types, "inos": entries.inos})


def _total(sizes: list[int]) -> int:
    if len(sizes) > _IOV_MAX or min(sizes, default=0) < 0 or sum(sizes) >= 1 << 63:
        raise SynosError(errno.EINVAL, f"there are more than {_IOV_MAX} sizes, one is negative, or their sum too large")
    return sum(sizes)


def _joined(data: list[bytes]) -> bytes:
    if len(data) > _IOV_MAX:
        raise SynosError(errno.EINVAL, f"{len(data)} pieces of data are more than {_IOV_MAX}")
    return b"".join(data)


def _check_readable(description: Description, fd: int) -> None:
    if not description.readable:
        raise SynosError(errno.EBADF, f"descriptor {fd} is open for writing only")


def _check_writable(description: Description, fd: int) -> None:
    if not description.writable:
        raise SynosError(errno.EBADF, f"descriptor {fd} is open for reading only")


def _check_offset(offset: int) -> None:
    if offset < -1:
        raise SynosError(errno.EINVAL, f"offset {offset} is negative, and not -1")
