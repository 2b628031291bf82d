"""Children when something goes wrong: callers that are killed, the program that makes them, who tampers with one."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import wait_until
from command import needs_root
from doors import NOBODY, MountDoor, write
from mounts import Mount, mounted
from namespaces import CLONE_NEWUSER, unshare

PR_SET_NO_NEW_PRIVS = 38


@pytest.fixture
def gate(mount: Mount) -> Iterator[MountDoor]:
    gate = MountDoor(mount, "text")
    yield gate
    gate.close()


def makers(mount: Mount) -> list[int]:
    """The programs that make children for this mount."""
    pids = Path(f"/proc/{mount.daemon.pid}/task/{mount.daemon.pid}/children").read_text().split()
    return [int(pid) for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "fork_program"]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status_of(pid: int) -> str:
    """The state of a process, a letter as in proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_wait_ends_by_a_time_out(gate: MountDoor) -> None:
    def timed() -> str:
        pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
        try:
            return gate.call("wait4", pid, timeout=0.05).errno
        finally:
            os.kill(pid, signal.SIGKILL)

    assert gate.spawn(timed).result() == "ETIMEDOUT"


def test_a_wait_ends_with_its_caller(gate: MountDoor, mount: Mount) -> None:
    child = gate.spawn(lambda: gate.ok("wait4", gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret))
    wait_until(lambda: gate.is_blocked(child.pid, "wait4"), "it waits")
    (pid,) = map(int, (mount.path / f"proc/{child.pid}/children").read_text().split())
    child.kill()
    wait_until(lambda: gate.blocked_callers() == 0, "nobody waits")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "nobody's child is waited for when it ends")


def test_a_wait_ends_with_the_mount() -> None:
    with mounted() as mount:
        gate = MountDoor(mount, "text")

        def waits() -> str:
            pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
            session = os.open(mount.gate, os.O_RDWR)
            try:
                return write(session, b"wait4 %d\n" % pid)
            finally:
                os.kill(pid, signal.SIGKILL)

        child = gate.spawn(waits)
        wait_until(lambda: gate.is_blocked(child.pid, "wait4"), "it waits")
        mount.daemon.terminate()
        assert child.result() == "ECANCELED"
        assert mount.daemon.wait() == 0


def test_callers_that_are_killed_while_they_fork_leave_no_child(gate: MountDoor, mount: Mount) -> None:
    def forks() -> None:
        while True:
            gate.ok("fork")

    callers = [gate.spawn(forks) for _ in range(3)]
    wait_until(lambda: int(mount.stats()["children"]) >= 20, "they fork")
    for caller in callers:
        caller.kill()
    wait_until(lambda: mount.stats()["children"] == "0", "no child is left")
    wait_until(lambda: all(not children_of(maker) for maker in makers(mount)), "none is left on the host")


def test_hundreds_of_children_at_once(gate: MountDoor, mount: Mount) -> None:
    def forks() -> int:
        pids = [gate.ok("fork").ret for _ in range(300)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return sum(gate.ok("wait4").results["status"] == "killed:9" for _ in pids)

    assert gate.spawn(forks).result() == 300
    assert mount.stats()["children"] == "0"


def test_the_program_that_makes_children_is_started_again_when_it_is_killed() -> None:
    with mounted() as mount:
        gate = MountDoor(mount, "text")
        pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
        (maker,) = makers(mount)
        os.kill(maker, signal.SIGKILL)
        wait_until(lambda: gate.call("wait4", pid, "WNOHANG").errno == "ECHILD", "its children are nobody's")
        os.kill(pid, signal.SIGKILL)
        assert gate.ok("wait4", gate.ok("spawn", b"/bin/true").ret).results["status"] == "exited:0"
        gate.close()
        (complaint,) = mount.complaints()
        assert "1 are not waited for any more" in complaint


def test_a_program_that_is_spawned_while_the_maker_is_killed_is_a_clear_error() -> None:
    with mounted() as mount:
        gate = MountDoor(mount, "text")
        assert gate.ok("wait4", gate.ok("spawn", b"/bin/true").ret).results["status"] == "exited:0"
        (maker,) = makers(mount)
        os.kill(maker, signal.SIGSTOP)
        child = gate.spawn(lambda: gate.call("spawn", b"/bin/true").errno)
        wait_until(lambda: gate.is_blocked(child.pid, "spawn"), "it is being made")
        os.kill(maker, signal.SIGKILL)
        assert child.result() == "EAGAIN"
        assert gate.ok("wait4", gate.ok("spawn", b"/bin/true").ret).results["status"] == "exited:0"
        gate.close()
        mount.complaints()


def test_who_waits_while_the_maker_is_killed_has_no_child_any_more() -> None:
    with mounted() as mount:
        gate = MountDoor(mount, "text")

        def waits() -> tuple[int, str]:
            pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
            return pid, gate.call("wait4", pid).errno

        child = gate.spawn(waits)
        wait_until(lambda: gate.is_blocked(child.pid, "wait4"), "it waits")
        (maker,) = makers(mount)
        os.kill(maker, signal.SIGKILL)
        pid, errno = child.result()
        os.kill(pid, signal.SIGKILL)
        assert errno == "ECHILD"
        gate.close()
        mount.complaints()


def test_a_pid_is_free_when_its_wait_is_over(gate: MountDoor) -> None:
    for _ in range(50):
        pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"0.005").ret
        gate.ok("wait4", pid)
        assert not Path(f"/proc/{pid}").exists()


def test_a_child_that_nobody_waits_for_any_more_is_a_zombie_when_it_ends(gate: MountDoor) -> None:
    for _ in range(20):
        pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
        assert gate.call("wait4", pid, timeout=0.005).errno == "ETIMEDOUT"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: status_of(pid) == "Z", "it is a zombie")
        assert gate.ok("wait4", pid).results["status"] == "killed:9"
        assert not Path(f"/proc/{pid}").exists()


def test_a_stop_ends_a_wait_and_not_the_zombie(gate: MountDoor) -> None:
    def waits() -> str:
        pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
        stopped: str = gate.ok("wait4", pid, "WUNTRACED").results["status"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: status_of(pid) == "Z", "it is a zombie")
        return f"{stopped} {gate.ok('wait4', pid).results['status']}"

    child = gate.spawn(waits)
    wait_until(lambda: gate.is_blocked(child.pid, "wait4"), "it waits")
    (pid,) = map(int, (gate.mount.path / f"proc/{child.pid}/children").read_text().split())
    os.kill(pid, signal.SIGSTOP)
    assert child.result() == "stopped:19 killed:9"


def test_a_time_out_that_races_with_the_end_of_a_child_loses_nothing(gate: MountDoor) -> None:
    """Whichever comes first: the end is told once, and until then the pid is the child's."""
    for tenths in range(60):
        pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"0.003").ret
        reply = gate.call("wait4", pid, timeout=tenths / 10_000)
        if reply.errno:
            assert reply.errno == "ETIMEDOUT"
            assert Path(f"/proc/{pid}").exists()
            reply = gate.ok("wait4", pid)
        assert reply.results["status"] == "exited:0"
        assert gate.call("wait4", pid).errno == "ECHILD"


def test_of_two_who_wait_for_one_child_one_has_it(gate: MountDoor, mount: Mount) -> None:
    def waits() -> list[str]:
        pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret
        answers: list[str] = []

        def wait() -> None:
            session = os.open(mount.gate, os.O_RDWR)
            answers.append(write(session, b"wait4 %d\n" % pid))
            os.close(session)

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(mount.blocked(os.getpid())) == 2, "both wait")
        os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        return sorted(answers)

    assert gate.spawn(waits).result() == ["", "ECHILD"]


@needs_root
def test_a_child_that_cannot_become_what_its_parent_is_runs_no_program(
    gate: MountDoor, mount: Mount, tmp_path: Path
) -> None:
    """What is ordered besides must not be done with the rights that the child has until then."""
    proof = tmp_path / "proof"

    def spawns() -> str:
        unshare(CLONE_NEWUSER)
        return gate.call("spawn", b"/bin/touch", b"touch", os.fsencode(proof)).errno

    assert gate.spawn(spawns).result() == "EPERM"
    wait_until(lambda: all(not children_of(maker) for maker in makers(mount)), "the child has ended")
    assert not proof.exists()


@needs_root
def test_who_tampers_with_a_child_harms_only_himself(gate: MountDoor, mount: Mount) -> None:
    """A child is its user's, who can take its connection and answer in its place."""

    def tampers() -> str:
        pid = gate.ok("fork").ret
        pidfd = os.pidfd_open(pid)
        libc = ctypes.CDLL(None, use_errno=True)
        taken = libc.syscall(438, pidfd, 1024, 0)  # pidfd_getfd
        assert taken >= 0
        os.kill(pid, signal.SIGSTOP)
        os.write(taken, b"\xff" * 200)
        gate_of_child = os.open(mount.path / f"proc/{pid}/syscall", os.O_RDWR)
        try:
            os.write(gate_of_child, b"setpgid timeout=1\n")
        except OSError as error:
            answer = os.strerror(error.errno)
        else:
            answer = "done"
        os.kill(pid, signal.SIGKILL)
        return answer

    assert gate.spawn(tampers, uid=NOBODY).result() in ("Input/output error", "Numerical result out of range")
    assert gate.ok("getpid").ret == os.getpid()


def test_a_confined_caller_forks_natively(gate: MountDoor) -> None:
    def confined(call: Callable[[], str]) -> str:
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return call()

    for call in (("fork",), ("spawn", b"/bin/true")):
        assert gate.spawn(lambda call=call: confined(lambda: gate.call(*call).errno)).result() == "EACCES"
    child = gate.spawn(lambda: confined(lambda: gate.call("kill", os.getppid(), 0).errno))
    assert child.result() == "EACCES"
