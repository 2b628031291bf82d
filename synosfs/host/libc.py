"""libc, bound twice on purpose.

``now`` keeps the interpreter lock during the call, for calls that cannot block (an IPC_NOWAIT, a stat): giving the lock
away and taking it back costs more than the call. ``blocking`` gives it away. A call through the wrong one is either
slow or stops the daemon, so each function says which it is by its name.
"""

import ctypes
import errno
from collections.abc import Callable
from ctypes import c_long
from typing import Any

from synosfs.errors import SynosError
from synosfs.host import guard
from synosfs.host.arch import CALLS

now = ctypes.PyDLL(None, use_errno=True)
blocking = ctypes.CDLL(None, use_errno=True)


def bind(library: ctypes.CDLL, name: str, restype: Any, *argtypes: Any) -> Callable[..., int]:
    """A C function of ``library`` with its types."""
    function = library[name]  # a fresh function object: argument types are not shared between users
    function.restype = restype
    if argtypes:
        function.argtypes = argtypes
    return guard.guarded(function, name) if guard.IS_ON and library is blocking else function


def checked(result: int) -> int:
    """The result of a C call; SynosError with its errno when it is -1."""
    if result == -1:
        raise SynosError(ctypes.get_errno() or errno.EIO)
    return result


class Timespec(ctypes.Structure):
    """``struct timespec``: seconds and nanoseconds."""

    _fields_ = (("sec", c_long), ("nsec", c_long))


_syscall = bind(now, "syscall", c_long)
_syscall_blocking = bind(blocking, "syscall", c_long)


def syscall(name: str, *arguments: Any) -> int:
    """A raw system call that cannot block, by name. Arguments as ctypes, for there is no prototype."""
    return checked(_syscall(c_long(CALLS[name]), *arguments))


def syscall_blocking(name: str, *arguments: Any) -> int:
    """As ``syscall``, for one that may sleep."""
    return checked(_syscall_blocking(c_long(CALLS[name]), *arguments))
