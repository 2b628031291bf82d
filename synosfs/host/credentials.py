"""Who a caller is, as the kernel tells it, and how a thread acts with those rights.

``Credentials`` are what the kernel's permission checks look at: effective user and group, supplementary groups, and
effective capabilities. They come from the FUSE request and from ``/proc/<tid>/status``, never from what a caller says.
"""

import os
from typing import NamedTuple

from synosfs.host.procfs import field, text, user_namespace

#: The bit of CAP_CHOWN in a capability set: the right to give things away.
CAP_CHOWN = 1 << 0

#: The bit of CAP_DAC_OVERRIDE in a capability set: no mode of a file counts.
CAP_DAC_OVERRIDE = 1 << 1

#: The bit of CAP_FOWNER in a capability set: the rights of every owner of a file.
CAP_FOWNER = 1 << 3

#: The bit of CAP_SYS_PTRACE in a capability set: the right to act on other users' processes.
CAP_SYS_PTRACE = 1 << 19


class Credentials(NamedTuple):
    """The effective identity of a caller: ``credentials(7)``, ``capabilities(7)``."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: int

    def may_change(self, owner: int) -> bool:
        """Whether it may change the mode of a thing of this owner, or remove it from a sticky directory."""
        return self.uid == owner or bool(self.capabilities & CAP_FOWNER)

    def may_give(self, owner: int, uid: int | None, gid: int | None) -> bool:
        """Whether chown(2) may give a thing of this owner to ``uid`` and ``gid`` (None: as it is)."""
        if self.capabilities & CAP_CHOWN:
            return True
        return uid in (None, owner) and (gid is None or (self.uid == owner and gid in (self.gid, *self.groups)))

    def may_know(self, told: "Credentials") -> bool:
        """Whether it may know what another was told: of the same user, and in all its groups; or root."""
        return self.uid == 0 or (self.uid == told.uid and {told.gid, *told.groups} <= {self.gid, *self.groups})


#: The daemon's own user namespace.
HERE = user_namespace("self")


def of_daemon() -> Credentials:
    """The daemon's own credentials, which it may lend or lay aside."""
    capabilities = int(field(text("self", "status"), b"CapEff"), 16)
    return Credentials(os.geteuid(), os.getegid(), tuple(sorted(os.getgroups())), capabilities)


def of_thread(tid: int, uid: int, gid: int) -> Credentials:
    """The credentials of a caller whose ``uid`` and ``gid`` the kernel put into its FUSE request.

    Capabilities count only for uid 0 and only in the daemon's own user namespace: a full CapEff in a child namespace
    says nothing about this one. One that the daemon may not see counts as another: that is another user's process, to
    which a daemon without CAP_SYS_PTRACE can lend nothing anyway. Raises ProcessLookupError when the thread is gone.
    """
    return of_opener(tid, uid, gid)[0]


def of_opener(tid: int, uid: int, gid: int) -> tuple[Credentials, int]:
    """As ``of_thread``, with all capabilities that it is permitted, whether they count here or not."""
    status = text(tid, "status")
    groups = tuple(sorted(map(int, field(status, b"Groups").split())))
    capabilities = int(field(status, b"CapEff"), 16) if uid == 0 and user_namespace(tid) == HERE else 0
    return Credentials(uid, gid, groups, capabilities), int(field(status, b"CapPrm"), 16)


def permitted(tid: int) -> int:
    """All capabilities that a thread is permitted. Raises ProcessLookupError when it is gone."""
    return int(field(text(tid, "status"), b"CapPrm"), 16)


def real_of_thread(tid: int, lent: Credentials, *, own: bool) -> Credentials:
    """What access(2) goes by: a thread's real ids, with the capabilities that it may have where its real user is root
    and which, without ``own``, are lent to the caller as well. ProcessLookupError: it is gone.
    """
    status = text(tid, "status")
    uid, gid = (int(field(status, name).split()[0]) for name in (b"Uid", b"Gid"))
    capabilities = 0
    if uid == 0 and user_namespace(tid) == HERE:
        capabilities = int(field(status, b"CapPrm"), 16)
        if not own:
            capabilities &= lent.capabilities
    return lent._replace(uid=uid, gid=gid, capabilities=capabilities)


class Identifiers(NamedTuple):
    """All user and group ids of a thread: real, effective, saved, filesystem; its thread group and parent."""

    tgid: int
    ppid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]


def identifiers(tid: int) -> Identifiers:
    """Read the identifiers of a live thread. Raises ProcessLookupError when it is gone."""
    status = text(tid, "status")
    uids, gids, groups = (tuple(map(int, field(status, name).split())) for name in (b"Uid", b"Gid", b"Groups"))
    return Identifiers(int(field(status, b"Tgid")), int(field(status, b"PPid")), uids, gids, groups)
