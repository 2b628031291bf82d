"""Paths that lead into the mount itself: the daemon looks there as everybody does, and changes nothing itself."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from doors import Door, MountDoor
from mounts import Mount

LOOKED_AT = ("", "syscall", "help", "pipes", "msgq/sysv", "msgq/ctl", "proc", "shm/posix", "stats")


@pytest.fixture
def gate(mount: Mount) -> Iterator[MountDoor]:
    door = MountDoor(mount, "msgpack")
    yield door
    door.close()
    assert_the_daemon_takes_no_part(mount)


@pytest.fixture
def queue(native: Door) -> Iterator[int]:
    msqid = native.ok("msgget", 0, 0o1600).ret
    yield msqid
    native.ok("msgctl", msqid, 0)


def assert_the_daemon_takes_no_part(mount: Mount) -> None:
    assert str(mount.daemon.pid) not in os.listdir(mount.path / "proc")


def look(gate: MountDoor, name: str) -> None:
    path = gate.mount.path / name
    for call, status in (("stat", path.stat()), ("lstat", path.lstat())):
        found = gate.ok(call, bytes(path)).results
        names = ("mode", "ino", "uid", "gid", "dev") if path.is_dir() else ("mode", "uid", "gid")
        assert {key: found[key] for key in names} == {key: getattr(status, f"st_{key}") for key in names}
    assert gate.ok("statx", "AT_FDCWD", bytes(path)).results["mode"] == path.stat().st_mode
    assert gate.ok("access", bytes(path), "R_OK").ret == 0
    assert gate.ok("listxattr", bytes(path)).ret >= 0
    assert gate.ok("statfs", bytes(path)).ret == 0


@pytest.mark.parametrize("name", LOOKED_AT)
def test_looking_works(gate: MountDoor, name: str) -> None:
    look(gate, name)


def test_objects_their_attributes_and_links_are_looked_at(gate: MountDoor, queue: int) -> None:
    path = gate.mount.path / f"msgq/sysv/{queue}"
    names = os.listxattr(path)
    assert gate.ok("listxattr", bytes(path)).data == b"".join(name.encode() + b"\0" for name in names)
    for name in names:
        assert gate.ok("getxattr", bytes(path), name.encode()).data == os.getxattr(path, name)
    assert gate.ok("readlink", bytes(gate.mount.path / "shm/posix")).data == b"/dev/shm"


CHANGES: dict[str, tuple] = {
    "unlink": ("P",),
    "rmdir": ("D",),
    "rename": ("P", "/tmp/x"),
    "renameat2": ("AT_FDCWD", "P", "AT_FDCWD", "N", "RENAME_NOREPLACE"),
    "mkdir": ("N",),
    "mknod": ("N", 0o100600),
    "mkfifo": ("N",),
    "symlink": (b"x", "N"),
    "link": ("/proc/self", "N"),
    "chmod": ("P", 0o666),
    "fchmodat": ("AT_FDCWD", "D", 0o777),
    "chown": ("P", 1, 1),
    "lchown": ("P", 1, 1),
    "truncate": ("P", 0),
    "utimensat": ("P",),
    "utime": ("P", 1, 1),
    "utimes": ("P",),
    "futimesat": ("AT_FDCWD", "P"),
    "setxattr": ("P", b"user.x", b"v"),
    "removexattr": ("P", b"user.x"),
    "chdir": ("D",),
    "open": ("P", "O_RDONLY"),
    "openat": ("AT_FDCWD", "D", "O_RDONLY|O_DIRECTORY"),
    "openat2": ("AT_FDCWD", "P", "O_PATH"),
}


@pytest.mark.parametrize("call", CHANGES)
def test_a_change_is_edeadlk_and_says_what_to_do(gate: MountDoor, queue: int, tmp_path: Path, call: str) -> None:
    mount = gate.mount.path
    (tmp_path / "file").touch()
    places = {"P": mount / f"msgq/sysv/{queue}", "D": mount / "sem/sysv", "N": mount / "msgq/sysv/77777"}
    places |= {"/tmp/x": tmp_path / "x", "/proc/self": tmp_path / "file"}
    args = tuple(bytes(places[arg]) if isinstance(arg, str) and arg in places else arg for arg in CHANGES[call])
    before = gate.ok("msgctl", queue, "IPC_STAT").results
    refused = gate.call(call, *args)
    assert refused.errno == "EDEADLK"
    assert "mount" in refused.message
    assert gate.ok("msgctl", queue, "IPC_STAT").results == before


def test_what_is_made_in_the_mount_by_open_is_enoent(gate: MountDoor) -> None:
    assert gate.call("open", bytes(gate.mount.path / "pipes/none"), "O_CREAT|O_RDWR").errno == "ENOENT"
    assert gate.call("open", b"none", "O_CREAT|O_RDWR").errno == "ENOENT"


def test_fifos_of_pipes_go_by_their_paths_too(gate: MountDoor, tmp_path: Path) -> None:
    pipes = gate.mount.path / "pipes"

    def make() -> tuple[int, int, int]:
        os.umask(0o027)
        gate.ok("mkfifo", bytes(pipes / "by path"))
        status = (pipes / "by path").stat()
        return status.st_mode, status.st_uid, status.st_gid

    assert gate.spawn(make).result() == (stat.S_IFIFO | 0o640, os.geteuid(), os.getegid())
    os.symlink(pipes, tmp_path / "link")
    gate.ok("rename", bytes(tmp_path / "link/by path"), bytes(pipes / "renamed"))
    assert gate.call("mknod", bytes(pipes / "renamed")).errno == "EEXIST"
    assert gate.call("rename", bytes(pipes / "renamed"), bytes(tmp_path / "out")).errno == "EXDEV"
    assert gate.ok("stat", b"renamed").results["mode"] == stat.S_IFIFO | 0o640
    assert gate.ok("access", b"renamed", "R_OK").ret == 0
    gate.ok("close", gate.ok("open", bytes(pipes / "renamed"), "O_RDWR").ret)
    gate.ok("renameat2", "AT_FDCWD", b"renamed", "AT_FDCWD", b"again", "RENAME_NOREPLACE")
    gate.ok("utimensat", b"again", 5, "UTIME_OMIT")
    assert (pipes / "again").stat().st_atime_ns == 5
    gate.ok("unlink", bytes(pipes / "again"))
    assert gate.call("unlink", bytes(pipes / "again")).errno == "ENOENT"
    assert not [entry for entry in pipes.iterdir() if entry.is_fifo()]


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("mkdir", (b"name",)),
        ("rmdir", (b"name",)),
        ("symlink", (b"x", b"name")),
        ("link", (b"./x", b"name")),
        ("link", (b"name", b"./x")),
        ("mknod", (b"name", "S_IFREG|0600")),
        ("chdir", (b"name",)),
    ],
)
def test_a_bare_name_where_there_are_fifos_alone_is_einval_and_says_how_to_write_it(
    gate: MountDoor, call: str, args: tuple
) -> None:
    refused = gate.call(call, *args)
    assert refused.errno == "EINVAL"
    assert "./name" in refused.message


def test_the_files_of_proc_are_not_looked_at(gate: MountDoor) -> None:
    """To the host it is the daemon that looks, and a process may look into itself."""
    daemon = gate.mount.daemon.pid
    for path in (
        b"/proc/self/exe",
        b"/proc/self/cwd",
        b"/proc/%d/environ" % daemon,
        b"/proc/self/fd/0",
        b"/proc/mounts",
    ):
        for call in ("stat", "lstat", "readlink", "access", "listxattr", "chdir"):
            assert gate.call(call, path).errno in ("EACCES", "ELOOP", "ENOTDIR"), (call, path)
    assert gate.call("open", b"/proc/self/fd", "O_DIRECTORY").errno == "EACCES"


@pytest.mark.slow
def test_many_callers_at_once_come_through(gate: MountDoor, queue: int) -> None:
    """More than the daemon has threads idle or requests under way at once; none waits for another."""
    path = gate.mount.path

    def calls() -> int:
        name = b"crowd%d" % os.getpid()
        for _ in range(2):
            for entry in LOOKED_AT:
                look(gate, entry)
            fifo = bytes(path / "pipes") + b"/" + name
            gate.ok("mkfifo", fifo)
            assert gate.ok("stat", name).results["mode"] & 0o170000 == stat.S_IFIFO
            assert gate.call("chmod", fifo, 0o600).errno == "EDEADLK"
            assert gate.call("unlink", bytes(path / f"msgq/sysv/{queue}")).errno == "EDEADLK"
            gate.ok("unlink", fifo)
        return os.getpid()

    children = [gate.spawn(calls) for _ in range(40)]
    assert [child.result() for child in children] == [child.pid for child in children]
