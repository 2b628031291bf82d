"""Who makes a call, and how it can be reached while it waits.

A ``Caller`` is one open session of one process, as its door has made it. What a door alone can know (whether a signal
has come, whether anybody is still there to be answered) it answers behind ``Origin``; nothing here knows what kind of
door it is.
"""

from dataclasses import dataclass, field
from errno import EACCES, ESRCH
from typing import NamedTuple, Protocol

from synosfs.errors import SynosError
from synosfs.host.confinement import Confinement
from synosfs.host.credentials import Credentials
from synosfs.host.pidfd import Ids
from synosfs.host.usernamespace import UserNamespace
from synosfs.ipc.manager import IPCManager
from synosfs.process import identity
from synosfs.process.address_space import AddressSpace
from synosfs.process.descriptors import DescriptorTable
from synosfs.process.process import Process
from synosfs.syscall_gate.readiness import Watchers
from synosfs.syscall_gate.watches import Watches


class Origin(Protocol):
    """Where a caller waits for its answer: the door's side of it."""

    def was_interrupted(self) -> bool:
        """Whether a signal, SIGKILL included, has reached who waits. Asked of the host now."""
        ...

    def let_go(self) -> bool:
        """Whether the door has closed for this caller: it is not to wait any longer."""
        ...


class Identity(NamedTuple):
    """Who a session acts as, for those who are told of its calls later: nothing here keeps the process. ``is_plain``:
    all of the process's ids were those of ``credentials``.
    """

    pid: int
    start_time: int
    credentials: Credentials
    permitted: int
    is_plain: bool


@dataclass(slots=True, eq=False)
class Caller:
    """One open session of ``process``, which acts with ``credentials``.

    ``tid`` is the thread that calls. ``by_itself`` says that the process itself opened the session, and nobody on its
    behalf (``proc/<pid>/syscall``); ``permitted`` are the capabilities that it had then, whether they counted or not.
    ``interrupted`` says that a call was ended from outside, even if it had a result by then: the calls that follow it
    in the same write are not to be made. ``table`` and ``space`` are those of an open file that holds an object for
    itself, such as a POSIX queue; without them the process's own serve. ``user_namespace`` is the process's at the
    opening; ``confinement`` knows whether files of the host's are for it.

    ``because`` is why what it removes is removed, where that is not the call itself.

    ``identity`` says in short who it is.

    ``bound`` are the ids that the process had when the session was opened; None: whatever it becomes, the opener may
    act for it. See ``check``.
    """

    ipc: IPCManager
    parking: Watchers
    watches: Watches
    process: Process
    tid: int
    credentials: Credentials
    origin: Origin
    bound: Ids | None = None
    by_itself: bool = True
    permitted: int = 0
    nonblock: bool = False
    interrupted: bool = False
    table: DescriptorTable | None = None
    space: AddressSpace | None = None
    because: str = ""
    confinement: Confinement = field(kw_only=True)
    user_namespace: UserNamespace = field(kw_only=True)
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        process, lent = self.process, self.credentials
        is_plain = self.bound is None or Ids(frozenset((lent.uid,)), frozenset((lent.gid,))).covers(self.bound)
        self.identity = Identity(process.pid, process.start_time, lent, self.permitted, is_plain)

    def check(self) -> None:
        """That the session still stands for the process that it was opened for. ESRCH: that has ended. EACCES: it has
        become another program with more rights (a setuid one), and what that has is not for whoever holds the session;
        or it is another's, and the host no longer lets the opener look into it.
        """
        process = self.process
        if not process.is_alive():
            raise SynosError(ESRCH, f"process {process.pid}, which opened this session, has ended; open it anew")
        if self.bound is not None and not self.bound.covers(process.ids()):
            raise SynosError(
                EACCES, f"process {process.pid} has other rights than when this session was opened; open it anew"
            )
        if self.bound is not None and not self.by_itself and not identity.may_be_traced(process.pid, self.credentials):
            raise SynosError(EACCES, f"process {process.pid} is no longer the opener's to look into")

    @property
    def own(self) -> bool:
        """Whether what the host lets a process have of itself (its streams, its directories) is for the session. Not
        so for another's, and no longer when its opener has become a program with capabilities of its own: what that
        has is not for whoever holds the session, unless the host lets them look into it. ESRCH.
        """
        return self.by_itself and (self.bound is None or not identity.has_gained(self.process.pid, self.permitted))

    @property
    def descriptors(self) -> DescriptorTable:
        return self.process.descriptors if self.table is None else self.table

    @property
    def address_space(self) -> AddressSpace:
        return self.process.address_space if self.space is None else self.space

    def umask(self) -> int:
        """The caller's file mode creation mask, as it is now. ESRCH when the thread is gone."""
        own = self.process.own_umask
        return identity.umask(self.tid) if own is None else own
