"""Children of callers that are elsewhere, in other namespaces or control groups; and who may call for a child later."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import namespaces
import pytest
from children import wait_until
from command import needs_root
from doors import NOBODY, MountDoor
from mounts import Mount
from native import checked, libc

pytestmark = needs_root

_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


def own_mounts() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))


ELSEWHERE: dict[str, Callable[[], None]] = {
    "mnt": own_mounts,
    "net": lambda: namespaces.unshare(namespaces.CLONE_NEWNET),
    "uts": lambda: namespaces.unshare(namespaces.CLONE_NEWUTS),
    "ipc": lambda: namespaces.unshare(namespaces.CLONE_NEWIPC),
    "cgroup": lambda: namespaces.unshare(namespaces.CLONE_NEWCGROUP),
}


def seen(pid: int) -> dict[str, str]:
    found = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "user", *ELSEWHERE)}
    return found | {"control groups": Path(f"/proc/{pid}/cgroup").read_text()}


def children_of_mine(gate: MountDoor, pid: int) -> list[dict[str, str]]:
    """Where a child is that waits, as what it becomes, and one of spawn."""
    found = [seen(pid)]
    (gate.mount.path / f"proc/{pid}/syscall").write_text("execve /bin/sleep sleep 1000\n")
    spawned = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
    found += [seen(pid), seen(spawned)]
    for each in (pid, spawned):
        os.kill(each, signal.SIGKILL)
        gate.ok("wait4", each)
    return found


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_child_is_in_the_namespaces_of_its_parent(gate: MountDoor, kind: str) -> None:
    def fork() -> tuple[dict[str, str], list[dict[str, str]]]:
        ELSEWHERE[kind]()
        pid = gate.ok("fork").ret
        return seen(os.getpid()), children_of_mine(gate, pid)

    mine, children = gate.spawn(fork).result()
    assert mine[kind] != seen(os.getpid())[kind]
    assert children == [mine] * 3


def test_a_child_sees_the_files_of_its_parent(gate: MountDoor, tmp_path: Path) -> None:
    """Its program is one that is nowhere else, and writes where nobody else looks."""

    def fork() -> bytes:
        own_mounts()
        checked(libc.mount(b"none", bytes(tmp_path), b"tmpfs", ctypes.c_ulong(0), None))
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\necho written > {tmp_path}/there\n")
        program.chmod(0o755)
        gate.ok("wait4", gate.ok("spawn", bytes(program)).ret)
        return (tmp_path / "there").read_bytes()

    assert gate.spawn(fork).result() == b"written\n"
    assert not list(tmp_path.iterdir())


def hierarchies() -> dict[str, Path]:
    """Where control groups are made, by the kind of the file system."""
    found = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "pids" in options.split(",")):
            found[kind] = Path(place)
    return found


@pytest.fixture(params=["cgroup", "cgroup2"])
def control_group(request: pytest.FixtureRequest) -> Iterator[Path]:
    place = hierarchies().get(request.param)
    if place is None:
        pytest.skip(f"the host has no {request.param}")
    group = place / f"synosfs-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the control group is empty")
    group.rmdir()


def test_a_child_is_in_the_control_groups_of_its_parent(gate: MountDoor, control_group: Path) -> None:
    def fork() -> tuple[dict[str, str], list[dict[str, str]]]:
        (control_group / "cgroup.procs").write_text(str(os.getpid()))
        pid = gate.ok("fork").ret
        return seen(os.getpid()), children_of_mine(gate, pid)

    mine, children = gate.spawn(fork).result()
    assert control_group.name in mine["control groups"]
    assert children == [mine] * 3


# --- a session of a child, once it is another program


@pytest.fixture
def setuid_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root's, whoever starts it: it sleeps."""
    directory = tmp_path_factory.mktemp("program")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    program = directory / "raised"
    source = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
    subprocess.run(["gcc", "-x", "c", "-o", program, "-"], input=source, text=True, check=True)
    program.chmod(0o4755)
    return program


def answers(gate: MountDoor, program: bytes) -> list[str]:
    """What a session is answered that was opened while the child waited, before and after it became a program."""
    pid = gate.ok("fork").ret
    session = os.open(gate.mount.path / f"proc/{pid}/syscall", os.O_RDWR)

    def ask(request: str) -> str:
        try:
            os.write(session, request.encode() + b"\n")
        except OSError as error:
            return error.strerror or ""
        return os.read(session, 1000).decode().strip()

    before = ask("getpid") == str(pid)
    became = ask(f"execve {os.fsdecode(program)} program 1000")
    after = ask("getpid")
    gone = [str(before), became, after.replace(str(pid), "its pid")]
    gate.ok("kill", pid, "SIGKILL") if after == str(pid) else None
    os.close(session)
    return [*gone, str(pid)]


def test_a_session_of_a_child_goes_on_when_it_is_a_program_with_the_same_rights(gate: MountDoor) -> None:
    for uid in (0, NOBODY):
        *found, _ = gate.spawn(lambda: answers(gate, b"/bin/sleep"), uid=uid).result()
        assert found == ["True", "0", "its pid"]


def test_a_session_of_a_child_ends_when_it_is_a_program_with_more_rights(
    gate: MountDoor, mount: Mount, setuid_program: Path
) -> None:
    *found, pid = gate.spawn(lambda: answers(gate, bytes(setuid_program)), uid=NOBODY).result()
    status = Path(f"/proc/{pid}/status").read_text()
    os.kill(int(pid), signal.SIGKILL)
    assert "Uid:\t65534\t0\t0\t0" in status
    assert found == ["True", "0", "Permission denied"]
