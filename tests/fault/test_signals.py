"""Signals to a caller that is blocked: which of them end its wait; and an interactive shell gets its prompt back."""

import os
import pty
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import PATIENCE_S, wait_until
from doors import MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgrcv, msgsnd

NOWAIT = CONSTANTS["IPC_NOWAIT"]

PROMPT = b"ready> "


class Terminal:
    """An interactive bash on a terminal of its own, and somebody who types."""

    def __init__(self) -> None:
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": PROMPT.decode()}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
            finally:
                os._exit(127)
        self.wait_for_prompt()

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def run(self, command: str) -> str:
        """Type a command; what was shown until the next prompt."""
        self.type(command + "\n")
        return self.wait_for_prompt()

    def wait_for_prompt(self) -> str:
        shown = b""
        deadline = time.monotonic() + PATIENCE_S
        while not shown.endswith(PROMPT):
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no prompt after {shown!r}"
            shown += os.read(self._fd, 4096)
        return shown.decode()

    def foreground(self) -> int:
        """The process group that Ctrl-C is for."""
        return os.tcgetpgrp(self._fd)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._fd)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(mount: Mount) -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def messages(queue: int) -> int:
    return msgctl(queue, CONSTANTS["IPC_STAT"]).results["qnum"]


# --- at a terminal


def test_ctrl_c_brings_the_prompt_back_from_a_blocked_echo(terminal: Terminal, mount: Mount, queue: int) -> None:
    terminal.type(f"echo 'msgrcv {queue} 10' > {mount.gate}\n")
    wait_until(lambda: mount.blocked(terminal.pid), "the echo blocks")
    terminal.type("\x03")
    assert "^C" in terminal.wait_for_prompt()
    assert mount.blocked_callers() == 0
    assert "status 130" in terminal.run("echo status $?")
    assert "-1 EINTR msgrcv" in terminal.run(f"cat {mount.gate}")
    msgsnd(queue, 1, b"later")
    assert "5 mtype=1\r\nlater" in terminal.run(f"echo 'msgrcv {queue} 10' > {mount.gate}; cat {mount.gate}")


def test_ctrl_c_brings_the_prompt_back_from_a_blocked_send(terminal: Terminal, mount: Mount, full_queue: int) -> None:
    terminal.type(f"echo 'msgsnd {full_queue} 2 never' > {mount.gate}\n")
    wait_until(lambda: mount.blocked(terminal.pid), "the echo blocks")
    terminal.type("\x03")
    terminal.wait_for_prompt()
    assert "status 130" in terminal.run("echo status $?")
    msgrcv(full_queue, 8192)
    assert messages(full_queue) == 1


@pytest.mark.parametrize(
    "command",
    ["(echo 'msgrcv {0} 10' > {1})", "/bin/echo 'msgrcv {0} 10' > {1}", "cat <> {2}", "echo 'msgrcv {0} 10' | tee {1}"],
    ids=["subshell", "program", "queue file", "pipeline"],
)
def test_ctrl_c_ends_a_program_that_is_blocked(terminal: Terminal, mount: Mount, queue: int, command: str) -> None:
    terminal.type(command.format(queue, mount.gate, mount.path / f"msgq/sysv/{queue}") + "\n")
    wait_until(lambda: mount.blocked_callers() == 1, "the program blocks")
    assert terminal.foreground() != terminal.pid
    terminal.type("\x03")
    terminal.wait_for_prompt()
    assert "status 130" in terminal.run("echo status $?")
    assert mount.blocked_callers() == 0


def test_ctrl_c_ends_a_loop_that_waits_again_and_again(terminal: Terminal, mount: Mount, queue: int) -> None:
    terminal.type(f"while echo 'msgrcv {queue} 10' > {mount.gate}; do :; done\n")
    for data in (b"one", b"two"):
        wait_until(lambda: mount.blocked(terminal.pid), "the loop blocks")
        msgsnd(queue, 1, data)
        wait_until(lambda: messages(queue) == 0, "the loop has received")
    wait_until(lambda: mount.blocked(terminal.pid), "the loop blocks")
    terminal.type("\x03")
    terminal.wait_for_prompt()
    assert mount.blocked_callers() == 0


def test_ctrl_z_stops_a_blocked_program_and_its_call_ends_with_eintr(
    terminal: Terminal, mount: Mount, queue: int
) -> None:
    terminal.type(f"/bin/echo 'msgrcv {queue} 10' > {mount.gate}\n")
    wait_until(lambda: mount.blocked_callers() == 1, "the program blocks")
    terminal.type("\x1a")
    assert "Stopped" in terminal.wait_for_prompt()
    assert mount.blocked_callers() == 0
    assert "Interrupted system call" in terminal.run("fg")


# --- handlers


@pytest.mark.parametrize("restart", [False, True], ids=["", "SA_RESTART"])
@pytest.mark.parametrize("waits", ["msgrcv", "msgsnd"])
def test_a_handler_ends_the_wait_with_eintr(
    gate: MountDoor, queue: int, full_queue: int, waits: str, restart: bool
) -> None:
    args = (queue, 10) if waits == "msgrcv" else (full_queue, 2, b"never")
    blocked = gate.block(waits, *args, restart=restart)
    blocked.interrupt()
    result = blocked.result()
    assert result.errno == "EINTR"
    assert f"{waits}({args[0]}, " in result.message
    assert "interrupted by a signal" in result.message
    assert (messages(queue), messages(full_queue)) == (0, 2)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY], ids=["read", "write"])
def test_a_handler_ends_a_wait_in_a_queue_file(
    gate: MountDoor, mount: Mount, queue: int, full_queue: int, flags: int
) -> None:
    def wait() -> str:
        if flags == os.O_WRONLY:
            return write(os.open(mount.path / f"msgq/sysv/{full_queue}", flags), b"never")
        # os.read would wait again: only an exception in the handler leaves it.
        signal.signal(signal.SIGUSR1, interrupted)
        try:
            return repr(os.read(os.open(mount.path / f"msgq/sysv/{queue}", flags), 100))
        except InterruptedError:
            return "EINTR"

    def interrupted(*_: object) -> None:
        raise InterruptedError

    child = gate.spawn(wait)
    wait_until(lambda: mount.blocked(child.pid), "it blocks")
    child.interrupt()
    assert child.result() == "EINTR"


def test_a_session_works_on_after_a_signal(gate: MountDoor, queue: int) -> None:
    def interrupted_then_received() -> list[tuple[int, str]]:
        results = [gate.call("msgrcv", queue, 10), gate.call("getpid"), gate.call("msgrcv", queue, 10)]
        return [(result.ret, result.errno) for result in results]

    child = gate.spawn(interrupted_then_received)
    wait_until(lambda: gate.is_blocked(child.pid, "msgrcv"), "it blocks")
    child.interrupt()
    wait_until(lambda: _calls(gate.mount, child.pid) >= 2 and gate.is_blocked(child.pid, "msgrcv"), "it blocks again")
    msgsnd(queue, 1, b"hello")
    assert child.result() == [(-1, "EINTR"), (child.pid, ""), (5, "")]


def _calls(mount: Mount, pid: int) -> int:
    return int((mount.path / f"proc/{pid}/stats").read_text().split()[1])


def test_a_signal_for_a_thread_ends_the_wait_of_that_thread_alone(gate: MountDoor, queue: int, full_queue: int) -> None:
    def two_waits() -> dict[str, str]:
        ended: dict[str, str] = {}
        waits = {"receiver": b"msgrcv %d 10\n" % queue, "sender": b'msgsnd %d 2 "sent"\n' % full_queue}
        threads = {
            name: threading.Thread(
                target=lambda n=name, r=request: ended.update({n: write(os.open(gate.mount.gate, os.O_RDWR), r)})
            )
            for name, request in waits.items()
        }
        for thread in threads.values():
            thread.start()
        wait_until(lambda: len(gate.mount.blocked(os.getpid())) == 2, "both threads block")
        signal.pthread_kill(threads["receiver"].ident or 0, signal.SIGUSR1)
        threads["receiver"].join()
        assert len(gate.mount.blocked(os.getpid())) == 1
        msgrcv(full_queue, 8192)
        threads["sender"].join()
        return ended

    assert gate.spawn(two_waits).result() == {"receiver": "EINTR", "sender": ""}


# --- signals that end no wait


def test_ignored_and_blocked_signals_and_dying_children_end_no_wait(gate: MountDoor, queue: int) -> None:
    def wait_through_signals() -> bytes | None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)  # Python's readline has a handler
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # for the child, before it can be sent one
        if os.fork() == 0:
            signal.pause()
        return gate.ok("msgrcv", queue, 10).data

    child = gate.spawn(wait_through_signals)
    wait_until(lambda: gate.is_blocked(child.pid, "msgrcv"), "it blocks")
    (grandchild,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    os.kill(int(grandchild), signal.SIGUSR1)  # its parent gets SIGCHLD
    for ignored in ("SIGUSR2", "SIGHUP", "SIGTERM", "SIGWINCH", "SIGURG", "SIGCONT", "SIGCHLD"):
        os.kill(child.pid, getattr(signal, ignored))
    # One that is interrupted after these were sent makes the daemon look at all.
    other = gate.block("msgrcv", queue, 10, 7)
    other.interrupt()
    assert other.result().errno == "EINTR"
    assert gate.is_blocked(child.pid, "msgrcv")
    msgsnd(queue, 1, b"at last")
    assert child.result() == b"at last"
