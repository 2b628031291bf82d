"""Who has a pid, who had it, and who waits in a queue: asked of the host."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from children import Child, wait_until
from command import needs_root
from namespaces import CLONE_NEWIPC, unshare
from native_msg import CONSTANTS, msgctl, msgget, msgrcv, msgsnd

from synosfs.host import procfs
from synosfs.ipc.verdict import Deed, Fate, Use, fate
from synosfs.process.witnesses import Waiters, Witnesses
from synosfs.slices import Line, Slices


@pytest.fixture
def queue(ipc_namespace: None) -> Iterator[int]:
    msqid = msgget(0, 0o600)
    yield msqid
    msgctl(msqid, CONSTANTS["IPC_RMID"])


@pytest.fixture
def child() -> Iterator[Callable[[Callable[[], object]], Child]]:
    started: list[Child] = []

    def start(body: Callable[[], object]) -> Child:
        started.append(Child(body))
        return started[-1]

    yield start
    for each in started:
        each.close()


def waiters() -> Waiters:
    async def look() -> Waiters:
        return await Witnesses().waiters(Slices(Line()))

    return trio.run(look)


def test_a_live_process_is_found_with_its_program_and_start() -> None:
    witness, *_ = Witnesses().look(names=True).witnesses([Use(Deed.SENT, os.getpid(), int(time.time()))])
    assert witness.found is not None
    assert witness.found.program
    assert time.time() - 3600 * 24 < witness.found.started <= time.time()
    assert fate(witness) is Fate.ALIVE


def test_a_process_is_not_the_one_that_a_pid_meant_before_its_start() -> None:
    [witness] = Witnesses().look(names=True).witnesses([Use(Deed.SENT, os.getpid(), 1000)])
    assert fate(witness) is Fate.ANOTHER


def test_the_program_of_one_that_has_died_is_remembered_and_one_nobody_saw_is_dead_without(
    child: Callable[[Callable[[], object]], Child],
) -> None:
    witnesses = Witnesses()
    sleeper = child(signal.pause)
    use = Use(Deed.SENT, sleeper.pid, int(time.time()))
    [alive] = witnesses.look(names=True).witnesses([use])
    sleeper.kill()
    [dead] = witnesses.look(names=True).witnesses([use])
    assert (fate(alive), fate(dead)) == (Fate.ALIVE, Fate.DEAD)
    assert dead.program == alive.found.program
    assert Witnesses().look(names=True).witnesses([use])[0].program == ""


def test_a_zombie_is_dead(child: Callable[[Callable[[], object]], Child]) -> None:
    zombie = child(lambda: None)
    wait_until(lambda: zombie.state == "Z", "its end")
    [witness] = Witnesses().look(names=True).witnesses([Use(Deed.SENT, zombie.pid, int(time.time()))])
    assert fate(witness) is Fate.DEAD


def test_without_names_no_program_and_no_start_is_told() -> None:
    [witness] = Witnesses().look(names=False).witnesses([Use(Deed.SENT, os.getpid(), int(time.time()))])
    assert witness.found is not None
    assert (witness.found.program, witness.program) == ("", "")


def test_a_clock_that_was_set_forward_makes_nobody_younger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that started, and used its queue, before the clock was set."""
    witnesses = Witnesses()
    use = Use(Deed.SENT, os.getpid(), int(time.time()))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    [witness] = witnesses.look(names=True).witnesses([use])
    assert fate(witness) is Fate.ALIVE


def test_what_does_not_answer_in_time_leaves_a_doubt_and_is_not_asked_again_meanwhile(
    queue: int, child: Callable[[Callable[[], object]], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a process executes a program, and closes a file that does not let go."""
    stuck, asked = threading.Event(), []

    def current_call_blocking(tid: int) -> tuple[int, ...]:
        asked.append(tid)
        stuck.wait()
        return ()

    receiver = child(partial(msgrcv, queue, 100))
    wait_until(lambda: _asleep(receiver, 70), "it sleeps")
    monkeypatch.setattr(procfs, "current_call_blocking", current_call_blocking)

    async def look() -> list[Waiters]:
        witnesses, slices = Witnesses(), Slices(Line())
        return [await witnesses.waiters(slices), await witnesses.waiters(slices)]

    try:
        assert [waiters.is_late for waiters in trio.run(look)] == [True, True]
        assert len(asked) == 1
    finally:
        stuck.set()


def _asleep(child: Child, call: int) -> bool:
    with open(f"/proc/{child.pid}/syscall") as file:
        return file.read().startswith(f"{call} ")


def test_who_sleeps_in_msgrcv_or_msgsnd_waits_in_that_queue(
    queue: int, child: Callable[[Callable[[], object]], Child]
) -> None:
    msgctl(queue, CONSTANTS["IPC_SET"], qbytes=10)
    msgsnd(queue, 1, b"x" * 10)
    receiver = child(partial(msgrcv, queue, 100, 9))
    sender = child(partial(msgsnd, queue, 1, b"more"))
    wait_until(lambda: _asleep(receiver, 70) and _asleep(sender, 69), "both sleep")
    assert waiters().of[queue] == 2
    receiver.kill()
    assert waiters().of[queue] == 1


def test_one_that_was_stopped_while_it_waited_goes_on_waiting_when_it_is_continued(
    queue: int, child: Callable[[Callable[[], object]], Child]
) -> None:
    receiver = child(partial(msgrcv, queue, 100, 0))
    wait_until(lambda: _asleep(receiver, 70), "it sleeps")
    os.kill(receiver.pid, signal.SIGSTOP)
    wait_until(lambda: receiver.state == "T", "it stops")
    assert waiters().of[queue] == 1
    os.kill(receiver.pid, signal.SIGCONT)
    wait_until(lambda: receiver.state == "S", "it goes on")
    assert waiters().of[queue] == 1


def test_a_thread_that_is_not_the_first_waits_too(queue: int, child: Callable[[Callable[[], object]], Child]) -> None:
    def threads() -> None:
        threading.Thread(target=partial(msgrcv, queue, 100, 0), daemon=True).start()
        signal.pause()

    process = child(threads)
    tasks = f"/proc/{process.pid}/task"
    wait_until(lambda: len(os.listdir(tasks)) == 2, "it has a second thread")
    wait_until(lambda: waiters().of[queue] == 1, "that one waits")


@needs_root
def test_one_that_waits_in_a_queue_of_the_same_id_elsewhere_does_not_count(
    queue: int, child: Callable[[Callable[[], object]], Child]
) -> None:
    def elsewhere() -> None:
        unshare(CLONE_NEWIPC)
        Path("/proc/sys/kernel/msg_next_id").write_text(str(queue))
        assert msgget(0, 0o600) == queue
        msgrcv(queue, 100)

    other = child(elsewhere)
    wait_until(lambda: _asleep(other, 70), "it sleeps")
    assert waiters().of[queue] == 0
