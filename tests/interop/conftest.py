"""Ordinary programs, each run to its end in the root of the mount, and what they leave."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from doors import NativeDoor
from mounts import Mount
from programs import KEY, Program

#: The longest that any program here may take, in seconds.
PATIENCE_S = 30


class Programs:
    """Runs programs; each must end by itself and succeed."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self._started: list[subprocess.Popen[str]] = []

    def run(self, *command: str, status: int = 0) -> str:
        """What it prints, on standard output and error."""
        return self.wait(self.start(*command), status=status)

    def shell(self, script: str, status: int = 0) -> str:
        return self.run("bash", "-c", script, status=status)

    def perl(self, modules: str, script: str) -> str:
        return self.run("perl", "-we", f"use strict; use {modules}; $| = 1; {script}")

    def python(self, script: str) -> str:
        return self.run(sys.executable, "-c", script)

    def start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=self.mount.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def wait(self, process: "subprocess.Popen[str]", status: int = 0) -> str:
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == status, output
        return output

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def programs(mount: Mount) -> Iterator[Programs]:
    started = Programs(mount)
    yield started
    started.close()


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[str], str]:
    """Compiles C: gives the path of the program."""

    def compile_(source: str) -> str:
        program = tmp_path / "program"
        source_file = tmp_path / "program.c"
        source_file.write_text(source)
        command = ["gcc", "-Wall", "-Werror", "-O1", "-o", str(program), str(source_file), "-pthread", "-lrt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return str(program)

    return compile_


@pytest.fixture
def start(mount: Mount, native: NativeDoor) -> Iterator[Callable[..., Program]]:
    """Starts a program that may block, in the mount; none outlives the test."""
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
