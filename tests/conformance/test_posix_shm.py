"""POSIX shared memory: shm_open, shm_unlink, ftruncate, and a file's calls on what was opened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from doors import NOBODY, Door
from opened import Descriptors

#: Nobody else's: /dev/shm is in no IPC namespace.
NAME = b"/synosfs-test-%d" % os.getpid()
SHM_FILE = Path(f"/dev/shm/{NAME[1:].decode()}")


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


@pytest.mark.parametrize("length", [256, 300, 5000])
def test_a_name_of_memory_that_is_far_too_long_is_none(door: Door, length: int) -> None:
    name = b"/" + b"n" * length
    assert door.call("shm_open", name).errno == ("ENAMETOOLONG" if length == 256 else "EINVAL")
    assert door.call("shm_unlink", name).errno == ("ENAMETOOLONG" if length == 256 else "ENOENT")


def test_shm_unlink_by_another_user_is_eacces(door: Door, memory: int) -> None:
    """/dev/shm is sticky and says EPERM; glibc makes EACCES of it."""
    assert door.call_as(NOBODY, "shm_unlink", NAME).errno == "EACCES"


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
