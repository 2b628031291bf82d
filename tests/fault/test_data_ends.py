"""The ends of a wait for a lock, a pipe's data or room, or a counter: signal, SIGKILL, time-out, close, unmount."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from children import PATIENCE_S, wait_until
from doors import MountDoor, write
from mounts import Mount
from test_ended import by_sigterm, by_umount_lazily

Call = tuple[Any, ...]


def record_lock(gate: MountDoor, file: bytes) -> Call:
    fd = gate.ok("open", file, "O_RDWR").ret
    gate.ok("fcntl", fd, "F_SETLK", "F_WRLCK", 0, 0)
    return "fcntl", fd, "F_SETLKW", "F_WRLCK", 0, 0


def open_file_lock(gate: MountDoor, file: bytes) -> Call:
    gate.ok("fcntl", gate.ok("open", file, "O_RDWR").ret, "F_OFD_SETLK", "F_WRLCK", 0, 0)
    return "fcntl", gate.ok("open", file, "O_RDWR").ret, "F_OFD_SETLKW", "F_RDLCK", 0, 0


def whole_lock(gate: MountDoor, file: bytes) -> Call:
    gate.ok("flock", gate.ok("open", file, "O_RDWR").ret, "LOCK_EX")
    return "flock", gate.ok("open", file, "O_RDWR").ret, "LOCK_EX"


def splice_of_an_empty_pipe(gate: MountDoor, file: bytes) -> Call:
    return "splice", gate.ok("pipe").results["read"], gate.ok("open", file, "O_RDWR").ret, 100


def splice_into_a_full_pipe(gate: MountDoor, file: bytes) -> Call:
    write = gate.ok("pipe").results["write"]
    gate.ok("write", write, b"f" * 65536)
    return "splice", gate.ok("open", file, "O_RDWR").ret, write, 100


def tee_of_an_empty_pipe(gate: MountDoor, file: bytes) -> Call:
    return "tee", gate.ok("pipe").results["read"], gate.ok("pipe").results["write"], 100


def sendfile_into_a_full_socket(gate: MountDoor, file: bytes) -> Call:
    Path(os.fsdecode(file)).write_bytes(b"x" * (8 << 20))
    ends = gate.ok("socketpair", "SOCK_NONBLOCK").results
    while not gate.call("write", ends["first"], b"x" * 65536).errno:
        pass
    gate.ok("fcntl", ends["first"], "F_SETFL", 0)
    return "sendfile", ends["first"], gate.ok("open", file, "O_RDWR").ret, 8 << 20


def an_empty_counter(gate: MountDoor, file: bytes) -> Call:
    return "read", gate.ok("eventfd2").ret, 8


def a_full_counter(gate: MountDoor, file: bytes) -> Call:
    fd = gate.ok("eventfd2").ret
    gate.ok("eventfd_write", fd, (1 << 64) - 2)
    return "eventfd_write", fd, 1


def a_timer_that_is_off(gate: MountDoor, file: bytes) -> Call:
    return "read", gate.ok("timerfd_create", "CLOCK_MONOTONIC").ret, 8


def a_socket(gate: MountDoor, file: bytes) -> Call:
    return "read", gate.ok("socketpair").results["first"], 8


WAITS = pytest.mark.parametrize(
    "wait",
    [
        record_lock,
        open_file_lock,
        whole_lock,
        splice_of_an_empty_pipe,
        splice_into_a_full_pipe,
        tee_of_an_empty_pipe,
        sendfile_into_a_full_socket,
        an_empty_counter,
        a_full_counter,
        a_timer_that_is_off,
        a_socket,
    ],
)
Wait = Callable[[MountDoor, bytes], Call]


@pytest.fixture
def file(tmp_path: Path) -> bytes:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    return os.fsencode(tmp_path / "file")


@WAITS
def test_a_signal_ends_it(gate: MountDoor, file: bytes, wait: Wait) -> None:
    blocked = gate.block(*wait(gate, file))
    blocked.interrupt()
    assert blocked.result().errno == "EINTR"
    gate.call("close_range", 3, 1023)


@WAITS
def test_sigkill_ends_it(gate: MountDoor, file: bytes, wait: Wait) -> None:
    blocked = gate.block(*wait(gate, file))
    blocked.kill()
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
    gate.call("close_range", 3, 1023)


@WAITS
def test_its_time_out_ends_it(gate: MountDoor, file: bytes, wait: Wait) -> None:
    call, *arguments = wait(gate, file)

    def timed() -> str:
        return gate.call(call, *arguments, timeout=0.1).errno

    assert gate.spawn(timed).result() == "ETIMEDOUT"
    gate.call("close_range", 3, 1023)


@WAITS
def test_closing_the_descriptor_does_not(gate: MountDoor, file: bytes, wait: Wait) -> None:
    """As in Linux, it goes on; and its end harms nothing that has the number by then."""
    call, fd, *rest = wait(gate, file)
    blocked = gate.block(call, fd, *rest)
    (gate.mount.path / f"proc/{blocked.pid}/syscall").write_text(f"close {fd}\n")
    gate.ok("getpid")
    assert blocked.is_blocked()
    blocked.interrupt()
    assert blocked.result().errno == "EINTR"
    gate.call("close_range", 3, 1023)


@pytest.mark.parametrize("end", [by_sigterm, by_umount_lazily])
def test_the_end_of_the_mount_ends_them_all(own_mount: Mount, tmp_path: Path, end: Callable[[Mount], None]) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    scripts = (
        ["eventfd2", "read 3 8"],
        ["pipe", f"open {file} O_RDWR", "splice 3 5 10"],
        [f"open {file} O_RDWR", f"open {file} O_RDWR", "flock 3 LOCK_EX", "flock 4 LOCK_EX"],
        [f"open {file} O_RDWR", f"open {file} O_RDWR", "fcntl 3 F_OFD_SETLK F_WRLCK", "fcntl 4 F_SETLKW F_WRLCK"],
        ["timerfd_create CLOCK_MONOTONIC", "read 3 8"],
    )
    shells = []
    for index, lines in enumerate(scripts):
        echoes = "".join(f"echo '{line.replace(str(file), str(file) + str(index))}' >&9 || exit 3; " for line in lines)
        (tmp_path / f"file{index}").write_bytes(b"")
        command = ["bash", "-c", f"exec 9<>{own_mount.gate}; {echoes}"]
        shells.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for shell in shells:
        wait_until(lambda pid=shell.pid: own_mount.blocked(pid), "the shell blocks")
    end(own_mount)
    for shell in shells:
        _, said = shell.communicate(timeout=PATIENCE_S)
        assert said.endswith("write error: Operation canceled\n"), said
    assert own_mount.daemon.wait(PATIENCE_S) == 0


def test_a_long_copy_ends_with_what_was_copied(gate: MountDoor, tmp_path: Path) -> None:
    """A signal comes between two steps: the answer is a count."""
    with open(tmp_path / "source", "wb") as sparse:
        sparse.truncate(64 << 30)
    into = gate.ok("open", b"/dev/null", "O_WRONLY").ret
    source = gate.ok("open", os.fsencode(tmp_path / "source"), "O_RDONLY").ret
    blocked = gate.block("sendfile", into, source, 64 << 30)
    wait_until(lambda: _offset(gate, source) > 0, "something is copied")
    blocked.interrupt()
    copied = blocked.result()
    assert not copied.errno
    assert 0 < copied.ret < 64 << 30
    assert gate.ok("lseek", source, 0, "SEEK_CUR").ret == copied.ret
    gate.call("close_range", 3, 1023)


def copies_that_wait(mount: Mount, file: bytes, ready: int) -> list[dict[str, Any]]:
    """What a batch of three copies is answered, of which the second waits for ever."""
    session = os.open(mount.gate, os.O_RDWR)

    def run(*calls: Call) -> list[dict[str, Any]]:
        write(session, json.dumps([{"call": call, "args": arguments} for call, *arguments in calls]).encode() + b"\n")
        reply: list[dict[str, Any]] = json.loads(os.read(session, 1 << 16))
        return reply

    opened = run(("open", os.fsdecode(file), "O_RDWR"), ("pipe",), ("pipe",))
    (source, into), out_of = (opened[0]["ret"], opened[1]["write"]), opened[2]["read"]
    os.write(ready, b".")
    return run(("splice", source, into, 10), ("splice", out_of, source, 10), ("splice", source, into, 10))


def test_a_batch_of_copies_ends_where_it_waits(gate: MountDoor, file: bytes) -> None:
    reader, writer = os.pipe()
    for killed in (False, True):
        child = gate.spawn(lambda: copies_that_wait(gate.mount, file, writer))
        os.read(reader, 1)
        wait_until(lambda pid=child.pid: gate.mount.blocked(pid) == ["splice(6, 3, 10, 0)"], "the second copy waits")
        if killed:
            child.kill()
        else:
            child.interrupt()
            assert [reply.get("errno", reply["ret"]) for reply in child.result()] == [10, "EINTR", "ECANCELED"]
        wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
    os.close(reader)
    os.close(writer)


def _offset(gate: MountDoor, fd: int) -> int:
    return gate.ok("lseek", fd, 0, "SEEK_CUR").ret


def test_none_of_it_outlives_a_killed_holder(gate: MountDoor, file: bytes) -> None:
    """Its locks go with it, whichever kind."""
    reader, writer = os.pipe()

    def hold() -> None:
        for kind in (("fcntl", "F_SETLK", "F_WRLCK", 0, 10), ("fcntl", "F_OFD_SETLK", "F_WRLCK", 20, 10)):
            gate.ok(kind[0], gate.ok("open", file, "O_RDWR").ret, *kind[1:])
        gate.ok("flock", gate.ok("open", file, "O_RDWR").ret, "LOCK_EX")
        os.write(writer, b".")
        signal.pause()

    holder = gate.spawn(hold)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    fd = gate.ok("open", file, "O_RDWR").ret
    waiters = [
        gate.block("fcntl", fd, "F_SETLKW", "F_WRLCK", 0, 0),
        gate.block("flock", fd, "LOCK_EX"),
    ]
    holder.kill()
    assert [waiter.result().ret for waiter in waiters] == [0, 0]
    gate.ok("close", fd)
