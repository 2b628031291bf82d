"""What the programs of all languages share: how they are started, compiled, and what they meet on."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from command import run
from doors import NativeDoor
from mounts import Mount
from native_posix import unlink_all
from programs import KEY, Programs


@pytest.fixture
def programs(mount: Mount, native: NativeDoor) -> Iterator[Programs]:
    started = Programs(mount, native)
    yield started
    started.close()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Compiles a C source beside the tests, once: ``compiled("posix.c")`` is the path of the program."""
    directory = tmp_path_factory.mktemp("c")

    @cache
    def compile_(name: str) -> str:
        program = str(directory / name.removesuffix(".c"))
        source = str(Path(__file__).with_name(name))
        done = run("cc", "-Wall", "-Wextra", "-Werror", "-O1", "-o", program, source, "-pthread", "-lrt")
        assert done.returncode == 0, done.stderr
        return program

    return compile_


@pytest.fixture
def queue(native: NativeDoor) -> Iterator[int]:
    """An empty queue with ``KEY``, made natively."""
    queue = native.ok("msgget", KEY, "IPC_CREAT|0600").ret
    yield queue
    native.call("msgctl", queue, "IPC_RMID")


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a POSIX queue, a semaphore or memory, which is free again after the test."""
    name = f"synosfs-interop-{os.getpid()}"
    yield name
    unlink_all(b"/" + name.encode())
