"""Signals: kill(2), tgkill(2), pidfd_open(2), pidfd_send_signal(2)."""

import errno
from functools import partial

from synosfs.errors import SynosError
from synosfs.process import identity, scheduling, signals
from synosfs.process.descriptors import Description
from synosfs.process.signals import Sender
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.sys_pipe import close_host_fd, done
from synosfs.syscall_gate.waiting import OnAvatar


def sys_kill(caller: Caller, pid: int, sig: int) -> int | OnAvatar:
    if pid > 0:
        signals.send(_sender(caller), pid, sig)
        return 0
    if pid == -1:
        raise SynosError(errno.EPERM, "kill -1 would reach every process there is, this daemon too: name those meant")
    pgid = -pid or scheduling.process_group(caller.process.pid)
    return OnAvatar(partial(done, signals.send_to_group, _sender(caller), pgid, sig))


def sys_tgkill(caller: Caller, tgid: int, tid: int, sig: int) -> int:
    if tgid <= 0 or tid <= 0:
        raise SynosError(errno.EINVAL, f"tgkill wants a process and a thread of it, not {tgid} and {tid}")
    signals.send(_sender(caller), tgid, sig, tid)
    return 0


def sys_pidfd_open(caller: Caller, pid: int, flags: int) -> int:
    """A descriptor that poll finds readable once the process has ended."""
    if flags or pid <= 0:
        raise SynosError(errno.EINVAL, f"pidfd_open takes a process and no flags, not {pid} and {flags:#x}")
    description = Description("pidfd", 0, signals.open_pidfd(pid), path=f"pid {pid}", release=close_host_fd, thing=pid)
    return caller.descriptors.add(description, close_on_exec=True)


def sys_pidfd_send_signal(caller: Caller, pidfd: int, sig: int) -> int:
    description = caller.descriptors.get(pidfd, "pidfd")
    signals.by_pidfd(_sender(caller), description.host_fd, description.thing, sig)
    return 0


def _sender(caller: Caller) -> Sender:
    process, rights = caller.process, caller.credentials
    real = identity.identifiers(process.pid).uids[0] if caller.own else rights.uid
    check = partial(caller.confinement.check_ptrace, caller.tid)
    return Sender(process.pid, frozenset((real, rights.uid)), rights.capabilities, check)
