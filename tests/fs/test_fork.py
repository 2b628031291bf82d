"""Children that wait: what they inherit, how they are prepared, and what a program finds that one becomes."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import wait_until
from command import needs_root
from doors import NOBODY, MountDoor
from mounts import Mount, mounted

#: The program that shows what it finds, a line each.
SHOW = Path(__file__).with_name("show.py")


class Forked:
    """A child that waits, and the gate through which it is prepared."""

    def __init__(self, gate: MountDoor, pid: int) -> None:
        self.gate = gate
        self.pid = pid
        self._gate = os.open(gate.mount.path / f"proc/{pid}/syscall", os.O_RDWR | os.O_CLOEXEC)

    def call(self, line: str) -> str:
        """The first line of the reply, or the name of the errno."""
        with suppress(OSError):
            os.write(self._gate, line.encode() + b"\n")
        return os.read(self._gate, 1 << 16).decode().partition("\n")[0]

    def ok(self, line: str) -> str:
        reply = self.call(line)
        assert not reply.startswith("-1 "), reply
        return reply

    def execute(self, *words: str) -> None:
        self.ok("execve " + " ".join(f'"{word}"' for word in (words[0], *words)))

    def close(self) -> None:
        os.close(self._gate)


@pytest.fixture
def fork(gate: MountDoor) -> Iterator[Callable[[], Forked]]:
    made: list[Forked] = []

    def start() -> Forked:
        made.append(Forked(gate, gate.ok("fork").ret))
        return made[-1]

    yield start
    for child in made:
        child.close()
        if not gate.call("kill", child.pid, "SIGKILL").errno:
            gate.call("wait4", child.pid)


@pytest.fixture
def output(gate: MountDoor) -> Iterator[tuple[int, int]]:
    """A pipe through which a program says something: its read end, its write end."""
    ends = gate.ok("pipe2", "O_CLOEXEC").results
    yield ends["read"], ends["write"]
    for fd in ends.values():
        gate.call("close", fd)


def kept_at_exec(mount: Mount) -> list[int]:
    """The numbers that a program would have from this process; another test may have left some."""
    rows = (mount.path / f"proc/{os.getpid()}/fds").read_text().splitlines()[1:]
    return [int(row.split()[0]) for row in rows if row.split()[-1] == "no"]


def said(gate: MountDoor, read: int, write: int) -> str:
    """All that is written into the pipe until nobody has its write end any more."""
    gate.ok("close", write)
    text = b""
    while piece := gate.ok("read", read, 65536).data:
        text += piece
    return text.decode()


def status(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return text.partition(f"\n{name}:\t")[2].partition("\n")[0]


# --- what a child is while it waits


def test_a_child_waits_and_is_shown(gate: MountDoor, mount: Mount, fork: Callable[[], Forked]) -> None:
    child = fork()
    shown = (mount.path / f"proc/{child.pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" in shown
    assert "State:\tS\n" in shown
    assert (mount.path / f"proc/{os.getpid()}/children").read_text() == f"{child.pid} "
    assert child.ok("getpid") == str(child.pid)
    assert child.ok("getppid") == str(os.getpid())
    assert gate.ok("wait4", child.pid, "WNOHANG").ret == 0


def test_a_child_has_the_descriptors_that_its_parent_had_when_it_forked(
    gate: MountDoor, fork: Callable[[], Forked], output: tuple[int, int]
) -> None:
    read, write = output
    child = fork()
    gate.ok("close", write)
    assert child.ok(f"write {write} hello") == "5"
    assert gate.ok("read", read, 100).data == b"hello"
    child.ok(f"close {write}")
    assert gate.ok("read", read, 100).data == b""


def test_a_child_is_what_its_parent_is(fork: Callable[[], Forked]) -> None:
    child = fork()
    for name in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "SigIgn", "NoNewPrivs", "Cpus_allowed_list"):
        assert status(child.pid, name) == status(os.getpid(), name), name
    for name in ("cwd", "root", "ns/mnt", "ns/ipc", "ns/net", "fd/0", "fd/2"):
        assert os.readlink(f"/proc/{child.pid}/{name}") == os.readlink(f"/proc/self/{name}"), name
    limits = Path("/proc/self/limits").read_text().splitlines()
    theirs = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
    assert [line for line in theirs if "open files" not in line] == [
        line for line in limits if "open files" not in line
    ]
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == os.getpriority(os.PRIO_PROCESS, 0)


@needs_root
def test_an_ordinary_users_child_has_no_more_than_that_user(gate: MountDoor) -> None:
    def forks() -> dict[str, str]:
        os.nice(5)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (700, 800))
        pid = gate.ok("fork").ret
        names = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapInh", "CapBnd")
        found = {name: status(pid, name) for name in names} | {"Nice": str(os.getpriority(os.PRIO_PROCESS, pid))}
        found |= {f"own {name}": status(os.getpid(), name) for name in names}
        found["owner"] = str(os.stat(f"/proc/{pid}").st_uid)
        found["core"] = str(resource.prlimit(pid, resource.RLIMIT_CORE))
        child = Forked(gate, pid)
        found["files"] = child.ok("getrlimit RLIMIT_NOFILE")
        child.close()
        os.kill(pid, signal.SIGKILL)
        gate.ok("wait4", pid)
        return found

    found = gate.spawn(forks, uid=NOBODY).result()
    for name in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapInh", "CapBnd"):
        assert found[name] == found[f"own {name}"], name
    assert (found["Nice"], found["owner"], found["core"]) == ("5", str(NOBODY), "(0, 0)")
    assert found["files"] == "0 soft=700 hard=800"


def test_a_child_goes_with_its_parent(gate: MountDoor) -> None:
    read, write = os.pipe()

    def forks() -> None:
        os.write(write, b"%d" % gate.ok("fork").ret)
        signal.pause()

    parent = gate.spawn(forks)
    pid = int(os.read(read, 10))
    os.close(read)
    os.close(write)
    pidfd = os.pidfd_open(pid)
    parent.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the child is gone and waited for")
    os.close(pidfd)


def test_a_child_goes_with_the_daemon(own_mount: Mount) -> None:
    gate = MountDoor(own_mount, "text")
    pid = gate.ok("fork").ret
    own_mount.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the child is gone")
    own_mount.clear()


def test_a_program_goes_on_when_its_parent_ends(gate: MountDoor, mount: Mount) -> None:
    read, write = os.pipe()

    def spawns() -> None:
        os.write(write, b"%d" % gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000").ret)
        signal.pause()

    parent = gate.spawn(spawns)
    pid = int(os.read(read, 10))
    os.close(read)
    os.close(write)
    parent.kill()
    child = Forked(gate, pid)
    wait_until(lambda: child.ok("getppid") == "1", "it is nobody's child")
    child.close()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it is dead and waited for")


def test_a_child_that_has_ended_is_a_zombie_until_it_is_waited_for(
    gate: MountDoor, mount: Mount, fork: Callable[[], Forked]
) -> None:
    child = fork()
    child.ok("exit 3")
    shown = mount.path / f"proc/{child.pid}"
    wait_until(lambda: "State:\tZ\n" in (shown / "status").read_text(), "it is a zombie")
    assert str(child.pid) in os.listdir(mount.path / "proc")
    assert status(child.pid, "State").startswith("Z")
    assert gate.ok("wait4", child.pid).results["status"] == "exited:3"
    assert not shown.exists()
    assert not Path(f"/proc/{child.pid}").exists()


def test_a_grandchild_has_what_its_grandparent_prepared(gate: MountDoor, output: tuple[int, int]) -> None:
    read, write = output
    child = Forked(gate, gate.ok("fork").ret)
    child.ok("setenv ONE 1")
    grandchild = Forked(gate, int(child.ok("fork")))
    assert grandchild.ok("getppid") == str(child.pid)
    grandchild.ok("setenv TWO 2")
    grandchild.ok(f"dup2 {write} 1")
    grandchild.execute("/bin/sh", "-c", "echo $ONE $TWO $HOME")
    child.ok(f"close {write}")
    assert said(gate, read, write) == f"1 2 {os.environ.get('HOME', '')}".strip() + "\n"
    child.ok(f"wait4 {grandchild.pid}")
    grandchild.close()
    child.close()
    gate.ok("kill", child.pid, "SIGKILL")
    gate.ok("wait4", child.pid)


# --- preparing it


def test_a_child_is_put_into_groups_and_sessions(fork: Callable[[], Forked], gate: MountDoor) -> None:
    leader, other = fork(), fork()
    assert leader.ok("setpgid") == "0"
    assert leader.ok("getpgrp") == str(leader.pid) == str(os.getpgid(leader.pid))
    gate.ok("setpgid", other.pid, leader.pid)
    assert os.getpgid(other.pid) == leader.pid
    assert other.ok("setsid") == str(other.pid)
    assert os.getsid(other.pid) == other.pid
    assert other.call("setsid").startswith("-1 EPERM")


def test_setpgid_of_what_is_no_child_that_waits(fork: Callable[[], Forked], gate: MountDoor) -> None:
    child = fork()
    assert gate.call("setpgid", 1, 0).errno == "ESRCH"
    assert gate.call("setpgid", 0, 0).errno == "EPERM"
    child.execute("/bin/sleep", "1000")
    assert gate.call("setpgid", child.pid, 0).errno == "EACCES"


def test_limits_of_a_child_hold_for_its_program(fork: Callable[[], Forked], gate: MountDoor) -> None:
    child = fork()
    child.ok("setrlimit RLIMIT_NOFILE 32 64")
    child.ok("setrlimit RLIMIT_CORE 0 0")
    assert child.ok("getrlimit RLIMIT_NOFILE") == "0 soft=32 hard=64"
    assert child.ok("dup2 0 31") == "31"
    assert child.call("dup2 0 32").startswith("-1 EBADF 32 is not from 0 to 31: raise RLIMIT_NOFILE")
    assert child.call("setrlimit RLIMIT_CORE 10 5").startswith("-1 EINVAL")
    child.execute("/bin/sleep", "1000")
    assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (32, 64)
    assert resource.prlimit(child.pid, resource.RLIMIT_CORE) == (0, 0)


def test_an_order_for_a_program_is_refused(fork: Callable[[], Forked], gate: MountDoor) -> None:
    child = fork()
    child.execute("/bin/sleep", "1000")
    for line in ("execve /bin/true", "exit", "setsid"):
        assert child.call(line).startswith("-1 EPERM"), line
    assert gate.call("execve", b"/bin/true").errno == "EPERM"


# --- what its program finds


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_program_finds_its_descriptors_and_nothing_of_the_daemons(
    gate: MountDoor, output: tuple[int, int], how: str
) -> None:
    read, write = output
    before = kept_at_exec(gate.mount)
    kept = gate.ok("dup", 1).ret
    gate.ok("dup3", kept, 99, "O_CLOEXEC")
    gate.ok("close", kept)
    gate.ok("dup2", write, 1)
    extra = gate.ok("pipe").results
    hidden = gate.ok("pipe2", "O_CLOEXEC").results
    words = ["/usr/bin/python3", "-S", "-E", str(SHOW)]
    if how == "spawn":
        pid = gate.ok("spawn", words[0].encode(), *(word.encode() for word in words)).ret
    else:
        pid = gate.ok("fork").ret
        child = Forked(gate, pid)
        child.execute(*words)
        child.close()
    gate.ok("dup2", 99, 1)
    for fd in (99, *extra.values(), *hidden.values()):
        gate.ok("close", fd)
    shown = dict(line.split("=", 1) for line in said(gate, read, write).splitlines())
    assert gate.ok("wait4", pid).results["status"] == "exited:0"
    assert shown["fds"] == ",".join(map(str, sorted((*before, *extra.values()))))
    assert (shown["stdout"], shown["nonblocking"]) == ("pipe", "")
    assert shown["cwd"] == os.getcwd()
    assert shown["masked"] == status(os.getpid(), "SigBlk")
    assert shown["ignored"] == status(os.getpid(), "SigIgn")
    own = Path("/proc/self/environ").read_bytes().decode().split("\0")
    assert shown["environment"] == ",".join(sorted(word.partition("=")[0] for word in own if word))
    assert shown["umask"] == status(os.getpid(), "Umask")


def test_what_was_handed_over_is_the_programs_alone(gate: MountDoor, output: tuple[int, int], mount: Mount) -> None:
    """The daemon keeps no end of a pipe: who reads sees its end when the program closes it, and not when it dies."""
    read, write = output
    pid = gate.ok("spawn", b"/bin/sh", b"sh", b"-c", b"exec 1>&-; exec sleep 1000", stdout=write).ret
    assert said(gate, read, write) == ""
    gate.ok("kill", pid, "SIGKILL")
    gate.ok("wait4", pid)


def test_a_message_queue_is_handed_over(gate: MountDoor, output: tuple[int, int]) -> None:
    """What is sent to it here a program receives natively, by the number that it finds."""
    read, write = output
    name = f"/synosfs-test-{os.getpid()}".encode()
    queue = gate.ok("mq_open", name, "O_CREAT|O_RDWR", "0600", maxmsg=2, msgsize=16).ret
    receive = (
        "import ctypes; data = ctypes.create_string_buffer(16); librt = ctypes.CDLL('librt.so.1'); "
        f"print([(librt.mq_receive({queue}, data, 16, None), data.value) for _ in range(2)])"
    )
    try:
        gate.ok("fcntl", queue, "F_SETFD", 0)
        gate.ok("mq_send", queue, b"before")
        pid = gate.ok("spawn", b"/usr/bin/python3", b"python3", b"-S", b"-E", b"-c", receive.encode(), stdout=write).ret
        gate.ok("mq_send", queue, b"while it waits")
        assert said(gate, read, write) == "[(6, b'before'), (14, b'while it waits')]\n"
        assert gate.ok("wait4", pid).results["status"] == "exited:0"
        # It had an open file of its own: it waited, and this one is what it was.
        gate.ok("mq_setattr", queue, "O_NONBLOCK")
        assert gate.call("mq_receive", queue).errno == "EAGAIN"
    finally:
        gate.ok("mq_unlink", name)
        gate.ok("close", queue)


def test_the_descriptors_of_a_program_are_its_own(gate: MountDoor, output: tuple[int, int], mount: Mount) -> None:
    read, write = output
    pid = gate.ok("spawn", b"/bin/sleep", b"sleep", b"1000", stdout=write).ret
    child = Forked(gate, pid)
    assert child.ok("write 1 hello") == "5"
    assert gate.ok("read", read, 100).data == b"hello"
    assert os.readlink(mount.path / f"proc/{pid}/fd/1") == f"/proc/{pid}/fd/1"
    child.close()
    gate.ok("kill", pid, "SIGKILL")
    gate.ok("wait4", pid)


@pytest.mark.parametrize(
    ("words", "errno"),
    [
        (["/nonexistent"], "ENOENT"),
        (["/etc/passwd"], "EACCES"),
        (["/etc/passwd/x"], "ENOTDIR"),
        (["{script}"], "ENOEXEC"),
        (["/bin/true", "x" * 200_000], "E2BIG"),
    ],
)
def test_a_child_waits_on_when_it_cannot_become_a_program(
    gate: MountDoor, fork: Callable[[], Forked], output: tuple[int, int], tmp_path: Path, words: list[str], errno: str
) -> None:
    script = tmp_path / "script"
    script.write_text("no interpreter")
    script.chmod(0o755)
    read, write = output
    child = fork()
    path = words[0].format(script=script)
    line = "execve " + " ".join([path, path, *words[1:]])
    assert child.call(line).startswith(f"-1 {errno} ")
    child.ok(f"dup2 {write} 1")
    child.execute("/bin/echo", "at last")
    assert said(gate, read, write) == "at last\n"
    assert gate.ok("wait4", child.pid).results["status"] == "exited:0"


def test_a_script_is_run_by_its_interpreter(gate: MountDoor, output: tuple[int, int], tmp_path: Path) -> None:
    read, write = output
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho script $*\n")
    script.chmod(0o755)
    pid = gate.ok("spawn", str(script).encode(), b"script", b"a", b"b", stdout=write).ret
    assert said(gate, read, write) == "script a b\n"
    assert gate.ok("wait4", pid).results["status"] == "exited:0"


def test_a_program_begins_where_it_is_told(gate: MountDoor, output: tuple[int, int], tmp_path: Path) -> None:
    read, write = output
    pid = gate.ok("spawn", b"/bin/pwd", stdout=write, cwd=str(tmp_path)).ret
    assert said(gate, read, write) == f"{tmp_path}\n"
    gate.ok("wait4", pid)


def test_variables_are_set_and_taken_out(gate: MountDoor, output: tuple[int, int]) -> None:
    def told() -> str:
        ends = gate.ok("pipe2", "O_CLOEXEC").results
        gate.ok("setenv", b"ONE", b"1")
        gate.ok("setenv", b"GONE", b"x")
        gate.ok("unsetenv", b"GONE")
        gate.ok("unsetenv", b"HOME")
        gate.ok("spawn", b"/usr/bin/env", stdout=ends["write"], TWO="2")
        return said(gate, ends["read"], ends["write"])

    variables = gate.spawn(told).result().splitlines()
    assert {"ONE=1", "TWO=2"} <= set(variables)
    assert not [line for line in variables if line.startswith(("GONE=", "HOME="))]
    assert gate.call("setenv", b"A=B", b"1").errno == "EINVAL"


def test_many_descriptors_are_handed_over(gate: MountDoor, output: tuple[int, int]) -> None:
    def spawns() -> tuple[int, str]:
        gate.ok("close_range", 3, 1023)
        numbers = [fd for _ in range(300) for fd in gate.ok("pipe").results.values()]
        ends = gate.ok("pipe2", "O_CLOEXEC").results
        gate.ok("spawn", b"/bin/ls", b"ls", b"/proc/self/fd", stdout=ends["write"])
        return len(numbers), said(gate, ends["read"], ends["write"])

    count, listed = gate.spawn(spawns).result()
    assert len(listed.split()) == count + 3 + 1  # and the directory that is listed


# --- what is refused


def test_too_many_children_of_a_user_are_eagain() -> None:
    with mounted(options=("-o", "max_children=3")) as mount:
        gate = MountDoor(mount, "text")
        pids = [gate.ok("fork").ret for _ in range(3)]
        refused = gate.call("spawn", b"/bin/true")
        assert refused.errno == "EAGAIN"
        assert "max_children" in refused.message
        gate.ok("kill", pids[0], "SIGKILL")
        gate.ok("wait4", pids[0])
        gate.ok("wait4", gate.ok("spawn", b"/bin/true").ret)
        gate.close()


def test_spawn_of_a_descriptor_that_is_not_open_is_ebadf(gate: MountDoor) -> None:
    assert gate.call("spawn", b"/bin/true", stdout=77).errno == "EBADF"
    assert gate.call("wait4", -1, "WNOHANG").errno == "ECHILD"


@pytest.mark.parametrize("flags", ["CLONE_VM", "CLONE_FS|SIGCHLD", "0x40000000"])
def test_clone_of_anything_but_a_process_is_einval(gate: MountDoor, flags: str) -> None:
    assert gate.call("clone", flags).errno == "EINVAL"


# --- execveat


def test_a_child_becomes_a_program_of_an_open_directory(
    gate: MountDoor, fork: Callable[[], Forked], output: tuple[int, int], tmp_path: Path
) -> None:
    read, write = output
    file = tmp_path / "program"
    shutil.copy("/bin/echo", file)
    program = gate.ok("open", str(file).encode()).ret
    child, other = fork(), fork()
    gate.ok("close", program)
    for one in (child, other):
        one.ok(f"dup2 {write} 1")
    assert child.call(f"execveat {program} x").startswith("-1 ENOTDIR")
    child.ok(f'execveat {program} "" echo by its descriptor flags=AT_EMPTY_PATH')
    assert gate.ok("read", read, 100).data == b"by its descriptor\n"
    other.ok(f"execveat -100 {file} echo by its path")
    assert said(gate, read, write) == "by its path\n"
    for one in (child, other):
        gate.ok("wait4", one.pid)


# --- where it is


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_the_directory_and_mask_that_were_set_here_are_the_programs(
    gate: MountDoor, output: tuple[int, int], tmp_path: Path, how: str
) -> None:
    def starts() -> str:
        gate.ok("close_range", 3, 1023)
        gate.ok("chdir", str(tmp_path).encode())
        gate.ok("umask", "0027")
        ends = gate.ok("pipe2", "O_CLOEXEC").results
        script = b"pwd; umask; ls /proc/self/fd"
        if how == "spawn":
            gate.ok("spawn", b"/bin/sh", b"sh", b"-c", script, stdout=ends["write"])
            return said(gate, ends["read"], ends["write"])
        child = Forked(gate, gate.ok("fork").ret)
        child.ok(f"dup2 {ends['write']} 1")
        before = child.ok("getcwd")
        child.ok("chdir /")
        child.ok("umask 077")
        child.execute("/bin/sh", "-c", script.decode())
        child.close()
        return before + "\n" + said(gate, ends["read"], ends["write"])

    shown = gate.spawn(starts).result().splitlines()
    if how == "spawn":
        assert shown == [str(tmp_path), "0027", "0", "1", "2", "3"]
    else:
        assert shown == [str(len(str(tmp_path))), "/", "0077", "0", "1", "2", "3"]
