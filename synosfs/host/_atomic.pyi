"""What ``_atomic.c`` has. An address is that of a mapped semaphore; an answer below 0 is one of the three."""

from typing import Final

#: The memory is not there any more: its file was cut off.
GONE: Final[int]
#: Others write to it without a pause.
BUSY: Final[int]
#: The value is SEM_VALUE_MAX.
FULL: Final[int]

def catch_bus_errors() -> None:
    """Call once, before the first step."""

def try_take(address: int, /) -> int:
    """1: one was taken; 0: the value is 0."""

def post(address: int, /) -> int:
    """Add one; how many wait for it."""

def value(address: int, /) -> int:
    """The value."""

def add_waiters(address: int, n: int, /) -> int:
    """Count ``n`` more who wait, fewer if it is negative."""
