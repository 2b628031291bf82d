"""Counters to wait for: eventfd(2), eventfd_read(3), and timers, timerfd_create(2) and its kin."""

import errno
from collections.abc import Callable
from typing import Any

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import counter
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, type_of
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.sys_file import sys_read, sys_write
from synosfs.syscall_gate.sys_pipe import close_host_fd
from synosfs.syscall_gate.waiting import OnAvatar

_TIMER_FLAGS = abi.O_NONBLOCK | abi.O_CLOEXEC


def sys_eventfd2(caller: Caller, initval: int, flags: int) -> int:
    return _counter(caller, "eventfd", counter.create_event(initval, flags), flags)


def sys_eventfd_read(caller: Caller, fd: int) -> Answer:
    caller.descriptors.get(fd, "eventfd")
    return _then(sys_read(caller, fd, counter.SIZE), lambda read: Reply(0, read.results))


def sys_eventfd_write(caller: Caller, fd: int, value: int) -> Answer:
    caller.descriptors.get(fd, "eventfd")
    return _then(sys_write(caller, fd, counter.packed(value)), lambda _: 0)


def _then(answer: Answer, finish: Callable[[Any], Any]) -> Answer:
    """These two answer 0, and not a count of bytes."""
    if isinstance(answer, OnAvatar):
        return OnAvatar(answer.call, answer.give_back, answer.description, finish)
    result: Answer = finish(answer)
    return result


def sys_timerfd_create(caller: Caller, clockid: int, flags: int) -> int:
    if flags & ~_TIMER_FLAGS:
        raise SynosError(errno.EINVAL, f"timerfd_create takes TFD_NONBLOCK and TFD_CLOEXEC, not {flags:#o}")
    return _counter(caller, "timerfd", counter.create_timer(clockid, flags), flags)


def sys_timerfd_settime(
    caller: Caller, fd: int, flags: int, value: tuple[int | None, int | None], interval: int | None
) -> Answer:
    """``value`` is when it expires, or the whole of C's struct itimerspec."""
    description = caller.descriptors.get(fd)
    value_ns, interval_ns = value[0] or 0, value[1] or interval or 0

    def set_timer(host_fd: int) -> Reply:
        return Reply(0, counter.set_timer(host_fd, flags, value_ns, interval_ns)._asdict())

    return type_of(description).host_call(caller, description, set_timer)


def sys_timerfd_gettime(caller: Caller, fd: int) -> Answer:
    description = caller.descriptors.get(fd)
    return type_of(description).host_call(
        caller, description, lambda host_fd: Reply(0, counter.timer_setting(host_fd)._asdict())
    )


def _counter(caller: Caller, file_type: str, host_fd: int, flags: int) -> int:
    description = Description(
        file_type, abi.O_RDWR | flags & abi.O_NONBLOCK, host_fd, path=f"anon_inode:[{file_type}]", release=close_host_fd
    )
    return caller.descriptors.add(description, close_on_exec=bool(flags & abi.O_CLOEXEC))
