"""splice(2), tee(2), sendfile(2), copy_file_range(2): between files, pipes, FIFOs, sockets and memory."""

import os
from pathlib import Path

import pytest
from doors import Door
from opened import Descriptors

DATA = bytes(range(256)) * 256


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    (tmp_path / "file").write_bytes(DATA)
    return os.fsencode(tmp_path / "file")


@pytest.fixture
def file(fds: Descriptors, path: bytes) -> int:
    """64 KiB to read and write."""
    return fds.call("open", path, "O_RDWR")


@pytest.fixture
def target(fds: Descriptors, path: bytes) -> int:
    """An empty file."""
    return fds.call("open", path + b"2", "O_RDWR|O_CREAT", "0600")


def contents(path: bytes) -> bytes:
    return Path(os.fsdecode(path + b"2")).read_bytes()


# --- splice


def test_a_file_goes_through_a_pipe_into_a_file(
    door: Door, fds: Descriptors, file: int, target: int, path: bytes
) -> None:
    read, write = fds.pipe()
    moved = 0
    while (into := door.ok("splice", file, write, 1 << 20).ret) > 0:
        assert door.ok("splice", read, target, 1 << 20).ret == into
        moved += into
    assert moved == len(DATA)
    assert contents(path) == DATA
    assert door.ok("lseek", file, 0, "SEEK_CUR").ret == len(DATA)


def test_offsets_are_answered_and_the_files_own_stay(
    door: Door, fds: Descriptors, file: int, target: int, path: bytes
) -> None:
    read, write = fds.pipe()
    assert door.ok("splice", file, write, 10, off_in=100).results == {"off_in": 110}
    assert door.ok("splice", read, target, 10, off_out=5).results == {"off_out": 15}
    assert contents(path) == bytes(5) + DATA[100:110]
    assert [door.ok("lseek", fd, 0, "SEEK_CUR").ret for fd in (file, target)] == [0, 0]


def test_all_arguments_as_c_has_them(door: Door, fds: Descriptors, file: int, target: int, path: bytes) -> None:
    read, write = fds.pipe()
    assert door.ok("splice", file, 100, write, None, 10, 0).results == {"off_in": 110}
    assert door.ok("splice", read, None, target, 5, 10, "SPLICE_F_MOVE").results == {"off_out": 15}
    assert door.ok("splice", file, None, write, None, 4, 0).results == {}
    assert door.ok("read", read, 10).data == DATA[:4]
    assert door.ok("sendfile", write, file, 250, 6).results == {"offset": 256}
    assert door.ok("sendfile", write, file, None, 6).results == {}
    assert door.ok("read", read, 20).data == DATA[250:256] + DATA[4:10]
    assert door.ok("copy_file_range", file, 0, target, 20, 7, 0).results == {"off_in": 7, "off_out": 27}
    assert contents(path) == bytes(5) + DATA[100:110] + bytes(5) + DATA[:7]


def test_an_empty_pipe_is_waited_for(door: Door, fds: Descriptors, target: int, path: bytes) -> None:
    read, write = fds.pipe()
    waiter = door.block("splice", read, target, 100)
    door.ok("write", write, b"came")
    assert waiter.result().ret == 4
    assert contents(path) == b"came"


def test_a_full_pipe_is_waited_for(door: Door, fds: Descriptors, file: int) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"f" * 65536)
    waiter = door.block("splice", file, write, 100)
    door.ok("read", read, 65536)
    assert waiter.result().ret == 100
    assert door.ok("read", read, 200).data == DATA[:100]


@pytest.mark.parametrize("flags", ["0", "SPLICE_F_NONBLOCK"])
@pytest.mark.parametrize("pipe", ["0", "O_NONBLOCK"])
def test_who_does_not_wait_is_told(door: Door, fds: Descriptors, target: int, file: int, flags: str, pipe: str) -> None:
    if flags == pipe == "0":
        return
    read, write = fds.pipe(pipe)
    assert door.call("splice", read, target, 100, flags).errno == "EAGAIN"
    while door.call("splice", file, write, 1 << 16, "SPLICE_F_NONBLOCK", off_in=0).ret > 0:
        pass
    assert door.call("splice", file, write, 100, flags, off_in=0).errno == "EAGAIN"


def test_the_end_of_a_pipe_and_of_a_file_is_0(door: Door, fds: Descriptors, file: int, target: int) -> None:
    read, write = fds.pipe()
    assert door.ok("splice", file, write, 10, off_in=1 << 20).ret == 0
    fds.close(write)
    assert door.ok("splice", read, target, 10).ret == 0
    assert door.ok("splice", read, target, 0).ret == 0


def test_nobody_reads_is_epipe(door: Door, fds: Descriptors, file: int) -> None:
    read, write = fds.pipe()
    fds.close(read)
    assert door.call("splice", file, write, 10).errno == "EPIPE"


def test_a_pipe_goes_into_a_pipe_and_a_socket(door: Door, fds: Descriptors) -> None:
    first, second, (one, other) = fds.pipe(), fds.pipe(), fds.sockets()
    door.ok("write", first[1], b"along")
    assert door.ok("splice", first[0], second[1], 100).ret == 5
    assert door.ok("splice", second[0], one, 100).ret == 5
    assert door.ok("splice", other, first[1], 100).ret == 5
    assert door.ok("read", first[0], 100).data == b"along"


def test_a_socket_with_nothing_in_it_is_waited_for(door: Door, fds: Descriptors) -> None:
    (read, write), (one, other) = fds.pipe(), fds.sockets()
    waiter = door.block("splice", one, write, 100)
    door.ok("write", other, b"came")
    assert waiter.result().ret == 4
    assert door.ok("read", read, 10).data == b"came"


def test_memory_is_a_file(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    memory = fds.call("memfd_create", b"memory")
    door.ok("write", write, b"data")
    assert door.ok("splice", read, memory, 10).ret == 4
    assert door.ok("splice", memory, write, 10, off_in=0).ret == 4
    assert door.ok("read", read, 10).data == b"data"


@pytest.mark.parametrize(
    ("ends", "options", "name"),
    [
        (("file", "target"), {}, "EINVAL"),
        (("read", "append"), {}, "EINVAL"),
        (("write", "target"), {}, "EBADF"),
        (("file", "read"), {}, "EBADF"),
        (("file", "write"), {"off_out": 0}, "ESPIPE"),
        (("read", "target"), {"off_in": 0}, "ESPIPE"),
        (("file", "write"), {"off_in": -1}, "EINVAL"),
        (("directory", "write"), {}, "EINVAL"),
        (("read", "write"), {}, "EINVAL"),
    ],
)
def test_what_splice_refuses(
    door: Door, fds: Descriptors, file: int, target: int, path: bytes, ends: tuple, options: dict, name: str
) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"data")
    directory = fds.call("open", os.path.dirname(path), "O_RDONLY|O_DIRECTORY")
    append = fds.call("open", path, "O_WRONLY|O_APPEND")
    named = {"file": file, "target": target, "read": read, "write": write, "append": append, "directory": directory}
    assert door.call("splice", *(named[end] for end in ends), 10, **options).errno == name


def test_an_unknown_flag_is_einval(door: Door, fds: Descriptors, file: int) -> None:
    assert door.call("splice", file, fds.pipe()[1], 10, "0x100").errno == "EINVAL"


# --- tee


def test_tee_leaves_the_data(door: Door, fds: Descriptors) -> None:
    first, second = fds.pipe(), fds.pipe()
    door.ok("write", first[1], b"both")
    assert door.ok("tee", first[0], second[1], 100).ret == 4
    assert [door.ok("read", fd, 100).data for fd in (first[0], second[0])] == [b"both", b"both"]
    assert door.call("tee", first[0], second[1], 100, "SPLICE_F_NONBLOCK").errno == "EAGAIN"


def test_tee_waits(door: Door, fds: Descriptors) -> None:
    first, second = fds.pipe(), fds.pipe()
    waiter = door.block("tee", first[0], second[1], 100)
    door.ok("write", first[1], b"both")
    assert waiter.result().ret == 4


def test_tee_wants_two_pipes(door: Door, fds: Descriptors, file: int) -> None:
    read, write = fds.pipe()
    assert door.call("tee", file, write, 10).errno == "EINVAL"
    assert door.call("tee", read, write, 10).errno == "EINVAL"


# --- sendfile


def test_sendfile_copies_all_of_it(door: Door, file: int, target: int, path: bytes) -> None:
    assert door.ok("sendfile", target, file, 1 << 20).ret == len(DATA)
    assert contents(path) == DATA
    assert door.ok("sendfile", target, file, 100).ret == 0


def test_sendfile_from_an_offset(door: Door, fds: Descriptors, file: int) -> None:
    read, write = fds.pipe()
    answer = door.ok("sendfile", write, file, 10, offset=250)
    assert (answer.ret, answer.results) == (10, {"offset": 260})
    assert door.ok("read", read, 100).data == DATA[250:260]
    assert door.ok("lseek", file, 0, "SEEK_CUR").ret == 0


def test_sendfile_into_a_socket(door: Door, fds: Descriptors, file: int) -> None:
    one, other = fds.sockets()
    assert door.ok("sendfile", one, file, 1000).ret == 1000
    assert door.ok("read", other, 2000).data == DATA[:1000]


def test_sendfile_into_a_pipe_ends_when_it_is_full(door: Door, fds: Descriptors, file: int, path: bytes) -> None:
    with open(path, "ab") as more:
        more.write(DATA)
    read, write = fds.pipe()
    assert door.ok("sendfile", write, file, 1 << 20).ret == 65536
    waiter = door.block("sendfile", write, file, 1 << 20)
    door.ok("read", read, 4096)
    assert waiter.result().ret == 4096


@pytest.mark.parametrize(("source", "into"), [("read", "target"), ("socket", "target"), ("file", "append")])
def test_what_sendfile_refuses(
    door: Door, fds: Descriptors, file: int, target: int, path: bytes, source: str, into: str
) -> None:
    named = {"file": file, "target": target, "read": fds.pipe()[0], "socket": fds.sockets()[0]}
    named["append"] = fds.call("open", path, "O_WRONLY|O_APPEND")
    assert door.call("sendfile", named[into], named[source], 10).errno == "EINVAL"


# --- copy_file_range


def test_copy_file_range_copies_and_moves_both(door: Door, file: int, target: int, path: bytes) -> None:
    assert door.ok("copy_file_range", file, target, 1000).ret == 1000
    answer = door.ok("copy_file_range", file, target, 1 << 20, off_in=0, off_out=1000)
    assert (answer.ret, answer.results) == (len(DATA), {"off_in": len(DATA), "off_out": 1000 + len(DATA)})
    assert contents(path) == DATA[:1000] + DATA
    assert [door.ok("lseek", fd, 0, "SEEK_CUR").ret for fd in (file, target)] == [1000, 1000]


@pytest.mark.parametrize(
    ("ends", "options", "name"),
    [
        (("file", "write"), {}, "EINVAL"),
        (("file", "file"), {"off_in": 0, "off_out": 5}, "EINVAL"),
        (("file", "append"), {}, "EBADF"),
        (("file", "directory"), {}, "EISDIR"),
        (("file", "memory"), {}, "EXDEV"),
        (("file", "target"), {"flags": 1}, "EINVAL"),
    ],
)
def test_what_copy_file_range_refuses(
    door: Door, fds: Descriptors, file: int, target: int, path: bytes, ends: tuple, options: dict, name: str
) -> None:
    directory = fds.call("open", os.path.dirname(path), "O_RDONLY|O_DIRECTORY")
    append = fds.call("open", path, "O_WRONLY|O_APPEND")
    named = {"file": file, "target": target, "write": fds.pipe()[1], "append": append, "directory": directory}
    named["memory"] = fds.call("memfd_create", b"memory")
    assert door.call("copy_file_range", *(named[end] for end in ends), 10, **options).errno == name


# --- what a pipe is afterwards


def test_a_pipe_that_was_in_a_splice_goes_on_as_before(door: Door, fds: Descriptors, file: int) -> None:
    read, write = fds.pipe()
    door.ok("splice", file, write, 10)
    assert door.ok("read", read, 10).data == DATA[:10]
    reader = door.block("read", read, 10)
    door.ok("write", write, b"more")
    assert reader.result().data == b"more"
    assert door.ok("fcntl", read, "F_GETPIPE_SZ").ret == 65536
    assert door.ok("ioctl", read, "FIONREAD").results == {"value": 0}
    assert door.ok("poll", (write, "POLLOUT")).ret == 1
    door.ok("write", write, b"last")
    fds.close(write)
    assert [door.ok("read", read, 10).data for _ in range(2)] == [b"last", b""]


def test_a_reader_that_waits_when_its_pipe_is_set_apart_is_served(door: Door, fds: Descriptors, file: int) -> None:
    read, write = fds.pipe()
    reader = door.block("read", read, 10)
    door.ok("splice", file, write, 10)
    assert reader.result().data == DATA[:10]
