"""The one error type of the project: an errno and a reason in the man page's words.

Everything that can go wrong for a caller is raised as ``SynosError``, never returned. Each boundary has one
converter: ``ipc.host`` turns a failed host call into one, the dispatcher turns one into a reply, and
``fs.operations`` turns one into the errno that the kernel hands to the caller.
"""

import errno as errno_names
import os


class SynosError(OSError):
    """A call failed. ``errno`` is the number, ``message`` a lowercase sentence that names the thing and the way out."""

    errno: int
    message: str

    def __init__(self, errno: int, message: str = "") -> None:
        self.message = message or os.strerror(errno).lower()
        super().__init__(errno, self.message)


def errno_name(errno: int) -> str:
    """The symbolic name of an errno, such as ``ENOMSG``; its number as text when it has none."""
    if errno == errno_names.EDEADLK:  # errorcode knows it by its other name, EDEADLOCK
        return "EDEADLK"
    return errno_names.errorcode.get(errno, str(errno))


class WouldBlock(SynosError):
    """The call cannot be answered now. Its errno is what the native call says when told not to wait."""
