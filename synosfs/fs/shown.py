"""A file that only shows: a text that is made in slices at each open, as who opens it is to see it."""

import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from errno import EACCES

from synosfs.errors import SynosError
from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, writes
from synosfs.kernel import Kernel
from synosfs.slices import Slices

#: Makes the text for somebody, pausing between its steps.
Render = Callable[[Who, Slices], Awaitable[str | bytes | bytearray]]


@dataclass(frozen=True)
class ShownFile(Node):
    """For everybody to read. ``refusal`` is what is said to who would write: EACCES."""

    kernel: Kernel
    render: Render
    refusal: str = "this file is for reading"

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o444)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if writes(flags):
            raise SynosError(EACCES, self.refusal)
        return Snapshot(await self.render(who, Slices(self.kernel.accounts.of(who.uid).line)))
