"""``shm/``: segments as files of a fixed size."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import NOBODY
from mounts import Mount
from native_msg import CONSTANTS
from native_shm import peek, poke, shmctl, shmget

KEY = 0x5359_0040
IPC_CREAT, IPC_RMID, IPC_STAT = (CONSTANTS[name] for name in ("IPC_CREAT", "IPC_RMID", "IPC_STAT"))


@pytest.fixture
def new_segment(mount: Mount) -> Iterator[Callable[..., int]]:
    """Makes segments natively: ``new_segment(5000, key, 0o640)``."""
    made = []

    def make(size: int = 5000, key: int = KEY, mode: int = 0o600) -> int:
        made.append(shmget(key, size, IPC_CREAT | mode))
        return made[-1]

    yield make
    for shmid in made:
        with suppress(OSError):
            shmctl(shmid, IPC_RMID)


@pytest.fixture
def removed_by_key(mount: Mount) -> Iterator[Path]:
    """The file of KEY in ``key/``; a segment that has the key at the end is removed."""
    yield mount.path / f"shm/key/{KEY:#x}"
    with suppress(OSError):
        shmctl(shmget(KEY, 0), IPC_RMID)


def status(shmid: int) -> dict[str, int]:
    return shmctl(shmid, IPC_STAT).results


def by_id(mount: Mount, shmid: int) -> Path:
    return mount.path / f"shm/sysv/{shmid}"


def failure(body: Callable[[], object]) -> str:
    """The name of the errno that the body fails with; empty if it does not."""
    try:
        body()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


# --- names and attributes


def test_a_segment_is_one_file_by_id_and_by_key(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment(5001, mode=0o640)
    by_key = os.stat(mount.path / f"shm/key/{KEY:#x}")
    found = os.stat(by_id(mount, shmid))
    assert os.path.samestat(found, by_key)
    assert (found.st_size, found.st_mode & 0o7777, found.st_uid, found.st_gid) == (5001, 0o640, 0, 0)
    assert found.st_ctime == status(shmid)["ctime"]


def test_directories_show_what_exists_and_nothing_that_is_gone(mount: Mount, new_segment: Callable[..., int]) -> None:
    keyed, private = new_segment(), new_segment(key=0)
    assert {str(keyed), str(private)} <= set(os.listdir(mount.path / "shm/sysv"))
    assert os.listdir(mount.path / "shm/key") == [f"{KEY:#x}"]
    shmctl(keyed, IPC_RMID)
    assert str(keyed) not in os.listdir(mount.path / "shm/sysv")
    assert os.listdir(mount.path / "shm/key") == []
    assert failure(lambda: os.stat(by_id(mount, keyed))) == "ENOENT"


@pytest.mark.parametrize("name", ["sysv/999999", "sysv/x", "sysv/1@2", "key/0x123", "key/0", "key/0x0", "key/123"])
def test_a_name_that_means_nothing_is_enoent(mount: Mount, name: str) -> None:
    assert failure(lambda: os.stat(mount.path / "shm" / name)) == "ENOENT"


def test_posix_shared_memory_is_the_hosts(mount: Mount) -> None:
    assert os.readlink(mount.path / "shm/posix") == "/dev/shm"


def test_extended_attributes_tell_what_stat_has_no_field_for(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment()
    file = by_id(mount, shmid)
    found = {name: os.getxattr(file, name).decode() for name in os.listxattr(file)}
    assert found["user.key"] == f"{KEY:#x}"
    assert found["user.cpid"] == str(os.getpid())
    assert (found["user.nattch"], found["user.lpid"], found["user.status"]) == ("0", "0", "-")


def test_chmod_chown_and_rm_are_ipc_set_and_ipc_rmid(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment()
    os.chmod(by_id(mount, shmid), 0o604)
    os.chown(by_id(mount, shmid), NOBODY, NOBODY)
    found = status(shmid)
    assert (found["mode"], found["uid"], found["gid"], found["cuid"]) == (0o604, NOBODY, NOBODY, 0)
    os.unlink(mount.path / f"shm/key/{KEY:#x}")
    assert failure(lambda: status(shmid)) == "EINVAL"


def test_other_users_get_what_the_mode_says(mount: Mount, new_segment: Callable[..., int]) -> None:
    file = by_id(mount, new_segment(mode=0o604))
    poke(int(file.name), b"public")

    def as_nobody() -> list[object]:
        return [
            file.read_bytes()[:6],
            failure(lambda: os.open(file, os.O_RDWR)),
            failure(lambda: os.unlink(file)),
            failure(lambda: os.chmod(file, 0o666)),
        ]

    assert Child(as_nobody, uid=NOBODY).result() == [b"public", "EACCES", "EPERM", "EPERM"]
    os.chmod(file, 0o600)
    assert Child(lambda: failure(lambda: os.open(file, os.O_RDONLY)), uid=NOBODY).result() == "EACCES"


# --- contents


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, 5000, 5000), (0, 9999, 5000), (4990, 100, 10), (4999, 1, 1), (5000, 1, 0), (1 << 40, 1, 0)],
)
def test_a_read_ends_at_the_segments_end(
    mount: Mount, new_segment: Callable[..., int], offset: int, size: int, expected: int
) -> None:
    shmid = new_segment()
    data = os.urandom(5000)
    poke(shmid, data)
    for flags in (os.O_RDONLY, os.O_RDWR):
        fd = os.open(by_id(mount, shmid), flags)
        assert os.pread(fd, size, offset) == data[offset : offset + expected]
        os.close(fd)


@pytest.mark.parametrize(
    ("offset", "size", "expected"), [(0, 5000, 5000), (17, 1, 1), (4990, 10, 10), (4990, 11, 10), (0, 6000, 5000)]
)
def test_a_write_across_the_end_is_short(
    mount: Mount, new_segment: Callable[..., int], offset: int, size: int, expected: int
) -> None:
    shmid = new_segment()
    fd = os.open(by_id(mount, shmid), os.O_WRONLY)
    assert os.pwrite(fd, b"x" * size, offset) == expected
    os.close(fd)
    assert peek(shmid, 5000) == bytes(offset) + b"x" * expected + bytes(5000 - offset - expected)


@pytest.mark.parametrize("offset", [5000, 5001, 1 << 40])
def test_a_write_past_the_end_is_enospc(mount: Mount, new_segment: Callable[..., int], offset: int) -> None:
    fd = os.open(by_id(mount, new_segment()), os.O_WRONLY)
    assert failure(lambda: os.pwrite(fd, b"x", offset)) == "ENOSPC"
    os.close(fd)


def test_truncation_changes_nothing_and_another_size_is_einval(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment()
    poke(shmid, b"kept")
    os.truncate(by_id(mount, shmid), 5000)
    os.close(os.open(by_id(mount, shmid), os.O_WRONLY | os.O_TRUNC))
    assert failure(lambda: os.truncate(by_id(mount, shmid), 4999)) == "EINVAL"
    assert peek(shmid, 4) == b"kept"
    assert os.stat(by_id(mount, shmid)).st_size == 5000


def test_large_pieces_arrive_whole(mount: Mount, new_segment: Callable[..., int]) -> None:
    size = (3 << 20) + 12345
    shmid = new_segment(size)
    data = os.urandom(size)
    by_id(mount, shmid).write_bytes(data)
    assert peek(shmid, size) == data
    assert by_id(mount, shmid).read_bytes() == data


# --- attachment


def test_a_file_that_is_open_for_writing_is_an_attachment(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment()
    fd = os.open(by_id(mount, shmid), os.O_RDWR)
    assert status(shmid)["nattch"] == 1
    assert os.getxattr(by_id(mount, shmid), "user.lpid") == str(os.getpid()).encode()
    os.unlink(by_id(mount, shmid))
    assert status(shmid)["mode"] == 0o1600
    os.pwrite(fd, b"still there", 0)
    assert os.pread(fd, 5, 0) == b"still"
    os.close(fd)
    wait_until(lambda: failure(lambda: status(shmid)) == "EINVAL", "it goes with its last attachment")


def test_looking_leaves_no_attachment_and_keeps_nothing_alive(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment()
    poke(shmid, b"seen")
    lpid = os.getxattr(by_id(mount, shmid), "user.lpid")
    fd = os.open(by_id(mount, shmid), os.O_RDONLY)
    assert os.pread(fd, 4, 0) == b"seen"
    assert status(shmid)["nattch"] == 0
    assert os.getxattr(by_id(mount, shmid), "user.lpid") == lpid
    shmctl(shmid, IPC_RMID)
    assert failure(lambda: status(shmid)) == "EINVAL"
    assert failure(lambda: os.pread(fd, 4, 0)) == "EIDRM"
    os.close(fd)


# --- new segments


def test_truncate_makes_a_segment_of_a_new_name(mount: Mount, removed_by_key: Path) -> None:
    subprocess.run(["truncate", "-s", "5000", removed_by_key], check=True)
    assert status(shmget(KEY, 0))["segsz"] == 5000
    assert removed_by_key.stat().st_size == 5000


def test_the_first_write_gives_a_new_segment_its_size(mount: Mount, removed_by_key: Path) -> None:
    removed_by_key.write_bytes(b"hello")
    assert status(shmget(KEY, 0))["segsz"] == 5
    assert removed_by_key.read_bytes() == b"hello"


def test_a_name_without_a_size_is_held_for_its_user_and_is_no_segment(mount: Mount, removed_by_key: Path) -> None:
    os.umask(0o027)
    removed_by_key.touch()
    os.umask(0o022)
    assert failure(lambda: shmget(KEY, 0)) == "ENOENT"
    assert (removed_by_key.stat().st_size, removed_by_key.stat().st_mode & 0o777) == (0, 0o640)
    assert os.listdir(removed_by_key.parent) == [removed_by_key.name]
    assert Child(lambda: os.listdir(removed_by_key.parent), uid=NOBODY).result() == []
    os.chmod(removed_by_key, 0o604)
    os.truncate(removed_by_key, 100)
    assert status(shmget(KEY, 0))["mode"] == 0o604


def test_a_name_without_a_size_can_be_removed(mount: Mount, removed_by_key: Path) -> None:
    removed_by_key.touch()
    removed_by_key.unlink()
    assert not removed_by_key.exists()
    assert failure(removed_by_key.unlink) == "ENOENT"


def test_a_name_without_a_size_gives_way_to_a_segment_of_its_key(
    mount: Mount, removed_by_key: Path, new_segment: Callable[..., int]
) -> None:
    fd = os.open(removed_by_key, os.O_RDWR | os.O_CREAT)
    shmid = new_segment(77)
    assert removed_by_key.stat().st_size == 77
    assert failure(lambda: os.ftruncate(fd, 100)) == "EEXIST"
    os.close(fd)
    shmctl(shmid, IPC_RMID)
    assert not removed_by_key.exists()


def test_a_user_holds_so_many_names_without_a_size_and_the_oldest_goes(mount: Mount) -> None:
    directory = mount.path / "shm/key"
    for key in range(0x100, 0x100 + 65):
        (directory / f"{key:#x}").touch()
    names = os.listdir(directory)
    assert len(names) == 64
    assert "0x100" not in names
    for name in names:
        (directory / name).unlink()


def test_who_sizes_a_new_segment_owns_it(mount: Mount, removed_by_key: Path) -> None:
    removed_by_key.touch()
    removed_by_key.unlink()
    Child(lambda: removed_by_key.write_bytes(b"mine"), uid=NOBODY).result()
    found = status(shmget(KEY, 0))
    assert (found["uid"], found["cuid"], found["segsz"]) == (NOBODY, NOBODY, 4)


# --- ctl


def test_ctl_shows_a_line_a_segment(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment(5000)
    poke(shmid, b"one page")
    header, *lines = (mount.path / "shm/ctl").read_text().splitlines()
    (line,) = (line for line in lines if line.split()[1] == str(shmid))
    found = dict(zip(header.split(), line.split(), strict=True))
    expected = {"key": f"{KEY:#x}", "perms": "0600", "segsz": "5000", "nattch": "0", "status": "-", "rss": "4096"}
    assert found.items() >= (expected | {"cpid": str(os.getpid())}).items()


def test_ctl_words_create_set_lock_and_remove(mount: Mount) -> None:
    with open(mount.path / "shm/ctl", "r+b", buffering=0) as ctl:
        ctl.write(b"create %#x 5000 0640\n" % KEY)
        shmid = int(ctl.read())
        assert (status(shmid)["segsz"], status(shmid)["mode"]) == (5000, 0o640)
        ctl.write(b"set %d mode=0604 uid=%d\n" % (shmid, NOBODY))
        ctl.write(b"lock %d\n" % shmid)
        assert (status(shmid)["uid"], status(shmid)["mode"]) == (NOBODY, 0o2604)
        ctl.write(b"unlock %d\n" % shmid)
        assert status(shmid)["mode"] == 0o604
        ctl.write(b"remove %d\n" % shmid)
        assert failure(lambda: status(shmid)) == "EINVAL"
        assert failure(lambda: ctl.write(b"remove %d\n" % shmid)) == "EINVAL"
        assert failure(lambda: ctl.write(b"destroy 1\n")) == "EINVAL"


def test_programs_of_the_host_meet_on_the_segment(mount: Mount, removed_by_key: Path) -> None:
    subprocess.run(["ipcmk", "-M", "4096"], check=True, stdout=subprocess.DEVNULL)
    (made,) = os.listdir(mount.path / "shm/sysv")
    program = "import sys; f = open(sys.argv[1], 'r+b'); f.write(b'from python'); f.close()"
    subprocess.run([sys.executable, "-c", program, by_id(mount, int(made))], check=True)
    assert peek(int(made), 11) == b"from python"
    subprocess.run(["ipcrm", "-m", made], check=True)
    assert os.listdir(mount.path / "shm/sysv") == []
