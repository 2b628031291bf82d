"""The limits on how many objects an IPC namespace may have (``ipcs -l``, proc(5), mq_overview(7)), and when they will
be reached. Who makes one more gets ENOSPC.
"""

import os
from collections import deque
from contextlib import suppress
from math import inf

from synosfs.ipc import sysv_msg, sysv_sem, sysv_shm

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_QUEUES_MAX = "/proc/sys/fs/mqueue/queues_max"


def limits() -> dict[str, int]:
    """By the names that Linux gives them: queues, sets, semaphores, segments, pages of segments, POSIX queues."""
    found = {"msgmni": sysv_msg.limits().values["msgmni"]}
    found |= {name: sysv_sem.limits().values[name] for name in ("semmni", "semmns")}
    found |= {name: sysv_shm.limits().values[name] for name in ("shmmni", "shmall")}
    with suppress(OSError), open(_QUEUES_MAX) as file:  # a kernel may have no POSIX queues
        found["queues_max"] = int(file.read())
    return found


def pages(size: int) -> int:
    """How many pages a segment of so many bytes counts for, as shmall has it."""
    return -(-size // _PAGE_SIZE)


class Forecast:
    """When limits are reached, at the rate at which their use has grown over the looks of the last five minutes; where
    they are rarer than that, since the last one.
    """

    #: In seconds: looks that follow at once are one, and old ones are forgotten. So there are 61 of a limit at most.
    _APART_S, _MEMORY_S = 5, 300

    def __init__(self) -> None:
        self._looks: dict[str, deque[tuple[float, int]]] = {}

    def seconds(self, name: str, used: int, limit: int, now: float) -> float:
        """How long until ``limit`` is used; ``used`` is so ``now``, in seconds of a monotonic clock. Infinite while it
        does not grow.
        """
        looks = self._looks.setdefault(name, deque())
        while len(looks) > 1 and looks[1][0] <= now - self._MEMORY_S:
            looks.popleft()
        if not looks or now - looks[-1][0] >= self._APART_S:
            looks.append((now, used))
        if used >= limit:
            return 0.0
        since, before = looks[0]
        if used <= before or now <= since:
            return inf
        return (limit - used) / (used - before) * (now - since)
