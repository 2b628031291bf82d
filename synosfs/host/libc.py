"""libc, bound twice on purpose.

``now`` keeps the interpreter lock during the call, for calls that cannot block (an IPC_NOWAIT, a stat): giving the lock
away and taking it back costs more than the call. ``blocking`` gives it away. A call through the wrong one is either
slow or stops the daemon, so each function says which it is by its name.
"""

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_uint, c_ulong, c_ushort
from typing import Any

from synosfs.errors import SynosError

now = ctypes.PyDLL(None, use_errno=True)
blocking = ctypes.CDLL(None, use_errno=True)


def bind(library: ctypes.CDLL, name: str, restype: Any, *argtypes: Any) -> Callable[..., int]:
    """A C function of ``library`` with its types."""
    function = library[name]  # a fresh function object: argument types are not shared between users
    function.restype = restype
    function.argtypes = argtypes
    return function


def checked(result: int) -> int:
    """The result of a C call; SynosError with its errno when it is -1."""
    if result == -1:
        raise SynosError(ctypes.get_errno())
    return result


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


#: The fields of ``IpcPerm`` for struct, the key unsigned: unpacking all at once takes a tenth of asking for each.
IPC_PERM = "IIIIIIH2x0L16x"
