"""Who looks at many processes at once, and what of each is theirs to see."""

from synosfs.errors import SynosError
from synosfs.fs.node import Who, credentials_of
from synosfs.host import procfs
from synosfs.host.credentials import Credentials
from synosfs.kernel import Kernel
from synosfs.process import identity
from synosfs.process.host_process import HostProcess, Stranger


class Looker:
    """One look. The rule is ``Kernel.look_into``'s and ``Kernel.sees``'s; what is the same for all is asked once."""

    def __init__(self, kernel: Kernel, who: Who) -> None:
        self._kernel = kernel
        self._who = who
        self._known: dict[Stranger, bool] = {}
        self.credentials: Credentials | None = None
        self._own = 0
        self._may_trace = False
        try:
            self._own = procfs.thread_group(who.pid)
            self.credentials = credentials_of(who)
            kernel.confinement.check_ptrace(who.pid, 0)
            self._may_trace = True
        except (ProcessLookupError, SynosError):
            pass  # outside the mount's pid namespace, or confined

    def sees(self, process: HostProcess) -> bool:
        """Whether the looker is to know of the process at all."""
        if self.credentials is None:
            return not procfs.hides_processes()
        try:
            return self._kernel.sees(process, self._who.pid, self._who.uid, self._who.gid)
        except SynosError:
            return False  # who looks has ended

    def may_look_into(self, process: Stranger) -> bool:
        """Whether what the process does is the looker's to know."""
        known = self._known.get(process)
        if known is None:
            known = self._known[process] = self._asks(process)
        return known

    def _asks(self, process: Stranger) -> bool:
        if process.pid == self._own:
            return process.is_alive()
        if self.credentials is None or not self._may_trace:
            return False
        try:
            identity.ask_to_trace(process.pid, self.credentials)
        except OSError:
            return False
        return process.is_alive()  # else the pid was another's when the host was asked
