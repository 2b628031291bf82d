"""Children: spawn, wait4, waitid, kill, and what their ends look like."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from children import wait_until
from doors import NOBODY, Door
from native import Result
from opened import Descriptors


@pytest.fixture
def shell(door: Door) -> Iterator[Callable[..., int]]:
    """Start a program, by its words; it is gone when the case has ended."""
    made = []

    def start(*words: bytes, **streams: int) -> int:
        made.append(door.ok("spawn", words[0], *words, **streams).ret)
        return made[-1]

    yield start
    for pid in made:
        if not door.call("kill", pid, "SIGKILL").errno:
            door.call("wait4", pid)


def ended(door: Door, pid: int, *options: str) -> str:
    result = door.ok("wait4", pid, *options)
    assert result.ret == pid
    return result.results["status"]


@pytest.mark.parametrize(("path", "status"), [(b"/bin/true", "exited:0"), (b"/bin/false", "exited:1")])
def test_wait4_tells_the_exit_status(door: Door, shell: Callable[..., int], path: bytes, status: str) -> None:
    pid = shell(path)
    result = door.ok("wait4", pid)
    assert (result.ret, result.results["status"]) == (pid, status)
    assert result.results["maxrss"] > 0
    assert door.call("wait4", pid).errno == "ECHILD"


def test_wait4_tells_the_signal_that_killed(door: Door, shell: Callable[..., int]) -> None:
    pid = shell(b"/bin/sleep", b"1000")
    door.ok("kill", pid, "SIGTERM")
    assert ended(door, pid) == "killed:15"


def test_wait4_tells_of_a_stop_and_of_going_on(door: Door, shell: Callable[..., int]) -> None:
    pid = shell(b"/bin/sleep", b"1000")
    door.ok("kill", pid, "SIGSTOP")
    assert ended(door, pid, "WUNTRACED") == "stopped:19"
    assert door.ok("wait4", pid, "WUNTRACED|WCONTINUED|WNOHANG").ret == 0
    door.ok("kill", pid, "SIGCONT")
    assert ended(door, pid, "WCONTINUED") == "continued:18"
    door.ok("kill", pid, "SIGKILL")
    assert ended(door, pid) == "killed:9"


def test_wait4_without_children_is_echild(door: Door) -> None:
    def wait() -> list[str]:
        calls = [("wait4", -1, "WNOHANG"), ("wait4", 1, "WNOHANG"), ("waitid", "P_ALL", 0, "WEXITED|WNOHANG")]
        return [door.call(*call).errno for call in calls]

    assert door.spawn(wait).result() == ["ECHILD"] * 3


def test_wait4_with_wnohang_answers_0_while_the_child_runs(door: Door, shell: Callable[..., int]) -> None:
    shell(b"/bin/sleep", b"1000")
    assert door.ok("wait4", -1, "WNOHANG") == Result(0)


def test_wait4_waits_for_any_child(door: Door, shell: Callable[..., int]) -> None:
    sleeper, short = shell(b"/bin/sleep", b"1000"), shell(b"/bin/true")
    assert door.ok("wait4", -1).ret == short
    assert door.ok("wait4", -1, "WNOHANG").ret == 0
    door.ok("kill", sleeper, "SIGKILL")
    assert door.ok("wait4", -1).ret == sleeper


@pytest.mark.parametrize("options", ["0x100", "WEXITED", "0x10000000"])
def test_wait4_with_unknown_options_is_einval(door: Door, options: str) -> None:
    assert door.call("wait4", -1, options).errno == "EINVAL"


@pytest.mark.parametrize("options", ["0", "WNOHANG", "0x100|WEXITED"])
def test_waitid_with_unknown_options_or_none_is_einval(door: Door, options: str) -> None:
    assert door.call("waitid", "P_ALL", 0, options).errno == "EINVAL"


def test_waitid_leaves_the_child_to_be_waited_for_with_wnowait(door: Door, shell: Callable[..., int]) -> None:
    pid = shell(b"/bin/false")
    first = door.ok("waitid", "P_PID", pid, "WEXITED|WNOWAIT").results
    second = door.ok("waitid", "P_PID", pid, "WEXITED").results
    for results in (first, second):
        assert (results["pid"], results["code"], results["status"]) == (pid, "exited", 1)
    assert door.call("waitid", "P_PID", pid, "WEXITED").errno == "ECHILD"


def test_waitid_tells_only_what_it_is_asked_for(door: Door, shell: Callable[..., int]) -> None:
    pid = shell(b"/bin/sleep", b"1000")
    door.ok("kill", pid, "SIGSTOP")
    stopped = door.ok("waitid", "P_PID", pid, "WSTOPPED").results
    assert (stopped["code"], stopped["status"]) == ("stopped", signal.SIGSTOP)
    door.ok("kill", pid, "SIGKILL")
    assert door.ok("waitid", "P_PID", pid, "WSTOPPED|WEXITED").results["code"] == "killed"


def test_waitid_by_a_pidfd(door: Door, shell: Callable[..., int], fds: Descriptors) -> None:
    pid = shell(b"/bin/sleep", b"1000")
    pidfd = fds.call("pidfd_open", pid)
    assert door.ok("waitid", "P_PIDFD", pidfd, "WEXITED|WNOHANG").results["pid"] == 0
    door.ok("pidfd_send_signal", pidfd, "SIGKILL")
    assert door.ok("waitid", "P_PIDFD", pidfd, "WEXITED").results["pid"] == pid


def test_a_wait_that_sleeps_is_woken_by_the_end_of_a_child(door: Door) -> None:
    def wait_for_child() -> Result:
        pid = door.ok("spawn", b"/bin/sleep", b"/bin/sleep", b"0.2").ret
        result = door.ok("wait4", pid)
        return Result(0, "", {"own": result.ret == pid, "status": result.results["status"]})

    assert door.spawn(wait_for_child).result() == Result(0, "", {"own": True, "status": "exited:0"})


def test_a_signal_ends_a_wait_with_eintr(door: Door) -> None:
    def wait_for_child() -> str:
        pid = door.ok("spawn", b"/bin/sleep", b"/bin/sleep", b"1000").ret
        try:
            return door.call("wait4", pid).errno
        finally:
            os.kill(pid, signal.SIGKILL)

    child = door.spawn(wait_for_child)
    wait_until(lambda: door.is_blocked(child.pid, "wait4"), "it waits")
    child.interrupt()
    if door.name == "native":
        child.kill()  # Python's wait4 goes on after a handler that does not raise
    else:
        assert child.result() == "EINTR"


def test_another_process_cannot_wait_for_it(door: Door, shell: Callable[..., int]) -> None:
    pid = shell(b"/bin/sleep", b"1000")
    stranger = door.spawn(lambda: door.call("wait4", pid, "WNOHANG").errno)
    assert stranger.result() == "ECHILD"


def test_a_child_writes_where_its_stdout_is(door: Door, shell: Callable[..., int], fds: Descriptors) -> None:
    read, write = fds.pipe()
    pid = shell(b"/bin/echo", b"hello", b"world", stdout=write)
    fds.close(write)
    assert door.ok("read", read, 100).data == b"hello world\n"
    assert door.ok("read", read, 100).data == b""
    assert ended(door, pid) == "exited:0"


def test_a_child_reads_from_its_stdin(door: Door, shell: Callable[..., int], fds: Descriptors) -> None:
    (read, write), (out, into) = fds.pipe("O_CLOEXEC"), fds.pipe("O_CLOEXEC")
    pid = shell(b"/usr/bin/sort", stdin=read, stdout=into)
    fds.close(into)
    door.ok("write", write, b"b\na\n")
    fds.close(write)
    assert door.ok("read", out, 100).data == b"a\nb\n"
    assert ended(door, pid) == "exited:0"


@pytest.mark.parametrize(
    ("path", "errno"),
    [(b"/nonexistent", "ENOENT"), (b"/etc/passwd", "EACCES"), (b"/etc/passwd/x", "ENOTDIR"), (b"/", "EACCES")],
)
def test_spawn_answers_what_execve_does(door: Door, path: bytes, errno: str) -> None:
    child = door.spawn(lambda: [door.call("spawn", path).errno, door.call("wait4", -1, "WNOHANG").errno])
    assert child.result() == [errno, "ECHILD"]


def test_kill_asks_with_signal_0(door: Door, shell: Callable[..., int]) -> None:
    pid = shell(b"/bin/sleep", b"1000")
    assert door.ok("kill", pid, 0).ret == 0
    door.ok("kill", pid, "SIGKILL")
    door.ok("wait4", pid)
    assert door.call("kill", pid, 0).errno == "ESRCH"


@pytest.mark.parametrize("number", [-1, 65, 1000])
def test_a_signal_that_is_none_is_einval(door: Door, number: int) -> None:
    assert door.call("kill", os.getpid(), number).errno == "EINVAL"


def test_another_users_process_cannot_be_signalled(door: Door) -> None:
    assert door.call_as(NOBODY, "kill", os.getpid(), 0).errno == "EPERM"
    assert door.call_as(NOBODY, "kill", 1, 0).errno == "EPERM"


def test_ones_own_processes_can_be_signalled(door: Door) -> None:
    target = door.spawn(signal.pause, uid=NOBODY)
    wait_until(lambda: target.state == "S" and os.stat(f"/proc/{target.pid}").st_uid == NOBODY, "it sleeps")
    assert door.call_as(NOBODY, "kill", target.pid, "SIGKILL").ret == 0
    wait_until(target.ended, "it is dead")
    assert target.status == -signal.SIGKILL


def test_no_process_has_a_pid_that_is_free(door: Door) -> None:
    assert door.call("kill", 2**22 + 1, 0).errno == "ESRCH"
    assert door.call("kill", -(2**22 + 1), 0).errno == "ESRCH"
    assert door.call("pidfd_open", 2**22 + 1).errno == "ESRCH"
