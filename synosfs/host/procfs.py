"""What ``/proc`` tells about a host thread: proc(5). A leaf; every function reads afresh.

All raise ProcessLookupError when the thread is gone, so that callers have one exception to expect.
"""

import functools
import os
import stat as stat_module
import time
from collections.abc import Iterator
from typing import NamedTuple

from synosfs.host import guard
from synosfs.host.asking import Unanswered, ask

#: How much is read at once: more than any file here holds, unless a process is in thousands of groups.
_PIECE = 1 << 14


class Stat(NamedTuple):
    """The fields of ``/proc/<tid>/stat`` that are used here; ``start_time`` in clock ticks since boot. ``is_copy``: it
    is what fork(2) made of its parent, and has executed no program since. ``is_kernels``: it is a thread of
    the kernel's own.
    """

    command: str
    state: str
    ppid: int
    session: int
    start_time: int
    is_copy: bool
    is_kernels: bool


def text(tid: int | str, name: str) -> bytes:
    """``/proc/<tid>/<name>``, read at once: a third of what a buffered file costs, and a thousand callers are looked at
    in a row.
    """
    try:
        fd = os.open(f"/proc/{tid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = piece = os.read(fd, _PIECE)
            while len(piece) == _PIECE:
                piece = os.read(fd, _PIECE)
                found += piece
            return found
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise ProcessLookupError(tid) from None


def stat(tid: int) -> Stat:
    """Read ``/proc/<tid>/stat``. EAGAIN, as of all that may not be told (``asking``)."""
    return ask(tid, functools.partial(_stat, tid))


def _stat(tid: int) -> Stat:
    # The command stands in parentheses and may itself hold blanks and parentheses: split after the last one.
    head, _, tail = text(tid, "stat").rpartition(b")")
    fields = tail.split()
    command = head.partition(b"(")[2].decode("utf-8", "replace")
    ppid, session, flags, start_time = (int(fields[place]) for place in (1, 3, 6, 19))
    is_copy, is_kernels = bool(flags & _PF_FORKNOEXEC), bool(flags & _PF_KTHREAD)
    return Stat(command, fields[0].decode(), ppid, session, start_time, is_copy, is_kernels)


#: <linux/sched.h>
_PF_FORKNOEXEC, _PF_KTHREAD = 0x40, 0x200000


def command(tid: int) -> str:
    """What a thread calls itself, which is the program that runs in it as long as it says nothing else."""
    return text(tid, "comm").rstrip(b"\n").decode("utf-8", "replace")


def state(tid: int) -> str:
    """The state alone, one letter: R, S, D, Z, ..."""
    return field(text(tid, "status"), b"State")[:1].decode()


def field(status: bytes, name: bytes) -> bytes:
    """What a line of ``/proc/<tid>/status`` says, without its name."""
    start = status.index(b"\n%b:\t" % name) + len(name) + 3
    return status[start : status.index(b"\n", start)]


def field_if_there(status: bytes, name: bytes) -> bytes:
    """As ``field``; empty when the host's kernel was built without what the line tells."""
    return field(status, name) if b"\n%b:\t" % name in status else b""


@functools.cache
def _has_labels() -> bool:
    """Whether a security module of the host has labels; which there are is settled when it boots."""
    try:
        text("self", "attr/current")
    except PermissionError:
        return True
    except OSError:  # EINVAL
        return False
    return True


def security_label(tid: int | str) -> str:
    """The label that the host's security module (AppArmor, SELinux, Smack) has for a thread; empty without one."""
    if not _has_labels():
        return ""
    try:
        read = functools.partial(text, tid, "attr/current")
        label = read() if isinstance(tid, str) else ask(tid, read)
        return label.decode("utf-8", "replace").rstrip("\0\n")
    except ProcessLookupError:
        raise
    except (PermissionError, Unanswered):
        return "unknown"  # the module keeps it to itself, which it would not for the daemon's own
    except OSError:  # EINVAL: no module has labels
        return ""


def user_namespace(tid: int | str) -> str:
    """The name of the user namespace that a thread is in; empty where the acting thread may not look into it."""
    read = functools.partial(os.readlink, f"/proc/{tid}/ns/user")
    try:
        return read() if isinstance(tid, str) else ask(tid, read)
    except Unanswered:
        raise
    except OSError:
        return ""


def limits(pid: int) -> list[tuple[int, int]]:
    """The soft and hard resource limits of a process, in the order of RLIMIT_*; -1: unlimited."""
    columns = text(pid, "limits").splitlines()
    soft, hard = columns[0].index(b"Soft"), columns[0].index(b"Hard")
    return [(_limit(line[soft:]), _limit(line[hard:])) for line in columns[1:]]


def _limit(column: bytes) -> int:
    word = column.split(maxsplit=1)[0]
    return -1 if word == b"unlimited" else int(word)


def protection(mode: int) -> int:
    """The level of fs.protected_regular or fs.protected_fifos, by the kind of file; 0 for other kinds."""
    name = {stat_module.S_IFREG: "regular", stat_module.S_IFIFO: "fifos"}.get(stat_module.S_IFMT(mode))
    if name is None:
        return 0
    try:
        with open(f"/proc/sys/fs/protected_{name}", "rb") as file:
            return int(file.read())
    except OSError:
        return 0


def thread_group(tid: int) -> int:
    """The process (thread group id) that a thread belongs to."""
    return int(field(text(tid, "status"), b"Tgid"))


#: So far up a thread's ancestors are looked at, at 12 us each: a user can make each process the parent of the next.
_MOST_ANCESTORS = 128


def ancestors(tid: int) -> Iterator[int]:
    """The thread's process, its parent, and so on, for as many as a shell's children can be thought to have."""
    try:
        pid = thread_group(tid)
        for _ in range(_MOST_ANCESTORS):
            yield pid
            pid = ppid(pid)
            if pid <= 0:
                return
    except ProcessLookupError:
        return


def ppid(pid: int) -> int:
    """The parent of a process; 0 where it has none in the daemon's pid namespace."""
    return int(field(text(pid, "status"), b"PPid"))


def umask(tid: int) -> int:
    """The file mode creation mask of a thread."""
    return int(field(text(tid, "status"), b"Umask"), 8)


def running_ns(tid: int) -> int:
    """For how long a thread has run on a CPU, in nanoseconds (CONFIG_SCHED_INFO)."""
    return int(text(tid, "schedstat").split()[0])


def hides_processes() -> bool:
    """Whether /proc is mounted with hidepid=, so that users do not see the processes of others (proc(5)). It can be
    mounted so later, which is noticed within a second.
    """
    return _hides_processes(int(time.monotonic()))


@functools.lru_cache(maxsize=1)
def _hides_processes(_second: int) -> bool:
    for line in reversed(text("self", "mountinfo").splitlines()):  # the last one covers those before
        mount, _, filesystem = line.partition(b" - ")
        if mount.split()[4] == b"/proc" and filesystem.startswith(b"proc "):
            options = filesystem.split()[-1].split(b",")
            return any(option.startswith(b"hidepid=") and option[8:] not in (b"0", b"off") for option in options)
    return False


def is_seen(pid: int) -> bool:
    """Whether the calling thread sees a process in /proc."""
    try:
        os.stat(f"/proc/{pid}/status")
    except OSError:
        return False
    return True


def ask_to_trace_blocking(pid: int) -> None:
    """Ask the host whether the calling thread may look into a process (ptrace(2), PTRACE_MODE_READ_FSCREDS):
    PermissionError if not. It waits for the end of the process's exec (``asking``).
    """
    guard.check("ask_to_trace")
    try:
        os.readlink(f"/proc/{pid}/cwd")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None


def waits_for_fuse(tid: int) -> bool | None:
    """Whether a thread sleeps in a FUSE request; None where the daemon may not see it (another user's process)."""
    try:
        place = ask(tid, functools.partial(text, tid, "wchan"))
    except OSError:
        return None
    return None if place == b"0" else place == b"request_wait_answer"


# --- every process ---------------------------------------------------------------------------------------------------


def processes() -> Iterator[int]:
    """Every process of the daemon's pid namespace that /proc shows, as they are taken."""
    return _numbers("/proc")


def threads(pid: int) -> Iterator[int]:
    """The threads of a process, as they are taken."""
    try:
        # So many more links has the directory (fs/proc/base.c, proc_task_getattr): half of what listing one takes.
        if os.stat(f"/proc/{pid}/task").st_nlink == 3:
            return iter((pid,))
        return _numbers(f"/proc/{pid}/task")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None


def _numbers(directory: str) -> Iterator[int]:
    """The entries that are numbers, of which there may be tens of thousands."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield int(entry.name)


def wait_channel(tid: int) -> str:
    """The kernel function that a thread sleeps in; "0" where it sleeps in none, or the daemon may not see it."""
    return ask(tid, functools.partial(text, tid, "wchan")).decode()


def current_call_blocking(tid: int) -> tuple[int, ...]:
    """The system call that a thread sleeps in: its number and arguments; nothing where it sleeps in none.
    PermissionError. It waits for the end of the process's exec (``asking``).
    """
    words = text(tid, "syscall").split()
    return (int(words[0]), *(int(word, 16) for word in words[1:7])) if len(words) >= 7 else ()


def ipc_namespace_blocking(tid: int | str) -> str:
    """The name of the IPC namespace that a thread is in. PermissionError. It waits for the end of the process's exec
    (``asking``).
    """
    guard.check("ipc_namespace")
    try:
        return os.readlink(f"/proc/{tid}/ns/ipc")
    except FileNotFoundError:
        raise ProcessLookupError(tid) from None


def owner(pid: int) -> int:
    """The effective user of a process; root where it is not dumpable (proc(5))."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None


def is_there(pid: int) -> bool:
    """Whether there is such a process or thread, though /proc may hide it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@functools.cache
def sees_all() -> bool:
    """Whether the daemon's pid namespace is the first one (PROC_PID_INIT_INO): every process has a pid in it."""
    return os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"


#: Clock ticks of ``Stat.start_time`` in a second.
TICKS = os.sysconf("SC_CLK_TCK")
