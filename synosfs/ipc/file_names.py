"""Names of the host's files: made, moved and removed for a SynOS process, by its paths and with its rights.

Names in ``pipes/`` are the daemon's own affair, wherever the path to them came from: a function that finds itself there
changes nothing and answers the name (``str``), for the main thread to go on with (``ipc.fifo``). All else in our own
mount is EDEADLK.

Every function may sleep, as those of ``file``: all of them belong in an avatar's thread.
"""

import errno
import os
import stat

from synosfs.errors import SynosError
from synosfs.host import inode
from synosfs.host import path as walk
from synosfs.host.abi import AT_SYMLINK_FOLLOW
from synosfs.host.errors import explaining
from synosfs.host.path import Place


def is_in_pipes(path: str) -> bool:
    """Whether it is a name in ``pipes/``: it has no slash, and no directory is named with it."""
    return walk.is_bare(path)


def make_node(place: Place, path: str, mode: int, device: int) -> str | None:
    """mknod(2). A name in ``pipes/`` is answered for a FIFO alone."""
    with walk.parent(place, path) as (directory, name), explaining(_REASONS, path=path):
        if walk.changes_pipes(place, directory, path):
            if stat.S_ISFIFO(mode):
                return os.fsdecode(name)
            raise SynosError(errno.EPERM, f"{path}: nothing but FIFOs is made in pipes/")
        place.take_umask()
        os.mknod(name, mode, device, dir_fd=directory)
    return None


def make_directory(place: Place, path: str, mode: int) -> None:
    """mkdir(2)."""
    with walk.parent(place, path) as (directory, name), explaining(_REASONS, path=path):
        walk.refuse_change(place, directory, path)
        place.take_umask()
        os.mkdir(name, mode & 0o7777, dir_fd=directory)


def make_symlink(place: Place, path: str, target: str) -> None:
    """symlink(2)."""
    with walk.parent(place, path) as (directory, name), explaining(_REASONS, path=path):
        walk.refuse_change(place, directory, path)
        os.symlink(walk.encoded(target), name, dir_fd=directory)


def make_link(place: Place, path: str, new_place: Place, new_path: str, flags: int) -> None:
    """linkat(2)."""
    follow = 0 if flags & AT_SYMLINK_FOLLOW else os.O_NOFOLLOW
    with (
        walk.found(place, path, follow) as fd,
        walk.parent(new_place, new_path) as (directory, name),
        explaining(_REASONS, path=new_path),
    ):
        walk.refuse_change(new_place, directory, new_path)
        inode.link_blocking(fd, directory, name)


def name_open_file(place: Place, path: str, host_fd: int) -> None:
    """linkat(2) with AT_EMPTY_PATH: a name for an open file, such as one that O_TMPFILE made."""
    with walk.parent(place, path) as (directory, name), explaining(_REASONS, path=path):
        walk.refuse_change(place, directory, path)
        inode.link_blocking(host_fd, directory, name)


def unlink(place: Place, path: str) -> str | None:
    """Remove a name: ``unlink``."""
    with walk.parent(place, path) as (directory, name), explaining(_REASONS, path=path):
        if walk.changes_pipes(place, directory, path):
            return os.fsdecode(name)
        os.unlink(name, dir_fd=directory)
    return None


def remove_directory(place: Place, path: str) -> None:
    """rmdir(2)."""
    with walk.parent(place, path) as (directory, name), explaining(_RMDIR, path=path):
        walk.refuse_change(place, directory, path)
        os.rmdir(name, dir_fd=directory)


def rename(place: Place, path: str, new_place: Place, new_path: str, flags: int) -> tuple[str, str] | None:
    """renameat2(2). Two names in ``pipes/`` are answered."""
    with (
        walk.parent(place, path) as (directory, name),
        walk.parent(new_place, new_path) as (new_directory, new_name),
        explaining(_RENAME, path=path, new_path=new_path),
    ):
        in_pipes = walk.changes_pipes(place, directory, path), walk.changes_pipes(new_place, new_directory, new_path)
        if all(in_pipes):
            return os.fsdecode(name), os.fsdecode(new_name)
        if any(in_pipes):
            raise SynosError(errno.EXDEV, "a name in pipes/ stays there: give two names, or two paths with a slash")
        inode.renameat2_blocking(directory, name, new_directory, new_name, flags)
    return None


def readlink(place: Place, path: str) -> bytes:
    """What the symbolic link says, all of it."""
    with walk.found(place, path, os.O_NOFOLLOW) as fd:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            raise SynosError(errno.EINVAL, f"{path} is no symbolic link")
        return os.readlink(b"", dir_fd=fd)


def read_open_link(host_fd: int) -> bytes:
    """The same of one that is open (O_PATH|O_NOFOLLOW). ENOENT: it is none, so the path was just empty."""
    with explaining(_READ_LINK):
        return os.readlink(b"", dir_fd=host_fd)


def directory(place: Place, path: str) -> int:
    """chdir(2): an O_PATH descriptor of the directory, which the caller may search."""
    with walk.found(place, path, os.O_DIRECTORY) as fd:
        if walk.is_in_mount(place, fd):
            raise SynosError(
                errno.EDEADLK,
                f"{path} is in this mount, which the daemon would hold open: name its files by their paths",
            )
        return walk.searched(fd, path)


def open_directory(host_fd: int) -> int:
    """fchdir(2): as ``directory``, of what is open already."""
    return walk.searched(host_fd, "the directory")


def working_directory(place: Place) -> bytes:
    """getcwd(3)."""
    return walk.working_directory(place)


_REASONS = {
    **walk.REASONS,
    errno.EPERM: "{path}: not permitted: a directory is no such name, a sticky directory or a file of others forbids "
    "it, a device takes CAP_MKNOD, or the file system has no such files",
    errno.ENOENT: "no file {path}; ./name is one in the working directory",
    errno.EXDEV: "{path} leads out of the directory that it begins at (give an absolute path), or the two are in "
    "different mounts",
    errno.EISDIR: "{path} is a directory; rmdir removes one",
    errno.ENOTDIR: "{path}: what is no directory stands where one must",
    errno.EROFS: "{path} is in a file system that is mounted read-only",
    errno.EBUSY: "{path} is a mount point, or in use by the system",
    errno.EMLINK: "{path} has as many links as its file system can count",
}
_READ_LINK = dict.fromkeys(
    (errno.ENOENT, errno.ENOTDIR), "the descriptor is no symbolic link: one is opened with O_PATH|O_NOFOLLOW"
)
_RMDIR = {
    **_REASONS,
    errno.ENOTEMPTY: "{path} is not empty, or ends in ..",
    errno.EINVAL: "{path} ends in . and is not removed so",
}
_RENAME = {
    **_REASONS,
    errno.ENOENT: "no file {path}, or no directory for {new_path}",
    errno.EEXIST: "{new_path} exists already, and RENAME_NOREPLACE says to leave it",
    errno.EISDIR: "{new_path} is a directory, and {path} is none",
    errno.ENOTDIR: "{path} is a directory, and {new_path} is none, or a path goes through what is none",
    errno.ENOTEMPTY: "{new_path} is a directory that is not empty",
    errno.EINVAL: "{new_path} is inside {path}, or the flags do not fit each other or the file system",
    errno.EBUSY: "{path} or {new_path} is a mount point, or ends in . or ..",
}
