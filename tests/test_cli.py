"""The command: what it accepts, what it says when it cannot, and how its daemon comes and goes.

Everything runs as a real process. Where a rule is about the daemon and not about the mount, ``stub`` puts another
``serve`` in its place, which fails, dies or hangs as asked. What needs another /dev or another user's view happens in
a mount namespace that ends with the process.
"""

import errno
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from synosfs import __version__, mountpoint
from synosfs.errors import SynosError
from synosfs.options import MountOptions, parse_mount_words

SYNOSFS = str(Path(sys.executable).with_name("synosfs"))
TIMEOUT_S = 60

# nobody, who may nevertheless read everything: the interpreter may be in the home directory of root.
AS_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search".split()
AS_NOBODY += ["--ambient-caps=+dac_read_search"]

#: Gives nobody a device to open, whatever the mode of the machine's own.
OPEN_DEVICE = 'mknod "$TMP/fuse" c 10 229; chmod 666 "$TMP/fuse"; mount --bind "$TMP/fuse" /dev/fuse'


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_root = pytest.mark.skipif(
    not succeeds("unshare", "--mount", *AS_NOBODY, "true"), reason="needs root, to be others and to hide devices"
)


# --- helpers


def run(*command: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run to the end. Output goes through pipes, so a daemon that kept its standard streams would be noticed."""
    options = {"capture_output": True, "text": True, "timeout": TIMEOUT_S, "check": False, "stdin": subprocess.DEVNULL}
    return subprocess.run(command, **(options | kwargs))


def synosfs(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return run(SYNOSFS, *map(str, arguments), **kwargs)


@contextmanager
def namespace(tmp_path: Path, setup: str) -> Iterator[list[str]]:
    """A mount namespace, prepared in shell with TMP as its directory; the value is what to run a command in it."""
    inside = ["unshare", "--mount", "sh", "-ec", f"{setup}\n echo; exec cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(inside, stdin=pipe, stdout=pipe, env=os.environ | {"TMP": str(tmp_path)}) as keeper:
        assert keeper.stdout
        assert keeper.stdout.readline() == b"\n"
        yield ["nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt"]


def stub(body: str, *arguments: object) -> list[str]:
    """The command line of a synosfs whose ``serve(options, ready)`` has this body (lines separated by semicolons)."""
    code = f"""
import sys, types
def serve(options, ready):
    import os, signal; from synosfs.errors import SynosError; {body}
sys.modules["synosfs.mount"] = types.ModuleType("synosfs.mount")
sys.modules["synosfs.mount"].serve = serve
from synosfs import cli, daemon, mountpoint
daemon.START_TIMEOUT_S = mountpoint.PROBE_TIMEOUT_S = 2.0
sys.exit(cli.main())
"""
    return [sys.executable, "-c", code, *map(str, arguments)]


def assert_refused(done: subprocess.CompletedProcess[str], pattern: str, status: int = 1) -> None:
    """One line on standard error, which names the program and matches; nothing on standard output."""
    assert re.fullmatch(rf"synosfs: .*{pattern}.*\n", done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (status, "")


def processes_of(path: Path) -> list[int]:
    """The processes that have this path on their command line, this one's children that are still here included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(path) in words:
                found.append(int(entry.name))
    return found


def daemon_of(path: Path) -> int:
    [pid] = processes_of(path)
    return pid


def wait_gone(pid: int) -> None:
    """Wait for the end of a process that is not necessarily a child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(TIMEOUT_S * 1000)
    os.close(pidfd)
    assert ended, f"process {pid} does not end"


def mount_line(path: Path) -> str:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next((line for line in reversed(lines) if f" {path} " in line), "")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A mount point that anybody may write to. Whatever a test leaves on it, daemons included, is ended."""
    path = tmp_path / "mnt"
    path.mkdir()
    path.chmod(0o777)
    for parent in [tmp_path, *tmp_path.parents[:2]]:  # pytest keeps them from others
        parent.chmod(parent.stat().st_mode | 0o711)
    yield path
    for pid in processes_of(path):
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
    while mountpoint.mounted(str(path)):
        mountpoint.detach(str(path))


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


# --- the words after -o


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", MountOptions("/m")),
        (
            "rw,defaults,auto,noauto,user=me,nofail,_netdev,x-systemd.automount,x-gvfs-name=S,comment=c",
            MountOptions("/m"),
        ),
        ("rw,dev,suid", MountOptions("/m", flags=frozenset({"dev", "suid"}))),
        ("allow_other,fsname=s,nosuid", MountOptions("/m", "s", allow_other=True, flags=frozenset({"nosuid"}))),
        ("suid,nosuid,noatime,atime", MountOptions("/m", flags=frozenset({"nosuid", "atime"}))),
        ("ro,rw", MountOptions("/m")),
    ],
)
def test_each_mount_word_is_honoured_or_spoken_to_others(words: str, expected: MountOptions) -> None:
    assert parse_mount_words("/m", None, words.split(",")) == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("ro", "every request is a write"),
        ("remount", "unmount it and mount it again"),
        ("allow_root", "use allow_other"),
        ("auto_unmount", "the next start replaces"),
        ("alow_other", "unknown mount option 'alow_other'; did you mean 'allow_other'?"),
        ("fsnam=x", "unknown mount option 'fsnam'; did you mean 'fsname'?"),
        ("zzz", "unknown mount option 'zzz'; synosfs --help lists them"),
        ("fsname=", "'fsname' needs a name"),
        ("nosuid=1", "'nosuid' takes no value"),
    ],
)
def test_other_mount_words_are_refused_by_name(word: str, reason: str) -> None:
    with pytest.raises(SynosError, match=re.escape(reason)) as raised:
        parse_mount_words("/m", None, [word])
    assert raised.value.errno == errno.EINVAL


def test_fsname_counts_more_than_the_source_before_the_mount_point() -> None:
    assert parse_mount_words("/m", "a", []).source == "a"
    assert parse_mount_words("/m", "a", ["fsname=b"]).source == "b"


def test_a_source_with_a_comma_is_refused() -> None:
    with pytest.raises(SynosError, match="comma"):
        parse_mount_words("/m", "a,ro", [])


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], "no mount point given; try: synosfs --help"),
        (["a", "b", "c"], "one word too many: 'c'"),
        (["--unknown", "/m"], "--unknown"),
        (["--fore", "/m"], "--fore"),
        (["--log-level", "loud", "/m"], "'loud'"),
        (["-o"], "-o"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(arguments: list[str], pattern: str) -> None:
    assert_refused(synosfs(*arguments), pattern, status=2)


def test_help_names_every_option_and_a_first_example() -> None:
    done = synosfs("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        "--foreground",
        "-o ",
        "--log-level",
        "--log-file",
        "--version",
        "allow_other",
        "fsname",
        "/etc/fstab",
    ):
        assert word in done.stdout
    assert "synosfs /mnt/synos" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_version() -> None:
    assert synosfs("--version").stdout == f"synosfs {__version__}\n"


def test_the_command_loads_no_heavy_module_before_the_daemon() -> None:
    code = "import sys, synosfs.cli; print(sorted({'trio', 'pyfuse3', 'msgspec', 'asyncio'} & set(sys.modules)))"
    assert run(sys.executable, "-c", code).stdout == "[]\n"


def test_options_may_stand_before_between_and_after_the_paths(directory: Path) -> None:
    for arguments in (["-o", "zzz", "s", directory], ["s", "-o", "zzz", directory], ["s", directory, "-o", "rw,zzz"]):
        assert_refused(synosfs(*arguments), "unknown mount option 'zzz'")


# --- what cannot be mounted, and the way out


def test_a_missing_mount_point(tmp_path: Path) -> None:
    assert_refused(synosfs(tmp_path / "no"), f"{tmp_path}/no does not exist; make it: mkdir -p {tmp_path}/no")


def test_a_file_as_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(synosfs(tmp_path / "file"), "file is not a directory")


def test_a_mount_point_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(synosfs(tmp_path / "file/below"), "cannot be used: not a directory")


def test_a_mount_of_another_kind() -> None:
    assert_refused(synosfs("/proc"), r"/proc is already a mount of proc \(.*\); choose another directory")


def test_read_only(directory: Path) -> None:
    assert_refused(synosfs("-o", "ro", directory), "'ro' is refused: every request is a write")


def test_a_log_file_that_cannot_be_opened(directory: Path) -> None:
    done = run(*stub("ready()", "--log-file", "/proc/no/log", directory))
    assert_refused(done, "cannot open the log file /proc/no/log: no such file or directory")


@needs_root
@pytest.mark.parametrize(
    ("setup", "arguments", "pattern"),
    [
        (OPEN_DEVICE + '; chmod 755 "$TMP/mnt"', [], "no write permission for .*; choose a directory of your own"),
        (OPEN_DEVICE, ["-o", "suid"], "only root may mount with 'suid'; use 'nosuid'"),
        (
            OPEN_DEVICE + "; mount --bind /dev/null /etc/fuse.conf",
            ["-o", "allow_other"],
            "allow_other is not permitted .*; as root: echo user_allow_other >> /etc/fuse.conf",
        ),
        (
            OPEN_DEVICE + '; mount --bind /dev/null "$(command -v fusermount3)"',
            [],
            "fusermount3 is missing.*; as root: apt install fuse3",
        ),
        (OPEN_DEVICE + '; chmod 600 "$TMP/fuse"', [], "cannot open /dev/fuse: permission denied; as root: chmod 666"),
    ],
)
def test_what_an_ordinary_user_may_not(
    directory: Path, tmp_path: Path, setup: str, arguments: list[str], pattern: str
) -> None:
    with namespace(tmp_path, setup) as inside:
        assert_refused(run(*inside, *AS_NOBODY, SYNOSFS, *arguments, str(directory)), pattern)
    assert not processes_of(directory)


@needs_root
def test_no_device(directory: Path, tmp_path: Path) -> None:
    with namespace(tmp_path, "mount -t tmpfs none /dev; : >/dev/null") as inside:
        done = run(*inside, SYNOSFS, str(directory))
    assert_refused(done, "cannot open /dev/fuse: no such file or directory; as root: modprobe fuse; in a container")


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
        assert command.wait(TIMEOUT_S) == 130
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
        assert run(*inside, "test", "-s", f"{directory}/help").returncode == 0
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
            assert run(*me, "test", "-s", f"{directory}/help").returncode == 0
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
        assert_refused(done, "is already mounted by synosfs|cannot remove the dead mount|cannot be used")
