"""Processes by libc and Python's os: <unistd.h>, <sys/wait.h>, <signal.h>, <sys/resource.h>, <sched.h>, <spawn.h>."""

import os
import resource
import signal

from native import Result

CONSTANTS = {
    **{member.name: member.value for member in signal.Signals},
    "WNOHANG": os.WNOHANG,
    "WUNTRACED": os.WUNTRACED,
    "WSTOPPED": os.WSTOPPED,
    "WCONTINUED": 8,
    "WEXITED": os.WEXITED,
    "WNOWAIT": os.WNOWAIT,
    "P_ALL": os.P_ALL,
    "P_PID": os.P_PID,
    "P_PGID": os.P_PGID,
    "P_PIDFD": os.P_PIDFD,
    "PRIO_PROCESS": os.PRIO_PROCESS,
    "PRIO_PGRP": os.PRIO_PGRP,
    "PRIO_USER": os.PRIO_USER,
    "RUSAGE_SELF": resource.RUSAGE_SELF,
    "RUSAGE_CHILDREN": resource.RUSAGE_CHILDREN,
    "unlimited": -1,
    **{name: number for name, number in vars(resource).items() if name.startswith("RLIMIT_")},
}
SLEEPS = {"wait4": 61, "waitid": 247}

_CODES = {1: "exited", 2: "killed", 3: "dumped", 5: "stopped", 6: "continued"}


def spawn(path: bytes, *argv: bytes, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr)) if fd != number]
    return os.posix_spawn(path, argv or (path,), os.environ, file_actions=actions)


def wait4(pid: int = -1, options: int = 0) -> Result:
    pid, status, usage = os.wait4(pid, options)
    if not pid:
        return Result(0)
    if os.WIFEXITED(status):
        what = f"exited:{os.WEXITSTATUS(status)}"
    elif os.WIFSTOPPED(status):
        what = f"stopped:{os.WSTOPSIG(status)}"
    elif os.WIFCONTINUED(status):
        what = f"continued:{signal.SIGCONT.value}"
    else:
        what = f"{'dumped' if os.WCOREDUMP(status) else 'killed'}:{os.WTERMSIG(status)}"
    return Result(pid, "", {"status": what, "maxrss": usage.ru_maxrss})


def waitid(idtype: int, id: int, options: int) -> Result:
    found = os.waitid(idtype, id, options)
    if found is None:
        return Result(0, "", {"pid": 0})
    return Result(0, "", {"pid": found.si_pid, "code": _CODES[found.si_code], "status": found.si_status})


def kill(pid: int, sig: int) -> int:
    os.kill(pid, sig)
    return 0


def pidfd_send_signal(pidfd: int, sig: int) -> int:
    signal.pidfd_send_signal(pidfd, sig)
    return 0


def setpriority(which: int, who: int, prio: int) -> int:
    os.setpriority(which, who, prio)
    return 0


def getrlimit(which: int) -> Result:
    soft, hard = _told(0, which)
    return Result(0, "", {"soft": soft, "hard": hard})


def setrlimit(which: int, soft: int, hard: int) -> int:
    _setting(which, (soft, hard))
    return 0


def prlimit64(pid: int, which: int, soft: int | None = None, hard: int | None = None) -> Result:
    old = _told(pid, which)
    if soft is not None and hard is not None:
        _setting(which, (soft, hard))
    return Result(0, "", {"soft": old[0], "hard": old[1]})


def _told(pid: int, which: int) -> tuple[int, int]:
    try:
        return resource.prlimit(pid, which)
    except ValueError as error:  # what Python makes of EINVAL
        raise OSError(22, str(error)) from None


def _setting(which: int, limits: tuple[int, int]) -> None:
    try:
        resource.setrlimit(which, limits)
    except ValueError as error:  # what Python makes of EINVAL and EPERM
        raise OSError(1 if "not allowed" in str(error) else 22, str(error)) from None


def sched_setaffinity(pid: int, cpus: list[int]) -> int:
    os.sched_setaffinity(pid, cpus)
    return 0


def sched_getaffinity(pid: int = 0) -> Result:
    return Result(0, "", {"cpus": sorted(os.sched_getaffinity(pid))})


CALLS = {
    "spawn": spawn,
    "wait4": wait4,
    "waitid": waitid,
    "kill": kill,
    "pidfd_open": os.pidfd_open,
    "pidfd_send_signal": pidfd_send_signal,
    "getpgid": os.getpgid,
    "getpgrp": os.getpgrp,
    "getsid": os.getsid,
    "getpriority": os.getpriority,
    "setpriority": setpriority,
    "nice": os.nice,
    "getrlimit": getrlimit,
    "setrlimit": setrlimit,
    "prlimit64": prlimit64,
    "sched_setaffinity": sched_setaffinity,
    "sched_getaffinity": sched_getaffinity,
}
