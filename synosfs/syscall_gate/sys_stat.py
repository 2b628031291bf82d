"""What a file is like, and changes of that: stat(2), statx(2), access(2), truncate(2), statfs(2), chmod(2), chown(2),
utimensat(2), utime(2), utimes(2), futimesat(2).

A name without a slash and without dirfd is one in ``pipes/``. In place of a path there may come an object of the host's
that a file of the mount stands for (``Named``).
"""

import errno
from functools import partial
from typing import Any

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import file_status, mqueue_fs, posix_sem
from synosfs.ipc.change import Change, Named
from synosfs.process import identity
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, on_file
from synosfs.syscall_gate.places import (
    AT_FDCWD,
    check_flags,
    is_descriptor,
    is_in_pipes,
    on_descriptor,
    on_path,
)
from synosfs.syscall_gate.record import Hexadecimal, Octal, Reply
from synosfs.syscall_gate.sys_pipe import done
from synosfs.syscall_gate.times import Pair
from synosfs.syscall_gate.waiting import OnAvatar

_LOOK = abi.AT_SYMLINK_NOFOLLOW | abi.AT_EMPTY_PATH | abi.AT_NO_AUTOMOUNT
_SYNC = abi.AT_STATX_FORCE_SYNC | abi.AT_STATX_DONT_SYNC


# --- looking ---


def sys_stat(caller: Caller, path: str) -> Answer:
    return sys_newfstatat(caller, AT_FDCWD, path, 0)


def sys_lstat(caller: Caller, path: str) -> Answer:
    return sys_newfstatat(caller, AT_FDCWD, path, abi.AT_SYMLINK_NOFOLLOW)


def sys_fstat(caller: Caller, fd: int) -> Answer:
    return on_descriptor(caller, fd, lambda host_fd: _status(caller, file_status.fstat(host_fd)))


def sys_newfstatat(caller: Caller, dirfd: int, path: str, flags: int) -> Answer:
    check_flags("newfstatat", flags, _LOOK)
    if is_descriptor(path, flags):
        if dirfd != AT_FDCWD:
            return sys_fstat(caller, dirfd)
        path = "."
    return on_path(caller, dirfd, path, file_status.status, flags, finish=partial(_status, caller))


def sys_statx(caller: Caller, dirfd: int, path: str, flags: int, mask: int) -> Answer:
    check_flags("statx", flags, _LOOK | _SYNC)
    if flags & _SYNC == _SYNC or mask & 1 << 31:
        raise SynosError(errno.EINVAL, "statx: AT_STATX_FORCE_SYNC excludes AT_STATX_DONT_SYNC, and bit 31 is no mask")
    if is_descriptor(path, flags):
        if dirfd != AT_FDCWD:
            return on_descriptor(
                caller, dirfd, lambda host_fd: _extended(caller, file_status.fstatx(host_fd, flags, mask))
            )
        path = "."
    return on_path(caller, dirfd, path, file_status.statx, flags, mask, finish=partial(_extended, caller))


def _status(caller: Caller, found: Any) -> Reply:
    """The fields of ``struct stat`` by their C names without prefix; times in nanoseconds, as utimensat takes them."""
    names = ("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks")
    fields = {name: getattr(found, f"st_{name}") for name in names}
    fields |= {f"{name}_ns": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
    return Reply(0, _as_seen(caller, fields))


def _extended(caller: Caller, fields: dict[str, int]) -> Reply:
    return Reply(0, _as_seen(caller, fields))


#: Times beyond the year 2262 are answered as the last that a number of 64 bits has, which is all that MessagePack has.
_LAST_NS = (1 << 63) - 1


def _as_seen(caller: Caller, fields: dict[str, int]) -> dict[str, int]:
    namespace = caller.user_namespace
    shown = {"uid": namespace.shown_uid(fields["uid"]), "gid": namespace.shown_gid(fields["gid"])}
    shown |= {name: Hexadecimal(fields[name]) for name in ("mask", "attributes", "attributes_mask") if name in fields}
    shown |= {name: max(-_LAST_NS, min(fields[name], _LAST_NS)) for name in fields if name.endswith("_ns")}
    return fields | shown | {"mode": Octal(fields["mode"])}


def sys_statfs(caller: Caller, path: str) -> Answer:
    return on_path(caller, AT_FDCWD, path, file_status.statfs, finish=_file_system)


def sys_fstatfs(caller: Caller, fd: int) -> Answer:
    return on_descriptor(caller, fd, lambda host_fd: _file_system(file_status.fstatfs(host_fd)))


def _file_system(fields: dict[str, Any]) -> Reply:
    return Reply(0, fields | {name: Hexadecimal(fields[name]) for name in ("type", "flags")})


def sys_access(caller: Caller, path: str, mode: int) -> Answer:
    return sys_faccessat2(caller, AT_FDCWD, path, mode, 0)


def sys_faccessat2(caller: Caller, dirfd: int, path: str, mode: int, flags: int) -> Answer:
    """faccessat(2) too, which takes its flags from libc natively. By the caller's real ids, or with AT_EACCESS by the
    effective ones.
    """
    check_flags("faccessat2", flags, abi.AT_SYMLINK_NOFOLLOW | abi.AT_EMPTY_PATH | abi.AT_EACCESS)
    if mode & ~(abi.R_OK | abi.W_OK | abi.X_OK):
        raise SynosError(errno.EINVAL, f"access: a mode is made of R_OK, W_OK and X_OK, or F_OK, not {mode:#o}")
    whose = caller.credentials
    if not flags & abi.AT_EACCESS:
        whose = identity.real_rights(caller.tid, whose, own=caller.own)
    if is_descriptor(path, flags):
        if dirfd != AT_FDCWD:
            name = f"descriptor {dirfd}"
            return on_descriptor(caller, dirfd, lambda host_fd: file_status.faccess_as(host_fd, mode, name, whose))
        path = "."
    return on_path(caller, dirfd, path, file_status.access, mode, flags, whose)


# --- changing ---


def sys_truncate(caller: Caller, path: str, length: int) -> Answer:
    return on_path(caller, AT_FDCWD, path, file_status.truncate, length)


def sys_chmod(caller: Caller, path: str | Named, mode: int) -> Answer:
    return _change(caller, AT_FDCWD, path, Change(mode=mode & 0o7777), 0)


def sys_fchmod(caller: Caller, fd: int, mode: int) -> Answer:
    return _change_open(caller, fd, Change(mode=mode & 0o7777), 0)


def sys_fchmodat(caller: Caller, dirfd: int, path: str, mode: int, flags: int) -> Answer:
    """With flags, which libc adds natively, and fchmodat2(2)."""
    check_flags("fchmodat", flags, abi.AT_SYMLINK_NOFOLLOW | abi.AT_EMPTY_PATH)
    return _change(caller, dirfd, path, Change(mode=mode & 0o7777), flags)


def sys_chown(caller: Caller, path: str | Named, uid: int, gid: int) -> Answer:
    """An id of 0xffffffff (-1 in C) stays as it is."""
    return _change(caller, AT_FDCWD, path, _owners(caller, uid, gid), 0)


def sys_lchown(caller: Caller, path: str, uid: int, gid: int) -> Answer:
    return _change(caller, AT_FDCWD, path, _owners(caller, uid, gid), abi.AT_SYMLINK_NOFOLLOW)


def sys_fchown(caller: Caller, fd: int, uid: int, gid: int) -> Answer:
    return _change_open(caller, fd, _owners(caller, uid, gid), 0)


def sys_fchownat(caller: Caller, dirfd: int, path: str, uid: int, gid: int, flags: int) -> Answer:
    check_flags("fchownat", flags, abi.AT_SYMLINK_NOFOLLOW | abi.AT_EMPTY_PATH)
    return _change(caller, dirfd, path, _owners(caller, uid, gid), flags)


def _owners(caller: Caller, uid: int, gid: int) -> Change:
    new_uid, new_gid = caller.user_namespace.given(*(None if id == 0xFFFFFFFF else id for id in (uid, gid)))
    return Change(uid=new_uid, gid=new_gid)


def sys_utimensat(
    caller: Caller, path: str | Named, atime_ns: int | None, mtime_ns: int | None, flags: int, dirfd: int
) -> Answer:
    """Without either time, both are set to now; without one, that one stays. Where both stay, nothing is looked at."""
    check_flags("utimensat", flags, abi.AT_SYMLINK_NOFOLLOW | abi.AT_EMPTY_PATH)
    if _leave(atime_ns, mtime_ns):
        return 0
    if isinstance(path, Named) or is_in_pipes(path, dirfd):
        if atime_ns is None and mtime_ns is None:
            atime_ns = mtime_ns = abi.UTIME_NOW
        return _change(caller, dirfd, path, file_status.times_of(atime_ns, mtime_ns), 0)
    if is_descriptor(path, flags) and dirfd != AT_FDCWD:
        return _set_open_times(caller, dirfd, atime_ns, mtime_ns)
    path = "." if is_descriptor(path, flags) else path
    return on_path(caller, dirfd, path, file_status.set_times, atime_ns, mtime_ns, flags)


def sys_futimens(caller: Caller, fd: int, atime_ns: int | None, mtime_ns: int | None) -> Answer:
    if _leave(atime_ns, mtime_ns):
        return 0
    _refuse_path(caller, fd)
    return _set_open_times(caller, fd, atime_ns, mtime_ns)


def _set_open_times(caller: Caller, fd: int, atime_ns: int | None, mtime_ns: int | None) -> Answer:
    name = f"descriptor {fd}"
    return on_descriptor(
        caller, fd, lambda host_fd: file_status.set_open_times(host_fd, name, atime_ns, mtime_ns), changes=True
    )


def sys_utime(caller: Caller, path: str, actime: Pair | None, modtime: int | None) -> Answer:
    return sys_utimensat(caller, path, *_both("utime", actime, modtime), 0, AT_FDCWD)


def sys_utimes(caller: Caller, path: str, atime: Pair | None, mtime: int | None) -> Answer:
    return sys_utimensat(caller, path, *_both("utimes", atime, mtime), 0, AT_FDCWD)


def sys_futimesat(caller: Caller, dirfd: int, path: str | None, atime: Pair | None, mtime: int | None) -> Answer:
    """Without a path it is dirfd itself."""
    times = _both("futimesat", atime, mtime)
    if path is None:
        if dirfd == AT_FDCWD:
            raise SynosError(errno.EFAULT, "futimesat: without a path dirfd has to be a descriptor, not AT_FDCWD")
        return sys_futimens(caller, dirfd, *times)
    return sys_utimensat(caller, path, *times, 0, dirfd)


def _both(call: str, first: Pair | None, second: int | None) -> Pair:
    """The two times that C has in one struct: ``first`` is the access time, or both."""
    atime_ns, mtime_ns = first or (None, None)
    if mtime_ns is not None and second is not None:
        raise SynosError(errno.EINVAL, f"{call}: the times are given twice, as a struct and one by one")
    mtime_ns = second if mtime_ns is None else mtime_ns
    if (atime_ns is None) != (mtime_ns is None):
        raise SynosError(errno.EINVAL, f"{call} sets both times, or without any both to now; utimensat sets one")
    return atime_ns, mtime_ns


def _leave(atime_ns: int | None, mtime_ns: int | None) -> bool:
    return (atime_ns, mtime_ns) != (None, None) and {atime_ns, mtime_ns} <= {abi.UTIME_OMIT, None}


def _change(caller: Caller, dirfd: int, path: str | Named, change: Change, flags: int) -> Answer:
    if isinstance(path, Named):
        name = path.name[1:].decode("utf-8", "surrogateescape")
        if path.family == "mqueue":
            return OnAvatar(partial(done, mqueue_fs.change, name, change))
        return OnAvatar(on_file(caller, path.name, partial(done, posix_sem.change, name, change)))
    if is_in_pipes(path, dirfd):
        caller.ipc.fifos.change(path, change, caller.credentials)
        return 0
    if is_descriptor(path, flags):
        if dirfd != AT_FDCWD:
            return _change_open(caller, dirfd, change, flags)
        path = "."
    return on_path(caller, dirfd, path, file_status.change, change, flags)


def _change_open(caller: Caller, fd: int, change: Change, flags: int) -> Answer:
    """Without AT_EMPTY_PATH EBADF for what is open with O_PATH, as fchmod(2) and fchown(2) say."""
    if not flags:
        _refuse_path(caller, fd)
    name = f"descriptor {fd}"
    return on_descriptor(caller, fd, lambda host_fd: file_status.change_open(host_fd, change, name), changes=True)


def _refuse_path(caller: Caller, fd: int) -> None:
    if caller.descriptors.get(fd).file_type == "path":
        raise SynosError(errno.EBADF, f"descriptor {fd} was opened with O_PATH: the calls with AT_EMPTY_PATH take it")
