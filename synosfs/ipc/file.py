"""Files and FIFOs of the host, opened for a SynOS process: by its paths, with its rights, from a thread of its avatar.

A path means what it means to the process: it begins at the process's root or working directory, in the process's own
mount namespace. Two things are never opened here:

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
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import file as host_file
from synosfs.host import procfs, rights
from synosfs.host.credentials import Credentials
from synosfs.host.file import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
from synosfs.ipc.change import Change, apply

#: Flags of open(2) that are honoured; O_CLOEXEC is the descriptor's, O_NONBLOCK the description's.
OPEN_FLAGS = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    | os.O_SYNC | os.O_DSYNC | os.O_NOCTTY | 0o100000  # O_LARGEFILE, which os.O_LARGEFILE calls 0 here
)  # fmt: skip

#: /dev/null, zero, full, random and urandom: devices that do nothing when they are opened.
_HARMLESS_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))

_PATH_ONLY = os.O_PATH | os.O_CLOEXEC


class Place(NamedTuple):
    """Who opens, and where: the process, its rights, the mount point of ``pipes/`` and the mount's device number.

    ``own`` says that the process itself asks, which may have the use of its own directories and streams whatever the
    host lets it see of itself in /proc (nothing, when it has changed its ids). ``mountpoint`` is empty, and ``device``
    -1, where there is no mount.
    """

    pid: int
    pidfd: int
    credentials: Credentials
    own: bool
    mountpoint: str
    device: int


class Opened(NamedTuple):
    """An open file: the host descriptor, O_NONBLOCK where that means anything; its type as in ``Description``."""

    host_fd: int
    file_type: str


def open_file(place: Place, path: str, flags: int, mode: int) -> Opened:
    """open(2). A FIFO is opened as the kernel does it: without O_NONBLOCK, and not read-write, it waits for a peer."""
    os.umask(procfs.umask(place.pid))
    with _directory_of(place, path) as (directory, name, resolve):
        for _ in range(10):  # somebody may make and remove the file while we look
            try:
                found = host_file.openat2_blocking(directory, name, _PATH_ONLY | flags & os.O_NOFOLLOW, resolve)
            except SynosError as error:
                if error.errno != errno.ENOENT or not flags & os.O_CREAT:
                    raise _explained(error, path) from None
                with suppress(FileExistsError):
                    return _create(place, path, flags, mode)
                continue
            try:
                if flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL:
                    raise SynosError(errno.EEXIST, f"{path} exists, and O_CREAT|O_EXCL asked for a new one")
                return _open_found(place, found, path, flags)
            finally:
                os.close(found)
    raise SynosError(errno.ENOENT, f"{path} comes and goes, or is a symbolic link that leads nowhere")


def make_fifo(place: Place, path: str, mode: int) -> None:
    """mkfifo(3) at a path of the process's."""
    os.umask(procfs.umask(place.pid))
    with _parent_of(place, path) as (parent, name):
        try:
            os.mkfifo(name, mode & 0o7777, dir_fd=parent)
        except OSError as error:
            raise _explained(error, path) from None


def unlink(place: Place, path: str) -> None:
    """Remove the name that a path of the process's leads to."""
    with _parent_of(place, path) as (parent, name):
        try:
            os.unlink(name, dir_fd=parent)
        except OSError as error:
            raise _explained(error, path) from None


def rename(place: Place, path: str, new_path: str) -> None:
    """rename(2) of a path of the process's to another."""
    with _parent_of(place, path) as (parent, name), _parent_of(place, new_path) as (new_parent, new_name):
        try:
            os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=new_parent)
        except OSError as error:
            raise _explained(error, path) from None


def change(place: Place, path: str, wanted: Change) -> None:
    """Carry chmod(2), chown(2) and utimensat(2) out on what a path of the process's leads to. EDEADLK: into our own mount."""
    with _directory_of(place, path) as (directory, name, resolve):
        try:
            found = host_file.openat2_blocking(directory, name, _PATH_ONLY, resolve)
        except SynosError as error:
            raise _explained(error, path) from None
    try:
        if os.fstat(found).st_dev == place.device:
            raise SynosError(errno.EDEADLK, f"{path} is a file of this mount: change it there")
        try:
            apply(wanted, f"/proc/self/fd/{found}")
        except OSError as error:
            raise _explained(error, path) from None
    finally:
        os.close(found)


@contextmanager
def standard_stream(place: Place, number: int, access: int) -> Iterator[int]:
    """A host descriptor of the process's own stream 0, 1 or 2 for one call; /dev/null where it may not be had.

    It is the very open file, offset and all, where the host lends it (pidfd_getfd(2)), else the same file opened anew
    for ``access`` (O_RDONLY, O_WRONLY). It is never kept: an end of a pipe that the daemon holds would be one that is
    never closed. EDEADLK: the stream leads into our own mount.
    """
    link = f"/proc/{place.pid}/fd/{number}"
    try:
        if not place.own:
            os.readlink(link)  # the kernel's word, for the caller's rights, whether this process may be looked into
        try:
            with rights.acting_as_daemon(place.credentials):
                fd = host_file.pidfd_getfd(place.pidfd, number)
        except SynosError:
            fd = host_file.open_blocking(link, access | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if os.fstat(fd).st_dev == place.device:
        # Closing it waits for the write to the mount that this very call is part of: not in this thread.
        threading.Thread(target=os.close, args=(fd,), daemon=True).start()
        raise SynosError(
            errno.EDEADLK,
            f"descriptor {number} of process {place.pid} leads into this mount (a shell's own output does "
            "while a builtin of it writes); in a session (exec 3<>syscall) write the request with /bin/echo",
        )
    try:
        yield fd
    finally:
        os.close(fd)


# --- where a path begins ---------------------------------------------------------------------------------------------


@contextmanager
def _directory_of(place: Place, path: str) -> Iterator[tuple[int, bytes, int]]:
    """The directory that the path begins at, the path from there, and how openat2(2) is to walk it."""
    if not path:
        raise SynosError(errno.ENOENT, "an empty path names nothing")
    if "/" not in path:
        directory, resolve = _pipes(place), RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    elif path.startswith("/"):
        directory, resolve = _proc_directory(place, "root"), RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    else:
        directory, resolve = _proc_directory(place, "cwd"), RESOLVE_NO_MAGICLINKS
        if not _shares_our_root(place):
            resolve |= RESOLVE_BENEATH  # an absolute symbolic link would lead to our root instead of the process's
    try:
        yield directory, os.fsencode(path), resolve
    finally:
        os.close(directory)


@contextmanager
def _parent_of(place: Place, path: str) -> Iterator[tuple[int, str]]:
    parent_path, name = os.path.split(path)
    with _directory_of(place, path) as (directory, _, resolve):
        try:
            parent = host_file.openat2_blocking(
                directory, os.fsencode(parent_path) or b".", _PATH_ONLY | os.O_DIRECTORY, resolve
            )
        except SynosError as error:
            raise _explained(error, path) from None
    try:
        yield parent, name or "."
    finally:
        os.close(parent)


def _pipes(place: Place) -> int:
    """``pipes/`` of the mount. The way there is the daemon's affair; what is in it, the caller's."""
    if not place.mountpoint:
        raise SynosError(errno.ENOENT, "a name without a slash is one in pipes/, and there is no mount; give a path")
    with rights.acting_as_daemon(place.credentials):
        return os.open(f"{place.mountpoint}/pipes", _PATH_ONLY | os.O_DIRECTORY)


def _proc_directory(place: Place, name: str) -> int:
    with _looking_into(place, name):
        return os.open(f"/proc/{place.pid}/{name}", _PATH_ONLY | os.O_DIRECTORY)


def _shares_our_root(place: Place) -> bool:
    with _looking_into(place, "root"):
        same_root = os.path.samestat(os.stat(f"/proc/{place.pid}/root"), os.stat("/"))
        return same_root and os.readlink(f"/proc/{place.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")


@contextmanager
def _looking_into(place: Place, name: str) -> Iterator[None]:
    try:
        with rights.acting_as_daemon(place.credentials) if place.own else nullcontext():
            yield
    except OSError as error:
        message = f"the {name} directory of process {place.pid} is not open to the caller"
        raise SynosError(error.errno or errno.EACCES, message) from None


# --- opening what was found ------------------------------------------------------------------------------------------


def _open_found(place: Place, found: int, path: str, flags: int) -> Opened:
    """Open in earnest what an O_PATH descriptor pins, once it is known to be safe to open."""
    status = os.fstat(found)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        raise SynosError(errno.ELOOP, f"{path} is a symbolic link, which is not followed here")
    if kind == stat.S_IFDIR:
        raise SynosError(errno.EISDIR, f"{path} is a directory")
    if kind == stat.S_IFSOCK:
        raise SynosError(errno.ENXIO, f"{path} is a socket, which is connected to and not opened")
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and status.st_rdev not in _HARMLESS_DEVICES:
        raise SynosError(errno.EACCES, f"{path} is a device, which the daemon does not open for others")
    if kind != stat.S_IFIFO and status.st_dev == place.device:
        raise SynosError(errno.EDEADLK, f"{path} is a file of this mount: read and write it there, or by its calls")
    if kind == stat.S_IFREG and host_file.filesystem_type(found) == host_file.PROC_SUPER_MAGIC:
        raise SynosError(errno.EACCES, f"{path} is in /proc, where 'self' would be the daemon")
    again = flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) | os.O_CLOEXEC | os.O_NOCTTY
    try:
        host_fd = host_file.open_blocking(f"/proc/self/fd/{found}", again)
    except SynosError as error:
        raise _explained(error, path) from None
    return _opened(host_fd, "fifo" if kind == stat.S_IFIFO else "file")


def _create(place: Place, path: str, flags: int, mode: int) -> Opened:
    """Make a regular file and open it. EEXIST when there is one by now."""
    with _parent_of(place, path) as (parent, name):
        if os.fstat(parent).st_dev == place.device:
            raise SynosError(errno.ENOENT, f"no FIFO {path}; mkfifo makes one (a file of yours is named ./{name})")
        try:
            host_fd = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o7777, dir_fd=parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise _explained(error, path) from None
    return _opened(host_fd, "file")


def _opened(host_fd: int, file_type: str) -> Opened:
    flags = fcntl.fcntl(host_fd, fcntl.F_GETFL)
    fcntl.fcntl(host_fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    return Opened(host_fd, file_type)


def _explained(error: OSError, path: str) -> SynosError:
    number = error.errno or errno.EIO
    reason = _REASONS.get(number, os.strerror(number).lower())
    return SynosError(number, reason.format(path=path))


_REASONS = {
    errno.ENXIO: "nobody has {path} open for reading; without O_NONBLOCK the call waits for a reader",
    errno.ENOENT: "no file {path}; a name without a slash is one in pipes/, ./name one in the working directory",
    errno.EACCES: "{path}: its mode, or that of a directory on the way, does not let the caller",
    errno.EEXIST: "{path} exists already",
    errno.ELOOP: "{path}: a symbolic link that may not be followed here (as those of /proc and /dev/fd), or too many",
    errno.EXDEV: "{path} leads out of the directory that it begins at; give an absolute path",
    errno.ENFILE: "the daemon has no host descriptor left; raise its limit (ulimit -n)",
    errno.EMFILE: "the daemon has no host descriptor left; raise its limit (ulimit -n)",
    errno.EINTR: "{path}: interrupted by a signal",
}
