"""getdents64(2): names of any bytes, types, inode numbers."""

import os
import stat
from pathlib import Path

import pytest
from doors import Door
from opened import Descriptors

NAMES = [b"plain", b"two words", b"a,b", b'quo"te', b"back\\slash", b"new\nline", b"\xff\xfe", "naïve".encode(), b"1"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.fixture
def opened(fds: Descriptors, directory: Path) -> int:
    return fds.call("open", os.fsencode(directory), "O_RDONLY|O_DIRECTORY")


def listed(result: object) -> list[tuple[str, str, int]]:
    columns = (result.results[column] for column in ("names", "types", "inos"))
    names, types, inos = (column if isinstance(column, list) else [column] for column in columns)
    return list(zip(map(str, names), types, inos, strict=True))


def test_every_entry_is_there_with_its_type_and_inode_number(door: Door, opened: int, directory: Path) -> None:
    kinds = {stat.S_IFREG: "DT_REG", stat.S_IFDIR: "DT_DIR", stat.S_IFLNK: "DT_LNK", stat.S_IFIFO: "DT_FIFO"}
    there = {".": directory, "..": directory.parent} | {entry.name: entry for entry in directory.iterdir()}
    expected = {(name, kinds[stat.S_IFMT(path.lstat().st_mode)], path.lstat().st_ino) for name, path in there.items()}
    answer = door.ok("getdents64", opened)
    assert sorted(listed(answer)) == sorted(expected)
    assert door.ok("getdents64", opened).ret == 0


def test_a_small_buffer_takes_several_calls(door: Door, opened: int) -> None:
    names = []
    while (answer := door.ok("getdents64", opened, 64)).ret:
        assert answer.ret <= 64
        names += [name for name, _, _ in listed(answer)]
    assert sorted(names) == sorted([*map(os.fsdecode, NAMES), ".", "..", "sub", "link", "fifo"])


def test_a_buffer_that_holds_no_entry_is_einval(door: Door, opened: int) -> None:
    assert door.call("getdents64", opened, 8).errno == "EINVAL"


def test_lseek_begins_anew(door: Door, opened: int) -> None:
    first = listed(door.ok("getdents64", opened))
    door.ok("lseek", opened, 0, "SEEK_SET")
    assert listed(door.ok("getdents64", opened)) == first


def test_a_directory_is_not_read_or_written(door: Door, opened: int) -> None:
    assert door.call("read", opened, 10).errno == "EISDIR"
    assert door.call("write", opened, b"x").errno == "EBADF"
    assert door.call("pread64", opened, 10, 0).errno == "EISDIR"


def test_what_is_no_directory_is_enotdir(door: Door, fds: Descriptors, directory: Path) -> None:
    fd = fds.call("open", os.fsencode(directory / "plain"), "O_RDONLY")
    assert door.call("getdents64", fd).errno == "ENOTDIR"
    assert door.call("getdents64", fds.pipe()[0]).errno == "ENOTDIR"


def test_a_directory_is_always_ready(door: Door, opened: int) -> None:
    assert door.ok("poll", (opened, "POLLIN")).results["revents"] in ([1], 1)
