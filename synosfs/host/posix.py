"""POSIX message queues of the host: mq_open(3) and its kin, as they are, and the file system that shows them.

They are bound to libc: posix_ipc folds errnos and cannot say an absolute time, so it only gives its constants here.
glibc's functions are the system calls of the same names (mq_overview(7)). Functions named ``*_blocking`` may sleep.
"""

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint, c_void_p

import posix_ipc

from synosfs.host.libc import Timespec, bind, blocking, checked, now, syscall


class MqAttr(ctypes.Structure):
    """``struct mq_attr`` of <linux/mqueue.h>."""

    _fields_ = (("flags", c_long), ("maxmsg", c_long), ("msgsize", c_long), ("curmsgs", c_long), ("_pad", c_long * 4))


#: The most that a message's priority can be.
PRIORITY_MAX: int = posix_ipc.QUEUE_PRIORITY_MAX

_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_FSCONFIG_CMD_CREATE = 6

_mq_open = bind(blocking, "mq_open", c_int, c_char_p, c_int, c_uint, POINTER(MqAttr))
_mq_unlink = bind(blocking, "mq_unlink", c_int, c_char_p)
_mq_getattr = bind(now, "mq_getattr", c_int, c_int, POINTER(MqAttr))
_SEND = (c_int, c_int, c_void_p, c_size_t, c_uint, POINTER(Timespec))
_RECEIVE = (c_ssize_t, c_int, c_void_p, c_size_t, POINTER(c_uint), POINTER(Timespec))
_send_now = bind(now, "mq_timedsend", *_SEND)
_send_blocking = bind(blocking, "mq_timedsend", *_SEND)
_receive_now = bind(now, "mq_timedreceive", *_RECEIVE)
_receive_blocking = bind(blocking, "mq_timedreceive", *_RECEIVE)

#: A time that has passed.
_PAST = Timespec(0, 0)


def mq_open_blocking(
    name: bytes, flags: int, mode: int = 0, maxmsg: int | None = None, msgsize: int | None = None
) -> int:
    """A host descriptor of the queue; the host's defaults for both limits when neither is given.

    It waits for a lease that somebody has on the queue, unless O_NONBLOCK says EAGAIN.
    """
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


def mq_unlink_blocking(name: bytes) -> None:
    checked(_mq_unlink(name))


def mq_getattr(fd: int) -> MqAttr:
    attributes = MqAttr()
    checked(_mq_getattr(fd, attributes))
    return attributes


def mq_send_nowait(fd: int, data: bytes, priority: int) -> None:
    """ETIMEDOUT when it would wait: mq_timedsend(3) until a time that has passed."""
    checked(_send_now(fd, data, len(data), priority, _PAST))


def mq_send_blocking(fd: int, data: bytes, priority: int, until: Timespec | None) -> None:
    checked(_send_blocking(fd, data, len(data), priority, until))


def mq_receive_nowait(fd: int, size: int) -> tuple[bytes, int]:
    """(data, priority); ETIMEDOUT when it would wait."""
    buffer, priority = ctypes.create_string_buffer(size), c_uint()
    length = checked(_receive_now(fd, buffer, size, priority, _PAST))
    return buffer.raw[:length], priority.value


def mq_receive_blocking(fd: int, size: int, until: Timespec | None) -> tuple[bytes, int]:
    buffer, priority = ctypes.create_string_buffer(size), c_uint()
    length = checked(_receive_blocking(fd, buffer, size, priority, until))
    return buffer.raw[:length], priority.value


def mqueue_filesystem() -> int:
    """A descriptor of the root of this IPC namespace's mqueue file system, mounted nowhere. EPERM: CAP_SYS_ADMIN."""
    context = syscall("fsopen", c_char_p(b"mqueue"), c_uint(_CLOEXEC))
    try:
        syscall("fsconfig", c_int(context), c_uint(_FSCONFIG_CMD_CREATE), None, None, c_int(0))
        mount = syscall("fsmount", c_int(context), c_uint(_CLOEXEC), c_uint(0))
    finally:
        os.close(context)
    try:  # it is O_PATH; the one that can be listed keeps the mount
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)
