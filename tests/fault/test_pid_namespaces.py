"""Callers, and daemons, in a pid namespace of their own: its rows of the table in docs/security.md."""

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import SYNOSFS, assert_refused, needs_root, run
from doors import MountDoor
from mounts import COMPLAINT
from namespaces import CLONE_NEWPID, unshare
from native_msg import msgrcv

from synosfs.errors import SynosError
from synosfs.ipc.manager import IPCManager
from synosfs.process.accounts import Accounts
from synosfs.process.table import ProcessTable

pytestmark = needs_root


def test_a_caller_in_a_pid_namespace_below_has_its_pid_in_the_daemons(gate: MountDoor) -> None:
    def pids() -> tuple[list[int], int]:
        receive, send = os.pipe()
        unshare(CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            os.write(send, b"%d %d" % (os.getpid(), gate.ok("getpid").ret))
            os._exit(0)
        os.waitpid(child, 0)
        return list(map(int, os.read(receive, 100).split())), child

    (own, told), child = gate.spawn(pids).result()
    assert (own, told) == (1, child)


@pytest.fixture
def mount_of_a_pid_namespace(tmp_path: Path, queue: int) -> Iterator[Path]:
    """A mount whose daemon is in a pid namespace with a /proc of its own; a process there takes part."""
    (tmp_path / "mnt").mkdir()
    inside = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    script = (
        f'"{SYNOSFS}" -o allow_other --log-file "$1/log" "$1/mnt" && exec 3<>"$1/mnt/syscall"; echo mounted; read -r _'
    )
    command = [*inside, "sh", "-c", f'{script}; exec 3>&-; umount "$1/mnt"', "-", tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin
        assert shell.stdout
        assert shell.stdout.readline() == b"mounted\n"
        yield Path(f"/proc/{shell.pid}/root{tmp_path}/mnt")
        shell.stdin.close()
    assert shell.returncode == 0
    assert not COMPLAINT.search((tmp_path / "log").read_text())


@pytest.mark.parametrize("prefix", [(), ("unshare", "--pid", "--fork")], ids=["above", "beside"])
def test_who_has_no_pid_in_the_mounts_pid_namespace_reads_texts_and_does_nothing(
    mount_of_a_pid_namespace: Path, queue: int, prefix: tuple[str, ...]
) -> None:
    """The kernel says pid 0 of them all."""
    mount = mount_of_a_pid_namespace

    def attempt(command: str) -> str:
        done = run(*prefix, "sh", "-c", f"cd {mount}; {command}")
        return done.stdout if done.returncode == 0 else done.stderr.strip().rpartition(": ")[2]

    assert "msgget" in attempt("cat help")
    assert f" {queue} " in attempt("cat msgq/ctl")
    assert str(queue) in attempt("ls msgq/sysv").split()
    assert "Pid:\t" in attempt("cat proc/[0-9]*/status")
    for command in (
        "echo getpid > syscall",
        "echo set > msgq/ctl",
        f"cat msgq/sysv/{queue}",
        f"chmod 666 msgq/sysv/{queue}",
        f"rm msgq/sysv/{queue}",
        "mkfifo pipes/new",
        "cat proc/[0-9]*/blocked",
        "exec 3<>$(echo proc/[0-9]*/syscall)",
    ):
        assert attempt(command) == "No such process", command
    assert attempt("readlink proc/self || echo none") == "none\n"


def test_a_caller_without_a_pid_is_refused_with_the_reason() -> None:
    with pytest.raises(SynosError, match="outside the mount's pid namespace") as raised:
        ProcessTable(IPCManager(), Accounts()).enter(0)
    assert raised.value.errno == errno.ESRCH


def test_a_daemon_refuses_to_start_with_the_proc_of_another_pid_namespace(tmp_path: Path) -> None:
    """Its callers' groups, capabilities and roots would be those of whoever has their pids there."""
    (tmp_path / "mnt").mkdir()
    done = run("unshare", "--pid", "--fork", "--kill-child", SYNOSFS, str(tmp_path / "mnt"))
    assert_refused(done, "/proc is that of another pid namespace.*--mount-proc")
    assert not os.path.ismount(tmp_path / "mnt")


#: Of a pid namespace that this process is not in, which lasts as long as its first process.
PROC_OF_OTHERS = """
mkfifo wait
unshare --pid --fork --kill-child sh -c "mount -t proc proc /proc; echo > wait; sleep 60" > /dev/null 2>&1 &
read x < wait"""


@pytest.mark.parametrize("hide", ["mount -t tmpfs none /proc", PROC_OF_OTHERS], ids=["none", "of others"])
def test_a_daemon_refuses_to_start_without_a_proc_that_shows_it(tmp_path: Path, hide: str) -> None:
    (tmp_path / "mnt").mkdir()
    script = f'cd {tmp_path}; {hide}\n{SYNOSFS} mnt; status=$?; [ -z "$!" ] || kill -9 $!; exit $status'
    done = run("unshare", "--mount", "sh", "-c", script)
    assert_refused(done, "/proc does not show this process.*mount -t proc proc /proc")


# --- who uses an object, and is not to be seen from here


def _inside(mount: Path, *command: str) -> list[str]:
    """The command line of a program in the pid namespace of that mount."""
    keeper = f"/proc/{mount.parts[2]}/ns"
    return ["nsenter", f"--pid={keeper}/pid_for_children", f"--mount={keeper}/mnt", *command]


def _orphans(mount: Path, queue: int) -> str:
    [line] = [line for line in (mount / "msgq/orphans").read_text().splitlines() if line.split()[0] == str(queue)]
    return line


def test_what_a_process_outside_has_used_is_unknown_and_stays(mount_of_a_pid_namespace: Path, queue: int) -> None:
    mount = mount_of_a_pid_namespace
    inside = Path("/", *mount.parts[4:])
    done = run(*_inside(mount, "perl", "-e", f"msgsnd({queue}, pack('l!', 1), 0) or die $!"))
    assert done.returncode == 0, done.stderr
    assert " orphan " in _orphans(mount, queue)
    msgrcv(queue, 0)  # as a server in another container does
    assert "received from last by a process outside the mount's pid namespace" in _orphans(mount, queue)
    assert " unknown " in _orphans(mount, queue)
    done = run(*_inside(mount, "sh", "-c", f"echo reap > {inside}/msgq/ctl; cat {inside}/syscall"))
    assert done.stdout == "0 removed=\n", done.stderr
    assert _orphans(mount, queue)


def test_what_a_process_in_a_pid_namespace_below_uses_is_in_use(gate: MountDoor, queue: int) -> None:
    mount = gate.mount.path
    script = f"msgsnd({queue}, pack('l!', 1), 0) or die $!; print qq($$\\n); close STDOUT; <STDIN>"
    command = ["unshare", "--pid", "--fork", "perl", "-e", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as container:
        assert container.stdin
        assert container.stdout
        assert container.stdout.readline() == b"1\n"
        assert " in-use " in _orphans(mount, queue)
        assert "(perl), alive since" in _orphans(mount, queue)
        container.stdin.close()
    assert " orphan " in _orphans(mount, queue)


def test_a_pid_that_is_used_again_is_told_from_who_had_it(mount_of_a_pid_namespace: Path, queue: int) -> None:
    """The next pid is chosen, once the clock shows a later second than that of the deed."""
    script = r"""$| = 1; my $queue = shift;
        if (!(my $first = fork)) { msgsnd($queue, pack('l!', 1), 0) or die $!; exit }
        else {
            my $sent = time; wait; print "$first\n"; <STDIN>;
            select undef, undef, undef, 0.05 while time < $sent + 3;
            open my $last, '>', '/proc/sys/kernel/ns_last_pid' or die $!; syswrite $last, $first - 1; close $last;
            if (!(my $second = fork)) { exec 'sleep', 1000 }
            else { print "$second\n"; <STDIN>; kill 9, $second; wait }
        }"""
    mount = mount_of_a_pid_namespace
    command = _inside(mount, "perl", "-e", script, str(queue))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as perl:
        assert perl.stdin
        assert perl.stdout
        pid = int(perl.stdout.readline())
        assert f"sent to last by pid {pid}, dead; " in _orphans(mount, queue)
        perl.stdin.write(b"\n")
        assert int(perl.stdout.readline()) == pid
        assert re.search(rf"sent to last by pid {pid}, dead: pid {pid} \(\w+\) started later; ", _orphans(mount, queue))
        assert " orphan " in _orphans(mount, queue)
        perl.stdin.write(b"\n")
