"""A compiled C program uses POSIX IPC; the other side is a shell in the mount. System V queues: ``test_c``."""

import os
from collections.abc import Iterator
from pathlib import Path

import posix_ipc
import pytest
from children import wait_until


@pytest.fixture
def posix(compiled) -> str:
    """The compiled program."""
    return compiled(Path(__file__).with_name("posix.c").read_text())


@pytest.fixture
def name(mount) -> Iterator[str]:
    """A name for a queue, a semaphore or memory, which is free again after the test."""
    name = f"synosfs-c-{os.getpid()}"
    yield name
    for directory in ("msgq", "sem", "shm"):
        (mount.path / directory / "posix" / name).unlink(missing_ok=True)


def test_a_shell_sends_and_c_receives_by_priority(programs, posix, name):
    programs.shell(f"printf low > msgq/posix/{name}; printf high > msgq/posix/{name}@31")
    assert programs.run(posix, "receive", f"/{name}") == "31 high\n"
    assert programs.run(posix, "receive", f"/{name}") == "0 low\n"


def test_c_waits_and_a_shell_sends(programs, posix, name):
    programs.shell(f": > msgq/posix/{name}")
    receiver = programs.start(posix, "receive", f"/{name}")
    programs.shell(f"printf hello > msgq/posix/{name}@5")
    assert programs.wait(receiver) == "5 hello\n"


def test_a_shell_waits_and_c_sends(programs, posix, name):
    programs.shell(f": > msgq/posix/{name}")
    receiver = programs.start("bash", "-c", f"read -r text <> msgq/posix/{name}; echo $text")
    wait_until(lambda: programs.mount.blocked(receiver.pid), "the shell waits")
    programs.run(posix, "send", f"/{name}", "hello\n", "5")
    assert programs.wait(receiver) == "hello\n"


def test_c_waits_for_a_semaphore_and_a_shell_posts(programs, posix, name):
    waiter = programs.start(posix, "wait", f"/{name}")
    wait_until((programs.mount.path / "sem/posix" / name).exists, "the program has made it")
    programs.shell(f"echo +1 > sem/posix/{name}")
    assert programs.wait(waiter) == "had it\n"


def test_a_shell_waits_for_a_semaphore_and_c_posts(programs, posix, name):
    programs.shell(f"echo 0 > sem/posix/{name}")
    waiter = programs.start("bash", "-c", f"echo -1 > sem/posix/{name}; echo had it")
    wait_until(lambda: programs.mount.blocked(waiter.pid), "the shell waits")
    programs.run(posix, "post", f"/{name}")
    assert programs.wait(waiter) == "had it\n"


def test_c_maps_what_a_shell_wrote(programs, posix, name):
    programs.shell(f"printf hello > shm/posix/{name}")
    assert programs.run(posix, "map", f"/{name}") == "hello\n"
    assert programs.shell(f"cat shm/posix/{name}") == "HELLO"
    programs.shell(f"rm shm/posix/{name}")
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.SharedMemory(f"/{name}")
