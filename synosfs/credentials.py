"""Who a caller is, as the kernel tells it, and how a thread acts with those rights.

``Credentials`` are what the kernel's permission checks look at: effective user and group, supplementary groups, and
effective capabilities. They come from the FUSE request and from ``/proc/<tid>/status``, never from what a caller says.
"""

import os
from typing import NamedTuple

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


def _status(tid: int | str) -> dict[str, str]:
    with open(f"/proc/{tid}/status", encoding="utf-8", errors="replace") as status:
        return dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)


def _status_text(tid: int) -> bytes:
    descriptor = os.open(f"/proc/{tid}/status", os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 8192), b""))
    finally:
        os.close(descriptor)


def _field(status: bytes, name: bytes) -> bytes:
    start = status.index(b"\n%b:\t" % name) + len(name) + 3
    return status[start : status.index(b"\n", start)]


def _user_namespace(tid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{tid}/ns/user")
    except OSError:
        # Another user's process, seen by a daemon without CAP_SYS_PTRACE: such a daemon can lend it nothing anyway.
        return ""


_HERE = _user_namespace("self")


def of_daemon() -> Credentials:
    """The daemon's own credentials, which it may lend or lay aside."""
    capabilities = int(_status("self")["CapEff"], 16)
    return Credentials(os.geteuid(), os.getegid(), tuple(sorted(os.getgroups())), capabilities)


def of_thread(tid: int, uid: int, gid: int) -> Credentials:
    """The credentials of a caller whose ``uid`` and ``gid`` the kernel put into its FUSE request.

    Capabilities count only for uid 0 and only in the daemon's own user namespace: a full CapEff in a child namespace
    says nothing about this one. Raises ProcessLookupError or FileNotFoundError when the thread is gone.
    """
    # Every open of the gate comes here: two fields are found without taking all the others apart (11 us, not 57).
    text = _status_text(tid)
    groups = tuple(sorted(map(int, _field(text, b"Groups").split())))
    capabilities = int(_field(text, b"CapEff"), 16) if uid == 0 and _user_namespace(tid) == _HERE else 0
    return Credentials(uid, gid, groups, capabilities)


class Identifiers(NamedTuple):
    """All user and group ids of a thread: real, effective, saved, filesystem; its thread group and parent."""

    tgid: int
    ppid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]


def identifiers(tid: int) -> Identifiers:
    """Read the identifiers of a live thread. Raises FileNotFoundError or ProcessLookupError when it is gone."""
    status = _status(tid)
    return Identifiers(
        tgid=int(status["Tgid"]),
        ppid=int(status["PPid"]),
        uids=tuple(map(int, status["Uid"].split())),
        gids=tuple(map(int, status["Gid"].split())),
        groups=tuple(map(int, status["Groups"].split())),
    )
