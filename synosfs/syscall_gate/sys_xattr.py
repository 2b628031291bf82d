"""Extended attributes: getxattr(2), listxattr(2), setxattr(2), removexattr(2), with l for a symbolic link itself and f
for a descriptor.
"""

import errno
from functools import partial

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import file_attributes
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer
from synosfs.syscall_gate.places import AT_FDCWD, check_flags, on_descriptor, on_path
from synosfs.syscall_gate.record import Reply

_SELF = abi.AT_SYMLINK_NOFOLLOW


def sys_getxattr(caller: Caller, path: str, name: bytes, size: int | None) -> Answer:
    return _get(caller, path, name, size, 0)


def sys_lgetxattr(caller: Caller, path: str, name: bytes, size: int | None) -> Answer:
    return _get(caller, path, name, size, _SELF)


def sys_fgetxattr(caller: Caller, fd: int, name: bytes, size: int | None) -> Answer:
    _check_own_ids(caller, name)
    file = f"descriptor {fd}"
    return on_descriptor(caller, fd, lambda host_fd: _reply(size, file_attributes.get_open(host_fd, file, name)))


def _get(caller: Caller, path: str, name: bytes, size: int | None, flags: int) -> Answer:
    _check_own_ids(caller, name)
    return on_path(caller, AT_FDCWD, path, file_attributes.get, name, flags, finish=partial(_reply, size))


def sys_listxattr(caller: Caller, path: str, size: int | None) -> Answer:
    return on_path(caller, AT_FDCWD, path, file_attributes.names, 0, finish=partial(_reply, size))


def sys_llistxattr(caller: Caller, path: str, size: int | None) -> Answer:
    return on_path(caller, AT_FDCWD, path, file_attributes.names, _SELF, finish=partial(_reply, size))


def sys_flistxattr(caller: Caller, fd: int, size: int | None) -> Answer:
    file = f"descriptor {fd}"
    return on_descriptor(caller, fd, lambda host_fd: _reply(size, file_attributes.names_open(host_fd, file)))


def _reply(size: int | None, value: bytes) -> Reply:
    """All of it where no size is given; size 0 asks for the length alone."""
    if size == 0:
        return Reply(len(value))
    if size is not None and len(value) > size:
        raise SynosError(errno.ERANGE, f"it has {len(value)} bytes, and size is {size}")
    return Reply(len(value), data=value)


def sys_setxattr(caller: Caller, path: str, name: bytes, data: bytes, flags: int) -> Answer:
    return _set(caller, path, name, data, flags, 0)


def sys_lsetxattr(caller: Caller, path: str, name: bytes, data: bytes, flags: int) -> Answer:
    return _set(caller, path, name, data, flags, _SELF)


def sys_fsetxattr(caller: Caller, fd: int, name: bytes, data: bytes, flags: int) -> Answer:
    _check(caller, name, flags)
    file = f"descriptor {fd}"
    return on_descriptor(
        caller, fd, lambda host_fd: file_attributes.put_open(host_fd, file, name, data, flags), changes=True
    )


def _set(caller: Caller, path: str, name: bytes, data: bytes, how: int, flags: int) -> Answer:
    _check(caller, name, how)
    return on_path(caller, AT_FDCWD, path, file_attributes.put, name, data, how, flags)


def sys_removexattr(caller: Caller, path: str, name: bytes) -> Answer:
    return on_path(caller, AT_FDCWD, path, file_attributes.remove, name, 0)


def sys_lremovexattr(caller: Caller, path: str, name: bytes) -> Answer:
    return on_path(caller, AT_FDCWD, path, file_attributes.remove, name, _SELF)


def sys_fremovexattr(caller: Caller, fd: int, name: bytes) -> Answer:
    file = f"descriptor {fd}"
    return on_descriptor(caller, fd, lambda host_fd: file_attributes.remove_open(host_fd, file, name), changes=True)


def _check(caller: Caller, name: bytes, flags: int) -> None:
    check_flags("setxattr", flags, abi.XATTR_CREATE | abi.XATTR_REPLACE)
    _check_own_ids(caller, name)


def _check_own_ids(caller: Caller, name: bytes) -> None:
    """EPERM: ids inside such a value would be taken for the daemon's namespace's, not for the caller's."""
    if name.startswith((b"system.posix_acl_", b"security.capability")) and not caller.user_namespace.is_ours:
        raise SynosError(errno.EPERM, "ids in this attribute are not translated for a caller in another user namespace")
