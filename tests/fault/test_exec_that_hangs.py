"""A program that never comes to the end of its exec, because the file system of a file that it closes does not answer:
meanwhile the host tells nobody much of it (exec_update_lock), and whoever asks, waits. The daemon asks, and serves on.

Nothing here may ask either: of such a process ``status`` and ``cmdline`` are told.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount, mounted


@dataclass
class Trap:
    """The process, and how a child of its makes a request of its own, or one in the session that the process opened."""

    pid: int
    ask_child: Callable[[bytes], bytes]
    tell_child: Callable[[bytes], None]


@pytest.fixture
def silent() -> Iterator[Mount]:
    """A mount that will not answer."""
    with mounted() as mount:
        yield mount


@pytest.fixture
def trap(mount: Mount, silent: Mount) -> Iterator[Trap]:
    (told, tell), (go, let_go) = os.pipe(), os.pipe()
    requests, answers = os.pipe(), os.pipe()

    def child(inherited: int) -> None:
        while request := os.read(requests[0], 4096):
            if request.startswith(b"*"):
                with suppress(ProcessLookupError):  # the opener's end ends it
                    os.write(inherited, request[1:])
                continue
            fd = os.open(mount.gate, os.O_RDWR)
            os.write(fd, request)
            os.write(answers[1], os.read(fd, 4096))
            os.close(fd)

    def execute() -> None:
        session = os.open(mount.gate, os.O_RDWR)
        os.write(session, b"getpid\n")  # it takes part
        if os.fork() == 0:
            try:
                os.close(requests[1])
                child(session)
            finally:
                os._exit(0)
        os.open(silent.gate, os.O_RDWR)  # closed at an exec
        os.write(tell, b".")
        os.read(go, 1)
        os.execlp("true", "true")

    process = Child(execute)
    assert os.read(told, 1)
    # Whatever becomes of this test, that one does not hang for ever: with it, whoever lists processes would.
    rescue = subprocess.Popen(["sh", "-c", f"sleep 40; kill -CONT {silent.daemon.pid}"])
    silent.daemon.send_signal(signal.SIGSTOP)
    try:
        os.write(let_go, b".")
        cmdline = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: cmdline.read_bytes() == b"", "it is in its exec")
        os.kill(process.pid, signal.SIGTERM)

        def ask_child(request: bytes) -> bytes:
            os.write(requests[1], request)
            return os.read(answers[0], 4096)

        def tell_child(request: bytes) -> None:
            os.write(requests[1], b"*" + request)

        yield Trap(process.pid, ask_child, tell_child)
    finally:
        silent.daemon.send_signal(signal.SIGCONT)
        rescue.kill()
        rescue.wait()
        wait_until(process.ended, "it goes on")
        for fd in (told, tell, go, let_go, *requests, *answers):
            os.close(fd)


def test_others_are_served_and_it_alone_is_not(mount: Mount, gate: MountDoor, trap: Trap) -> None:
    assert gate.ok("getpid").ret == os.getpid()
    assert trap.ask_child(b"getppid\n") == b"%d\n" % trap.pid  # a child's ancestors are asked for
    own = mount.path / f"proc/{trap.pid}"
    for name, flags in (("syscall", os.O_RDWR), ("undo", os.O_RDONLY), ("status", os.O_RDONLY), ("mem", os.O_RDWR)):
        with pytest.raises(BlockingIOError):
            os.close(os.open(own / name, flags))
    for name in ("msgq/orphans", "stats", "msgq/ctl", "help", "waiting", "waiting.dot", "advice", "metrics", "trace"):
        (mount.path / name).read_bytes()
    os.listdir(mount.path / "proc")
    assert gate.ok("getpid").ret == os.getpid()


def test_a_call_for_one_of_its_streams_waits_and_no_other_does(mount: Mount, gate: MountDoor, trap: Trap) -> None:
    trap.tell_child(b"read 0 1\n")
    wait_until(lambda: mount.blocked_callers() == 1, "it waits for the stream")
    for _ in range(10):
        assert gate.ok("getpid").ret == os.getpid()


def test_who_is_signalled_elsewhere_is_found_all_the_same(mount: Mount, queue: int, trap: Trap) -> None:
    session = os.open(mount.gate, os.O_RDWR)
    # Children wait in the session of this process, so who waits there is looked for among all threads.
    waiting = Child(lambda: write(session, b"msgrcv %d 10\n" % queue))
    wait_until(lambda: mount.blocked_callers() == 1, "it waits")
    waiting.interrupt()
    assert waiting.result() == "EINTR"
    os.close(session)


def test_it_is_told_of_again_when_it_goes_on(mount: Mount, gate: MountDoor, silent: Mount, trap: Trap) -> None:
    status = mount.path / f"proc/{trap.pid}/status"
    with pytest.raises(BlockingIOError):
        status.read_bytes()
    silent.daemon.send_signal(signal.SIGCONT)
    wait_until(lambda: str(trap.pid) not in os.listdir(mount.path / "proc"), "its end is known")
