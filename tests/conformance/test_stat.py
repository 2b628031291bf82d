"""What a file is like, and changes of that: stat and its kin, access, truncate, modes, owners, times."""

import os
import resource
import stat
import tempfile
import time
from pathlib import Path

import pytest
import trees
from doors import NOBODY, Door
from native import checked, libc
from opened import Descriptors

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users")
pytestmark = needs_root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tmp_path.chmod(0o711)
    return trees.grow(tmp_path / "tree")


def expected(status: os.stat_result) -> dict[str, int]:
    names = ("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks")
    fields = {name: getattr(status, f"st_{name}") for name in names}
    return fields | {f"{name}_ns": getattr(status, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}


# --- looking


@pytest.mark.parametrize("name", ["file", "dir", "link", "dlink", "fifo", "socket"])
def test_stat_and_lstat_tell_every_field(door: Door, fds: Descriptors, tree: Path, name: str) -> None:
    path = tree / name
    assert door.ok("stat", bytes(path)).results == expected(path.stat())
    assert door.ok("newfstatat", "AT_FDCWD", bytes(path)).results == expected(path.stat())
    assert door.ok("lstat", bytes(path)).results == expected(path.lstat())
    assert door.ok("newfstatat", "AT_FDCWD", bytes(path), "AT_SYMLINK_NOFOLLOW").results == expected(path.lstat())


def test_a_device_has_its_number(door: Door) -> None:
    assert door.ok("stat", b"/dev/null").results["rdev"] == os.makedev(1, 3)


def test_fstat_tells_of_every_kind_of_descriptor(door: Door, fds: Descriptors, tree: Path) -> None:
    read, _ = fds.pipe()
    one, _ = fds.sockets()
    file = fds.call("open", bytes(tree / "file"), "O_RDONLY")
    fifo = fds.call("open", bytes(tree / "fifo"), "O_RDWR")
    directory = fds.call("open", bytes(tree / "dir"), "O_RDONLY|O_DIRECTORY")
    kinds = [stat.S_IFMT(door.ok("fstat", fd).results["mode"]) for fd in (read, one, file, fifo, directory)]
    assert kinds == [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFIFO, stat.S_IFDIR]
    for fd, name in ((file, "file"), (fifo, "fifo"), (directory, "dir")):
        assert door.ok("fstat", fd).results == expected((tree / name).stat())
        assert door.ok("newfstatat", fd, b"", "AT_EMPTY_PATH").results == expected((tree / name).stat())
    assert door.ok("fstat", 0).results["ino"] == os.fstat(0).st_ino


def test_statx_tells_more(door: Door, fds: Descriptors, tree: Path) -> None:
    path = bytes(tree / "link")
    fd = fds.call("open", path, "O_RDONLY")
    mask = "STATX_BASIC_STATS|STATX_MNT_ID|0x800"
    with (tree / "file").open() as opened:
        lines = dict(line.split() for line in Path(f"/proc/self/fdinfo/{opened.fileno()}").read_text().splitlines())
    mount_id = int(lines["mnt_id:"])
    for result, status in (
        (door.ok("statx", "AT_FDCWD", path, 0, mask), (tree / "file").stat()),
        (door.ok("statx", "AT_FDCWD", path, "AT_SYMLINK_NOFOLLOW", mask), (tree / "link").lstat()),
        (door.ok("statx", fd, b"", "AT_EMPTY_PATH", mask), (tree / "file").stat()),
    ):
        found, wanted = result.results, expected(status)
        same = ("mode", "nlink", "uid", "gid", "size", "blocks", "ino", "mtime_ns", "ctime_ns")
        assert {name: found[name] for name in same} == {name: wanted[name] for name in same}
        assert os.makedev(found["dev_major"], found["dev_minor"]) == status.st_dev
        assert found["mask"] & 0x17FF == 0x17FF
        assert not found["mask"] & 0x800 or found["btime_ns"] <= found["ctime_ns"]
        assert found["mnt_id"] == mount_id


def test_statfs_tells_of_the_file_system(door: Door, fds: Descriptors, tree: Path) -> None:
    fd = fds.call("open", bytes(tree / "file"), "O_RDONLY")
    wanted = os.statvfs(tree)
    for found in (door.ok("statfs", bytes(tree)).results, door.ok("fstatfs", fd).results):
        assert (found["blocks"], found["files"], found["bsize"]) == (wanted.f_blocks, wanted.f_files, wanted.f_bsize)
        assert (found["namelen"], found["frsize"]) == (wanted.f_namemax, wanted.f_frsize)
    assert door.ok("statfs", b"/dev/shm").results["type"] == 0x01021994  # tmpfs


# --- access


MODES = ("F_OK", "R_OK", "W_OK", "X_OK", "R_OK|W_OK|X_OK")


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o644, 0o755, 0o007, 0o070])
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_access_is_by_the_mode_for_whoever_asks(door: Door, tree: Path, mode: int, uid: int) -> None:
    (tree / "file").chmod(mode)
    path = bytes(tree / "file")
    found = door.spawn(lambda: [door.call("access", path, asked).errno for asked in MODES], uid=uid).result()
    allowed = (6 | (1 if mode & 0o111 else 0)) if uid == 0 else mode & 7
    asked = (0, 4, 2, 1, 7)
    assert found == ["" if bits & ~allowed == 0 else "EACCES" for bits in asked]


def test_access_goes_by_the_real_ids_unless_told_otherwise(door: Door, tree: Path) -> None:
    (tree / "file").chmod(0o600)
    path = bytes(tree / "file")
    arguments = ("AT_FDCWD", path, "R_OK")

    def ask(real: int, effective: int) -> list[str]:
        os.setgroups([])
        checked(libc.setresgid(real, effective, -1))
        checked(libc.setresuid(real, effective, -1))
        return [
            door.call("access", path, "R_OK").errno,
            door.call("faccessat", *arguments).errno,
            door.call("faccessat2", *arguments, "AT_EACCESS").errno,
            door.call("access", bytes(tree / "locked/file"), "F_OK").errno,
        ]

    assert door.spawn(lambda: ask(NOBODY, 0)).result() == ["EACCES", "EACCES", "", "EACCES"]
    assert door.spawn(lambda: ask(0, NOBODY)).result() == ["", "", "EACCES", ""]


def test_access_of_a_link_and_of_a_descriptor(door: Door, fds: Descriptors, tree: Path) -> None:
    fd = fds.call("open", bytes(tree / "file"), "O_RDONLY")
    (tree / "file").chmod(0)
    assert door.call("faccessat2", "AT_FDCWD", bytes(tree / "dangling"), "F_OK", "AT_SYMLINK_NOFOLLOW").errno == ""
    assert door.call("faccessat2", "AT_FDCWD", bytes(tree / "dangling"), "F_OK").errno == "ENOENT"
    assert door.call("faccessat2", fd, b"", "R_OK", "AT_EMPTY_PATH").errno == ""
    assert door.call("faccessat2", fd, b"", "X_OK", "AT_EMPTY_PATH").errno == "EACCES"


# --- truncate


def test_truncate_cuts_and_grows(door: Door, tree: Path) -> None:
    for length, content in ((4, b"0123"), (6, b"0123\0\0"), (0, b"")):
        door.ok("truncate", bytes(tree / "link"), length)
        assert (tree / "file").read_bytes() == content


def test_truncate_beyond_the_callers_limit_is_efbig(door: Door, tree: Path) -> None:
    limit = 1 << 20

    def cut() -> list[str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return [door.call("truncate", bytes(tree / "file"), length).errno for length in (limit + 1, limit, 5)]

    assert door.spawn(cut).result() == ["EFBIG", "", ""]
    assert (tree / "file").stat().st_size == 5


# --- modes and owners


def test_modes_are_set_by_path_and_by_descriptor(door: Door, fds: Descriptors, tree: Path) -> None:
    file = tree / "file"
    fd = fds.call("open", bytes(file), "O_RDONLY")
    read, _ = fds.pipe()
    for call, args in (
        ("chmod", (bytes(tree / "link"), 0o1640)),
        ("fchmod", (fd, 0o604)),
        ("fchmodat", ("AT_FDCWD", bytes(file), 0o4711)),
        ("fchmodat", (fd, b"", 0o600, "AT_EMPTY_PATH")),
    ):
        door.ok(call, *args)
        assert stat.S_IMODE(file.stat().st_mode) == next(arg for arg in args[1:] if isinstance(arg, int))
    door.ok("fchmod", read, 0o640)
    assert stat.S_IMODE(door.ok("fstat", read).results["mode"]) == 0o640


def test_owners_are_set_by_path_and_by_descriptor(door: Door, fds: Descriptors, tree: Path) -> None:
    file, link = tree / "file", tree / "link"
    fd = fds.call("open", bytes(file), "O_RDONLY")
    path = fds.call("open", bytes(link), "O_PATH|O_NOFOLLOW")

    def owners() -> list[tuple[int, int]]:
        return [(status.st_uid, status.st_gid) for status in (file.stat(), link.lstat())]

    door.ok("chown", bytes(link), 1, 2)
    door.ok("lchown", bytes(link), 3, 0xFFFFFFFF)
    assert owners() == [(1, 2), (3, 0)]
    door.ok("fchown", fd, 0xFFFFFFFF, 5)
    door.ok("fchownat", "AT_FDCWD", bytes(link), 6, 7, "AT_SYMLINK_NOFOLLOW")
    assert owners() == [(1, 5), (6, 7)]
    door.ok("fchownat", path, b"", 8, 9, "AT_EMPTY_PATH")
    door.ok("chown", bytes(file), 0xFFFFFFFF, 0xFFFFFFFF)
    assert owners() == [(1, 5), (8, 9)]


# --- times


def test_times_are_set_kept_and_made_now(door: Door, fds: Descriptors, tree: Path) -> None:
    file, link = tree / "file", tree / "link"
    fd = fds.call("open", bytes(file), "O_RDONLY")

    def times(path: Path = file) -> tuple[int, int]:
        status = path.lstat()
        return status.st_atime_ns, status.st_mtime_ns

    door.ok("utimensat", bytes(link), 1_500_000_000_123_456_789, 5)
    assert times() == (1_500_000_000_123_456_789, 5)
    door.ok("utimensat", bytes(file), 7, "UTIME_OMIT")
    assert times() == (7, 5)
    door.ok("futimens", fd, "UTIME_OMIT", -3)
    assert times() == (7, -3)
    door.ok("utimensat", bytes(link), 8, 9, "AT_SYMLINK_NOFOLLOW")
    assert (times(link), times()) == ((8, 9), (7, -3))
    before = time.time_ns() - 20_000_000  # the clock of files ticks
    door.ok("utimensat", bytes(file), "UTIME_NOW", 1)
    assert times()[0] >= before
    assert times()[1] == 1
    door.ok("futimens", fd)
    assert min(times()) >= before


def test_who_may_write_may_make_the_times_now(door: Door, tree: Path) -> None:
    (tree / "file").chmod(0o666)
    os.utime(tree / "file", (1, 1))
    assert door.call_as(NOBODY, "utimensat", bytes(tree / "file")).errno == ""
    assert (tree / "file").stat().st_mtime > 1
    assert door.call_as(NOBODY, "utimensat", bytes(tree / "file"), 5, 5).errno == "EPERM"


def test_times_in_whole_seconds(door: Door, tree: Path) -> None:
    file, link = tree / "file", tree / "link"
    door.ok("utime", bytes(link), 1_500_000_000, 5)
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (1_500_000_000 * 10**9, 5 * 10**9)
    door.ok("utime", bytes(file), [-7, 8])
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (-7 * 10**9, 8 * 10**9)
    before = time.time_ns() - 20_000_000
    door.ok("utime", bytes(file))
    assert min(file.stat().st_atime_ns, file.stat().st_mtime_ns) >= before


def test_a_time_that_64_bits_of_nanoseconds_do_not_hold(door: Door) -> None:
    far = 1 << 35
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:  # a disk's file system may not hold it either
        path = os.fsencode(file.name)
        door.ok("utime", path, -far, far)
        assert os.stat(path).st_mtime == far
        found = door.ok("stat", path).results
    assert found["mtime_ns"] == (far * 10**9 if door.name == "native" else (1 << 63) - 1)
    assert found["atime_ns"] == (-far * 10**9 if door.name == "native" else 1 - (1 << 63))


def test_times_in_microseconds(door: Door, fds: Descriptors, tree: Path) -> None:
    file = tree / "file"
    fd, directory = fds.call("open", bytes(file), "O_WRONLY"), fds.call("open", bytes(tree), "O_RDONLY|O_DIRECTORY")

    def times() -> tuple[int, int]:
        return file.stat().st_atime_ns, file.stat().st_mtime_ns

    door.ok("utimes", bytes(tree / "link"), [1_500_000_000, 123_456], [5, 999_999])
    assert times() == (1_500_000_000_123_456_000, 5_999_999_000)
    door.ok("utimes", bytes(file), [[6, 1], [-7, 2]])
    assert times() == (6_000_001_000, -7 * 10**9 + 2000)
    door.ok("futimesat", directory, b"file", 8, 9)
    assert times() == (8 * 10**9, 9 * 10**9)
    door.ok("futimesat", fd, None, [[1, 1], [2, 2]])
    assert times() == (1_000_001_000, 2_000_002_000)
    before = time.time_ns() - 20_000_000
    for call in (("utimes", bytes(file)), ("futimesat", directory, b"file"), ("futimesat", fd, None)):
        os.utime(file, (1, 1))
        door.ok(*call)
        assert min(times()) >= before


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (("utimes", b"%s/file", [1, 1_000_000], [1, 0]), "EINVAL"),
        (("utimes", b"%s/file", [1, 0], [1, -1]), "EINVAL"),
        (("utimes", b"%s/nowhere", [1, 0], [1, 1_000_000]), "EINVAL"),
        (("utimes", b"", 1, 1), "ENOENT"),
        (("utime", b"%s/nowhere", 1, 1), "ENOENT"),
        (("futimesat", "AT_FDCWD", None), "EFAULT"),
        (("futimesat", 999, None), "EBADF"),
        (("futimesat", 999, b"file"), "EBADF"),
        (("futimesat", 999, b"%s/file"), ""),
        (("futimesat", "fd", b"file"), "ENOTDIR"),
        (("futimesat", "path", None), "EBADF"),
        (("futimens", "path"), "EBADF"),
        (("futimesat", "fd", b""), "ENOENT"),
    ],
)
def test_what_the_older_calls_on_times_refuse(door: Door, fds: Descriptors, tree: Path, call: tuple, name: str) -> None:
    named = {"fd": fds.call("open", bytes(tree / "file"), "O_RDONLY")}
    named["path"] = fds.call("open", bytes(tree / "file"), "O_PATH")
    arguments = [named.get(arg, arg) if isinstance(arg, str) else arg for arg in call[1:]]
    arguments = [arg.replace(b"%s", bytes(tree)) if isinstance(arg, bytes) else arg for arg in arguments]
    assert door.call(call[0], *arguments).errno == name
