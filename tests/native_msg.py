"""System V message queues by libc: <sys/msg.h>."""

import ctypes
import struct
from ctypes import c_int, c_long, c_size_t, c_ssize_t, c_uint, c_ulong, c_ushort, c_void_p

from native import Result, checked, libc

CONSTANTS = {
    "IPC_PRIVATE": 0,
    "IPC_CREAT": 0o1000,
    "IPC_EXCL": 0o2000,
    "IPC_NOWAIT": 0o4000,
    "IPC_RMID": 0,
    "IPC_SET": 1,
    "IPC_STAT": 2,
    "IPC_INFO": 3,
    "MSG_NOERROR": 0o10000,
    "MSG_EXCEPT": 0o20000,
    "MSG_COPY": 0o40000,
    "MSG_STAT": 11,
    "MSG_INFO": 12,
    "MSG_STAT_ANY": 13,
}
SLEEPS = {"msgsnd": 69, "msgrcv": 70}


class IpcPerm(ctypes.Structure):
    _fields_ = (
        ("key", c_int),
        *((name, c_uint) for name in ("uid", "gid", "cuid", "cgid", "mode")),
        ("seq", c_ushort),
        ("unused", c_ulong * 2),
    )


class MsqidDs(ctypes.Structure):
    _fields_ = (
        ("perm", IpcPerm),
        *((name, c_ulong) for name in ("stime", "rtime", "ctime", "cbytes", "qnum", "qbytes")),
        *((name, c_int) for name in ("lspid", "lrpid")),
        ("unused", c_ulong * 2),
    )


class MsgInfo(ctypes.Structure):
    _fields_ = (
        *((n, c_int) for n in ("msgpool", "msgmap", "msgmax", "msgmnb", "msgmni", "msgssz", "msgtql")),
        ("msgseg", c_ushort),
    )


libc.msgget.argtypes = (c_int, c_int)
libc.msgsnd.argtypes = (c_int, c_void_p, c_size_t, c_int)
libc.msgrcv.argtypes = (c_int, c_void_p, c_size_t, c_long, c_int)
libc.msgrcv.restype = c_ssize_t
libc.msgctl.argtypes = (c_int, c_int, c_void_p)


def msgget(key: int, flags: int = 0) -> int:
    return checked(libc.msgget(ctypes.c_int(key & 0xFFFFFFFF).value, flags))


def msgsnd(msqid: int, mtype: int, data: bytes, flags: int = 0, *, size: int | None = None) -> int:
    return checked(libc.msgsnd(msqid, struct.pack("l", mtype) + data, len(data) if size is None else size, flags))


def msgrcv(msqid: int, size: int, mtype: int = 0, flags: int = 0) -> Result:
    buffer = ctypes.create_string_buffer(8 + max(size, 0))
    length = checked(libc.msgrcv(msqid, buffer, size, mtype, flags))
    return Result(length, "", {"mtype": c_long.from_buffer(buffer).value}, buffer.raw[8 : 8 + length])


def msgctl(msqid: int, command: int, **fields: int) -> Result:
    if command in (CONSTANTS["IPC_INFO"], CONSTANTS["MSG_INFO"]):
        info = MsgInfo()
        ret = checked(libc.msgctl(msqid, command, ctypes.byref(info)))
        return Result(ret, "", {name: getattr(info, name) for name, _ in MsgInfo._fields_})
    status = MsqidDs()
    if command == CONSTANTS["IPC_SET"]:
        _fill_in(msqid, status)
        for name, value in fields.items():
            setattr(status if name == "qbytes" else status.perm, name, value)
        return Result(checked(libc.msgctl(msqid, command, ctypes.byref(status))))
    ret = checked(libc.msgctl(msqid, command, ctypes.byref(status)))
    if command == CONSTANTS["IPC_RMID"]:
        return Result(ret)
    perm = {name: getattr(status.perm, name) for name, _ in IpcPerm._fields_[:-1]}
    rest = {name: getattr(status, name) for name, _ in MsqidDs._fields_[1:-1]}
    return Result(ret, "", perm | {"key": perm["key"] & 0xFFFFFFFF} | rest)


def _fill_in(msqid: int, status: MsqidDs) -> None:
    """The present values of what IPC_SET sets, for a caller who need not have the right to IPC_STAT."""
    for slot in range(checked(libc.msgctl(0, CONSTANTS["MSG_INFO"], ctypes.byref(MsgInfo()))) + 1):
        if libc.msgctl(slot, CONSTANTS["MSG_STAT_ANY"], ctypes.byref(status)) == msqid:
            return


CALLS = {"msgget": msgget, "msgsnd": msgsnd, "msgrcv": msgrcv, "msgctl": msgctl}
