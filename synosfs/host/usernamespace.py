"""User and group ids as a caller's user namespace has them (user_namespaces(7)), and as the daemon's has them.

The host tells the daemon every id in the daemon's own namespace, and takes ids from it so. A caller in another
namespace means the numbers of its own: what it gives is translated before use (``given``), and what it is told
(``shown_uid`` and its kin), as the host does it at its boundary. The kernel's FUSE client translates by itself what
comes in as an attribute of a file (chown, stat).

Ids of callers in the daemon's own namespace pass unchanged, at no cost.
"""

import errno
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host import procfs
from synosfs.host.credentials import HERE


class UserNamespace:
    """The daemon's own, and what a caller in it means by an id: what the daemon does."""

    is_ours = True

    def given(self, uid: int | None, gid: int | None) -> tuple[int | None, int | None]:
        """What the caller's ids are in the daemon's namespace; None is none. EINVAL: such an id is not mapped."""
        return uid, gid

    def shown_uid(self, uid: int) -> int:
        """A user id of the daemon's namespace as the caller's has it; the overflow id when it has none."""
        return uid

    def shown_gid(self, gid: int) -> int:
        """As ``shown_uid``, of a group."""
        return gid

    def shown(self, perm: dict[str, int]) -> dict[str, int]:
        """The fields of ``struct ipc_perm`` as the caller's namespace has them."""
        return perm


class _Extent(NamedTuple):
    """A line of ``uid_map`` or ``gid_map``: so many ids from ``inside`` on are those from ``outside`` on."""

    inside: int
    outside: int
    size: int


_UNMAPPED = 0xFFFFFFFF


class _Another(UserNamespace):
    """Another: by the maps of a process in it. They are written once, maybe after it has opened its session."""

    is_ours = False

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._maps: dict[str, list[_Extent]] = {}

    def given(self, uid: int | None, gid: int | None) -> tuple[int | None, int | None]:
        return self._given("uid", uid), self._given("gid", gid)

    def shown_uid(self, uid: int) -> int:
        return self._shown("uid", uid)

    def shown_gid(self, gid: int) -> int:
        return self._shown("gid", gid)

    def shown(self, perm: dict[str, int]) -> dict[str, int]:
        uids = {name: self.shown_uid(perm[name]) for name in ("uid", "cuid")}
        return perm | uids | {name: self.shown_gid(perm[name]) for name in ("gid", "cgid")}

    def _given(self, kind: str, id: int | None) -> int | None:
        if id is None:
            return None
        for inside, outside, size in self._map(kind):
            if inside <= id < inside + size and outside != _UNMAPPED:
                return outside + id - inside
        raise SynosError(errno.EINVAL, f"{kind} {id} means nobody in the caller's user namespace: see {kind}_map there")

    def _shown(self, kind: str, id: int) -> int:
        for inside, outside, size in self._map(kind):
            if outside <= id < outside + size and outside != _UNMAPPED:
                return inside + id - outside
        with open(f"/proc/sys/kernel/overflow{kind}", "rb") as file:
            return int(file.read())

    def _map(self, kind: str) -> list[_Extent]:
        found = self._maps.get(kind)
        if not found:
            try:
                lines = procfs.text(self._pid, f"{kind}_map").splitlines()
            except ProcessLookupError:
                raise SynosError(errno.ESRCH, f"process {self._pid} has ended") from None
            found = self._maps[kind] = [_Extent(*map(int, line.split())) for line in lines]
        return found


OURS = UserNamespace()
"""For callers in the daemon's own, and where somebody else has translated: the kernel, for what it hands on."""


def of(pid: int) -> UserNamespace:
    """The one that a process is in now. To be asked with the daemon's own rights."""
    # What the daemon may not see is a process of its own user's that is not dumpable, or one that it cannot serve.
    return OURS if procfs.user_namespace(pid) in (HERE, "") else _Another(pid)
