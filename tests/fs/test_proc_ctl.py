"""``proc/<pid>/ctl``: closing, detaching and ending what another process has here."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import NOBODY, MountDoor, write
from mounts import Mount


@pytest.fixture
def queue(gate: MountDoor) -> Iterator[int]:
    queue = gate.ok("msgget", "IPC_PRIVATE", "0600").ret
    yield queue
    gate.ok("msgctl", queue, "IPC_RMID")


def rows(ctl: Path) -> list[tuple[str, str, str]]:
    header, *lines = ctl.read_text().splitlines()
    assert header.split() == ["word", "argument", "what"]
    return [tuple(line.split(maxsplit=2)) for line in lines]


def test_the_table_has_what_there_is_to_command_and_each_row_can_be_typed(
    mount: Mount, gate: MountDoor, queue: int
) -> None:
    shmid = gate.ok("shmget", "IPC_PRIVATE", 4096, "0600").ret

    def body() -> None:
        gate.ok("pipe")
        gate.ok("shmat", shmid)
        gate.ok("msgrcv", queue, 10)

    child = gate.spawn(body)
    ctl = mount.path / f"proc/{child.pid}/ctl"
    wait_until(lambda: mount.blocked(child.pid), "it blocks")
    table = rows(ctl)
    assert [row[:2] for row in table[:5]] == [("close", str(number)) for number in range(5)]
    assert [row[0] for row in table[5:]] == ["detach", "end"]
    assert table[5][2] == f"segment {shmid}, 4096 bytes"
    assert table[6] == ("end", str(child.pid), f"msgrcv({queue}, 10, 0, 0)")
    # Those of the process itself stay; what came by calls goes.
    for word, argument, _ in table[3:6]:
        ctl.write_text(f"{word} {argument}\n")
    assert [row[:2] for row in rows(ctl)] == [*(("close", str(number)) for number in range(3)), ("end", str(child.pid))]
    assert gate.ok("shmctl", shmid, "IPC_STAT").results["nattch"] == 0
    gate.ok("shmctl", shmid, "IPC_RMID")
    child.kill()


@pytest.mark.parametrize(
    ("words", "told"), [("{}", "EINTR"), ("{} EIDRM", "EIDRM"), ("all", "EINTR"), ("all 11", "EAGAIN")]
)
def test_end_ends_a_call_with_the_errno_that_is_named(
    mount: Mount, gate: MountDoor, queue: int, words: str, told: str
) -> None:
    child = gate.spawn(lambda: write(os.open(mount.gate, os.O_RDWR), b"msgrcv %d 10\n" % queue))
    wait_until(lambda: mount.blocked(child.pid), "it blocks")
    (mount.path / f"proc/{child.pid}/ctl").write_text(f"end {words.format(child.pid)}\n")
    assert child.result() == told
    gate.ok("msgsnd", queue, 1, b"later")
    assert gate.ok("msgrcv", queue, 10, 0, "IPC_NOWAIT").data == b"later"  # it has taken nothing


def test_end_all_ends_those_of_every_thread_and_says_how_many(mount: Mount, gate: MountDoor, queue: int) -> None:
    child = gate.spawn_member()
    its_gate = mount.path / f"proc/{child.pid}/syscall"
    others = [gate.spawn(lambda: write(os.open(its_gate, os.O_RDWR), b"msgrcv %d 10\n" % queue)) for _ in range(3)]
    wait_until(lambda: len(mount.blocked(child.pid)) == 3, "three wait on its behalf")
    session = os.open(mount.path / f"proc/{child.pid}/ctl", os.O_RDWR)
    try:
        os.write(session, b"end all\n")
        assert os.read(session, 10) == b"3\n"
        assert [other.result() for other in others] == ["EINTR"] * 3
        os.write(session, b"end all\n")
        assert os.read(session, 10) == b"0\n"
    finally:
        os.close(session)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("close 99", "-1 EBADF "),
        ("close", "-1 EINVAL 'close': close: fd is missing; usage: close fd"),
        ("detach 0x1000", "-1 EINVAL "),
        ("end 1", "-1 ESRCH no call of thread 1 waits in process {pid}; cat proc/{pid}/ctl tells which do"),
        ("end all EINTER", "-1 EINVAL 'end all EINTER': end: errno has no value named 'EINTER'; did you mean EINTR?"),
        ("end all 4000", "-1 EINVAL 4000 is no errno; give a name such as EINTR, or none for that"),
        ("end many", "-1 EINVAL 'end many': end: tid has no value named 'many'"),
        ("ends all", "-1 EINVAL 'ends all': no such command; did you mean end?"),
        ("kill", "-1 EINVAL 'kill': no such command; the words are close, detach, disown, end"),
    ],
)
def test_a_command_that_fails_says_what_is_wrong(mount: Mount, gate: MountDoor, command: str, said: str) -> None:
    child = gate.spawn_member()
    ctl = mount.path / f"proc/{child.pid}/ctl"
    with ctl.open("r+b", buffering=0) as session:
        assert write(session.fileno(), command.encode() + b"\n") == said.split()[1]
        assert session.read(1000).decode().startswith(said.format(pid=child.pid))


def test_another_user_may_neither_command_a_process_nor_see_what_there_is(mount: Mount, gate: MountDoor) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    child = gate.spawn_member()
    ctl = mount.path / f"proc/{child.pid}/ctl"

    def attempts() -> list[str]:
        tried = []
        for flags in (os.O_RDONLY, os.O_WRONLY):
            try:
                os.close(os.open(ctl, flags))
            except PermissionError:
                tried.append("refused")
        return tried

    other = Child(attempts, uid=NOBODY)
    assert other.result() == ["refused"] * 2
    other.close()


def test_looking_at_the_table_of_a_stranger_leaves_no_trace(mount: Mount) -> None:
    child = Child(signal.pause)
    try:
        assert {row[0] for row in rows(mount.path / f"proc/{child.pid}/ctl")} <= {"close"}
        assert str(child.pid) not in os.listdir(mount.path / "proc")
    finally:
        child.close()


def test_what_it_owns_can_be_disowned_for_it(mount: Mount, gate: MountDoor) -> None:
    def body() -> None:
        os.write(tell, b"%d" % gate.ok("msgget", "IPC_PRIVATE", "IPC_EPHEMERAL|0600").ret)
        signal.pause()

    told, tell = os.pipe()
    child = gate.spawn(body)
    queue = int(os.read(told, 20))
    ctl = mount.path / f"proc/{child.pid}/ctl"
    assert ("disown", f"msgq/sysv/{queue}", "goes with its last owner") in rows(ctl)
    ctl.write_text(f"disown msgq/{queue}\n")
    with pytest.raises(FileNotFoundError):
        ctl.write_text(f"disown msgq/{queue}\n")
    child.kill()
    wait_until(lambda: str(child.pid) not in os.listdir(mount.path / "proc"), "its end is known")
    gate.ok("msgctl", queue, "IPC_RMID")
    os.close(told), os.close(tell)
