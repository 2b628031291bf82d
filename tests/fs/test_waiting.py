"""``waiting``, ``waiting.dot`` and ``advice``: native programs and SynOS processes that wait, in every kind of call."""

import ctypes
import fcntl
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import native_posix
import pytest
from children import Child, wait_until
from command import needs_root, run
from doors import NOBODY, MountDoor, NativeDoor, write
from mounts import Mount
from native import libc
from native_msg import CONSTANTS, msgctl, msgget, msgrcv, msgsnd
from native_sem import semctl, semop

Start = Callable[..., Child]
NewSet = Callable[..., int]

SEM_UNDO = 0o10000
GETPID = 11


class Row(NamedTuple):
    """A line of ``waiting``."""

    pid: int
    tid: int
    program: str
    state: str
    since: str
    object: str
    behind: str
    call: str


def waiting(mount: Mount) -> dict[int, Row]:
    """The rows, by tid."""
    header, *lines = (mount.path / "waiting").read_text().splitlines()
    assert header.split() == list(Row._fields)
    rows = [re.split(" {2,}", line, maxsplit=7) for line in lines]
    return {int(row[1]): Row(int(row[0]), int(row[1]), *row[2:]) for row in rows}


def row_of(mount: Mount, child: Child) -> Row:
    """Of a child that is about to wait, once it does."""
    wait_until(lambda: child.pid in waiting(mount), f"process {child.pid} waits")
    return waiting(mount)[child.pid]


def advice(mount: Mount, word: str, *pids: int) -> list[str]:
    """The pieces of advice that begin with the word and name all of these pids."""
    pieces = re.split(r"\n(?! )", (mount.path / "advice").read_text())
    return [
        piece for piece in pieces if piece.startswith(word) and all(re.search(rf"\bpid {pid}\b", piece) for pid in pids)
    ]


@pytest.fixture
def queue(ipc_namespace: None) -> Iterator[int]:
    msqid = msgget(0, 0o600)
    yield msqid
    msgctl(msqid, CONSTANTS["IPC_RMID"])


NAME = b"/synosfs-waiting-%d" % os.getpid()


@pytest.fixture
def named(ipc_namespace: None) -> Iterator[str]:
    yield NAME.decode()
    native_posix.unlink_all(NAME)


# --- every kind of call, in one table --------------------------------------------------------------------------------


def _full(msqid: int) -> None:
    msgctl(msqid, CONSTANTS["IPC_SET"], qbytes=4)
    msgsnd(msqid, 7, b"five!")


def _mq(receives: bool) -> None:
    call = native_posix.CALLS
    mqd = native_posix.mq_open(NAME, os.O_RDWR | os.O_CREAT, 0o600, maxmsg=1, msgsize=8)
    if receives:
        call["mq_receive"](mqd, 8)
    for _ in range(2):
        call["mq_send"](mqd, b"x", 3)


def _sem() -> None:
    native_posix.CALLS["sem_wait"](native_posix.sem_open(NAME, os.O_CREAT, 0o600, 0))


def _pipe(writes: bool) -> None:
    read_end, write_end = os.pipe()
    while writes:
        os.write(write_end, bytes(4096))
    os.read(read_end, 100)


def _fifo(path: Path) -> None:
    os.mkfifo(path)
    os.read(os.open(path, os.O_RDWR), 10)


def alike(call: str) -> str:
    """The call without what differs from run to run: addresses, descriptors and inode numbers."""
    return re.sub(r"pipe:\[\d+\]", "pipe", re.sub(r"\d+<", "fd<", re.sub(r"0x[0-9a-f]{3,}", "&", call)))


def test_every_kind_of_native_wait_stands_beside_those_of_the_gate(
    mount: Mount, gate: MountDoor, queue: int, named: str, new_set: NewSet, children: Start, tmp_path: Path
) -> None:
    semid, other, fifo = new_set([1, 0, 2]), msgget(0, 0o600), tmp_path / "fifo"
    both = partial(semop, semid, (0, -1, SEM_UNDO), (1, -1))
    futex = "futex(&, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 0, NULL, NULL, FUTEX_BITSET_MATCH_ANY)"
    natives = [
        (partial(msgrcv, queue, 10, -9, 0o10000), f"msgrcv({queue}, &, 10, -9, MSG_NOERROR)", f"msgq/sysv/{queue}"),
        (partial(_full, other), f"msgsnd({other}, &, 5, 0)", f"msgq/sysv/{other}"),
        (both, f"semtimedop({semid}, [{{0, -1, SEM_UNDO}}, {{1, -1, 0}}], 2, NULL)", f"sem/sysv/{semid}[1]"),
        (partial(semop, semid, (2, 0)), f"semtimedop({semid}, [{{2, 0, 0}}], 1, NULL)", f"sem/sysv/{semid}[2]"),
        (partial(_pipe, writes=False), "read(fd<pipe>, &, 100)", "pipe"),
        (partial(_pipe, writes=True), "write(fd<pipe>, &, 4096)", "pipe"),
        (partial(_fifo, fifo), f"read(fd<{fifo}>, &, 10)", str(fifo)),
        (_sem, futex, f"sem/posix{named}"),
        (partial(_mq, receives=True), f"mq_timedreceive(fd<{named}>, &, 8, &, NULL)", f"msgq/posix{named}"),
    ]
    started = [(children(body), *expected) for body, *expected in natives]
    ours = [
        (gate.spawn(lambda: gate.ok("msgrcv", queue, 8, 5)), f"msgrcv({queue}, 8, 5, 0)", f"msgq/sysv/{queue}"),
        (
            gate.spawn(lambda: gate.ok("semop", semid, "1:-1:0")),
            f"semop({semid}, [{{1, -1, 0}}])",
            f"sem/sysv/{semid}[1]",
        ),
    ]
    for child, call, thing in started + ours:
        row = row_of(mount, child)
        assert (alike(row.call), alike(row.object)) == (call, thing)
        assert (row.pid, row.tid, row.state) == (child.pid, child.pid, "S")
        assert row.program
    for child, _, _ in ours:
        assert float(waiting(mount)[child.pid].since) >= 0
        child.kill()
    msgctl(other, CONSTANTS["IPC_RMID"])


def test_a_full_posix_queue_is_waited_for_with_its_priority(mount: Mount, named: str, children: Start) -> None:
    row = row_of(mount, children(partial(_mq, receives=False)))
    assert re.fullmatch(rf"mq_timedsend\(\d+<{named}>, 0x[0-9a-f]+, 1, 3, NULL\)", row.call)
    assert row.object == f"msgq/posix{named}"


def test_a_wait_is_known_since_it_was_first_seen_and_anew_when_it_begins_again(
    mount: Mount, queue: int, children: Start
) -> None:
    child = children(lambda: [msgrcv(queue, 10, 1) for _ in range(2)])
    row = row_of(mount, child)
    wait_until(lambda: waiting(mount)[child.pid].since != "-", "it was seen before")
    seen = float(waiting(mount)[child.pid].since)
    wait_until(lambda: float(waiting(mount)[child.pid].since) > seen, "time passes")
    assert waiting(mount)[child.pid].call == row.call
    msgsnd(queue, 1, b"one")
    wait_until(lambda: waiting(mount).get(child.pid, row).since == "-", "it waits again")


def test_who_sent_to_a_queue_last_is_a_guess_of_who_will(mount: Mount, queue: int, children: Start) -> None:
    msgsnd(queue, 5, b"other type")
    row = row_of(mount, children(partial(msgrcv, queue, 10, 1)))
    assert row.behind == f"{os.getpid()}?"


def test_looking_changes_nothing(mount: Mount, new_set: NewSet, children: Start) -> None:
    semid = new_set([0])
    child = children(partial(semop, semid, (0, -1)))
    row_of(mount, child)
    before = Path("/proc/sysvipc/sem").read_text(), semctl(semid, 0, GETPID)
    for name in ("waiting", "waiting.dot", "advice"):
        (mount.path / name).read_text()
        with pytest.raises(PermissionError):
            (mount.path / name).write_text("")
    assert (Path("/proc/sysvipc/sem").read_text(), semctl(semid, 0, GETPID)) == before
    assert mount.stats()["processes"] == "0" or str(child.pid) not in os.listdir(mount.path / "proc")


def _may_be_looked_into() -> None:
    """As a user's programs may be, other than one that was root before (PR_SET_DUMPABLE)."""
    libc.prctl(4, 1, 0, 0, 0)


# --- deadlocks -------------------------------------------------------------------------------------------------------


def _takes_in_turn(semid: int, first: int, then: int, taken: int, ready: int) -> None:
    _may_be_looked_into()
    semop(semid, (first, -1))
    os.write(taken, b".")
    os.read(ready, 1)
    semop(semid, (then, -1))


@pytest.fixture
def rendezvous() -> Iterator[tuple[int, int, int, int]]:
    """Two pipes: who has taken says so in one, and goes on when the other has something."""
    pipes = (*os.pipe(), *os.pipe())
    yield pipes
    for fd in pipes:
        os.close(fd)


def _two_that_hold_one_each(
    new_set: NewSet, children: Start, rendezvous: tuple[int, int, int, int]
) -> tuple[int, list[Child], int]:
    """The set, two native programs that have taken one semaphore of it each, and where they are told to want the
    other's.
    """
    semid = new_set([1, 1])
    told, taken, ready, go = rendezvous
    pair = [children(partial(_takes_in_turn, semid, num, 1 - num, taken, ready)) for num in (0, 1)]
    for _ in pair:
        os.read(told, 1)
    return semid, pair, go


def test_two_native_programs_that_hold_what_the_other_wants_are_found(
    mount: Mount, new_set: NewSet, children: Start, rendezvous: tuple[int, int, int, int]
) -> None:
    semid, pair, go = _two_that_hold_one_each(new_set, children, rendezvous)
    assert not advice(mount, "deadlock", pair[0].pid, pair[1].pid)  # each holds one, and none waits yet
    os.write(go, b"..")
    for num, child in enumerate(pair):
        row = row_of(mount, child)
        assert (row.object, row.behind) == (f"sem/sysv/{semid}[{1 - num}]", f"{pair[1 - num].pid}?")
    [found] = advice(mount, "deadlock", pair[0].pid, pair[1].pid)
    assert found.startswith("deadlock (probable): 2 processes wait for each other\n")
    assert f"waits for sem/sysv/{semid}[1] in semtimedop({semid}, [{{1, -1, 0}}], 1, NULL); that was last with" in found
    way_out = re.search(r"the shortest way out: kill (\d+), which ends pid", found)
    assert way_out
    victim = int(way_out[1])
    os.kill(victim, signal.SIGTERM)
    wait_until(lambda: not advice(mount, "deadlock", victim), "it is resolved")
    # What the dead one held it took without SEM_UNDO.
    survivor = next(child for child in pair if child.pid != victim)
    wait_until(lambda: advice(mount, "dead holder", survivor.pid, victim), "the other waits for a dead one")
    [found] = advice(mount, "dead holder", survivor.pid, victim)
    way = re.search(rf"echo (\d:\+1:0) > (sem/sysv/{semid})$", found)
    assert way
    (mount.path / way[2]).write_text(f"{way[1]}\n")
    assert survivor.result() is None


def test_a_synos_process_and_a_native_one_are_found_and_the_way_out_is_one(
    mount: Mount, gate: MountDoor, new_set: NewSet, children: Start, rendezvous: tuple[int, int, int, int]
) -> None:
    semid = new_set([1, 1])
    told, taken, ready, go = rendezvous
    native = children(partial(_takes_in_turn, semid, 1, 0, taken, ready))

    def shell() -> object:
        gate.ok("semop", semid, "0:-1:SEM_UNDO")
        os.write(taken, b".")
        os.read(ready, 1)
        return gate.call("semop", semid, "1:-1:SEM_UNDO").errno

    synos = gate.spawn(shell)
    for _ in range(2):
        os.read(told, 1)
    os.write(go, b"..")
    assert row_of(mount, native).behind == str(synos.pid)  # by SEM_UNDO, for certain
    assert row_of(mount, synos).behind == f"{native.pid}?"
    wait_until(lambda: advice(mount, "deadlock (probable)", native.pid, synos.pid), "it is found")
    [found] = advice(mount, "deadlock", native.pid, synos.pid)
    way_out = re.search(r"the shortest way out: echo (end \d+) > (proc/\d+/ctl), which ends", found)
    assert way_out
    (mount.path / way_out[2]).write_text(way_out[1] + "\n")
    assert synos.result() == "EINTR"
    native.result()
    assert not advice(mount, "deadlock", native.pid)


def test_two_synos_processes_with_undo_are_certain(
    mount: Mount, gate: MountDoor, new_set: NewSet, rendezvous: tuple[int, int, int, int]
) -> None:
    semid = new_set([1, 1])
    told, taken, ready, go = rendezvous

    def body(first: int, then: int) -> None:
        gate.ok("semop", semid, f"{first}:-1:SEM_UNDO")
        os.write(taken, b".")
        os.read(ready, 1)
        gate.call("semop", semid, f"{then}:-1:SEM_UNDO")

    pair = [gate.spawn(partial(body, num, 1 - num)) for num in (0, 1)]
    for _ in pair:
        os.read(told, 1)
    os.write(go, b"..")
    for child in pair:
        row_of(mount, child)
    wait_until(lambda: advice(mount, "deadlock (exact): 2", *(child.pid for child in pair)), "it is found")
    pair[0].kill()
    pair[1].result()  # it was given what the dead one had taken


def test_a_wait_with_a_time_out_is_no_deadlock(
    mount: Mount, new_set: NewSet, children: Start, rendezvous: tuple[int, int, int, int]
) -> None:
    semid = new_set([1, 1])
    told, taken, ready, go = rendezvous

    def timed() -> None:
        semop(semid, (1, -1))
        os.write(taken, b".")
        os.read(ready, 1)
        with suppress(OSError):
            libc.semtimedop(semid, struct.pack("HhH", 0, -1, 0), 1, struct.pack("ll", 1000, 0))

    pair = [children(partial(_takes_in_turn, semid, 0, 1, taken, ready)), children(timed)]
    for _ in pair:
        os.read(told, 1)
    os.write(go, b"..")
    assert row_of(mount, pair[1]).call.endswith("1, 0x" + row_of(mount, pair[1]).call.rpartition("0x")[2])
    row_of(mount, pair[0])
    assert not advice(mount, "deadlock", pair[0].pid)


_EACH_READS = """
import os
(a_read, a_write), (b_read, b_write) = os.pipe(), os.pipe()
if os.fork():
    os.close(a_write), os.close(b_read)
    print(os.getpid(), flush=True)
    os.read(a_read, 1)
else:
    os.close(a_read), os.close(b_write)
    os.read(b_read, 1)
"""


def test_two_that_read_from_each_others_pipe_are_found(mount: Mount) -> None:
    with subprocess.Popen([sys.executable, "-c", _EACH_READS], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout
            assert int(parent.stdout.readline()) == parent.pid
            wait_until(lambda: advice(mount, "deadlock", parent.pid), "it is found")
            [found] = advice(mount, "deadlock", parent.pid)
            assert ": 2 processes wait for each other" in found
            assert re.search(r"waits for pipe:\[\d+\] in read\(\d+<pipe:", found)
        finally:
            parent.kill()  # which the other reads the end of


def test_consumers_that_have_taken_the_last_wait_for_whoever_gives_and_not_for_each_other(
    mount: Mount, new_set: NewSet, children: Start
) -> None:
    semid = new_set([2])
    pair = [children(lambda: [semop(semid, (0, -1)) for _ in range(3)]) for _ in range(2)]
    for child in pair:
        row_of(mount, child)
    wait_until(lambda: semctl(semid, 0, 14) == 2, "both wait")
    assert [waiting(mount)[child.pid].behind for child in pair] == ["-", "-"]
    for child in pair:
        assert not advice(mount, "deadlock", child.pid)


def test_a_process_that_has_a_thread_to_help_with_is_in_no_deadlock(
    mount: Mount, new_set: NewSet, children: Start, rendezvous: tuple[int, int, int, int]
) -> None:
    semid = new_set([1, 1])
    told, taken, ready, go = rendezvous

    def helped() -> None:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        _takes_in_turn(semid, 1, 0, taken, ready)

    pair = [children(partial(_takes_in_turn, semid, 0, 1, taken, ready)), children(helped)]
    for _ in pair:
        os.read(told, 1)
    os.write(go, b"..")
    for child in pair:
        row_of(mount, child)
    assert not advice(mount, "deadlock", pair[0].pid)


def test_the_graph_is_what_graphviz_takes(
    mount: Mount, new_set: NewSet, children: Start, rendezvous: tuple[int, int, int, int]
) -> None:
    semid, pair, go = _two_that_hold_one_each(new_set, children, rendezvous)
    os.write(go, b"..")
    for child in pair:
        row_of(mount, child)
    text = (mount.path / "waiting.dot").read_text()
    assert re.fullmatch(r'digraph waiting \{\n(?:  "[^"\n]+"(?: -> "[^"\n]+")? \[[^\n]*\]\n)*\}\n', text)
    for num, child in enumerate(pair):
        thing = f'"sem sem/sysv/{semid}[{1 - num}]"'
        assert f'  "{child.pid}" -> {thing} [label="semtimedop" color=red]\n' in text
        assert f'  {thing} -> "{pair[1 - num].pid}" [label=held style=dashed color=red]\n' in text
    if shutil.which("dot"):
        drawn = run("dot", "-Tsvg", input=text)
        assert drawn.returncode == 0, drawn.stderr
        assert f"sem/sysv/{semid}[1]" in drawn.stdout


# --- other advice ----------------------------------------------------------------------------------------------------


def test_a_queue_that_only_grows_is_told_of_until_somebody_receives(mount: Mount, queue: int) -> None:
    def grows() -> bool:
        msgsnd(queue, 1, b"more")
        return any(f"msgq/sysv/{queue} had" in piece for piece in advice(mount, "growing"))

    wait_until(grows, "it was seen to grow")
    msgrcv(queue, 10)
    assert not advice(mount, f"growing: msgq/sysv/{queue} ")


def test_a_semaphore_near_its_limit_is_told_of_to_who_may_read_it(mount: Mount, new_set: NewSet) -> None:
    semid = new_set([5, 32000])
    [found] = advice(mount, f"near the limit: semaphore 1 of sem/sysv/{semid} has 32000 of 32767")
    command = re.search(r"echo (setval [^>]+) > (sem/ctl)", found)
    assert command
    (mount.path / command[2]).write_text(command[1] + "\n")
    assert not advice(mount, "near the limit")


# --- rights ----------------------------------------------------------------------------------------------------------


@needs_root
def test_another_user_sees_that_a_process_waits_and_nothing_of_the_call(
    mount: Mount, queue: int, new_set: NewSet, children: Start
) -> None:
    semid = new_set([0, 32000])
    roots = children(partial(msgrcv, queue, 10))
    own = msgget(0, 0o666)
    nobodys = children(lambda: (_may_be_looked_into(), msgrcv(own, 10)), uid=NOBODY)
    dead = children(partial(semop, semid, (0, -1)))
    for child in (roots, nobodys, dead):
        row_of(mount, child)
    seen, told, graph = children(
        lambda: (waiting(mount), advice(mount, ""), (mount.path / "waiting.dot").read_text()), uid=NOBODY
    ).result()
    assert seen[roots.pid][4:] == ("-", "-", "-", "-")
    assert seen[roots.pid][:2] == (roots.pid, roots.pid)
    assert seen[nobodys.pid].call.startswith(f"msgrcv({own}, ")
    assert seen[nobodys.pid].object == f"msgq/sysv/{own}"
    assert not [piece for piece in told if f"sem/sysv/{semid}" in piece]
    assert f"msgq/sysv/{queue}" not in graph
    assert f"msgq/sysv/{own}" in graph
    msgctl(own, CONSTANTS["IPC_RMID"])


@needs_root
def test_a_deadlock_is_for_who_may_look_into_one_of_its_processes(
    mount: Mount, new_set: NewSet, children: Start, rendezvous: tuple[int, int, int, int]
) -> None:
    semid = new_set([1, 1], mode=0o666)
    told, taken, ready, go = rendezvous
    pair = [
        children(partial(_takes_in_turn, semid, num, 1 - num, taken, ready), uid=uid)
        for num, uid in ((0, 0), (1, NOBODY))
    ]
    for _ in pair:
        os.read(told, 1)
    os.write(go, b"..")
    for child in pair:
        row_of(mount, child)
    pids = [child.pid for child in pair]
    [found] = children(lambda: advice(mount, "deadlock", *pids), uid=NOBODY).result()
    assert re.search(rf"pid {pids[0]} \([^)]*\) waits; what for is not yours to see", found)
    assert f"kill {pids[1]}, which" in found
    assert children(lambda: advice(mount, "deadlock"), uid=NOBODY - 1).result() == []


# --- processes that change, or mean harm -----------------------------------------------------------------------------


def test_one_that_dies_or_executes_another_program_is_gone_from_the_table(
    mount: Mount, queue: int, children: Start
) -> None:
    def body() -> None:
        with suppress(InterruptedError):
            msgrcv(queue, 10)
        os.execlp("sleep", "sleep", "1000")

    def interrupts(*_: object) -> None:
        raise InterruptedError

    def other() -> None:
        signal.signal(signal.SIGUSR2, interrupts)
        body()

    dies, changes = children(partial(msgrcv, queue, 10)), children(other)
    for child in (dies, changes):
        row_of(mount, child)
    dies.kill()
    os.kill(changes.pid, signal.SIGUSR2)
    wait_until(lambda: not {dies.pid, changes.pid} & {*waiting(mount)}, "both are gone")


def _without_its_operations(semid: int, drop: Callable[[mmap.mmap, int], None]) -> None:
    """A thread waits with operations in a page that is dropped then."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[:6] = struct.pack("HhH", 0, -1, 0)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    thread = threading.Thread(target=libc.semtimedop, args=(semid, ctypes.c_void_p(address), 1, None), daemon=True)
    thread.start()
    wait_until(lambda: "sem" in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text(), "it sleeps")
    drop(page, address)
    signal.pause()


def _discard(page: mmap.mmap, address: int) -> None:
    assert libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE)) == 0


def _keep_for_ever(page: mmap.mmap, address: int) -> None:
    """Give the page away, and let nobody have it: userfaultfd(2), whose server never answers."""
    fd = libc.syscall(323, os.O_CLOEXEC)
    if fd < 0:
        os._exit(77)
    fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
    fcntl.ioctl(fd, 0xC020AA00, bytearray(struct.pack("QQQQ", address, mmap.PAGESIZE, 1, 0)))
    assert libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 4) == 0


@pytest.mark.parametrize("drop", [_discard, _keep_for_ever])
def test_operations_that_cannot_be_read_at_once_are_shown_by_their_address(
    mount: Mount, new_set: NewSet, children: Start, drop: Callable[[mmap.mmap, int], None]
) -> None:
    semid = new_set([0])
    child = children(partial(_without_its_operations, semid, drop))

    def rows() -> list[Row]:
        return [row for row in waiting(mount).values() if row.pid == child.pid]

    wait_until(lambda: child.ended() or (rows() and "[{" not in rows()[0].call), "it waits without its page")
    if child.status == 77:
        pytest.skip("no userfaultfd here")
    assert child.status is None
    [row] = rows()
    assert re.fullmatch(rf"semtimedop\({semid}, 0x[0-9a-f]+, 1, NULL\)", row.call)
    assert row.object == f"sem/sysv/{semid}"


def test_what_waits_in_another_ipc_namespace_is_not_taken_for_ours(
    mount: Mount, queue: int, native: NativeDoor, children: Start
) -> None:
    def elsewhere() -> None:
        if libc.unshare(0x08000000):
            os._exit(77)
        msgrcv(msgget(0, 0o600), 10)

    child = children(elsewhere)
    wait_until(lambda: child.ended() or "msg" in Path(f"/proc/{child.pid}/wchan").read_text(), "it waits there")
    if child.status == 77:
        pytest.skip("needs the right to make namespaces")
    assert child.pid not in waiting(mount)


def test_a_call_on_behalf_of_another_process_is_a_row_of_that_one(mount: Mount, gate: MountDoor, queue: int) -> None:
    member = gate.spawn_member()
    its_gate = mount.path / f"proc/{member.pid}/syscall"
    other = gate.spawn(lambda: write(os.open(its_gate, os.O_RDWR), b"msgrcv %d 10\n" % queue))
    wait_until(lambda: mount.blocked(member.pid), "it waits")
    row = waiting(mount)[member.pid]
    assert (row.pid, row.call) == (member.pid, f"msgrcv({queue}, 10, 0, 0)")
    other.kill()
