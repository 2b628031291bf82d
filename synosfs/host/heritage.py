"""What fork(2) hands down to a child, read of a process that did not fork itself: proc(5).

The child is made by ``fork_program.c`` and made equal to the process step by step. What cannot be read or taken on is
refused, never left out, where leaving it out would give the child more than its parent has: another pid or user
namespace, a control group that it cannot be put into. (A security label and a seccomp filter are ``confinement``'s.)

Functions here belong in an avatar's thread: what they read may be slow.
"""

import errno
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import file, procfs, rights
from synosfs.host.forking import counted
from synosfs.host.path import Place
from synosfs.host.thread import leave_apart

_PATH_ONLY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

#: Those of clone(2) that a child can be put into, by their names in /proc, and those that it cannot.
_NAMESPACES = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "net": 0x40000000,
    "time": 0x00000080,
}
_NEVER = ("pid", "user")

#: Shells put the descriptors aside that a command is redirected over, from this number on, close-on-exec.
_PUT_ASIDE = 10


class Heritage(NamedTuple):
    """``terms`` are the words of the order "become", with the pidfd, the root and the working directory in ``fds``;
    ``streams`` are descriptors that stand before it. The rest is for the program that the child becomes.
    """

    terms: list[bytes | int]
    fds: list[int]
    streams: list[int]
    environment: dict[bytes, bytes]
    limits: list[tuple[int, int]]

    def close(self) -> None:
        for fd in (*self.fds, *self.streams):
            os.close(fd)


def of(place: Place, umask: int, lent: int, streams: list[int]) -> Heritage:
    """What the process hands down. ``lent`` are the capabilities that the caller acts with; ``streams`` the numbers of
    the process's own descriptors that the child shares. ESRCH: it has ended; EPERM: that cannot be handed down.
    """
    place.check("fork")
    with ExitStack() as undo:
        fds = []
        for fd in _descriptors(place, streams):
            fds.append(fd)
            undo.callback(os.close, fd)
        try:
            with rights.acting_as_daemon():
                found = Heritage(
                    [*_terms(place, umask, lent, fds[1]), *counted(streams)],
                    fds[:3],
                    fds[3:],
                    environment(place.pid),
                    procfs.limits(place.pid),
                )
        except ProcessLookupError:
            raise SynosError(errno.ESRCH, f"process {place.pid} has ended") from None
        death = select.poll()
        death.register(place.pidfd, select.POLLIN)
        if death.poll(0):  # then some of it may have been another's
            raise SynosError(errno.ESRCH, f"process {place.pid} has ended")
        undo.pop_all()
        return found


def environment(pid: int) -> dict[bytes, bytes]:
    """What a program found in its environment when it began. ProcessLookupError: it has ended."""
    words = (word.partition(b"=") for word in procfs.text(pid, "environ").split(b"\0"))
    return {name: value for name, equals, value in words if equals}


def _terms(place: Place, umask: int, lent: int, root: int) -> list[bytes | int]:
    """In the order in which ``fork_program.c`` reads them: its function ``become``."""
    thread, status = place.tid, b""
    # A thread's own, as fork(2) has it; the process's, where the thread that opened the session has ended.
    with suppress(ProcessLookupError):
        status = procfs.text(thread, "status")
    if not status or int(procfs.field(status, b"Tgid")) != place.pid:
        thread = place.pid
        status = procfs.text(thread, "status")
    namespaces = _namespaces(place.pid)
    groups = _control_groups(place.pid)
    return [
        len(groups),
        *(word for path in groups for word in (os.fsencode(path), 0)),
        namespaces,
        bool(namespaces & _NAMESPACES["mnt"]) or not _is_our_root(root),
        umask,
        os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK,
        os.sched_getparam(thread).sched_priority,
        os.getpriority(os.PRIO_PROCESS, thread),
        *counted(os.sched_getaffinity(thread)),
        *_credentials(status, lent if not place.own else -1),
        *counted(number for number in _signals(status, b"SigIgn") if number not in (9, 19)),
        *counted(_signals(status, b"SigBlk")),
    ]


def _credentials(status: bytes, lent: int) -> list[bytes | int]:
    """In the order of ``take_credentials``; no capability that the daemon has not, or that is not lent."""
    own = procfs.text("self", "status")
    uids, gids, groups = (tuple(map(int, procfs.field(status, name).split())) for name in (b"Uid", b"Gid", b"Groups"))
    inheritable, permitted, effective, bounding = (
        int(procfs.field(status, name), 16) for name in (b"CapInh", b"CapPrm", b"CapEff", b"CapBnd")
    )
    most = int(procfs.field(own, b"CapPrm"), 16) & lent
    missing = int(procfs.field(own, b"CapBnd"), 16) & ~(bounding & lent)
    return [
        *counted(bit for bit in range(64) if missing >> bit & 1),
        *counted(groups),
        *gids[:3],
        *uids[:3],
        effective & permitted & most,
        permitted & most,
        inheritable & most,
        procfs.field(status, b"NoNewPrivs") == b"1",
    ]


def _signals(status: bytes, name: bytes) -> list[int]:
    mask = int(procfs.field(status, name), 16)
    return [bit + 1 for bit in range(64) if mask >> bit & 1 and bit + 1 not in (32, 33)]  # these are libc's own


def _namespaces(pid: int) -> int:
    """The flags of setns(2) for those that are not the daemon's."""

    def differ(name: str) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
        except FileNotFoundError:  # this host's kernel has none of the kind
            return False

    for name in _NEVER:
        if differ(name):
            raise SynosError(errno.EPERM, f"process {pid} is in another {name} namespace: fork a child natively there")
    return sum(flag for name, flag in _NAMESPACES.items() if differ(name))


def _control_groups(pid: int) -> list[str]:
    """The files that put whoever writes 0 into them into the process's control groups: those that are not ours."""
    ours = procfs.text("self", "cgroup").splitlines()
    files = []
    for line in procfs.text(pid, "cgroup").splitlines():
        if line not in ours:
            _, controllers, path = os.fsdecode(line).split(":", 2)
            directory = f"/{controllers.removeprefix('name=')}" if controllers else ""
            files.append(f"/sys/fs/cgroup{directory}{path.rstrip('/')}/cgroup.procs")
    return files


def _is_our_root(root: int) -> bool:
    ours = os.open("/", _PATH_ONLY)
    try:
        one, other = (procfs.field(procfs.text("self", f"fdinfo/{fd}"), b"mnt_id") for fd in (root, ours))
        return one == other and os.path.samestat(os.fstat(root), os.fstat(ours))
    finally:
        os.close(ours)


def _descriptors(place: Place, streams: list[int]) -> Iterator[int]:
    """The pidfd, the root, the working directory, and the streams."""
    yield os.dup(place.pidfd)
    for name in ("root", "cwd"):
        try:
            with rights.acting_as_daemon():
                fd = os.open(f"/proc/{place.pid}/{name}", _PATH_ONLY)
        except FileNotFoundError:
            raise SynosError(errno.ESRCH, f"process {place.pid} has ended") from None
        yield fd
    for number in streams:
        yield _stream(place, number)


def _stream(place: Place, number: int) -> int:
    """The very open file, as fork(2) shares it; /dev/null where it may not be had.

    Where it leads into our own mount, as a shell's output does while a builtin of it writes a request there, it is what
    the shell has put aside meanwhile: the child's output goes where the shell's went before.
    """
    for candidate in _candidates(place, number):
        with suppress(SynosError):
            fd = _borrowed(place, candidate)
            if os.fstat(fd).st_dev != place.device:
                return fd
            # Closing it waits for the write to the mount that this very call is part of: not in this thread.
            leave_apart(partial(os.close, fd))
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _borrowed(place: Place, number: int) -> int:
    if not place.own:
        try:
            os.readlink(f"/proc/{place.pid}/fd/{number}")  # the host's word for the rights of who calls
        except OSError as error:
            raise SynosError(error.errno or errno.EACCES) from None
    with rights.acting_as_daemon():
        return file.pidfd_getfd(place.pidfd, number)


def _candidates(place: Place, number: int) -> list[int]:
    found = [number]
    with suppress(OSError), rights.acting_as_daemon():
        for other in sorted(map(int, os.listdir(f"/proc/{place.pid}/fd"))):
            if other >= _PUT_ASIDE:
                flags = int(procfs.field(b"\n" + procfs.text(place.pid, f"fdinfo/{other}"), b"flags"), 8)
                if flags & os.O_CLOEXEC and (flags & os.O_ACCMODE == os.O_RDONLY) == (number == 0):
                    found.append(other)
    return found
