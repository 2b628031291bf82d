"""Callers in an IPC or mount namespace, or a root, that is not the daemon's: rows of the table in docs/security.md."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import native_shm
import pytest
from command import needs_root
from doors import MountDoor, NativeDoor
from namespaces import CLONE_NEWIPC, CLONE_NEWNS, unshare
from native import checked, libc, outcome
from native_msg import CONSTANTS, msgctl, msgget
from native_posix import mq_open, unlink_all

_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 1 << 18, 2

KEY = 0x5359_0004

pytestmark = needs_root


# --- IPC namespaces


def test_in_another_ipc_namespace_calls_act_on_the_mounts_objects(gate: MountDoor, nothing_left: None) -> None:
    queue = msgget(KEY, CONSTANTS["IPC_CREAT"] | 0o600)

    def find() -> tuple[str, int]:
        unshare(CLONE_NEWIPC)
        return NativeDoor().call("msgget", KEY, 0).errno, gate.ok("msgget", KEY, "0").ret

    try:
        assert gate.spawn(find).result() == ("ENOENT", queue)
    finally:
        msgctl(queue, CONSTANTS["IPC_RMID"])


def test_posix_queues_are_those_of_the_mounts_ipc_namespace(gate: MountDoor, nothing_left: None) -> None:
    name = f"/synosfs-test-{os.getpid()}".encode()
    os.close(mq_open(name, os.O_CREAT | os.O_RDWR, maxmsg=1, msgsize=1))

    def find() -> tuple[object, object]:
        unshare(CLONE_NEWIPC)
        return outcome(NativeDoor().call("mq_open", name, os.O_RDWR)), outcome(gate.call("mq_open", name, "O_RDWR"))

    try:
        natively, here = gate.spawn(find).result()
        assert (natively, type(here)) == ("ENOENT", int)
    finally:
        unlink_all(name)


# --- mount namespaces and roots


def test_a_path_is_one_of_the_callers_mount_namespace(gate: MountDoor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("outside")

    def read() -> list[bytes]:
        unshare(CLONE_NEWNS)
        checked(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
        checked(libc.mount(b"none", bytes(tmp_path), b"tmpfs", ctypes.c_ulong(0), None))
        (tmp_path / "file").write_text("inside")
        os.chdir(tmp_path)
        return [contents(gate, path) for path in (bytes(tmp_path / "file"), b"./file")]

    assert gate.spawn(read).result() == [b"inside", b"inside"]
    assert contents(gate, bytes(tmp_path / "file")) == b"outside"


def test_a_name_without_a_slash_is_one_in_pipes_of_the_mount_from_any_namespace(gate: MountDoor) -> None:
    def make() -> bytes:
        unshare(CLONE_NEWNS)
        checked(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
        gate.ok("getpid")
        checked(libc.umount2(bytes(gate.mount.path), ctypes.c_int(_MNT_DETACH)))
        gate.ok("mkfifo", b"elsewhere", "0600")
        fd = gate.ok("open", b"elsewhere", "O_RDWR").ret
        gate.ok("write", fd, b"written")
        data = gate.ok("read", fd, 10).data
        gate.ok("unlink", b"elsewhere")
        return data or b""

    assert gate.spawn(make).result() == b"written"


def contents(gate: MountDoor, path: bytes) -> bytes:
    fd = gate.ok("open", path, "O_RDONLY").ret
    data = gate.ok("read", fd, 100).data
    gate.ok("close", fd)
    return data or b""


def test_a_path_begins_at_the_callers_root_and_does_not_leave_it(gate: MountDoor, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("of this root")
    (tmp_path / "link").symlink_to("/etc/passwd")

    def read() -> list[object]:
        gate.ok("getpid")
        os.chroot(tmp_path)
        os.chdir("/")
        leaving = [outcome(gate.call("open", path, "O_RDONLY")) for path in (b"./link", b"./../etc/passwd")]
        return [
            *(contents(gate, path) for path in (b"/etc/passwd", b"/link", b"/../etc/passwd", b"./etc/passwd")),
            *leaving,
        ]

    # The last two would end in this root natively. The host cannot be asked to walk so from a working directory.
    assert gate.spawn(read).result() == [b"of this root"] * 4 + ["EXDEV"] * 2


def test_every_call_on_a_path_keeps_to_the_callers_root(gate: MountDoor, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").touch()
    (root / "inside").touch()
    (root / "link").symlink_to("/outside")
    (root / "up").symlink_to("..")
    key = native_shm.ftok(bytes(root / "inside"), 7)

    def calls() -> list[object]:
        gate.ok("getpid")
        os.chroot(root)
        os.chdir("/")
        attempts = [
            ("ftok", (b"/inside", 7)),
            ("mkfifo", (b"/up/fifo", "0600")),
            ("rename", (b"/up/inside", b"/moved")),
        ]
        refused = [
            *(("ftok", (path, 7)) for path in (b"/link", b"/outside", b"/../outside", b"/up/outside")),
            *(("chmod", (path, "0666")) for path in (b"/link", b"/up/outside")),
            ("unlink", (b"/../outside",)),
            ("unlink", (b"./../outside",)),
            ("ftok", (b"./up/outside", 7)),
            ("mkfifo", (b"./up/new", "0600")),
        ]
        return [outcome(gate.call(call, *args)) for call, args in (*attempts, *refused)]

    assert gate.spawn(calls).result() == [key, 0, 0, *["ENOENT"] * 7, *["EXDEV"] * 3]
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert sorted(os.listdir(root)) == ["fifo", "link", "moved", "up"]


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[Path]:
    """The machine's root once more, without what is mounted below; and a file, at the same path in both."""
    jail, over = tmp_path / "jail", tmp_path / "over"
    for directory in (jail, over):
        directory.mkdir()
    (over / "file").write_text("below")
    checked(libc.mount(b"none", bytes(over), b"tmpfs", ctypes.c_ulong(0), None))
    (over / "file").write_text("covers it")
    checked(libc.mount(b"/", bytes(jail), None, ctypes.c_ulong(_MS_BIND), None))
    yield jail
    for directory in (jail, over):
        checked(libc.umount2(bytes(directory), ctypes.c_int(_MNT_DETACH)))


def test_a_root_is_the_daemons_only_if_it_is_the_same_mount(gate: MountDoor, jail: Path, tmp_path: Path) -> None:
    """The same directory bound elsewhere has other mounts below it, or none."""
    (tmp_path / "link").symlink_to(tmp_path / "over/file")

    def read() -> object:
        os.chdir(tmp_path)
        before = contents(gate, b"./link")
        os.chroot(jail)  # the working directory stays outside
        return before, outcome(gate.call("open", b"./link", "O_RDONLY"))

    assert gate.spawn(read).result() == (b"covers it", "EXDEV")


def test_posix_names_are_those_of_the_daemons_dev_shm(gate: MountDoor, nothing_left: None) -> None:
    name = f"synosfs-test-{os.getpid()}"
    Path(f"/dev/shm/{name}").write_text("daemon's")

    def read() -> bytes:
        unshare(CLONE_NEWNS)
        checked(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
        checked(libc.mount(b"none", b"/dev/shm", b"tmpfs", ctypes.c_ulong(0), None))
        fd = gate.ok("shm_open", f"/{name}".encode(), "O_RDONLY", "0").ret
        return gate.ok("read", fd, 100).data or b""

    try:
        assert gate.spawn(read).result() == b"daemon's"
    finally:
        os.unlink(f"/dev/shm/{name}")
