"""Names: open(2), mkdir(2), mknod(2), link(2), symlink(2), readlink(2), rename(2), unlink(2), chdir(2), umask(2) …

Each call comes in two forms, with a dirfd and without. A name without a slash and without dirfd is one in ``pipes/``.
"""

import errno
import stat

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import file, file_names
from synosfs.ipc.file import Opened
from synosfs.ipc.things import Thing
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer
from synosfs.syscall_gate.places import (
    AT_FDCWD,
    check_flags,
    is_descriptor,
    is_in_pipes,
    on_descriptor,
    on_path,
    on_paths,
    refuse_bare,
)
from synosfs.syscall_gate.record import Octal, Reply
from synosfs.syscall_gate.sys_own import removed
from synosfs.syscall_gate.sys_pipe import close_host_fd
from synosfs.syscall_gate.waiting import OnAvatar

_RESOLVE = abi.RESOLVE_NO_XDEV | abi.RESOLVE_NO_MAGICLINKS | abi.RESOLVE_NO_SYMLINKS
_RESOLVE |= abi.RESOLVE_BENEATH | abi.RESOLVE_IN_ROOT
_MAKES = abi.O_CREAT | abi.O_TMPFILE & ~abi.O_DIRECTORY
_NODES = frozenset((0, abi.S_IFREG, abi.S_IFIFO, abi.S_IFSOCK, abi.S_IFCHR, abi.S_IFBLK))
_WITH_O_PATH = abi.O_PATH | abi.O_DIRECTORY | abi.O_NOFOLLOW | abi.O_CLOEXEC


# --- open ---


def sys_open(caller: Caller, path: str, flags: int, mode: int) -> OnAvatar:
    return _open(caller, AT_FDCWD, path, flags, mode)


def sys_creat(caller: Caller, path: str, mode: int) -> OnAvatar:
    return _open(caller, AT_FDCWD, path, abi.O_CREAT | abi.O_WRONLY | abi.O_TRUNC, mode)


def sys_openat(caller: Caller, dirfd: int, path: str, flags: int, mode: int) -> OnAvatar:
    return _open(caller, dirfd, path, flags, mode)


def sys_openat2(caller: Caller, dirfd: int, path: str, flags: int, mode: int, resolve: int) -> OnAvatar:
    """Stricter than openat(2): what it does not know, or would ignore, is EINVAL."""
    if resolve & abi.RESOLVE_CACHED:
        raise SynosError(errno.EAGAIN, "openat2: RESOLVE_CACHED: nothing is certain to be cached here; open without it")
    check_flags("openat2", resolve, _RESOLVE)
    if resolve & abi.RESOLVE_BENEATH and resolve & abi.RESOLVE_IN_ROOT:
        raise SynosError(errno.EINVAL, "openat2: RESOLVE_BENEATH and RESOLVE_IN_ROOT exclude each other")
    if mode & ~0o7777 or (mode and not flags & _MAKES):
        raise SynosError(errno.EINVAL, f"openat2: mode {mode:#o} is no mode, or nothing is made that would have it")
    if flags & abi.O_PATH:
        check_flags("openat2 with O_PATH", flags, _WITH_O_PATH)
    return _open(caller, dirfd, path, flags, mode, resolve)


def _open(caller: Caller, dirfd: int, path: str, flags: int, mode: int, resolve: int = 0) -> OnAvatar:
    if flags & ~file.OPEN_FLAGS:
        raise SynosError(errno.EINVAL, f"open: {flags & ~file.OPEN_FLAGS:#o} in the flags cannot be honoured here")

    def finish(opened: Opened) -> int:
        description = Description(
            opened.file_type, flags & ~abi.O_CREAT, opened.host_fd, path=path, release=close_host_fd, apart=True
        )
        return caller.descriptors.add(description, close_on_exec=bool(flags & abi.O_CLOEXEC))

    return on_path(
        caller,
        dirfd,
        path,
        file.open_file,
        flags,
        mode,
        resolve,
        nonblock=caller.nonblock,
        within=bool(resolve & (abi.RESOLVE_IN_ROOT | abi.RESOLVE_BENEATH)),
        finish=finish,
    )


# --- making names ---


def sys_mkfifo(caller: Caller, path: str, mode: int, flags: int) -> Answer:
    check_flags("mkfifo", flags, abi.IPC_EPHEMERAL)
    if flags:
        if not is_in_pipes(path, AT_FDCWD):
            raise SynosError(errno.EINVAL, "IPC_EPHEMERAL is for FIFOs of pipes/, by their name alone")
        with caller.ipc.ownership.making(caller.process, caller.credentials, "fifo", path) as making:
            sys_mkfifo(caller, path, mode, 0)
            making.made(Thing("fifo", path))
        return 0
    return _make_node(caller, AT_FDCWD, path, abi.S_IFIFO | stat.S_IMODE(mode), 0)


def sys_mknod(caller: Caller, path: str, mode: int, dev: int) -> Answer:
    return _make_node(caller, AT_FDCWD, path, mode, dev)


def sys_mknodat(caller: Caller, dirfd: int, path: str, mode: int, dev: int) -> Answer:
    return _make_node(caller, dirfd, path, mode, dev)


def _make_node(caller: Caller, dirfd: int, path: str, mode: int, dev: int) -> Answer:
    def in_pipes(name: str | None) -> int:
        if name is not None:
            rights = caller.credentials
            caller.ipc.fifos.make(name, mode & ~caller.umask(), rights.uid, rights.gid)
        return 0

    kind = stat.S_IFMT(mode)
    if kind not in _NODES:
        number = errno.EPERM if kind == stat.S_IFDIR else errno.EINVAL
        raise SynosError(
            number, f"mknod: {mode:#o} is not the mode of a file, FIFO, socket or device; see mkdir, symlink"
        )
    if is_in_pipes(path, dirfd) and stat.S_ISFIFO(mode):
        return in_pipes(path)
    refuse_bare("mknod", path, dirfd)
    return on_path(caller, dirfd, path, file_names.make_node, mode & 0xFFFF, dev & 0xFFFFFFFF, finish=in_pipes)


def sys_mkdir(caller: Caller, path: str, mode: int) -> Answer:
    return sys_mkdirat(caller, AT_FDCWD, path, mode)


def sys_mkdirat(caller: Caller, dirfd: int, path: str, mode: int) -> Answer:
    refuse_bare("mkdir", path, dirfd)
    return on_path(caller, dirfd, path, file_names.make_directory, mode)


def sys_symlink(caller: Caller, target: str, path: str) -> Answer:
    return sys_symlinkat(caller, target, AT_FDCWD, path)


def sys_symlinkat(caller: Caller, target: str, newdirfd: int, path: str) -> Answer:
    refuse_bare("symlink", path, newdirfd)
    return on_path(caller, newdirfd, path, file_names.make_symlink, target)


def sys_link(caller: Caller, path: str, new_path: str) -> Answer:
    return sys_linkat(caller, AT_FDCWD, path, AT_FDCWD, new_path, 0)


def sys_linkat(caller: Caller, olddirfd: int, path: str, newdirfd: int, new_path: str, flags: int) -> Answer:
    """With AT_EMPTY_PATH what olddirfd stands for gets the name: what O_TMPFILE made, for one."""
    check_flags("linkat", flags, abi.AT_SYMLINK_FOLLOW | abi.AT_EMPTY_PATH)
    refuse_bare("link", new_path, newdirfd)
    if is_descriptor(path, flags) and olddirfd != AT_FDCWD:
        description = caller.descriptors.get(olddirfd)
        if not description.is_ours:
            raise SynosError(errno.ENOENT, f"descriptor {olddirfd} is no file of the daemon's to give a name to")
        named = on_path(caller, newdirfd, new_path, file_names.name_open_file, description.host_fd)
        return OnAvatar(named.call, description=description, uses=named.uses, finish=named.finish)
    refuse_bare("link", path, olddirfd)
    return on_paths(caller, (olddirfd, path), (newdirfd, new_path), file_names.make_link, flags)


# --- removing and moving names ---


def sys_unlink(caller: Caller, path: str) -> Answer:
    return sys_unlinkat(caller, AT_FDCWD, path, 0)


def sys_rmdir(caller: Caller, path: str) -> Answer:
    return sys_unlinkat(caller, AT_FDCWD, path, abi.AT_REMOVEDIR)


def sys_unlinkat(caller: Caller, dirfd: int, path: str, flags: int) -> Answer:
    def in_pipes(name: str | None) -> int:
        if name is not None:
            removed(caller, "fifo", name, "unlink", lambda: caller.ipc.fifos.remove(name, caller.credentials))
        return 0

    check_flags("unlinkat", flags, abi.AT_REMOVEDIR)
    if flags:
        refuse_bare("rmdir", path, dirfd)
        return on_path(caller, dirfd, path, file_names.remove_directory)
    if is_in_pipes(path, dirfd):
        return in_pipes(path)
    return on_path(caller, dirfd, path, file_names.unlink, finish=in_pipes)


def sys_rename(caller: Caller, path: str, new_path: str) -> Answer:
    return sys_renameat2(caller, AT_FDCWD, path, AT_FDCWD, new_path, 0)


def sys_renameat(caller: Caller, olddirfd: int, path: str, newdirfd: int, new_path: str) -> Answer:
    return sys_renameat2(caller, olddirfd, path, newdirfd, new_path, 0)


def sys_renameat2(caller: Caller, olddirfd: int, path: str, newdirfd: int, new_path: str, flags: int) -> Answer:
    def in_pipes(names: tuple[str, str] | None) -> int:
        if names is not None:
            check_flags("rename in pipes/", flags, abi.RENAME_NOREPLACE)
            fifos, (name, new_name) = caller.ipc.fifos, names
            if flags and fifos.find(new_name) is not None and fifos.find(name) is not None:
                raise SynosError(
                    errno.EEXIST, f"pipes/{new_name} exists already, and RENAME_NOREPLACE says to leave it"
                )
            fifos.rename(name, new_name, caller.credentials)
        return 0

    check_flags("rename", flags, abi.RENAME_NOREPLACE | abi.RENAME_EXCHANGE | abi.RENAME_WHITEOUT)
    are_bare = is_in_pipes(path, olddirfd), is_in_pipes(new_path, newdirfd)
    if all(are_bare):
        return in_pipes((path, new_path))
    if any(are_bare):
        raise SynosError(errno.EXDEV, "a name in pipes/ stays there: give two names, or two paths with a slash")
    return on_paths(caller, (olddirfd, path), (newdirfd, new_path), file_names.rename, flags, finish=in_pipes)


# --- symbolic links ---


def sys_readlink(caller: Caller, path: str, size: int | None) -> Answer:
    return sys_readlinkat(caller, AT_FDCWD, path, size)


def sys_readlinkat(caller: Caller, dirfd: int, path: str, size: int | None) -> Answer:
    """An empty path reads the link that dirfd stands for (O_PATH|O_NOFOLLOW)."""

    def reply(target: bytes) -> Reply:
        target = target[:size]
        return Reply(len(target), data=target)

    if size is not None and size <= 0:
        raise SynosError(errno.EINVAL, f"size {size} is not positive")
    if path or dirfd == AT_FDCWD:
        return on_path(caller, dirfd, path, file_names.readlink, finish=reply)
    return on_descriptor(caller, dirfd, lambda host_fd: reply(file_names.read_open_link(host_fd)))


# --- the working directory and the mask ---


def sys_chdir(caller: Caller, path: str) -> Answer:
    """For the calls of this process here: the host's own working directory stays what it is."""
    refuse_bare("chdir", path)

    def finish(host_fd: int) -> int:
        _change_directory(caller, host_fd, path)
        return 0

    return on_path(caller, AT_FDCWD, path, file_names.directory, finish=finish)


def sys_fchdir(caller: Caller, fd: int) -> Answer:
    def finish(host_fd: int) -> int:
        _change_directory(caller, host_fd, f"descriptor {fd}")
        return 0

    return on_descriptor(caller, fd, file_names.open_directory, finish=finish)


def _change_directory(caller: Caller, host_fd: int, path: str) -> None:
    caller.process.change_directory(
        Description("path", abi.O_PATH, host_fd, path=path, release=close_host_fd, apart=True)
    )


def sys_getcwd(caller: Caller, size: int | None) -> Answer:
    """The path as the process sees it, from its root. ERANGE: with the byte 0 that ends it in C it has more bytes."""

    def reply(path: bytes) -> Reply:
        if size is not None and len(path) >= size:
            raise SynosError(errno.ERANGE, f"the path has {len(path)} bytes, and a byte 0 behind them in C")
        return Reply(len(path), data=path)

    if size is not None and size <= 0:
        raise SynosError(errno.ERANGE if size == 0 else errno.EINVAL, f"size {size} is not positive")
    return on_path(caller, AT_FDCWD, ".", lambda place, _path: file_names.working_directory(place), finish=reply)


def sys_umask(caller: Caller, mask: int) -> Reply:
    """For the calls of this process here; what it was before."""
    before = caller.umask()
    caller.process.own_umask = mask & 0o777
    return Reply(before, {"mask": Octal(before)})
