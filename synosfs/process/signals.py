"""Signals from one process to another: kill(2), by the host's rule for who may (``kill_ok_by_cred``).

The rule compares *real* ids too, which in the daemon's threads are always the daemon's: borrowed rights would let every
user signal what is root's. So it is applied here, to ids that the kernel tells, and the signal is sent by a pidfd that
was opened before they were asked for: to that very process, or to none.
"""

import errno
import os
import signal
from collections.abc import Callable
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import credentials, pidfd, rights

#: CAP_KILL.
_KILL = 1 << 5

MOST = 64


class Sender(NamedTuple):
    """Who sends: the process, its real and effective user, its capabilities. ``check`` raises where a confined one may
    reach no other process.
    """

    pid: int
    uids: frozenset[int]
    capabilities: int
    check: Callable[[int], None]


def send(sender: Sender, pid: int, number: int, tid: int = 0) -> None:
    """kill(2) to one process, or tgkill(2) to a thread of it; 0 only asks whether that would be allowed.

    EINVAL: no such signal; ESRCH: no such process; EPERM: it is another user's.
    """
    check_number(number)
    target = open_pidfd(pid)
    try:
        by_pidfd(sender, target, pid, number, tid)
    finally:
        os.close(target)


def open_pidfd(pid: int) -> int:
    """pidfd_open(2)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            message = "the daemon has no host descriptor left; raise its limit (ulimit -n)"
            raise SynosError(errno.ENFILE, message) from None
        raise SynosError(error.errno or errno.ESRCH, f"there is no process {pid}") from None


def by_pidfd(sender: Sender, target: int, pid: int, number: int, tid: int = 0) -> None:
    """pidfd_send_signal(2)."""
    check_number(number)
    try:
        if pid != sender.pid:
            sender.check(pid)
            _check_allowed(sender, pid, number)
        with rights.acting_as_daemon():
            if tid:
                pidfd.signal_thread(pid, tid, number)
            else:
                signal.pidfd_send_signal(target, number)
    except (ProcessLookupError, FileNotFoundError):
        raise SynosError(
            errno.ESRCH, f"there is no process {pid}" if not tid else f"no thread {tid} in {pid}"
        ) from None


def send_to_group(sender: Sender, pgid: int, number: int) -> None:
    """kill(2) to a process group: EPERM when it may signal none of it, ESRCH when there is none. It looks at all
    processes: for a thread.
    """
    check_number(number)
    found = refused = False
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if os.getpgid(pid) != pgid:
                continue
            send(sender, pid, number)
            found = True
        except ProcessLookupError:
            continue
        except SynosError as error:
            refused = refused or error.errno == errno.EPERM
    if not found:
        if refused:
            raise SynosError(errno.EPERM, f"every process of group {pgid} is another user's")
        raise SynosError(errno.ESRCH, f"there is no process group {pgid}")


def check_number(number: int) -> None:
    if not 0 <= number <= MOST:
        raise SynosError(errno.EINVAL, f"there is no signal {number}: they are from 1 to {MOST}, and 0 only asks")


def _check_allowed(sender: Sender, pid: int, number: int) -> None:
    if sender.capabilities & _KILL:
        return
    with rights.acting_as_daemon():
        theirs = credentials.identifiers(pid)
        real, _, saved, _ = theirs.uids
    if sender.uids & {real, saved}:
        return
    if number == signal.SIGCONT and os.getsid(pid) == os.getsid(sender.pid):
        return
    raise SynosError(errno.EPERM, f"process {pid} is user {real}'s")
