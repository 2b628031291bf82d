"""Paths whose ends others move about, directories that are kept open, and places in other roots and namespaces."""

import ctypes
import os
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from children import Child, wait_until
from command import needs_root
from doors import NOBODY, MountDoor
from mounts import Mount, mounted
from native import checked, libc

from synosfs.errors import SynosError
from synosfs.host import procfs, rights
from synosfs.host.confinement import Confinement
from synosfs.host.path import Place
from synosfs.ipc import file


def directories_held(mount: Mount, below: Path) -> int:
    """How many descriptors the daemon has open below a directory."""
    held = 0
    for entry in Path(f"/proc/{mount.daemon.pid}/fd").iterdir():
        try:
            held += os.readlink(entry).startswith(str(below))
        except FileNotFoundError:
            continue
    return held


# --- open, while its end is moved about


@needs_root
def test_open_opens_what_it_looked_at_whatever_comes_in_its_place(gate: MountDoor, tmp_path: Path) -> None:
    """A FIFO would make it wait, a device may do anything: neither is opened by mistake for a file."""
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 11))  # kmsg
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    (tmp_path / "to the device").symlink_to("device")
    (tmp_path / "nowhere").symlink_to("none")
    path = tmp_path / "name"

    def swap() -> None:
        while True:
            for name in ("file", "to the device", "nowhere", "fifo", "device"):
                os.link(tmp_path / name, tmp_path / "next", follow_symlinks=False)
                os.rename(tmp_path / "next", path)
                path.unlink(missing_ok=True)
                (tmp_path / "none").unlink(missing_ok=True)

    swapping = Child(swap)
    found: Counter[str] = Counter()
    try:
        for _ in range(1500):
            result = gate.call("open", bytes(path), "O_RDWR|O_CREAT", "0600")
            found[result.errno] += 1
            if not result.errno:
                mode = gate.ok("fstat", result.ret).results["mode"]
                assert stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
                gate.ok("close", result.ret)
    finally:
        swapping.close()
    assert found.keys() <= {"", "EACCES", "ENOENT"}, found
    assert found[""]


def test_on_a_session_that_does_not_wait_a_file_opens_and_a_fifo_is_eagain(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    session = os.open(mount.gate, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(session, b"open %s O_RDONLY\n" % bytes(tmp_path / "file"))
        assert int(os.read(session, 100)) >= 3
        with pytest.raises(BlockingIOError):
            os.write(session, b"open %s O_RDONLY\n" % bytes(tmp_path / "fifo"))
    finally:
        os.close(session)


@pytest.mark.parametrize(
    ("level", "directory", "owner", "refused"),
    [
        (1, 0o1777, NOBODY, True),
        (0, 0o1777, NOBODY, False),
        (1, 0o777, NOBODY, False),
        (1, 0o1770, NOBODY, False),
        (2, 0o1770, NOBODY, True),
        (1, 0o1777, 0, False),
    ],
)
@needs_root
def test_o_creat_keeps_from_what_others_have_put_into_a_sticky_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, level: int, directory: int, owner: int, *, refused: bool
) -> None:
    """The rule of the host's fs.protected_regular, which is one for the machine."""
    monkeypatch.setattr(procfs, "protection", lambda mode: level)
    tmp_path.chmod(directory)
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", owner, owner)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    pid = os.getpid()
    place = Place(pid, os.pidfd_open(pid), rights.OWN, True, "", -1, pid, Confinement())
    try:
        for name in ("file", "link"):
            os.close(file.open_file(place, str(tmp_path / name), os.O_RDWR, 0).host_fd)
            with pytest.raises(SynosError, match="sticky") if refused else nullcontext():
                os.close(file.open_file(place, str(tmp_path / name), os.O_RDWR | os.O_CREAT, 0o600).host_fd)
    finally:
        os.close(place.pidfd)


# --- the working directory


def test_a_directory_is_let_go_of_with_its_process(gate: MountDoor, tmp_path: Path) -> None:
    def walk() -> int:
        for _ in range(3):
            gate.ok("chdir", bytes(tmp_path))
        wait_until(lambda: directories_held(gate.mount, tmp_path) <= 1, "those before are let go of")  # in a thread
        return directories_held(gate.mount, tmp_path)

    assert gate.spawn(walk).result() == 1
    wait_until(lambda: directories_held(gate.mount, tmp_path) == 0, "the daemon holds no directory")


def test_a_directory_counts_among_the_descriptors_of_its_user(ipc_namespace: None, tmp_path: Path) -> None:
    with mounted(options=("-o", "max_descriptors=2")) as own:
        door = MountDoor(own, "text")
        fd = door.ok("open", bytes(tmp_path), "O_DIRECTORY").ret  # with its process that is two
        refused = door.call("chdir", bytes(tmp_path))
        assert (refused.errno, "max_descriptors" in refused.message) == ("EMFILE", True)
        door.ok("close", fd)
        wait_until(lambda: not door.call("chdir", bytes(tmp_path)).errno, "the descriptor is given back")
        door.ok("chdir", b"./..")  # one takes the place of another
        assert door.ok("getcwd").data == bytes(tmp_path.parent)
        door.close()


def test_a_relative_path_begins_where_its_process_was_when_it_called(gate: MountDoor, tmp_path: Path) -> None:
    """A directory that is left in the middle of a call is kept until the call has ended."""
    (tmp_path / "here").mkdir()
    os.mkfifo(tmp_path / "here/fifo")

    def walk() -> list[object]:
        gate.ok("chdir", bytes(tmp_path / "here"))
        go = os.fork()
        if go == 0:
            wait_until(lambda: gate.mount.blocked(os.getppid()), "the open waits")
            with open(f"{gate.mount.path}/proc/{os.getppid()}/syscall", "r+b", buffering=0) as session:
                session.write(b"chdir /\n")
                assert session.read(10) == b"0\n"
            os.close(os.open(tmp_path / "here/fifo", os.O_WRONLY))
            os._exit(0)
        opened = gate.call("open", b"./fifo", "O_RDONLY")
        os.waitpid(go, 0)
        return [opened.errno, gate.ok("getcwd").data]

    assert gate.spawn(walk).result() == ["", b"/"]


@needs_root
def test_what_is_set_on_behalf_of_a_process_is_its_own(gate: MountDoor, tmp_path: Path) -> None:
    member = gate.spawn_member()
    with open(gate.mount.path / f"proc/{member.pid}/syscall", "r+b", buffering=0) as session:
        for request in (b"chdir %s" % bytes(tmp_path), b"umask 077", b"mkdir ./made 0777"):
            session.write(request + b"\n")
            assert not session.read(100).startswith(b"-1")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert gate.ok("getcwd").data == os.fsencode(os.getcwd())


@needs_root
def test_in_another_root_a_directory_and_what_is_above_it(gate: MountDoor, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dir/below").mkdir(parents=True)
    (root / "absolute").symlink_to("/dir")

    def walk() -> list[object]:
        gate.ok("getpid")
        os.chroot(root)
        os.chdir("/")
        outcomes = [
            gate.call("chdir", b"/absolute/below"),
            gate.call("getcwd"),
            gate.call("mkdir", b"./new"),
            gate.call("chdir", b"./.."),  # the host cannot be asked to walk that exactly
            gate.call("fchdir", gate.ok("open", b"/absolute", "O_DIRECTORY").ret),
            gate.call("getcwd"),
            gate.call("chdir", b"/../../.."),
            gate.call("getcwd"),
            gate.call("readlink", b"/absolute"),
            gate.call("rename", b"/absolute/below/new", b"/../moved"),
        ]
        return [outcome.errno or outcome.data or outcome.ret for outcome in outcomes]

    found = gate.spawn(walk).result()
    assert found == [0, b"/dir/below", 0, "EXDEV", 0, b"/dir", 0, b"/", b"/dir", 0]
    assert sorted(os.listdir(root)) == ["absolute", "dir", "moved"]


# --- other namespaces


@needs_root
def test_owners_are_shown_and_given_as_the_callers_namespace_has_them(gate: MountDoor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", NOBODY, 12345)

    def look() -> list[object]:
        pid, (ready, go) = os.getpid(), os.pipe()
        if os.fork() == 0:
            os.close(go)
            os.read(ready, 1)
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text(f"5 0 1\n7 {NOBODY} 1\n")
            os._exit(0)
        checked(libc.unshare(ctypes.c_int(0x10000000)))
        os.close(go)
        os.wait()
        path = bytes(tmp_path / "file")
        fd = gate.ok("open", bytes(tmp_path), "O_DIRECTORY").ret
        shown = [gate.ok(*call).results for call in (("stat", path), ("statx", fd, b"file"), ("fstat", fd))]
        refused = [
            gate.call("chown", path, 6, 5).errno,
            gate.call("setxattr", path, b"system.posix_acl_access", b"x").errno,
        ]
        return [[(found["uid"], found["gid"]) for found in shown], refused]

    assert gate.spawn(look).result() == [[(7, 65534), (7, 65534), (5, 5)], ["EINVAL", "EPERM"]]


@needs_root
def test_a_stream_that_is_not_there_is_not_changed(gate: MountDoor) -> None:
    """/dev/null stands in for it, which is everybody's."""
    before = os.stat("/dev/null")

    def change(close: Callable[[], None]) -> list[str]:
        close()
        calls = (("fchmod", 0, 0o600), ("fchown", 0, 1, 1), ("futimens", 0, 5, 5), ("fsetxattr", 0, b"trusted.x", b"v"))
        return [gate.call(*call).errno for call in calls]

    def close() -> None:
        gate.ok("getpid")
        os.close(0)

    def replace() -> None:
        gate.ok("getpid")
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)

    assert gate.spawn(lambda: change(close)).result() == ["EBADF"] * 4
    assert gate.spawn(lambda: change(replace)).result() == ["EBADF"] * 4
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


def test_ftok_begins_at_the_directory_that_was_gone_to(gate: MountDoor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def keys() -> list[int]:
        gate.ok("chdir", bytes(tmp_path))
        return [gate.ok("ftok", path, 1).ret for path in (bytes(tmp_path / "file"), b"./file", b"file")]

    assert len(set(gate.spawn(keys).result())) == 1
