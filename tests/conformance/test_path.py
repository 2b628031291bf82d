"""Names: every call that takes a path, and the errno of every way in which one fails."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trees
from doors import NOBODY, Door
from opened import Descriptors

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user, and mounts")
pytestmark = needs_root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tmp_path.chmod(0o711)
    return trees.grow(tmp_path / "tree")


@pytest.fixture
def mounts(tree: Path) -> Iterator[Path]:
    with trees.mounted(tree):
        yield tree


#: Calls on a path that has to be there, ``P``, and on one that has not, ``N``; ``F`` is a file. What has W changes
#: something. By name where one call is here more than once.
CALLS: dict[str, tuple[str, tuple]] = {
    "open": ("open", ("P", "O_RDONLY")),
    "open for writing W": ("open", ("P", "O_WRONLY")),
    "open new W": ("open", ("N", "O_WRONLY|O_CREAT")),
    "open only new W": ("open", ("N", "O_WRONLY|O_CREAT|O_EXCL")),
    "open O_PATH": ("open", ("P", "O_PATH")),
    "creat W": ("creat", ("N",)),
    "openat": ("openat", ("AT_FDCWD", "P", "O_RDONLY")),
    "openat2": ("openat2", ("AT_FDCWD", "P", "O_RDONLY")),
    "stat": ("stat", ("P",)),
    "lstat": ("lstat", ("P",)),
    "newfstatat": ("newfstatat", ("AT_FDCWD", "P")),
    "statx": ("statx", ("AT_FDCWD", "P")),
    "statfs": ("statfs", ("P",)),
    "access": ("access", ("P", "F_OK")),
    "access for writing W": ("access", ("P", "W_OK")),
    "faccessat2": ("faccessat2", ("AT_FDCWD", "P", "R_OK", "AT_EACCESS")),
    "truncate W": ("truncate", ("P", 0)),
    "chdir": ("chdir", ("P",)),
    "mkdir W": ("mkdir", ("N",)),
    "mkdirat W": ("mkdirat", ("AT_FDCWD", "N")),
    "rmdir W": ("rmdir", ("P",)),
    "link from W": ("link", ("P", "F-new")),
    "link to W": ("link", ("F", "N")),
    "linkat W": ("linkat", ("AT_FDCWD", "F", "AT_FDCWD", "N", "AT_SYMLINK_FOLLOW")),
    "symlink W": ("symlink", (b"anything", "N")),
    "symlinkat W": ("symlinkat", (b"anything", "AT_FDCWD", "N")),
    "readlink": ("readlink", ("P",)),
    "readlinkat": ("readlinkat", ("AT_FDCWD", "P")),
    "rename from W": ("rename", ("P", "F-new")),
    "rename to W": ("rename", ("F", "N")),
    "renameat W": ("renameat", ("AT_FDCWD", "P", "AT_FDCWD", "F-new")),
    "renameat2 W": ("renameat2", ("AT_FDCWD", "P", "AT_FDCWD", "F-new", "RENAME_NOREPLACE")),
    "unlink W": ("unlink", ("P",)),
    "unlinkat W": ("unlinkat", ("AT_FDCWD", "P")),
    "unlinkat AT_REMOVEDIR W": ("unlinkat", ("AT_FDCWD", "P", "AT_REMOVEDIR")),
    "mknod W": ("mknod", ("N", "S_IFREG|0600")),
    "mknodat W": ("mknodat", ("AT_FDCWD", "N", "S_IFSOCK|0600")),
    "mkfifo W": ("mkfifo", ("N",)),
    "chmod W": ("chmod", ("P", 0o600)),
    "fchmodat W": ("fchmodat", ("AT_FDCWD", "P", 0o600)),
    "chown W": ("chown", ("P", 0, 0)),
    "lchown W": ("lchown", ("P", 0, 0)),
    "fchownat W": ("fchownat", ("AT_FDCWD", "P", 0, 0, "AT_SYMLINK_NOFOLLOW")),
    "utimensat W": ("utimensat", ("P",)),
    "utime W": ("utime", ("P", 1, 1)),
    "utimes W": ("utimes", ("P",)),
    "futimesat W": ("futimesat", ("AT_FDCWD", "P")),
    "getxattr": ("getxattr", ("P", b"user.x")),
    "lgetxattr": ("lgetxattr", ("P", b"user.x")),
    "listxattr": ("listxattr", ("P",)),
    "setxattr W": ("setxattr", ("P", b"user.x", b"v")),
    "removexattr W": ("removexattr", ("P", b"user.x")),
}
CHANGES = [name for name in CALLS if name.endswith(" W")]


def arguments(args: tuple, root: Path, path: bytes, file: str = "file") -> tuple:
    """The path in its place, absolute where it is not empty."""
    path = bytes(root) + b"/" + path if path else b""
    places = {"P": path, "N": path, "F": bytes(root / file), "F-new": bytes(root / f"{file}-new")}
    return tuple(places.get(arg, arg) if isinstance(arg, str) else arg for arg in args)


BAD_PATHS = {
    b"x" * 256: "ENAMETOOLONG",
    b"dir/" + b"x" * 256: "ENAMETOOLONG",
    b"." + b"/." * 2048: "ENAMETOOLONG",
    b"loop/x": "ELOOP",
    b"file/x": "ENOTDIR",
    b"link/x": "ENOTDIR",
    b"nowhere/x": "ENOENT",
    b"dangling/x": "ENOENT",
    b"": "ENOENT",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_path_that_leads_nowhere(door: Door, tree: Path, name: str) -> None:
    call, args = CALLS[name]
    before = trees.seen(tree)
    found = {path: door.call(call, *arguments(args, tree, path)).errno for path in BAD_PATHS}
    assert found == BAD_PATHS
    assert trees.seen(tree) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_directory_on_the_way_that_is_not_for_the_caller(door: Door, tree: Path, name: str) -> None:
    call, args = CALLS[name]
    assert door.call_as(NOBODY, call, *arguments(args, tree, b"locked/file")).errno == "EACCES"


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_system_that_is_mounted_read_only(door: Door, mounts: Path, name: str) -> None:
    call, args = CALLS[name]
    path = b"ro/new" if "N" in args else b"ro/empty" if "rmdir" in name or "REMOVEDIR" in name else b"ro/file"
    assert door.call(call, *arguments(args, mounts, path, "ro/other")).errno == "EROFS"


#: Call, arguments (bytes are paths in the tree but for those after =), errno, and as whom.
SPECIAL: list[tuple[str, tuple, str, int]] = [
    # what is there already, or is of another kind
    ("open", (b"file", "O_CREAT|O_EXCL|O_RDWR"), "EEXIST", 0),
    ("open", (b"dangling", "O_CREAT|O_EXCL|O_RDWR"), "EEXIST", 0),
    ("open", (b"dir", "O_CREAT|O_RDONLY"), "EISDIR", 0),
    ("open", (b"dir", "O_CREAT|O_EXCL"), "EEXIST", 0),
    ("open", (b"dir", "O_WRONLY"), "EISDIR", 0),
    ("open", (b"dir", "O_RDWR"), "EISDIR", 0),
    ("open", (b"dir/.", "O_CREAT|O_RDWR"), "EISDIR", 0),
    ("open", (b"new/", "O_CREAT|O_RDWR"), "EISDIR", 0),
    ("open", (b"file/", "O_RDONLY"), "ENOTDIR", 0),
    ("open", (b"file", "O_DIRECTORY"), "ENOTDIR", 0),
    ("open", (b"fifo", "O_DIRECTORY"), "ENOTDIR", 0),
    ("open", (b"file", "O_DIRECTORY|O_PATH"), "ENOTDIR", 0),
    ("open", (b"link", "O_NOFOLLOW"), "ELOOP", 0),
    ("open", (b"dlink", "O_NOFOLLOW|O_DIRECTORY"), "ENOTDIR", 0),
    ("open", (b"loop", "O_RDONLY"), "ELOOP", 0),
    ("open", (b"loop", "O_CREAT|O_WRONLY"), "ELOOP", 0),
    ("open", (b"dangling", "O_RDONLY"), "ENOENT", 0),
    ("open", (b"dangling", "O_CREAT|O_WRONLY|O_NOFOLLOW"), "ELOOP", 0),
    ("open", (b"socket", "O_RDONLY"), "ENXIO", 0),
    ("open", (b"file", "O_TMPFILE|O_RDWR"), "ENOTDIR", 0),
    ("open", (b"dir", "O_TMPFILE|O_RDONLY"), "EINVAL", 0),
    ("open", (b"file", "O_RDONLY|O_NOATIME"), "EPERM", NOBODY),
    ("creat", (b"dir",), "EISDIR", 0),
    ("mkdir", (b"dir",), "EEXIST", 0),
    ("mkdir", (b"file",), "EEXIST", 0),
    ("mkdir", (b"dir/.",), "EEXIST", 0),
    ("mkdir", (b"dir/..",), "EEXIST", 0),
    ("mkdir", (b"dangling",), "EEXIST", 0),
    ("mkdir", (b"file/",), "EEXIST", 0),
    ("mknod", (b"file", "S_IFREG|0600"), "EEXIST", 0),
    ("mknod", (b"dangling", "S_IFIFO|0600"), "EEXIST", 0),
    ("mknod", (b"new/", "S_IFREG|0600"), "ENOENT", 0),
    ("mknod", (b"new", 0o040600), "EPERM", 0),
    ("mknod", (b"new", 0o120600), "EINVAL", 0),
    ("mknod", (b"open/new", "S_IFCHR|0600", 0x103), "EPERM", NOBODY),
    ("symlink", (b"=x", b"file"), "EEXIST", 0),
    ("symlink", (b"=x", b"new/"), "ENOENT", 0),
    ("symlink", (b"=", b"new"), "ENOENT", 0),
    ("link", (b"file", b"dir"), "EEXIST", 0),
    ("link", (b"dir", b"new"), "EPERM", 0),
    ("link", (b"file", b"new/"), "ENOENT", 0),
    ("link", (b"file/", b"new"), "ENOTDIR", 0),
    ("linkat", ("AT_FDCWD", b"dangling", "AT_FDCWD", b"new", "AT_SYMLINK_FOLLOW"), "ENOENT", 0),
    ("linkat", ("AT_FDCWD", b"file", "AT_FDCWD", b"new", 1), "EINVAL", 0),
    # removing
    ("rmdir", (b"dir",), "ENOTEMPTY", 0),
    ("rmdir", (b"file",), "ENOTDIR", 0),
    ("rmdir", (b"dlink",), "ENOTDIR", 0),
    ("rmdir", (b"dlink/",), "ENOTDIR", 0),
    ("rmdir", (b"empty/.",), "EINVAL", 0),
    ("rmdir", (b"empty/..",), "ENOTEMPTY", 0),
    ("rmdir", (b"=/",), "EBUSY", 0),
    ("unlink", (b"dir",), "EISDIR", 0),
    ("unlink", (b"dir/",), "EISDIR", 0),
    ("unlink", (b"dir/.",), "EISDIR", 0),
    ("unlink", (b"dir/..",), "EISDIR", 0),
    ("unlink", (b"=/",), "EISDIR", 0),
    ("unlink", (b"file/",), "ENOTDIR", 0),
    ("unlink", (b"link/",), "ENOTDIR", 0),
    ("unlinkat", ("AT_FDCWD", b"file", "AT_REMOVEDIR"), "ENOTDIR", 0),
    ("unlinkat", ("AT_FDCWD", b"file", 1), "EINVAL", 0),
    # renaming
    ("rename", (b"nowhere", b"new"), "ENOENT", 0),
    ("rename", (b"file", b"dir"), "EISDIR", 0),
    ("rename", (b"empty", b"dir"), "ENOTEMPTY", 0),
    ("rename", (b"empty", b"file"), "ENOTDIR", 0),
    ("rename", (b"dir", b"dir/below"), "EINVAL", 0),
    ("rename", (b"dir/file", b"dir"), "ENOTEMPTY", 0),
    ("rename", (b"dir/.", b"new"), "EBUSY", 0),
    ("rename", (b"dir/..", b"new"), "EBUSY", 0),
    ("rename", (b"file", b"dir/."), "EBUSY", 0),
    ("rename", (b"file", b"new/"), "ENOTDIR", 0),
    ("rename", (b"file/", b"new"), "ENOTDIR", 0),
    ("rename", (b"link/", b"new"), "ENOTDIR", 0),
    ("rename", (b"=/", b"new"), "EBUSY", 0),
    ("renameat2", ("AT_FDCWD", b"file", "AT_FDCWD", b"other", "RENAME_NOREPLACE"), "EEXIST", 0),
    ("renameat2", ("AT_FDCWD", b"file", "AT_FDCWD", b"new", "RENAME_EXCHANGE"), "ENOENT", 0),
    ("renameat2", ("AT_FDCWD", b"file", "AT_FDCWD", b"new", "RENAME_EXCHANGE|RENAME_NOREPLACE"), "EINVAL", 0),
    ("renameat2", ("AT_FDCWD", b"file", "AT_FDCWD", b"new", 8), "EINVAL", 0),
    # links
    ("readlink", (b"file",), "EINVAL", 0),
    ("readlink", (b"dlink/",), "EINVAL", 0),
    ("readlink", (b"link", 0), "EINVAL", 0),
    # status
    ("stat", (b"dangling",), "ENOENT", 0),
    ("stat", (b"loop",), "ELOOP", 0),
    ("stat", (b"file/",), "ENOTDIR", 0),
    ("lstat", (b"dangling/",), "ENOENT", 0),
    ("newfstatat", ("AT_FDCWD", b"file", 1), "EINVAL", 0),
    ("statx", ("AT_FDCWD", b"file", 1), "EINVAL", 0),
    ("statx", ("AT_FDCWD", b"file", 0, 1 << 31), "EINVAL", 0),
    ("access", (b"file", 8), "EINVAL", 0),
    ("access", (b"file", "W_OK"), "EACCES", NOBODY),
    ("access", (b"file", "X_OK"), "EACCES", 0),
    ("faccessat2", ("AT_FDCWD", b"file", "R_OK", 1), "EINVAL", 0),
    ("truncate", (b"dir", 0), "EISDIR", 0),
    ("truncate", (b"fifo", 0), "EINVAL", 0),
    ("truncate", (b"file", -1), "EINVAL", 0),
    ("truncate", (b"file", 0), "EACCES", NOBODY),
    ("chdir", (b"file",), "ENOTDIR", 0),
    ("chdir", (b"locked",), "EACCES", NOBODY),
    # rights
    ("chmod", (b"file", 0o666), "EPERM", NOBODY),
    ("chown", (b"file", NOBODY, NOBODY), "EPERM", NOBODY),
    ("fchmodat", ("AT_FDCWD", b"link", 0o600, "AT_SYMLINK_NOFOLLOW"), "ENOTSUP", 0),
    ("fchmodat", ("AT_FDCWD", b"file", 0o600, 1), "EINVAL", 0),
    ("fchownat", ("AT_FDCWD", b"file", 0, 0, 1), "EINVAL", 0),
    ("utimensat", (b"file", 0, 0), "EPERM", NOBODY),
    ("utimensat", (b"file",), "EACCES", NOBODY),
    ("utime", (b"file", 0, 0), "EPERM", NOBODY),
    ("utimes", (b"file",), "EACCES", NOBODY),
    ("futimesat", ("AT_FDCWD", b"file", 1, 1), "EPERM", NOBODY),
    ("utimensat", (b"file", "UTIME_NOW", "UTIME_OMIT"), "EPERM", NOBODY),
    ("mkdir", (b"new",), "EACCES", NOBODY),
    ("symlink", (b"=x", b"new"), "EACCES", NOBODY),
    ("open", (b"new", "O_CREAT|O_WRONLY"), "EACCES", NOBODY),
    ("open", (b"file", "O_WRONLY"), "EACCES", NOBODY),
    ("open", (b"file", "O_RDONLY|O_TRUNC"), "EACCES", NOBODY),
    ("rename", (b"file", b"open/new"), "EACCES", NOBODY),
    ("unlink", (b"file",), "EACCES", NOBODY),
    ("unlink", (b"sticky/file",), "EPERM", NOBODY),
    ("rmdir", (b"sticky/empty",), "EPERM", NOBODY),
    ("rename", (b"sticky/file", b"sticky/new"), "EPERM", NOBODY),
    ("rename", (b"open/others", b"sticky/file"), "EPERM", NOBODY),
    # descriptors
    ("openat", (999, b"=x", "O_RDONLY"), "EBADF", 0),
    ("newfstatat", (999, b"=", "AT_EMPTY_PATH"), "EBADF", 0),
    ("mkdirat", (999, b"=x"), "EBADF", 0),
    ("renameat", (999, b"=x", 999, b"=y"), "EBADF", 0),
    ("fchdir", (999,), "EBADF", 0),
    ("fstat", (999,), "EBADF", 0),
    ("fchmod", (999, 0o600), "EBADF", 0),
    ("fchown", (999, 0, 0), "EBADF", 0),
    ("fstatfs", (999,), "EBADF", 0),
    ("futimens", (999,), "EBADF", 0),
    ("flistxattr", (999,), "EBADF", 0),
    # openat2
    ("openat2", ("AT_FDCWD", b"file", "O_RDONLY", 0o600), "EINVAL", 0),
    ("openat2", ("AT_FDCWD", b"file", "O_PATH|O_RDWR"), "EINVAL", 0),
    ("openat2", ("AT_FDCWD", b"file", "O_RDONLY", 0, 0x1000), "EINVAL", 0),
    ("openat2", ("AT_FDCWD", b"file", "O_RDONLY", 0, "RESOLVE_BENEATH|RESOLVE_IN_ROOT"), "EINVAL", 0),
    ("openat2", ("AT_FDCWD", b"link", "O_RDONLY", 0, "RESOLVE_NO_SYMLINKS"), "ELOOP", 0),
    ("openat2", ("AT_FDCWD", b"file", "O_RDONLY", 0, "RESOLVE_BENEATH"), "EXDEV", 0),
]  # fmt: skip


def placed(root: Path, args: tuple) -> tuple:
    def one(arg: object) -> object:
        if not isinstance(arg, bytes):
            return arg
        return arg[1:] if arg.startswith(b"=") else bytes(root) + b"/" + arg

    return tuple(map(one, args))


def shown(case: tuple) -> str:
    return f"{case[0]}-{'-'.join(map(str, case[1]))}-{case[2]}"


@pytest.mark.parametrize(("call", "args", "errno", "uid"), SPECIAL, ids=map(shown, SPECIAL))
def test_what_cannot_be(door: Door, tree: Path, call: str, args: tuple, errno: str, uid: int) -> None:
    before = trees.seen(tree)
    result = door.call_as(uid, call, *placed(tree, args)) if uid else door.call(call, *placed(tree, args))
    assert result.errno == errno
    assert trees.seen(tree) == before


@pytest.mark.parametrize(
    ("call", "args", "errno"),
    [
        ("rename", (b"file", b"elsewhere/new"), "EXDEV"),
        ("link", (b"file", b"elsewhere/new"), "EXDEV"),
        ("rmdir", (b"elsewhere",), "EBUSY"),
        ("rename", (b"elsewhere", b"new"), "EBUSY"),
        ("rename", (b"empty", b"elsewhere"), "EBUSY"),
        ("openat2", ("AT_FDCWD", b"elsewhere/file", "O_RDONLY", 0, "RESOLVE_NO_XDEV"), "EXDEV"),
    ],
)
def test_mounts(door: Door, mounts: Path, call: str, args: tuple, errno: str) -> None:
    assert door.call(call, *placed(mounts, args)).errno == errno


@pytest.mark.parametrize(("call", "args"), [("open", ("O_WRONLY",)), ("truncate", (0,))])
def test_a_program_that_runs_is_etxtbsy(door: Door, tree: Path, call: str, args: tuple) -> None:
    with trees.running(tree / "program"):
        assert door.call(call, bytes(tree / "program"), *args).errno == "ETXTBSY"


# --- what is made, moved and removed


def test_names_are_made_moved_and_removed(door: Door, tree: Path) -> None:
    def at(name: str) -> bytes:
        return bytes(tree / name)

    door.ok("mkdir", at("new"), 0o750)
    door.ok("mkdir", at("new/slash") + b"/")
    door.ok("mknod", at("new/regular"), "S_IFREG|0640")
    door.ok("mknod", at("new/plain"), 0o640)
    door.ok("mknod", at("new/socket"), "S_IFSOCK|0640")
    door.ok("mknod", at("new/device"), "S_IFCHR|0640", 0x103)
    door.ok("symlink", b"regular", at("new/link"))
    door.ok("link", at("new/link"), at("new/another link"))
    door.ok("linkat", "AT_FDCWD", at("new/link"), "AT_FDCWD", at("new/hard"), "AT_SYMLINK_FOLLOW")
    door.ok("rename", at("new/plain"), at("new/renamed"))
    door.ok("rename", at("new/slash") + b"/", at("new/moved") + b"//")
    door.ok("renameat2", "AT_FDCWD", at("new/moved"), "AT_FDCWD", at("new/renamed"), "RENAME_EXCHANGE")
    door.ok("unlink", at("new/device"))
    door.ok("rmdir", at("new/renamed") + b"/")
    found = {name: (oct(mode), links, link) for name, (mode, _, _, links, _, link) in trees.seen(tree / "new").items()}
    assert found == {
        "regular": ("0o100640", 2, ""),
        "hard": ("0o100640", 2, ""),
        "moved": ("0o100640", 1, ""),
        "socket": ("0o140640", 1, ""),
        "link": ("0o120777", 2, "regular"),
        "another link": ("0o120777", 2, "regular"),
    }
    assert stat.S_IMODE((tree / "new").stat().st_mode) == 0o750


def test_a_whiteout_is_left_behind(door: Door, mounts: Path) -> None:
    path = mounts / "elsewhere"
    door.ok("renameat2", "AT_FDCWD", bytes(path / "file"), "AT_FDCWD", bytes(path / "new"), "RENAME_WHITEOUT")
    assert stat.S_ISCHR((path / "file").lstat().st_mode)


def test_names_begin_at_a_descriptor_with_a_slash_or_without(door: Door, fds: Descriptors, tree: Path) -> None:
    directory = fds.call("open", bytes(tree), "O_DIRECTORY")
    path = fds.call("openat", directory, b"dir", "O_PATH|O_DIRECTORY")
    door.ok("mkdirat", directory, b"new")
    door.ok("mknodat", directory, b"new/node", "S_IFREG|0600")
    door.ok("symlinkat", b"node", directory, b"new/link")
    door.ok("linkat", directory, b"file", path, b"hard")
    door.ok("renameat", path, b"file", directory, b"new/moved")
    door.ok("unlinkat", directory, b"other")
    door.ok("unlinkat", directory, b"empty", "AT_REMOVEDIR")
    door.ok("fchmodat", directory, b"file", 0o604)
    assert door.ok("readlinkat", directory, b"new/link").data == b"node"
    assert door.ok("newfstatat", path, b"hard").results["mode"] == stat.S_IFREG | 0o604
    fd = fds.call("openat", directory, b"made", "O_CREAT|O_WRONLY", 0o600)
    door.ok("write", fd, b"x")
    assert door.call("mkdirat", fd, b"x").errno == "ENOTDIR"
    assert door.ok("newfstatat", 999, bytes(tree / "file")).ret == 0  # an absolute path asks for no descriptor
    assert (tree / "made").read_bytes() == b"x"
    assert sorted(os.listdir(tree / "new")) == ["link", "moved", "node"]
    assert sorted(os.listdir(tree / "dir")) == ["hard"]


def test_a_descriptor_is_a_place_after_its_directory_was_moved_and_removed(
    door: Door, fds: Descriptors, tree: Path
) -> None:
    directory = fds.call("open", bytes(tree / "empty"), "O_DIRECTORY")
    (tree / "empty").rename(tree / "dir/moved")
    door.ok("mkdirat", directory, b"new")
    (tree / "dir/moved/new").rmdir()
    (tree / "dir/moved").rmdir()
    assert door.call("mkdirat", directory, b"new").errno == "ENOENT"


# --- open


def test_o_creat_makes_what_a_dangling_link_leads_to(door: Door, fds: Descriptors, tree: Path) -> None:
    (tree / "chain").symlink_to("dir/../dlink/second")
    (tree / "dir/second").symlink_to(tree / "dir/made")
    fd = fds.call("open", bytes(tree / "chain"), "O_CREAT|O_WRONLY", 0o640)
    door.ok("write", fd, b"at the end")
    assert (tree / "dir/made").read_bytes() == b"at the end"
    assert (tree / "chain").is_symlink()
    fds.call("open", bytes(tree / "dangling"), "O_CREAT|O_RDWR")
    assert (tree / "nowhere").is_file()


def test_a_directory_opens_for_reading_and_is_not_read(door: Door, fds: Descriptors, tree: Path) -> None:
    fd = fds.call("open", bytes(tree / "dir"), "O_RDONLY")
    assert door.call("read", fd, 10).errno == "EISDIR"
    assert door.call("write", fd, b"x").errno == "EBADF"
    assert door.ok("fstat", fd).results["ino"] == (tree / "dir").stat().st_ino
    assert door.ok("fcntl", fd, "F_GETFL").ret & os.O_DIRECTORY == 0


def test_what_o_path_opens_is_good_for_its_status_alone(door: Door, fds: Descriptors, tree: Path) -> None:
    for name, flags in (("file", "O_PATH"), ("link", "O_PATH|O_NOFOLLOW"), ("socket", "O_PATH|O_RDWR|O_TRUNC")):
        fd = fds.call("open", bytes(tree / name), flags)
        assert door.ok("fstat", fd).results["ino"] == (tree / name).lstat().st_ino
        assert door.ok("newfstatat", fd, b"", "AT_EMPTY_PATH").results["ino"] == (tree / name).lstat().st_ino
        assert door.ok("fcntl", fd, "F_GETFL").ret & os.O_PATH
        attempts = {
            "read": (fd, 1), "write": (fd, b"x"), "lseek": (fd, 0), "fchmod": (fd, 0o600), "fchown": (fd, 0, 0),
            "fgetxattr": (fd, b"user.x"), "ftruncate": (fd, 0),
        }  # fmt: skip
        assert {call: door.call(call, *args).errno for call, args in attempts.items()} == dict.fromkeys(
            attempts, "EBADF"
        )
    assert (tree / "file").read_bytes() == b"0123456789"
    link = fds.call("open", bytes(tree / "link"), "O_PATH|O_NOFOLLOW")
    assert door.ok("readlinkat", link, b"").data == b"file"
    assert door.call("readlinkat", fds.call("open", bytes(tree / "file"), "O_PATH"), b"").errno == "ENOENT"


def test_o_tmpfile_makes_a_file_without_a_name_that_may_get_one(door: Door, fds: Descriptors, mounts: Path) -> None:
    directory = mounts / "elsewhere"
    fd = fds.call("open", bytes(directory), "O_TMPFILE|O_RDWR", 0o640)
    door.ok("write", fd, b"nameless")
    assert os.listdir(directory) == ["file"]
    door.ok("linkat", fd, b"", "AT_FDCWD", bytes(directory / "named"), "AT_EMPTY_PATH")
    assert (directory / "named").read_bytes() == b"nameless"
    assert stat.S_IMODE((directory / "named").stat().st_mode) == 0o640
    never = fds.call("open", bytes(directory), "O_TMPFILE|O_RDWR|O_EXCL")
    linked = door.call("linkat", never, b"", "AT_FDCWD", bytes(directory / "never"), "AT_EMPTY_PATH")
    assert linked.errno == "ENOENT"


@pytest.mark.parametrize("flags", ["O_RDWR", "O_RDWR|O_NONBLOCK", "O_WRONLY|O_APPEND|O_SYNC", "O_RDONLY|O_NOATIME"])
def test_f_getfl_shows_the_flags_of_open(door: Door, fds: Descriptors, tree: Path, flags: str) -> None:
    words = {"O_RDWR": 2, "O_NONBLOCK": 0o4000, "O_WRONLY": 1, "O_APPEND": 0o2000, "O_SYNC": 0o4010000, "O_RDONLY": 0}
    words["O_NOATIME"] = 0o1000000
    fd = fds.call("open", bytes(tree / "file"), flags)
    shown = door.ok("fcntl", fd, "F_GETFL").ret & ~0o100000
    assert shown == sum(words[word] for word in flags.split("|"))


def test_openat2_keeps_to_the_directory_that_it_begins_at(door: Door, fds: Descriptors, tree: Path) -> None:
    (tree / "dir/up").symlink_to("../file")
    (tree / "dir/absolute").symlink_to("/file")
    directory = fds.call("open", bytes(tree / "dir"), "O_PATH")
    beneath = ("O_RDONLY", 0, "RESOLVE_BENEATH")
    assert door.call("openat2", directory, b"up", *beneath).errno == "EXDEV"
    assert door.call("openat2", directory, b"../file", *beneath).errno == "EXDEV"
    fds.call("openat2", directory, b"file", *beneath)
    in_root = ("O_RDONLY", 0, "RESOLVE_IN_ROOT")
    for name in (b"up", b"absolute", b"/file", b"../../file"):
        fd = fds.call("openat2", directory, name, *in_root)
        assert door.ok("fstat", fd).results["ino"] == (tree / "dir/file").stat().st_ino
    new = fds.call("openat2", directory, b"/../made", "O_CREAT|O_RDWR", 0o600, "RESOLVE_IN_ROOT")
    assert door.ok("fstat", new).results["ino"] == (tree / "dir/made").stat().st_ino


# --- the working directory and the mask


def test_chdir_and_fchdir_are_where_relative_paths_begin(door: Door, tree: Path) -> None:
    def walk() -> list[object]:
        found: list[object] = []
        door.ok("chdir", bytes(tree / "dir"))
        found.append(door.ok("getcwd").data)
        door.ok("mkdir", b"./new")
        door.ok("chdir", b"./new")
        found.append(door.ok("getcwd").data)
        door.ok("chdir", b"..")
        found.append(door.ok("stat", b"./file").results["ino"])
        fd = door.ok("open", b"./../empty", "O_DIRECTORY").ret
        door.ok("fchdir", fd)
        door.ok("close", fd)
        found.append(door.ok("getcwd").data)
        found.append(door.ok("getcwd", len(bytes(tree / "empty")) + 1).ret)
        found.append(door.call("getcwd", len(bytes(tree / "empty"))).errno)
        os.rmdir(tree / "empty")
        found.append(door.call("getcwd").errno)
        found.append(door.call("mkdir", b"./x").errno)
        door.ok("chdir", b"..")
        found.append(door.ok("getcwd").data)
        return found

    size = len(bytes(tree / "empty"))
    assert door.spawn(walk).result() == [
        bytes(tree / "dir"), bytes(tree / "dir/new"), (tree / "dir/file").stat().st_ino, bytes(tree / "empty"),
        size, "ERANGE", "ENOENT", "ENOENT", bytes(tree),
    ]  # fmt: skip


def test_the_working_directory_is_the_hosts_until_chdir(door: Door, tree: Path) -> None:
    def walk() -> list[object]:
        os.chdir(tree)
        before = door.ok("getcwd").data
        os.chdir(tree / "dir")
        return [before, door.ok("getcwd").data, door.ok("stat", b"./file").results["ino"]]

    assert door.spawn(walk).result() == [bytes(tree), bytes(tree / "dir"), (tree / "dir/file").stat().st_ino]


def test_a_directory_named_as_a_removed_one_is_shown_all_the_same(door: Door, tree: Path) -> None:
    (tree / "x (deleted)").mkdir()

    def walk() -> bytes | None:
        door.ok("chdir", bytes(tree / "x (deleted)"))
        return door.ok("getcwd").data

    assert door.spawn(walk).result() == bytes(tree / "x (deleted)")


def test_getcwd_begins_at_the_callers_root(door: Door, tree: Path) -> None:
    def walk() -> list[object]:
        door.ok("getpid") if door.name != "native" else None  # the way to the door is found before the root is gone
        os.chroot(tree)
        os.chdir("/dir")
        inside = door.ok("getcwd").data
        os.chdir("/")
        root = door.ok("getcwd").data
        os.chroot("dir")  # the working directory stays outside
        return [inside, root, door.call("getcwd").errno]

    assert door.spawn(walk).result() == [b"/dir", b"/", "ENOENT"]


def test_umask_takes_bits_from_all_that_is_made_and_answers_the_old_one(door: Door, tree: Path) -> None:
    def make() -> list[int]:
        os.umask(0o022)
        masks = [door.ok("umask", 0o027).ret, door.ok("umask", 0o1077).ret]
        door.ok("mkdir", bytes(tree / "made"))
        door.ok("mkfifo", bytes(tree / "made/fifo"))
        door.ok("mknod", bytes(tree / "made/node"), "S_IFREG|0666")
        door.ok("close", door.ok("open", bytes(tree / "made/file"), "O_CREAT|O_WRONLY").ret)
        door.ok("umask", 0)
        door.ok("close", door.ok("creat", bytes(tree / "made/all")).ret)
        return masks

    assert door.spawn(make).result() == [0o022, 0o027]
    modes = {name: stat.S_IMODE(mode) for name, (mode, *_) in trees.seen(tree / "made").items()}
    assert modes == {"fifo": 0o600, "node": 0o600, "file": 0o600, "all": 0o666}
    assert stat.S_IMODE((tree / "made").stat().st_mode) == 0o700
