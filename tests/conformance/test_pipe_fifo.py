"""FIFOs at paths of the host: made, opened from both sides, and who waits for whom."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from children import wait_until
from doors import NOBODY, Door
from opened import Descriptors

NOT_NATIVE = "Linux has no time-out for this call"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that an ordinary user can look into and make files in."""
    for part in (tmp_path, *tmp_path.parents):
        if part.name.startswith("pytest-"):
            part.chmod(0o711)
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.fixture
def fifo(directory: Path) -> bytes:
    path = directory / "fifo"
    os.mkfifo(path)
    return bytes(path)


# --- making and removing


@pytest.mark.parametrize(("umask", "mode", "made"), [(0o022, 0o666, 0o644), (0, 0o666, 0o666), (0o077, 0o640, 0o600)])
@pytest.mark.parametrize("call", ["mkfifo", "mknod"])
def test_a_fifo_is_made_with_the_mode_that_the_umask_leaves(
    door: Door, directory: Path, call: str, umask: int, mode: int, made: int
) -> None:
    path = directory / "new"

    def make() -> int:
        os.umask(umask)
        return door.ok(call, bytes(path), mode if call == "mkfifo" else stat.S_IFIFO | mode).ret

    assert door.spawn(make, uid=NOBODY).result() == 0
    status = path.stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFIFO | made, NOBODY, NOBODY)


@pytest.mark.parametrize("call", ["mkfifo", "mknod"])
def test_making_what_exists_is_eexist(door: Door, fifo: bytes, call: str) -> None:
    assert door.call(call, fifo, 0o666 if call == "mkfifo" else "S_IFIFO|0666").errno == "EEXIST"


def test_making_a_fifo_where_there_is_no_directory_is_enoent(door: Door, directory: Path) -> None:
    assert door.call("mkfifo", bytes(directory / "no/fifo")).errno == "ENOENT"


def test_making_a_fifo_in_a_directory_of_others_is_eacces(door: Door, directory: Path) -> None:
    directory.chmod(0o755)
    assert door.call_as(NOBODY, "mkfifo", bytes(directory / "fifo")).errno == "EACCES"


def test_a_relative_path_begins_at_the_callers_working_directory(door: Door, directory: Path) -> None:
    def make() -> int:
        os.chdir(directory)
        return door.ok("mkfifo", b"./here").ret

    assert door.spawn(make).result() == 0
    assert (directory / "here").is_fifo()


def test_unlink_removes_the_name_and_leaves_the_open_fifo(door: Door, fds: Descriptors, fifo: bytes) -> None:
    fd = fds.call("open", fifo, "O_RDWR")
    door.ok("unlink", fifo)
    assert not Path(os.fsdecode(fifo)).exists()
    door.ok("write", fd, b"nameless")
    assert door.ok("read", fd, 100).data == b"nameless"
    assert door.call("unlink", fifo).errno == "ENOENT"


# --- opening


@pytest.mark.parametrize(("first", "second"), [("O_RDONLY", "O_WRONLY"), ("O_WRONLY", "O_RDONLY")])
def test_open_waits_for_the_other_side(door: Door, fds: Descriptors, fifo: bytes, first: str, second: str) -> None:
    opener = door.block("open", fifo, first)
    fds.call("open", fifo, second)
    assert opener.result().errno == ""


@pytest.mark.parametrize("side", [os.O_RDONLY, os.O_WRONLY])
def test_open_meets_a_native_peer(door: Door, fifo: bytes, side: int) -> None:
    opener = door.block("open", fifo, "O_WRONLY" if side == os.O_RDONLY else "O_RDONLY")
    os.close(os.open(fifo, side))
    assert opener.result().errno == ""


def test_a_nonblocking_open_to_read_succeeds_and_reads_end_of_file(door: Door, fds: Descriptors, fifo: bytes) -> None:
    read = fds.call("open", fifo, "O_RDONLY|O_NONBLOCK")
    assert door.ok("read", read, 10).data == b""
    write = fds.call("open", fifo, "O_WRONLY")
    assert door.call("read", read, 10).errno == "EAGAIN"
    fds.close(write)
    assert door.ok("read", read, 10).data == b""


def test_a_nonblocking_open_to_write_is_enxio_without_a_reader(door: Door, fds: Descriptors, fifo: bytes) -> None:
    assert door.call("open", fifo, "O_WRONLY|O_NONBLOCK").errno == "ENXIO"
    fds.call("open", fifo, "O_RDONLY|O_NONBLOCK")
    fds.call("open", fifo, "O_WRONLY|O_NONBLOCK")


def test_an_open_to_read_and_write_never_waits(door: Door, fds: Descriptors, fifo: bytes) -> None:
    fd = fds.call("open", fifo, "O_RDWR")
    door.ok("write", fd, b"to myself")
    assert door.ok("read", fd, 100).data == b"to myself"


def test_o_trunc_takes_nothing_away(door: Door, fds: Descriptors, fifo: bytes) -> None:
    fd = fds.call("open", fifo, "O_RDWR")
    door.ok("write", fd, b"stays")
    fds.call("open", fifo, "O_RDWR|O_TRUNC")
    assert door.ok("read", fd, 100).data == b"stays"


def test_o_cloexec_and_the_status_flags_are_kept(door: Door, fds: Descriptors, fifo: bytes) -> None:
    fd = fds.call("open", fifo, "O_RDWR|O_NONBLOCK|O_CLOEXEC")
    assert door.ok("fcntl", fd, "F_GETFD").ret == 1
    assert door.ok("fcntl", fd, "F_GETFL").ret & ~0o100000 == os.O_RDWR | os.O_NONBLOCK


@pytest.mark.parametrize(
    ("name", "flags", "errno"),
    [
        ("none", "O_RDONLY", "ENOENT"),
        ("fifo", "O_RDWR|O_CREAT|O_EXCL", "EEXIST"),
        ("fifo/below", "O_RDONLY", "ENOTDIR"),
        (".", "O_WRONLY", "EISDIR"),
        ("x" * 256, "O_RDONLY", "ENAMETOOLONG"),
        ("loop", "O_RDONLY", "ELOOP"),
        ("socket", "O_RDWR", "ENXIO"),
    ],
)
def test_open_of_what_cannot_be_opened(
    door: Door, directory: Path, fifo: bytes, name: str, flags: str, errno: str
) -> None:
    (directory / "loop").symlink_to("loop")
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o666)
    assert door.call("open", bytes(directory / name), flags).errno == errno


@pytest.mark.parametrize(("mode", "flags"), [(0o600, "O_RDWR"), (0o644, "O_RDWR"), (0o622, "O_RDONLY|O_NONBLOCK")])
def test_the_mode_of_a_fifo_is_checked_for_the_caller(door: Door, fifo: bytes, mode: int, flags: str) -> None:
    os.chmod(fifo, mode)
    assert door.call_as(NOBODY, "open", fifo, flags).errno == "EACCES"
    os.chmod(fifo, 0o666)
    assert door.call_as(NOBODY, "open", fifo, flags).errno == ""


def test_a_directory_on_the_way_is_checked_for_the_caller(door: Door, directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    os.mkfifo(closed / "fifo")
    os.chmod(closed / "fifo", 0o666)
    assert door.call_as(NOBODY, "open", bytes(closed / "fifo"), "O_RDWR").errno == "EACCES"


def test_a_path_begins_at_the_callers_root(door: Door, directory: Path, fifo: bytes) -> None:
    other = directory / "root"
    other.mkdir()

    def look() -> list[str]:
        door.call("lseek", 0, 0)  # the way to the door is found before the root is gone
        os.chroot(other)
        os.chdir("/")
        return [door.call("open", path, "O_RDWR").errno for path in (fifo, b"/fifo", b"/../fifo", b"./../fifo")]

    assert door.spawn(look).result()[:3] == ["ENOENT"] * 3
    os.mkfifo(other / "fifo")
    assert door.spawn(look).result()[1:3] == ["", ""]


def test_a_signal_ends_a_blocked_open_with_eintr(door: Door, fifo: bytes) -> None:
    opener = door.block("open", fifo, "O_RDONLY")
    opener.interrupt()
    assert opener.result().errno == "EINTR"


def test_a_killed_opener_is_no_peer_any_more(door: Door, fifo: bytes) -> None:
    door.block("open", fifo, "O_RDONLY").kill()
    wait_until(lambda: door.blocked_callers() == 0, "nobody is blocked")
    assert door.call("open", fifo, "O_WRONLY|O_NONBLOCK").errno == "ENXIO"


@pytest.mark.not_for(native=NOT_NATIVE)
def test_open_ends_with_etimedout_when_no_peer_comes_in_time(door: Door, fifo: bytes) -> None:
    assert door.call("open", fifo, "O_WRONLY", timeout=0.05).errno == "ETIMEDOUT"
    assert door.call("open", fifo, "O_WRONLY|O_NONBLOCK").errno == "ENXIO"


def test_a_dead_process_holds_no_end(door: Door, fds: Descriptors, fifo: bytes) -> None:
    read = fds.call("open", fifo, "O_RDONLY|O_NONBLOCK")

    def write() -> int:
        return door.ok("write", door.ok("open", fifo, "O_WRONLY").ret, b"x").ret

    assert door.spawn(write).result() == 1
    assert door.ok("read", read, 10).data == b"x"
    wait_until(lambda: not door.call("read", read, 10).errno, "end-of-file")


# --- regular files, which open takes too


def test_a_regular_file_is_made_written_and_read_at_offsets(door: Door, fds: Descriptors, directory: Path) -> None:
    path = directory / "file"
    fd = fds.call("open", bytes(path), "O_RDWR|O_CREAT|O_EXCL", 0o600)
    door.ok("write", fd, b"0123456789")
    assert door.ok("lseek", fd, 2).ret == 2
    assert door.ok("read", fd, 3).data == b"234"
    assert door.ok("read", fds.call("dup", fd), 1).data == b"5"
    assert door.ok("pread64", fd, 2, 8).data == b"89"
    door.ok("pwrite64", fd, b"x", 0)
    assert door.ok("lseek", fd, 0, "SEEK_END").ret == 10
    assert door.ok("read", fd, 1).data == b""
    assert path.read_bytes() == b"x123456789"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_o_append_and_o_trunc_are_honoured(door: Door, fds: Descriptors, directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"old")
    fd = fds.call("open", bytes(path), "O_WRONLY|O_APPEND")
    door.ok("lseek", fd, 0)
    door.ok("write", fd, b"er")
    assert path.read_bytes() == b"older"
    fds.call("open", bytes(path), "O_WRONLY|O_TRUNC")
    assert path.read_bytes() == b""


# --- 0, 1 and 2


@pytest.fixture
def redirected(directory: Path) -> Callable[[Door, Callable[[], object]], tuple[object, bytes]]:
    def run(door: Door, body: Callable[[], object]) -> tuple[object, bytes]:
        """Run ``body`` in a child whose standard input and output are files; what it returned, and its output."""
        (directory / "in").write_bytes(b"first second")
        os.close(os.open(directory / "out", os.O_CREAT | os.O_WRONLY))

        def redirect() -> object:
            for number, name in enumerate(("in", "out")):
                os.dup2(os.open(directory / name, os.O_RDWR), number)
            return body()

        return door.spawn(redirect).result(), (directory / "out").read_bytes()

    return run


def test_0_and_1_are_the_callers_own_with_offset_and_all(door: Door, redirected: Callable) -> None:
    def copy() -> tuple[bytes | None, bytes, int]:
        taken = door.ok("read", 0, 6).data
        door.ok("write", 1, b"one")
        os.write(1, b"two")
        return taken, os.read(0, 100), door.ok("lseek", 1, 0, "SEEK_CUR").ret

    assert redirected(door, copy) == ((b"first ", b"second", 6), b"onetwo")


def test_1_can_be_replaced(door: Door, fds: Descriptors, redirected: Callable) -> None:
    read, write = fds.pipe()

    def replace() -> None:
        door.ok("dup2", write, 1)
        door.ok("write", 1, b"into the pipe")

    assert redirected(door, replace) == (None, b"")
    assert door.ok("read", read, 100).data == b"into the pipe"


def test_a_closed_0_is_the_next_number(door: Door) -> None:
    def close() -> tuple[int, str]:
        door.ok("close", 0)
        error = door.call("read", 0, 1).errno
        return door.ok("pipe").results["read"], error

    assert door.spawn(close).result() == (0, "EBADF")
