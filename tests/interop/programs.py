"""Ordinary programs, which tests start in the root of a mount."""

import subprocess
import sys

from children import PATIENCE_S, wait_until
from doors import NativeDoor
from mounts import Mount

#: The key that programs meet on where one is enough.
KEY = 0x5359_1701


class Program:
    """A program that was started, and may block in a call through the mount or in the host's own."""

    def __init__(self, mount: Mount, native: NativeDoor, command: tuple[str, ...]) -> None:
        self._mount = mount
        self._native = native
        self.process = subprocess.Popen(
            command,
            cwd=mount.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_blocked(self, call: str) -> "Program":
        """Return when it sleeps in this call, wherever."""
        wait_until(lambda: self._is_blocked(call) or self.process.poll() is not None, f"the program blocks in {call}")
        assert self.process.returncode is None, self.process.communicate()
        return self

    def _is_blocked(self, call: str) -> bool:
        blocked = self._mount.blocked(self.pid)
        return self._native.is_blocked(self.pid, call) or any(what.startswith(call) for what in blocked)

    def output(self, status: int = 0) -> str:
        """What it printed, on standard output and error, when it has ended with this status."""
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == status, printed
        return printed

    def kill(self) -> None:
        with self.process:
            self.process.kill()


class Programs:
    """Starts programs; none outlives the test."""

    def __init__(self, mount: Mount, native: NativeDoor) -> None:
        self.mount = mount
        self._native = native
        self._started: list[Program] = []

    def start(self, *command: object) -> Program:
        """A program that may block."""
        self._started.append(Program(self.mount, self._native, tuple(map(str, command))))
        return self._started[-1]

    def run(self, *command: object, status: int = 0) -> str:
        """What it prints, when it has ended."""
        return self.start(*command).output(status)

    def start_shell(self, script: str) -> Program:
        return self.start("bash", "-c", script)

    def shell(self, script: str) -> str:
        return self.start_shell(script).output()

    def start_perl(self, modules: str, script: str) -> Program:
        return self.start("perl", "-we", f"use strict; use {modules}; $| = 1; {script}")

    def perl(self, modules: str, script: str) -> str:
        return self.start_perl(modules, script).output()

    def python(self, script: str) -> str:
        return self.run(sys.executable, "-c", script)

    def close(self) -> None:
        for program in self._started:
            program.kill()
