"""Who a call belongs to: sessions of the dead are nobody's, and others get no further than the host would let them."""

import errno
import os
import select

import pytest
from children import wait_until
from command import run
from doors import NOBODY, MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgsnd

# --- sessions whose opener has ended


def test_a_session_whose_opener_has_ended_answers_esrch(gate: MountDoor, mount: Mount) -> None:
    def use_after_death() -> str:
        receive, send = os.pipe()
        parent = os.fork()
        if parent == 0:
            session = os.open(mount.gate, os.O_RDWR)
            alive = write(session, b"getpid\n")
            opener = os.pidfd_open(os.getpid())
            if os.fork() == 0:
                select.select([opener], [], [])  # until it is dead
                used = write(session, b"getpid\n"), write(session, b'{"call":"getpid"}\n')
                again = write(os.open(mount.gate, os.O_RDWR), b"getpid\n")
                os.write(send, repr((alive, *used, again)).encode())
            os._exit(0)
        os.waitpid(parent, 0)
        os.close(send)
        return os.read(receive, 100).decode()

    assert gate.spawn(use_after_death).result() == repr(("", "ESRCH", "ESRCH", ""))


def test_a_call_in_a_session_whose_opener_dies_meanwhile_ends_with_esrch(
    gate: MountDoor, mount: Mount, queue: int
) -> None:
    def outlived() -> str:
        receive, send = os.pipe()
        opener = os.fork()
        if opener == 0:
            session = os.open(mount.gate, os.O_RDWR)
            if os.fork() == 0:
                os.write(send, write(session, b"msgrcv %d 10\n" % queue).encode())
                os._exit(0)
            os.read(receive, 1)  # never: it is killed
        os.close(send)
        wait_until(lambda: mount.blocked(opener), "the child blocks in its parent's session")
        os.kill(opener, 9)
        os.waitpid(opener, 0)
        return os.read(receive, 100).decode()

    assert gate.spawn(outlived).result() == "ESRCH"
    msgsnd(queue, 1, b"later")
    assert gate.ok("msgrcv", queue, 10, 0, "IPC_NOWAIT").data == b"later"


def test_a_process_that_has_ended_has_no_directory_and_its_files_are_gone(gate: MountDoor, mount: Mount) -> None:
    child = gate.spawn(lambda: gate.call("getpid").ret)
    directory = os.open(mount.path / "proc", os.O_RDONLY)
    pid = child.result()
    wait_until(lambda: str(pid) not in os.listdir(directory), "it has left")
    for name in (f"{pid}", f"{pid}/syscall", f"{pid}/blocked"):
        with pytest.raises(FileNotFoundError):
            os.stat(name, dir_fd=directory)
    os.close(directory)


# --- other users


@pytest.fixture
def as_nobody(gate: MountDoor) -> MountDoor:
    gate.ok("getpid")
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    return gate


def attempt(path: object, flags: int, data: bytes = b"") -> str:
    """Open it, and write or read; the name of the errno, or what was read."""
    try:
        fd = os.open(path, flags)  # type: ignore[arg-type]
        return write(fd, data) if data else os.read(fd, 1000).decode()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@pytest.mark.parametrize("name", ["syscall", "blocked", "mem", "undo", "attach"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_a_process_of_roots_is_closed_to_others(as_nobody: MountDoor, name: str, flags: int) -> None:
    path = as_nobody.mount.path / f"proc/{os.getpid()}" / name
    assert as_nobody.spawn(lambda: attempt(path, flags), uid=NOBODY).result() == "EACCES"


def test_a_process_of_another_users_is_open_to_root(as_nobody: MountDoor, queue: int) -> None:
    mount = as_nobody.mount
    theirs = msgctl_queue_of_all(queue)
    blocked = as_nobody.block("msgrcv", theirs, 10, as_uid=NOBODY)
    assert mount.blocked(blocked.pid) == [f"msgrcv({theirs}, 10, 0, 0)"]
    # Root acts for it, with its rights and not with root's own.
    assert attempt(mount.path / f"proc/{blocked.pid}/syscall", os.O_WRONLY, b"getuid\n") == ""
    assert attempt(mount.path / f"proc/{blocked.pid}/syscall", os.O_RDONLY) == f"{NOBODY}\n"
    blocked.kill()


def msgctl_queue_of_all(queue: int) -> int:
    msgctl(queue, CONSTANTS["IPC_SET"], mode=0o666)
    return queue


def test_a_child_that_gave_up_root_does_not_see_roots_last_reply(as_nobody: MountDoor, mount: Mount) -> None:
    drop = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    reading = f'echo "as root: $(cat {mount.gate})"; {drop} cat {mount.gate}'
    done = run("bash", "-c", f"echo 'uname' > {mount.gate}; {reading}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("as root: 0 sysname=")
    assert done.stdout.count("\n") == 1


def test_what_a_setgid_program_was_told_is_not_for_its_child_that_has_given_that_up(
    as_nobody: MountDoor, mount: Mount
) -> None:
    def told() -> tuple[bytes, bytes, bytes]:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY - 1, NOBODY - 1)  # as a setgid program runs
        os.setresuid(NOBODY, NOBODY, NOBODY)
        as_nobody.ok("getpid")
        own = mount.gate.read_bytes()
        same = as_nobody.spawn(mount.gate.read_bytes).result()

        def give_up() -> bytes:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            return mount.gate.read_bytes()

        return own, same, as_nobody.spawn(give_up).result()

    own, same, without = as_nobody.spawn(told).result()
    assert own == same != b""
    assert without == b""


def test_a_session_keeps_the_rights_of_its_opening(as_nobody: MountDoor, mount: Mount, queue: int) -> None:
    """As an open file does: what is inherited from root is root's, and what is opened afterwards is not."""
    msgsnd(queue, 1, b"root's")

    def give_up_root() -> tuple[str, str]:
        session = os.open(mount.gate, os.O_RDWR)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        new = os.open(mount.gate, os.O_RDWR)
        request = b"msgrcv %d 10 0 IPC_NOWAIT\n" % queue
        return write(new, request), write(session, request)

    assert as_nobody.spawn(give_up_root).result() == ("EACCES", "")


@pytest.mark.parametrize(
    ("call", "args", "expected"),
    [
        ("msgrcv", (10, 0, "IPC_NOWAIT"), "EACCES"),
        ("msgsnd", (1, b"mine", "IPC_NOWAIT"), "EACCES"),
        ("msgctl", ("IPC_STAT",), "EACCES"),
        ("msgctl", ("IPC_RMID",), "EPERM"),
    ],
)
def test_a_queue_of_roots_is_as_closed_as_natively(
    as_nobody: MountDoor, queue: int, call: str, args: tuple, expected: str
) -> None:
    assert as_nobody.call_as(NOBODY, call, queue, *args).errno == expected


def test_queue_files_of_roots_are_as_closed_as_their_mode_says(as_nobody: MountDoor, mount: Mount, queue: int) -> None:
    path = mount.path / f"msgq/sysv/{queue}"

    def attempts() -> list[str]:
        tried = [attempt(path, os.O_RDONLY), attempt(path, os.O_WRONLY, b"mine"), attempt(path, os.O_RDWR)]
        for change in (lambda: os.unlink(path), lambda: os.chmod(path, 0o666), lambda: os.chown(path, NOBODY, -1)):
            try:
                change()
                tried.append("")
            except PermissionError as error:
                tried.append(type(error).__name__)
        return tried

    tried = as_nobody.spawn(attempts, uid=NOBODY).result()
    assert tried == ["EACCES"] * 3 + ["PermissionError"] * 3
    assert msgctl(queue, CONSTANTS["IPC_STAT"]).results["mode"] == 0o600


def test_another_users_blocked_call_is_killed_and_freed_as_any(as_nobody: MountDoor, queue: int) -> None:
    blocked = as_nobody.block("msgrcv", msgctl_queue_of_all(queue), 10, as_uid=NOBODY)
    blocked.kill()
    wait_until(lambda: as_nobody.blocked_callers() == 0, "nobody is blocked", 10)
