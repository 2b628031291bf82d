"""What the directories of the POSIX families (``msgq/posix/``, ``sem/posix/``) have in common: names are the host's."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from errno import EACCES, EPERM
from typing import ClassVar

import trio

from synosfs.errors import SynosError
from synosfs.fs.node import FOREVER, Attributes, Node, Who
from synosfs.fs.session import call_as
from synosfs.ipc.change import Change, Named
from synosfs.kernel import Kernel
from synosfs.process.descriptors import Description, DescriptorTable
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply, Request


@dataclass(frozen=True)
class PosixNames(Node):
    """A directory of objects by name, whoever made them."""

    kernel: Kernel

    #: The call that removes a name.
    unlink_call: ClassVar[str]
    #: So many may wait at once for the host to list the names; they keep nobody from a thread who lists others.
    listers: ClassVar[trio.CapacityLimiter]

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        # Not sticky: who may remove an object is the host's to say.
        return Attributes(stat.S_IFDIR | 0o777)

    def host_names(self) -> list[str]:
        """What there is now. May take long: others can lock the host's directory."""
        raise NotImplementedError

    def named(self, name: str) -> Node:
        """The file of this name, whether it is there or not."""
        raise NotImplementedError

    def entries(self, who: Who) -> Iterable[tuple[str, Node]]:
        return ((name, self.named(name)) for name in self.host_names())

    async def listed(self, who: Who) -> Iterable[tuple[str, Node]]:
        # A thread that nobody waits for any more is left to itself: only the host can end its call.
        names = await trio.to_thread.run_sync(self.host_names, abandon_on_cancel=True, limiter=self.listers)
        return ((name, self.named(name)) for name in names)

    async def unlink(self, name: str, who: Who) -> None:
        try:
            await call_as(self.kernel, who, Request(self.unlink_call, [host_name(name)]))
        except SynosError as error:
            if error.errno != EACCES:
                raise
            # mq_unlink and sem_unlink say EACCES where unlink(2) says EPERM.
            raise SynosError(EPERM, error.message) from None


class Opened:
    """An object that one file of the mount has open for itself: a caller whose table has it as number 0."""

    def __init__(self, kernel: Kernel, caller: Caller) -> None:
        self._dispatcher = kernel.dispatcher
        self.caller = caller
        caller.table = DescriptorTable({}, 0, account=caller.process.account)

    async def open(self, request: Request) -> "Opened":
        """By this call, which answers the number."""
        await self.called(request)
        return self

    async def called(self, request: Request) -> Reply:
        return await self._dispatcher.called(self.caller, request)

    @property
    def description(self) -> Description:
        return self.caller.descriptors.get(0)

    async def close(self) -> None:
        self.caller.nonblock = True  # where the host takes long to close it, nobody waits for that
        self.caller.nonblock = True  # nobody is there any more to wait for the end of it
        await self._dispatcher.call(self.caller, Request("close", [0]))


async def change_attributes(kernel: Kernel, who: Who, named: Named | str, change: Change) -> None:
    """chmod, chown and utimensat of something that has a name."""
    requests = []
    if change.mode is not None:
        requests.append(Request("chmod", [named, change.mode]))
    if change.uid is not None or change.gid is not None:
        requests.append(
            Request(
                "chown",
                [
                    named,
                    _UNCHANGED if change.uid is None else change.uid,
                    _UNCHANGED if change.gid is None else change.gid,
                ],
            )
        )
    if change.atime_ns is not None or change.mtime_ns is not None:
        requests.append(Request("utimensat", [named], {"atime_ns": change.atime_ns, "mtime_ns": change.mtime_ns}))
    for request in requests:
        await call_as(kernel, who, request)


#: chown(2): leave this id as it is.
_UNCHANGED = 0xFFFFFFFF


def host_name(name: str) -> bytes:
    """The name as the host's calls take it."""
    return b"/" + os.fsencode(name)


def may_read(found: os.stat_result, who: Who) -> bool:
    """Whether the mode plainly lets ``who`` read: supplementary groups are not looked at."""
    if who.uid == 0:
        return True
    if who.uid == found.st_uid:
        return bool(found.st_mode & stat.S_IRUSR)
    return bool(found.st_mode & (stat.S_IRGRP if who.gid == found.st_gid else stat.S_IROTH))
