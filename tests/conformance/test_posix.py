"""POSIX semaphores: sem_open and its kin; and what, among names in /dev/shm, is neither semaphore nor memory."""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doors import NOBODY, Door
from opened import Descriptors

#: Nobody else's: /dev/shm is in no IPC namespace.
NAME = b"/synosfs-test-%d" % os.getpid()
CREATE = "O_CREAT|O_EXCL"
SEM_VALUE_MAX = 0x7FFFFFFF
SEM_FILE = Path(f"/dev/shm/sem.{NAME[1:].decode()}")
SHM_FILE = Path(f"/dev/shm/{NAME[1:].decode()}")

NO_POINTERS = "its semaphore is an address, which has to be right"


@pytest.fixture
def open_semaphore(door: Door, posix_names: Callable[[bytes], bytes]) -> Iterator[Callable[..., int]]:
    """Opens NAME and closes it at the end: ``open_semaphore(CREATE, 0o600, 3)``."""
    opened = []

    def open_(*arguments: int | str) -> int:
        opened.append(door.ok("sem_open", posix_names(NAME), *arguments).ret)
        return opened[-1]

    yield open_
    for sem in opened:
        door.ok("sem_close", sem)


@pytest.fixture
def sem(open_semaphore: Callable[..., int]) -> int:
    """A semaphore of root's, mode 0600, with the value 0."""
    return open_semaphore(CREATE, 0o600, 0)


def value(door: Door, sem: int) -> int:
    return door.ok("sem_getvalue", sem).ret


# --- sem_open


@pytest.mark.parametrize(
    ("name", "errno"),
    [
        (b"/", "EINVAL"),
        (b"", "EINVAL"),
        (b"/a/b", "EINVAL"),
        (b"/" + b"n" * 252, "ENAMETOOLONG"),
        (b"/synosfs-none", "ENOENT"),
    ],
)
def test_a_name_is_a_leading_slash_and_up_to_251_other_bytes(door: Door, name: bytes, errno: str) -> None:
    assert door.call("sem_open", name).errno == errno
    if errno != "ENOENT":
        assert door.call("sem_open", name, CREATE, 0o600).errno == errno


@pytest.mark.parametrize(
    ("length", "opened", "unlinked"),
    [
        (251, "ENOENT", "ENOENT"),
        (252, "ENAMETOOLONG", "ENAMETOOLONG"),
        (255, "ENAMETOOLONG", "ENAMETOOLONG"),
        (256, "EINVAL", "ENOENT"),
        (5000, "EINVAL", "ENOENT"),
    ],
)
def test_a_name_that_is_far_too_long_is_none(door: Door, length: int, opened: str, unlinked: str) -> None:
    name = b"/" + b"n" * length
    assert door.call("sem_open", name).errno == opened
    assert door.call("sem_unlink", name).errno == unlinked


@pytest.mark.parametrize("name", [b"", b"/", b"/a/b", b"/synosfs-none"])
def test_sem_unlink_of_what_is_no_name_is_enoent(door: Door, name: bytes) -> None:
    assert door.call("sem_unlink", name).errno == "ENOENT"


@pytest.mark.parametrize("file", [SEM_FILE, SHM_FILE])
@pytest.mark.parametrize(
    ("make", "semaphore", "memory"),
    [
        (os.mkfifo, "ENODEV", ""),
        (os.mkdir, "EISDIR", "EINVAL"),
        (lambda path: os.symlink("/dev/shm/synosfs-none", path), "ELOOP", "ELOOP"),
        (lambda path: os.mknod(path, 0o140600), "ENXIO", "ENXIO"),
    ],
)
def test_what_is_no_file_is_neither_semaphore_nor_memory(
    door: Door, fds: Descriptors, file: Path, make: Callable[[Path], None], semaphore: str, memory: str
) -> None:
    make(file)
    call, expected = ("sem_open", semaphore) if file == SEM_FILE else ("shm_open", memory)
    try:
        opened = door.call(call, NAME, "O_RDWR")
        assert opened.errno == expected
        if not expected:
            fds.close(fds.keep(opened.ret))
        assert door.call(call, NAME, "O_CREAT|O_EXCL|O_RDWR", 0o600).errno == "EEXIST"
        unlink = call.replace("open", "unlink")
        assert door.call_as(NOBODY, unlink, NAME).errno == "EACCES"
        assert door.call(unlink, NAME).errno == ("EISDIR" if file.is_dir() and not file.is_symlink() else "")
    finally:
        if os.path.lexists(file):
            (os.rmdir if file.is_dir() and not file.is_symlink() else os.unlink)(file)


@pytest.mark.parametrize("name", [NAME[1:], b"/" + NAME])
def test_glibc_takes_any_number_of_leading_slashes(door: Door, sem: int, name: bytes) -> None:
    other = door.ok("sem_open", name).ret
    door.ok("sem_post", other)
    assert value(door, sem) == 1
    door.ok("sem_close", other)


def test_sem_open_exclusive_on_an_existing_name_is_eexist(door: Door, sem: int) -> None:
    assert door.call("sem_open", NAME, CREATE, 0o600, 1).errno == "EEXIST"


def test_sem_open_finds_what_has_the_name_and_keeps_its_value(
    door: Door, sem: int, open_semaphore: Callable[..., int]
) -> None:
    assert value(door, open_semaphore("O_CREAT", 0o666, 7)) == 0


@pytest.mark.parametrize(("initial", "errno"), [(0, ""), (SEM_VALUE_MAX, ""), (SEM_VALUE_MAX + 1, "EINVAL")])
def test_the_initial_value_is_at_most_sem_value_max(
    door: Door, posix_names: Callable, initial: int, errno: str
) -> None:
    opened = door.call("sem_open", posix_names(NAME), CREATE, 0o600, initial)
    assert opened.errno == errno
    if not errno:
        assert value(door, opened.ret) == initial
        door.ok("sem_close", opened.ret)


@pytest.mark.parametrize(("mode", "errno"), [(0o600, "EACCES"), (0o604, "EACCES"), (0o602, "EACCES"), (0o606, "")])
def test_sem_open_needs_read_and_write_permission(door: Door, posix_names: Callable, mode: int, errno: str) -> None:
    def create() -> None:
        os.umask(0)
        door.ok("sem_open", NAME, CREATE, mode)

    posix_names(NAME)
    door.spawn(create).result()
    assert door.call_as(NOBODY, "sem_open", NAME).errno == errno


def test_the_mode_of_a_new_semaphore_is_what_the_umask_leaves(door: Door, posix_names: Callable) -> None:
    def create() -> None:
        os.umask(0o027)
        door.ok("sem_open", NAME, CREATE, 0o666)

    posix_names(NAME)
    door.spawn(create).result()
    assert SEM_FILE.stat().st_mode & 0o777 == 0o640


@pytest.mark.not_for(native=NO_POINTERS)
@pytest.mark.parametrize("call", ["sem_post", "sem_wait", "sem_trywait", "sem_getvalue", "sem_timedwait", "sem_close"])
def test_what_is_no_open_semaphore_is_ebadf(door: Door, fds: Descriptors, call: str) -> None:
    read, _ = fds.pipe()
    assert door.call(call, 999).errno == "EBADF"
    assert door.call(call, read).errno == "EBADF"


# --- sem_post, sem_wait, sem_trywait, sem_getvalue


def test_posting_gives_and_waiting_takes(door: Door, sem: int) -> None:
    for expected in (1, 2):
        assert door.ok("sem_post", sem).ret == 0
        assert value(door, sem) == expected
    assert door.ok("sem_wait", sem).ret == 0
    assert door.ok("sem_trywait", sem).ret == 0
    assert value(door, sem) == 0


def test_trywait_at_0_is_eagain(door: Door, sem: int) -> None:
    assert door.call("sem_trywait", sem).errno == "EAGAIN"


def test_post_at_the_maximum_is_eoverflow(door: Door, open_semaphore: Callable[..., int]) -> None:
    sem = open_semaphore(CREATE, 0o600, SEM_VALUE_MAX)
    assert door.call("sem_post", sem).errno == "EOVERFLOW"
    assert value(door, sem) == SEM_VALUE_MAX


def test_timedwait_never_times_out_when_it_could_be_had_at_once(door: Door, sem: int) -> None:
    door.ok("sem_post", sem)
    assert door.ok("sem_timedwait", sem, abs_sec=1).ret == 0
    assert door.call("sem_timedwait", sem, abs_sec=1).errno == "ETIMEDOUT"
    assert door.call("sem_timedwait", sem, abs_sec=-1).errno == "ETIMEDOUT"


@pytest.mark.parametrize("nanoseconds", [-1, 10**9])
def test_nanoseconds_that_are_none_are_einval_whether_it_would_wait_or_not(
    door: Door, sem: int, nanoseconds: int
) -> None:
    """sem_wait(3) says only when it would wait; glibc looks at the time first."""
    assert door.call("sem_timedwait", sem, abs_nsec=nanoseconds).errno == "EINVAL"
    door.ok("sem_post", sem)
    assert door.call("sem_timedwait", sem, abs_nsec=nanoseconds).errno == "EINVAL"
    assert value(door, sem) == 1


def test_timedwait_waits_until_its_time(door: Door, sem: int) -> None:
    until = int(time.time()) + 1
    assert door.call("sem_timedwait", sem, abs_sec=until, abs_nsec=50_000_000).errno == "ETIMEDOUT"
    assert time.time() >= until + 0.05


# --- waiting


@pytest.mark.parametrize("call", ["sem_wait", "sem_timedwait"])
def test_a_post_wakes_who_waits(door: Door, sem: int, call: str) -> None:
    waiter = door.block(call, sem, **({"abs_sec": int(time.time()) + 60} if call == "sem_timedwait" else {}))
    assert value(door, sem) == 0
    door.ok("sem_post", sem)
    assert waiter.result().ret == 0
    assert value(door, sem) == 0


def test_native_programs_wake_and_are_woken(door: Door, native: Door, sem: int) -> None:
    other = native.ok("sem_open", NAME).ret
    waiter = door.block("sem_wait", sem)
    native.ok("sem_post", other)
    assert waiter.result().ret == 0
    waiter = native.block("sem_wait", other)
    door.ok("sem_post", sem)
    assert waiter.result().ret == 0
    assert value(door, sem) == native.ok("sem_getvalue", other).ret == 0
    native.ok("sem_close", other)


def test_each_post_wakes_one(door: Door, sem: int) -> None:
    waiters = [door.block("sem_wait", sem) for _ in range(3)]
    for _ in waiters:
        door.ok("sem_post", sem)
    assert [waiter.result().ret for waiter in waiters] == [0, 0, 0]
    assert value(door, sem) == 0


def test_who_holds_a_lock_keeps_all_others_out(door: Door, sem: int) -> None:
    door.ok("sem_post", sem)
    counter = mmap.mmap(-1, 8)

    def count() -> None:
        for _ in range(50):
            door.ok("sem_wait", sem)
            counter[:] = (int.from_bytes(counter[:], "big") + 1).to_bytes(8, "big")
            door.ok("sem_post", sem)

    counters = [door.spawn(count) for _ in range(4)]
    for child in counters:
        child.result()
    assert int.from_bytes(counter[:], "big") == 200


@pytest.mark.parametrize("call", ["sem_wait", "sem_timedwait"])
def test_a_signal_ends_a_wait_with_eintr_and_nothing_was_taken(door: Door, sem: int, call: str) -> None:
    waiter = door.block(call, sem, **({"abs_sec": int(time.time()) + 60} if call == "sem_timedwait" else {}))
    waiter.interrupt()
    assert waiter.result().errno == "EINTR"
    door.ok("sem_post", sem)
    assert value(door, sem) == 1


def test_who_is_killed_while_waiting_takes_nothing(door: Door, sem: int) -> None:
    waiter = door.block("sem_wait", sem)
    waiter.kill()
    door.end_children()
    door.ok("sem_post", sem)
    assert value(door, sem) == 1


def test_a_time_out_ends_a_wait(door: Door, sem: int) -> None:
    assert door.call("sem_timedwait", sem, timeout=0.05).errno == "ETIMEDOUT"
    door.ok("sem_post", sem)
    assert door.ok("sem_timedwait", sem, timeout=0).ret == 0


# --- sem_unlink, sem_close


def test_unlinking_frees_the_name_and_old_users_go_on(door: Door, sem: int, open_semaphore: Callable[..., int]) -> None:
    waiter = door.block("sem_wait", sem)
    door.ok("sem_unlink", NAME)
    assert door.call("sem_open", NAME).errno == "ENOENT"
    new = open_semaphore(CREATE, 0o600, 5)
    assert waiter.is_blocked()
    door.ok("sem_post", sem)
    assert waiter.result().ret == 0
    assert (value(door, sem), value(door, new)) == (0, 5)


def test_sem_unlink_by_another_user_is_eacces(door: Door, sem: int) -> None:
    """/dev/shm is sticky and says EPERM; glibc makes EACCES of it."""
    assert door.call_as(NOBODY, "sem_unlink", NAME).errno == "EACCES"


def test_the_value_stays_when_nobody_has_it_open(door: Door, posix_names: Callable) -> None:
    sem = door.ok("sem_open", posix_names(NAME), CREATE, 0o600, 3).ret
    door.ok("sem_close", sem)
    sem = door.ok("sem_open", NAME).ret
    assert value(door, sem) == 3
    door.ok("sem_close", sem)
