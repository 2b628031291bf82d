"""POSIX message queues, semaphores and shared memory by libc: <mqueue.h>, <semaphore.h>, <sys/mman.h>.

A semaphore is its address. A notification is waited for as SIGEV_THREAD is by libc itself: on a netlink socket, whose
descriptor is the result ``event``.
"""

import ctypes
import socket
import time
from contextlib import suppress
from ctypes import c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint, c_void_p

from native import Result, checked, libc

CONSTANTS = {"SIGEV_NONE": 1, "SIGEV_THREAD": 2}
SLEEPS = {
    "mq_send": 242,
    "mq_timedsend": 242,
    "mq_receive": 243,
    "mq_timedreceive": 243,
    "sem_wait": 202,
    "sem_timedwait": 202,
}

NULL = 0


class MqAttr(ctypes.Structure):
    _fields_ = (*((name, c_long) for name in ("flags", "maxmsg", "msgsize", "curmsgs")), ("unused", c_long * 4))


class Timespec(ctypes.Structure):
    _fields_ = (("sec", c_long), ("nsec", c_long))


class SigEvent(ctypes.Structure):
    _fields_ = (("value", c_void_p), ("signo", c_int), ("notify", c_int), ("unused", c_int * 12))


libc.mq_open.argtypes = (c_char_p, c_int, c_uint, c_void_p)
libc.mq_unlink.argtypes = (c_char_p,)
libc.mq_timedsend.argtypes = (c_int, c_char_p, c_size_t, c_uint, c_void_p)
libc.mq_timedreceive.argtypes = (c_int, c_void_p, c_size_t, c_void_p, c_void_p)
libc.mq_timedreceive.restype = c_ssize_t
libc.mq_getattr.argtypes = (c_int, c_void_p)
libc.mq_setattr.argtypes = (c_int, c_void_p, c_void_p)
libc.sem_open.argtypes = (c_char_p, c_int, c_uint, c_uint)
libc.sem_open.restype = c_void_p
libc.sem_unlink.argtypes = libc.shm_unlink.argtypes = (c_char_p,)
libc.sem_close.argtypes = libc.sem_wait.argtypes = libc.sem_trywait.argtypes = libc.sem_post.argtypes = (c_void_p,)
libc.sem_timedwait.argtypes = libc.sem_getvalue.argtypes = (c_void_p, c_void_p)
libc.shm_open.argtypes = (c_char_p, c_int, c_uint)
libc.ftruncate.argtypes = (c_int, c_long)


def deadline(abs_sec: int | None, abs_nsec: int | None, timeout: float | None) -> object:
    """A struct timespec, or NULL."""
    if timeout is not None:
        return ctypes.byref(Timespec(*divmod(time.time_ns() + int(timeout * 1e9), 1_000_000_000)))
    if abs_sec is None and abs_nsec is None:
        return None
    return ctypes.byref(Timespec(abs_sec or 0, abs_nsec or 0))


def mq_open(
    name: bytes, flags: int = 0, mode: int = 0o600, *, maxmsg: int | None = None, msgsize: int | None = None
) -> int:
    limited = maxmsg is not None or msgsize is not None
    attributes = MqAttr(0, 10 if maxmsg is None else maxmsg, 8192 if msgsize is None else msgsize)
    return checked(libc.mq_open(name, flags, mode, ctypes.byref(attributes) if limited else None))


def mq_timedsend(
    mqd: int,
    data: bytes,
    priority: int = 0,
    *,
    abs_sec: int | None = None,
    abs_nsec: int | None = None,
    timeout: float | None = None,
) -> int:
    return checked(libc.mq_timedsend(mqd, data, len(data), priority, deadline(abs_sec, abs_nsec, timeout)))


def mq_timedreceive(
    mqd: int,
    size: int | None = None,
    *,
    abs_sec: int | None = None,
    abs_nsec: int | None = None,
    timeout: float | None = None,
) -> Result:
    if size is None:
        size = mq_getattr(mqd).results["msgsize"]
    buffer, priority = ctypes.create_string_buffer(size), c_uint()
    until = deadline(abs_sec, abs_nsec, timeout)
    length = checked(libc.mq_timedreceive(mqd, buffer, size, ctypes.byref(priority), until))
    return Result(length, "", {"priority": priority.value}, buffer.raw[:length])


def mq_getattr(mqd: int) -> Result:
    attributes = MqAttr()
    ret = checked(libc.mq_getattr(mqd, ctypes.byref(attributes)))
    return Result(ret, "", _shown(attributes))


def mq_setattr(mqd: int, flags: int) -> Result:
    before = MqAttr()
    ret = checked(libc.mq_setattr(mqd, ctypes.byref(MqAttr(flags)), ctypes.byref(before)))
    return Result(ret, "", _shown(before))


def _shown(attributes: MqAttr) -> dict[str, int]:
    return {name: getattr(attributes, name) for name in ("flags", "maxmsg", "msgsize", "curmsgs")}


_cookie = ctypes.create_string_buffer(b"message", 32)


def mq_notify(mqd: int, notification: int = 2) -> Result:
    if notification == NULL:
        return Result(checked(libc.syscall(c_long(244), c_int(mqd), None)))
    event = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    request = SigEvent(ctypes.addressof(_cookie), event.fileno(), notification)
    with event:
        ret = checked(libc.syscall(c_long(244), c_int(mqd), ctypes.byref(request)))
        return Result(ret, "", {"event": event.detach()} if notification == CONSTANTS["SIGEV_THREAD"] else {})


def sem_open(name: bytes, flags: int = 0, mode: int = 0o600, value: int = 0) -> int:
    return libc.sem_open(name, flags, mode, value) or checked(-1)


def sem_timedwait(
    sem: int, *, abs_sec: int | None = None, abs_nsec: int | None = None, timeout: float | None = None
) -> int:
    return checked(libc.sem_timedwait(sem, deadline(abs_sec, abs_nsec, timeout)))


def sem_getvalue(sem: int) -> int:
    value = c_int()
    checked(libc.sem_getvalue(sem, ctypes.byref(value)))
    return value.value


def unlink_all(name: bytes) -> None:
    """Whatever has this name."""
    for unlink in (libc.mq_unlink, libc.sem_unlink, libc.shm_unlink):
        with suppress(OSError):
            checked(unlink(name))


CALLS = {
    "mq_open": mq_open,
    "mq_unlink": lambda name: checked(libc.mq_unlink(name)),
    "mq_send": mq_timedsend,
    "mq_timedsend": mq_timedsend,
    "mq_receive": mq_timedreceive,
    "mq_timedreceive": mq_timedreceive,
    "mq_getattr": mq_getattr,
    "mq_setattr": mq_setattr,
    "mq_notify": mq_notify,
    "sem_open": sem_open,
    "sem_close": lambda sem: checked(libc.sem_close(sem)),
    "sem_unlink": lambda name: checked(libc.sem_unlink(name)),
    "sem_wait": lambda sem: checked(libc.sem_wait(sem)),
    "sem_trywait": lambda sem: checked(libc.sem_trywait(sem)),
    "sem_timedwait": sem_timedwait,
    "sem_post": lambda sem: checked(libc.sem_post(sem)),
    "sem_getvalue": sem_getvalue,
    "shm_open": lambda name, flags=0, mode=0o600: checked(libc.shm_open(name, flags, mode)),
    "shm_unlink": lambda name: checked(libc.shm_unlink(name)),
    "ftruncate": lambda fd, length: checked(libc.ftruncate(fd, length)),
}
