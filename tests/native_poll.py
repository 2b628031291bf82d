"""poll(2) by libc."""

import ctypes
from ctypes import c_int, c_short, c_ulong, c_void_p

from native import Result, checked, libc, number

CONSTANTS = {"POLLIN": 1, "POLLPRI": 2, "POLLOUT": 4, "POLLRDNORM": 0x40, "POLLWRNORM": 0x100}
SLEEPS = {"poll": 7}


class PollFd(ctypes.Structure):
    _fields_ = (("fd", c_int), ("events", c_short), ("revents", c_short))


libc.poll.argtypes = (c_void_p, c_ulong, c_int)


def poll(*things: tuple[int, str], timeout: float | None = None) -> Result:
    array = (PollFd * len(things))(*((fd, number(events, CONSTANTS), 0) for fd, events in things))
    ret = checked(libc.poll(array, len(things), -1 if timeout is None else int(timeout * 1000)))
    return Result(ret, "", {"revents": [each.revents for each in array]})


CALLS = {"poll": poll}
