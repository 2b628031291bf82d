"""From the host's refusal to ours: the one converter of this room.

A host call fails with an errno; what it means for this call stands in a table of *reasons* beside the family, one
sentence an errno in the man page's words, with ``{names}`` for the facts of the case. ``explaining`` is the boundary
around a call, ``explained`` the same for a hot path that has a ``try`` of its own anyway.
"""

import errno
import os
from collections.abc import Mapping
from types import TracebackType

from synosfs.errors import SynosError

Reasons = Mapping[int, str]


def explained(error: OSError, reasons: Reasons, **facts: object) -> SynosError:
    """The error of a host call with the reason that the table has for it, and never errno 0.

    A SynosError for which the table has nothing keeps its own sentence; another one gets strerror(3)'s.
    """
    number = error.errno or errno.EIO
    reason = reasons.get(number)
    if reason is not None:
        return SynosError(number, reason.format(**facts))
    if isinstance(error, SynosError):
        return error
    return SynosError(number, os.strerror(number).lower())


class explaining:  # noqa: N801 - used as a statement, as contextlib's suppress is
    """``with explaining(_SEND, msqid=3):`` an OSError in the body leaves it ``explained``."""

    __slots__ = ("_facts", "_reasons")

    def __init__(self, reasons: Reasons, **facts: object) -> None:
        self._reasons = reasons
        self._facts = facts

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise explained(error, self._reasons, **self._facts) from None
