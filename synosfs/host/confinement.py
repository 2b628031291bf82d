"""What confines a process beside its ids, and what the mount does for one that is confined.

The daemon acts with a caller's user, groups and capabilities (``rights``). What else keeps a process from things it
cannot take upon itself: a Landlock domain, a seccomp filter, an AppArmor or SELinux label. So it tells by three marks
whether a caller has anything of the kind, and serves it less (``POLICIES``):

- ``no_new_privs``, without which an ordinary process can load neither a Landlock domain nor a seccomp filter;
- the seccomp mode, and how many filters there are;
- the security label, unless that says that it confines nothing.

A mark that the daemon bears too, or bore when it started, counts for nothing: then its whole surroundings have it (a
container, a service). A Landlock domain leaves no mark of its own. A process with CAP_SYS_ADMIN that enters one without
setting ``no_new_privs`` is not recognised.
"""

import errno
import os
import re
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import procfs, rights

#: What a confined caller gets: all that others get; IPC calls, and no file of the host's; nothing.
POLICIES = ("allow", "ipc", "deny")

#: Labels that confine nothing: AppArmor's own word and its modes that only log, and SELinux's unconfined domains.
_FREE = re.compile(r"unconfined|.* \((?:unconfined|complain)\)|[^:]*:[^:]*:unconfined(?:_service)?_t(?::.*)?")


class Marks(NamedTuple):
    """What ``/proc`` shows of a thread's confinement. ``label`` is empty without a security module that has one."""

    no_new_privs: bool
    seccomp: int
    filters: int
    label: str


def marks(thread: int | str) -> Marks:
    """The marks of ``/proc/<thread>``; ``thread`` may be ``<pid>/task/<tid>``. ProcessLookupError: it is gone."""
    status = procfs.text(thread, "status")
    no_new_privs, seccomp, filters = (
        int(procfs.field_if_there(status, name) or 0) for name in (b"NoNewPrivs", b"Seccomp", b"Seccomp_filters")
    )
    return Marks(bool(no_new_privs), seccomp, filters, procfs.security_label(thread))


def equally_confined(one: int, other: int) -> bool:
    """Whether two processes bear the same marks; not so where one of them has ended."""
    try:
        with rights.acting_as_daemon():
            return marks(one) == marks(other)
    except ProcessLookupError:
        return False


class Confinement:
    """One for the mount: the daemon's own marks, and the policy. Any thread may ask, whatever rights it acts with."""

    def __init__(self, policy: str = "ipc") -> None:
        """EINVAL: /proc shows another pid namespace than the daemon's, where callers' pids are those of strangers."""
        assert policy in POLICIES
        # One number for each namespace from /proc's down to the daemon's.
        if len(procfs.field_if_there(procfs.text("self", "status"), b"NSpid").split()) > 1:
            raise SynosError(
                errno.EINVAL,
                "/proc is that of another pid namespace, where the daemon would take callers for others; "
                "mount the namespace's own (unshare --mount-proc)",
            )
        self._policy = policy
        self._own = marks(os.getpid())

    def check_opener(self, tid: int) -> None:
        """That the thread may open a session at all. EACCES where the policy is to deny. ESRCH."""
        if self._policy == "deny" and (by := self._confined_by(tid)):
            raise SynosError(
                errno.EACCES, f"the caller is confined ({by}), and this mount was made with -o confined=deny"
            )

    def check_ptrace(self, tid: int, pid: int) -> None:
        """That the thread may look into, or act for, process ``pid``, not its own: Landlock keeps the processes of
        other domains from it. EACCES; ESRCH.
        """
        if self._policy != "allow" and (by := self._confined_by(tid)):
            raise SynosError(
                errno.EACCES,
                f"process {pid} is another than the caller, which is confined ({by}); "
                "a mount with -o confined=allow would go by their ids alone",
            )

    def check_file(self, pid: int, tid: int, name: str) -> None:
        """That the process may have the use of a file of the host's; ``tid`` is its thread that calls. EACCES; ESRCH.

        Asked at each call: a process may confine itself when its session is open already.
        """
        if self._policy == "allow":
            return
        by = tid != pid and self._confined_by(f"{pid}/task/{tid}")
        if by := by or self._confined_by(pid):
            raise SynosError(
                errno.EACCES,
                f"{name}: the caller is confined ({by}), and the daemon cannot apply that to files; "
                "use it natively, or mount with -o confined=allow",
            )

    def _confined_by(self, thread: int | str) -> str:
        """What confines it and not the daemon, in words; empty for nothing, and for one thread of a process that has
        ended: the process itself is asked too.
        """
        try:
            with rights.acting_as_daemon():
                theirs = marks(thread)
        except ProcessLookupError:
            if isinstance(thread, str):
                return ""
            raise SynosError(errno.ESRCH, f"process {thread} has ended") from None
        own = self._own
        if theirs.no_new_privs and not own.no_new_privs:
            return "no_new_privs"
        if theirs.seccomp and (theirs.seccomp != own.seccomp or theirs.filters > own.filters):
            return "seccomp"
        if theirs.label != own.label and not _FREE.fullmatch(theirs.label):
            return f"security label {theirs.label or 'unknown'}"
        return ""
