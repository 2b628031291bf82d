"""Inode numbers: which node a number of the kernel's means.

The kernel counts its references to an inode (one for each lookup, create and readdirplus entry) and gives them back
with forget; a number is dropped when the count is zero. Equal nodes share a number.

The kernel also locks an inode while it is being written, so a number of a *fresh* node, whose writes can block, is open
for writing once at most. A look-up gives a number that is not; an open that comes too late, because another has opened
the same number since the look-up, is refused with ESTALE, upon which the kernel looks the name up again, once
(``do_filp_open`` in fs/namei.c), and is given a number reserved for the thread: the second try cannot be too late. So
the name of a fresh node may be kept by the kernel as any other.

A name that was listed is kept longer, and it may be removed meanwhile, for which the kernel locks the inode too. So a
fresh node is listed with a number that is never open for writing; who opens it so is sent to look the name up.

stat(2) is to show one number for one file, or cp(1) takes it for replaced between two looks. So a fresh node that is
``steady`` has numbers whose upper bits are the node's, and these alone are shown (``shown_inode``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from errno import ESTALE

from synosfs.errors import SynosError
from synosfs.fs.interrupts import SESSION_BITS
from synosfs.fs.node import Node

ROOT = 1


@dataclass(slots=True)
class _Retry:
    """A thread whose open of a number was refused, and the number that was then reserved for it."""

    node: Node
    refused: int
    reserved: int = 0


class Inodes:
    """Numbers of nodes. ENOENT never comes from here: the kernel asks only for numbers that it was given."""

    def __init__(self, root: Node) -> None:
        self._nodes: dict[int, Node] = {ROOT: root}
        self._references: dict[int, int] = {ROOT: 1}
        #: The number that the next look-up of a node gets.
        self._numbers: dict[Node, int] = {root: ROOT}
        self._next = ROOT + 1
        #: The numbers under which fresh nodes are listed.
        self._listed: dict[Node, int] = {}
        #: How often a fresh number is open for writing: once, or more by way of /proc/<pid>/fd.
        self._writers: dict[int, int] = {}
        #: The threads that were refused and are to come again, and the numbers reserved for such.
        self._retries: dict[int, _Retry] = {}
        self._reserved: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, inode: int) -> Node:
        return self._nodes[inode]

    def refer(self, node: Node, tid: int) -> int:
        """The node's number, with one more reference. ``tid`` is the thread that looks it up."""
        retry = self._retries.get(tid)
        if retry is not None and retry.node == node:
            if retry.reserved not in self._nodes:
                retry.reserved = self._add(node)
                self._reserved[retry.reserved] = tid
            inode = retry.reserved
        else:
            known = self._numbers.get(node)
            if known is None or known in self._writers or known in self._reserved:
                known = self._numbers[node] = self._add(node)
            inode = known
        self._references[inode] += 1
        return inode

    def refer_listed(self, node: Node) -> int:
        """The number under which a directory lists the node, with one more reference."""
        numbers = self._listed if node.fresh else self._numbers
        inode = numbers.get(node)
        if inode is None:
            inode = numbers[node] = self._add(node)
        self._references[inode] += 1
        return inode

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        for inode, count in inodes:
            left = self._references.get(inode, 0) - count
            if left > 0 or inode == ROOT:
                self._references[inode] = left
            elif inode in self._nodes:
                node = self._nodes.pop(inode)
                del self._references[inode]
                self._reserved.pop(inode, None)
                for numbers in (self._numbers, self._listed):
                    if numbers.get(node) == inode:
                        del numbers[node]

    def open_for_writing(self, inode: int, tid: int) -> None:
        """A thread opens the number to write. ESTALE: it has a writer, look the name up again.

        An open by way of /proc/<pid>/fd names the inode itself and has nothing to look up: it comes again at once, and
        then shares the number.
        """
        node = self._nodes[inode]
        if not node.fresh:
            return
        retry = self._retries.pop(tid, None)
        reserved = self._reserved.get(inode, tid) != tid
        taken = inode in self._writers or reserved or self._listed.get(node) == inode
        if taken and (retry is None or retry.refused != inode):
            self._retries[tid] = _Retry(node, inode)
            raise SynosError(ESTALE)
        self._reserved.pop(inode, None)
        self._writers[inode] = self._writers.get(inode, 0) + 1

    def close_for_writing(self, inode: int) -> None:
        if inode in self._writers:
            self._writers[inode] -= 1
            if not self._writers[inode]:
                del self._writers[inode]

    def _add(self, node: Node) -> int:
        """A new number for the node, with no reference yet."""
        inode = self._unused(node)
        self._nodes[inode] = node
        self._references[inode] = 0
        return inode

    def _unused(self, node: Node) -> int:
        while True:
            number = self._next
            self._next += 1
            if node.steady:
                number = _steady(node) << SESSION_BITS | number & (1 << SESSION_BITS) - 1
            if number not in self._nodes:
                return number


def _steady(node: Node) -> int:
    """A number of 32 bits, above all that are counted, the same for equal nodes."""
    return 1 << 31 | hash((type(node), node)) & (1 << 31) - 1
