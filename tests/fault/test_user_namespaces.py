"""Callers in a user namespace other than the daemon's: its rows of the table in docs/security.md."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import SYNOSFS, needs_root
from doors import NOBODY, Door, MountDoor, NativeDoor
from namespaces import CLONE_NEWUSER, unshare
from native import Result, outcome
from native_msg import CONSTANTS, msgctl, msgget
from native_sem import semctl, semget
from native_shm import shmctl, shmget

pytestmark = needs_root

#: As uid_map and gid_map have it: within, without, how many. Root is 5 there, nobody 7, and nobody else is anybody.
MAP = f"5 0 1\n7 {NOBODY} 1\n"
OVERFLOW = 65534


def in_user_namespace(
    door: Door, body: Callable[[], Any], mapped: str = MAP, *, first: Callable[[], object] | None = None
) -> Any:
    """What ``body`` returns in a user namespace of its own. Root's child writes the maps from without; before that, in
    the new namespace, comes ``first``.
    """

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
        if first is not None:
            first()
        os.close(go)  # now the helper may
        os.waitpid(helper, 0)
        return body()

    return door.spawn(run).result()


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


def test_a_session_is_shown_the_maps_that_are_written_after_its_opening(gate: MountDoor) -> None:
    assert in_user_namespace(gate, lambda: gate.ok("getuid").ret, first=lambda: gate.ok("getpid")) == 5


def test_a_session_keeps_the_user_namespace_of_its_opening(gate: MountDoor) -> None:
    def enter() -> list[int]:
        session = os.open(gate.mount.gate, os.O_RDWR)
        unshare(CLONE_NEWUSER)
        os.write(session, b"getuid\n")
        return [int(os.read(session, 100)), gate.ok("getuid").ret]

    assert gate.spawn(enter).result() == [0, OVERFLOW]


def test_root_of_a_user_namespace_is_an_ordinary_user_to_the_host(door: Door, queue: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)

    def attempts() -> list[object]:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        return [
            os.getuid() if door.name == "native" else door.ok("getuid").ret,
            outcome(door.call("msgrcv", queue, 10, 0, "IPC_NOWAIT")),
            outcome(door.call("msgctl", queue, "IPC_RMID")),
            outcome(door.call("open", bytes(tmp_path / "file"), "O_RDONLY")),
        ]

    assert in_user_namespace(door, attempts, f"0 {NOBODY} 1\n") == [0, "EACCES", "EPERM", "EACCES"]


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
