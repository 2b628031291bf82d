"""The host kernel: the only module that crosses into C. Everything above sees bytes, ints and ``SynosError``.

Two libraries are bound on purpose. ``_now`` keeps the interpreter lock during the call, for calls that cannot block
(an IPC_NOWAIT, a stat): giving the lock away and taking it back costs more than the call. ``_blocking`` gives it away.
A call through the wrong one is either slow or stops the daemon, so each function says which it is by its name.

The credential functions use raw system calls, which change the calling thread alone; libc's wrappers change all
threads of a process (``nptl(7)``). Only the *effective* ids change: the real and saved ones stay the daemon's, so that
it can come back, and so that a user can neither signal nor trace a thread that acts for them (``kill(2)``, ``ptrace(2)``).
"""

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_long, c_size_t, c_ssize_t, c_uint, c_ulong, c_ushort, c_void_p
from typing import Any

from synosfs import credentials
from synosfs.abi import CLONE_SYSVSEM
from synosfs.credentials import Credentials
from synosfs.errors import SynosError

_now = ctypes.PyDLL(None, use_errno=True)
_blocking = ctypes.CDLL(None, use_errno=True)


def _bind(library: ctypes.CDLL, name: str, restype: Any, *argtypes: Any) -> Callable[..., int]:
    function = library[name]  # a fresh function object: argument types are not shared between users
    function.restype = restype
    function.argtypes = argtypes
    return function


def _checked(result: int) -> int:
    if result == -1:
        raise SynosError(ctypes.get_errno())
    return result


# --- System V message queues: msgget(2), msgop(2), msgctl(2) -----------------------------------------------------


class IpcPerm(ctypes.Structure):
    """``struct ipc64_perm`` of <asm-generic/ipcbuf.h>."""

    _fields_ = (
        ("key", c_int),
        ("uid", c_uint),
        ("gid", c_uint),
        ("cuid", c_uint),
        ("cgid", c_uint),
        ("mode", c_uint),
        ("seq", c_ushort),
        ("_pad", c_ushort),
        ("_unused", c_ulong * 2),
    )


class MsqidDs(ctypes.Structure):
    """``struct msqid64_ds`` of <asm-generic/msgbuf.h>; times in seconds since the epoch."""

    _fields_ = (
        ("perm", IpcPerm),
        ("stime", c_long),
        ("rtime", c_long),
        ("ctime", c_long),
        ("cbytes", c_ulong),
        ("qnum", c_ulong),
        ("qbytes", c_ulong),
        ("lspid", c_int),
        ("lrpid", c_int),
        ("_unused", c_ulong * 2),
    )


class MsgInfo(ctypes.Structure):
    """``struct msginfo`` of <linux/msg.h>."""

    _fields_ = (
        ("msgpool", c_int),
        ("msgmap", c_int),
        ("msgmax", c_int),
        ("msgmnb", c_int),
        ("msgmni", c_int),
        ("msgssz", c_int),
        ("msgtql", c_int),
        ("msgseg", c_ushort),
    )


_msgget = _bind(_now, "msgget", c_int, c_int, c_int)
_msgctl = _bind(_now, "msgctl", c_int, c_int, c_int, c_void_p)
_msgsnd_now = _bind(_now, "msgsnd", c_int, c_int, c_void_p, c_size_t, c_int)
_msgrcv_now = _bind(_now, "msgrcv", c_ssize_t, c_int, c_void_p, c_size_t, c_long, c_int)
_msgsnd_blocking = _bind(_blocking, "msgsnd", c_int, c_int, c_void_p, c_size_t, c_int)
_msgrcv_blocking = _bind(_blocking, "msgrcv", c_ssize_t, c_int, c_void_p, c_size_t, c_long, c_int)

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
    return _checked(_msgget(key, flags))


def msgctl(msqid: int, command: int, buffer: ctypes.Structure | None = None) -> int:
    return _checked(_msgctl(msqid, command, None if buffer is None else ctypes.addressof(buffer)))


def msgsnd_nowait(msqid: int, mtype: int, data: bytes, flags: int) -> int:
    return _checked(_msgsnd_now(msqid, _MTYPE.pack(mtype) + data, len(data), flags))


def msgsnd_blocking(msqid: int, mtype: int, data: bytes, flags: int) -> int:
    return _checked(_msgsnd_blocking(msqid, _MTYPE.pack(mtype) + data, len(data), flags))


def msgrcv_nowait(msqid: int, size: int, mtype: int, flags: int) -> tuple[int, bytes]:
    """Returns (mtype, data). ``size`` is the most bytes of data; a negative one is the host's to refuse."""
    receiver = _receiver
    if size > receiver.size:
        receiver.resize(size)
    length = _checked(_msgrcv_now(msqid, receiver.buffer, size, mtype, flags))
    view = receiver.view
    return _MTYPE.unpack_from(view)[0], view[_TYPE_BYTES : _TYPE_BYTES + length].tobytes()


def msgrcv_empty_blocking(msqid: int, mtype: int, flags: int) -> int:
    """Receive with no room for data: sleeps until a message of the type comes, takes it only when it is empty.

    Returns the mtype of the empty message taken; E2BIG means that a message is there and was left there.
    """
    buffer = ctypes.create_string_buffer(_TYPE_BYTES)
    _checked(_msgrcv_blocking(msqid, buffer, 0, mtype, flags))
    mtype_taken: int = _MTYPE.unpack_from(buffer)[0]
    return mtype_taken


# --- Credentials of one thread: setresuid(2), setgroups(2), capset(2), unshare(2) ---------------------------------

_SYS_SETGROUPS, _SYS_SETRESUID, _SYS_SETRESGID, _SYS_CAPSET, _SYS_UNSHARE = 116, 117, 119, 126, 272
_CAPABILITY_VERSION_3 = 0x20080522
_syscall = _now["syscall"]
_syscall.restype = c_long


def _raw(number: int, *arguments: Any) -> None:
    _checked(_syscall(c_long(number), *arguments))


OWN = credentials.of_daemon()
"""The daemon's credentials. A caller whose credentials equal them is served without changing anything."""


def _set_effective_capabilities(effective: int) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, OWN.capabilities >> 32
    permitted_low = OWN.capabilities & low
    data = struct.pack("=6I", effective & low, permitted_low, 0, effective >> 32, high, 0)
    _raw(_SYS_CAPSET, header, data)


def _set_groups(groups: tuple[int, ...]) -> None:
    _raw(_SYS_SETGROUPS, c_long(len(groups)), (c_uint * len(groups))(*groups))


def assume(caller: Credentials) -> None:
    """Make the calling thread act with ``caller``'s rights; it must be acting with the daemon's own.

    EPERM when the daemon lacks the privilege: an ordinary user's daemon serves that user alone.
    """
    if caller == OWN:
        return
    try:
        if caller.groups != OWN.groups:
            _set_groups(caller.groups)
        if caller.gid != OWN.gid:
            _raw(_SYS_SETRESGID, c_int(-1), c_uint(caller.gid), c_int(-1))
        if caller.uid != OWN.uid:
            # Leaving uid 0 clears the effective capabilities and keeps the permitted ones for the way back.
            _raw(_SYS_SETRESUID, c_int(-1), c_uint(caller.uid), c_int(-1))
        elif caller.capabilities & OWN.capabilities != OWN.capabilities:
            _set_effective_capabilities(caller.capabilities & OWN.capabilities)
    except SynosError as error:
        resume()
        raise SynosError(
            errno.EPERM,
            f"the mount runs as uid {OWN.uid} and cannot act for uid {caller.uid} gid {caller.gid}; "
            "mount it as root with -o allow_other to serve other users",
        ) from error


def resume() -> None:
    """Make the calling thread act with the daemon's own rights again. Cannot fail after a successful ``assume``."""
    try:
        if OWN.uid == 0:
            _raw(_SYS_SETRESUID, c_int(-1), c_uint(OWN.uid), c_int(-1))
            _set_effective_capabilities(OWN.capabilities)
            _raw(_SYS_SETRESGID, c_int(-1), c_uint(OWN.gid), c_int(-1))
            _set_groups(OWN.groups)
    except SynosError as error:
        # Going on with somebody else's rights would be worse than ending.
        os.write(2, f"synosfs: cannot take back the daemon's own credentials: {error}\n".encode())
        os._exit(70)


@contextmanager
def acting_as(caller: Credentials) -> Iterator[None]:
    """The body runs with ``caller``'s rights. It must not wait: the thread serves others too."""
    if caller == OWN:
        yield
        return
    assume(caller)
    try:
        yield
    finally:
        resume()


def unshare_semaphore_undo() -> None:
    """Give the calling thread a SEM_UNDO list of its own (CLONE_SYSVSEM); threads it starts share it."""
    _raw(_SYS_UNSHARE, c_long(CLONE_SYSVSEM))
