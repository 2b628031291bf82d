"""Whoever waits for a pipe, FIFO or standard stream can be freed: by a signal, SIGKILL, its peer, or the unmount."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import PATIENCE_S, Child, wait_until
from doors import MountDoor
from mounts import Mount
from native import Result

from synosfs import mountpoint

#: The longest that anything killed may stay, in seconds.
AT_ONCE_S = 1.5

Body = Callable[[MountDoor, Path], Result]

#: What a call that is blocked in a mount says when the mount goes: the gate, or the kernel when the gate is gone.
GONE = ("ECANCELED", "ECONNABORTED", "ENOTCONN")


def read_pipe(door: MountDoor, directory: Path) -> Result:
    return door.call("read", door.ok("pipe").results["read"], 1)


def write_pipe(door: MountDoor, directory: Path) -> Result:
    written = door.ok("pipe").results["write"]
    door.ok("write", written, b"f" * 65536)
    return door.call("write", written, b"w")


def read_socket(door: MountDoor, directory: Path) -> Result:
    return door.call("read", door.ok("socketpair").results["first"], 1)


def open_host_fifo_to_read(door: MountDoor, directory: Path) -> Result:
    return door.call("open", bytes(directory / "fifo"), "O_RDONLY")


def open_host_fifo_to_write(door: MountDoor, directory: Path) -> Result:
    return door.call("open", bytes(directory / "fifo"), "O_WRONLY")


def open_fifo_of_the_mount(door: MountDoor, directory: Path) -> Result:
    return door.call("open", b"fifo", "O_RDONLY")


def open_fifo_of_the_mount_by_its_path(door: MountDoor, directory: Path) -> Result:
    return door.call("open", bytes(door.mount.path / "pipes/fifo"), "O_WRONLY")


def read_fifo(door: MountDoor, directory: Path) -> Result:
    return door.call("read", door.ok("open", b"fifo", "O_RDWR").ret, 1)


def read_standard_input(door: MountDoor, directory: Path) -> Result:
    reader, _ = os.pipe()
    os.dup2(reader, 0)
    return door.call("read", 0, 1)


def write_standard_output(door: MountDoor, directory: Path) -> Result:
    _, writer = os.pipe()
    os.write(writer, b"f" * 65536)
    os.dup2(writer, 1)
    return door.call("write", 1, b"w")


WAITS = [
    *(read_pipe, write_pipe, read_socket, open_host_fifo_to_read, open_host_fifo_to_write, open_fifo_of_the_mount),
    *(open_fifo_of_the_mount_by_its_path, read_fifo, read_standard_input, write_standard_output),
]


def block(door: MountDoor, directory: Path, body: Body) -> Child:
    """A child that is blocked; its result is the name of the errno."""

    def run() -> str:
        try:
            return body(door, directory).errno
        except OSError as error:  # the mount went before the reply was read
            return errno.errorcode[error.errno or 0]

    os.mkfifo(directory / "fifo")
    os.mkfifo(door.mount.path / "pipes/fifo")
    child = door.spawn(run)
    call = body.__name__.partition("_")[0]
    wait_until(lambda: door.is_blocked(child.pid, call) or child.ended(), f"{body.__name__} blocks")
    assert not child.ended(), child.result()
    return child


def host_descriptors(mount: Mount) -> int:
    """Open descriptors of the daemon that are pipes, FIFOs or sockets."""
    count = 0
    for link in Path(f"/proc/{mount.daemon.pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            continue  # that of the listing itself
        count += target.startswith(("pipe:", "socket:")) or "fifo" in target
    return count


@pytest.fixture
def gate(gate: MountDoor) -> Iterator[MountDoor]:
    """As for the others; the FIFO that ``block`` makes in the mount goes too."""
    yield gate
    gate.end_children()
    (gate.mount.path / "pipes/fifo").unlink(missing_ok=True)


@pytest.mark.parametrize("body", WAITS)
def test_a_signal_frees_it_with_eintr(gate: MountDoor, tmp_path: Path, body: Body) -> None:
    child = block(gate, tmp_path, body)
    child.interrupt()
    assert child.result(AT_ONCE_S) == "EINTR"
    assert gate.blocked_callers() == 0


@pytest.mark.parametrize("body", WAITS)
def test_sigkill_frees_it_at_once_and_nothing_stays_open(gate: MountDoor, tmp_path: Path, body: Body) -> None:
    gate.ok("getpid")
    before = host_descriptors(gate.mount)
    child = block(gate, tmp_path, body)
    os.kill(child.pid, signal.SIGKILL)
    wait_until(child.ended, "its death", AT_ONCE_S)
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked", AT_ONCE_S)
    wait_until(lambda: host_descriptors(gate.mount) <= before, "the daemon has let go of its pipes", AT_ONCE_S)


@pytest.mark.parametrize("body", WAITS)
def test_the_end_of_the_daemon_frees_it(own_gate: MountDoor, tmp_path: Path, body: Body) -> None:
    child = block(own_gate, tmp_path, body)
    own_gate.mount.daemon.send_signal(signal.SIGTERM)
    assert child.result() in GONE
    assert own_gate.mount.daemon.wait(PATIENCE_S) == 0
    assert not mountpoint.mounted(str(own_gate.mount.path))


@pytest.mark.parametrize("body", WAITS)
def test_a_lazy_unmount_frees_it_and_the_daemon_ends(own_gate: MountDoor, tmp_path: Path, body: Body) -> None:
    child = block(own_gate, tmp_path, body)
    subprocess.run(["fusermount3", "-u", "-z", own_gate.mount.path], check=True, timeout=PATIENCE_S)
    # A thread that had not come to the FIFO yet finds it gone, or no longer below the root (at the end of openat2).
    assert child.result() in (*GONE, "ENOENT", "EXDEV")
    assert own_gate.mount.daemon.wait(PATIENCE_S) == 0
    # pyfuse3 complains when the kernel has ended the connection before it answers the last release.
    assert all("fuse_reply" in complaint for complaint in own_gate.mount.complaints())


def test_killing_the_daemon_frees_everybody(own_gate: MountDoor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(own_gate.mount.path / "pipes/fifo")
    children = [
        own_gate.spawn(lambda body=body: body(own_gate, tmp_path)) for body in WAITS if "host" not in body.__name__
    ]
    own_gate.ok("getpid")
    wait_until(
        lambda: own_gate.blocked_callers() == len(children) - 2, "all are blocked but the two that meet in a FIFO"
    )
    own_gate.mount.kill()
    for child in children:
        wait_until(child.ended, "the end of a caller")


def test_the_daemon_holds_no_end_of_a_standard_pipe_between_calls(gate: MountDoor) -> None:
    reader, writer = os.pipe()

    def speak() -> int:
        os.dup2(writer, 1)
        os.close(writer)
        os.close(reader)
        return gate.ok("write", 1, b"last").ret

    child = gate.spawn(speak)
    os.close(writer)
    assert child.result() == 4
    assert [os.read(reader, 100) for _ in range(2)] == [b"last", b""]
    os.close(reader)


def test_a_stranger_cannot_use_the_standard_streams_of_another(gate: MountDoor) -> None:
    """``proc/<pid>/syscall`` is for the owner; one with the same ids gets what /proc would give it, else /dev/null."""
    child = gate.spawn(lambda: gate.call("read", gate.ok("pipe").results["read"], 1))
    wait_until(lambda: gate.mount.blocked(child.pid), "it blocks")
    path = gate.mount.path / f"proc/{child.pid}/syscall"
    stranger = gate.spawn(lambda: os.access(path, os.W_OK), uid=65534)
    assert stranger.result() is False


def test_many_blocked_in_one_fifo_are_freed_together(gate: MountDoor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    readers = [gate.block("open", bytes(tmp_path / "fifo"), "O_RDONLY") for _ in range(20)]
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    assert [reader.result().errno for reader in readers] == [""] * 20
    os.close(writer)
