"""What is in files, by descriptors of the daemon's: reading, writing, sizes, flushing, and the entries of directories.

Any of it may take as long as the file's disk, or whoever serves its file system: all functions belong in an avatar's
thread, but for ``read_cached``. That one takes what is in the page cache and never waits for more (RWF_NOWAIT). It
must not wait for a lock either: who calls it in the main thread has the open file for itself (``Description.is_free``),
so that nobody holds the lock of its offset; and a file system that would take the inode's lock for such a read refuses
it (EOPNOTSUPP). A write has no such way: ext4 and tmpfs refuse one that must not wait, and others can hold the inode's
lock for as long as it takes to fetch what they write.
"""

import errno
import os
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import abi, file_size, lock
from synosfs.host import file as host_file
from synosfs.host.errors import explaining

#: From what a read of the main thread is copied: it makes no more than one at a time.
_cached = bytearray(1 << 20)

_APPEND, _NOAPPEND = abi.RWF["RWF_APPEND"], abi.RWF["RWF_NOAPPEND"]

_REASONS = {
    errno.EBADF: "the descriptor is not open for this, or is of nothing that this can be done to",
    errno.EINVAL: "an offset, a length or a flag is negative, unaligned for O_DIRECT, or not for this call or file",
    errno.EISDIR: "the descriptor is of a directory: getdents64 reads it",
    errno.ENOTDIR: "the descriptor is not of a directory",
    errno.ESPIPE: "pipes and sockets have no offset, and nothing of theirs is on a disk",
    errno.EFBIG: "the file would be longer than its file system, or RLIMIT_FSIZE, allows",
    errno.ENOSPC: "no space is left on the file's device",
    errno.EDQUOT: "the caller's disk quota is used up",
    errno.EPERM: "the file is sealed against this, append-only or immutable",
    errno.EOPNOTSUPP: "the file's file system does not support this mode or flag",
    errno.ENODEV: "the descriptor is not of a regular file or directory",
    errno.ENXIO: "no data, or no hole, follows there",
    errno.EINTR: "interrupted by a signal",
    errno.EAGAIN: "it would wait, and RWF_NOWAIT says not to",
    errno.EBUSY: "the memory is mapped for writing, so it cannot be sealed against writes",
}


def read_cached(host_fd: int, size: int, offset: int = -1) -> tuple[bytes, bool]:
    """What of ``size`` bytes can be had at once, and whether that is all that a read would give.

    EOPNOTSUPP: the file system has no such thing.
    """
    view = memoryview(_cached)
    count = 0
    while count < size:
        at = offset if offset < 0 else offset + count
        try:
            more = os.preadv(host_fd, [view[count:size]], at, os.RWF_NOWAIT)
        except BlockingIOError:
            return bytes(view[:count]), False
        except OSError:
            if count:  # the rest of it has its own answer
                return bytes(view[:count]), False
            raise
        if not more:
            break
        count += more
    return bytes(view[:count]), True


def read_blocking(host_fd: int, size: int, offset: int = -1, flags: int = 0) -> bytes:
    """read(2), pread(2) or preadv2(2). WouldBlock: RWF_NOWAIT."""
    with explaining(_REASONS):
        if offset < 0 and not flags:
            return host_file.read_blocking(host_fd, size)
        return host_file.read_at_blocking(host_fd, size, offset, flags)


def read_rest_blocking(host_fd: int, begun: bytes, size: int, offset: int = -1) -> bytes:
    """What ``read_cached`` has begun, and the rest of ``size`` bytes."""
    try:
        return begun + read_blocking(host_fd, size - len(begun), offset if offset < 0 else offset + len(begun))
    except SynosError:
        if begun:  # as in Linux, the error is for the next read
            return begun
        raise


def write_blocking(pid: int, host_fd: int, data: bytes, offset: int = -1, flags: int = 0) -> int:
    """write(2), pwrite(2) or pwritev2(2) for a process, which may make a file as large as its RLIMIT_FSIZE says."""
    at = None if offset < 0 else offset
    appends = {_APPEND: True, _NOAPPEND: False}.get(flags & (_APPEND | _NOAPPEND))
    with explaining(_REASONS), file_size.room(pid, host_fd, len(data), at, appends=appends) as room:
        if offset < 0 and not flags:
            return host_file.write_blocking(host_fd, data[:room])
        return host_file.write_at_blocking(host_fd, data[:room], offset, flags)


def truncate_blocking(pid: int, host_fd: int, length: int) -> int:
    """ftruncate(2) for a process: EFBIG beyond its RLIMIT_FSIZE."""
    file_size.check_length(pid, host_fd, length)
    with explaining(_REASONS):
        return host_file.ftruncate_blocking(host_fd, length)


def allocate_blocking(pid: int, host_fd: int, mode: int, offset: int, size: int) -> int:
    """fallocate(2) for a process: EFBIG beyond its RLIMIT_FSIZE."""
    with explaining(_REASONS):
        if offset >= 0 and size > 0:
            if mode & abi.FALLOC["FALLOC_FL_INSERT_RANGE"]:
                file_size.check_length(pid, host_fd, os.fstat(host_fd).st_size + size)
            elif not mode & (abi.FALLOC["FALLOC_FL_KEEP_SIZE"] | abi.FALLOC["FALLOC_FL_COLLAPSE_RANGE"]):
                file_size.check_length(pid, host_fd, offset + size)
        return host_file.fallocate_blocking(host_fd, mode, offset, size)


def sync_blocking(host_fd: int) -> int:
    """fsync(2)."""
    with explaining(_REASONS):
        return host_file.fsync_blocking(host_fd)


def sync_data_blocking(host_fd: int) -> int:
    """fdatasync(2)."""
    with explaining(_REASONS):
        return host_file.fdatasync_blocking(host_fd)


def sync_file_system_blocking(host_fd: int) -> int:
    """syncfs(2)."""
    with explaining(_REASONS):
        return host_file.syncfs_blocking(host_fd)


def sync_range_blocking(host_fd: int, offset: int, size: int, flags: int) -> int:
    """sync_file_range(2)."""
    with explaining(_REASONS):
        return host_file.sync_file_range_blocking(host_fd, offset, size, flags)


def advise_blocking(host_fd: int, offset: int, size: int, advice: int) -> int:
    """posix_fadvise(2)."""
    with explaining(_REASONS):
        os.posix_fadvise(host_fd, offset, size, advice)
    return 0


def read_ahead_blocking(host_fd: int, offset: int, size: int) -> int:
    """readahead(2)."""
    with explaining(_REASONS):
        return host_file.readahead_blocking(host_fd, offset, size)


class Entries(NamedTuple):
    """Entries of a directory: the bytes of the buffer that they take, and each one's name, d_type and inode number."""

    used: int
    names: list[str]
    types: list[int]
    inos: list[int]


def entries_blocking(host_fd: int, size: int) -> Entries:
    """getdents64(2)."""
    reasons = {**_REASONS, errno.EINVAL: "the size is too small for the next entry", errno.ENOENT: "it was removed"}
    with explaining(reasons):
        used, found = host_file.getdents64_blocking(host_fd, size)
    return Entries(used, [os.fsdecode(one.name) for one in found], [one.type for one in found], [e.ino for e in found])


def create_memory(name: bytes, flags: int) -> int:
    """memfd_create(2)."""
    reasons = {
        errno.EINVAL: "the name has more than 249 bytes, or a flag is none of memfd_create's",
        errno.EACCES: "vm.memfd_noexec says that memory is not to be executable: add MFD_NOEXEC_SEAL",
    }
    with explaining(reasons):
        return os.memfd_create(os.fsdecode(name), flags | os.MFD_CLOEXEC)


def add_seals_blocking(host_fd: int, seals: int) -> int:
    """F_ADD_SEALS."""
    with explaining(_REASONS):
        return lock.add_seals(host_fd, seals)


def seals(host_fd: int) -> int:
    """F_GET_SEALS."""
    with explaining({errno.EINVAL: "only memory (memfd_create) has seals"}):
        return lock.seals(host_fd)
