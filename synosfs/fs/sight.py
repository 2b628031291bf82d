"""What somebody may see of the calls of others.

Who may look into every process (CAP_SYS_PTRACE, as root has it) sees all. Others see the calls that were made with
their own user id; all of a call, with what went in and came out, only where the host lets them look into the process
that made it (ptrace(2)). Of one that has ended the host says nothing: then it must have had their user and groups
alone, and no capabilities. Who is confined sees the calls of its own process.
"""

import errno
from typing import NamedTuple

from synosfs.errors import SynosError
from synosfs.host.credentials import CAP_SYS_PTRACE, Credentials
from synosfs.ipc.journal import Removal
from synosfs.kernel import Kernel
from synosfs.syscall_gate.caller import Identity


class Seen(NamedTuple):
    """Whether a call is seen, and whether all of it is."""

    at_all: bool
    whole: bool


_ALL, _OUTSIDE, _NOTHING = Seen(True, True), Seen(True, False), Seen(False, False)


class Sight:
    """What thread ``tid`` sees with these credentials. What is found out of a process serves until ``look_again``."""

    def __init__(self, kernel: Kernel, tid: int, credentials: Credentials) -> None:
        self._kernel = kernel
        self._tid = tid
        self._credentials = credentials
        self._found: dict[Identity, Seen] = {}
        self._is_confined = self._sees_all = False
        self.look_again()

    def look_again(self) -> None:
        """Forget what was found out."""
        self._found.clear()
        try:
            self._kernel.confinement.check_ptrace(self._tid, 0)
            self._is_confined = False
        except SynosError:  # or it has ended: then nobody looks
            self._is_confined = True
        self._sees_all = bool(self._credentials.capabilities & CAP_SYS_PTRACE) and not self._is_confined

    def of_call(self, who: Identity) -> Seen:
        if self._sees_all:
            return _ALL
        seen = self._found.get(who)
        if seen is None:
            seen = self._found[who] = self._look_at(who)
        return seen

    def of_removal(self, removal: Removal) -> bool:
        if self._sees_all:
            return True
        return not self._is_confined and self._credentials.uid in (removal.uid, removal.owner)

    def _look_at(self, who: Identity) -> Seen:
        own = self._credentials
        if who.credentials.uid != own.uid:
            return _NOTHING
        process = self._kernel.processes.known(who.pid)
        if process is not None and process.start_time == who.start_time:
            try:
                self._kernel.look_into(process, self._tid, own)
                return _ALL
            except SynosError as error:
                if error.errno != errno.ESRCH:
                    return _NOTHING if self._is_confined else _OUTSIDE
        if self._is_confined:
            return _NOTHING
        is_alike = who.is_plain and not who.permitted & ~own.capabilities and own.may_know(who.credentials)
        return _ALL if is_alike else _OUTSIDE
