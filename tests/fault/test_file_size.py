"""RLIMIT_FSIZE: what a caller may make no longer natively, the gate makes no longer for it."""

import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import wait_until
from doors import Door, MountDoor
from native import Result
from native_posix import unlink_all

from synosfs.errors import SynosError
from synosfs.host import file_size

NAME = b"/synosfs-test-%d" % os.getpid()


@pytest.fixture
def name(nothing_left: None) -> Iterator[bytes]:
    yield NAME
    unlink_all(NAME)


#: Room for what the cases write to the gate itself, which is a file to the host, and 10 bytes below it.
LIMIT = 1 << 20
NEAR = LIMIT - 10


def limited(door: Door, body: Callable[[], list[Result]]) -> list[object]:
    """What calls answer in a process that may make files of ``LIMIT`` bytes. Python ignores SIGXFSZ."""

    def run() -> list[object]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
        return [result.errno or result.ret for result in body()]

    return door.spawn(run).result()


def test_a_write_that_crosses_the_limit_is_short_and_one_at_it_is_efbig(door: Door, tmp_path: Path) -> None:
    def writes() -> list[Result]:
        fd = door.ok("open", bytes(tmp_path / "new"), "O_CREAT|O_WRONLY", "0600").ret
        door.ok("lseek", fd, NEAR, "SEEK_SET")
        return [door.call("write", fd, data) for data in (b"12345678", b"9abc", b"", b"x")]

    assert limited(door, writes) == [8, 2, 0, "EFBIG"]
    assert (tmp_path / "new").read_bytes()[NEAR:] == b"123456789a"


def test_pwrite_counts_from_its_offset_and_appending_from_the_end(door: Door, tmp_path: Path) -> None:
    for name in ("new", "end"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, NEAR)

    def writes() -> list[Result]:
        fd = door.ok("open", bytes(tmp_path / "new"), "O_WRONLY").ret
        wrote = [door.call("pwrite64", fd, b"abcd", offset) for offset in (0, LIMIT - 2, LIMIT, LIMIT + 50)]
        end = door.ok("open", bytes(tmp_path / "end"), "O_WRONLY|O_APPEND").ret
        wrote += [door.call("write", end, b"1234567"), door.call("pwrite64", end, b"1234567", 0)]
        return [*wrote, door.call("write", end, b"x")]

    assert limited(door, writes) == [4, 2, "EFBIG", "EFBIG", 7, 3, "EFBIG"]


def test_ftruncate_grows_a_file_up_to_the_limit_and_shrinks_any(door: Door, tmp_path: Path) -> None:
    (tmp_path / "long").touch()
    os.truncate(tmp_path / "long", LIMIT + 100)

    def truncated() -> list[Result]:
        fd = door.ok("open", bytes(tmp_path / "long"), "O_RDWR").ret
        lengths = (LIMIT + 101, LIMIT + 50, LIMIT + 51, LIMIT, LIMIT + 1, 0)
        return [door.call("ftruncate", fd, length) for length in lengths]

    assert limited(door, truncated) == ["EFBIG", 0, "EFBIG", 0, "EFBIG", 0]


def test_the_limit_holds_for_vectors_room_and_copies(door: Door, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100)

    def opened(name: str, at: int) -> int:
        fd = door.ok("open", bytes(tmp_path / name), "O_CREAT|O_RDWR", "0600").ret
        door.ok("lseek", fd, at, "SEEK_SET")
        return fd

    def calls() -> list[Result]:
        source, ends = opened("source", 0), door.ok("pipe2", "0").results
        door.ok("write", ends["write"], b"y" * 50)
        vectors = opened("vectors", NEAR)
        made = [door.call("writev", vectors, b"12345", b"6789ab"), door.call("writev", vectors, b"x")]
        made += [door.call("pwritev2", vectors, b"x", offset=0, flags="RWF_APPEND")]
        for length in (LIMIT, LIMIT + 1):
            made.append(door.call("fallocate", opened("room", 0), 0, 0, length))
        made.append(door.call("fallocate", opened("room", 0), "FALLOC_FL_KEEP_SIZE", 0, LIMIT + 4096))
        spliced = opened("spliced", NEAR)
        made += [door.call("splice", ends["read"], spliced, 50) for _ in range(2)]
        sent = opened("sent", NEAR)
        made += [door.call("sendfile", sent, source, 50, offset=0) for _ in range(2)]
        copied = opened("copied", 0)
        made += [door.call("copy_file_range", source, copied, 50, off_in=0, off_out=at) for at in (NEAR, LIMIT)]
        return made

    expected = [10, "EFBIG", "EFBIG", 0, "EFBIG", 0, 10, "EFBIG", 10, "EFBIG", 10, "EFBIG"]
    assert limited(door, calls) == expected


def test_the_limit_holds_for_posix_memory(door: Door, name: bytes) -> None:
    def calls() -> list[Result]:
        fd = door.ok("shm_open", name, "O_CREAT|O_RDWR", "0600").ret
        truncated = [door.call("ftruncate", fd, length) for length in (LIMIT + 1, LIMIT)]
        door.ok("lseek", fd, NEAR, "SEEK_SET")
        return [*truncated, door.call("write", fd, b"x" * 20)]

    assert limited(door, calls) == ["EFBIG", 0, 10]


@pytest.mark.not_for(**dict.fromkeys(("text", "json", "msgpack"), "who may write no file cannot write to the gate"))
def test_the_limit_is_one_for_files_alone(door: Door) -> None:
    def calls() -> list[Result]:
        write_end = door.ok("pipe2", "0").results["write"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return [door.call("write", write_end, b"x" * 100)]

    assert limited(door, calls) == [100]


def test_the_limit_holds_for_a_callers_own_output(gate: MountDoor, tmp_path: Path) -> None:
    def calls() -> list[Result]:
        os.dup2(os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY), 1)
        os.lseek(1, NEAR, os.SEEK_SET)
        return [gate.call("write", 1, data) for data in (b"1234567", b"1234567", b"x")]

    assert limited(gate, calls) == [7, 3, "EFBIG"]


def test_two_writes_at_once_do_not_cross_the_limit_together(tmp_path: Path) -> None:
    fds = [os.open(tmp_path / "one", os.O_CREAT | os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    os.ftruncate(fds[0], NEAR)
    rooms: list[object] = []

    def other() -> None:
        try:
            with file_size.room(os.getpid(), fds[1], 8) as room:
                rooms.append(room)
        except SynosError as error:
            rooms.append(error.errno)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        thread = threading.Thread(target=other)
        with file_size.room(os.getpid(), fds[0], 8) as room:
            thread.start()
            [turns] = file_size._turns.values()
            wait_until(lambda: turns.wanted == 2, "the other is in line")
            os.write(fds[0], b"x" * room)
        thread.join()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert rooms == [2]
    assert not file_size._turns
