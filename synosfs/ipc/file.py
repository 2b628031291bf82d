"""Files and FIFOs of the host, opened for a SynOS process: by its paths, with its rights, from a thread of its avatar.

Where a path leads is ``host.path``'s to say. Two things are never opened here:

- what a magic link of procfs leads to (``/dev/stdin``, ``/proc/self/fd/3``), and procfs itself: to the thread that
  opens, "self" is the daemon;
- a file of our own mount that is not a FIFO: a daemon that writes to itself waits for itself.

Every function may sleep: in a FIFO until its other end is opened, in a network file system, or in our own mount until
the daemon's main thread answers. So all of them belong in an avatar's thread, never in the main one.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import file as host_file
from synosfs.host import file_size, procfs, rights
from synosfs.host import path as walk
from synosfs.host.errors import explained, explaining
from synosfs.host.path import Place
from synosfs.host.thread import leave_apart
from synosfs.ipc import pipe
from synosfs.ipc.change import Change, apply

#: Flags of open(2) that are honoured; O_CLOEXEC is the descriptor's, O_NONBLOCK the description's.
OPEN_FLAGS = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    | os.O_DIRECTORY | os.O_SYNC | os.O_DSYNC | os.O_NOCTTY | 0o100000  # O_LARGEFILE, which os.O_LARGEFILE calls 0 here
)  # fmt: skip

#: /dev/null, zero, full, random and urandom: devices that do nothing when they are opened.
_HARMLESS_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))


class Opened(NamedTuple):
    """An open file: the host descriptor, of a FIFO always O_NONBLOCK; its type as in ``Description``."""

    host_fd: int
    file_type: str


def open_file(place: Place, path: str, flags: int, mode: int) -> Opened:
    """open(2). A FIFO is opened as the kernel does it: without O_NONBLOCK, and not read-write, it waits for a peer."""
    os.umask(procfs.umask(place.pid))
    for _ in range(10):  # somebody may make and remove the file while we look
        try:
            with walk.found(place, path, flags & os.O_NOFOLLOW) as fd:
                if flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL:
                    raise SynosError(errno.EEXIST, f"{path} exists, and O_CREAT|O_EXCL asked for a new one")
                return _open_found(place, fd, path, flags)
        except SynosError as error:
            if error.errno != errno.ENOENT or not flags & os.O_CREAT:
                raise
        with suppress(FileExistsError):
            return _create(place, path, flags, mode)
    raise SynosError(errno.ENOENT, f"{path} comes and goes, or is a symbolic link that leads nowhere")


def status(place: Place, path: str) -> os.stat_result:
    """stat(2) of what a path of the process's leads to."""
    with walk.found(place, path) as fd:
        return os.fstat(fd)


def make_fifo(place: Place, path: str, mode: int) -> None:
    """mkfifo(3) at a path of the process's."""
    os.umask(procfs.umask(place.pid))
    with walk.parent(place, path) as (directory, name), explaining(walk.REASONS, path=path):
        os.mkfifo(name, mode & 0o7777, dir_fd=directory)


def unlink(place: Place, path: str) -> None:
    """Remove the name that a path of the process's leads to."""
    with walk.parent(place, path) as (directory, name), explaining(walk.REASONS, path=path):
        os.unlink(name, dir_fd=directory)


def rename(place: Place, path: str, new_path: str) -> None:
    """Move what a path of the process's leads to."""
    with (
        walk.parent(place, path) as (directory, name),
        walk.parent(place, new_path) as (new_directory, new_name),
        explaining(walk.REASONS, path=path),
    ):
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)


def change(place: Place, path: str, wanted: Change) -> None:
    """Carry chmod(2), chown(2) and utimensat(2) out on what a path of the process's leads to. EDEADLK: in our mount."""
    with walk.found(place, path) as fd:
        if os.fstat(fd).st_dev == place.device:
            raise SynosError(errno.EDEADLK, f"{path} is a file of this mount: change it there")
        with explaining(walk.REASONS, path=path):
            apply(wanted, f"/proc/self/fd/{fd}")


def write_blocking(pid: int, host_fd: int, data: bytes) -> int:
    """Write for a process, which may make a file as large as its RLIMIT_FSIZE says: EFBIG, or a short write."""
    with file_size.room(pid, host_fd, len(data)) as room:
        return pipe.write_blocking(host_fd, data[:room])


@contextmanager
def standard_stream(place: Place, number: int, access: int) -> Iterator[int]:
    """A host descriptor of the process's own stream 0, 1 or 2 for one call; /dev/null where it may not be had.

    It is the very open file, offset and all, where the host lends it (pidfd_getfd(2)), else the same file opened anew
    for ``access`` (O_RDONLY, O_WRONLY), which a confined process may not have: EACCES. It is never kept: an end of a
    pipe that the daemon holds would be one that is never closed. EDEADLK: the stream leads into our own mount.
    """
    fd = _stream_of(place, number, access)
    if os.fstat(fd).st_dev == place.device:
        # Closing it waits for the write to the mount that this very call is part of: not in this thread.
        leave_apart(partial(os.close, fd))
        raise SynosError(
            errno.EDEADLK,
            f"descriptor {number} of process {place.pid} leads into this mount (a shell's own output does "
            "while a builtin of it writes); in a session (exec 3<>syscall) write the request with /bin/echo",
        )
    try:
        yield fd
    finally:
        os.close(fd)


def _stream_of(place: Place, number: int, access: int) -> int:
    link = f"/proc/{place.pid}/fd/{number}"
    if place.own or _may_look_at(link):
        with suppress(SynosError), rights.acting_as_daemon():
            return host_file.pidfd_getfd(place.pidfd, number)
        place.check(f"descriptor {number}, opened anew")
        try:
            return host_file.open_blocking(link, access | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)
        except SynosError as error:
            if error.errno == errno.EINTR:  # the call is to end
                raise
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _may_look_at(link: str) -> bool:
    """The kernel's word, for the caller's rights, whether the process may be looked into."""
    try:
        os.readlink(link)
    except OSError:
        return False
    return True


# --- opening what was found ------------------------------------------------------------------------------------------


def _open_found(place: Place, found: int, path: str, flags: int) -> Opened:
    """Open in earnest what an O_PATH descriptor pins, once it is known to be safe to open."""
    status = os.fstat(found)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        raise SynosError(errno.ELOOP, f"{path} is a symbolic link, which is not followed here")
    if kind == stat.S_IFDIR and flags & (os.O_ACCMODE | os.O_CREAT):
        raise SynosError(errno.EISDIR, f"{path} is a directory, which is opened with O_RDONLY")
    if kind != stat.S_IFDIR and flags & os.O_DIRECTORY:
        raise SynosError(errno.ENOTDIR, f"{path} is not a directory, and O_DIRECTORY asks for one")
    if kind == stat.S_IFSOCK:
        raise SynosError(errno.ENXIO, f"{path} is a socket, which is connected to and not opened")
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and status.st_rdev not in _HARMLESS_DEVICES:
        raise SynosError(errno.EACCES, f"{path} is a device, which the daemon does not open for others")
    if kind != stat.S_IFIFO and status.st_dev == place.device:
        raise SynosError(errno.EDEADLK, f"{path} is a file of this mount: read and write it there, or by its calls")
    if kind == stat.S_IFREG and host_file.filesystem_type(found) == host_file.PROC_SUPER_MAGIC:
        raise SynosError(errno.EACCES, f"{path} is in /proc, where 'self' would be the daemon")
    again = flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) | os.O_CLOEXEC | os.O_NOCTTY
    with explaining(walk.REASONS, path=path):
        host_fd = host_file.open_blocking(f"/proc/self/fd/{found}", again)
    return _opened(host_fd, {stat.S_IFIFO: "fifo", stat.S_IFDIR: "directory"}.get(kind, "file"))


def _create(place: Place, path: str, flags: int, mode: int) -> Opened:
    """Make a regular file and open it. EEXIST when there is one by now."""
    with walk.parent(place, path) as (parent, name):
        if os.fstat(parent).st_dev == place.device:
            raise SynosError(errno.ENOENT, f"no FIFO {path}; mkfifo makes one (a file of yours is named ./{name})")
        try:
            host_fd = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o7777, dir_fd=parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise explained(error, walk.REASONS, path=path) from None
    return _opened(host_fd, "file")


def _opened(host_fd: int, file_type: str) -> Opened:
    if file_type != "fifo":  # what a program may share has the flags that the user asked for
        return Opened(host_fd, file_type)
    flags = fcntl.fcntl(host_fd, fcntl.F_GETFL)
    fcntl.fcntl(host_fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    return Opened(host_fd, file_type)
