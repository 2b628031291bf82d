"""A check of the rule of the main thread, for tests: it makes no host call that another process can make slow.

With ``SYNOSFS_GUARD`` in the environment, every function that ``libc.bind`` makes of the ``blocking`` library, and
every call of Python's that names a file (``sys.addaudithook``), is looked at while the mount serves: made in the main
thread it fails, which is EIO for one caller and an error in the log. Without it, nothing here costs anything.
"""

import os
import re
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

IS_ON = bool(os.environ.get("SYNOSFS_GUARD"))

#: Calls by name that wait for locks that others can hold (a directory's, a file's).
_CHANGES = frozenset(
    f"os.{name}"
    for name in ("chmod", "chown", "link", "listdir", "mkdir", "remove", "rename", "scandir", "symlink", "truncate")
) | {"os.utime", "os.rmdir"}

#: What the kernel makes up by itself, and no process can hold up (but for what leads to a process's own files); and
#: what the interpreter reads of itself.
_HARMLESS = ("/proc/", "/sys/", os.devnull, sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]))
_OF_PROCESSES = ("/fd/", "/cwd", "/root", "/mem", "/environ", "/cmdline", "/maps", "/fdinfo/", "/syscall")

#: What the host tells of a process only while that is not in the middle of an exec; see ``asking``. The daemon itself
#: is in none.
_KEPT_BACK = re.compile(
    r"/proc/(?!self/)[0-9]+/(task/[0-9]+/)?(stat$|wchan|syscall|attr/|cwd|root|exe|fd/|ns/|environ|mem$)"
)

_serving = threading.Event()


class SlowCall(AssertionError):
    """The main thread was about to make a call that another process can make slow."""


def enforce() -> None:
    """From now on. Call in the main thread, when the mount is there."""
    if IS_ON and not _serving.is_set():
        _serving.set()
        sys.addaudithook(_look_at)


def guarded(function: Callable[..., int], name: str) -> Callable[..., int]:
    """``function``, which may sleep, for threads alone."""

    def call(*arguments: Any) -> int:
        check(name)
        return function(*arguments)

    return call


def check(name: str) -> None:
    """That what may sleep is made by another thread. For calls that Python tells no audit hook of."""
    if _is_main():
        raise SlowCall(f"{name} may sleep")


def _is_main() -> bool:
    return _serving.is_set() and threading.get_ident() == threading.main_thread().ident


def _look_at(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CHANGES:
        wrong = _is_main() and not _is_harmless(arguments[0])
    elif event == "open":
        path, _mode, flags = arguments
        wrong = _is_main() and (_is_kept_back(path) or not (flags & (os.O_PATH | os.O_NONBLOCK) or _is_harmless(path)))
    else:
        return
    if wrong:
        raise SlowCall(f"{event} {arguments}")


def _is_kept_back(path: object) -> bool:
    text = os.fsdecode(path) if isinstance(path, str | bytes) else ""
    return _KEPT_BACK.match(text) is not None and not text.startswith(f"/proc/{os.getpid()}/")


def _is_harmless(path: object) -> bool:
    if isinstance(path, int):
        return stat.S_ISFIFO(os.fstat(path).st_mode) or stat.S_ISSOCK(os.fstat(path).st_mode)  # one of the daemon's own
    text = os.fsdecode(path) if isinstance(path, str | bytes) else ""
    return f"{text}/".startswith(_HARMLESS) and not any(part in text for part in _OF_PROCESSES)
