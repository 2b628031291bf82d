"""Locks of files: flock(2), and fcntl(2)'s of a process and of an open file, among processes and native programs."""

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import Door
from opened import Descriptors

FREE = {"type": "F_UNLCK", "whence": "SEEK_SET"}


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    return os.fsencode(file)


@pytest.fixture
def file(fds: Descriptors, path: bytes) -> int:
    return fds.call("open", path, "O_RDWR")


def asked(door: Door, path: bytes, *lock: object, command: str = "F_GETLK", access: str = "O_RDWR") -> dict:
    """What another process reads of who stands against this lock."""

    def ask() -> dict:
        fd = door.ok("open", path, access).ret
        return door.ok("fcntl", fd, command, *lock).results

    return door.spawn(ask).result()


def tried(door: Door, path: bytes, call: str, *arguments: object) -> str:
    """What another process is answered."""

    def attempt() -> str:
        return door.call(call, door.ok("open", path, "O_RDWR").ret, *arguments).errno

    return door.spawn(attempt).result()


# --- of a process


def test_a_lock_keeps_others_out_and_names_its_holder(door: Door, file: int, path: bytes) -> None:
    assert door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 10, 20).ret == 0
    assert tried(door, path, "fcntl", "F_SETLK", "F_RDLCK", 15, 1) == "EAGAIN"
    assert tried(door, path, "fcntl", "F_SETLK", "F_RDLCK", 30, 1) == ""
    assert asked(door, path, "F_RDLCK", 0, 0) == {
        "type": "F_WRLCK",
        "whence": "SEEK_SET",
        "start": 10,
        "len": 20,
        "pid": os.getpid(),
    }
    assert asked(door, path, "F_RDLCK", 30, 0) == FREE | {"start": 30, "len": 0, "pid": 0}


def test_read_locks_are_shared(door: Door, file: int, path: bytes) -> None:
    door.ok("fcntl", file, "F_SETLK", "F_RDLCK", 0, 0)
    assert tried(door, path, "fcntl", "F_SETLK", "F_RDLCK", 0, 0) == ""
    assert tried(door, path, "fcntl", "F_SETLK", "F_WRLCK", 99, 1) == "EAGAIN"


def test_a_process_stands_in_its_own_way_through_no_descriptor(
    door: Door, fds: Descriptors, file: int, path: bytes
) -> None:
    other = fds.call("open", path, "O_RDWR")
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0)
    assert door.ok("fcntl", other, "F_SETLK", "F_WRLCK", 0, 50).ret == 0
    assert door.ok("fcntl", other, "F_GETLK", "F_WRLCK", 0, 50).results == FREE | {"start": 0, "len": 50, "pid": 0}


def test_closing_any_descriptor_of_the_file_lets_go_of_all(
    door: Door, fds: Descriptors, file: int, path: bytes
) -> None:
    other = fds.call("open", path, "O_RDONLY")
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0)
    fds.close(other)
    assert tried(door, path, "fcntl", "F_SETLK", "F_WRLCK", 0, 0) == ""


@pytest.mark.parametrize("end", ["close", "dup2", "close_range"])
def test_a_duplicate_is_one_too(door: Door, fds: Descriptors, file: int, path: bytes, end: str) -> None:
    copy = fds.call("dup", file)
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0)
    match end:
        case "close":
            fds.close(copy)
        case "dup2":
            door.ok("dup2", fds.pipe()[0], copy)
        case "close_range":
            door.ok("close_range", copy, copy)
            fds.open.remove(copy)
    assert tried(door, path, "fcntl", "F_SETLK", "F_WRLCK", 0, 0) == ""


def test_another_file_closed_lets_go_of_nothing(door: Door, fds: Descriptors, file: int, path: bytes) -> None:
    other = fds.call("open", path + b"2", "O_RDWR|O_CREAT", "0600")
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0)
    fds.close(other)
    assert tried(door, path, "fcntl", "F_SETLK", "F_WRLCK", 0, 0) == "EAGAIN"


def test_the_end_of_a_process_lets_go(door: Door, file: int, path: bytes) -> None:
    reader, writer = os.pipe()

    def hold() -> None:
        door.ok("fcntl", door.ok("open", path, "O_RDWR").ret, "F_SETLK", "F_WRLCK", 0, 0)
        os.write(writer, b".")
        os.read(os.pipe()[0], 1)

    child = door.spawn(hold)
    os.read(reader, 1)
    assert door.ok("fcntl", file, "F_GETLK", "F_WRLCK", 0, 0).results["pid"] == child.pid
    waiter = door.block("fcntl", file, "F_SETLKW", "F_WRLCK", 0, 0)
    child.kill()
    assert waiter.result().ret == 0
    os.close(reader)
    os.close(writer)


def test_a_child_inherits_none(door: Door, file: int) -> None:
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0)

    def child() -> str:
        return door.call("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0).errno

    assert door.spawn(child).result() == "EAGAIN"


def test_unlocking_a_part_leaves_the_rest(door: Door, file: int, path: bytes) -> None:
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 100)
    door.ok("fcntl", file, "F_SETLK", "F_UNLCK", 40, 20)
    door.ok("fcntl", file, "F_SETLK", "F_RDLCK", 60, 10)
    assert asked(door, path, "F_WRLCK", 40, 20)["type"] == "F_UNLCK"
    found = asked(door, path, "F_WRLCK", 40, 0)
    assert (found["type"], found["start"], found["len"], found["pid"]) == ("F_RDLCK", 60, 10, os.getpid())
    assert asked(door, path, "F_RDLCK", 39, 1)["type"] == "F_WRLCK"


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ((10, -5, "SEEK_SET"), (5, 5)),
        ((-10, 0, "SEEK_END"), (90, 0)),
        ((5, 5, "SEEK_CUR"), (25, 5)),
        ((-20, -0, "SEEK_CUR"), (0, 0)),
        ((0, 9223372036854775807, "SEEK_SET"), (0, 9223372036854775807)),
        ((1, 9223372036854775807, "SEEK_SET"), (1, 0)),
    ],
)
def test_where_a_lock_begins(door: Door, file: int, path: bytes, lock: tuple, expected: tuple) -> None:
    door.ok("lseek", file, 20, "SEEK_SET")
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", *lock)
    found = asked(door, path, "F_WRLCK", 0, 0)
    assert (found["start"], found["len"]) == expected


@pytest.mark.parametrize(
    ("lock", "name"),
    [
        ((-1, 1), "EINVAL"),
        ((5, -6), "EINVAL"),
        ((-101, 1, "SEEK_END"), "EINVAL"),
        ((2, 9223372036854775807), "EOVERFLOW"),
        ((9223372036854775807, 1, "SEEK_END"), "EOVERFLOW"),
        ((0, 1, 3), "EINVAL"),
    ],
)
@pytest.mark.parametrize("type", ["F_WRLCK", "F_UNLCK"])
@pytest.mark.parametrize("command", ["F_SETLK", "F_OFD_SETLK"])
def test_a_range_that_is_none(door: Door, file: int, command: str, type: str, lock: tuple, name: str) -> None:
    assert door.call("fcntl", file, command, type, *lock).errno == name


@pytest.mark.parametrize("command", ["F_SETLK", "F_OFD_SETLK"])
def test_a_lock_wants_the_access_mode(door: Door, fds: Descriptors, path: bytes, command: str) -> None:
    reader, writer = fds.call("open", path, "O_RDONLY"), fds.call("open", path, "O_WRONLY")
    assert door.call("fcntl", reader, command, "F_WRLCK", 0, 0).errno == "EBADF"
    assert door.call("fcntl", writer, command, "F_RDLCK", 0, 0).errno == "EBADF"
    assert door.ok("fcntl", reader, command, "F_RDLCK", 0, 1).ret == 0
    assert door.ok("fcntl", writer, command, "F_WRLCK", 10, 1).ret == 0


def test_a_read_lock_becomes_a_write_lock_by_another_descriptor(door: Door, fds: Descriptors, path: bytes) -> None:
    reader = fds.call("open", path, "O_RDONLY")
    writer = fds.call("open", path, "O_RDWR")
    door.ok("fcntl", reader, "F_SETLK", "F_RDLCK", 0, 10)
    door.ok("fcntl", writer, "F_SETLK", "F_WRLCK", 5, 10)
    assert asked(door, path, "F_RDLCK", 0, 0)["start"] == 5
    assert asked(door, path, "F_WRLCK", 0, 0)["len"] == 5
    assert asked(door, path, "F_WRLCK", 0, 0)["pid"] == os.getpid()


def test_another_type_is_einval(door: Door, file: int) -> None:
    assert door.call("fcntl", file, "F_SETLK", 3, 0, 0).errno == "EINVAL"
    assert door.call("fcntl", file, "F_GETLK", "F_UNLCK", 0, 0).errno == "EINVAL"


def test_a_lock_is_waited_for(door: Door, file: int, path: bytes) -> None:
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0)
    waiter = door.block("fcntl", file, "F_SETLKW", "F_RDLCK", 5, 5)
    door.ok("fcntl", file, "F_SETLK", "F_UNLCK", 0, 0)
    assert waiter.result().ret == 0


def test_waiting_for_a_lock_ends_with_a_signal(door: Door, file: int) -> None:
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0)
    waiter = door.block("fcntl", file, "F_SETLKW", "F_WRLCK", 0, 0)
    waiter.interrupt()
    assert waiter.result().errno == "EINTR"


# --- native programs


@pytest.fixture
def native_holder(path: bytes) -> Iterator[subprocess.Popen]:
    """A program that has locked bytes 50 to 59."""
    script = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX, 10, 50);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, os.fsdecode(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        yield holder
        holder.kill()


def test_a_native_program_keeps_us_out(door: Door, file: int, native_holder: subprocess.Popen) -> None:
    assert door.call("fcntl", file, "F_SETLK", "F_WRLCK", 0, 0).errno == "EAGAIN"
    assert door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 0, 50).ret == 0
    found = door.ok("fcntl", file, "F_GETLK", "F_WRLCK", 0, 0).results
    assert (found["start"], found["len"], found["pid"]) == (50, 10, native_holder.pid)
    waiter = door.block("fcntl", file, "F_SETLKW", "F_WRLCK", 50, 1)
    native_holder.kill()
    assert waiter.result().ret == 0


def test_we_keep_a_native_program_out(door: Door, file: int, path: bytes) -> None:
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 10, 10)

    def natively() -> tuple[bool, int]:
        with open(path, "r+b") as other:
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)
            try:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 15)
            except BlockingIOError:
                found = fcntl.fcntl(other, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
                return True, struct.unpack("hhqqi4x", found)[2]
            return False, 0

    child = Child(natively)
    assert child.result() == (True, 10)
    child.close()


# --- of an open file


def test_an_open_files_lock_is_its_own(door: Door, fds: Descriptors, file: int, path: bytes) -> None:
    other = fds.call("open", path, "O_RDWR")
    door.ok("fcntl", file, "F_OFD_SETLK", "F_WRLCK", 0, 10)
    assert door.call("fcntl", other, "F_OFD_SETLK", "F_WRLCK", 0, 10).errno == "EAGAIN"
    assert door.ok("fcntl", fds.call("dup", file), "F_OFD_SETLK", "F_WRLCK", 0, 10).ret == 0
    assert door.ok("fcntl", other, "F_OFD_GETLK", "F_WRLCK", 0, 0).results["pid"] == -1


def test_an_open_files_lock_stands_against_the_process_itself(
    door: Door, fds: Descriptors, file: int, path: bytes
) -> None:
    door.ok("fcntl", file, "F_OFD_SETLK", "F_WRLCK", 0, 10)
    assert door.call("fcntl", file, "F_SETLK", "F_WRLCK", 0, 10).errno == "EAGAIN"
    door.ok("fcntl", file, "F_SETLK", "F_WRLCK", 20, 10)
    found = door.ok("fcntl", file, "F_OFD_GETLK", "F_WRLCK", 20, 5).results
    assert (found["start"], found["pid"]) == (20, os.getpid())


def test_an_open_files_lock_is_inherited_and_goes_with_its_last_descriptor(
    door: Door, fds: Descriptors, file: int, path: bytes
) -> None:
    copy = fds.call("dup", file)
    door.ok("fcntl", file, "F_OFD_SETLK", "F_WRLCK", 0, 10)
    fds.close(file)
    assert tried(door, path, "fcntl", "F_OFD_SETLK", "F_WRLCK", 0, 10) == "EAGAIN"
    fds.close(copy)
    assert tried(door, path, "fcntl", "F_OFD_SETLK", "F_WRLCK", 0, 10) == ""


def test_an_open_files_lock_is_waited_for(door: Door, fds: Descriptors, file: int, path: bytes) -> None:
    other = fds.call("open", path, "O_RDWR")
    door.ok("fcntl", file, "F_OFD_SETLK", "F_WRLCK", 0, 10)
    waiter = door.block("fcntl", other, "F_OFD_SETLKW", "F_WRLCK", 0, 10)
    door.ok("fcntl", file, "F_OFD_SETLK", "F_UNLCK", 0, 10)
    assert waiter.result().ret == 0


# --- flock


def test_flock_is_of_an_open_file(door: Door, fds: Descriptors, file: int, path: bytes) -> None:
    other = fds.call("open", path, "O_RDONLY")
    assert door.ok("flock", file, "LOCK_EX").ret == 0
    assert door.ok("flock", fds.call("dup", file), "LOCK_EX|LOCK_NB").ret == 0
    assert door.call("flock", other, "LOCK_SH|LOCK_NB").errno == "EAGAIN"
    door.ok("flock", file, "LOCK_SH")
    assert door.ok("flock", other, "LOCK_SH|LOCK_NB").ret == 0
    door.ok("flock", other, "LOCK_UN")
    assert door.call("flock", file, 0).errno == "EINVAL"


def test_flock_waits_and_ends_with_a_signal(door: Door, fds: Descriptors, file: int, path: bytes) -> None:
    other = fds.call("open", path, "O_RDWR")
    door.ok("flock", file, "LOCK_EX")
    waiters = [door.block("flock", other, "LOCK_EX") for _ in range(2)]
    waiters[0].interrupt()
    assert waiters[0].result().errno == "EINTR"
    door.ok("flock", file, "LOCK_UN")
    assert waiters[1].result().ret == 0


def test_flock_meets_native_programs(door: Door, file: int, path: bytes) -> None:
    with open(path, "rb") as native:
        fcntl.flock(native, fcntl.LOCK_EX)
        assert door.call("flock", file, "LOCK_EX|LOCK_NB").errno == "EAGAIN"
        fcntl.flock(native, fcntl.LOCK_UN)
        door.ok("flock", file, "LOCK_EX")
        with pytest.raises(BlockingIOError):
            fcntl.flock(native, fcntl.LOCK_SH | fcntl.LOCK_NB)


@pytest.mark.not_for(native="Linux has no time-out for this call")
def test_waiting_for_a_lock_ends_with_its_time_out(door: Door, fds: Descriptors, file: int, path: bytes) -> None:
    with open(path, "r+b") as native:
        fcntl.lockf(native, fcntl.LOCK_EX)
        fcntl.flock(native, fcntl.LOCK_EX)
        for command in ("F_SETLKW", "F_OFD_SETLKW"):
            assert door.call("fcntl", file, command, "F_WRLCK", 0, 0, timeout=0.05).errno == "ETIMEDOUT"
        assert door.call("flock", file, "LOCK_EX", timeout=0.05).errno == "ETIMEDOUT"


@pytest.mark.not_for(native="of the gate's own refusals")
@pytest.mark.parametrize("command", ["F_SETLEASE", "F_GETLEASE", "F_GETOWN", "F_SETOWN", "F_NOTIFY", "F_SETSIG"])
def test_what_is_the_programs_own_is_refused_with_a_reason(door: Door, file: int, command: str) -> None:
    answer = door.call("fcntl", file, command, 0)
    assert answer.errno == "EINVAL"
    assert "signal" in answer.message or "lease" in answer.message


# --- deadlocks


class Member:
    """A process that locks ten bytes, and waits for others when it is told to."""

    def __init__(self, door: Door, path: bytes, held: tuple, wanted: tuple) -> None:
        ready, is_ready = os.pipe()
        goes, self._go = os.pipe()
        self._door = door

        def lock_and_wait() -> str:
            fd = door.ok("open", path, "O_RDWR").ret
            door.ok("fcntl", fd, "F_SETLK", *held)
            os.write(is_ready, b".")
            os.read(goes, 1)
            return door.call("fcntl", fd, "F_SETLKW", *wanted).errno

        self._child = door.spawn(lock_and_wait)
        os.read(ready, 1)
        for fd in (ready, is_ready, goes):
            os.close(fd)

    def go(self) -> None:
        os.write(self._go, b".")

    def block(self) -> None:
        self.go()
        wait_until(lambda: self._door.is_blocked(self._child.pid, "fcntl"), "it waits for the lock")

    def result(self) -> str:
        answer: str = self._child.result()
        os.close(self._go)
        return answer

    def interrupt(self) -> None:
        self._child.interrupt()


def write_lock(place: int) -> tuple:
    return "F_WRLCK", 10 * place, 10


@pytest.mark.parametrize("size", [2, 3, 7])
def test_one_of_a_circle_of_waits_is_refused(door: Door, path: bytes, size: int) -> None:
    members = [Member(door, path, write_lock(place), write_lock((place + 1) % size)) for place in range(size)]
    for member in members[:-1]:
        member.block()
    members[-1].go()
    # It is the one that comes last to where the host, or a thread of the daemon, looks; its end lets the others go on.
    assert sorted(member.result() for member in members) == [""] * (size - 1) + ["EDEADLK"]


def test_two_readers_that_both_want_to_write_are_a_circle(door: Door, path: bytes) -> None:
    one, other = (Member(door, path, ("F_RDLCK", 0, 0), ("F_WRLCK", 0, 0)) for _ in range(2))
    one.block()
    other.go()
    assert sorted([other.result(), one.result()]) == ["", "EDEADLK"]


def test_a_chain_of_waits_is_no_circle(door: Door, path: bytes) -> None:
    members = [Member(door, path, write_lock(place), write_lock(place + 1)) for place in range(3)]
    last = Member(door, path, write_lock(3), write_lock(4))
    for member in members:
        member.block()
    last.go()
    assert last.result() == ""
    assert [member.result() for member in reversed(members)] == [""] * 3


def test_a_wait_that_has_ended_is_in_no_circle(door: Door, path: bytes) -> None:
    one, other = Member(door, path, write_lock(0), write_lock(1)), Member(door, path, write_lock(1), write_lock(0))
    one.block()
    one.interrupt()
    assert one.result() == "EINTR"
    other.go()
    assert other.result() == ""
