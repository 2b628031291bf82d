"""A C program sends and receives by the host's calls, by the gate and by the queue's file: each meets each."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from doors import NativeDoor
from mounts import Mount
from programs import Program

WAYS = ("native", "gate", "file")


@pytest.fixture(scope="session")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled program."""
    program = tmp_path_factory.mktemp("c") / "exchange"
    source = Path(__file__).with_name("exchange.c")
    done = run("cc", "-Wall", "-Wextra", "-Werror", "-O1", "-o", str(program), str(source))
    assert done.returncode == 0, done.stderr
    return str(program)


Start = Callable[..., Program]


@pytest.mark.parametrize("receives", WAYS)
@pytest.mark.parametrize("sends", WAYS)
def test_each_way_of_sending_meets_each_way_of_receiving(
    start: Start, mount: Mount, queue: int, exchange: str, sends: str, receives: str
) -> None:
    assert start(exchange, sends, "send", mount.path, queue, 7, "hello from C").output() == ""
    received = start(exchange, receives, "receive", mount.path, queue, 7).output()
    assert received == f"{0 if receives == 'file' else 7} hello from C\n"


@pytest.mark.parametrize("receives", WAYS)
@pytest.mark.parametrize("sends", WAYS)
def test_who_waits_in_one_way_is_woken_by_each_other_way(
    start: Start, mount: Mount, queue: int, exchange: str, sends: str, receives: str
) -> None:
    receiver = start(exchange, receives, "receive", mount.path, queue, 7).wait_until_blocked()
    start(exchange, sends, "send", mount.path, queue, 6, "not this").output()
    start(exchange, sends, "send", mount.path, queue, 7, "this").output()
    assert receiver.output().endswith(" this\n")
    assert start(exchange, receives, "receive", mount.path, queue, 6).output().endswith(" not this\n")


@pytest.mark.parametrize("receives", WAYS)
@pytest.mark.parametrize("sends", WAYS)
def test_who_waits_for_room_goes_on_when_somebody_makes_it(
    start: Start, mount: Mount, native: NativeDoor, queue: int, exchange: str, sends: str, receives: str
) -> None:
    for _ in range(2):
        native.ok("msgsnd", queue, 1, b"x" * 8192, "IPC_NOWAIT")
    sender = start(exchange, sends, "send", mount.path, queue, 7, "late").wait_until_blocked("msgsnd")
    assert "x" * 8192 in start(exchange, receives, "receive", mount.path, queue, 1).output()
    assert sender.output() == ""
    assert native.ok("msgrcv", queue, 10, 7, "IPC_NOWAIT").data == b"late"


@pytest.mark.parametrize("receives", WAYS)
def test_removal_reaches_the_program_as_eidrm(
    start: Start, mount: Mount, native: NativeDoor, queue: int, exchange: str, receives: str
) -> None:
    receiver = start(exchange, receives, "receive", mount.path, queue, 7).wait_until_blocked()
    native.ok("msgctl", queue, "IPC_RMID")
    assert receiver.process.wait(30) == errno.EIDRM
