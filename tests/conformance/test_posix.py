"""POSIX semaphores and shared memory: sem_open and its kin, shm_open, ftruncate."""

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


# --- shm_open, shm_unlink, ftruncate


@pytest.fixture
def memory(door: Door, fds: Descriptors, posix_names: Callable[[bytes], bytes]) -> int:
    """A new object of root's, mode 0600, open for both."""
    return fds.call("shm_open", posix_names(NAME), "O_CREAT|O_EXCL|O_RDWR", 0o600)


@pytest.mark.parametrize(
    ("name", "errno"),
    [
        (b"/", "EINVAL"),
        (b"", "EINVAL"),
        (b"/a/b", "EINVAL"),
        (b"/" + b"n" * 256, "ENAMETOOLONG"),
        (b"/synosfs-none", "ENOENT"),
    ],
)
@pytest.mark.parametrize("call", ["shm_open", "shm_unlink"])
def test_a_name_of_memory_is_a_leading_slash_and_up_to_255_other_bytes(
    door: Door, name: bytes, errno: str, call: str
) -> None:
    # glibc's shm_unlink takes a name that is none for one that does not exist.
    expected = "ENOENT" if (call, errno) == ("shm_unlink", "EINVAL") else errno
    assert door.call(call, name).errno == expected


def test_shm_open_exclusive_on_an_existing_name_is_eexist(door: Door, memory: int) -> None:
    assert door.call("shm_open", NAME, "O_CREAT|O_EXCL|O_RDWR", 0o600).errno == "EEXIST"


def test_new_memory_has_the_size_0_the_lowest_descriptor_and_close_on_exec(
    door: Door, fds: Descriptors, memory: int
) -> None:
    assert SHM_FILE.stat().st_size == 0
    assert door.ok("fcntl", memory, "F_GETFD").ret == 1
    low = fds.call("shm_open", NAME, "O_RDONLY")
    fds.close(low)
    assert fds.call("shm_open", NAME, "O_RDONLY") == low


def test_the_mode_of_new_memory_is_what_the_umask_leaves(door: Door, posix_names: Callable) -> None:
    def create() -> None:
        os.umask(0o027)
        door.ok("shm_open", NAME, "O_CREAT|O_RDWR", 0o666)

    posix_names(NAME)
    door.spawn(create).result()
    assert SHM_FILE.stat().st_mode & 0o777 == 0o640


def test_what_is_written_is_read_natively_and_by_others(door: Door, fds: Descriptors, memory: int) -> None:
    door.ok("ftruncate", memory, 100)
    assert door.ok("pwrite64", memory, b"hello", 50).ret == 5
    assert SHM_FILE.read_bytes() == bytes(50) + b"hello" + bytes(45)
    other = fds.call("shm_open", NAME, "O_RDONLY")
    assert door.ok("lseek", other, 48, "SEEK_SET").ret == 48
    assert door.ok("read", other, 10).data == b"\0\0hello\0\0\0"
    assert door.ok("pread64", other, 10, 98).data == b"\0\0"


def test_reading_and_writing_move_one_offset_that_lseek_sets(door: Door, fds: Descriptors, memory: int) -> None:
    door.ok("ftruncate", memory, 8)
    assert door.ok("write", memory, b"hello").ret == 5
    assert door.ok("read", memory, 10).data == bytes(3)
    assert door.ok("read", memory, 10).data == b""
    assert door.ok("lseek", memory, -7, "SEEK_CUR").ret == 1
    assert door.ok("read", fds.keep(door.ok("dup", memory).ret), 2).data == b"el"
    assert door.ok("pwrite64", memory, b"X", 0).ret == 1
    assert door.ok("lseek", memory, 0, "SEEK_CUR").ret == 3
    assert door.ok("lseek", memory, 2, "SEEK_END").ret == 10
    assert door.ok("write", memory, b"!").ret == 1
    assert SHM_FILE.read_bytes() == b"Xello" + bytes(5) + b"!"
    assert door.call("lseek", memory, -1, "SEEK_SET").errno == "EINVAL"


def test_ftruncate_grows_with_zeros_and_shrinks(door: Door, memory: int) -> None:
    door.ok("write", memory, b"hello")
    for length, contents in ((8, b"hello\0\0\0"), (2, b"he"), (4, b"he\0\0"), (0, b"")):
        assert door.ok("ftruncate", memory, length).ret == 0
        assert SHM_FILE.read_bytes() == contents


def test_ftruncate_below_0_or_of_what_is_not_open_for_writing_is_einval(
    door: Door, fds: Descriptors, memory: int
) -> None:
    assert door.call("ftruncate", memory, -1).errno == "EINVAL"
    assert door.call("ftruncate", fds.call("shm_open", NAME, "O_RDONLY"), 0).errno == "EINVAL"
    assert door.call("ftruncate", fds.pipe()[1], 0).errno == "EINVAL"
    assert door.call("ftruncate", 999, 0).errno == "EBADF"


@pytest.mark.parametrize(("flags", "call"), [("O_RDONLY", ("write", b"x")), ("O_RDWR", ("read", 1))])
def test_memory_is_for_what_it_was_opened_for(
    door: Door, fds: Descriptors, memory: int, flags: str, call: tuple
) -> None:
    fd = fds.call("shm_open", NAME, flags)
    assert door.call(call[0], fd, *call[1:]).errno == ("EBADF" if flags == "O_RDONLY" else "")


def test_o_trunc_empties_and_keeps_owner_and_mode(door: Door, fds: Descriptors, memory: int) -> None:
    door.ok("write", memory, b"hello")
    os.chown(SHM_FILE, NOBODY, NOBODY)
    fds.call("shm_open", NAME, "O_CREAT|O_RDWR|O_TRUNC", 0o666)
    status = SHM_FILE.stat()
    assert (status.st_size, status.st_uid, status.st_mode & 0o777) == (0, NOBODY, 0o600)


@pytest.mark.parametrize(("mode", "flags", "errno"), [(0o600, "O_RDONLY", "EACCES"), (0o604, "O_RDONLY", "")])
def test_shm_open_needs_the_permission_that_it_asks_for(
    door: Door, memory: int, mode: int, flags: str, errno: str
) -> None:
    SHM_FILE.chmod(mode)
    assert door.call_as(NOBODY, "shm_open", NAME, flags).errno == errno
    assert door.call_as(NOBODY, "shm_open", NAME, "O_RDWR").errno == "EACCES"


def test_unlinking_keeps_the_memory_for_who_has_it(door: Door, fds: Descriptors, memory: int) -> None:
    door.ok("write", memory, b"kept")
    door.ok("shm_unlink", NAME)
    assert door.call("shm_open", NAME, "O_RDONLY").errno == "ENOENT"
    new = fds.call("shm_open", NAME, "O_CREAT|O_EXCL|O_RDWR", 0o600)
    assert door.ok("pread64", new, 10, 0).data == b""
    assert door.ok("pread64", memory, 10, 0).data == b"kept"
