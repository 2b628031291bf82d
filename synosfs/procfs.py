"""What ``/proc`` tells about a host thread: proc(5). A leaf; every function reads afresh.

All raise ProcessLookupError when the thread is gone, so that callers have one exception to expect.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Stat(NamedTuple):
    """The fields of ``/proc/<tid>/stat`` that are used here; ``start_time`` in clock ticks since boot."""

    command: str
    state: str
    ppid: int
    start_time: int


def stat(tid: int) -> Stat:
    """Read ``/proc/<tid>/stat``."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:
            text = file.read()
    except FileNotFoundError:
        raise ProcessLookupError(tid) from None
    # The command stands in parentheses and may itself hold blanks and parentheses: split after the last one.
    head, _, tail = text.rpartition(b")")
    fields = tail.split()
    command = head.partition(b"(")[2].decode("utf-8", "replace")
    return Stat(command, fields[0].decode(), int(fields[1]), int(fields[19]))


def thread_group(tid: int) -> int:
    """The process (thread group id) that a thread belongs to."""
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Tgid:"):
                    return int(line[5:])
    except FileNotFoundError:
        pass
    raise ProcessLookupError(tid)


def ancestors(tid: int) -> Iterator[int]:
    """The thread's process, its parent, and so on."""
    try:
        pid = thread_group(tid)
        while pid > 0:
            yield pid
            pid = stat(pid).ppid
    except ProcessLookupError:
        return


def umask(tid: int) -> int:
    """The file mode creation mask of a thread."""
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line[6:], 8)
    except FileNotFoundError:
        pass
    raise ProcessLookupError(tid)


def waits_for_fuse(tid: int) -> bool | None:
    """Whether a thread sleeps in a FUSE request; None where the daemon may not see it (another user's process)."""
    try:
        with open(f"/proc/{tid}/wchan", "rb") as file:
            place = file.read()
    except OSError:
        return None
    return None if place == b"0" else place == b"request_wait_answer"


def inode_in_use(tid: int) -> int | None:
    """The inode number of the descriptor that the thread's current system call has as its first argument, if any."""
    try:
        with open(f"/proc/{tid}/syscall", encoding="ascii") as file:
            call = file.read().split()
        with open(f"/proc/{tid}/fdinfo/{int(call[1], 16)}", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
    except (OSError, IndexError, ValueError):
        return None
    return int(fields.get("ino", "0")) or None
