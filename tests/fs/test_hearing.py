"""What belongs together, and what is owned, as a hearing takes it; in a kernel without a mount."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio
from children import Child
from here import caller_here
from native_msg import CONSTANTS, msgctl, msgget, msgsnd
from native_sem import semctl, semget

from synosfs.errors import SynosError
from synosfs.fs import orphans, uses
from synosfs.fs.hearing import Case, Hearing
from synosfs.host import rights
from synosfs.ipc.verdict import Verdict
from synosfs.kernel import Kernel
from synosfs.slices import Line, Slices
from synosfs.syscall_gate.record import Bare, Request
from synosfs.syscall_gate.spec import bind

KEY = 0x7E57_0100


@dataclass
class Owner:
    pid: int
    program: str


@dataclass
class Ownership:
    """Who owns which objects."""

    of: dict[tuple[str, int], list[Owner]]

    def owners(self, family: str, number: int) -> list[Owner]:
        return self.of.get((family, number), [])


@pytest.fixture
def left() -> Iterator[Callable[[int], int]]:
    """A queue of this key that a dead process has sent to."""
    made = []

    def body(key: int) -> int:
        msqid = msgget(key, 0o1600)
        msgsnd(msqid, 1, b"forgotten")
        return msqid

    def leave(key: int = 0) -> int:
        child = Child(partial(body, key))
        made.append(child.result())
        child.close()
        return made[-1]

    yield leave
    for msqid in made:
        msgctl(msqid, CONSTANTS["IPC_RMID"])


def in_a_kernel(body: Callable[[Kernel], Any]) -> Any:
    async def main() -> Any:
        kernel = Kernel()
        try:
            return await body(kernel)
        finally:
            await kernel.close()

    return trio.run(main)


def heard(msqid: int, ownership: Ownership | None = None) -> Case:
    async def hear(kernel: Kernel) -> Case:
        if ownership:
            kernel.ownership = ownership
        hearing = Hearing(kernel, uses.QUEUES, rights.OWN, Slices(Line()))
        await hearing.prepare()
        return await hearing.case(uses.QUEUES.status(msqid))

    return in_a_kernel(hear)


def test_what_is_owned_is_no_orphan_and_its_owners_are_named(nothing_left: None, left: Callable[..., int]) -> None:
    msqid = left()
    assert heard(msqid).judgement.verdict is Verdict.ORPHAN
    case = heard(msqid, Ownership({("msg", msqid): [Owner(12, "perl")], ("sem", msqid): []}))
    assert case.judgement.verdict is Verdict.OWNED
    assert case.judgement.words.startswith("owned by pid 12 (perl); sent to last by")


def test_reap_leaves_what_is_owned_though_it_be_named(nothing_left: None, left: Callable[..., int]) -> None:
    msqid = left()

    async def reap(kernel: Kernel) -> tuple[list[int], str]:
        kernel.ownership = Ownership({("msg", msqid): [Owner(12, "perl")]})
        row = orphans.command(kernel, uses.QUEUES)

        async def run(*words: bytes) -> Any:
            values, _ = bind(row, Request("reap", [*map(Bare, words)]))
            return await row.handler(*values).run(caller_here(kernel))

        swept = (await run()).results["removed"]
        with pytest.raises(SynosError) as raised:
            await run(b"%d" % msqid)
        return swept, raised.value.message

    swept, message = in_a_kernel(reap)
    assert swept == []
    assert message.startswith(f"queue {msqid} is owned: owned by pid 12 (perl); ")


@pytest.mark.parametrize(
    ("distance", "verdict"),
    [
        (0, Verdict.UNKNOWN),
        (4, Verdict.UNKNOWN),
        (-4, Verdict.UNKNOWN),
        (1 << 24, Verdict.UNKNOWN),  # ftok(3) of one file and another number
        (5, Verdict.ORPHAN),
        (1 << 23, Verdict.ORPHAN),
    ],
)
def test_what_has_a_key_beside_that_of_a_set_in_use_may_belong_to_it(
    nothing_left: None, left: Callable[..., int], distance: int, verdict: Verdict
) -> None:
    semid = semget(KEY + distance, 1, 0o1600)
    semctl(semid, 0, 16, 1)  # by this very process
    try:
        case = heard(left(KEY))
    finally:
        semctl(semid, 0, CONSTANTS["IPC_RMID"])
    assert case.judgement.verdict is verdict
    assert (f"beside that of set {semid}, which is in use" in case.judgement.words) == (verdict is Verdict.UNKNOWN)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another")
def test_what_another_user_made_does_not_belong_to_it(nothing_left: None, left: Callable[..., int]) -> None:
    semid = semget(KEY + 1, 1, 0o1600)
    semctl(semid, 0, 16, 1)
    child = Child(lambda: msgsnd(msgget(KEY, 0o1600), 1, b"forgotten"), uid=65534)
    child.result()
    child.close()
    msqid = msgget(KEY)
    try:
        assert heard(msqid).judgement.verdict is Verdict.ORPHAN
    finally:
        semctl(semid, 0, CONSTANTS["IPC_RMID"])
        msgctl(msqid, CONSTANTS["IPC_RMID"])
