"""The rights that a thread acts with: the daemon's own, or for a while a caller's.

Raw system calls, which change the calling thread alone; libc's wrappers change all threads of a process (``nptl(7)``).
Only the *effective* ids change: the real and saved ones stay the daemon's, so that it can come back, and so that a user
can neither signal nor trace a thread that acts for them (``kill(2)``, ``ptrace(2)``).
"""

import errno
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int, c_long, c_uint

from synosfs.errors import SynosError
from synosfs.host import credentials
from synosfs.host.abi import CLONE_FS, CLONE_SYSVSEM
from synosfs.host.credentials import Credentials
from synosfs.host.libc import syscall

_CAPABILITY_VERSION_3 = 0x20080522
OWN = credentials.of_daemon()
"""The daemon's credentials. A caller whose credentials equal them is served without changing anything."""


def _set_effective_capabilities(effective: int) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, OWN.capabilities >> 32
    permitted_low = OWN.capabilities & low
    data = struct.pack("=6I", effective & low, permitted_low, 0, effective >> 32, high, 0)
    syscall("capset", header, data)


def _set_groups(groups: tuple[int, ...]) -> None:
    syscall("setgroups", c_long(len(groups)), (c_uint * len(groups))(*groups))


class _Lent(threading.local):
    """Whose rights the thread acts with; None: the daemon's own."""

    to: Credentials | None = None


_lent = _Lent()


@contextmanager
def acting_as(caller: Credentials) -> Iterator[None]:
    """The body runs with ``caller``'s rights, and the daemon's own are back when it ends: the only way to borrow any.

    Loans do not nest: the end of the inner one would give the rest of the outer body the daemon's rights. In the main
    thread the body must not wait: the thread serves others too. EPERM when the daemon lacks the privilege: an ordinary
    user's daemon serves that user alone.
    """
    assert _lent.to is None, f"uid {_lent.to.uid}'s rights are lent already"
    if caller == OWN:
        yield
        return
    _assume(caller)
    try:
        yield
    finally:
        _resume()


@contextmanager
def acting_as_daemon() -> Iterator[None]:
    """Within ``acting_as``, or without it: the body runs with the daemon's own rights."""
    caller = _lent.to
    if caller is None:
        yield
        return
    _resume()
    try:
        yield
    finally:
        _assume(caller)


def _assume(caller: Credentials) -> None:
    try:
        if caller.groups != OWN.groups:
            _set_groups(caller.groups)
        if caller.gid != OWN.gid:
            syscall("setresgid", c_int(-1), c_uint(caller.gid), c_int(-1))
        if caller.uid != OWN.uid:
            # Leaving uid 0 clears the effective capabilities and keeps the permitted ones for the way back.
            syscall("setresuid", c_int(-1), c_uint(caller.uid), c_int(-1))
        elif caller.capabilities & OWN.capabilities != OWN.capabilities:
            _set_effective_capabilities(caller.capabilities & OWN.capabilities)
    except SynosError as error:
        _resume()
        raise SynosError(
            errno.EPERM,
            f"the mount runs as uid {OWN.uid} and cannot act for uid {caller.uid} gid {caller.gid}; "
            "mount it as root with -o allow_other to serve other users",
        ) from error
    _lent.to = caller


def _resume() -> None:
    """Cannot fail after a successful ``_assume``."""
    try:
        if OWN.uid == 0:
            syscall("setresuid", c_int(-1), c_uint(OWN.uid), c_int(-1))
            _set_effective_capabilities(OWN.capabilities)
            syscall("setresgid", c_int(-1), c_uint(OWN.gid), c_int(-1))
            _set_groups(OWN.groups)
    except SynosError as error:
        # Going on with somebody else's rights would be worse than ending.
        os.write(2, f"synosfs: cannot take back the daemon's own credentials: {error}\n".encode())
        os._exit(70)
    _lent.to = None


def unshare_undo_and_umask() -> None:
    """Give the calling thread a SEM_UNDO list (CLONE_SYSVSEM) and a umask (CLONE_FS) of its own; threads it starts
    share them.
    """
    syscall("unshare", c_long(CLONE_SYSVSEM | CLONE_FS))
