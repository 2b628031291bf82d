"""ftok: the key of a file and a number."""

import os
from pathlib import Path

import pytest
from doors import NOBODY, Door


@pytest.mark.parametrize("project", [1, 65, 255, 256 + 65, 0, -1])
def test_the_key_is_the_low_bits_of_id_device_and_inode(door: Door, tmp_path: Path, project: int) -> None:
    found = os.stat(tmp_path)
    expected = (project & 0xFF) << 24 | (found.st_dev & 0xFF) << 16 | found.st_ino & 0xFFFF
    assert door.ok("ftok", bytes(tmp_path), project).ret == expected


def test_a_symbolic_link_stands_for_its_target(door: Door, tmp_path: Path) -> None:
    for name, target in (("absolute", "/etc"), ("relative", "../../../../../../etc")):
        (tmp_path / name).symlink_to(target)
        assert door.ok("ftok", bytes(tmp_path / name), 7).ret == door.ok("ftok", b"/etc", 7).ret


def test_a_relative_path_begins_at_the_callers_working_directory(door: Door, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").touch()

    def there() -> int:
        os.chdir(tmp_path / "sub")
        return door.ok("ftok", b"../file", 9).ret

    assert door.spawn(there).result() == door.ok("ftok", bytes(tmp_path / "file"), 9).ret


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"/nowhere", "ENOENT"), (b"", "ENOENT"), (b"/etc/passwd/x", "ENOTDIR"), (b"/" + b"x" * 300, "ENAMETOOLONG")],
)
def test_a_path_that_leads_nowhere_says_why(door: Door, path: bytes, expected: str) -> None:
    assert door.call("ftok", path, 1).errno == expected


def test_a_loop_of_links_is_eloop(door: Door, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert door.call("ftok", bytes(tmp_path / "loop"), 1).errno == "ELOOP"


def test_a_directory_that_the_caller_may_not_search_is_eacces(door: Door, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0o700)
    (tmp_path / "secret" / "file").touch()
    assert door.call_as(NOBODY, "ftok", bytes(tmp_path / "secret" / "file"), 1).errno == "EACCES"
