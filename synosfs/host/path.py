"""Paths, looked up for another process: the one walk that everything which takes a path begins with.

A path means what it means to the process: it begins at the process's root or working directory, in the process's own
mount namespace, or in ``pipes/`` of the mount when it has no slash. No magic link of procfs is followed
(``/dev/stdin``, ``/proc/self/fd/3``): for the host it is the daemon that asks, and "self" would be the daemon.

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
from synosfs.host.confinement import Confinement
from synosfs.host.credentials import Credentials
from synosfs.host.errors import explaining
from synosfs.host.file import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2_blocking

_PATH_ONLY = os.O_PATH | os.O_CLOEXEC


class Place(NamedTuple):
    """Who opens, and where: the process, its rights, the mount point of ``pipes/`` and the mount's device number.

    ``own`` says that the process itself asks, which may have the use of its own directories and streams whatever the
    host lets it see of itself in /proc (nothing, when it has changed its ids). ``mountpoint`` is empty, and ``device``
    -1, where there is no mount. ``tid`` is the process's thread that calls.
    """

    pid: int
    pidfd: int
    credentials: Credentials
    own: bool
    mountpoint: str
    device: int
    tid: int
    confinement: Confinement

    def check(self, name: str) -> None:
        """That the process may have the use of this file of the host's. EACCES: it is confined."""
        self.confinement.check_file(self.pid, self.tid, name)


@contextmanager
def found(place: Place, path: str, flags: int = 0) -> Iterator[int]:
    """An O_PATH descriptor of what the path leads to, for the length of the body. ``flags``: O_NOFOLLOW, O_DIRECTORY.

    ENOENT, ENOTDIR, EACCES, ELOOP as openat2(2) says.
    """
    with _beginning(place, path) as (directory, resolve), explaining(REASONS, path=path):
        fd = openat2_blocking(directory, os.fsencode(path), _PATH_ONLY | flags, resolve)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def parent(place: Place, path: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the directory that holds the path's last name, and that name, for the length of the body."""
    directory_path, name = os.path.split(path)
    with _beginning(place, path) as (directory, resolve), explaining(REASONS, path=path):
        fd = openat2_blocking(directory, os.fsencode(directory_path) or b".", _PATH_ONLY | os.O_DIRECTORY, resolve)
    try:
        yield fd, name or "."
    finally:
        os.close(fd)


@contextmanager
def _beginning(place: Place, path: str) -> Iterator[tuple[int, int]]:
    """The directory that the path begins at, and how openat2(2) is to walk it."""
    if not path:
        raise SynosError(errno.ENOENT, "an empty path names nothing")
    if "/" not in path:
        directory, resolve = _pipes(place), RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    else:
        place.check(path)
        directory, resolve = _of_process(place, path)
    try:
        yield directory, resolve
    finally:
        os.close(directory)


def _of_process(place: Place, path: str) -> tuple[int, int]:
    if path.startswith("/"):
        return _proc_directory(place, "root"), RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    # In another root, an absolute symbolic link would lead to our root instead of the process's.
    beneath = 0 if _shares_our_root(place) else RESOLVE_BENEATH
    return _proc_directory(place, "cwd"), RESOLVE_NO_MAGICLINKS | beneath


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
