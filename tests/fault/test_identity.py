"""Whom a session stands for: the process as it was when it was opened. What a process becomes, or what has its pid
later, is reached through no handle that somebody has kept.
"""

import ctypes
import errno
import os
import select
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from children import wait_until
from doors import NOBODY, MountDoor, write
from mounts import Mount
from native import libc

#: Says so when it runs, and then waits for the end of its input.
PROGRAM = r"""
#include <unistd.h>
int main(void) { char c; write(1, "runs\n", 5); while (read(3, &c, 1) > 0); return 0; }
"""

#: Has what is in a directory as its input and is in it; says so, and sleeps.
READER = r"""
#include <fcntl.h>
#include <unistd.h>
int main(void) { chdir(PRIVATE); dup2(open("secret", O_RDONLY), 0); write(1, ".", 1); pause(); }
"""

PR_SET_DUMPABLE = 4


@pytest.fixture
def gate_for_all(gate: MountDoor) -> MountDoor:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    return gate


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has no more rights than who starts it, yet."""
    directory = tmp_path_factory.mktemp("program")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    program = directory / "raised"
    subprocess.run(["gcc", "-x", "c", "-o", program, "-"], input=PROGRAM, text=True, check=True)
    return program


#: Whose a program is, and its mode, so that it has other rights than who starts it.
RAISED = {
    "root's": (0, 0, 0o4755),
    "another user's": (NOBODY - 1, NOBODY, 0o4755),
    "another group's": (0, NOBODY - 1, 0o2755),
}


@pytest.fixture(params=RAISED)
def setuid_program(program: Path, request: pytest.FixtureRequest) -> Path:
    """A program that is somebody else's, whoever starts it."""
    uid, gid, mode = RAISED[request.param]
    os.chown(program, uid, gid)
    program.chmod(mode)
    return program


def errno_of(attempt: Callable[[], object]) -> str:
    try:
        return f"answered {attempt()!r}"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def test_a_session_ends_for_its_holders_when_its_opener_becomes_a_setuid_program(
    gate_for_all: MountDoor, mount: Mount, setuid_program: Path
) -> None:
    def attack() -> list[str]:
        inputs, keep = os.pipe()
        outputs, out = os.pipe()
        ready, tell = os.pipe()
        opener = os.fork()
        if opener == 0:
            session = os.open(mount.gate, os.O_RDWR)
            own = f"{mount.path}/proc/{os.getpid()}"
            kept = {name: os.open(f"{own}/{name}", os.O_PATH) for name in ("syscall", "mem", "fd", "blocked")}
            memory = os.open(f"{own}/mem", os.O_RDWR)
            acting = os.open(f"{own}/syscall", os.O_RDWR)
            pid = os.getpid()
            ids = ids_of(pid)
            if os.fork() == 0:
                os.close(keep)
                try:
                    before = write(session, b"getpid\n")
                    os.write(tell, b"ready")
                    wait_until(lambda: ids_of(pid) != ids, "it has other ids", 10)
                    requests = [(session, b"read 0 10\n"), (session, b'{"call":"pipe"}\n'), (acting, b"getpid\n")]
                    tried = [before, *(write(*request) for request in requests)]
                    tried.append(errno_of(lambda: os.pread(memory, 10, 0x7F0000000000)))
                    tried += [
                        errno_of(lambda fd=fd: os.listdir(f"/proc/self/fd/{fd}") if fd == kept["fd"] else reopened(fd))
                        for fd in kept.values()
                    ]
                except BaseException as error:
                    tried = [repr(error)]
                os.write(out, repr(tried).encode())
                os._exit(0)
            os.read(ready, 5)
            os.dup2(inputs, 3)
            os.execv(setuid_program, [str(setuid_program)])
        os.close(out)
        os.close(inputs)
        answer = b""
        while piece := os.read(outputs, 1000):
            answer += piece
            if answer.endswith(b"]"):
                break
        os.close(keep)
        os.waitpid(opener, 0)
        assert b"[" in answer, answer
        return eval(answer.partition(b"[")[1] + answer.partition(b"[")[2])

    tried = gate_for_all.spawn(attack, uid=NOBODY).result()
    assert tried == [""] + ["EACCES"] * 8


def reopened(fd: int) -> bytes:
    return os.read(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), 10)


def ids_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().partition("Uid:")[2].splitlines()[:2]


#: ``struct vfs_cap_data`` of <linux/capability.h>: version 2, effective, CAP_DAC_READ_SEARCH permitted.
READS_ALL = struct.pack("<5I", 0x2000001, 1 << 2, 0, 0, 0)


def test_what_a_program_with_capabilities_has_is_not_for_the_holders_of_its_session(
    gate_for_all: MountDoor, mount: Mount, program: Path, tmp_path: Path
) -> None:
    """From then on its streams and its working directory are for them what they are natively."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "secret").write_text("secret")
    program.unlink()
    compiler = ["gcc", "-x", "c", "-o", program, f'-DPRIVATE="{private}"', "-"]
    subprocess.run(compiler, input=READER, text=True, check=True)
    os.setxattr(program, "security.capability", READS_ALL)
    started, starts = os.pipe()
    answers, answering = os.pipe()

    def become_it() -> None:
        sessions = [os.open(mount.gate, os.O_RDWR)]
        assert write(sessions[0], b"getpid\n") == ""
        sessions.append(os.open(f"{mount.path}/proc/{os.getpid()}/syscall", os.O_RDWR))
        if os.fork() == 0:
            os.read(started, 1)
            requests = [b"read 0 9\n", b"open ./secret O_RDONLY\n"]
            os.read(sessions[0], 99)
            tried = [write(fd, request) or os.read(fd, 99).decode() for fd in sessions for request in requests]
            os.write(answering, repr(tried).encode())
            os._exit(0)
        os.dup2(starts, 1)
        os.execv(program, [str(program)])

    child = gate_for_all.spawn(become_it, uid=NOBODY)
    # Of streams that may not be had, /dev/null takes the place.
    assert os.read(answers, 999).decode() == repr(2 * ["0\n\n", "EACCES"])
    child.kill()
    for fd in (started, starts, answers, answering):
        os.close(fd)


def test_a_handle_on_a_process_that_has_ended_is_esrch(gate_for_all: MountDoor, mount: Mount) -> None:
    child = gate_for_all.spawn_member()
    directory = mount.path / f"proc/{child.pid}"
    kept = [os.open(directory / name, os.O_PATH) for name in ("syscall", "mem", "blocked")]
    child.kill()
    wait_until(lambda: not directory.exists(), "it has left")
    for fd in kept:
        # The kernel looks a stale name up once more, and then there is none.
        assert errno_of(lambda fd=fd: os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)) in ("ESRCH", "ENOENT", "ESTALE")
        os.close(fd)


LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def test_a_handle_on_a_stranger_leads_to_none_that_has_its_pid_later(gate_for_all: MountDoor, mount: Mount) -> None:
    first = gate_for_all.spawn(signal.pause)
    directory = mount.path / f"proc/{first.pid}"
    kept = {name: os.open(directory / name, os.O_PATH) for name in (".", "syscall", "mem", "blocked", "fd", "status")}
    first.kill()
    for _ in range(100):  # others may take it first
        LAST_PID.write_text(str(first.pid - 1))
        second = gate_for_all.spawn(signal.pause)
        if second.pid == first.pid:
            break
        second.kill()
    else:
        pytest.skip("the pid does not come again")
    assert (directory / "status").exists()
    for name, fd in kept.items():
        path, flags = f"/proc/self/fd/{fd}" + "/status" * (name == "."), os.O_RDWR if name == "syscall" else os.O_RDONLY
        told = errno_of(lambda path=path, flags=flags: os.open(path, flags))
        if name == "fd":
            told = errno_of(lambda path=path: os.listdir(path))
        assert told in ("ESRCH", "ENOENT", "ESTALE"), name
        os.close(fd)
    assert str(first.pid) not in os.listdir(mount.path / "proc")
    second.kill()


def test_a_handle_on_a_process_leads_to_none_that_has_its_pid_later(gate_for_all: MountDoor, mount: Mount) -> None:
    first = gate_for_all.spawn_member(uid=NOBODY)
    directory = mount.path / f"proc/{first.pid}"
    kept = {name: os.open(directory / name, os.O_PATH) for name in ("syscall", "mem", "blocked", "fd", "status")}
    first.kill()
    for _ in range(100):  # others may take it first
        LAST_PID.write_text(str(first.pid - 1))
        second = gate_for_all.spawn_member()
        if second.pid == first.pid:
            break
        second.kill()
    else:
        pytest.skip("the pid does not come again")
    assert (directory / "status").read_text().splitlines()[5].split()[1] == "0"  # root's now
    for name, fd in kept.items():
        path = f"/proc/self/fd/{fd}"
        told = errno_of(lambda path=path, name=name: os.listdir(path) if name == "fd" else os.open(path, os.O_RDONLY))
        assert told in ("ESRCH", "ENOENT", "ESTALE"), name
        os.close(fd)


@pytest.mark.parametrize("how", ["not dumpable", "gave up root"])
def test_nobody_acts_for_a_process_that_the_host_does_not_let_them_trace(
    gate_for_all: MountDoor, mount: Mount, how: str
) -> None:
    ready, tell = os.pipe()

    def guarded() -> None:
        if how == "not dumpable":
            libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), ctypes.c_ulong(0))
        else:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        session = os.open(mount.gate, os.O_RDWR)
        os.write(tell, write(session, b"pipe\n").encode() + b".")
        select.select([], [], [])

    child = gate_for_all.spawn(guarded, uid=NOBODY if how == "not dumpable" else 0)
    assert os.read(ready, 10) == b"."
    directory = mount.path / f"proc/{child.pid}"

    def attempts() -> list[str]:
        tried = [
            errno_of(lambda flags=flags: os.open(directory / "syscall", flags)) for flags in (os.O_RDONLY, os.O_RDWR)
        ]
        tried += [
            errno_of(lambda name=name: os.open(directory / name, os.O_RDONLY)) for name in ("mem", "fds", "blocked")
        ]
        return [
            *tried,
            errno_of(lambda: os.listdir(directory / "fd")),
            errno_of(lambda: os.readlink(directory / "fd/3")),
        ]

    assert gate_for_all.spawn(attempts, uid=NOBODY).result() == ["EACCES"] * 7
    assert errno_of(lambda: os.listdir(directory / "fd")).startswith("answered")  # root may
    child.kill()
    os.close(ready)
    os.close(tell)


def test_who_acts_for_another_is_stopped_when_the_host_no_longer_lets_them_trace_it(
    gate_for_all: MountDoor, mount: Mount
) -> None:
    ready, tell = os.pipe()
    wait, go = os.pipe()

    def closes() -> None:
        libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), ctypes.c_ulong(1))
        gate_for_all.ok("getpid")
        os.write(tell, b".")
        os.read(wait, 1)
        libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), ctypes.c_ulong(0))
        os.write(tell, b".")
        select.select([], [], [])

    child = gate_for_all.spawn(closes, uid=NOBODY)
    assert os.read(ready, 1) == b"."
    directory = mount.path / f"proc/{child.pid}"

    def attempts() -> list[str]:
        session, memory = (os.open(directory / name, os.O_RDWR) for name in ("syscall", "mem"))

        def used() -> list[str]:
            return [write(session, b"pipe\n"), errno_of(lambda: os.pread(memory, 10, 0x7F0000000000))]

        before = used()
        os.write(go, b".")
        assert os.read(ready, 1) == b"."
        return before + used()

    assert gate_for_all.spawn(attempts, uid=NOBODY).result() == ["", "EIO", "EACCES", "EACCES"]
    child.kill()
    for fd in (ready, tell, wait, go):
        os.close(fd)


def test_the_last_reply_of_a_process_is_for_those_who_may_look_into_it(gate_for_all: MountDoor, mount: Mount) -> None:
    def dumpable() -> None:
        libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), ctypes.c_ulong(1))  # as a program that it executes would be
        gate_for_all.ok("uname")
        select.select([], [], [])

    child = gate_for_all.spawn(dumpable, uid=NOBODY)
    directory = mount.path / f"proc/{child.pid}"
    wait_until(lambda: directory.exists() and (directory / "syscall").read_bytes(), "it has been answered")
    assert (directory / "syscall").read_bytes().startswith(b"0 sysname=")
    theirs = gate_for_all.spawn(lambda: (directory / "syscall").read_bytes()[:10], uid=NOBODY).result()
    assert theirs == b"0 sysname="
    strangers = gate_for_all.spawn(lambda: errno_of((directory / "syscall").read_bytes), uid=NOBODY - 1).result()
    assert strangers == "EACCES"
    child.kill()


def test_a_process_name_is_one_line(gate_for_all: MountDoor, mount: Mount) -> None:
    def named() -> str:
        Path("/proc/self/comm").write_bytes(b"a\nPid:\t1")
        gate_for_all.ok("getpid")
        return (mount.path / "proc/self/status").read_text()

    status = gate_for_all.spawn(named).result()
    assert status.startswith("Name:\ta\\nPid:\\t1\nPid:\t")
