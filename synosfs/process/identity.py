"""What a process may ask about itself, its clocks and its machine, as the host has it now.

The daemon makes the call, so what the host says of *the caller* is asked about the process or thread by its id.
ESRCH: it has ended.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from synosfs.errors import SynosError
from synosfs.host import credentials, procfs, rights, sysinfo
from synosfs.host.abi import CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID
from synosfs.host.asking import ask
from synosfs.host.credentials import Credentials, Identifiers


def identifiers(pid: int) -> Identifiers:
    """All its user and group ids, and its parent."""
    with _alive(f"process {pid}"):
        return credentials.identifiers(pid)


def has_gained(pid: int, capabilities: int) -> bool:
    """Whether a process is permitted more than these: it has executed a program with capabilities of its own. Any
    thread may ask, whatever rights it acts with.
    """
    with _alive(f"process {pid}"), rights.acting_as_daemon():
        return bool(credentials.permitted(pid) & ~capabilities)


def may_be_traced(pid: int, by: Credentials) -> bool:
    """The host's word whether who has these rights may look into a process. ESRCH."""
    try:
        with _alive(f"process {pid}"):
            ask_to_trace(pid, by)
    except PermissionError:
        return False
    return True


def ask_to_trace(pid: int, by: Credentials) -> None:
    """As ``may_be_traced``: PermissionError; ProcessLookupError; EAGAIN: the process keeps the host from saying."""

    def question() -> None:
        with rights.acting_as(by):
            procfs.ask_to_trace_blocking(pid)

    ask(pid, question)


def umask(tid: int) -> int:
    """The file mode creation mask of a thread."""
    with _alive(f"thread {tid}"):
        return procfs.umask(tid)


def real_rights(tid: int, lent: Credentials, *, own: bool) -> Credentials:
    """The rights by a thread's real ids, as access(2) wants them; ``own``: the process itself asks."""
    with _alive(f"thread {tid}"), rights.acting_as_daemon():
        return credentials.real_of_thread(tid, lent, own=own)


def clock_ns(clockid: int, pid: int, tid: int) -> int:
    """clock_gettime(2) as the thread ``tid`` of process ``pid`` would be told. EINVAL: the host has no such clock."""
    try:
        if clockid == CLOCK_THREAD_CPUTIME_ID:  # the host tells a thread's to its own process alone, but for /proc
            return procfs.running_ns(tid)
        if clockid == CLOCK_PROCESS_CPUTIME_ID:
            return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)
        if clockid >= 0:  # the others are clocks of processes and of descriptors: the daemon's
            return time.clock_gettime_ns(clockid)
    except (OSError, ProcessLookupError):
        pass
    raise SynosError(errno.EINVAL, f"this host has no clock {clockid} for the caller")


#: The clock of a process's time on the CPU, in the id that is made of its pid (clock_getcpuclockid(3)).
_CPUCLOCK_SCHED = 2


def system_names() -> dict[str, str]:
    """uname(2)."""
    names = os.uname()
    return {field: getattr(names, field) for field in ("sysname", "nodename", "release", "version", "machine")}


def system_information() -> dict[str, int]:
    """sysinfo(2) without its loads: memory in units of ``mem_unit`` bytes, uptime in seconds."""
    return sysinfo.sysinfo()


@contextmanager
def _alive(who: str) -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        raise SynosError(errno.ESRCH, f"{who} has ended") from None
