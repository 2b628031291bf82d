"""Extended attributes, by path, of a symbolic link itself, and by descriptor."""

import os
from pathlib import Path

import pytest
from doors import NOBODY, Door
from opened import Descriptors


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o711)
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o644)
    try:
        os.setxattr(path, "user.test", b"")
    except OSError:
        pytest.skip("this file system has no user attributes")
    os.removexattr(path, "user.test")
    (tmp_path / "link").symlink_to("file")
    return path


def test_attributes_are_set_read_listed_and_removed(door: Door, fds: Descriptors, file: Path) -> None:
    link = bytes(file.parent / "link")
    fd = fds.call("open", bytes(file), "O_RDONLY")
    door.ok("setxattr", link, b"user.path", b"by \0 path")
    door.ok("lsetxattr", bytes(file), b"user.self", b"")
    door.ok("fsetxattr", fd, b"user.descriptor", b"by descriptor")
    assert os.getxattr(file, "user.path") == b"by \0 path"
    for call, thing in (("getxattr", link), ("lgetxattr", bytes(file)), ("fgetxattr", fd)):
        assert door.ok(call, thing, b"user.path").data == b"by \0 path"
        assert door.ok(call, thing, b"user.self").data == b""
        assert (door.ok(call, thing, b"user.path", size=0).ret, door.call(call, thing, b"user.path", size=8).errno) == (
            9,
            "ERANGE",
        )
        assert door.call(call, thing, b"user.none").errno == "ENODATA"
    for call, thing in (("listxattr", link), ("llistxattr", bytes(file)), ("flistxattr", fd)):
        names = door.ok(call, thing).data or b""
        assert {b"user.path", b"user.self", b"user.descriptor"} <= set(names.split(b"\0"))
        assert names.endswith(b"\0")
        assert door.ok(call, thing, size=0).ret == len(names)
    door.ok("removexattr", link, b"user.path")
    door.ok("lremovexattr", bytes(file), b"user.self")
    door.ok("fremovexattr", fd, b"user.descriptor")
    assert not [name for name in os.listxattr(file) if name.startswith("user.")]


def test_xattr_create_and_replace(door: Door, file: Path) -> None:
    path, name = bytes(file), b"user.x"
    assert door.call("setxattr", path, name, b"1", "XATTR_REPLACE").errno == "ENODATA"
    door.ok("setxattr", path, name, b"1", "XATTR_CREATE")
    assert door.call("setxattr", path, name, b"2", "XATTR_CREATE").errno == "EEXIST"
    door.ok("setxattr", path, name, b"3", "XATTR_REPLACE")
    assert door.call("setxattr", path, name, b"4", 4).errno == "EINVAL"
    assert os.getxattr(file, "user.x") == b"3"


@pytest.mark.parametrize(
    ("name", "errno"),
    [(b"nonsense", "ENOTSUP"), (b"", "ERANGE"), (b"user." + 255 * b"x", "ERANGE"), (b"user.", "EINVAL")],
)
def test_names_that_are_none(door: Door, file: Path, name: bytes, errno: str) -> None:
    assert door.call("setxattr", bytes(file), name, b"v").errno == errno


def test_a_symbolic_link_has_no_user_attributes(door: Door, file: Path) -> None:
    link = bytes(file.parent / "link")
    assert door.call("lsetxattr", link, b"user.x", b"v").errno == "EPERM"
    assert door.call("lgetxattr", link, b"user.x").errno in ("ENODATA", "EPERM")


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
def test_rights(door: Door, file: Path) -> None:
    door.ok("setxattr", bytes(file), b"user.x", b"v")
    assert door.call_as(NOBODY, "setxattr", bytes(file), b"user.x", b"w").errno == "EACCES"
    assert door.call_as(NOBODY, "removexattr", bytes(file), b"user.x").errno == "EACCES"
    assert door.call_as(NOBODY, "setxattr", bytes(file), b"trusted.x", b"w").errno == "EPERM"
    assert door.call_as(NOBODY, "getxattr", bytes(file), b"user.x").data == b"v"
    file.chmod(0o600)
    assert door.call_as(NOBODY, "getxattr", bytes(file), b"user.x").errno == "EACCES"
