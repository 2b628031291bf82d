"""``pipes/``, ``proc/<pid>/fd`` and ``proc/<pid>/fds``: FIFOs and descriptors as files."""

import errno
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import wait_until
from doors import NOBODY, MountDoor, write
from mounts import Mount


@pytest.fixture
def gate(mount: Mount) -> Iterator[MountDoor]:
    door = MountDoor(mount, "json")
    yield door
    door.close()


@pytest.fixture
def pipes(mount: Mount) -> Iterator[Path]:
    """The directory, empty again at the end."""
    directory = mount.path / "pipes"
    yield directory
    for entry in directory.iterdir():
        if entry.is_fifo():
            entry.unlink()


def refused(call: Callable[[], object]) -> str:
    """The errno that a call fails with."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def table(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text().splitlines()
    return [dict(zip(header.split(), line.split(), strict=True)) for line in lines]


# --- FIFOs


def test_mkfifo_makes_a_fifo_of_the_callers_with_the_mode_that_the_umask_leaves(gate: MountDoor, pipes: Path) -> None:
    def make() -> None:
        os.umask(0o027)
        os.mkfifo(pipes / "new", 0o666)

    gate.spawn(make, uid=NOBODY).result()
    status = (pipes / "new").stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFIFO | 0o640, NOBODY, NOBODY)


def test_the_same_fifo_is_made_by_the_call(gate: MountDoor, pipes: Path) -> None:
    def make() -> None:
        os.umask(0o027)
        gate.ok("mkfifo", b"new", 0o666)

    gate.spawn(make, uid=NOBODY).result()
    status = (pipes / "new").stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFIFO | 0o640, NOBODY, NOBODY)
    assert gate.call("mkfifo", b"new").errno == "EEXIST"


def test_a_fifo_carries_data_between_two_processes(gate: MountDoor, pipes: Path) -> None:
    os.mkfifo(pipes / "fifo")
    writer = gate.spawn(lambda: (pipes / "fifo").write_bytes(b"data" * 100_000))
    assert (pipes / "fifo").read_bytes() == b"data" * 100_000
    assert writer.result() == 400_000


def test_no_byte_of_a_fifo_goes_through_the_daemon(gate: MountDoor, mount: Mount, pipes: Path) -> None:
    os.mkfifo(pipes / "fifo")
    fd = os.open(pipes / "fifo", os.O_RDWR)
    before = Path(f"/proc/{mount.daemon.pid}/io").read_text()
    for _ in range(100):
        os.write(fd, b"x" * 4096)
        os.read(fd, 4096)
    counts = [
        re.findall(r"(?:rchar|wchar): (\d+)", text)
        for text in (before, Path(f"/proc/{mount.daemon.pid}/io").read_text())
    ]
    os.close(fd)
    assert sum(map(int, counts[1])) - sum(map(int, counts[0])) < 100 * 4096


def test_a_call_and_a_file_meet_in_one_fifo(gate: MountDoor, pipes: Path) -> None:
    os.mkfifo(pipes / "fifo")
    opener = gate.spawn(lambda: gate.ok("write", gate.ok("open", b"fifo", "O_WRONLY").ret, b"by the call").ret)
    assert (pipes / "fifo").read_bytes() == b"by the call"
    assert opener.result() == 11


def test_truncating_a_fifo_is_einval(pipes: Path) -> None:
    os.mkfifo(pipes / "fifo")
    assert refused(lambda: os.truncate(pipes / "fifo", 0)) == "EINVAL"


def test_chmod_and_chown_are_kept_and_checked(gate: MountDoor, pipes: Path) -> None:
    os.mkfifo(pipes / "fifo")
    os.chmod(pipes / "fifo", 0o600)
    assert gate.spawn(lambda: refused(lambda: os.open(pipes / "fifo", os.O_RDWR)), uid=NOBODY).result() == "EACCES"
    assert gate.spawn(lambda: refused(lambda: os.chmod(pipes / "fifo", 0o666)), uid=NOBODY).result() == "EPERM"
    assert gate.call_as(NOBODY, "open", b"fifo", "O_RDWR").errno == "EACCES"
    os.chown(pipes / "fifo", NOBODY, NOBODY)
    assert gate.call_as(NOBODY, "open", b"fifo", "O_RDWR").errno == ""
    status = (pipes / "fifo").stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFIFO | 0o600, NOBODY, NOBODY)


def test_a_name_cannot_pass_for_a_row_of_the_table(pipes: Path) -> None:
    os.mkfifo(os.fsencode(pipes) + b"/a \n\xff")
    try:
        lines = (pipes / "ctl").read_bytes().splitlines()
        assert len(lines) == 2
        assert lines[1].startswith(rb'"a \n\377"  fifo ')
    finally:
        os.unlink(os.fsencode(pipes) + b"/a \n\xff")


def test_touch_sets_the_times_of_a_fifo(pipes: Path) -> None:
    os.mkfifo(pipes / "fifo")
    os.utime(pipes / "fifo", ns=(10**18, 10**18 + 7))
    status = (pipes / "fifo").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (10**18, 10**18 + 7)
    assert status.st_ctime > 10**9 + 1
    subprocess.run(["touch", pipes / "fifo"], check=True)
    assert (pipes / "fifo").stat().st_mtime > 10**9 + 1


@pytest.mark.parametrize("way", ["rm", "unlink", "ctl", "mv"])
def test_only_the_owner_removes_or_renames_a_fifo(gate: MountDoor, pipes: Path, way: str) -> None:
    os.mkfifo(pipes / "fifo")
    os.chmod(pipes / "fifo", 0o666)

    def remove() -> str:
        match way:
            case "rm":
                return refused((pipes / "fifo").unlink)
            case "mv":
                return refused(lambda: (pipes / "fifo").rename(pipes / "other"))
            case "ctl":
                return write(os.open(pipes / "ctl", os.O_WRONLY), b"remove fifo\n")
        return gate.call("unlink", b"fifo").errno

    assert gate.spawn(remove, uid=NOBODY).result() == "EPERM"
    assert gate.spawn(remove).result() == ""
    assert not (pipes / "fifo").exists()


def test_a_removed_fifo_lives_on_for_those_who_have_it_open(pipes: Path) -> None:
    os.mkfifo(pipes / "fifo")
    fd = os.open(pipes / "fifo", os.O_RDWR)
    (pipes / "fifo").unlink()
    os.mkfifo(pipes / "fifo")
    other = os.open(pipes / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.write(fd, b"to the old one")
    assert os.read(other, 100) == b""
    assert os.read(fd, 100) == b"to the old one"
    assert os.fstat(fd).st_ino != os.fstat(other).st_ino
    os.close(fd)
    os.close(other)


def test_a_fifo_keeps_its_data_when_it_is_renamed_over_another(pipes: Path) -> None:
    os.mkfifo(pipes / "one")
    os.mkfifo(pipes / "other")
    fd = os.open(pipes / "one", os.O_RDWR)
    os.write(fd, b"moved")
    (pipes / "one").rename(pipes / "other")
    reader = os.open(pipes / "other", os.O_RDONLY)
    assert os.read(reader, 100) == b"moved"
    assert not (pipes / "one").exists()
    os.close(fd)
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "expected"), [("ctl", "EEXIST"), ("12.3", "EINVAL"), ("x" * 256, "ENAMETOOLONG"), ("same", "EEXIST")]
)
def test_a_name_that_cannot_be_had(gate: MountDoor, pipes: Path, name: str, expected: str) -> None:
    os.mkfifo(pipes / "same")
    assert refused(lambda: os.mkfifo(pipes / name)) == expected
    assert gate.call("mkfifo", name.encode()).errno == expected


def test_nothing_but_fifos_is_made_in_pipes(pipes: Path) -> None:
    assert refused(lambda: (pipes / "file").write_text("x")) == "EPERM"
    assert refused(lambda: os.mknod(pipes / "socket", stat.S_IFSOCK | 0o666)) == "EPERM"
    assert refused(lambda: os.link(pipes / "ctl", pipes / "link")) in ("EPERM", "ENOSYS")


def test_ctl_makes_lists_and_removes_fifos(pipes: Path) -> None:
    (pipes / "ctl").write_text("create fifo 0620\n")
    assert stat.S_IMODE((pipes / "fifo").stat().st_mode) == 0o620 & ~current_umask()
    assert [row["name"] for row in table(pipes / "ctl")] == ["fifo"]
    (pipes / "ctl").write_text("remove fifo\n")
    assert table(pipes / "ctl") == []
    assert refused(lambda: (pipes / "ctl").write_text("create ../x\n")) == "EINVAL"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- what open refuses


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("{mount}/help", "EDEADLK"),
        ("{mount}/syscall", "EDEADLK"),
        ("{mount}/pipes/ctl", "EDEADLK"),
        ("ctl", "EDEADLK"),
        ("/proc/self/fd/0", "ELOOP"),
        ("/dev/stdin", "ELOOP"),
        ("/proc/self/maps", "EACCES"),
        ("/dev/fuse", "EACCES"),
        ("no-such-fifo", "ENOENT"),
    ],
)
def test_open_does_not_lead_into_the_daemon(gate: MountDoor, mount: Mount, path: str, expected: str) -> None:
    assert gate.call("open", path.format(mount=mount.path).encode(), "O_RDONLY").errno == expected


def test_writing_to_a_standard_stream_in_the_mount_is_edeadlk(mount: Mount) -> None:
    script = f"echo 'write 1 x' > {mount.gate}; cat {mount.gate}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert result.stdout.startswith("-1 EDEADLK ")


# --- anonymous pipes and descriptors


def test_an_anonymous_pipe_shows_and_leads_to_the_real_pipe(gate: MountDoor, pipes: Path) -> None:
    ends = gate.ok("pipe").results
    read, written = (pipes / f"{os.getpid()}.{fd}" for fd in (ends["read"], ends["write"]))
    assert {read.name, written.name} <= set(os.listdir(pipes))
    written.write_bytes(b"by its name")
    assert gate.ok("read", ends["read"], 100).data == b"by its name"
    rows = {row["name"]: row for row in table(pipes / "ctl")}
    assert (rows[read.name]["end"], rows[read.name]["size"], rows[read.name]["bytes"]) == ("read", "65536", "0")
    for fd in ends.values():
        gate.ok("close", fd)
    assert not os.path.lexists(read)


def test_the_link_to_a_pipe_is_of_no_use_to_others(gate: MountDoor, mount: Mount, pipes: Path) -> None:
    ends = gate.ok("pipe").results
    for path in (pipes / f"{os.getpid()}.{ends['read']}", mount.path / f"proc/{os.getpid()}/fd/{ends['read']}"):
        for uid in (NOBODY, 4242):
            assert (
                gate.spawn(lambda path=path: refused(lambda: os.open(path, os.O_RDONLY)), uid=uid).result() == "EACCES"
            )
        os.close(os.open(path, os.O_RDONLY))
    listing = mount.path / f"proc/{os.getpid()}"
    assert gate.spawn(lambda: refused(lambda: os.listdir(listing / "fd")), uid=NOBODY).result() == "EACCES"
    assert gate.spawn(lambda: refused((listing / "fds").read_text), uid=NOBODY).result() == "EACCES"
    for fd in ends.values():
        gate.ok("close", fd)


def test_the_records_of_all_descriptors_can_be_read(gate: MountDoor, mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0123456789")

    def use() -> list[dict[str, str]]:
        gate.ok("socketpair", "SOCK_CLOEXEC")
        gate.ok("read", gate.ok("open", bytes(tmp_path / "file"), "O_RDONLY").ret, 4)
        return table(mount.path / f"proc/{os.getpid()}/fds")

    rows = [
        (row["file_type"], row["permissions"], row["offset"], row["close_on_exec"]) for row in gate.spawn(use).result()
    ]
    assert rows[:3] == [("standard", "rw", "0", "no")] * 3
    assert rows[-3:] == [("socket", "rw", "0", "yes")] * 2 + [("file", "r", "4", "no")]


def test_looking_at_a_processs_descriptors_copies_none(gate: MountDoor, mount: Mount) -> None:
    def child(read: int, written: int) -> bytes | None:
        gate.ok("getpid")
        os.listdir(mount.path / f"proc/{os.getpid()}/fd")
        (mount.path / f"proc/{os.getpid()}/fds").read_text()
        return gate.call("close", written).errno  # only now the table is copied

    ends = gate.ok("pipe2", "O_NONBLOCK").results
    assert gate.spawn(lambda: child(ends["read"], ends["write"])).result() == ""
    gate.ok("close", ends["write"])
    assert gate.ok("read", ends["read"], 1).data == b""
    gate.ok("close", ends["read"])


def test_a_dead_process_leaves_no_pipe(gate: MountDoor, mount: Mount, pipes: Path) -> None:
    host_fds = Path(f"/proc/{mount.daemon.pid}/fd")
    gate.ok("getpid")
    before = len(os.listdir(host_fds))
    assert gate.spawn(lambda: [gate.ok("pipe").ret for _ in range(100)]).result() == [0] * 100
    wait_until(lambda: len(os.listdir(host_fds)) <= before, "the daemon has closed them")
    assert [name for name in os.listdir(pipes) if "." in name] == []
