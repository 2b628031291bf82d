"""What interop tests share: a queue of the host's own, and ordinary programs that run until they are done."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from children import PATIENCE_S, wait_until
from doors import NativeDoor
from mounts import Mount

KEY = 0x5359_1701


class Program:
    """A program that was started, and may block in a call through the mount or in the host's own."""

    def __init__(self, mount: Mount, native: NativeDoor, command: tuple[str, ...]) -> None:
        self._mount = mount
        self._native = native
        self.process = subprocess.Popen(
            command, cwd=mount.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_until_blocked(self, call: str = "msgrcv") -> "Program":
        """Return when it sleeps in this call, wherever."""
        wait_until(lambda: self._is_blocked(call) or self.process.poll() is not None, f"the program blocks in {call}")
        assert self.process.returncode is None, self.process.communicate()
        return self

    def _is_blocked(self, call: str) -> bool:
        pid = self.process.pid
        return self._native.is_blocked(pid, call) or any(what.startswith(call) for what in self._mount.blocked(pid))

    def output(self) -> str:
        """What it printed, when it has ended well."""
        printed, complaint = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, complaint
        return printed

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(mount: Mount, native: NativeDoor) -> Iterator[Callable[..., Program]]:
    """Start a program in the mount; none outlives the test."""
    with ExitStack() as stack:

        def run(*command: object) -> Program:
            program = Program(mount, native, tuple(map(str, command)))
            stack.callback(program.close)
            return program

        yield run


@pytest.fixture
def queue(native: NativeDoor) -> Iterator[int]:
    """An empty queue with ``KEY``, made natively."""
    queue = native.ok("msgget", KEY, "IPC_CREAT|0600").ret
    yield queue
    native.call("msgctl", queue, "IPC_RMID")
