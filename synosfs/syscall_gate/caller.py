"""Who makes a call, and how it can be reached while it waits.

A ``Caller`` is one open session of one process, as its door has made it. What a door alone can know (whether a signal
has come, whether anybody is still there to be answered) it answers behind ``Origin``; nothing here knows what kind of
door it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EACCES, ESRCH
from typing import Protocol, TypeVar

from synosfs.errors import SynosError
from synosfs.host.confinement import Confinement
from synosfs.host.credentials import Credentials
from synosfs.host.pidfd import Ids
from synosfs.host.usernamespace import UserNamespace
from synosfs.ipc.manager import IPCManager
from synosfs.process import identity
from synosfs.process.address_space import AddressSpace
from synosfs.process.descriptors import DescriptorTable
from synosfs.process.table import Process

T = TypeVar("T")


class Origin(Protocol):
    """Where a caller waits for its answer: the door's side of it."""

    def was_interrupted(self) -> bool:
        """Whether a signal, SIGKILL included, has reached who waits. Asked of the host now."""
        ...

    def let_go(self) -> bool:
        """Whether the door has closed for this caller: it is not to wait any longer."""
        ...


class Watchers(Protocol):
    """What a caller needs who waits for things that the host cannot poll (``parking.Parking``)."""

    async def watch(self, credentials: Credentials, call: Callable[[], T]) -> T:
        """Run a host call that blocks and takes nothing, in a thread of its own. Cancelling interrupts it."""
        ...

    def give_back(self, send: Callable[[], object]) -> None:
        """Put back what had to be taken."""
        ...


@dataclass(slots=True, eq=False)
class Caller:
    """One open session of ``process``, which acts with ``credentials``.

    ``tid`` is the thread that calls. ``own`` says that the process itself opened the session, and nobody on its behalf
    (``proc/<pid>/syscall``). ``interrupted`` says that a call was ended from outside, even if it had a result by then:
    the calls that follow it in the same write are not to be made. ``table`` and ``space`` are those of an open file
    that holds an object for itself, such as a POSIX queue; without them the process's own serve.
    ``user_namespace`` is the process's at the opening; ``confinement`` knows whether files of the host's are for it.

    ``bound`` are the ids that the process had when the session was opened; None: whatever it becomes, the opener may
    act for it. See ``check``.
    """

    ipc: IPCManager
    parking: Watchers
    process: Process
    tid: int
    credentials: Credentials
    origin: Origin
    bound: Ids | None = None
    own: bool = True
    nonblock: bool = False
    interrupted: bool = False
    table: DescriptorTable | None = None
    space: AddressSpace | None = None
    confinement: Confinement = field(kw_only=True)
    user_namespace: UserNamespace = field(kw_only=True)

    def check(self) -> None:
        """That the session still stands for the process that it was opened for. ESRCH: that has ended. EACCES: it has
        become another program with more rights (a setuid one), and what that has is not for whoever holds the session.
        """
        process = self.process
        if not process.is_alive():
            raise SynosError(ESRCH, f"process {process.pid}, which opened this session, has ended; open it anew")
        if self.bound is not None and not self.bound.covers(process.ids()):
            raise SynosError(
                EACCES, f"process {process.pid} has other rights than when this session was opened; open it anew"
            )

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
