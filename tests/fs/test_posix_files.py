"""``msgq/posix/`` and ``sem/posix/``: POSIX queues and semaphores as files, used as shells and programs use files."""

import ctypes
import errno
import os
import select
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import posix_ipc
import pytest
from children import Child, wait_until
from doors import NOBODY, MountDoor
from mounts import Mount
from native import libc
from native_posix import unlink_all

#: Nobody else's: /dev/shm is in no IPC namespace.
NAME = f"synosfs-test-{os.getpid()}"


@pytest.fixture
def queues(mount: Mount) -> Iterator[Path]:
    yield mount.path / "msgq/posix"
    unlink_all(f"/{NAME}".encode())


@pytest.fixture
def semaphores(mount: Mount) -> Iterator[Path]:
    yield mount.path / "sem/posix"
    unlink_all(f"/{NAME}".encode())


@pytest.fixture
def queue(queues: Path) -> Iterator[posix_ipc.MessageQueue]:
    """A queue of a native program's, mode 0640, for 2 messages of 64 bytes."""
    made = posix_ipc.MessageQueue(f"/{NAME}", posix_ipc.O_CREX, mode=0o640, max_messages=2, max_message_size=64)
    yield made
    made.close()


@pytest.fixture
def semaphore(semaphores: Path) -> Iterator[posix_ipc.Semaphore]:
    """A semaphore of a native program's, mode 0640, with the value 1."""
    made = posix_ipc.Semaphore(f"/{NAME}", posix_ipc.O_CREX, mode=0o640, initial_value=1)
    yield made
    made.close()


def shell(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=directory, capture_output=True, text=True, timeout=30, check=False
    )


def refused(operation: Callable[[], object]) -> str:
    try:
        operation()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def write(path: Path, data: bytes, flags: int = 0) -> int:
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def blocked(mount: Mount, child: Child) -> Child:
    def waits() -> bool:  # opening is a wait, too, if a short one
        return any("open" not in what for what in mount.blocked(child.pid))

    wait_until(lambda: waits() or child.ended(), "it blocks")
    assert not child.ended(), child.result()
    return child


# --- queues


def test_a_queue_of_a_native_program_is_a_file_until_it_is_unlinked(
    queues: Path, queue: posix_ipc.MessageQueue
) -> None:
    assert NAME in os.listdir(queues)
    queue.unlink()
    assert NAME not in os.listdir(queues)
    assert not (queues / NAME).exists()


def test_stat_shows_owner_mode_and_the_bytes_in_the_queue(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    queue.send(b"12345")
    status = (queues / NAME).stat()
    assert (stat.S_ISREG(status.st_mode), status.st_mode & 0o777, status.st_uid) == (True, 0o640, 0)
    assert status.st_size == 5


def test_a_look_shows_what_the_kernel_shows_and_takes_nothing(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    queue.send(b"12345")
    assert (queues / NAME).read_text() == "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n"
    assert queue.current_messages == 1


def test_a_look_names_the_process_that_is_registered_and_ends_no_registration(
    mount: Mount, queues: Path, queue: posix_ipc.MessageQueue
) -> None:
    door = MountDoor(mount, "json")
    mqd = door.ok("mq_open", f"/{NAME}".encode()).ret
    door.ok("mq_notify", mqd, "SIGEV_NONE")
    for _ in range(2):
        assert (queues / NAME).read_text().split()[1:] == ["NOTIFY:1", "SIGNO:0", f"NOTIFY_PID:{os.getpid()}"]
        os.listxattr(queues / NAME)
    assert door.call("mq_notify", mqd).errno == "EBUSY"
    door.ok("close", mqd)
    door.close()


def test_xattrs_are_the_attributes_of_the_queue(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    queue.send(b"x")
    path = queues / NAME
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {
        "user.maxmsg": b"2",
        "user.msgsize": b"64",
        "user.curmsgs": b"1",
    }


def test_a_write_sends_and_the_number_behind_the_at_is_the_priority(
    queues: Path, queue: posix_ipc.MessageQueue
) -> None:
    assert shell(f"printf low > {NAME}; printf high > {NAME}@9", queues).stderr == ""
    assert [queue.receive(), queue.receive()] == [(b"high", 9), (b"low", 0)]


def test_a_read_receives_and_goes_on_with_a_message_that_is_longer(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    queue.send(b"first")
    queue.send(b"second", priority=1)
    fd = os.open(queues / NAME, os.O_RDWR | os.O_NONBLOCK)
    assert [os.read(fd, 3), os.read(fd, 100), os.read(fd, 100)] == [b"sec", b"ond", b"first"]
    assert refused(lambda: os.read(fd, 100)) == "EAGAIN"
    os.close(fd)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [(NAME, b"x" * 65, "EMSGSIZE"), (f"{NAME}@32768", b"x", "EINVAL"), ("none@1", b"", "ENOENT")],
)
def test_what_mq_send_refuses_the_file_refuses(
    queues: Path, queue: posix_ipc.MessageQueue, name: str, data: bytes, error: str
) -> None:
    assert refused(lambda: write(queues / name, data)) == error


def test_a_queue_whose_name_has_an_at_is_found_by_its_name(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    other = posix_ipc.MessageQueue(f"/{NAME}@5", posix_ipc.O_CREX)
    write(queues / f"{NAME}@5", b"x")
    assert (other.current_messages, queue.current_messages) == (1, 0)
    other.close()
    other.unlink()


def test_creating_a_file_makes_a_queue_and_rm_unlinks_it(queues: Path) -> None:
    assert shell(f"umask 027; : > {NAME}", queues).returncode == 0
    made = posix_ipc.MessageQueue(f"/{NAME}")
    assert (made.max_messages, made.max_message_size) == (10, 8192)
    assert (queues / NAME).stat().st_mode & 0o777 == 0o640
    made.close()
    assert shell(f"rm {NAME}", queues).returncode == 0
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.MessageQueue(f"/{NAME}")
    assert NAME not in os.listdir(queues)


def test_chmod_and_chown_are_the_queues_own(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    os.chown(queues / NAME, NOBODY, NOBODY)
    os.chmod(queues / NAME, 0o604)
    status = os.fstat(queue.mqd)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY, NOBODY, 0o604)


def test_others_may_do_what_the_mode_lets_them(
    queues: Path, queue: posix_ipc.MessageQueue, children: Callable[..., Child]
) -> None:
    path = queues / NAME
    queue.send(b"x")

    def try_all() -> tuple[str, str, str, str, int]:
        return (
            refused(path.read_bytes),
            refused(lambda: write(path, b"x")),
            refused(path.unlink),
            refused(lambda: path.chmod(0o666)),
            path.stat().st_size,
        )

    assert children(try_all, NOBODY).result() == ("EACCES", "EACCES", "EPERM", "EPERM", 0)
    os.chmod(path, 0o606)
    assert children(try_all, NOBODY).result() == ("", "", "EPERM", "EPERM", 2)


def test_a_truncation_to_nothing_takes_nothing(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    queue.send(b"x")
    os.truncate(queues / NAME, 0)
    assert queue.current_messages == 1
    assert refused(lambda: os.truncate(queues / NAME, 5)) == "EINVAL"


def test_a_blocked_reader_and_a_blocked_writer_wait_and_block_nobody(
    mount: Mount, queues: Path, queue: posix_ipc.MessageQueue, children: Callable[..., Child]
) -> None:
    path = queues / NAME

    def receive() -> bytes:
        fd = os.open(path, os.O_RDWR)
        return os.read(fd, 64)

    reader = blocked(mount, children(receive))
    write(path, b"hello")
    assert reader.result() == b"hello"
    for _ in range(2):
        queue.send(b"old")
    writer = blocked(mount, children(lambda: write(path, b"new")))
    assert refused(lambda: write(path, b"new", os.O_NONBLOCK)) == "EAGAIN"
    queue.receive()
    assert writer.result() == 3
    assert [queue.receive()[0], queue.receive()[0]] == [b"old", b"new"]


def test_who_is_interrupted_or_killed_at_a_file_has_taken_nothing(
    mount: Mount, queues: Path, queue: posix_ipc.MessageQueue, children: Callable[..., Child]
) -> None:
    def receive() -> int:
        buffer = ctypes.create_string_buffer(64)
        libc.read(os.open(queues / NAME, os.O_RDWR), buffer, 64)  # os.read would hide EINTR
        return ctypes.get_errno()

    readers = [blocked(mount, children(receive)) for _ in range(2)]
    readers[0].interrupt()
    assert readers[0].result() == errno.EINTR
    readers[1].kill()
    wait_until(lambda: mount.blocked_callers() == 0, "nobody is blocked")
    queue.send(b"still here")
    assert queue.current_messages == 1


def test_poll_tells_when_a_queue_can_be_read_and_written(queues: Path, queue: posix_ipc.MessageQueue) -> None:
    fd = os.open(queues / NAME, os.O_RDWR)
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    assert poll.poll(0) == [(fd, select.POLLOUT)]
    queue.send(b"x")
    assert poll.poll(5000) == [(fd, select.POLLIN | select.POLLOUT)]
    queue.send(b"x")
    assert poll.poll(5000) == [(fd, select.POLLIN)]
    os.close(fd)


@pytest.mark.parametrize("object", ["queue", "semaphore"])
def test_touch_sets_the_times_that_native_programs_see(
    object: str, queues: Path, semaphores: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(object)
    path = (queues if object == "queue" else semaphores) / NAME
    assert shell(f"touch -m -d @1000000000 {NAME} && touch -a -d @999999999 {NAME}", path.parent).stderr == ""
    assert path.stat().st_mtime == 1_000_000_000
    if object == "semaphore":  # the host takes a look at a queue's size for an access
        assert path.stat().st_atime == path.stat().st_atime == 999_999_999
        assert os.stat(f"/dev/shm/sem.{NAME}").st_mtime == 1_000_000_000
    assert shell(f"touch {NAME}", path.parent).stderr == ""
    assert path.stat().st_mtime > 1_000_000_001


# --- semaphores


def test_a_semaphore_of_a_native_program_is_a_file_that_shows_its_value(
    semaphores: Path, semaphore: posix_ipc.Semaphore
) -> None:
    path = semaphores / NAME
    assert NAME in os.listdir(semaphores)
    assert path.read_text() == "1\n"
    assert (path.stat().st_mode & 0o777, path.stat().st_size, os.getxattr(path, "user.value")) == (0o640, 2, b"1")
    semaphore.unlink()
    assert NAME not in os.listdir(semaphores)


@pytest.mark.parametrize(("written", "expected"), [("+1", 2), ("-1", 0), ("+5", 6), ("+3\n-2", 2), ("", 1), ("+0", 1)])
def test_a_line_gives_or_takes(semaphores: Path, semaphore: posix_ipc.Semaphore, written: str, expected: int) -> None:
    assert shell(f"echo '{written}' > {NAME}", semaphores).stderr == ""
    assert semaphore.value == expected


@pytest.mark.parametrize("written", ["1", "5", "x", "+", "+1 +1", "--1", "+1\nx"])
def test_a_line_that_means_nothing_is_einval_and_changes_nothing(
    semaphores: Path, semaphore: posix_ipc.Semaphore, written: str
) -> None:
    assert refused(lambda: write(semaphores / NAME, written.encode())) == "EINVAL"
    assert semaphore.value == 1


@pytest.mark.parametrize(("command", "expected"), [(f"echo 3 > {NAME}", 3), (f": > {NAME}", 0), (f"touch {NAME}", 0)])
def test_creating_a_file_makes_a_semaphore_with_the_value_written(
    semaphores: Path, command: str, expected: int
) -> None:
    assert shell(f"umask 027; {command}", semaphores).stderr == ""
    made = posix_ipc.Semaphore(f"/{NAME}")
    assert made.value == expected
    made.close()
    assert (semaphores / NAME).stat().st_mode & 0o777 == 0o640
    assert "Invalid argument" in shell(f"echo 3 > {NAME}", semaphores).stderr
    assert shell(f"rm {NAME}", semaphores).returncode == 0
    assert NAME not in os.listdir(semaphores)


def test_taking_waits_until_somebody_gives(
    mount: Mount, semaphores: Path, semaphore: posix_ipc.Semaphore, children: Callable[..., Child]
) -> None:
    path = semaphores / NAME
    taker = blocked(mount, children(lambda: write(path, b"-3\n")))
    assert semaphore.value == 0
    write(path, b"+1\n")
    semaphore.release()
    assert taker.result() == 3
    assert semaphore.value == 0
    assert refused(lambda: write(path, b"-1\n", os.O_NONBLOCK)) == "EAGAIN"


def test_who_is_killed_before_all_was_taken_gives_back_what_was(
    mount: Mount, semaphores: Path, semaphore: posix_ipc.Semaphore, children: Callable[..., Child]
) -> None:
    taker = blocked(mount, children(lambda: write(semaphores / NAME, b"-3\n")))
    taker.kill()
    wait_until(lambda: semaphore.value == 1, "what was taken is given back")
    wait_until(lambda: mount.blocked_callers() == 0, "nobody is blocked")


def test_others_may_do_to_a_semaphore_what_the_mode_lets_them(
    semaphores: Path, semaphore: posix_ipc.Semaphore, children: Callable[..., Child]
) -> None:
    path = semaphores / NAME

    def try_all() -> tuple[str, ...]:
        return (
            refused(path.read_bytes),
            refused(lambda: write(path, b"+1\n")),
            refused(path.unlink),
            refused(lambda: path.chmod(0o666)),
        )

    assert children(try_all, NOBODY).result() == ("EACCES", "EACCES", "EPERM", "EPERM")
    os.chmod(path, 0o606)
    assert children(try_all, NOBODY).result() == ("", "", "EPERM", "EPERM")
    assert semaphore.value == 2
    os.chown(path, NOBODY, NOBODY)
    assert children(try_all, NOBODY).result() == ("", "", "", "ENOENT")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_semaphore_in_dev_shm_is_no_file_here(semaphores: Path, make: Callable[[str], None]) -> None:
    path = f"/dev/shm/sem.{NAME}"
    make(path)
    try:
        assert refused(lambda: os.stat(semaphores / NAME)) == "ENOENT"
        assert NAME not in [entry.name for entry in os.scandir(semaphores) if entry.is_file()]
    finally:
        (os.rmdir if os.path.isdir(path) else os.unlink)(path)


def test_a_name_that_is_no_text_is_a_name_as_any_other(mount: Mount, queues: Path, semaphores: Path) -> None:
    name = b"/synosfs-\xff\n-test"
    door = MountDoor(mount, "msgpack")
    try:
        for call, flags in (("mq_open", "O_CREAT|O_RDWR"), ("sem_open", "O_CREAT"), ("shm_open", "O_CREAT|O_RDWR")):
            fd = door.ok(call, name, flags, 0o600).ret
            assert door.call(call, name, f"{flags}|O_EXCL", 0o600).errno == "EEXIST"
            assert os.readlink(mount.path / f"proc/{os.getpid()}/fd/{fd}")
            assert len((mount.path / f"proc/{os.getpid()}/fds").read_text().splitlines()) == 5
            door.ok("close", fd)
        assert os.listdir(os.fsencode(queues)) == [name[1:]]
        assert name[1:] in os.listdir(os.fsencode(semaphores))
        for directory in (queues, semaphores):
            assert os.stat(os.fsencode(directory) + name).st_mode & 0o777 == 0o600
            os.unlink(os.fsencode(directory) + name)
        assert os.listdir(queues) == []
    finally:
        door.close()
        unlink_all(name)
