"""Descriptors that count: eventfd(2), and timers (timerfd_create(2)), which count how often they have expired.

The host's O_NONBLOCK is what the user asked for: a program that is given the descriptor shares it. So a call that must
not wait is made by who has the open file for itself (``at_once``); any other belongs in a thread, where it waits in the
host and in the host's order.
"""

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from synosfs.host import timer
from synosfs.host.errors import explaining
from synosfs.host.timer import Setting
from synosfs.ipc import pipe

T = TypeVar("T")

#: What a read gives and a write takes: a number of 64 bits, in the host's byte order.
SIZE = 8

_CREATE = {
    errno.EINVAL: "a flag, or the clock, is not for this call",
    errno.EPERM: "a timer of a clock that wakes the machine takes CAP_WAKE_ALARM",
}
_TIMER = {
    errno.EINVAL: "the descriptor is not of a timer, a time is negative, or a flag is not TFD_TIMER_ABSTIME or "
    "TFD_TIMER_CANCEL_ON_SET",
    errno.ECANCELED: "the clock was set",
}


def create_event(initial: int, flags: int) -> int:
    """eventfd(2)."""
    with explaining(_CREATE):
        return os.eventfd(initial, flags | os.EFD_CLOEXEC)


def create_timer(clock: int, flags: int) -> int:
    """timerfd_create(2)."""
    with explaining(_CREATE):
        return timer.create_nowait(clock, flags | os.O_CLOEXEC)


def set_timer(host_fd: int, flags: int, value_ns: int, interval_ns: int) -> Setting:
    """timerfd_settime(2): what was set before."""
    with explaining(_TIMER):
        return timer.set_nowait(host_fd, flags, Setting(value_ns, interval_ns))


def timer_setting(host_fd: int) -> Setting:
    """timerfd_gettime(2)."""
    with explaining(_TIMER):
        return timer.get_nowait(host_fd)


def at_once(host_fd: int, call: Callable[[int], T]) -> T:
    """Make a call that must not wait: the open file is O_NONBLOCK for its length. Nobody else may use it meanwhile."""
    if not os.get_blocking(host_fd):
        return call(host_fd)
    os.set_blocking(host_fd, False)
    try:
        return call(host_fd)
    finally:
        os.set_blocking(host_fd, True)


def packed(value: int) -> bytes:
    """A count as it is written."""
    return value.to_bytes(SIZE, "little")


def unpacked(data: bytes) -> int:
    """A count that was read."""
    return int.from_bytes(data, "little")


def put_back_blocking(host_fd: int, data: bytes) -> None:
    """Write back what was read for somebody who is gone."""
    pipe.write_blocking(host_fd, data)
