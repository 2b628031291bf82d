"""The one error type of the project: an errno and a reason in the man page's words.

Everything that can go wrong for a caller is raised as ``SynosError``, never returned. Each boundary has one
converter: ``host.errors`` turns a failed host call into one, the dispatcher turns one into a reply, and
``fs.operations`` turns one into the errno that the kernel hands to the caller.

What a user wrote is repeated in messages, tables and the log by ``excerpt`` and ``shown`` alone: on one line, and
without a byte that a terminal would act upon.
"""

import errno as errno_names
import itertools
import os
from typing import Any


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


def alone(error: "SynosError") -> "SynosError":
    """An error that is kept: without the frames that it came through, which hold all that they worked on. That would be
    a circle, which lives until the collector comes by, and then goes in one long step.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def printable(text: str) -> str:
    """``text`` in one line that a terminal shows as it stands."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def excerpt(value: Any, most: int = 60) -> str:
    """The beginning of a user's value, printable: ``most`` bytes or characters of it, and ``...`` for the rest."""
    if isinstance(value, bytes):
        return printable(value[:most].decode("utf-8", "backslashreplace")) + "..." * (len(value) > most)
    try:
        text = str(_beginning(value, most))
    except (ValueError, RecursionError):  # thousands of digits; hundreds of lists in one another
        return f"what is too long or nests too deeply ({type(value).__name__})"
    return printable(text[:most]) + "..." * (len(text) > most)


def _beginning(value: Any, most: int) -> Any:
    """So much of lists in lists that its text is long enough: there can be tens of thousands."""
    if most and type(value) is list:
        return [_beginning(each, most // 2) for each in value[:most]]
    if most and type(value) is dict:
        return {name: _beginning(each, most // 2) for name, each in itertools.islice(value.items(), most)}
    return value


def shown(value: Any) -> str:
    """A user's value inside a message, in quotes."""
    return f"'{excerpt(value, 40)}'"
