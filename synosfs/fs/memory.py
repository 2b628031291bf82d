"""``proc/<pid>/mem`` and ``attach``: what a SynOS process has attached, by address and as a table.

``mem`` is as ``/proc/<pid>/mem``: the offset is the address, an address where nothing is attached is EIO, a read or
write that reaches one is short. Its size is 0, so that what copies trees leaves it alone; seeking works all the same.
"""

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from errno import EFAULT, EIO

from synosfs.errors import SynosError, WouldBlock
from synosfs.fs.node import Attributes, Handle, Node, Who, writes
from synosfs.fs.session import look_into, open_caller
from synosfs.fs.tables import Table
from synosfs.host import abi
from synosfs.host.credentials import Credentials
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.process.accounts import Account
from synosfs.process.host_process import HostProcess
from synosfs.process.process import Process
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Request

_FLAGS = {name: getattr(abi, name) for name in ("SHM_RDONLY", "SHM_RND", "SHM_REMAP")}


@dataclass(frozen=True)
class MemoryFile(Node):
    """The attached memory of one process, for its owner."""

    kernel: Kernel
    process: HostProcess

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o600, *self.process.owner())

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        process = self.kernel.processes.now(self.process)
        if not isinstance(process, Process) and not writes(flags):
            look_into(self.kernel, process, who)
            return _Nothing()
        return _Memory(self.kernel, open_caller(self.kernel, who, flags, inode, process))  # EACCES for others

    async def change(self, change: Change, who: Who) -> None:
        """A shell's > truncates before it writes, and changes nothing."""
        await super().change(replace(change, size=None), who)


class _Nothing(Handle):
    """Of a process that takes no part, opened to look: nothing is attached, and nothing is made of it."""

    async def read(self, offset: int, size: int) -> bytes:
        raise SynosError(EIO, "nothing is attached: the process takes no part; open this again when it does")


class _Memory(Handle):
    """What is attached when it is read or written, not when it was opened. ESRCH when the process has ended."""

    def __init__(self, kernel: Kernel, caller: Caller) -> None:
        self._kernel = kernel
        self._caller = caller

    async def read(self, offset: int, size: int) -> bytes:
        self._caller.check()
        try:
            return await copied(self._kernel, self._caller, offset, size)
        except SynosError as error:
            raise _as_file(error) from None

    async def write(self, offset: int, data: bytes) -> int:
        self._caller.check()
        request = Request("process_vm_writev", [self._caller.process.pid, data, offset])
        try:
            return (await self._kernel.dispatcher.called(self._caller, request)).ret
        except SynosError as error:
            raise _as_file(error) from None


async def copied(kernel: Kernel, caller: Caller, address: int, size: int) -> bytes:
    """What the caller's address space has there: as process_vm_readv(2), and no call."""
    space = caller.address_space
    try:
        return space.read_nowait(address, size)
    except WouldBlock:
        copy = space.reading(address, size).blocking
        return await apart(kernel, caller.process.account, caller.credentials, copy)


async def apart(kernel: Kernel, account: Account, credentials: Credentials, copy: Callable[[], bytes]) -> bytes:
    """A copy for who only looks, in a thread. It counts among its user's calls that wait."""
    account.charge("waiting")
    try:
        return await kernel.parking.watch(credentials, copy)
    finally:
        account.give_back("waiting")


def _as_file(error: SynosError) -> SynosError:
    """An address where nothing is, is EFAULT to a call and EIO in /proc/<pid>/mem."""
    return SynosError(EIO, error.message) if error.errno == EFAULT else error


def attachments_table(_kernel: Kernel, process: HostProcess) -> Table:
    """``attach``: a line an attachment, by address; the size in bytes."""
    rows = (
        (
            f"{attachment.address:#x}",
            attachment.memory.shmid,
            attachment.memory.size,
            "|".join(name for name, bit in _FLAGS.items() if attachment.flags & bit) or "-",
        )
        for attachment in process.attachments()
    )
    return Table(("address", "shmid", "size", "flags"), rows)
