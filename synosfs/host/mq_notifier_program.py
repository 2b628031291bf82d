"""The program that is registered for notifications: mq_notify(3). ``mq_notifier`` starts it and asks it.

It holds one descriptor of each queue that somebody has registered for, and nothing else closes one there. It is run by
itself, so it takes nothing but the standard library, and is told the number of mq_notify(2) on this machine as its
argument; it ends when its standard input, the daemon's socket, does.

A notification is what SIGEV_THREAD is to the kernel: 32 bytes on a netlink socket, the last of which tells why.
"""

import array
import ctypes
import os
import socket
import struct
import sys
from ctypes import c_int, c_long, c_void_p

#: The 32 bytes of a notification; the kernel overwrites the last one.
COOKIE = b"message".ljust(32, b"\0")
#: That byte, when a message has come, and not when the registration was removed (NOTIFY_WOKENUP of <linux/mqueue.h>).
WOKEN_UP = 1

#: A request: device and inode number of the queue; the kind of notification, or LET_GO of the queue. With it come
#: the socket for the notification and, unless the queue is held already, a descriptor of it.
REQUEST = struct.Struct("=qqi")
#: The answer: an errno, or 0.
ANSWER = struct.Struct("=i")
LET_GO = -1


class _SigEvent(ctypes.Structure):
    """``struct sigevent`` of <asm-generic/siginfo.h>."""

    _fields_ = (("value", c_void_p), ("signo", c_int), ("notify", c_int), ("_pad", c_int * 12))


def _serve(requests: socket.socket, call: int) -> None:
    held: dict[tuple[int, int], int] = {}
    while True:
        request, ancillary, _, _ = requests.recvmsg(REQUEST.size, socket.CMSG_SPACE(8))
        if not request:
            return
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        device, inode, notification = REQUEST.unpack(request)
        queue, result = (device, inode), 0
        if notification == LET_GO:
            os.close(held.pop(queue))
        else:
            if len(fds) > 1:
                held[queue] = fds[1]
            result = _notify(call, held[queue], notification, fds[0])
            os.close(fds[0])
        requests.send(ANSWER.pack(result))


def _notify(call: int, queue_fd: int, notification: int, socket_fd: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    cookie = ctypes.create_string_buffer(COOKIE, len(COOKIE))
    event = _SigEvent(ctypes.addressof(cookie), socket_fd, notification)
    failed = libc.syscall(c_long(call), c_int(queue_fd), ctypes.byref(event))
    return ctypes.get_errno() if failed else 0


if __name__ == "__main__":
    with socket.socket(fileno=0) as daemon:
        _serve(daemon, int(sys.argv[1]))
