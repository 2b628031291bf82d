"""Callers in namespaces, or in a root, other than the daemon's: each row of the table in docs/security.md."""

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import SYNOSFS, needs_root
from doors import NOBODY, Door, MountDoor, NativeDoor
from mounts import Mount, mounted
from native import Result, checked, libc
from native_msg import CONSTANTS, msgctl, msgget
from native_sem import semctl, semget
from native_shm import shmctl, shmget

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18

KEY = 0x5359_0004

pytestmark = needs_root


def unshare(flags: int) -> None:
    checked(libc.unshare(ctypes.c_int(flags)))


# --- user namespaces

#: As uid_map and gid_map have it: within, without, how many. Root is 5 there, nobody 7, and nobody else is anybody.
MAP = f"5 0 1\n7 {NOBODY} 1\n"
OVERFLOW = 65534


def in_user_namespace(door: Door, body: Callable[[], Any], mapped: str = MAP) -> Any:
    """What ``body`` returns in a user namespace of its own. Root's child writes the maps from without."""

    def run() -> Any:
        pid, (ready, go) = os.getpid(), os.pipe()
        helper = os.fork()
        if helper == 0:
            os.close(go)
            os.read(ready, 1)
            for name in ("uid_map", "gid_map") if mapped else ():
                Path(f"/proc/{pid}/{name}").write_text(mapped)
            os._exit(0)
        unshare(CLONE_NEWUSER)
        os.close(go)  # now the helper may
        os.waitpid(helper, 0)
        return body()

    return door.spawn(run).result()


def outcome(result: Result) -> object:
    return result.errno or result.ret


def test_ids_are_shown_as_the_callers_namespace_has_them(door: Door) -> None:
    def ids() -> list[object]:
        if door.name == "native":
            return [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()]
        calls = ("getuid", "geteuid", "getgid", "getegid")
        return [*(door.ok(call).ret for call in calls), door.ok("getgroups").results["groups"] or []]

    groups = [5] * bool(os.getgroups())
    assert in_user_namespace(door, ids) == [5, 5, 5, 5, groups]


def test_ids_that_are_not_mapped_are_shown_as_the_overflow_id(door: Door) -> None:
    def ids() -> list[int]:
        return [os.getuid(), os.getgid()] if door.name == "native" else [door.ok("getuid").ret, door.ok("getgid").ret]

    assert in_user_namespace(door, ids, mapped="") == [OVERFLOW, OVERFLOW]


FAMILIES = {
    "msg": (msgget, msgctl, "msgctl", ()),
    "shm": (lambda key, flags: shmget(key, 4096, flags), shmctl, "shmctl", ()),
    "sem": (
        lambda key, flags: semget(key, 1, flags),
        lambda semid, *args, **fields: semctl(semid, 0, *args, **fields),
        "semctl",
        (0,),
    ),
}


@pytest.fixture(params=FAMILIES)
def owned(request: pytest.FixtureRequest, nothing_left: None) -> Iterator[tuple[Callable[..., Result], str, tuple]]:
    """An object of root's: its native ``*ctl``, and the call with its first arguments."""
    get, control, call, more = FAMILIES[request.param]
    number = get(CONSTANTS["IPC_PRIVATE"], 0o600)
    yield lambda command, **fields: control(number, CONSTANTS[command], **fields), call, (number, *more)
    control(number, CONSTANTS["IPC_RMID"])


def test_ipc_set_takes_ids_of_the_callers_namespace_and_ipc_stat_shows_them(
    door: Door, owned: tuple[Callable[..., Result], str, tuple]
) -> None:
    control, call, arguments = owned

    def set_and_look() -> list[object]:
        found = door.ok(call, *arguments, "IPC_STAT").results
        ids = [found[name] for name in ("uid", "gid", "cuid", "cgid")]
        return [
            ids,
            outcome(door.call(call, *arguments, "IPC_SET", uid=6, gid=5, mode=0o600)),
            outcome(door.call(call, *arguments, "IPC_SET", uid=5, gid=8, mode=0o600)),
            outcome(door.call(call, *arguments, "IPC_SET", uid=7, gid=7, mode=0o600)),
        ]

    assert in_user_namespace(door, set_and_look) == [[5, 5, 5, 5], "EINVAL", "EINVAL", 0]
    found = control("IPC_STAT").results
    assert (found["uid"], found["gid"], found["cuid"]) == (NOBODY, NOBODY, 0)


def test_an_owner_that_is_not_mapped_is_shown_as_the_overflow_id(door: Door, queue_of_1000: int) -> None:
    def looked() -> list[int]:
        found = door.ok("msgctl", queue_of_1000, "IPC_STAT").results
        return [found[name] for name in ("uid", "gid", "cuid", "cgid")]

    assert in_user_namespace(door, looked) == [OVERFLOW, OVERFLOW, 5, 5]


@pytest.fixture
def queue_of_1000(new_queue: Callable[..., int]) -> int:
    """Made by root, and given to somebody."""
    queue = new_queue(mode=0o666)
    msgctl(queue, CONSTANTS["IPC_SET"], uid=1000, gid=1000, mode=0o666)
    return queue


def test_chown_takes_ids_of_the_callers_namespace(door: Door, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def chown(uid: int, gid: int) -> object:
        if door.name != "native":
            return outcome(door.call("chown", bytes(tmp_path / "file"), uid, gid))
        try:
            os.chown(tmp_path / "file", uid, gid)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return 0

    attempts = in_user_namespace(door, lambda: [chown(6, 5), chown(5, 6), chown(5, 5)])
    assert attempts == ["EINVAL", "EINVAL", 0]
    assert (tmp_path / "file").stat().st_uid == 0


def test_a_capability_of_another_user_namespace_counts_for_nothing(gate: MountDoor, new_queue: Callable) -> None:
    """Natively it counts for an IPC namespace of that user namespace, which the mount does not show."""
    queue = new_queue()
    msgctl(queue, CONSTANTS["IPC_SET"], uid=1000, gid=1000, mode=0)

    def attempts() -> list[object]:
        os.setresuid(7, 7, 7)
        return [outcome(door.call("msgctl", queue, "IPC_RMID")) for door in (NativeDoor(), gate)]

    assert in_user_namespace(gate, attempts) == ["EPERM", "EPERM"]


def test_what_the_kernel_has_translated_is_not_translated_again(gate: MountDoor, queue: int) -> None:
    """chown(2) of a file in the mount: its ids come to the daemon as the daemon's namespace has them."""

    def chown() -> tuple[int, int]:
        path = gate.mount.path / f"msgq/sysv/{queue}"
        os.chown(path, 7, 7)
        found = os.stat(path)
        return found.st_uid, found.st_gid

    assert in_user_namespace(gate, chown)[0] in (5, 7)  # a creator is shown as the owner
    assert msgctl(queue, CONSTANTS["IPC_STAT"]).results["uid"] == NOBODY


def test_a_command_to_ctl_takes_ids_of_the_writers_namespace(gate: MountDoor, queue: int) -> None:
    def set_owner() -> None:
        ctl = gate.mount.path / "msgq/ctl"
        with pytest.raises(OSError, match="Invalid argument"):
            ctl.write_text(f"set {queue} uid=6\n")
        ctl.write_text(f"set {queue} uid=7\n")

    in_user_namespace(gate, set_owner)
    assert msgctl(queue, CONSTANTS["IPC_STAT"]).results["uid"] == NOBODY


def test_a_mount_of_a_user_namespace_is_closed_to_those_above(tmp_path: Path, nothing_left: None) -> None:
    """By the kernel: their ids would mean nothing there."""
    inside = ("unshare", "--user", "--map-root-user", "--mount", "--kill-child")
    script = f'"{SYNOSFS}" -o allow_other "$1" && cat "$1/help" > "$2" && echo mounted; read -r _; umount "$1"'
    (tmp_path / "mnt").mkdir()
    command = [*inside, "sh", "-c", script, "-", tmp_path / "mnt", tmp_path / "help"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin
        assert shell.stdout
        assert shell.stdout.readline() == b"mounted\n"
        with pytest.raises(PermissionError):
            os.stat(f"/proc/{shell.pid}/root{tmp_path}/mnt/help")
        shell.stdin.close()
    assert shell.returncode == 0
    assert "msgget" in (tmp_path / "help").read_text()


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


# --- pid namespaces


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
def mount_of_a_pid_namespace(ipc_namespace: None, nothing_left: None) -> Iterator[Mount]:
    with mounted(prefix=("unshare", "--pid", "--fork", "--kill-child")) as mount:
        yield mount
        # unshare(1) hands no signal on: so the daemon is ended by unmounting.
        subprocess.run(["umount", mount.path], check=True)
        mount.daemon.wait()


def test_a_caller_outside_the_mounts_pid_namespace_is_nobody(mount_of_a_pid_namespace: Mount) -> None:
    mount = mount_of_a_pid_namespace
    assert "msgget" in (mount.path / "help").read_text()
    with pytest.raises(ProcessLookupError):
        os.open(mount.gate, os.O_RDWR)


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
