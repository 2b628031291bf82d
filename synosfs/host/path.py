"""Paths, looked up for another process: the one walk that everything which takes a path begins with.

A path means what it means to the process: it begins at the process's root or working directory, in the process's own
mount namespace, or in ``pipes/`` of the mount when it has no slash. No magic link of procfs is followed
(``/dev/stdin``, ``/proc/self/fd/3``), and nothing in procfs is looked at: for the host it is the daemon that asks, so
"self" would be the daemon, and a process may look into itself.

A path with a slash is not for a caller that is confined otherwise than by its ids (``confinement``): the host would
judge the daemon instead.

A walk can lead to a file system that does not answer, or into our own mount, whose answers come from the main thread:
all of this belongs in an avatar's thread, with the caller's rights.
"""

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import procfs, rights
from synosfs.host.abi import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
from synosfs.host.confinement import Confinement
from synosfs.host.credentials import Credentials
from synosfs.host.errors import explaining
from synosfs.host.file import PROC_SUPER_MAGIC, filesystem_type, openat2_blocking

_PATH_ONLY = os.O_PATH | os.O_CLOEXEC

#: A path, with the byte 0 that ends it in C (<linux/limits.h>).
_PATH_MAX = 4096

#: How often the host is asked again that could not walk a ".." while others moved directories (openat2(2), EAGAIN).
_MOST_TRIES = 1000


class Place(NamedTuple):
    """Who opens, and where: the process, its rights, the mount point of ``pipes/`` and the mount's device number.

    ``own`` says that the process itself asks, which may have the use of its own directories and streams whatever the
    host lets it see of itself in /proc (nothing, when it has changed its ids). ``mountpoint`` is empty, and ``device``
    -1, where there is no mount. ``tid`` is the process's thread that calls.

    Relative paths begin at ``directory``, a descriptor that is kept open for as long as the place is used; without it
    at the working directory that the host has for the process. ``at_descriptor`` says that the caller named it in this
    very call (``openat``): a name without a slash is in there, too. ``umask`` is None where the host has it as well.
    """

    pid: int
    pidfd: int
    credentials: Credentials
    own: bool
    mountpoint: str
    device: int
    tid: int
    confinement: Confinement
    directory: int | None = None
    at_descriptor: bool = False
    umask: int | None = None

    def check(self, name: str) -> None:
        """That the process may have the use of this file of the host's. EACCES: it is confined."""
        self.confinement.check_file(self.pid, self.tid, name)

    def take_umask(self) -> None:
        """Give the calling thread, one of the process's avatar, the process's file mode creation mask."""
        os.umask(procfs.umask(self.pid) if self.umask is None else self.umask)


def is_bare(path: str) -> bool:
    """Whether it is a name in ``pipes/`` where no directory is named with it."""
    return "/" not in path and path not in ("", ".", "..")


def encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


@contextmanager
def found(place: Place, path: str, flags: int = 0, resolve: int = 0) -> Iterator[int]:
    """An O_PATH descriptor of what the path leads to, for the length of the body. ``flags``: O_NOFOLLOW, O_DIRECTORY;
    ``resolve`` as in openat2(2).

    ENOENT, ENOTDIR, EACCES, ELOOP as openat2(2) says. EACCES: it is a file of procfs.
    """
    with _beginning(place, path, resolve) as (directory, how), explaining(REASONS, path=path):
        fd = _openat2(directory, encoded(path), _PATH_ONLY | flags, how)
    try:
        _refuse_procfs(place, fd, path)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def parent(place: Place, path: str, resolve: int = 0) -> Iterator[tuple[int, bytes]]:
    """A descriptor of the directory that holds the path's last name, and that name, for the length of the body.

    The name has the slashes that stand behind it, and may be ``.``, ``..`` or ``/``: calls that take a name (mkdir(2),
    rename(2) …) do not walk it, and have errors of their own for each.
    """
    whole = encoded(path)
    if len(whole) >= _PATH_MAX:
        raise SynosError(errno.ENAMETOOLONG, f"a path has up to {_PATH_MAX - 1} bytes, and this one has {len(whole)}")
    name = whole.rstrip(b"/").rpartition(b"/")[2]
    name += whole[len(whole.rstrip(b"/")) :]
    # The . at the end asks whether the directory may be searched: so one of two paths fails before the other is walked.
    directory_path = (whole[: -len(name)] if name != whole else b"/" if whole.startswith(b"/") else b"") + b"."
    with _beginning(place, path, resolve) as (directory, how), explaining(REASONS, path=path):
        fd = _openat2(directory, directory_path, _PATH_ONLY | os.O_DIRECTORY, how)
    try:
        _refuse_procfs(place, fd, path)
        yield fd, name
    finally:
        os.close(fd)


def searched(directory: int, path: str) -> int:
    """Another O_PATH descriptor of a directory, which the acting thread may search. EACCES; ENOTDIR."""
    with explaining(REASONS, path=path):
        return _openat2(directory, b".", _PATH_ONLY | os.O_DIRECTORY, RESOLVE_NO_SYMLINKS)


def is_in_mount(place: Place, fd: int) -> bool:
    """Whether what the descriptor stands for is in our own mount."""
    return os.fstat(fd).st_dev == place.device


def refuse_change(place: Place, fd: int, path: str) -> None:
    """EDEADLK for what is in our own mount: changing it there would be a call of the daemon to itself."""
    if is_in_mount(place, fd):
        raise SynosError(
            errno.EDEADLK,
            f"{path} is a file of this mount: change it there yourself, or by its calls; "
            "a FIFO of pipes/ goes by its bare name",
        )


def changes_pipes(place: Place, directory: int, path: str) -> bool:
    """Whether names in ``directory`` are those of ``pipes/``, which the daemon keeps itself. EDEADLK elsewhere in our
    own mount, as ``refuse_change`` says.
    """
    if not is_in_mount(place, directory):
        return False
    pipes = _pipes(place)
    try:
        if os.path.samestat(os.fstat(pipes), os.fstat(directory)):
            return True
    finally:
        os.close(pipes)
    refuse_change(place, directory, path)
    return False


def working_directory(place: Place) -> bytes:
    """getcwd(3): the path of the working directory from the process's root. ENOENT: it is removed, or not below that.

    The host tells the name of a directory as seen from the daemon's root. So the way back is tried where that may
    differ from what the process sees, and where a name looks like that of a removed one.
    """
    with _directory(place) as fd:
        path = _name_of(fd)
        if not path.endswith(b" (deleted)") and _shares_our_root(place) and path.startswith(b"/"):
            return path
        root = _proc_directory(place, "root")
        try:
            above = _name_of(root).rstrip(b"/")
            inside = path[len(above) :] or b"/"
            if path.startswith(above) and inside.startswith(b"/") and _leads_to(root, inside, fd):
                return inside
        finally:
            os.close(root)
    raise SynosError(errno.ENOENT, "the working directory has been removed, or is not below the caller's root")


def _name_of(fd: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % fd)


def _leads_to(root: int, path: bytes, fd: int) -> bool:
    """Asked with the daemon's rights: a process is told its directory whatever it may search."""
    with rights.acting_as_daemon():
        try:
            there = _openat2(root, path, _PATH_ONLY | os.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        except SynosError:
            return False
        try:
            return os.path.samestat(os.fstat(there), os.fstat(fd)) and _mount_id(there) == _mount_id(fd)
        finally:
            os.close(there)


def _openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    for _ in range(_MOST_TRIES):
        try:
            return openat2_blocking(directory, path, flags, resolve)
        except SynosError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise SynosError(errno.EAGAIN, "directories on the way move about without end; try again")


def _refuse_procfs(place: Place, fd: int, path: str) -> None:
    if not is_in_mount(place, fd) and filesystem_type(fd) == PROC_SUPER_MAGIC:
        raise SynosError(errno.EACCES, f"{path} is in /proc, where 'self' would be the daemon")


@contextmanager
def _beginning(place: Place, path: str, resolve: int = 0) -> Iterator[tuple[int, int]]:
    """The directory that the path begins at, and how openat2(2) is to walk it."""
    if not path:
        raise SynosError(errno.ENOENT, "an empty path names nothing")
    if is_bare(path) and not place.at_descriptor:
        fd = _pipes(place)
        try:
            yield fd, resolve & ~RESOLVE_IN_ROOT | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
        finally:
            os.close(fd)
        return
    place.check(path)
    resolve |= RESOLVE_NO_MAGICLINKS
    if path.startswith("/") and not resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH):
        fd = _proc_directory(place, "root")
        try:
            yield fd, resolve | RESOLVE_IN_ROOT
        finally:
            os.close(fd)
        return
    if not resolve & RESOLVE_IN_ROOT and not _shares_our_root(place):
        # In another root, an absolute symbolic link would lead to our root instead of the process's.
        resolve |= RESOLVE_BENEATH
    with _directory(place) as fd:
        yield fd, resolve


@contextmanager
def _directory(place: Place) -> Iterator[int]:
    """Where relative paths begin."""
    if place.directory is not None:
        yield place.directory
        return
    fd = _proc_directory(place, "cwd")
    try:
        yield fd
    finally:
        os.close(fd)


def _pipes(place: Place) -> int:
    """``pipes/`` of the mount. The way there is the daemon's affair; what is in it, the caller's."""
    if not place.mountpoint:
        raise SynosError(errno.ENOENT, "a name without a slash is one in pipes/, and there is no mount; give a path")
    with rights.acting_as_daemon():
        return os.open(f"{place.mountpoint}/pipes", _PATH_ONLY | os.O_DIRECTORY)


def _proc_directory(place: Place, name: str) -> int:
    with _looking_into(place, name):
        fd = os.open(f"/proc/{place.pid}/{name}", _PATH_ONLY | os.O_DIRECTORY)
    death = select.poll()
    death.register(place.pidfd, select.POLLIN)
    if death.poll(0):  # then the pid may have been another's by now, and so the directory
        os.close(fd)
        raise SynosError(errno.ESRCH, f"process {place.pid} has ended")
    return fd


def _shares_our_root(place: Place) -> bool:
    """Whether the process's root is the daemon's: the same directory of the same mount. A mount is in one namespace."""
    theirs = _proc_directory(place, "root")
    try:
        ours = os.open("/", _PATH_ONLY | os.O_DIRECTORY)
        try:
            return os.path.samestat(os.fstat(theirs), os.fstat(ours)) and _mount_id(theirs) == _mount_id(ours)
        finally:
            os.close(ours)
    finally:
        os.close(theirs)


def _mount_id(fd: int) -> bytes:
    with rights.acting_as_daemon():
        return procfs.field(procfs.text("self", f"fdinfo/{fd}"), b"mnt_id")


@contextmanager
def _looking_into(place: Place, name: str) -> Iterator[None]:
    lent = rights.acting_as_daemon() if place.own else nullcontext()
    with explaining(_LOOKING, name=name, pid=place.pid), lent:
        yield


_LOOKING = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESRCH),
    "the {name} directory of process {pid} is not open to the caller",
)


#: Why a path leads nowhere, for ``explaining``.
REASONS = {
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
