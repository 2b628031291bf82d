"""Inode numbers: a number means its node for as long as the kernel refers to it, and one that blocks has one writer."""

import errno
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synosfs.errors import SynosError
from synosfs.fs.inodes import ROOT, Inodes
from synosfs.fs.interrupts import shown_inode
from synosfs.fs.node import Node


@dataclass(frozen=True)
class Plain(Node):
    name: str


@dataclass(frozen=True)
class Fresh(Node):
    name: str

    fresh = True
    steady = True


NODES = [Plain("a"), Plain("b"), Fresh("a"), Fresh("b")]
ME, YOU = 100, 200


class Kernel:
    """What the kernel holds: references by number, and what is open for writing."""

    def __init__(self) -> None:
        self.inodes = Inodes(Plain("root"))
        self.references: Counter[int] = Counter()
        self.nodes: dict[int, Node] = {}
        self.writers: list[int] = []

    def refer(self, node: Node, tid: int = ME, *, listed: bool = False) -> int:
        number = self.inodes.refer_listed(node) if listed else self.inodes.refer(node, tid)
        assert self.nodes.setdefault(number, node) == node
        self.references[number] += 1
        return number

    def forget(self, number: int, count: int) -> None:
        self.inodes.forget([(number, count)])
        self.references[number] -= count
        if not self.references[number]:
            del self.references[number], self.nodes[number]

    def open(self, number: int, node: Node, tid: int = ME) -> int:
        """open(2) for writing by a name that leads to ``number``: one more look-up upon ESTALE."""
        try:
            self.inodes.open_for_writing(number, tid)
        except SynosError as error:
            if error.errno != errno.ESTALE:
                raise
            number = self.refer(node, tid)
            self.inodes.open_for_writing(number, tid)
        self.writers.append(number)
        return number

    def close(self, number: int) -> None:
        self.inodes.close_for_writing(number)
        self.writers.remove(number)


STEPS = st.lists(st.tuples(st.sampled_from(["look up", "list", "write", "close", "forget"]), st.integers(0, 99)))


@given(STEPS)
def test_numbers_hold_while_they_are_referred_to_and_writers_have_their_own(steps: list[tuple[str, int]]) -> None:
    kernel = Kernel()
    for step, choice in steps:
        node = NODES[choice % len(NODES)]
        known = sorted(number for number, its in kernel.nodes.items() if its == node)
        match step:
            case "look up" | "list":
                kernel.refer(node, listed=step == "list")
            case "write" if known:
                kernel.open(known[choice % len(known)], node, tid=choice)
            case "close" if kernel.writers:
                kernel.close(kernel.writers[choice % len(kernel.writers)])
            case "forget":
                # The kernel keeps an inode that is open.
                idle = sorted(number for number in kernel.references if number not in kernel.writers)
                if idle:
                    number = idle[choice % len(idle)]
                    kernel.forget(number, 1 + choice % kernel.references[number])
        assert len(kernel.inodes) == len(kernel.nodes) + 1  # the root
        assert all(kernel.inodes[number] == its for number, its in kernel.nodes.items())
        fresh = [number for number in kernel.writers if kernel.nodes[number].fresh]
        assert len(fresh) == len(set(fresh))
    for number in [*kernel.writers]:
        kernel.close(number)
    for number, count in [*kernel.references.items()]:
        kernel.forget(number, count)
    assert len(kernel.inodes) == 1
    assert kernel.inodes[ROOT] == Plain("root")


def test_a_listed_number_is_never_written_to() -> None:
    kernel = Kernel()
    node = Fresh("a")
    listed = kernel.refer(node, listed=True)
    assert kernel.open(listed, node) != listed
    assert kernel.refer(node, listed=True) == listed


def test_a_name_that_can_not_block_is_listed_under_the_number_that_it_is_looked_up_with() -> None:
    kernel = Kernel()
    assert kernel.refer(Plain("a"), listed=True) == kernel.refer(Plain("a"))


def test_a_file_shows_one_number_however_many_it_has() -> None:
    kernel = Kernel()
    node = Fresh("a")
    numbers = {kernel.refer(node, listed=True), kernel.open(kernel.refer(node), node), kernel.refer(node)}
    assert len(numbers) == 3
    assert len(set(map(shown_inode, numbers))) == 1


def test_a_number_that_is_reserved_for_a_thread_is_nobody_elses() -> None:
    kernel = Kernel()
    node = Fresh("a")
    number = kernel.open(kernel.refer(node), node)
    with pytest.raises(SynosError):
        kernel.inodes.open_for_writing(number, YOU)
    reserved = kernel.refer(node, YOU)
    assert kernel.refer(node, ME) != reserved
    assert kernel.open(reserved, node, YOU) == reserved
