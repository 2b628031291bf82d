"""``synosfs --supervise``: a daemon that is killed is started again, one that ends well is not, and nothing is left."""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import Child, wait_until
from command import SYNOSFS, TIMEOUT_S, assert_refused, mount_point, processes_of, run, stub, synosfs, wait_gone
from doors import write

from synosfs import mountpoint, supervisor
from synosfs.errors import SynosError
from synosfs.options import MountOptions

CONTRIB = Path(__file__).parents[1] / "contrib"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with mount_point(tmp_path) as path:
        yield path


def both(directory: Path) -> tuple[int, int]:
    """The supervisor and its daemon."""
    parents = {
        pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in these(directory)
    }
    [(daemon, parent)] = [(pid, parent) for pid, parent in parents.items() if parent in parents]
    return parent, daemon


def these(directory: Path) -> list[int]:
    return [pid for pid in processes_of(directory) if b"--supervise" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def answers(directory: Path) -> bool:
    with suppress(OSError):
        return b"synosfs" in (directory / "help").read_bytes()
    return False


def blocked_callers(directory: Path) -> int:
    return int(re.search(r"^blocked_callers (\d+)", (directory / "stats").read_text(), re.MULTILINE)[1])


def all_gone(directory: Path, *pids: int) -> None:
    for pid in pids:
        wait_gone(pid)
    assert not processes_of(directory)
    assert not mountpoint.mounted(str(directory))


def test_a_killed_daemon_is_started_again_and_its_callers_are_let_go(directory: Path, ipc_namespace: None) -> None:
    done = synosfs("--supervise", directory)
    assert (done.returncode, done.stderr) == (0, "")
    first, daemon = both(directory)
    for _ in range(2):
        # With a time-out: where the daemon dies before the call waits, nothing is to be left of it either.
        sleeper = Child(lambda: write(os.open(directory / "syscall", os.O_RDWR), b"nanosleep 1000\n"))
        wait_until(lambda: blocked_callers(directory) == 1, "it waits")
        os.kill(daemon, signal.SIGKILL)
        assert sleeper.result() in ("ENOTCONN", "ECONNABORTED")
        sleeper.close()
        wait_until(lambda: answers(directory), "the mount answers again")
        assert blocked_callers(directory) == 0
        before, (supervising, daemon) = daemon, both(directory)
        assert supervising == first
        assert daemon != before
    assert run("fusermount3", "-u", str(directory)).returncode == 0
    all_gone(directory, first, daemon)


@pytest.mark.parametrize("whom", ["supervisor", "daemon"])
def test_sigterm_to_either_ends_both(directory: Path, whom: str) -> None:
    assert synosfs("--supervise", directory).returncode == 0
    pids = both(directory)
    os.kill(pids[whom == "daemon"], signal.SIGTERM)
    all_gone(directory, *pids)


def test_sigterm_at_any_moment_of_a_new_start_leaves_nothing(directory: Path) -> None:
    for _ in range(3):
        assert synosfs("--supervise", directory).returncode == 0
        pids = both(directory)
        os.kill(pids[1], signal.SIGKILL)
        os.kill(pids[0], signal.SIGTERM)
        all_gone(directory, *pids)


def test_a_daemon_goes_on_without_its_supervisor(directory: Path) -> None:
    assert synosfs("--supervise", directory).returncode == 0
    parent, daemon = both(directory)
    os.kill(parent, signal.SIGKILL)
    wait_gone(parent)
    assert answers(directory)
    os.kill(daemon, signal.SIGTERM)
    all_gone(directory, daemon)


def test_in_the_foreground_the_manager_is_told_of_the_supervisor(directory: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(TIMEOUT_S)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [SYNOSFS, "-f", "--supervise", "--log-file", str(tmp_path / "log"), str(directory)]
        with subprocess.Popen(command, env=environment) as process:
            assert manager.recv(4096) == b"READY=1\nMAINPID=%d" % process.pid
            os.kill(both(directory)[1], signal.SIGKILL)
            wait_until(lambda: answers(directory), "the mount answers again")
            process.terminate()
            assert manager.recv(4096) == b"STOPPING=1"
            assert process.wait(TIMEOUT_S) == 0
    log = (tmp_path / "log").read_text()
    assert re.search(
        r"WARNING .*the daemon \(pid \d+\) has ended after .* s \(killed by SIGKILL\); it is started again in", log
    )
    assert "the supervisor ends on SIGTERM" in log
    all_gone(directory)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SynosError(5, 'cannot mount')", "cannot mount"),
        ("1 / 0", "internal error: ZeroDivisionError: division by zero"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "died while it started"),
        ("signal.pause()", "gave no sign for 2 s"),
    ],
)
def test_a_first_start_that_fails_is_reported_and_not_tried_again(directory: Path, body: str, reason: str) -> None:
    assert_refused(run(*stub(body, "--supervise", directory)), re.escape(reason))
    all_gone(directory)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Adds a line to a file, and tells how many there are."""
    path = tmp_path / "runs"

    def ran(line: str) -> int:
        with path.open("a") as file:
            file.write(f"{line}\n")
        return len(path.read_text().splitlines())

    return ran


def test_pauses_grow_while_it_fails_at_once_and_a_good_end_is_the_end(
    directory: Path, runs: Callable[[str], int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_S", 0.3)
    told = []

    def serve(_options: MountOptions, ready: Callable[[], None]) -> None:
        count = runs("run")
        if count == 4:
            raise SynosError(5, "not this time")
        ready()
        if count < 6:
            os._exit(3)

    with caplog.at_level(logging.WARNING):
        supervisor.supervise(MountOptions(str(directory)), serve, lambda: told.append("ready"), 10)
    assert told == ["ready"]
    lines = [re.sub(r"pid \d+|after [\d.]+", "", message) for message in caplog.messages]
    why = ["status 3"] * 3 + ["not this time"] + ["status 3"]
    pauses = ["0.1", "0.2", "0.3", "0.3", "0.3"]
    expected = zip(why, pauses, strict=True)
    assert lines == [f"the daemon () has ended  s ({how}); it is started again in {pause} s" for how, pause in expected]


def test_who_has_served_for_long_is_started_again_at_once(
    directory: Path, runs: Callable[[str], int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_LONG_S", 0.0)

    def serve(_options: MountOptions, ready: Callable[[], None]) -> None:
        ready()
        if runs("run") < 4:
            os.kill(os.getpid(), signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        supervisor.supervise(MountOptions(str(directory)), serve, lambda: None, 10)
    assert [message.rpartition(" in ")[2] for message in caplog.messages] == ["0.0 s"] * 3


def test_a_signal_before_it_is_ready_ends_both_and_nobody_is_told_that_it_was(directory: Path) -> None:
    told = []

    def serve(_options: MountOptions, ready: Callable[[], None]) -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()

    supervisor.supervise(MountOptions(str(directory)), serve, lambda: told.append("ready"), TIMEOUT_S)
    assert told == []


def test_who_is_interrupted_while_it_tells_that_it_is_ready_leaves_no_daemon(directory: Path) -> None:
    pids = os.pipe()

    def serve(_options: MountOptions, ready: Callable[[], None]) -> None:
        os.write(pids[1], b"%d" % os.getpid())
        ready()
        signal.pause()

    def nobody_waits() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        supervisor.supervise(MountOptions(str(directory)), serve, nobody_waits, TIMEOUT_S)
    assert not Path(f"/proc/{os.read(pids[0], 10).decode()}").exists()
    for fd in pids:
        os.close(fd)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    text = (CONTRIB / "synosfs.service").read_text()
    assert "\nRestart=on-failure\n" in text
    unit = tmp_path / "synosfs.service"
    unit.write_text(text.replace("/usr/local/bin/synosfs", SYNOSFS))
    done = run(analyze, "verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
