"""The errno boundary: what an operation raises becomes what the kernel is told, and a reason for who asks.

The kernel hands the caller a number. Why it was so is kept as its last reply, if it wanted to change something: it
asked for a change by name, or has the file open for writing. Who only looks leaves nothing, though it find nothing.
"""

import errno
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from pyfuse3 import FUSEError

from synosfs.errors import SynosError
from synosfs.fs.inodes import Inodes
from synosfs.fs.node import Who, writes
from synosfs.fs.receive import Receiver
from synosfs.kernel import Kernel

log = logging.getLogger(__name__)


class Door(Protocol):
    """Whose methods are operations."""

    kernel: Kernel
    receiver: Receiver
    inodes: Inodes


Guarded = Callable[..., Coroutine[Any, Any, Any]]


def looks(operation: Callable[..., Any]) -> Guarded:
    """The errno boundary, and the count by which the receiver tells requests from interrupts."""
    return _guarded(operation)


def looks_by_name(operation: Callable[..., Any]) -> Guarded:
    """An operation on what a name led to. The kernel keeps many names, so the thing may be gone by now: upon ESTALE it
    looks the name up again, and the caller is told ENOENT (``retry_estale`` in <linux/namei.h>). So no name is stale.
    """
    return _guarded(operation, by_name=True)


def changes(operation: Callable[..., Any]) -> Guarded:
    """As ``looks``; the last argument, who asks, is left the reason."""
    return _guarded(operation, changing=True)


def changes_by_name(operation: Callable[..., Any]) -> Guarded:
    """As ``looks_by_name``, and the reason is left."""
    return _guarded(operation, by_name=True, changing=True)


def opens(operation: Callable[..., Any]) -> Guarded:
    """As ``looks_by_name``; the reason is left if the last arguments, flags and who asks, are for writing."""
    return _guarded(operation, by_name=True, opening=True)


def _guarded(
    operation: Callable[..., Any], *, by_name: bool = False, changing: bool = False, opening: bool = False
) -> Guarded:
    """``operation`` inside the boundary. pyfuse3 gives no argument by name, and packing none saves time."""
    waits = inspect.iscoroutinefunction(operation)

    @functools.wraps(operation)
    async def guarded(self: Door, inode: int, *args: Any) -> Any:
        self.receiver.handled += 1
        try:
            return await operation(self, inode, *args) if waits else operation(self, inode, *args)
        except Exception as error:
            told = told_of(operation.__name__, error)
            if by_name and told.errno == errno.ENOENT and self.inodes[inode].is_kept:
                raise FUSEError(errno.ESTALE) from None
            if changing or (opening and writes(args[-2])):
                leave_reason(self.kernel, args[-1], error)
            raise told from None

    return guarded


def told_of(operation: str, error: Exception) -> FUSEError:
    """What the kernel is told of an error; what is not the caller's doing is logged."""
    if isinstance(error, SynosError):
        return FUSEError(error.errno)
    if isinstance(error, OSError):  # the daemon's own want: descriptors, memory, rights
        log.warning("%s: %s", operation, error)
        return FUSEError(error.errno or errno.EIO)
    log.error("%s failed", operation, exc_info=error)  # a bug of ours must cost one request, not the mount
    return FUSEError(errno.EIO)


def leave_reason(kernel: Kernel, who: Who, error: Exception, *, of_program: bool = False) -> None:
    """Keep why it failed for who asked, and for its parent: a shell is to see why its ``rm`` failed. ``of_program``:
    not for the parent of a mere copy, such as a subshell that tries something again and again.
    """
    if isinstance(error, SynosError) and error.errno != errno.ESTALE:  # that one is for the kernel, which asks again
        kernel.refused(who.pid, who.uid, who.gid, error, of_program=of_program)
