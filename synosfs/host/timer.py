"""Timers that are descriptors: timerfd_create(2) and its kin. None of them sleeps."""

import ctypes
from ctypes import c_int, c_void_p
from typing import NamedTuple

from synosfs.host.libc import Timespec, bind, checked, now

_NS = 1_000_000_000


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", Timespec), ("value", Timespec))


class Setting(NamedTuple):
    """``struct itimerspec``, in nanoseconds: when it expires (0: it does not), and then every so often."""

    value_ns: int
    interval_ns: int


_create = bind(now, "timerfd_create", c_int, c_int, c_int)
_settime = bind(now, "timerfd_settime", c_int, c_int, c_int, c_void_p, c_void_p)
_gettime = bind(now, "timerfd_gettime", c_int, c_int, c_void_p)


def create_nowait(clock: int, flags: int) -> int:
    """timerfd_create(2)."""
    return checked(_create(clock, flags))


def set_nowait(fd: int, flags: int, setting: Setting) -> Setting:
    """timerfd_settime(2): what was set before."""
    new, old = _Itimerspec(_timespec(setting.interval_ns), _timespec(setting.value_ns)), _Itimerspec()
    checked(_settime(fd, flags, ctypes.addressof(new), ctypes.addressof(old)))
    return _setting(old)


def get_nowait(fd: int) -> Setting:
    """timerfd_gettime(2): how long until it expires."""
    found = _Itimerspec()
    checked(_gettime(fd, ctypes.addressof(found)))
    return _setting(found)


def _timespec(ns: int) -> Timespec:
    return Timespec(*divmod(ns, _NS))


def _setting(spec: _Itimerspec) -> Setting:
    value, interval = spec.value, spec.interval
    return Setting(value.sec * _NS + value.nsec, interval.sec * _NS + interval.nsec)
