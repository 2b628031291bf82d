"""Too many of everything: sessions, processes that come and go, callers at one name. The daemon lives and lets go."""

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from children import wait_until
from doors import MountDoor, write
from mounts import Mount, mounted

MOST_DESCRIPTORS = 64


def descriptors(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.daemon.pid}/fd"))


def threads(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.daemon.pid}/task"))


def processes(mount: Mount) -> set[str]:
    return set(os.listdir(mount.path / "proc")) - {"self"}


def test_callers_get_an_errno_when_the_daemon_has_no_descriptor_left(nothing_left: None) -> None:
    with mounted(prefix=("prlimit", f"--nofile={MOST_DESCRIPTORS}:{MOST_DESCRIPTORS}", "--")) as mount:
        gate = MountDoor(mount, "text")

        def take_part(hold: int) -> str:
            try:
                session = os.open(mount.gate, os.O_RDWR)
                answer = write(session, b"getpid\n")
            except OSError as error:
                answer = errno.errorcode[error.errno or 0]
            os.write(ready, b".")
            os.read(hold, 1)
            return answer

        hold, release = os.pipe()
        answers, ready = os.pipe()
        # Each process that takes part costs the daemon one descriptor.
        children = [gate.spawn(partial(take_part, hold)) for _ in range(MOST_DESCRIPTORS + 20)]
        for _ in children:
            os.read(answers, 1)
        os.write(release, b"." * len(children))
        told = Counter(child.result() for child in children)
        assert set(told) <= {"", "EAGAIN", "EMFILE"}
        assert told[""] > MOST_DESCRIPTORS // 3
        assert told["EAGAIN"] + told["EMFILE"] >= 20
        # They have ended, and there is room again.
        assert gate.ok("getpid").ret == os.getpid()
        wait_until(lambda: processes(mount) == {str(os.getpid())}, "the dead have left")
        gate.close()
        for fd in (hold, release, answers, ready):
            os.close(fd)
        # The daemon may have said so in its log, and nothing else.
        assert all("Too many open files" in line for line in mount.complaints())


def test_one_process_may_have_more_sessions_than_the_daemon_has_descriptors(nothing_left: None) -> None:
    with mounted(prefix=("prlimit", f"--nofile={MOST_DESCRIPTORS}:{MOST_DESCRIPTORS}", "--")) as mount:
        sessions = [os.open(mount.gate, os.O_RDWR) for _ in range(4 * MOST_DESCRIPTORS)]
        for session in sessions:
            assert write(session, b"getpid\n") == ""
        for session in sessions:
            assert os.read(session, 100) == b"%d\n" % os.getpid()
            os.close(session)


def test_hundreds_of_processes_come_and_go_and_leave_nothing(gate: MountDoor, mount: Mount, queue: int) -> None:
    gate.ok("getpid")
    wait_until(lambda: processes(mount) == {str(os.getpid())}, "only this process takes part")
    before = descriptors(mount), threads(mount)

    def come_and_go() -> None:
        requests = [
            b"getpid\n",
            b"msgrcv %d 10 0 IPC_NOWAIT\n" % queue,
            b"pipe\n",
            b"msgrcv %d 10 0 timeout=0.001\n" % queue,
        ]
        for number in range(75):
            if os.fork() == 0:
                with suppress(OSError):
                    os.write(os.open(mount.gate, os.O_RDWR), requests[number % 4])
                os._exit(0)
            os.wait()

    for child in [gate.spawn(come_and_go) for _ in range(4)]:
        child.result()
    wait_until(lambda: processes(mount) == {str(os.getpid())}, "only this process takes part")
    assert mount.blocked_callers() == 0
    wait_until(lambda: descriptors(mount) <= before[0], "their descriptors are closed")
    wait_until(lambda: threads(mount) <= before[1] + 2, "their threads have ended")


@pytest.mark.parametrize("use", [os.O_RDWR, os.O_WRONLY, os.O_RDONLY])
def test_sessions_that_are_opened_and_closed_leave_nothing(gate: MountDoor, mount: Mount, use: int) -> None:
    gate.ok("getpid")
    before = descriptors(mount), os.statvfs(mount.path).f_files
    for _ in range(500):
        os.close(os.open(mount.gate, use))
    assert descriptors(mount) == before[0]
    wait_until(lambda: os.statvfs(mount.path).f_files <= before[1] + 2, "the inodes of closed sessions are forgotten")


# --- nobody waits for another


def blocked_on(gate: MountDoor, body: Callable[[], object]) -> None:
    child = gate.spawn(body)
    wait_until(lambda: gate.mount.blocked(child.pid), "it blocks")


def test_blocked_writers_to_the_gate_delay_nobody(gate: MountDoor, mount: Mount, queue: int, full_queue: int) -> None:
    for _ in range(3):
        blocked_on(gate, lambda: mount.gate.write_bytes(b"msgrcv %d 10\n" % queue))
        blocked_on(gate, lambda: mount.gate.write_bytes(b'msgsnd %d 2 "never"\n' % full_queue))
    child = gate.spawn(lambda: mount.gate.write_bytes(b"getpid\n"))
    assert child.result(patience_s=10) == 7
    assert mount.gate.read_bytes() is not None
    assert os.stat(mount.gate).st_size == 0
    os.truncate(mount.gate, 0)
    assert gate.blocked_callers() == 6


def test_a_writer_a_reader_and_a_looker_at_one_queue_file_never_wait_for_each_other(
    gate: MountDoor, mount: Mount, full_queue: int
) -> None:
    path = mount.path / f"msgq/sysv/{full_queue}"
    typed = mount.path / f"msgq/sysv/{full_queue}@7"
    blocked_on(gate, lambda: path.write_bytes(b"waits for room"))
    blocked_on(gate, lambda: os.read(os.open(typed, os.O_RDWR), 100))
    looker = gate.spawn(lambda: len(path.read_bytes()))
    assert looker.result(patience_s=10) == 2 * 8192
    assert os.stat(path).st_size == 2 * 8192
    path.chmod(0o640)
    receiver = gate.spawn(lambda: len(os.read(os.open(path, os.O_RDWR), 8192)))
    assert receiver.result(patience_s=10) == 8192
    wait_until(lambda: gate.blocked_callers() == 1, "the writer had room")
    path.with_name(f"{full_queue}@7").write_bytes(b"for the reader")
    wait_until(lambda: gate.blocked_callers() == 0, "the reader has its message")


def test_threads_that_open_one_name_at_the_same_moment_are_all_answered(gate: MountDoor, mount: Mount) -> None:
    """A name that the kernel may not remember is looked up by all of them, again and again."""

    def open_together() -> Counter[str]:
        answers: Counter[str] = Counter()
        begin = threading.Barrier(20)

        def one() -> None:
            begin.wait()
            for _ in range(10):
                session = os.open(mount.gate, os.O_RDWR)
                answers[write(session, b"getpid\n")] += 1
                os.close(session)

        callers = [threading.Thread(target=one) for _ in range(20)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return answers

    assert gate.spawn(open_together).result() == {"": 200}
