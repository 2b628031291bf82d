"""How the daemon comes and goes: its start, whatever ``serve`` does, its mount, and each way to end it.

Where a rule is about the daemon and not about the mount, ``stub`` puts another ``serve`` in its place, which fails,
dies or hangs as asked.
"""

import errno
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import (
    AS_NOBODY,
    OPEN_DEVICE,
    SYNOSFS,
    TIMEOUT_S,
    assert_refused,
    daemon_of,
    mount_line,
    mount_point,
    namespace,
    needs_root,
    processes_of,
    run,
    stub,
    synosfs,
    wait_gone,
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with mount_point(tmp_path) as path:
        yield path


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket, in the file system or abstract."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify") if request.param == "path" else f"\0synosfs-test-{os.getpid()}")
        channel.settimeout(TIMEOUT_S)
        yield channel


def notify_address(manager: socket.socket) -> str:
    name = manager.getsockname()
    return name if isinstance(name, str) else "@" + name[1:].decode()


# --- the daemon's start, whatever serve does


def test_the_reason_of_a_failed_start_is_one_line_with_what_was_printed(directory: Path) -> None:
    body = "os.write(2, b'fusermount3: mount failed: No way\\n'); raise SynosError(5, 'cannot mount')"
    assert_refused(run(*stub(body, directory)), r"cannot mount \(fusermount3: mount failed: No way\)")


def test_an_unforeseen_failure_is_one_line_too(directory: Path) -> None:
    assert_refused(run(*stub("1 / 0", directory)), "internal error: ZeroDivisionError: division by zero")


def test_a_daemon_that_dies_while_it_starts_is_reported(directory: Path) -> None:
    assert_refused(run(*stub("os.kill(os.getpid(), signal.SIGKILL)", directory)), "the daemon died while it started")


def test_a_daemon_that_gives_no_sign_is_reported_and_ended(directory: Path) -> None:
    assert_refused(run(*stub("signal.pause()", directory)), "the daemon gave no sign")
    for pid in processes_of(directory):
        wait_gone(pid)


def test_ready_is_not_believed_without_a_mount(directory: Path) -> None:
    assert_refused(run(*stub("ready(); signal.pause()", directory)), "is ready, but nothing is mounted on")
    for pid in processes_of(directory):
        wait_gone(pid)


def test_an_interrupted_start_leaves_no_daemon(directory: Path, tmp_path: Path) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go_on"
    os.mkfifo(started)
    os.mkfifo(go_on)
    body = f"open({str(started)!r}, 'w').close(); open({str(go_on)!r}).close(); ready(); signal.pause()"
    with subprocess.Popen(stub(body, directory), stderr=subprocess.PIPE) as command:
        started.read_bytes()  # returns when the daemon has opened it
        command.send_signal(signal.SIGINT)
        assert (command.wait(TIMEOUT_S), command.stderr and command.stderr.read()) == (130, b"")
    daemon = daemon_of(directory)
    go_on.write_bytes(b"")
    wait_gone(daemon)


def test_a_failure_in_the_foreground_is_one_line(directory: Path) -> None:
    done = run(*stub("raise SynosError(5, 'cannot mount')", "-f", directory))
    assert_refused(done, "cannot mount")


# --- the mount


def test_the_command_returns_when_the_mount_answers(directory: Path) -> None:
    done = synosfs(directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.statvfs(directory).f_namemax > 0
    assert (directory / "help").read_text()
    assert " - fuse.synosfs synosfs " in mount_line(directory)


def test_the_daemon_holds_on_to_nothing_of_its_caller(directory: Path, tmp_path: Path) -> None:
    with (tmp_path / "kept").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)
        done = synosfs("--log-file", "log", directory, cwd=tmp_path, umask=0o077, close_fds=False)
    assert done.returncode == 0, done.stderr
    proc = Path(f"/proc/{daemon_of(directory)}")
    targets = {int(fd.name): os.readlink(fd) for fd in (proc / "fd").iterdir()}
    assert [targets[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3
    assert str(tmp_path / "kept") not in targets.values()
    assert os.readlink(proc / "cwd") == "/"
    assert "Umask:\t0022\n" in (proc / "status").read_text()
    _, session, tty = (proc / "stat").read_text().rpartition(") ")[2].split()[2:5]
    assert (int(session) != os.getsid(0), tty) == (True, "0")
    assert f"mounted on {directory}" in (tmp_path / "log").read_text()


def test_the_command_works_without_standard_streams(directory: Path) -> None:
    done = run("sh", "-c", 'exec "$@" <&- >&- 2>&-', "-", SYNOSFS, str(directory))
    assert done.returncode == 0
    assert (directory / "help").exists()


def test_a_mounted_directory_is_refused(directory: Path) -> None:
    assert synosfs(directory).returncode == 0
    assert_refused(synosfs(directory), "is already mounted by synosfs; to unmount it: fusermount3 -u")
    (directory.parent / "link").symlink_to(directory)
    assert_refused(synosfs(directory.parent / "link"), "is already mounted by synosfs")
    assert (directory / "help").exists()


def test_a_mount_whose_daemon_is_stopped_is_reported_and_nothing_hangs(directory: Path) -> None:
    assert synosfs(directory).returncode == 0
    daemon = daemon_of(directory)
    os.kill(daemon, signal.SIGSTOP)
    assert_refused(run(*stub("", directory)), "is mounted by synosfs, which does not answer")
    os.kill(daemon, signal.SIGCONT)
    assert (directory / "help").exists()


def test_a_dead_mount_is_replaced(directory: Path) -> None:
    assert synosfs(directory).returncode == 0
    daemon = daemon_of(directory)
    os.kill(daemon, signal.SIGKILL)
    wait_gone(daemon)
    with pytest.raises(OSError, match="endpoint is not connected") as raised:
        os.stat(directory)
    assert raised.value.errno == errno.ENOTCONN

    done = synosfs(directory)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"synosfs: replacing the mount that a dead daemon left on {directory}\n"
    assert (directory / "help").exists()
    assert run("fusermount3", "-u", str(directory)).returncode == 0
    assert not mount_line(directory)


def terminate(daemon: int, directory: Path) -> None:
    os.kill(daemon, signal.SIGTERM)


def interrupt(daemon: int, directory: Path) -> None:
    os.kill(daemon, signal.SIGINT)


def unmount(daemon: int, directory: Path) -> None:
    assert run("fusermount3", "-u", str(directory)).returncode == 0


@pytest.mark.parametrize("end", [terminate, interrupt, unmount])
def test_a_daemon_ends_cleanly(directory: Path, tmp_path: Path, end: Callable[[int, Path], None]) -> None:
    assert synosfs("--log-file", tmp_path / "log", directory).returncode == 0
    daemon = daemon_of(directory)
    end(daemon, directory)
    wait_gone(daemon)
    assert not mount_line(directory)
    log = (tmp_path / "log").read_text()
    assert f"unmounted from {directory}" in log
    assert not re.search("WARNING|ERROR|Traceback", log), log


@pytest.mark.parametrize("end", [terminate, interrupt, unmount])
def test_the_foreground_ends_with_status_0_and_tells_the_service_manager(
    directory: Path, manager: socket.socket, end: Callable[[int, Path], None]
) -> None:
    environment = os.environ | {"NOTIFY_SOCKET": notify_address(manager)}
    with subprocess.Popen([SYNOSFS, "-f", directory], env=environment, stderr=subprocess.PIPE, text=True) as daemon:
        assert manager.recv(4096) == f"READY=1\nMAINPID={daemon.pid}".encode()
        assert (directory / "help").exists()
        assert b"NOTIFY_SOCKET" in Path(f"/proc/{daemon.pid}/environ").read_bytes()
        end(daemon.pid, directory)
        assert manager.recv(4096) == b"STOPPING=1"
        _, log = daemon.communicate(timeout=TIMEOUT_S)
    assert daemon.returncode == 0, log
    assert not mount_line(directory)
    assert not re.search("WARNING|ERROR|Traceback", log), log


def test_a_daemon_tells_the_service_manager_its_pid(directory: Path, manager: socket.socket) -> None:
    assert synosfs(directory, env=os.environ | {"NOTIFY_SOCKET": notify_address(manager)}).returncode == 0
    assert manager.recv(4096) == f"READY=1\nMAINPID={daemon_of(directory)}".encode()


@needs_root
def test_a_daemon_without_a_log_file_tells_syslog(directory: Path, tmp_path: Path) -> None:
    devices = """
    mkdir "$TMP/dev"; mount -t tmpfs none "$TMP/dev"; ln -s "$TMP/syslog" "$TMP/dev/log"
    mknod "$TMP/dev/null" c 1 3; mknod "$TMP/dev/fuse" c 10 229; mount --bind "$TMP/dev" /dev
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog, namespace(tmp_path, devices) as inside:
        syslog.bind(str(tmp_path / "syslog"))
        syslog.settimeout(TIMEOUT_S)
        assert run(*inside, SYNOSFS, str(directory)).returncode == 0
        daemon = daemon_of(directory)
        said = syslog.recv(1000).rstrip(b"\0").decode()
        assert said == f"<30>synosfs[{daemon}]: INFO synosfs.mount: mounted on {directory}"
        os.kill(daemon, signal.SIGTERM)
        wait_gone(daemon)


def test_options_and_source_reach_the_mount_table(directory: Path) -> None:
    words = "allow_other,noexec,nodev,noatime,dirsync" if os.geteuid() == 0 else "noexec,nodev,noatime"
    done = synosfs("my source", directory, "-o", words, "-o", "suid,nosuid,nofail")
    assert (done.returncode, done.stderr) == (0, "")
    fields = mount_line(directory).split()
    mount_flags, (source, super_options) = fields[5].split(","), fields[-2:]
    assert {"noexec", "nodev", "noatime", "nosuid"} <= set(mount_flags)
    assert source == r"my\040source"
    assert ("allow_other" in super_options) == ("allow_other" in words)


# --- mount(8), and ordinary users


@needs_root
@pytest.mark.parametrize("how", ["-t fuse.synosfs synosfs {0} -o nodev", "-T {0}/../fstab {0}"])
def test_mount_8_mounts_by_type_and_from_fstab(directory: Path, tmp_path: Path, how: str) -> None:
    line = f"synosfs {directory} fuse.synosfs nodev,noauto,nofail,_netdev,x-systemd.automount,defaults 0 0\n"
    (tmp_path / "fstab").write_text(line)
    # mount(8) has a search path of its own; its first directory belongs to this test in here.
    setup = f"mount -t tmpfs none /usr/local/sbin; ln -s {SYNOSFS} /usr/local/sbin/synosfs; cd /"
    with namespace(tmp_path, setup) as inside:
        done = run(*inside, "mount", *how.format(directory).split(), cwd="/")
        assert (done.returncode, done.stderr) == (0, "")
        table = run(*inside, "findmnt", "--noheadings", "--output=SOURCE,FSTYPE,OPTIONS", str(directory))
        assert re.match(r"synosfs +fuse\.synosfs +rw,nodev,", table.stdout)
        assert run(*inside, "cat", f"{directory}/help").stdout
        daemon = daemon_of(directory)
        assert run(*inside, "umount", str(directory)).returncode == 0
        wait_gone(daemon)


@needs_root
def test_an_ordinary_user_mounts_replaces_a_dead_mount_and_unmounts(directory: Path, tmp_path: Path) -> None:
    with namespace(tmp_path, OPEN_DEVICE) as inside:
        me = [*inside, *AS_NOBODY]
        for said in ("", f"synosfs: replacing the mount that a dead daemon left on {directory}\n"):
            done = run(*me, SYNOSFS, str(directory))
            assert (done.returncode, done.stderr) == (0, said)
            assert run(*me, "cat", f"{directory}/help").stdout
            daemon = daemon_of(directory)
            assert Path(f"/proc/{daemon}").stat().st_uid == 65534
            os.kill(daemon, signal.SIGKILL)
            wait_gone(daemon)
        assert run(*me, SYNOSFS, str(directory)).returncode == 0
        daemon = daemon_of(directory)
        assert run(*me, "fusermount3", "-u", str(directory)).returncode == 0
        wait_gone(daemon)


@needs_root
def test_an_ordinary_user_cannot_remove_the_dead_mount_of_root(directory: Path, tmp_path: Path) -> None:
    with namespace(tmp_path, OPEN_DEVICE) as inside:
        assert run(*inside, SYNOSFS, str(directory)).returncode == 0
        daemon = daemon_of(directory)
        os.kill(daemon, signal.SIGKILL)
        wait_gone(daemon)
        done = run(*inside, *AS_NOBODY, SYNOSFS, str(directory))
        assert_refused(done, "is already mounted by synosfs")
