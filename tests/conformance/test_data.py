"""What is in files, by descriptor: vectors, holes, seals, sizes, and what the calls say of things that are no files."""

import errno
import os
from pathlib import Path

import pytest
from doors import Door
from opened import Descriptors


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "file")


@pytest.fixture
def file(fds: Descriptors, path: bytes) -> int:
    """A file of 12 bytes, open read-write; it stands at its beginning."""
    fd = fds.call("open", path, "O_RDWR|O_CREAT", "0600")
    fds.door.ok("write", fd, b"hello, world")
    fds.door.ok("lseek", fd, 0, "SEEK_SET")
    return fd


# --- vectors


def test_readv_reads_as_much_as_its_buffers_hold(door: Door, file: int) -> None:
    assert door.ok("readv", file, 5, 0, 3).data == b"hello, w"
    assert door.ok("readv", file, 100).data == b"orld"
    assert door.ok("readv", file, 100).data == b""


def test_writev_writes_its_pieces_in_order(door: Door, file: int, path: bytes) -> None:
    assert door.ok("writev", file, b"HE", b"", b"LLO!").ret == 6
    assert Path(os.fsdecode(path)).read_bytes() == b"HELLO! world"


def test_preadv_and_pwritev_leave_the_offset(door: Door, file: int) -> None:
    assert door.ok("preadv", file, 2, 3, offset=7).data == b"world"
    assert door.ok("pwritev", file, b"W", b"O", offset=7).ret == 2
    assert door.ok("read", file, 100).data == b"hello, WOrld"


def test_preadv2_without_an_offset_moves_the_files_own(door: Door, file: int) -> None:
    assert door.ok("preadv2", file, 5, offset=-1).data == b"hello"
    assert door.ok("preadv2", file, 2, offset=0).data == b"he"
    assert door.ok("preadv2", file, 100, offset=-1).data == b", world"


def test_pwritev2_appends_where_it_is_told(door: Door, file: int, path: bytes) -> None:
    assert door.ok("pwritev2", file, b"!", offset=0, flags="RWF_APPEND").ret == 1
    assert Path(os.fsdecode(path)).read_bytes() == b"hello, world!"


def test_readv_of_a_pipe_takes_what_there_is(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("writev", write, b"ab", b"cde")
    assert door.ok("readv", read, 2, 100).data == b"abcde"


@pytest.mark.parametrize(
    ("call", "arguments", "options"),
    [
        ("preadv", (5,), {"offset": -1}),
        ("pwritev", (b"x",), {"offset": -1}),
        ("preadv2", (5,), {"offset": -2}),
        ("pread64", (5, -1), {}),
        ("pwrite64", (b"x", -1), {}),
    ],
)
def test_a_negative_offset_is_einval(door: Door, file: int, call: str, arguments: tuple, options: dict) -> None:
    assert door.call(call, file, *arguments, **options).errno == "EINVAL"


def test_a_pipe_has_no_offset(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    assert door.call("preadv", read, 5, offset=0).errno == "ESPIPE"
    assert door.call("pwritev", write, b"x", offset=0).errno == "ESPIPE"
    assert door.call("pread64", read, 5, 0).errno == "ESPIPE"
    assert door.call("lseek", read, 0, "SEEK_CUR").errno == "ESPIPE"


@pytest.mark.parametrize(
    ("flags", "call", "arguments", "options"),
    [
        ("O_WRONLY", "readv", (5,), {}),
        ("O_WRONLY", "preadv", (5,), {"offset": 0}),
        ("O_WRONLY", "pread64", (5, 0), {}),
        ("O_RDONLY", "writev", (b"x",), {}),
        ("O_RDONLY", "pwritev", (b"x",), {"offset": 0}),
        ("O_RDONLY", "pwrite64", (b"x", 0), {}),
        ("O_RDONLY", "fallocate", (0, 0, 10), {}),
        ("O_RDONLY", "ftruncate", (10,), {}),
    ],
)
def test_the_wrong_access_mode(
    door: Door, fds: Descriptors, file: int, path: bytes, flags: str, call: str, arguments: tuple, options: dict
) -> None:
    fd = fds.call("open", path, flags)
    assert door.call(call, fd, *arguments, **options).errno == ("EINVAL" if call == "ftruncate" else "EBADF")


# --- holes and sizes


def test_seek_data_and_seek_hole_find_them(door: Door, fds: Descriptors) -> None:
    memory = fds.call("memfd_create", b"holes")
    door.ok("ftruncate", memory, 3 << 20)
    door.ok("pwrite64", memory, b"x", 2 << 20)
    assert door.ok("lseek", memory, 0, "SEEK_DATA").ret == 2 << 20
    assert door.ok("lseek", memory, 0, "SEEK_HOLE").ret == 0
    assert door.ok("lseek", memory, 2 << 20, "SEEK_HOLE").ret > 2 << 20
    assert door.call("lseek", memory, 3 << 20, "SEEK_DATA").errno == "ENXIO"
    assert door.call("lseek", memory, -1, "SEEK_DATA").errno == "ENXIO"


def test_fallocate_makes_room_and_holes(door: Door, fds: Descriptors) -> None:
    memory = fds.call("memfd_create", b"room")
    assert door.ok("fallocate", memory, 0, 0, 8192).ret == 0
    assert door.ok("lseek", memory, 0, "SEEK_END").ret == 8192
    door.ok("pwrite64", memory, b"x" * 8192, 0)
    door.ok("fallocate", memory, "FALLOC_FL_KEEP_SIZE", 8192, 8192)
    door.ok("fallocate", memory, "FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE", 0, 4096)
    assert door.ok("pread64", memory, 10, 4091).data == b"\0" * 5 + b"x" * 5
    assert door.ok("lseek", memory, 0, "SEEK_END").ret == 8192


@pytest.mark.parametrize(
    ("mode", "offset", "length", "name"),
    [(0, -1, 10, "EINVAL"), (0, 0, 0, "EINVAL"), ("FALLOC_FL_PUNCH_HOLE", 0, 10, "ENOTSUP")],
)
def test_fallocate_of_what_is_none(door: Door, file: int, mode: int | str, offset: int, length: int, name: str) -> None:
    assert door.call("fallocate", file, mode, offset, length).errno == name


def test_fallocate_of_a_pipe_is_espipe(door: Door, fds: Descriptors) -> None:
    assert door.call("fallocate", fds.pipe()[1], 0, 0, 10).errno == "ESPIPE"


# --- to the disk


def test_a_file_is_flushed(door: Door, file: int) -> None:
    assert [door.ok(call, file).ret for call in ("fsync", "fdatasync", "syncfs")] == [0, 0, 0]
    assert door.ok("sync_file_range", file, 0, 0, "SYNC_FILE_RANGE_WRITE").ret == 0
    assert door.ok("fadvise64", file, 0, 0, "POSIX_FADV_WILLNEED").ret == 0
    assert door.ok("readahead", file, 0, 4096).ret == 0


def test_a_pipe_is_not(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe()
    assert [door.call(call, read).errno for call in ("fsync", "fdatasync")] == ["EINVAL", "EINVAL"]
    assert door.call("fadvise64", read, 0, 0, "POSIX_FADV_NORMAL").errno == "ESPIPE"
    assert door.call("readahead", read, 0, 10).errno == "EINVAL"
    assert door.call("sync_file_range", read, 0, 10).errno == "ESPIPE"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("readv", (5,)),
        ("writev", (b"x",)),
        ("fsync", ()),
        ("fallocate", (0, 0, 1)),
        ("flock", ("LOCK_SH",)),
        ("getdents64", ()),
        ("fcntl", ("F_GETLK", "F_RDLCK")),
        ("splice", (901, 5)),
        ("sendfile", (901, 5)),
        ("timerfd_gettime", ()),
    ],
)
def test_a_number_that_is_not_open_is_ebadf(door: Door, call: str, arguments: tuple) -> None:
    assert door.call(call, 900, *arguments).errno == "EBADF"


# --- memory


def test_memory_is_a_file(door: Door, fds: Descriptors) -> None:
    memory = fds.call("memfd_create", b"name")
    assert door.ok("write", memory, b"data").ret == 4
    assert door.ok("pread64", memory, 10, 0).data == b"data"
    assert door.ok("fcntl", memory, "F_GETFL").ret & os.O_ACCMODE == os.O_RDWR
    assert door.ok("fcntl", memory, "F_GETFD").ret == 0
    assert door.ok("fcntl", fds.call("memfd_create", b"", "MFD_CLOEXEC"), "F_GETFD").ret == 1


def test_seals_hold(door: Door, fds: Descriptors) -> None:
    memory = fds.call("memfd_create", b"sealed", "MFD_ALLOW_SEALING")
    door.ok("write", memory, b"data")
    assert door.ok("fcntl", memory, "F_GET_SEALS").ret == 0
    door.ok("fcntl", memory, "F_ADD_SEALS", "F_SEAL_WRITE|F_SEAL_SHRINK")
    assert door.call("write", memory, b"x").errno == "EPERM"
    assert door.call("ftruncate", memory, 1).errno == "EPERM"
    assert door.ok("fcntl", memory, "F_GET_SEALS").ret == 2 | 8


def test_memory_without_mfd_allow_sealing_is_sealed_against_seals(door: Door, fds: Descriptors) -> None:
    memory = fds.call("memfd_create", b"plain")
    assert door.ok("fcntl", memory, "F_GET_SEALS").ret == 1
    assert door.call("fcntl", memory, "F_ADD_SEALS", "F_SEAL_GROW").errno == "EPERM"


def test_a_name_of_250_bytes_is_einval(door: Door) -> None:
    assert door.call("memfd_create", b"n" * 250).errno == "EINVAL"


def test_a_pipe_has_no_seals(door: Door, fds: Descriptors) -> None:
    assert door.call("fcntl", fds.pipe()[0], "F_GET_SEALS").errno == "EINVAL"


# --- sockets of other types


@pytest.mark.parametrize("type", ["SOCK_SEQPACKET", "SOCK_DGRAM"])
def test_packets_are_read_one_by_one_and_their_rest_is_lost(door: Door, fds: Descriptors, type: str) -> None:
    one, other = fds.sockets(f"{type}|SOCK_NONBLOCK")
    for packet in (b"first", b"second"):
        door.ok("write", one, packet)
    assert door.ok("read", other, 3).data == b"fir"
    assert door.ok("read", other, 100).data == b"second"
    assert door.call("read", other, 100).errno == "EAGAIN"


def test_a_packet_that_is_too_large_is_emsgsize(door: Door, fds: Descriptors) -> None:
    one, _ = fds.sockets("SOCK_SEQPACKET")
    assert door.call("write", one, b"x" * 1_000_000).errno == "EMSGSIZE"


# --- close_range


def test_close_range_closes_what_is_open_there(door: Door, fds: Descriptors) -> None:
    first = fds.call("memfd_create", b"first")
    others = [fds.call("fcntl", first, "F_DUPFD", 100 + number) for number in range(3)]
    assert door.ok("close_range", 101, 4294967295).ret == 0
    fds.open -= set(others[1:])
    assert [door.call("fcntl", fd, "F_GETFD").errno for fd in others] == ["", "EBADF", "EBADF"]


def test_close_range_can_mark_them_instead(door: Door, fds: Descriptors) -> None:
    fd = fds.call("fcntl", fds.call("memfd_create", b"first"), "F_DUPFD", 100)
    assert door.ok("close_range", 100, 200, "CLOSE_RANGE_CLOEXEC").ret == 0
    assert door.ok("fcntl", fd, "F_GETFD").ret == 1


def test_close_range_of_no_range_is_einval(door: Door) -> None:
    assert door.call("close_range", 900, 899).errno == "EINVAL"
    assert door.call("close_range", 900, 901, 8).errno == errno.errorcode[errno.EINVAL]


# --- what is in the page cache, and what is not


def test_a_read_beyond_what_is_cached_goes_on_to_the_end(door: Door, fds: Descriptors, path: bytes) -> None:
    fd = fds.call("open", path, "O_RDWR|O_CREAT", "0600")
    data = os.urandom(1 << 18)
    Path(os.fsdecode(path)).write_bytes(data)
    with open(path, "rb") as native:
        os.fsync(native.fileno())
        os.posix_fadvise(native.fileno(), 1 << 16, 0, os.POSIX_FADV_DONTNEED)
    assert door.ok("read", fd, 1 << 20).data == data
    assert door.ok("lseek", fd, 0, "SEEK_CUR").ret == len(data)
    assert door.ok("read", fd, 1 << 20).data == b""
    assert door.ok("pread64", fd, 100, 1000).data == data[1000:1100]
