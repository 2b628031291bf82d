"""SIGKILL of a caller that is blocked, wherever it blocks and whoever opened the session: it is gone at once, and what
it asked for has not happened and does not happen later.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgrcv, msgsnd

NOWAIT = CONSTANTS["IPC_NOWAIT"]

#: The longest that anything killed may stay on a busy machine, in seconds.
AT_ONCE_S = 10.0


@pytest.fixture(params=["text", "json", "msgpack"])
def door(request: pytest.FixtureRequest, mount: Mount) -> Iterator[MountDoor]:
    door = MountDoor(mount, request.param)
    yield door
    door.close()


def gone_at_once(child: Child, mount: Mount) -> None:
    """Kill it; it leaves no trace."""
    os.kill(child.pid, signal.SIGKILL)
    wait_until(child.ended, f"the death of the blocked process {child.pid}", AT_ONCE_S)
    assert child.status == -signal.SIGKILL
    wait_until(lambda: mount.blocked_callers() == 0, "nobody is blocked", AT_ONCE_S)


def messages(queue: int) -> int:
    return msgctl(queue, CONSTANTS["IPC_STAT"]).results["qnum"]


def nothing_received(queue: int) -> None:
    """A message that comes now is still there for the next."""
    msgsnd(queue, 1, b"later")
    assert msgrcv(queue, 10, 0, NOWAIT).data == b"later"


def nothing_sent(queue: int) -> None:
    """When there is room in a full queue, nothing comes into it."""
    for _ in range(2):
        assert msgrcv(queue, 8192, 0, NOWAIT).ret == 8192
    assert messages(queue) == 0


def test_a_killed_receiver_has_taken_nothing(door: MountDoor, queue: int) -> None:
    gone_at_once(door.block("msgrcv", queue, 10), door.mount)
    nothing_received(queue)


def test_a_killed_sender_has_sent_nothing(door: MountDoor, full_queue: int) -> None:
    gone_at_once(door.block("msgsnd", full_queue, 2, b"never"), door.mount)
    nothing_sent(full_queue)


def test_death_takes_a_moment_and_not_until_the_daemon_looks_for_signals_that_it_missed(
    gate: MountDoor, queue: int
) -> None:
    seconds = []
    for _ in range(9):
        child = gate.block("msgrcv", queue, 10)
        began = time.monotonic()
        child.kill()
        seconds.append(time.monotonic() - began)
    assert sorted(seconds)[4] < 0.5  # half of them: the machine may be busy with others


def test_a_killed_receiver_in_the_middle_of_the_line_leaves_the_others_in_theirs(gate: MountDoor, queue: int) -> None:
    line = [gate.block("msgrcv", queue, 10) for _ in range(4)]
    for position in (0, 2):
        line[position].kill()
    wait_until(lambda: gate.blocked_callers() == 2, "two are left")
    msgsnd(queue, 1, b"first")
    msgsnd(queue, 1, b"second")
    assert [line[1].result().data, line[3].result().data] == [b"first", b"second"]


def test_a_killed_process_is_gone_with_all_its_blocked_threads(gate: MountDoor, queue: int, full_queue: int) -> None:
    def block_in_threads() -> None:
        # A thread of its own for each call, and a session of its own: like a server with workers.
        for request in [b"msgrcv %d 10\n" % queue, b'msgsnd %d 2 "never"\n' % full_queue] * 5:
            session = os.open(gate.mount.gate, os.O_RDWR)
            threading.Thread(target=write, args=(session, request), daemon=True).start()
        threading.Event().wait()

    child = gate.spawn(block_in_threads)
    wait_until(lambda: len(gate.mount.blocked(child.pid)) == 10, "ten threads are blocked")
    gone_at_once(child, gate.mount)
    nothing_received(queue)
    nothing_sent(full_queue)


def test_a_batch_that_is_killed_ends_where_it_was_blocked(gate: MountDoor, mount: Mount, queue: int) -> None:
    calls = [
        f'["msgsnd", [{queue}, 1, "before"]]',
        f'["msgrcv", [{queue}, 10, 7]]',
        f'["msgsnd", [{queue}, 1, "after"]]',
    ]
    batch = ",".join('{"call": %s, "args": %s}' % tuple(call[1:-1].split(", ", 1)) for call in calls)  # noqa: UP031
    child = gate.spawn(lambda: write(os.open(mount.gate, os.O_RDWR), f"[{batch}]\n".encode()))
    wait_until(lambda: mount.blocked(child.pid), "the batch blocks in its second call")
    gone_at_once(child, mount)
    assert msgrcv(queue, 10, 0, NOWAIT).data == b"before"
    assert messages(queue) == 0


@pytest.mark.parametrize("tries", [20])
def test_a_caller_that_is_killed_at_any_moment_has_taken_nothing_or_one_message(
    gate: MountDoor, queue: int, tries: int
) -> None:
    for _ in range(tries):
        child = gate.start("msgrcv", queue, 10)
        child.kill()  # before, while or after it comes to be blocked
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked", AT_ONCE_S)
    nothing_received(queue)


def test_a_receiver_that_is_killed_as_messages_come_loses_at_most_the_one_it_got(gate: MountDoor, queue: int) -> None:
    receivers = [gate.block("msgrcv", queue, 10) for _ in range(10)]
    msgsnd(queue, 1, b"only one")
    for receiver in receivers:
        os.kill(receiver.pid, signal.SIGKILL)
    for receiver in receivers:
        wait_until(receiver.ended, "the death of a receiver", AT_ONCE_S)
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked", AT_ONCE_S)
    nothing_received(queue) if messages(queue) == 0 else msgrcv(queue, 10, 0, NOWAIT)
    assert messages(queue) == 0


# --- queue files


def test_a_killed_reader_of_a_queue_file_has_taken_nothing(gate: MountDoor, mount: Mount, queue: int) -> None:
    path = mount.path / f"msgq/sysv/{queue}"
    child = gate.spawn(lambda: os.read(os.open(path, os.O_RDWR), 100))
    wait_until(lambda: mount.blocked(child.pid), "the reader blocks")
    gone_at_once(child, mount)
    nothing_received(queue)


def test_a_killed_writer_of_a_queue_file_has_sent_nothing(gate: MountDoor, mount: Mount, full_queue: int) -> None:
    path = mount.path / f"msgq/sysv/{full_queue}"
    child = gate.spawn(lambda: os.write(os.open(path, os.O_WRONLY), b"never"))
    wait_until(lambda: mount.blocked(child.pid), "the writer blocks")
    gone_at_once(child, mount)
    nothing_sent(full_queue)


# --- sessions of others


def block_a_child_on_its_parents_session(mount: Mount, request: str) -> subprocess.Popen[bytes]:
    """A bash with a session as descriptor 3, in which a child of it is blocked; it prints the child's pid."""
    script = f"exec 3<>{mount.gate}; (echo '{request}' >&3) & echo $!; read line; echo getpid >&3; head -n 1 <&3"
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", "-c", script], stdin=pipe, stdout=pipe)


@pytest.mark.parametrize("kind", ["receive", "send"])
def test_a_killed_child_on_a_session_of_its_parents_is_gone_and_the_session_lives(
    mount: Mount, new_queue: Callable[..., int], kind: str
) -> None:
    queue = new_queue(full=kind == "send")
    request = f"msgrcv {queue} 10" if kind == "receive" else f'msgsnd {queue} 2 "never"'
    with block_a_child_on_its_parents_session(mount, request) as bash:
        assert bash.stdin
        assert bash.stdout
        child = int(bash.stdout.readline())
        wait_until(lambda: mount.blocked(bash.pid), "the call of the child blocks")
        pidfd = os.pidfd_open(child)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_until(lambda: mount.blocked_callers() == 0, "nobody is blocked", AT_ONCE_S)
        os.close(pidfd)
        # The session's replies are the parent's: first that of the call that was interrupted, then its own.
        bash.stdin.write(b"\n")
        bash.stdin.close()
        assert bash.stdout.read().startswith(b"-1 EINTR ")
    nothing_received(queue) if kind == "receive" else nothing_sent(queue)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_process_killed_while_another_thread_uses_the_session_is_gone(
    gate: MountDoor, queue: int, busy: bool
) -> None:
    def block_elsewhere() -> None:
        session = os.open(gate.mount.gate, os.O_RDWR)
        threading.Thread(target=write, args=(session, b"msgrcv %d 10\n" % queue)).start()
        while busy:
            pass
        threading.Event().wait()

    child = gate.spawn(block_elsewhere)
    wait_until(lambda: gate.mount.blocked(child.pid), "the thread blocks")
    gone_at_once(child, gate.mount)
    nothing_received(queue)


def test_a_process_killed_after_the_opening_thread_has_ended_is_gone(gate: MountDoor, queue: int) -> None:
    def block_in_an_orphan() -> None:
        opened: list[int] = []
        opener = threading.Thread(target=lambda: opened.append(os.open(gate.mount.gate, os.O_RDWR)))
        opener.start()
        opener.join()
        write(opened[0], b"msgrcv %d 10\n" % queue)

    child = gate.spawn(block_in_an_orphan)
    wait_until(lambda: gate.mount.blocked(child.pid), "the process blocks")
    gone_at_once(child, gate.mount)
    nothing_received(queue)


def test_a_child_is_killed_on_its_parents_session_while_the_parent_is_blocked_itself(
    gate: MountDoor, queue: int, full_queue: int
) -> None:
    def block_both() -> None:
        inherited = os.open(gate.mount.gate, os.O_RDWR)
        if os.fork() == 0:
            write(inherited, b"msgrcv %d 10\n" % queue)
        write(os.open(gate.mount.gate, os.O_RDWR), b'msgsnd %d 2 "sent"\n' % full_queue)

    parent = gate.spawn(block_both)
    wait_until(lambda: len(gate.mount.blocked(parent.pid)) == 2, "both block")
    (child,) = children_of(parent.pid)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: gate.blocked_callers() == 1, "the child is gone", AT_ONCE_S)
    assert len(gate.mount.blocked(parent.pid)) == 1
    msgrcv(full_queue, 8192)
    parent.result()
    nothing_received(queue)


def test_a_child_is_killed_on_its_parents_session_while_the_parent_waits_in_another_mount(
    gate: MountDoor, own_mount: Mount, queue: int
) -> None:
    """Where the opener of the session waits is looked at, not only that it does."""

    def block_both() -> None:
        inherited, other = os.open(gate.mount.gate, os.O_RDWR), os.open(own_mount.gate, os.O_RDWR)
        while (
            os.fstat(other).st_ino == os.fstat(inherited).st_ino
        ):  # of two mounts with one number they are not told apart
            other = os.open(own_mount.gate, os.O_RDWR)
        if os.fork() == 0:
            write(inherited, b"msgrcv %d 10\n" % queue)
        write(other, b"nanosleep 60\n")

    parent = gate.spawn(block_both)
    wait_until(lambda: gate.mount.blocked(parent.pid) and own_mount.blocked(parent.pid), "both block")
    (child,) = children_of(parent.pid)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: gate.blocked_callers() == 0, "the child is gone", AT_ONCE_S)
    assert own_mount.blocked(parent.pid)
    parent.kill()
    nothing_received(queue)


def test_a_child_is_killed_in_a_queue_file_in_which_its_parent_waits_too(
    gate: MountDoor, mount: Mount, queue: int
) -> None:
    def block_both() -> bytes:
        inherited = os.open(mount.path / f"msgq/sysv/{queue}", os.O_RDWR)
        # Not read(2): of two who share a file position the kernel lets only one into the file at a time.
        if os.fork() == 0:
            os.pread(inherited, 100, 0)
        return os.pread(inherited, 100, 0)

    parent = gate.spawn(block_both)
    wait_until(lambda: len(mount.blocked(parent.pid)) == 2, "both block")
    (child,) = children_of(parent.pid)
    pidfd = os.pidfd_open(child)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    wait_until(lambda: select.select([pidfd], [], [], 0)[0], "the death of the child", AT_ONCE_S)
    os.close(pidfd)
    # os.pread makes the call again on the EINTR that both of them got, for one open file has one waiter that is known.
    msgsnd(queue, 1, b"for the parent")
    assert parent.result() == b"for the parent"


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_many_killed_at_once_are_gone_at_once(gate: MountDoor, queue: int, full_queue: int) -> None:
    receivers = [gate.block("msgrcv", queue, 10, kind + 1) for kind in range(20)]
    senders = [gate.block("msgsnd", full_queue, 2, b"never") for _ in range(20)]
    for each in receivers + senders:
        os.kill(each.pid, signal.SIGKILL)
    for each in receivers + senders:
        wait_until(each.ended, f"the death of {each.pid}", AT_ONCE_S)
    wait_until(partial(_nobody_blocked, gate), "nobody is blocked", AT_ONCE_S)
    nothing_received(queue)
    nothing_sent(full_queue)


def _nobody_blocked(gate: MountDoor) -> bool:
    return gate.blocked_callers() == 0
