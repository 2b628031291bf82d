"""System V message queues of the host: msgget(2), msgop(2), msgctl(2), as they are."""

import ctypes
import errno
import struct
import threading
from ctypes import c_int, c_long, c_size_t, c_ssize_t, c_void_p

from synosfs.errors import SynosError
from synosfs.host import _msgwatch, guard
from synosfs.host.libc import bind, blocking, checked, now
from synosfs.host.structs import IPC_PERM, Layout

#: ``struct msqid64_ds`` of <asm-generic/msgbuf.h>; times in seconds since the epoch.
MSQID_DS = Layout(
    IPC_PERM
    | dict.fromkeys(("stime", "rtime", "ctime"), "l")
    | dict.fromkeys(("cbytes", "qnum", "qbytes"), "L")
    | {"lspid": "i", "lrpid": "i", "_end": "16x"}
)

#: ``struct msginfo`` of <linux/msg.h>.
MSG_INFO = Layout(
    dict.fromkeys(("msgpool", "msgmap", "msgmax", "msgmnb", "msgmni", "msgssz", "msgtql"), "i")
    | {"msgseg": "H", "_end": "2x"}
)

_msgget = bind(now, "msgget", c_int, c_int, c_int)
_msgctl = bind(now, "msgctl", c_int, c_int, c_int, c_void_p)
_msgsnd_now = bind(now, "msgsnd", c_int, c_int, c_void_p, c_size_t, c_int)
_msgrcv_now = bind(now, "msgrcv", c_ssize_t, c_int, c_void_p, c_size_t, c_long, c_int)
_msgsnd_blocking = bind(blocking, "msgsnd", c_int, c_int, c_void_p, c_size_t, c_int)
_msgrcv_blocking = bind(blocking, "msgrcv", c_ssize_t, c_int, c_void_p, c_size_t, c_long, c_int)

_MTYPE = struct.Struct("=q")
_TYPE_BYTES = _MTYPE.size


class _Receiver(threading.local):
    """A thread's own receive buffer, kept between calls and grown when a larger one is asked for."""

    def __init__(self) -> None:
        self.resize(64 << 10)

    def resize(self, size: int) -> None:
        self.size = size
        self.buffer = ctypes.create_string_buffer(_TYPE_BYTES + size)
        self.view = memoryview(self.buffer).cast("B")


_receiver = _Receiver()


def msgget(key: int, flags: int) -> int:
    return checked(_msgget(key, flags))


def msgctl(msqid: int, command: int, buffer: "ctypes.Array[ctypes.c_char] | None" = None) -> int:
    return checked(_msgctl(msqid, command, buffer))


def msgsnd_nowait(msqid: int, mtype: int, data: bytes, flags: int) -> int:
    return checked(_msgsnd_now(msqid, _MTYPE.pack(mtype) + data, len(data), flags))


def msgsnd_blocking(msqid: int, mtype: int, data: bytes, flags: int) -> int:
    return checked(_msgsnd_blocking(msqid, _MTYPE.pack(mtype) + data, len(data), flags))


def msgrcv_nowait(msqid: int, size: int, mtype: int, flags: int) -> tuple[int, bytes]:
    """Returns (mtype, data). ``size`` is the most bytes of data; a negative one is the host's to refuse."""
    receiver = _receiver
    if size > receiver.size:
        receiver.resize(size)
    length = checked(_msgrcv_now(msqid, receiver.buffer, size, mtype, flags))
    view = receiver.view
    return _MTYPE.unpack_from(view)[0], view[_TYPE_BYTES : _TYPE_BYTES + length].tobytes()


def msgrcv_blocking(msqid: int, size: int, mtype: int, flags: int) -> tuple[int, bytes]:
    """As ``msgrcv_nowait``, sleeping until there is one. The buffer is the call's own: a thousand may sleep at once."""
    buffer = ctypes.create_string_buffer(_TYPE_BYTES + max(size, 0))
    length = checked(_msgrcv_blocking(msqid, buffer, size, mtype, flags))
    view = memoryview(buffer).cast("B")
    return _MTYPE.unpack_from(view)[0], view[_TYPE_BYTES : _TYPE_BYTES + length].tobytes()


def await_message(msqid: int, mtype: int, flags: int) -> int | None:
    """Sleep until a message of the type comes, and leave it. An empty one has to be taken, and is sent back at once, to
    the queue's end: its mtype where that could not be (no room, or the thread may not send), else None.
    """
    try:
        return _await_message(msqid, mtype, flags) or None
    except OSError as error:
        raise SynosError(error.errno or errno.EIO) from None


_await_message = guard.guarded(_msgwatch.await_message, "msgrcv") if guard.IS_ON else _msgwatch.await_message
