"""Inode and handle numbers: which node or handle a number of the kernel's means.

The kernel counts its references to an inode (one for each lookup, create and readdirplus entry) and gives them back
with forget; a number is dropped when the count is zero. A fresh node gets a number that no other
thread was given and that is not open; an equal node that is not fresh keeps its number for as long as the kernel knows
it.

stat(2) is to show one number for one file, or cp(1) takes it for replaced between two looks. So a fresh node that is
``steady`` has numbers whose upper bits are the node's, and these alone are shown (``shown_inode``).
"""

from collections import Counter
from collections.abc import Iterable

from synosfs.fs.node import Handle, Node
from synosfs.syscall_gate.interrupts import SESSION_BITS

ROOT = 1


class Inodes:
    """Numbers of nodes. ENOENT never comes from here: the kernel asks only for numbers that it was given."""

    def __init__(self, root: Node) -> None:
        self._nodes: dict[int, Node] = {ROOT: root}
        self._references: dict[int, int] = {ROOT: 1}
        self._numbers: dict[Node, int] = {root: ROOT}
        self._next = ROOT + 1
        #: How often an inode is open.
        self._opens: Counter[int] = Counter()
        #: The last number of a fresh node that a thread was given, and the thread that a number was given to.
        self._last: dict[tuple[int, Node], int] = {}
        self._given_to: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, inode: int) -> Node:
        return self._nodes[inode]

    def number(self, node: Node) -> int:
        """A number for the node without a reference: for entries that the kernel does not keep (``.`` and ``..``)."""
        return self._numbers.get(node, ROOT)

    def refer(self, node: Node, tid: int) -> int:
        """The node's number, with one more reference. ``tid`` is the thread that looks it up."""
        inode = self._own(node, tid) if node.fresh else self._numbers.get(node)
        if inode is None:
            inode = self._unused(node)
            self._nodes[inode] = node
            self._references[inode] = 0
            if node.fresh:
                self._last[tid, node] = inode
                self._given_to[inode] = tid
            else:
                self._numbers[node] = inode
        self._references[inode] += 1
        return inode

    def _unused(self, node: Node) -> int:
        while True:
            number = self._next
            self._next += 1
            if node.steady:
                number = _steady(node) << SESSION_BITS | number & (1 << SESSION_BITS) - 1
            if number not in self._nodes:
                return number

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        for inode, count in inodes:
            left = self._references.get(inode, 0) - count
            if left > 0 or inode == ROOT:
                self._references[inode] = left
            elif inode in self._nodes:
                node = self._nodes.pop(inode)
                del self._references[inode]
                if not node.fresh:
                    del self._numbers[node]
                elif self._last.get(owner := (self._given_to.pop(inode), node)) == inode:
                    del self._last[owner]

    def opened(self, inode: int) -> None:
        self._opens[inode] += 1

    def closed(self, inode: int) -> None:
        self._opens[inode] -= 1
        if not self._opens[inode]:
            del self._opens[inode]

    def _own(self, node: Node, tid: int) -> int | None:
        """The number that the thread was given before for this node, unless it is open: nobody can be writing to it.

        Else every name that a thread uses twice costs two look-ups: the kernel drops a name whose number has changed.
        """
        inode = self._last.get((tid, node))
        return None if inode in self._opens else inode


def _steady(node: Node) -> int:
    """A number of 32 bits, above all that are counted, the same for equal nodes."""
    return 1 << 31 | hash((type(node), node)) & (1 << 31) - 1


class Handles:
    """Numbers of open files."""

    def __init__(self) -> None:
        self._handles: dict[int, Handle] = {}
        self._inodes: dict[int, int] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._handles)

    def __getitem__(self, number: int) -> Handle:
        return self._handles[number]

    def add(self, handle: Handle, inode: int) -> int:
        number = self._next
        self._next += 1
        self._handles[number] = handle
        self._inodes[number] = inode
        return number

    def remove(self, number: int) -> tuple[Handle, int]:
        """The handle, and the inode that it had open."""
        return self._handles.pop(number), self._inodes.pop(number)
