"""Files, directories and FIFOs of the host, opened for a SynOS process: by its paths, with its rights, from a thread of
its avatar. ``file_names`` makes and removes names, ``file_status`` tells and changes what a name leads to.

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
from synosfs.host.abi import O_LARGEFILE
from synosfs.host.errors import explained, explaining
from synosfs.host.path import Place
from synosfs.host.thread import leave_apart
from synosfs.ipc import pipe

#: Flags of open(2) that are honoured; O_CLOEXEC is the descriptor's, O_NONBLOCK the description's.
OPEN_FLAGS = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    | os.O_SYNC | os.O_DSYNC | os.O_NOCTTY | O_LARGEFILE | os.O_DIRECTORY | os.O_PATH | os.O_TMPFILE | os.O_NOATIME
    | os.O_DIRECT
)  # fmt: skip

#: /dev/null, zero, full, random and urandom: devices that do nothing when they are opened.
_HARMLESS_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))


class Opened(NamedTuple):
    """An open file: the host descriptor, and its type as in ``Description``. That of a FIFO is O_NONBLOCK; all others
    have the caller's own flags, for a program may come to share them.
    """

    host_fd: int
    file_type: str


def open_file(place: Place, path: str, flags: int, mode: int, resolve: int = 0, *, nonblock: bool = False) -> Opened:
    """open(2), with ``resolve`` openat2(2). A FIFO is opened as the kernel does it: without O_NONBLOCK, and not
    read-write, it waits for a peer; with ``nonblock`` that is EAGAIN.

    First comes a look, then the opening of what was seen, or the making of what was not there: so nothing that is not
    to be opened is opened by mistake, whoever moves things about meanwhile.
    """
    if flags & os.O_PATH:  # open(2): the others are ignored
        flags &= os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    if flags & os.O_CREAT and flags & os.O_DIRECTORY and not _is_temporary(flags):  # since Linux 6.4 (build_open_flags)
        raise SynosError(errno.EINVAL, "open makes no directory: O_CREAT and O_DIRECTORY exclude each other")
    if flags & os.O_CREAT and not _is_temporary(flags) and path.endswith("/"):
        _refuse_slash(place, path, resolve)
    for _ in range(10):  # somebody may make and remove the file while we look
        new = flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL and not _is_temporary(flags)
        try:
            with walk.found(place, path, os.O_NOFOLLOW * new | flags & os.O_NOFOLLOW, resolve) as fd:
                if new:
                    raise SynosError(errno.EEXIST, f"{path} exists, and O_CREAT|O_EXCL asked for a new one")
                if flags & os.O_CREAT and not _is_temporary(flags):
                    _check_sticky(place, path, resolve, os.fstat(fd))
                return _open_found(place, fd, path, flags, mode, nonblock=nonblock)
        except SynosError as error:
            if error.errno != errno.ENOENT or not flags & os.O_CREAT or _is_temporary(flags):
                raise
        made = _create(place, path, flags, mode, resolve)
        if made is not None:
            return made
    raise SynosError(errno.ENOENT, f"{path} comes and goes")


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
            return host_file.pidfd_getfd_blocking(place.pidfd, number)
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


def _is_temporary(flags: int) -> bool:
    return flags & os.O_TMPFILE == os.O_TMPFILE


def _open_found(place: Place, found: int, path: str, flags: int, mode: int, *, nonblock: bool) -> Opened:
    """Open in earnest what an O_PATH descriptor pins, once it is known to be safe to open."""
    status = os.fstat(found)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFIFO and status.st_dev == place.device:
        raise SynosError(errno.EDEADLK, f"{path} is a file of this mount: read and write it there, or by its calls")
    if flags & os.O_DIRECTORY and kind != stat.S_IFDIR:
        raise SynosError(errno.ENOTDIR, f"{path} is no directory")
    if flags & os.O_PATH:
        return Opened(fcntl.fcntl(found, fcntl.F_DUPFD_CLOEXEC, 0), "path")
    if kind == stat.S_IFLNK:
        raise SynosError(errno.ELOOP, f"{path} is a symbolic link, which is not followed here")
    if kind == stat.S_IFDIR and flags & os.O_CREAT and not _is_temporary(flags):
        raise SynosError(errno.EISDIR, f"{path} is a directory")
    if kind == stat.S_IFSOCK:
        raise SynosError(errno.ENXIO, f"{path} is a socket, which is connected to and not opened")
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and status.st_rdev not in _HARMLESS_DEVICES:
        raise SynosError(errno.EACCES, f"{path} is a device, which the daemon does not open for others")
    waits = kind == stat.S_IFIFO and not flags & os.O_NONBLOCK and flags & os.O_ACCMODE != os.O_RDWR
    if waits and nonblock:
        raise SynosError(
            errno.EAGAIN, "open may wait for a peer, and this session was opened with O_NONBLOCK; add O_NONBLOCK"
        )
    again = flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) | os.O_CLOEXEC | os.O_NOCTTY
    if _is_temporary(flags):
        again |= flags & os.O_EXCL  # such a file never gets a name
        place.take_umask()
    with explaining(_OPEN, path=path):
        host_fd = host_file.open_blocking(f"/proc/self/fd/{found}", again, mode & 0o7777)
    if kind == stat.S_IFIFO:
        os.set_blocking(host_fd, False)
        return Opened(host_fd, "fifo")
    return Opened(host_fd, "file" if kind != stat.S_IFDIR or _is_temporary(flags) else "directory")


def _refuse_slash(place: Place, path: str, resolve: int) -> None:
    """With O_CREAT: EISDIR for a name that has a slash behind it, whatever is there (open_last_lookups)."""
    with walk.parent(place, path, resolve) as (_parent, name):
        if name.rstrip(b"/") not in (b"", b".", b".."):
            raise SynosError(errno.EISDIR, f"{path}: no directory is made by open; mkdir makes one")


def _create(place: Place, path: str, flags: int, mode: int, resolve: int) -> Opened | None:
    """Make a regular file and open it; where a symbolic link leads to nothing, there. None: it is there by now."""
    for _ in range(_MOST_LINKS):
        with walk.parent(place, path, resolve) as (parent, name):
            if name.endswith(b"/"):
                raise SynosError(errno.EISDIR, f"{path}: no directory is made by open; mkdir makes one")
            if walk.is_in_mount(place, parent):
                hint = f" (a file of yours is named ./{path})" if walk.is_bare(path) else ""
                raise SynosError(errno.ENOENT, f"no FIFO {path}; mkfifo makes one{hint}")
            place.take_umask()
            only_new = flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOCTTY
            try:
                return Opened(host_file.openat2_blocking(parent, name, only_new, 0, mode & 0o7777), "file")
            except SynosError as error:
                if error.errno != errno.EEXIST or flags & os.O_EXCL:
                    raise explained(error, _OPEN, path=path) from None
            target = _target(path, parent, name)
        if target is None:
            return None
        path = target  # the look has followed it, so that may be done
    raise SynosError(errno.ELOOP, f"{path}: too many symbolic links")


def _check_sticky(place: Place, path: str, resolve: int, status: os.stat_result) -> None:
    """EACCES for what O_CREAT finds in a sticky directory and another user has put there, who is not the directory's
    owner: fs.protected_regular and fs.protected_fifos (proc(5), may_create_in_sticky). It has to be asked here, for the
    host is not told of O_CREAT.
    """
    level = procfs.protection(status.st_mode)
    if not level or status.st_uid == place.credentials.uid:
        return
    for _ in range(_MOST_LINKS):
        with walk.parent(place, path, resolve) as (parent, name):
            target = _target(path, parent, name)
            if target is None:
                directory = os.fstat(parent)
                others = directory.st_mode & stat.S_IWOTH or (directory.st_mode & stat.S_IWGRP and level > 1)
                if directory.st_mode & stat.S_ISVTX and others and directory.st_uid != status.st_uid:
                    raise SynosError(
                        errno.EACCES,
                        f"{path} is another user's in a sticky directory, and O_CREAT does not open that "
                        "(fs.protected_regular, fs.protected_fifos); open it without",
                    )
                return
        path = target


def _target(path: str, parent: int, name: bytes) -> str | None:
    """Where the path leads on to, if its last name is a symbolic link."""
    try:
        target = os.readlink(name, dir_fd=parent).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    return target if target.startswith("/") else f"{path[: path.rfind('/') + 1] or './'}{target}"


#: As many links as the host follows in one path (path_resolution(7)).
_MOST_LINKS = 40

_OPEN = {
    **walk.REASONS,
    errno.EISDIR: "{path} is a directory, which is opened with O_RDONLY",
    errno.EPERM: "{path}: O_NOATIME is for the owner; and a file that can only be appended to is opened with O_APPEND",
    errno.ETXTBSY: "{path} is a program that is running",
    errno.EROFS: "{path} is in a file system that is mounted read-only",
    errno.EOPNOTSUPP: "{path} is in a file system without O_TMPFILE",
    errno.EINVAL: "the flags do not fit each other, or the file system of {path} (O_DIRECT)",
    errno.EAGAIN: "somebody has a lease on {path}, and O_NONBLOCK says not to wait",
}
