"""What the host keeps of a process and lets others ask and change: groups, priorities, processors, limits, usage.

Nothing here sleeps. The caller's rights are borrowed, and the host judges. Limits are told here and set by a child that
lives for no longer (``sys_schedule``): the host looks at the *real* ids of who sets them, which are the daemon's in all
of its threads.
"""

import errno
import os
from functools import partial
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import procfs
from synosfs.host.asking import ask
from synosfs.host.errors import explaining
from synosfs.host.limits import Limits
from synosfs.process.process import Process

PRIO_PROCESS, PRIO_PGRP, PRIO_USER = os.PRIO_PROCESS, os.PRIO_PGRP, os.PRIO_USER

#: CAP_SYS_RESOURCE.
_SYS_RESOURCE = 1 << 24

#: RLIM_NLIMITS.
_LIMITS = 16

_TICKS = os.sysconf("SC_CLK_TCK")


def process_group(pid: int) -> int:
    """getpgid(2). ESRCH: there is no such process."""
    with explaining(_REASONS, pid=pid):
        return os.getpgid(pid)


def process_group_if_there(pid: int) -> int:
    """As ``process_group``; -1 when there is no such process any more."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def session(pid: int) -> int:
    """getsid(2)."""
    with explaining(_REASONS, pid=pid):
        return os.getsid(pid)


def priority(which: int, who: int) -> int:
    """getpriority(2): the lowest nice value of the processes meant."""
    with explaining(_REASONS, pid=who):
        return os.getpriority(which, who)


def set_priority(which: int, who: int, nice: int) -> None:
    """setpriority(2). EACCES: only who has CAP_SYS_NICE may make it lower. EPERM: it is another user's."""
    with explaining(_REASONS, pid=who):
        os.setpriority(which, who, nice)


def processors(pid: int) -> list[int]:
    """sched_getaffinity(2): the processors that the process may run on."""
    with explaining(_REASONS, pid=pid):
        return sorted(os.sched_getaffinity(pid))


def set_processors(pid: int, numbers: list[int]) -> None:
    """sched_setaffinity(2)."""
    try:
        with explaining(_REASONS, pid=pid):
            os.sched_setaffinity(pid, numbers)
    except (ValueError, OverflowError):
        raise SynosError(errno.EINVAL, "a processor is a number from 0, as /proc/cpuinfo counts them") from None


def limit(process: Process, number: int) -> Limits:
    """The soft and hard limit of a process, as ``Process.limits`` has them. EINVAL: there is none of this number."""
    if not 0 <= number < _LIMITS:
        raise SynosError(errno.EINVAL, f"there is no resource limit {number}")
    return process.limits(number)


def check_limit(process: Process, number: int, soft: int, hard: int, capabilities: int) -> None:
    """That setrlimit(2) lets the process: EPERM for more than the hard limit, but with CAP_SYS_RESOURCE; EINVAL: the
    soft limit is above the hard one.
    """
    _, most = limit(process, number)
    if _is_more(soft, hard):
        raise SynosError(errno.EINVAL, f"the soft limit {soft} is above the hard limit {hard}")
    if _is_more(hard, most) and not capabilities & _SYS_RESOURCE:
        raise SynosError(errno.EPERM, f"the hard limit is {most}; more than that takes CAP_SYS_RESOURCE")


def _is_more(one: int, other: int) -> bool:
    return other >= 0 and not 0 <= one <= other


class Times(NamedTuple):
    """Clock ticks that a process and its reaped children have run, in user mode and in the kernel (times(2))."""

    utime: int
    stime: int
    cutime: int
    cstime: int
    minflt: int
    majflt: int
    cminflt: int
    cmajflt: int


def times(pid: int) -> Times:
    """As /proc/<pid>/stat has them. ESRCH."""
    try:
        fields = ask(pid, partial(procfs.text, pid, "stat")).rpartition(b") ")[2].split()
    except ProcessLookupError:
        raise SynosError(errno.ESRCH, f"process {pid} has ended") from None
    minflt, cminflt, majflt, cmajflt, utime, stime, cutime, cstime = map(int, fields[7:15])
    return Times(utime, stime, cutime, cstime, minflt, majflt, cminflt, cmajflt)


def ticks_to_us(ticks: int) -> int:
    return ticks * 1_000_000 // _TICKS


def uptime_ticks() -> int:
    """What times(2) returns: ticks since some moment, here the boot."""
    with open("/proc/uptime", "rb") as file:
        return int(float(file.read().split()[0]) * _TICKS)


_REASONS = {
    errno.ESRCH: "there is no process {pid}",
    errno.EPERM: "process {pid} is another user's",
    errno.EACCES: "a lower nice value takes CAP_SYS_NICE, or a higher RLIMIT_NICE",
    errno.EINVAL: "the value does not fit this call",
}
