"""Operations on names, drawn at random, natively in one tree and through the gate in its twin: each has the same
answer, and the trees are the same afterwards.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trees
from doors import NOBODY, MountDoor, NativeDoor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mounts import Mount
from native import Result

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")

NAMES = ("file", "other", "dir", "empty", "link", "dlink", "loop", "dangling", "fifo", "nowhere", "a", "b", "open")
NAMES += ("sticky", "locked", ".", "..")

paths = st.builds(
    lambda parts, end: "/".join(parts) + end,
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
    st.sampled_from(("", "", "", "", "/", "/.", "//")),
).map(lambda path: path.encode())
modes = st.sampled_from((0o000, 0o400, 0o644, 0o755, 0o777, 0o1777, 0o4755, 0o2775))
targets = st.one_of(paths, st.sampled_from((b"../a", b"./b", b"dir/", b"../../tree/file")))
FLAGS = ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_DIRECTORY", "O_NOFOLLOW", "O_PATH", "O_NONBLOCK")
flags = st.builds(
    lambda access, more: "|".join((access, "O_NONBLOCK", *more)),
    st.sampled_from(("O_RDONLY", "O_WRONLY", "O_RDWR")),
    st.lists(st.sampled_from(FLAGS), unique=True, max_size=3),
)
uids = st.sampled_from((0, 1, NOBODY, 0xFFFFFFFF))


def call(name: str, *arguments: st.SearchStrategy | object) -> st.SearchStrategy[tuple]:
    drawn = [arg if isinstance(arg, st.SearchStrategy) else st.just(arg) for arg in arguments]
    return st.tuples(st.just(name), *drawn)


#: Paths are relative to the tree: what is a tuple is one. No creat: of a FIFO it waits for a reader, natively too.
P = paths.map(lambda path: (path,))
operations = st.one_of(
    call("open", P, flags, modes),
    call("openat", "AT_FDCWD", P, flags, modes),
    call("stat", P),
    call("lstat", P),
    call("access", P, st.sampled_from(("F_OK", "R_OK", "W_OK", "X_OK"))),
    call("truncate", P, st.sampled_from((0, 5, 100))),
    call("mkdir", P, modes),
    call("rmdir", P),
    call("symlink", targets, P),
    call("readlink", P),
    call("link", P, P),
    call("linkat", "AT_FDCWD", P, "AT_FDCWD", P, "AT_SYMLINK_FOLLOW"),
    call("rename", P, P),
    call("renameat2", "AT_FDCWD", P, "AT_FDCWD", P, st.sampled_from((0, "RENAME_NOREPLACE", "RENAME_EXCHANGE"))),
    call("unlink", P),
    call("unlinkat", "AT_FDCWD", P, st.sampled_from((0, "AT_REMOVEDIR"))),
    call("mknod", P, st.sampled_from(("S_IFIFO|0640", "S_IFREG|0640", "S_IFSOCK|0640", 0o600, 0o040700))),
    call("chmod", P, modes),
    call("fchmodat", "AT_FDCWD", P, modes, "AT_SYMLINK_NOFOLLOW"),
    call("chown", P, uids, uids),
    call("lchown", P, uids, uids),
    call("utimensat", P, st.sampled_from((5, "UTIME_NOW", "UTIME_OMIT")), st.sampled_from((7, "UTIME_OMIT"))),
    call("getxattr", P, b"user.x"),
    call("setxattr", P, b"user.x", b"value"),
    call("lsetxattr", P, b"user.x", b"value"),
    call("removexattr", P, b"user.x"),
    call("statfs", P),
)

#: What the two trees cannot have in common, or what changes by itself.
_OWN = {"ino", "dev", "atime_ns", "mtime_ns", "ctime_ns", "blocks", "bfree", "bavail", "ffree", "files"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="synosfs-test-") as directory:
        os.chmod(directory, 0o711)
        yield Path(directory)


@pytest.fixture
def gate(mount: Mount) -> Iterator[MountDoor]:
    door = MountDoor(mount, "msgpack")
    yield door
    door.close()


def answer(door: NativeDoor | MountDoor, root: Path, operation: tuple) -> tuple:
    name, *args = operation
    found: Result = door.call(name, *(bytes(root) + b"/" + arg[0] if isinstance(arg, tuple) else arg for arg in args))
    if name in ("open", "openat"):
        if not found.errno:
            door.ok("close", found.ret)
        return ("opened" if not found.errno else found.errno,)
    size = {"size"} if found.results.get("mode", 0) & 0o170000 == 0o040000 else set()
    own = _OWN | size
    return found.ret, found.errno, {key: value for key, value in found.results.items() if key not in own}, found.data


@given(st.lists(operations, min_size=5, max_size=40), st.sampled_from((0, NOBODY)), st.sampled_from((0, 0o027)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_every_operation_answers_as_natively(
    gate: MountDoor, place: Path, drawn: list[tuple], uid: int, umask: int
) -> None:
    native = NativeDoor()
    roots = place / "native/tree", place / "gate/tree"
    for root in roots:
        shutil.rmtree(root.parent, ignore_errors=True)
        root.parent.mkdir()
        root.parent.chmod(0o777)
        trees.grow(root)
        root.chmod(0o777)

    def both() -> list[tuple]:
        os.umask(umask)
        return [(answer(native, roots[0], operation), answer(gate, roots[1], operation)) for operation in drawn]

    for operation, (natively, here) in zip(drawn, gate.spawn(both, uid=uid).result(), strict=True):
        assert here == natively, operation
    assert trees.seen(roots[1].parent) == trees.seen(roots[0].parent)
