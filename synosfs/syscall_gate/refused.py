"""Calls that will not be built, and why: what a program alone can do, or what would be done to the daemon instead."""

_SIGNALS = "signals, their masks and handlers belong to the program, which a call from outside cannot change"
_TIMERS = "a timer signals the program that sets it; timeout= bounds any call here, and nanosleep waits"
_MEMORY = "memory of a program is its own; shmat attaches a segment, proc/<pid>/mem shows it"
_IDENTITY = "a process gives itself other rights; a child of fork has its parent's"
_THREADS = "a thread belongs to its program; fork makes a process"

#: By the name of the call.
REASONS: dict[str, str] = {
    **dict.fromkeys(
        ("rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend", "sigaltstack", "pause"),
        _SIGNALS,
    ),
    **dict.fromkeys(("signalfd", "signalfd4"), _SIGNALS),
    "rt_sigqueueinfo": "a value with a signal would be the daemon's; kill and pidfd_send_signal send one",
    "rt_tgsigqueueinfo": "a value with a signal would be the daemon's; tgkill sends one",
    **dict.fromkeys(
        ("alarm", "setitimer", "getitimer", "timer_create", "timer_settime", "timer_gettime", "timer_delete"), _TIMERS
    ),
    "timer_getoverrun": _TIMERS,
    "personality": "an execution domain is a program's own; setarch(8) starts one with another",
    **dict.fromkeys(
        ("mmap", "munmap", "mprotect", "mremap", "brk", "madvise", "mlock", "munlock", "vmsplice"), _MEMORY
    ),
    **dict.fromkeys(
        ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid"),
        _IDENTITY,
    ),
    **dict.fromkeys(("capset", "prctl", "seccomp", "unshare", "setns", "chroot", "pivot_root"), _IDENTITY),
    **dict.fromkeys(("futex", "set_tid_address", "set_robust_list", "get_robust_list", "clone3"), _THREADS),
    "ptrace": "the daemon would be the tracer; strace -p <pid> is",
}
