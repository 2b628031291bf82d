"""Pipes and socket pairs: who waits, what ends it, and that a write up to PIPE_BUF is never torn."""

import pytest
from children import Child, wait_until
from doors import Blocked, Door
from opened import Descriptors

PIPE_BUF = 4096
CAPACITY = 65536

NOT_NATIVE = "Linux has no time-out for this call"
NEVER_RESTARTED = "the kernel's FUSE client answers a signal with EINTR, whatever SA_RESTART says"


def read_exactly(door: Door, fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = door.ok("read", fd, size - len(data)).data
        assert piece
        data += piece
    return data


def wait_blocked(door: Door, child: Child, call: str) -> None:
    wait_until(lambda: door.is_blocked(child.pid, call) or child.ended(), f"{call} blocks")
    assert not child.ended()


def writer_of(door: Door, fds: Descriptors, size: int) -> tuple[int, int, Blocked]:
    """A pipe, and a child that is blocked in writing so much to it."""
    read, write = fds.pipe()
    return read, write, door.block("write", write, b"w" * size)


@pytest.mark.parametrize("kind", ["pipe", "sockets"])
def test_a_blocked_reader_wakes_with_what_is_written(door: Door, fds: Descriptors, kind: str) -> None:
    read, write = getattr(fds, kind)()
    reader = door.block("read", read, 100)
    door.ok("write", write, b"at last")
    assert reader.result().data == b"at last"


def test_every_blocked_reader_is_served(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    readers = [door.block("read", read, 1) for _ in range(5)]
    door.ok("write", write, b"abcde")
    assert sorted(reader.result().data for reader in readers) == [b"a", b"b", b"c", b"d", b"e"]


@pytest.mark.parametrize("kind", ["pipe", "sockets"])
def test_a_blocked_reader_wakes_at_end_of_file(door: Door, fds: Descriptors, kind: str) -> None:
    read, write = getattr(fds, kind)()

    def read_alone() -> tuple[int, bytes | None]:
        door.ok("close", write)
        result = door.ok("read", read, 100)
        return result.ret, result.data

    reader = door.spawn(read_alone)
    wait_blocked(door, reader, "read")
    fds.close(write)
    assert reader.result() == (0, b"")


def test_a_blocked_reader_wakes_when_the_last_writer_dies(door: Door) -> None:
    def read_what_a_child_writes() -> list[bytes | None]:
        ends = door.ok("pipe").results
        writer = door.start("write", ends["write"], b"testament")
        writer.result()
        door.ok("close", ends["write"])
        return [door.ok("read", ends["read"], 100).data for _ in range(2)]

    assert door.spawn(read_what_a_child_writes).result() == [b"testament", b""]


@pytest.mark.parametrize("kind", ["pipe", "sockets"])
def test_a_blocked_write_goes_on_until_all_is_written(door: Door, fds: Descriptors, kind: str) -> None:
    read, write = getattr(fds, kind)()
    size = 6 * CAPACITY
    writer = door.block("write", write, bytes(range(256)) * (size // 256))
    assert read_exactly(door, read, size) == bytes(range(256)) * (size // 256)
    assert writer.result().ret == size


def test_a_blocked_write_up_to_pipe_buf_waits_for_room_for_all(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"f" * CAPACITY)
    writer = door.block("write", write, b"w" * PIPE_BUF)
    door.ok("read", read, PIPE_BUF - 1)
    assert writer.is_blocked()
    door.ok("read", read, 1)
    assert writer.result().ret == PIPE_BUF
    assert read_exactly(door, read, CAPACITY)[-PIPE_BUF:] == b"w" * PIPE_BUF


def test_writes_up_to_pipe_buf_are_never_torn(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    blocks = 40

    def write_blocks(letter: bytes) -> None:
        for _ in range(blocks):
            assert door.ok("write", write, letter * PIPE_BUF).ret == PIPE_BUF

    writers = [door.spawn(lambda letter=bytes([letter]): write_blocks(letter)) for letter in b"abc"]
    data = read_exactly(door, read, 3 * blocks * PIPE_BUF)
    for start in range(0, len(data), PIPE_BUF):
        assert len(set(data[start : start + PIPE_BUF])) == 1
    for writer in writers:
        writer.result()


@pytest.mark.parametrize("size", [1, PIPE_BUF])
def test_a_blocked_writer_wakes_with_epipe_when_the_last_reader_goes(door: Door, fds: Descriptors, size: int) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"f" * CAPACITY)

    def write_alone() -> str:
        door.ok("close", read)
        return door.call("write", write, b"w" * size).errno

    writer = door.spawn(write_alone)
    wait_blocked(door, writer, "write")
    fds.close(read)
    assert writer.result() == "EPIPE"


def test_a_blocked_writer_that_has_written_some_answers_the_count_when_the_last_reader_goes(
    door: Door, fds: Descriptors
) -> None:
    read, write = fds.pipe()

    def write_alone() -> list[tuple[int, str]]:
        door.ok("close", read)
        results = [door.call("write", write, b"w" * size) for size in (2 * CAPACITY, 1)]
        return [(result.ret, result.errno) for result in results]

    writer = door.spawn(write_alone)
    wait_blocked(door, writer, "write")
    fds.close(read)
    assert writer.result() == [(CAPACITY, ""), (-1, "EPIPE")]


# --- signals


@pytest.mark.parametrize("kind", ["pipe", "sockets"])
def test_a_signal_ends_a_blocked_read_with_eintr(door: Door, fds: Descriptors, kind: str) -> None:
    read, write = getattr(fds, kind)()
    reader = door.block("read", read, 100)
    reader.interrupt()
    assert reader.result().errno == "EINTR"
    door.ok("write", write, b"not lost")
    assert door.ok("read", read, 100).data == b"not lost"


def test_a_signal_ends_a_blocked_write_of_nothing_yet_with_eintr(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"f" * CAPACITY)
    writer = door.block("write", write, b"never")
    writer.interrupt()
    assert writer.result().errno == "EINTR"
    assert set(read_exactly(door, read, CAPACITY)) == set(b"f")
    assert door.ok("ioctl", read, "FIONREAD").results == {"value": 0}


def test_a_signal_ends_a_blocked_write_with_the_count_so_far(door: Door, fds: Descriptors) -> None:
    read, _, writer = writer_of(door, fds, 3 * CAPACITY)
    writer.interrupt()
    assert writer.result().ret == CAPACITY
    assert door.ok("ioctl", read, "FIONREAD").results == {"value": CAPACITY}


@pytest.mark.not_for(text=NEVER_RESTARTED, json=NEVER_RESTARTED, msgpack=NEVER_RESTARTED, dispatcher=NEVER_RESTARTED)
def test_a_read_is_restarted_after_a_signal_with_sa_restart(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    reader = door.block("read", read, 100, restart=True)
    reader.interrupt()
    door.ok("write", write, b"after the signal")
    assert reader.result().data == b"after the signal"


def test_a_killed_reader_takes_nothing(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.block("read", read, 100).kill()
    wait_until(lambda: door.blocked_callers() == 0, "nobody is blocked")
    door.ok("write", write, b"still here")
    assert door.ok("read", read, 100).data == b"still here"


# --- closing while somebody waits


def test_closing_a_number_does_not_end_the_read_that_a_child_waits_in(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    reader = door.block("read", read, 100)
    fds.close(read)
    door.ok("write", write, b"to the child")
    assert reader.result().data == b"to the child"


# --- time-outs, which Linux has not


@pytest.mark.not_for(native=NOT_NATIVE)
def test_a_read_ends_with_etimedout_when_nothing_comes_in_time(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe()
    assert door.call("read", read, 1, timeout=0.05).errno == "ETIMEDOUT"


@pytest.mark.not_for(native=NOT_NATIVE)
def test_a_write_answers_the_count_so_far_when_its_time_is_up(door: Door, fds: Descriptors) -> None:
    _, write = fds.pipe()
    assert door.call("write", write, b"w" * 2 * CAPACITY, timeout=0.05).ret == CAPACITY
    assert door.call("write", write, b"w", timeout=0.05).errno == "ETIMEDOUT"
