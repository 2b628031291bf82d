"""``proc/``: who takes part, since when, what for, and that death ends it."""

import ctypes
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Child, wait_until
from command import run
from doors import NOBODY, MountDoor
from mounts import Mount
from native import libc

PR_SET_DUMPABLE = 4


@pytest.fixture
def queue(gate: MountDoor) -> Iterator[int]:
    queue = gate.ok("msgget", "IPC_PRIVATE", "0600").ret
    yield queue
    gate.ok("msgctl", queue, "IPC_RMID")


def fields(path: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in path.read_text().splitlines())


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


def test_self_is_the_caller_once_it_takes_part(mount: Mount) -> None:
    script = "echo getpid > syscall; readlink proc/self; cat proc/self/status | grep ^Pid; echo $$"
    link, status, pid = run("bash", "-c", script, cwd=str(mount.path)).stdout.splitlines()
    assert (link, status) == (pid, f"Pid:\t{pid}")


def test_self_is_the_nearest_ancestor_that_takes_part(mount: Mount) -> None:
    script = 'echo getpid > syscall; bash -c "bash -c \\"readlink proc/self; true\\""; echo $$'
    link, pid = run("bash", "-c", script, cwd=str(mount.path)).stdout.split()
    assert link == pid


def test_self_of_a_stranger_is_its_own_directory(mount: Mount) -> None:
    link = mount.path / "proc/self"
    child = Child(lambda: (os.getpid(), int(os.readlink(link)), link.is_symlink(), fields(link / "status")["Pid"]))
    try:
        pid, target, is_link, shown = child.result()
    finally:
        child.close()
    # The test process is an ancestor, and may take part in this mount.
    expected = os.getpid() if str(os.getpid()) in os.listdir(mount.path / "proc") else pid
    assert (target, is_link, shown) == (expected, True, str(expected))


def test_looking_does_not_make_a_process_take_part(mount: Mount) -> None:
    before = mount.stats()["processes"]
    for name in ("syscall", "help", "stats", "msgq/ctl"):
        (mount.path / name).read_bytes()
    assert mount.stats()["processes"] == before


@pytest.fixture
def stranger() -> Iterator[Child]:
    """A process that has never called; it is its own owner's to act for."""
    child = Child(signal.pause)
    yield child
    child.close()


def test_whoever_takes_no_part_can_be_looked_at_and_that_leaves_no_trace(mount: Mount, stranger: Child) -> None:
    directory = mount.path / f"proc/{stranger.pid}"
    before = (mount.stats()["processes"], os.listdir(mount.path / "proc"), fds_of(mount.daemon.pid))
    status = fields(directory / "status")
    assert (status["Pid"], status["PPid"], status["StartTime"]) == (
        str(stranger.pid),
        str(os.getpid()),
        start_time(stranger.pid),
    )
    assert (status["Calls"], status["Errors"], status["Blocked"]) == ("0", "0", "0")
    for name in ("stats", "blocked", "attach", "fds", "undo", "children", "syscall"):
        (directory / name).read_bytes()
    assert {"0", "1", "2"} <= set(os.listdir(directory / "fd"))
    with pytest.raises(OSError, match="Input/output error"):
        (directory / "mem").read_bytes()
    assert (mount.stats()["processes"], os.listdir(mount.path / "proc"), fds_of(mount.daemon.pid)) == before


def fds_of(pid: int) -> set[str]:
    """What pidfds a process has open."""
    return {link for fd in Path(f"/proc/{pid}/fd").iterdir() if "pidfd" in (link := os.readlink(fd))}


def test_a_call_for_a_stranger_makes_it_take_part(mount: Mount, stranger: Child) -> None:
    directory = mount.path / f"proc/{stranger.pid}"
    inside = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (directory / "syscall").write_bytes(b"getpid\n")
        assert str(stranger.pid) in os.listdir(mount.path / "proc")
        status = os.open("status", os.O_RDONLY, dir_fd=inside)  # by way of what was opened before
        assert b"\nCalls:\t1\n" in os.read(status, 1000)
        os.close(status)
    finally:
        os.close(inside)


def test_a_subshell_makes_calls_for_its_shell(mount: Mount) -> None:
    script = (
        "reply=$(echo pipe > proc/$$/syscall; cat proc/$$/syscall); echo $reply;"
        "echo 'write 4 hello' > syscall; echo 'read 3 9' > syscall; cat syscall"
    )
    assert run("bash", "-c", script, cwd=str(mount.path)).stdout == "0 read=3 write=4\n5\nhello\n"


def test_a_stranger_is_there_for_those_who_may_act_for_it(mount: Mount, stranger: Child) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    others = Child(signal.pause, uid=NOBODY)

    def seen() -> list[bool]:
        libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), ctypes.c_ulong(1))  # as a program that it executes would be
        pids = (stranger.pid, others.pid, os.getpid(), mount.daemon.pid)
        return [(mount.path / f"proc/{pid}/status").exists() for pid in pids]

    try:
        assert (mount.path / f"proc/{others.pid}").exists()
        looker = Child(seen, uid=NOBODY)
        # The other one has given up root's rights, so that the host lets nobody but root look into it.
        assert looker.result() == [False, False, True, False]
        looker.close()
    finally:
        others.close()


def test_neither_the_daemon_nor_a_thread_has_a_directory(mount: Mount, stranger: Child) -> None:
    assert not (mount.path / f"proc/{mount.daemon.pid}").exists()
    threads = [tid for tid in os.listdir(f"/proc/{mount.daemon.pid}/task") if int(tid) != mount.daemon.pid]
    assert not any((mount.path / "proc" / tid).exists() for tid in threads)
    assert not (mount.path / "proc/2").exists()  # kthreadd, where the pid namespace shows it


def test_a_stranger_that_has_ended_has_no_directory(mount: Mount) -> None:
    child = Child(signal.pause)
    directory = os.open(mount.path / f"proc/{child.pid}", os.O_RDONLY | os.O_DIRECTORY)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    try:
        assert not (mount.path / f"proc/{child.pid}").exists()
        with pytest.raises(OSError, match="No such file or directory"):
            os.open("syscall", os.O_RDWR, dir_fd=directory)
    finally:
        os.close(directory)
        child.close()


def test_status_tells_who_the_process_is_and_what_it_did(mount: Mount, gate: MountDoor) -> None:
    child = gate.spawn(lambda: (gate.ok("getpid"), gate.call("msgget", 0x7FFFFF01), signal.pause()), uid=NOBODY)
    directory = mount.path / f"proc/{child.pid}"
    wait_until(lambda: fields(directory / "status")["Errors"] == "1", "two calls")
    status = fields(directory / "status")
    assert (status["Pid"], status["PPid"]) == (str(child.pid), str(os.getpid()))
    assert status["StartTime"] == start_time(child.pid)
    assert status["Uid"] == status["Gid"] == "\t".join([str(NOBODY)] * 4)
    assert (status["Groups"], status["Calls"], status["Errors"], status["Blocked"]) == ("", "2", "1", "0")
    assert (directory / "stats").read_text().startswith("calls 2\nerrors 1\n")


def test_blocked_shows_the_call_and_how_long_it_waits(mount: Mount, gate: MountDoor, queue: int) -> None:
    waiting = gate.block("msgrcv", queue, 10, 7)
    header, line = (mount.path / f"proc/{waiting.pid}/blocked").read_text().splitlines()
    assert header.split() == ["tid", "seconds", "call"]
    tid, seconds, call = line.split(maxsplit=2)
    assert (tid, call) == (str(waiting.pid), f"msgrcv({queue}, 10, 7, 0)")
    assert 0 <= float(seconds) < 60
    assert fields(mount.path / f"proc/{waiting.pid}/status")["Blocked"] == "1"
    gate.ok("msgsnd", queue, 7, b"x")
    assert waiting.result().data == b"x"


def test_a_process_leaves_when_it_dies(mount: Mount, gate: MountDoor) -> None:
    child = gate.spawn_member()
    directory = mount.path / f"proc/{child.pid}"
    assert str(child.pid) in os.listdir(mount.path / "proc")
    child.kill()
    assert not directory.exists()
    assert str(child.pid) not in os.listdir(mount.path / "proc")


def test_files_of_a_dead_process_that_are_open_say_esrch(mount: Mount, gate: MountDoor) -> None:
    child = gate.spawn_member()
    directory = mount.path / f"proc/{child.pid}"
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    its_gate = os.open(directory / "syscall", os.O_RDWR)
    try:
        child.kill()
        with pytest.raises(OSError, match="No such file or directory"):
            os.open("status", os.O_RDONLY, dir_fd=fd)
        with pytest.raises(ProcessLookupError):
            os.write(its_gate, b"getpid\n")
    finally:
        os.close(its_gate)
        os.close(fd)


def test_a_listing_goes_on_while_what_it_lists_is_closed(mount: Mount, gate: MountDoor) -> None:
    ends = [number for _ in range(300) for number in gate.ok("pipe").results.values()]
    directory = os.open(mount.path / f"proc/{os.getpid()}/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(directory) as names:
            found = [next(names).name for _ in range(10)]
            for number in ends:
                gate.ok("close", number)
            found += [name.name for name in names]
        assert found[:10] == [str(number) for number in range(10)]
        assert len(found) < len(ends)
        assert os.listdir(directory) == ["0", "1", "2"]
    finally:
        os.close(directory)


@pytest.mark.parametrize("name", ["0", "-1", "01", "99999999", "x", "self "])
def test_a_name_that_is_no_process_is_enoent(mount: Mount, name: str) -> None:
    assert not (mount.path / "proc" / name).exists()


# --- calls on behalf of another process


def test_the_gate_of_a_process_makes_its_calls(mount: Mount, gate: MountDoor) -> None:
    child = gate.spawn_member()
    its_gate = mount.path / f"proc/{child.pid}/syscall"
    with its_gate.open("r+b", buffering=0) as session:
        session.write(b"getpid\n")
        assert session.read(100) == b"%d\n" % child.pid
    # Its last reply is now the one to that.
    assert its_gate.read_bytes() == b"%d\n" % child.pid


def test_tee_makes_the_calls_of_the_shell(mount: Mount) -> None:
    script = "echo geteuid > syscall; echo getpid | tee proc/$$/syscall > /dev/null; cat syscall; echo $$"
    answer, pid = run("bash", "-c", script, cwd=str(mount.path)).stdout.split()
    assert answer == pid


def test_calls_for_a_process_have_its_rights(mount: Mount, gate: MountDoor, queue: int) -> None:
    child = gate.spawn_member(uid=NOBODY)
    its_gate = mount.path / f"proc/{child.pid}/syscall"
    with its_gate.open("r+b", buffering=0) as session:
        session.write(b"geteuid\n")
        assert session.read(100) == b"%d\n" % NOBODY
        with pytest.raises(PermissionError):
            session.write(b"msgctl %d IPC_RMID\n" % queue)


def test_another_user_may_not_call_for_a_process(mount: Mount, gate: MountDoor) -> None:
    child = gate.spawn_member()
    its_gate = mount.path / f"proc/{child.pid}/syscall"
    assert stat.S_IMODE(its_gate.stat().st_mode) == 0o600

    def stranger() -> str:
        try:
            os.open(its_gate, os.O_RDWR)
        except PermissionError:
            return "refused"
        return "let in"

    other = Child(stranger, uid=NOBODY)
    try:
        assert other.result() == "refused"
    finally:
        other.close()
