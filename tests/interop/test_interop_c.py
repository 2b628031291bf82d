"""C programs make the host's own calls, or use the gate and the files as any program can: each way meets each other."""

import errno
from collections.abc import Callable

import posix_ipc
import pytest
from doors import NativeDoor
from programs import Programs

WAYS = ("native", "gate", "file")
each_way_of_sending = pytest.mark.parametrize("sends", WAYS)
each_way_of_receiving = pytest.mark.parametrize("receives", WAYS)


# --- System V queues

Exchange = Callable[..., list[object]]


@pytest.fixture
def exchange(programs: Programs, compiled: Callable[[str], str], queue: int) -> Exchange:
    """The command that sends or receives one message in one of the ways: ``exchange("gate", "send", 7, "text")``."""

    def command(way: str, does: str, type: int, *text: str) -> list[object]:
        return [compiled("exchange.c"), way, does, programs.mount.path, queue, type, *text]

    return command


@each_way_of_receiving
@each_way_of_sending
def test_each_way_of_sending_meets_each_way_of_receiving(
    programs: Programs, exchange: Exchange, sends: str, receives: str
) -> None:
    assert programs.run(*exchange(sends, "send", 7, "hello from C")) == ""
    received = programs.run(*exchange(receives, "receive", 7))
    assert received == f"{0 if receives == 'file' else 7} hello from C\n"


@each_way_of_receiving
@each_way_of_sending
def test_who_waits_in_one_way_is_woken_by_each_other_way(
    programs: Programs, exchange: Exchange, sends: str, receives: str
) -> None:
    receiver = programs.start(*exchange(receives, "receive", 7)).wait_until_blocked("msgrcv")
    programs.run(*exchange(sends, "send", 6, "not this"))
    programs.run(*exchange(sends, "send", 7, "this"))
    assert receiver.output().endswith(" this\n")
    assert programs.run(*exchange(receives, "receive", 6)).endswith(" not this\n")


@each_way_of_receiving
@each_way_of_sending
def test_who_waits_for_room_goes_on_when_somebody_makes_it(
    programs: Programs, native: NativeDoor, queue: int, exchange: Exchange, sends: str, receives: str
) -> None:
    for _ in range(2):
        native.ok("msgsnd", queue, 1, b"x" * 8192, "IPC_NOWAIT")
    sender = programs.start(*exchange(sends, "send", 7, "late")).wait_until_blocked("msgsnd")
    assert "x" * 8192 in programs.run(*exchange(receives, "receive", 1))
    assert sender.output() == ""
    assert native.ok("msgrcv", queue, 10, 7, "IPC_NOWAIT").data == b"late"


@each_way_of_receiving
def test_removal_reaches_the_program_as_eidrm(
    programs: Programs, native: NativeDoor, queue: int, exchange: Exchange, receives: str
) -> None:
    receiver = programs.start(*exchange(receives, "receive", 7)).wait_until_blocked("msgrcv")
    native.ok("msgctl", queue, "IPC_RMID")
    receiver.output(status=errno.EIDRM)


# --- POSIX queues, semaphores and memory; the other side is a shell


@pytest.fixture
def posix(compiled: Callable[[str], str]) -> str:
    return compiled("posix.c")


def test_a_shell_sends_and_c_receives_by_priority(programs: Programs, posix: str, name: str) -> None:
    programs.shell(f"printf low > msgq/posix/{name}; printf high > msgq/posix/{name}@31")
    assert programs.run(posix, "receive", f"/{name}") == "31 high\n"
    assert programs.run(posix, "receive", f"/{name}") == "0 low\n"


def test_c_waits_and_a_shell_sends(programs: Programs, posix: str, name: str) -> None:
    programs.shell(f": > msgq/posix/{name}")
    receiver = programs.start(posix, "receive", f"/{name}").wait_until_blocked("mq_receive")
    programs.shell(f"printf hello > msgq/posix/{name}@5")
    assert receiver.output() == "5 hello\n"


def test_a_shell_waits_and_c_sends(programs: Programs, posix: str, name: str) -> None:
    programs.shell(f": > msgq/posix/{name}")
    receiver = programs.start_shell(f"read -r text <> msgq/posix/{name}; echo $text").wait_until_blocked("mq_receive")
    programs.run(posix, "send", f"/{name}", "hello\n", "5")
    assert receiver.output() == "hello\n"


def test_c_waits_for_a_semaphore_and_a_shell_posts(programs: Programs, posix: str, name: str) -> None:
    waiter = programs.start(posix, "wait", f"/{name}").wait_until_blocked("sem_wait")
    programs.shell(f"echo +1 > sem/posix/{name}")
    assert waiter.output() == "had it\n"


def test_a_shell_waits_for_a_semaphore_and_c_posts(programs: Programs, posix: str, name: str) -> None:
    programs.shell(f"echo 0 > sem/posix/{name}")
    waiter = programs.start_shell(f"echo -1 > sem/posix/{name}; echo had it").wait_until_blocked("sem_wait")
    programs.run(posix, "post", f"/{name}")
    assert waiter.output() == "had it\n"


def test_c_maps_what_a_shell_wrote(programs: Programs, posix: str, name: str) -> None:
    programs.shell(f"printf hello > shm/posix/{name}")
    assert programs.run(posix, "map", f"/{name}") == "hello\n"
    assert programs.shell(f"cat shm/posix/{name}") == "HELLO"
    programs.shell(f"rm shm/posix/{name}")
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.SharedMemory(f"/{name}")
