"""POSIX message queues and shared memory of the host: mq_open(3) and its kin, shm_open(3), as they are.

They are bound to libc: posix_ipc folds errnos and cannot say an absolute time, so it only gives its constants here.
glibc's functions are the system calls of the same names (mq_overview(7)).
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint, c_void_p

import posix_ipc

from synosfs.errors import SynosError
from synosfs.host.libc import bind, blocking, checked, now


class MqAttr(ctypes.Structure):
    """``struct mq_attr`` of <linux/mqueue.h>."""

    _fields_ = (("flags", c_long), ("maxmsg", c_long), ("msgsize", c_long), ("curmsgs", c_long), ("_pad", c_long * 4))


class Timespec(ctypes.Structure):
    """``struct timespec``: seconds and nanoseconds."""

    _fields_ = (("sec", c_long), ("nsec", c_long))


_NS = 1_000_000_000

#: The most that a message's priority and a semaphore's value can be.
PRIORITY_MAX: int = posix_ipc.QUEUE_PRIORITY_MAX
SEM_VALUE_MAX: int = posix_ipc.SEMAPHORE_VALUE_MAX

_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_FSCONFIG_CMD_CREATE = 6

_mq_open = bind(now, "mq_open", c_int, c_char_p, c_int, c_uint, POINTER(MqAttr))
_mq_unlink = bind(now, "mq_unlink", c_int, c_char_p)
_mq_getattr = bind(now, "mq_getattr", c_int, c_int, POINTER(MqAttr))
_SEND = (c_int, c_int, c_void_p, c_size_t, c_uint, POINTER(Timespec))
_RECEIVE = (c_ssize_t, c_int, c_void_p, c_size_t, POINTER(c_uint), POINTER(Timespec))
_send_now = bind(now, "mq_timedsend", *_SEND)
_send_blocking = bind(blocking, "mq_timedsend", *_SEND)
_receive_now = bind(now, "mq_timedreceive", *_RECEIVE)
_receive_blocking = bind(blocking, "mq_timedreceive", *_RECEIVE)
_fsopen = bind(now, "syscall", c_int, c_long, c_char_p, c_uint)
_fsconfig = bind(now, "syscall", c_int, c_long, c_int, c_uint, c_void_p, c_void_p, c_int)
_fsmount = bind(now, "syscall", c_int, c_long, c_int, c_uint, c_uint)
_shm_open = bind(now, "shm_open", c_int, c_char_p, c_int, c_uint)
_shm_unlink = bind(now, "shm_unlink", c_int, c_char_p)


def shown(name: bytes) -> str:
    """A user's name inside a message: short, printable, and on one line."""
    text = name.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()
    return f"{text[:80]}..." if len(text) > 80 else text


@contextmanager
def creating_with(umask: int) -> Iterator[None]:
    """What the body creates gets this umask: the caller's, not the daemon's.

    A umask belongs to the whole process. Only the trio thread creates anything, so nobody else can be meant.
    """
    own = os.umask(umask)
    try:
        yield
    finally:
        os.umask(own)


def mq_open(name: bytes, flags: int, mode: int, maxmsg: int | None, msgsize: int | None) -> int:
    """A host descriptor of the queue; the host's defaults for both limits when neither is given."""
    attributes = None
    if maxmsg is not None or msgsize is not None:
        attributes = MqAttr(0, *_default_limits(maxmsg, msgsize))
    return checked(_mq_open(name, flags, mode, attributes))


def _default_limits(maxmsg: int | None, msgsize: int | None) -> tuple[int, int]:
    """The two limits, with the host's default for the one that is not given (mq_overview(7): msg_default)."""
    names = ("msg_default", "msgsize_default")
    return tuple(  # type: ignore[return-value]  # it has as many items as the names
        _limit(name) if given is None else given for name, given in zip(names, (maxmsg, msgsize), strict=True)
    )


def _limit(name: str) -> int:
    with open(f"/proc/sys/fs/mqueue/{name}", encoding="ascii") as file:
        return int(file.read())


def mq_unlink(name: bytes) -> None:
    checked(_mq_unlink(name))


def mq_getattr(fd: int) -> MqAttr:
    attributes = MqAttr()
    checked(_mq_getattr(fd, attributes))
    return attributes


def _past(until: Timespec | None) -> Timespec:
    """A time that has passed, and is as valid as ``until``: the host refuses a bad one whether it waits or not."""
    if until is None or (until.sec >= 0 and 0 <= until.nsec < _NS):
        return Timespec(0, 0)
    return Timespec(min(until.sec, 0), until.nsec)


def mq_send_nowait(fd: int, data: bytes, priority: int, until: Timespec | None) -> None:
    """ETIMEDOUT when it would wait: mq_timedsend(3) until a time that has passed."""
    checked(_send_now(fd, data, len(data), priority, _past(until)))


def mq_send_blocking(fd: int, data: bytes, priority: int, until: Timespec | None) -> None:
    checked(_send_blocking(fd, data, len(data), priority, until))


def mq_receive_nowait(fd: int, size: int, until: Timespec | None) -> tuple[bytes, int]:
    """(data, priority); ETIMEDOUT when it would wait."""
    buffer, priority = ctypes.create_string_buffer(size), c_uint()
    length = checked(_receive_now(fd, buffer, size, priority, _past(until)))
    return buffer.raw[:length], priority.value


def mq_receive_blocking(fd: int, size: int, until: Timespec | None) -> tuple[bytes, int]:
    buffer, priority = ctypes.create_string_buffer(size), c_uint()
    length = checked(_receive_blocking(fd, buffer, size, priority, until))
    return buffer.raw[:length], priority.value


def mqueue_filesystem() -> int:
    """A descriptor of the root of this IPC namespace's mqueue file system, mounted nowhere. EPERM: CAP_SYS_ADMIN."""
    context = checked(_fsopen(_SYS_FSOPEN, b"mqueue", _CLOEXEC))
    try:
        checked(_fsconfig(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        mount = checked(_fsmount(_SYS_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)
    try:  # it is O_PATH; the one that can be listed keeps the mount
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def shm_open(name: bytes, flags: int, mode: int) -> int:
    return checked(_shm_open(name, flags, mode))


def shm_unlink(name: bytes) -> None:
    checked(_shm_unlink(name))


def ftruncate(fd: int, length: int) -> None:
    try:
        os.ftruncate(fd, length)
    except OSError as error:
        raise SynosError(error.errno or 0) from None
