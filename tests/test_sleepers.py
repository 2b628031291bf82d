"""What threads sleep in, asked by a program beside the daemon; and those who keep it from answering."""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from children import Child, wait_until
from command import needs_root
from doors import NOBODY
from native_msg import CONSTANTS, msgctl, msgget, msgrcv

from synosfs.host import sleepers_program
from synosfs.process.blocked_calls import about, shown
from synosfs.process.sleepers import Asked, Sleeper, Sleepers
from synosfs.slices import Line, Slices

Start = Callable[..., Child]


@pytest.fixture
def queue(ipc_namespace: None) -> Iterator[int]:
    msqid = msgget(0, 0o666)
    yield msqid
    msgctl(msqid, CONSTANTS["IPC_RMID"])


@pytest.fixture
def waits(queue: int) -> Iterator[Start]:
    started: list[Child] = []

    def start(uid: int = 0) -> Child:
        started.append(Child(partial(msgrcv, queue, 10), uid=uid))
        channel = Path(f"/proc/{started[-1].pid}/wchan")
        wait_until(lambda: channel.read_text() == "do_msgrcv", "it waits")
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    made = Sleepers()
    yield made
    made.close()
    wait_until(lambda: not made.statistics(), "its programs have ended")


def threads(*children: Child) -> list[tuple[int, int]]:
    return [(child.pid, child.pid) for child in children]


async def asked(sleepers: Sleepers, *children: Child) -> Asked:
    return await sleepers.ask(threads(*children), Slices(Line()))


def stopped_program(sleepers: Sleepers) -> int:
    """Stop the program, as a process that it asks about can; its pid."""
    [pid] = sleepers.statistics()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T", "it stops")
    return pid


def test_it_tells_the_call_and_its_arguments(sleepers: Sleepers, waits: Start, queue: int) -> None:
    child = waits()
    [found] = trio.run(asked, sleepers, child).sleepers
    assert (found.pid, found.tid, found.call, found.args[0], found.args[2]) == (
        child.pid,
        child.pid,
        "msgrcv",
        queue,
        10,
    )


def test_it_says_nothing_of_one_that_runs_sleeps_otherwise_or_has_ended(sleepers: Sleepers, waits: Start) -> None:
    pauses, dead = Child(signal.pause), waits()
    dead.kill()
    try:
        wait_until(lambda: pauses.state == "S", "it sleeps")
        assert trio.run(asked, sleepers, pauses, dead) == Asked([], frozenset(), frozenset(), frozenset())
    finally:
        pauses.close()


def test_who_keeps_it_from_answering_is_passed_over_and_the_others_are_not(sleepers: Sleepers, waits: Start) -> None:
    first, others = waits(), [waits(), waits()]

    async def main() -> Asked:
        await asked(sleepers, first)
        stopped_program(sleepers)
        return await asked(sleepers, first, *others)

    found = trio.run(main)
    assert found.late == {first.pid}
    assert [sleeper.pid for sleeper in found.sleepers] == [other.pid for other in others]


def test_who_was_late_comes_last_and_is_asked_again(sleepers: Sleepers, waits: Start) -> None:
    first, other = waits(), waits()

    async def main() -> Asked:
        await asked(sleepers, first)
        stopped_program(sleepers)
        await asked(sleepers, first)
        return await asked(sleepers, first, other)

    found = trio.run(main)
    assert found.late == frozenset()
    assert [sleeper.pid for sleeper in found.sleepers] == [other.pid, first.pid]


def test_one_that_has_ended_is_started_anew(sleepers: Sleepers, waits: Start) -> None:
    child = waits()

    async def main() -> tuple[Asked, Asked]:
        before = await asked(sleepers, child)
        [pid] = sleepers.statistics()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z", "it ends")
        return before, await asked(sleepers, child)

    before, after = trio.run(main)
    assert before == after
    assert before.sleepers


def test_a_look_that_is_given_up_leaves_no_answers_to_the_next(sleepers: Sleepers, waits: Start) -> None:
    first, other = waits(), waits()

    async def main() -> Asked:
        await asked(sleepers, first)
        pid = stopped_program(sleepers)
        with trio.move_on_after(0.01):
            await asked(sleepers, first)
        os.kill(pid, signal.SIGCONT)
        return await asked(sleepers, other)

    assert [sleeper.pid for sleeper in trio.run(main).sleepers] == [other.pid]


def test_who_has_the_ends_of_a_pipe_is_found_in_proc(sleepers: Sleepers) -> None:
    read_end, write_end = os.pipe()

    def writes() -> None:
        os.close(read_end)
        signal.pause()

    child = Child(writes)
    inode = os.fstat(read_end).st_ino
    try:
        wait_until(lambda: str(read_end) not in os.listdir(f"/proc/{child.pid}/fd"), "it has closed an end")
        ends = trio.run(sleepers.ends, [inode], Slices(Line()))
    finally:
        child.close()
        os.close(read_end)
        os.close(write_end)
    assert os.getpid() in ends.readers[inode] & ends.writers[inode]
    assert child.pid in ends.writers[inode] - ends.readers[inode]


@needs_root
def test_processes_of_others_are_refused_to_a_daemon_without_privilege(waits: Start) -> None:
    child = waits()

    def main() -> tuple[int, frozenset[int]]:
        sleepers = Sleepers()
        found = trio.run(asked, sleepers, child)
        sleepers.close()
        return len(found.sleepers), found.refused

    other = Child(main, uid=NOBODY)
    try:
        assert other.result() == (0, {child.pid})
    finally:
        other.close()


def test_memory_that_is_not_there_is_not_read() -> None:
    assert sleepers_program._memory(os.getpid(), 4096, 6) is None
    assert sleepers_program._memory(os.getpid(), 1 << 62, 6) is None


@pytest.mark.parametrize(
    ("sleeper", "words", "thing"),
    [
        (
            ("semop", (3, 0x1000, 2, 0, 0, 0), ((0, -1, 0o10000), (1, 2, 0))),
            "semop(3, [{0, -1, SEM_UNDO}, {1, 2, 0}], 2)",
            "sem/sysv/3",
        ),
        (("semop", (3, 0x1000, 2, 0, 0, 0), None), "semop(3, 0x1000, 2)", "sem/sysv/3"),
        (
            ("msgrcv", (0xFFFFFFFF, 0x1000, 8, 2**64 - 9, 0o31000, 0), None),
            "msgrcv(-1, 0x1000, 8, -9, MSG_NOERROR|MSG_EXCEPT|0x200)",
            "msgq/sysv/-1",
        ),
        (("msgsnd", (7, 0x1000, 8, 0, 0, 0), None), "msgsnd(7, 0x1000, 8, 0)", "msgq/sysv/7"),
        (("futex", (0x1000, 0, 5, 0, 0, 0), None, "sem.lock"), "futex(0x1000, FUTEX_WAIT, 5, NULL)", "sem/posix/lock"),
        (
            ("futex", (0x1000, 9, 5, 0x20, 0, 1), None, "ring\n"),
            "futex(0x1000, FUTEX_WAIT_BITSET, 5, 0x20, NULL, 0x1)",
            "shm/posix/ring\\n",
        ),
        (("writev", (1, 0x1000, 2, 0, 0, 0), None, "pipe:[77]"), "writev(1<pipe:[77]>, 0x1000, 2)", "pipe:[77]"),
        (("read", (0, 0x1000, 2, 0, 0, 0), None, "/tmp/a\x1bb"), "read(0</tmp/a\\x1bb>, 0x1000, 2)", "/tmp/a\\x1bb"),
        (
            ("mq_timedsend", (4, 0x1000, 2, 5, 0x20, 0), None, "/mail"),
            "mq_timedsend(4</mail>, 0x1000, 2, 5, 0x20)",
            "msgq/posix/mail",
        ),
    ],
)
def test_calls_are_written_as_strace_does(sleeper: tuple, words: str, thing: str) -> None:
    call, args, operations, *file = sleeper
    found = Sleeper(1, 1, call, args, 0, operations, *file)
    assert (shown(found), str(about(found))) == (words, thing)
