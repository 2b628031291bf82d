"""Request and Reply: what passes between a notation and the dispatcher.

Both are plain data. A notation (``text``, ``codecs``) makes a ``Request`` out of bytes and bytes out of a ``Reply``;
it knows nothing of calls. Which arguments a call takes, and what kind each is, is the table's knowledge.
"""

from errno import EMSGSIZE
from typing import Any

import msgspec

from synosfs.errors import SynosError

#: The most data one record may carry, either way, in bytes (EMSGSIZE above it).
MAX_DATA = 1 << 20

#: The most bytes an encoded record may take: 1 MiB of data in the widest escape (``\\xHH``), and room for the rest.
MAX_RECORD = 4 * MAX_DATA + (64 << 10)


def too_large() -> SynosError:
    return SynosError(EMSGSIZE, "a record may hold 1 MiB of data, and this one is larger")


class Bare(bytes):
    """A word of a text request that stood without quotes: it may be a number, a name, ``name=value``, or data."""

    __slots__ = ()


class Request(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One system call as asked for.

    ``call`` is the name or the x86-64 number. ``args`` holds what the notation could express: int, float, str, bytes,
    lists of these; a text word without quotes is a ``Bare``, one in quotes is ``bytes``. ``data`` is str, bytes or None
    (msgspec decodes no such union, so ``codecs`` checks it), and ``data64`` is None once ``codecs`` has moved it there.
    """

    call: str | int
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    timeout: float | None = None
    id: int | float | str | None = None
    data: Any = None
    data64: str | None = None


class Reply(msgspec.Struct, gc=False):
    """What a call answered: ``ret``, named results in order, data; or ``ret`` -1 with ``errno`` and ``message``.

    A result is an int, a str, or a list of ints or of strs. ``data`` is None for a call that carries none.
    """

    ret: int
    results: dict[str, Any] = {}
    data: bytes | None = None
    errno: int = 0
    message: str = ""


class Octal(int):
    """A number that people write in octal: a mode. In text it prints so; JSON and MessagePack carry the number."""

    def __str__(self) -> str:
        return f"0{int(self):o}" if self else "0"


class Hexadecimal(int):
    """A number that people write in hexadecimal: a key, an address."""

    def __str__(self) -> str:
        return f"{int(self):#x}"
