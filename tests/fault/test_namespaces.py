"""Callers in namespaces, or in a root, other than the daemon's: each row of the table in docs/security.md."""

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import native_shm
import pytest
from command import SYNOSFS, assert_refused, needs_root, run
from doors import NOBODY, Door, MountDoor, NativeDoor
from mounts import COMPLAINT
from native import Result, checked, libc
from native_msg import CONSTANTS, msgctl, msgget
from native_posix import mq_open, unlink_all
from native_sem import semctl, semget
from native_shm import shmctl, shmget

from synosfs.errors import SynosError
from synosfs.ipc.manager import IPCManager
from synosfs.process.accounts import Accounts
from synosfs.process.table import ProcessTable

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 1 << 18, 2

KEY = 0x5359_0004

pytestmark = needs_root


def unshare(flags: int) -> None:
    checked(libc.unshare(ctypes.c_int(flags)))


# --- user namespaces

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
