"""Groups, priorities, processors, limits and usage of processes: getpgid(2), setpgid(2), setsid(2), getpriority(2),
sched_setaffinity(2), prlimit(2), times(2), getrusage(2), sysinfo(2).
"""

import errno
from typing import TypeVar

from synosfs.errors import SynosError
from synosfs.process import identity, scheduling
from synosfs.process.forks import Child
from synosfs.process.process import Process
from synosfs.process.talk import Orders
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.sys_fork import heritage, ordered
from synosfs.syscall_gate.waiting import Until


def sys_getpgid(caller: Caller, pid: int) -> int:
    return scheduling.process_group(pid or caller.process.pid)


def sys_getpgrp(caller: Caller) -> int:
    return scheduling.process_group(caller.process.pid)


def sys_getsid(caller: Caller, pid: int) -> int:
    return scheduling.session(pid or caller.process.pid)


def sys_setpgid(caller: Caller, pid: int, pgid: int) -> Until:
    """For a child that waits, by itself or by its parent. A program joins groups itself."""
    if pgid < 0:
        raise SynosError(errno.EINVAL, f"a process group is not {pgid}")
    process = caller.process
    child = process.child if pid in (0, process.pid) else process.children.get(pid)
    if child is None and pid not in (0, process.pid):
        raise SynosError(errno.ESRCH, f"process {pid} is neither the caller nor a child of its that fork made")
    if child is not None and not child.waits and child is not process.child:
        raise SynosError(errno.EACCES, f"process {pid} runs a program already")
    return _order(process, child, b"setpgid", pgid)


def sys_setsid(caller: Caller) -> Until:
    return _order(caller.process, caller.process.child, b"setsid")


def _order(process: Process, child: Child | None, word: bytes, *values: int) -> Until:
    if child is None or not child.waits:
        message = f"{word.decode()} is for children of fork that wait; process {process.pid} runs a program"
        raise SynosError(errno.EPERM, message)
    return ordered(child, word, *values, answer=child.pid if word == b"setsid" else 0)


def sys_getpriority(caller: Caller, which: int, who: int) -> int:
    return scheduling.priority(which, _who(caller, which, who))


def sys_setpriority(caller: Caller, which: int, who: int, prio: int) -> int:
    scheduling.set_priority(which, _who(caller, which, who), prio)
    return 0


def sys_nice(caller: Caller, inc: int) -> int:
    """The new nice value, as nice(3) answers it."""
    nice = scheduling.priority(scheduling.PRIO_PROCESS, caller.tid)
    scheduling.set_priority(scheduling.PRIO_PROCESS, caller.tid, max(-20, min(nice + inc, 19)))
    return scheduling.priority(scheduling.PRIO_PROCESS, caller.tid)


def _who(caller: Caller, which: int, who: int) -> int:
    """0 is the caller: its thread, its group, its real user."""
    if who:
        return who
    if which == scheduling.PRIO_PGRP:
        return scheduling.process_group(caller.process.pid)
    return identity.identifiers(caller.process.pid).uids[0] if which == scheduling.PRIO_USER else caller.tid


def sys_sched_getaffinity(caller: Caller, pid: int) -> Reply:
    processors = scheduling.processors(pid or caller.tid)
    return Reply(0, {"cpus": processors})


def sys_sched_setaffinity(caller: Caller, pid: int, cpus: list[int]) -> int:
    scheduling.set_processors(pid or caller.tid, cpus)
    return 0


def sys_getrlimit(caller: Caller, resource: int) -> Reply:
    soft, hard = scheduling.limit(caller.process, resource)
    return Reply(0, {"soft": soft, "hard": hard})


def sys_setrlimit(caller: Caller, resource: int, soft: int, hard: int) -> int | Until:
    return _set_limit(caller, caller.process, resource, (soft, hard), 0)


def sys_prlimit64(caller: Caller, pid: int, resource: int, soft: int | None, hard: int | None) -> Reply | Until:
    """The limit as it was; with ``soft`` and ``hard``, then set. Of the caller, or of a child of its."""
    process = caller.process
    if pid not in (0, process.pid):
        process = process.known_child(pid)
    old_soft, old_hard = scheduling.limit(process, resource)
    answer = Reply(0, {"soft": old_soft, "hard": old_hard})
    if soft is None and hard is None:
        return answer
    new = old_soft if soft is None else soft, old_hard if hard is None else hard
    return _set_limit(caller, process, resource, new, answer)


T = TypeVar("T", int, Reply)


def _set_limit(caller: Caller, process: Process, resource: int, limits: tuple[int, int], answer: T) -> T | Until:
    scheduling.check_limit(process, resource, *limits, caller.credentials.capabilities)
    if process.child is not None and process.keeps_back(resource):
        process.child.files = limits
        return answer

    async def set_it() -> T:
        child = caller.process.forks.child(caller.process)
        try:
            orders: Orders = [([b"prlimit", process.pid, resource, *limits], [])]
            talk = await child.be_born(heritage(caller), orders)
            if talk.is_over:
                raise SynosError(errno.EAGAIN, f"what was to set the limit of process {process.pid} has been ended")
        finally:
            child.let_go()
        return answer

    return Until(set_it, prompt=True)


def sys_times(caller: Caller) -> Reply:
    """Clock ticks (sysconf(_SC_CLK_TCK) a second); what is returned are those since the boot."""
    utime, stime, cutime, cstime, *_ = scheduling.times(caller.process.pid)
    return Reply(scheduling.uptime_ticks(), {"utime": utime, "stime": stime, "cutime": cutime, "cstime": cstime})


def sys_getrusage(caller: Caller, who: int) -> Reply:
    """Times to the clock tick: the host tells others no more."""
    times = scheduling.times(caller.process.pid)
    match who:
        case 0:
            user, system, minflt, majflt = times.utime, times.stime, times.minflt, times.majflt
        case -1:
            user, system, minflt, majflt = times.cutime, times.cstime, times.cminflt, times.cmajflt
        case _:
            raise SynosError(errno.EINVAL, "getrusage tells of RUSAGE_SELF and RUSAGE_CHILDREN")
    to_us = scheduling.ticks_to_us
    return Reply(0, {"utime_us": to_us(user), "stime_us": to_us(system), "minflt": minflt, "majflt": majflt})


def sys_sysinfo(caller: Caller) -> Reply:
    return Reply(0, {**identity.system_information()})
