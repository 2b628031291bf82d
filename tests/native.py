"""The host's own calls, by libc: what every other door is measured against.

One module a family (``native_msg``, ...) has a table ``CALLS`` of small functions, a table ``CONSTANTS`` of the words
that its arguments may hold, and ``SLEEPS``: the number of the system call that a blocked call of that name sleeps in.
They are written against the C headers and import nothing of synosfs.
"""

import ctypes
import errno
import os
import re
import time
from typing import Any, NamedTuple

libc = ctypes.CDLL(None, use_errno=True)

_CLOCK_REALTIME_COARSE = 5  # <linux/time.h>; Python has no name for it


def errno_name(number: int) -> str:
    """As C names it; Python has another name for EDEADLK."""
    return "EDEADLK" if number == errno.EDEADLK else errno.errorcode[number]


class Result(NamedTuple):
    """What a call answered, the same through every door: ``errno`` is a name, and empty when the call succeeded."""

    ret: int
    errno: str = ""
    results: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it
    data: bytes | None = None
    message: str = ""


def outcome(result: Result) -> object:
    """The name of its errno, or what it returned."""
    return result.errno or result.ret


def checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def kernel_seconds() -> int:
    """The time that the kernel writes into its objects: by its clock of whole ticks, behind ``time.time()``."""
    return int(time.clock_gettime(_CLOCK_REALTIME_COARSE))


def number(value: int | str, constants: dict[str, int]) -> int:
    """A number, or words joined by ``|``: names of the family, and numbers in C notation."""
    if isinstance(value, int):
        return value
    flags = 0
    for word in value.split("|"):
        if word in constants:
            flags |= constants[word]
        else:
            flags |= int(word, 8 if re.fullmatch("0[0-7]+", word) else 0)
    return flags


def perform(call: str, args: tuple, kwargs: dict) -> Result:
    """Make the call in this thread."""
    calls, constants, _ = _families()
    values = [number(arg, constants) if isinstance(arg, str) else arg for arg in args]
    try:
        answer = calls[call](*values, **kwargs)
    except OSError as error:
        return Result(-1, errno_name(error.errno or 0))
    return answer if isinstance(answer, Result) else Result(answer)


def sleeps_in(call: str) -> int:
    """The number of the system call in which a blocked ``call`` sleeps."""
    return _families()[2][call]


def _families() -> tuple[dict, dict, dict]:
    import native_data
    import native_msg
    import native_path
    import native_pipe
    import native_poll
    import native_posix
    import native_process
    import native_sem
    import native_shm

    families = (
        *(native_msg, native_sem, native_shm, native_pipe, native_poll, native_posix),
        *(native_path, native_process, native_data),
    )
    merged: tuple[dict, dict, dict] = ({}, {}, {})
    for family in families:
        for whole, part in zip(merged, (family.CALLS, family.CONSTANTS, family.SLEEPS), strict=True):
            whole.update(part)
    return merged
