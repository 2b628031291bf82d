"""Callers that more than their ids holds: a sandbox. The gate is no way out of it."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sandbox
from command import needs_root, synosfs
from doors import Door, MountDoor
from mounts import mounted
from native_posix import unlink_all

from synosfs.errors import SynosError
from synosfs.host import confinement, procfs
from synosfs.host.confinement import Confinement
from synosfs.options import parse_mount_words
from synosfs.syscall_gate import table
from synosfs.syscall_gate.kinds import KINDS
from synosfs.syscall_gate.spec import REQUIRED, Row

NAME = b"/synosfs-test-%d" % os.getpid()

needs_landlock = pytest.mark.skipif(not sandbox.has_landlock(), reason="this kernel has no Landlock")
needs_no_marks = pytest.mark.skipif(
    confinement.marks(os.getpid())[:3] != (False, 0, 0), reason="these tests run in a sandbox themselves"
)
pytestmark = needs_no_marks

CONFINE = {"no_new_privs": sandbox.no_new_privs, "seccomp": sandbox.seccomp}


@pytest.fixture
def name(nothing_left: None) -> Iterator[bytes]:
    yield NAME
    unlink_all(NAME)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("secret")
    return path


def confined(door: Door, confine: Callable[[], None], body: Callable[[], Any]) -> Any:
    """What ``body`` returns in a process that has confined itself."""

    def run() -> Any:
        confine()
        return body()

    return door.spawn(run).result()


# --- files: refused


@needs_landlock
@pytest.mark.parametrize("opened", ["before", "afterwards"])
def test_what_landlock_keeps_from_a_process_the_gate_does_not_give_it(
    native: Door, gate: MountDoor, file: Path, opened: str
) -> None:
    def attempts() -> list[str]:
        if opened == "before":
            gate.ok("getpid")
        sandbox.landlock(gate.mount.path)
        return [door.call("open", bytes(file), "O_RDONLY").errno for door in (native, gate)]

    for door in (native, gate):
        door.ok("close", door.ok("open", bytes(file), "O_RDONLY").ret)
    assert gate.spawn(attempts).result() == ["EACCES", "EACCES"]


@pytest.mark.parametrize("mark", CONFINE)
def test_a_confined_caller_is_told_what_confines_it_and_the_way_out(gate: MountDoor, file: Path, mark: str) -> None:
    if mark == "seccomp" and os.geteuid():
        pytest.skip("an ordinary user needs no_new_privs for a filter")
    refused = confined(gate, CONFINE[mark], lambda: gate.call("open", bytes(file), "O_RDONLY"))
    assert refused.errno == "EACCES"
    for word in (str(file), f"confined ({mark})", "-o confined=allow"):
        assert word in refused.message


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("open", (b"%s", "O_RDONLY")),
        ("open", (b"./file", "O_RDONLY")),
        ("open", (b"%s-new", "O_CREAT|O_WRONLY", "0600")),
        ("mkfifo", (b"%s-new", "0600")),
        ("mknod", (b"%s-new", "S_IFIFO|0600")),
        ("unlink", (b"%s",)),
        ("rename", (b"%s", b"%s-new")),
        ("chmod", (b"%s", "0666")),
        ("chown", (b"%s", 0, 0)),
        ("utimensat", (b"%s",)),
        ("utime", (b"%s",)),
        ("utimes", (b"%s",)),
        ("ftok", (b"%s", 1)),
        ("shm_open", (NAME, "O_CREAT|O_RDWR", "0600")),
        ("shm_unlink", (NAME,)),
        ("sem_open", (NAME, "O_CREAT", "0600", 1)),
        ("sem_unlink", (NAME,)),
    ],
)
def test_no_call_on_a_file_is_for_a_confined_caller(gate: MountDoor, file: Path, call: str, args: tuple) -> None:
    os.chdir(file.parent)
    args = tuple(arg.replace(b"%s", bytes(file)) if isinstance(arg, bytes) else arg for arg in args)
    assert confined(gate, sandbox.no_new_privs, lambda: gate.call(call, *args)).errno == "EACCES"
    assert [path.name for path in file.parent.iterdir()] == ["file"]
    assert not [found for found in os.listdir("/dev/shm") if NAME[1:].decode() in found]


#: An argument of each kind, for rows of the table that take a path.
OF_KIND = {"descriptor or AT_FDCWD": "AT_FDCWD", "name": b"user.x", "data": b"v", "number": 0, "mode": 0o600}


@pytest.mark.parametrize("row", [row for row in table.ROWS if KINDS["path"] in [param.kind for param in row.params]])
def test_no_call_that_takes_a_path_is_for_a_confined_caller(gate: MountDoor, file: Path, row: Row) -> None:
    paths = iter((bytes(file), bytes(file) + b"-new"))
    needed = [param for param in row.params if param.default is REQUIRED]
    args = [next(paths) if param.kind is KINDS["path"] else OF_KIND[param.kind.label] for param in needed]
    if row.name.startswith("symlink"):
        args[0] = b"anything"
    refused = confined(gate, sandbox.no_new_privs, lambda: gate.call(row.name, *args))
    assert refused.errno == "EACCES"
    assert "confined" in refused.message
    assert [path.name for path in file.parent.iterdir()] == ["file"]
    assert file.read_text() == "secret"


def test_neither_a_descriptor_nor_a_working_directory_leads_a_confined_caller_to_files(
    gate: MountDoor, file: Path
) -> None:
    def calls() -> list[str]:
        directory = gate.ok("open", bytes(file.parent), "O_DIRECTORY").ret
        gate.ok("chdir", bytes(file.parent))
        sandbox.no_new_privs()
        results = [
            gate.call("openat", directory, b"file", "O_RDONLY"),
            gate.call("newfstatat", directory, b"file"),
            gate.call("unlinkat", directory, b"file"),
            gate.call("open", b"./file", "O_RDONLY"),
            gate.call("chdir", b".."),
            gate.call("fstat", directory),  # it is open
        ]
        return [result.errno for result in results]

    assert confined(gate, lambda: None, calls) == [*["EACCES"] * 5, ""]


def test_a_semaphores_file_in_the_mount_is_a_file_too(gate: MountDoor, name: bytes) -> None:
    gate.ok("sem_close", gate.ok("sem_open", name, "O_CREAT", "0600", 1).ret)
    path = gate.mount.path / "sem/posix" / name[1:].decode()

    def attempts() -> list[int]:
        return [failing(lambda: os.chmod(path, 0o666)), failing(lambda: os.unlink(path))]

    assert confined(gate, sandbox.no_new_privs, attempts) == [errno.EACCES, errno.EPERM]


def failing(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


def test_no_process_but_its_own_is_for_a_confined_caller(gate: MountDoor) -> None:
    gate.ok("getpid")
    directory = gate.mount.path / f"proc/{os.getpid()}"

    def attempts() -> list[int]:
        return [
            failing(lambda: os.open(directory / "syscall", os.O_RDWR)),
            failing(lambda: os.open(directory / "attach", os.O_RDONLY)),
            failing(lambda: os.open(gate.mount.path / "proc/self/syscall", os.O_RDWR)),
        ]

    def own_first() -> list[int]:
        gate.ok("getpid")
        return attempts()

    assert confined(gate, sandbox.no_new_privs, own_first) == [errno.EACCES, errno.EACCES, 0]


def test_what_a_parent_opens_and_is_told_is_not_for_a_confined_child(gate: MountDoor, file: Path) -> None:
    """A descriptor table is copied when a child first uses it, the last reply is looked for when it is read: later than
    fork(2) would have handed on what there was.
    """

    def parent() -> dict[str, tuple[str, str]]:
        found = {}
        for who, confine in (("free", lambda: None), ("confined", sandbox.no_new_privs)):
            (waits, go), (ready, send) = os.pipe(), os.pipe()
            child = os.fork()
            if child == 0:
                confine()
                os.read(waits, 1)
                told = gate.mount.gate.read_text()
                errno = gate.call("lseek", 3, 0).errno
                os.write(send, f"{told.strip()},{errno}".encode())
                os._exit(0)
            if not found:
                gate.ok("open", bytes(file), "O_RDONLY")
            gate.ok("getpid")
            os.write(go, b"x")
            os.waitpid(child, 0)
            found[who] = tuple(os.read(ready, 100).decode().split(","))
        return found

    child = gate.spawn(parent)
    assert child.result() == {"free": (str(child.pid), ""), "confined": ("", "EBADF")}


# --- IPC, and what was open before: served


def test_ipc_is_for_a_confined_caller(gate: MountDoor, queue: int, name: bytes) -> None:
    def calls() -> bytes:
        gate.ok("msgsnd", queue, 1, b"served")
        gate.ok("mkfifo", b"confined", "0600")
        gate.ok("chmod", b"confined", "0640")
        gate.ok("close", gate.ok("open", b"confined", "O_RDWR").ret)
        gate.ok("unlink", b"confined")
        gate.ok("close", gate.ok("mq_open", name, "O_CREAT|O_RDWR", "0600").ret)
        ends = gate.ok("pipe2", "0").results
        gate.ok("write", ends["write"], b"x")
        return gate.ok("msgrcv", queue, 10, 0, "IPC_NOWAIT").data

    assert confined(gate, sandbox.no_new_privs, calls) == b"served"


def test_what_was_open_before_stays_open(gate: MountDoor, file: Path, name: bytes) -> None:
    def calls() -> tuple[bytes, str]:
        opened = gate.ok("open", bytes(file), "O_RDONLY").ret
        memory = gate.ok("shm_open", name, "O_CREAT|O_RDWR", "0600").ret
        sandbox.no_new_privs()
        gate.ok("ftruncate", memory, 10)
        return gate.ok("read", opened, 10).data, gate.call("open", bytes(file), "O_RDONLY").errno

    assert gate.spawn(calls).result() == (b"secret", "EACCES")


def test_the_streams_of_a_confined_caller_are_its_own(gate: MountDoor, file: Path) -> None:
    def calls() -> bytes:
        os.dup2(os.open(file, os.O_RDONLY), 0)
        os.dup2(os.open(file.with_name("out"), os.O_CREAT | os.O_WRONLY), 1)
        sandbox.no_new_privs()
        gate.ok("write", 1, b"said")
        return gate.ok("read", 0, 10).data

    assert gate.spawn(calls).result() == b"secret"
    assert file.with_name("out").read_bytes() == b"said"


@pytest.mark.parametrize("ended", [False, True])
def test_the_thread_that_opened_the_session_is_asked_and_the_process(
    gate: MountDoor, file: Path, *, ended: bool
) -> None:
    """A thread confines itself alone, as seccomp without TSYNC does; by and by it ends."""
    import threading

    def calls() -> str:
        def open_session() -> None:
            gate.ok("getpid")
            if not ended:
                sandbox.no_new_privs()
                confined.set()
                done.wait()

        confined, done = threading.Event(), threading.Event()
        thread = threading.Thread(target=open_session)
        thread.start()
        if ended:
            thread.join()
            sandbox.no_new_privs()
        else:
            confined.wait()
        result = gate.call("open", bytes(file), "O_RDONLY").errno
        done.set()
        return result

    assert gate.spawn(calls).result() == "EACCES"


# --- the option


@pytest.fixture
def mount_with(ipc_namespace: None, nothing_left: None, request: pytest.FixtureRequest) -> Iterator[MountDoor]:
    prefix, options = request.param
    with mounted(prefix=prefix, options=options) as own:
        door = MountDoor(own, "text")
        yield door
        door.close()


@pytest.mark.parametrize("mount_with", [((), ("-o", "confined=allow"))], indirect=True)
def test_confined_allow_goes_by_ids_alone(mount_with: MountDoor, file: Path) -> None:
    assert confined(mount_with, sandbox.no_new_privs, lambda: mount_with.ok("open", bytes(file), "O_RDONLY").ret) >= 3


@pytest.mark.parametrize("mount_with", [((), ("-o", "confined=deny"))], indirect=True)
def test_confined_deny_opens_no_session_and_changes_nothing(mount_with: MountDoor, queue: int) -> None:
    path = mount_with.mount.path

    def attempts() -> list[int]:
        return [
            failing(lambda: os.open(path / "syscall", os.O_RDWR)),
            failing(lambda: os.open(path / f"msgq/sysv/{queue}", os.O_WRONLY)),
            failing(lambda: os.unlink(path / f"msgq/sysv/{queue}")),
        ]

    assert mount_with.ok("getpid").ret == os.getpid()
    assert confined(mount_with, sandbox.no_new_privs, attempts) == [errno.EACCES] * 3


@needs_root
@pytest.mark.parametrize("mount_with", [(("setpriv", "--no-new-privs"), ())], indirect=True)
def test_what_the_daemon_bears_itself_confines_nobody_more(mount_with: MountDoor, file: Path) -> None:
    def calls() -> tuple[str, str]:
        same = mount_with.call("open", bytes(file), "O_RDONLY").errno
        sandbox.seccomp()
        return same, mount_with.call("open", bytes(file), "O_RDONLY").errno

    assert confined(mount_with, sandbox.no_new_privs, calls) == ("", "EACCES")


@pytest.mark.parametrize(
    ("daemons", "callers", "refused"),
    [
        ("", "", False),
        ("unconfined", "unconfined", False),
        ("unconfined", "firefox (enforce)", True),
        ("unconfined", "firefox (complain)", False),
        ("unconfined", "firefox (unconfined)", False),
        ("docker-default (enforce)", "docker-default (enforce)", False),
        ("docker-default (enforce)", "unconfined", False),
        ("docker-default (enforce)", "other (enforce)", True),
        ("system_u:system_r:mount_t:s0", "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", False),
        ("system_u:system_r:mount_t:s0", "user_u:user_r:user_t:s0", True),
        ("unconfined", "", True),
    ],
)
def test_another_security_label_confines_unless_it_says_that_it_does_not(
    monkeypatch: pytest.MonkeyPatch, daemons: str, callers: str, *, refused: bool
) -> None:
    monkeypatch.setattr(procfs, "security_label", lambda thread: daemons)
    asked = Confinement()
    monkeypatch.setattr(procfs, "security_label", lambda thread: callers)
    if not refused:
        asked.check_file(os.getpid(), os.getpid(), "/x")
        return
    with pytest.raises(SynosError, match="security label") as raised:
        asked.check_file(os.getpid(), os.getpid(), "/x")
    assert raised.value.errno == errno.EACCES


def test_the_option_takes_three_words() -> None:
    assert parse_mount_words("/m", None, []).confined == "ipc"
    assert parse_mount_words("/m", None, ["confined=deny"]).confined == "deny"
    assert "confined=allow|ipc|deny" in synosfs("--help").stdout
    for word in ("confined", "confined=", "confined=no"):
        with pytest.raises(SynosError, match="allow, ipc or deny"):
            parse_mount_words("/m", None, [word])
