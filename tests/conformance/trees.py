"""A tree of files in which every path fails in a way of its own, for cases about paths."""

import ctypes
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from native import checked, libc

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MNT_DETACH = 0x1, 0x20, 0x1000, 2


def grow(root: Path) -> Path:
    """The tree without its mounts, below a directory that everybody may come through."""
    root.mkdir(exist_ok=True)
    root.chmod(0o755)
    (root / "file").write_bytes(b"0123456789")
    (root / "other").write_bytes(b"other")
    (root / "dir").mkdir()
    (root / "dir/file").touch()
    (root / "empty").mkdir()
    for name, target in {"link": "file", "dlink": "dir", "loop": "loop", "dangling": "nowhere"}.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o666)
    (root / "locked").mkdir(mode=0o700)
    (root / "locked/file").touch()
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "sticky/file").touch()
    (root / "sticky/empty").mkdir()
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    (root / "open/others").touch()
    return root


@contextmanager
def mounted(root: Path) -> Iterator[None]:
    """``ro``, a part of the tree that is mounted read-only, and ``elsewhere``, another file system."""
    with ExitStack() as stack:
        for name in ("ro", "elsewhere"):
            (root / name).mkdir()
        for name in ("file", "other"):
            (root / "ro" / name).touch()
        (root / "ro/empty").mkdir()
        (root / "ro/link").symlink_to("file")
        ro = bytes(root / "ro")
        checked(libc.mount(ro, ro, None, ctypes.c_ulong(_MS_BIND), None))
        stack.callback(libc.umount2, ro, ctypes.c_int(_MNT_DETACH))
        checked(libc.mount(None, ro, None, ctypes.c_ulong(_MS_BIND | _MS_REMOUNT | _MS_RDONLY), None))
        elsewhere = bytes(root / "elsewhere")
        checked(libc.mount(b"none", elsewhere, b"tmpfs", ctypes.c_ulong(0), None))
        stack.callback(libc.umount2, elsewhere, ctypes.c_int(_MNT_DETACH))
        (root / "elsewhere/file").touch()
        yield


@contextmanager
def running(program: Path) -> Iterator[None]:
    """A program that runs from a file of its own."""
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            yield
        finally:
            process.kill()


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a tree: kind, mode, owner, links, size, and what a link says."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            found[os.path.relpath(path, root)] = (status.st_mode, status.st_uid, status.st_gid, links, size, link)
    return found
