"""What fault cases share: a door to the common mount, one to a mount that a case may end, and the host's own queues."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from doors import MountDoor
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgget, msgsnd


@pytest.fixture
def own_gate(own_mount: Mount) -> Iterator[MountDoor]:
    """A mount for one case, which may end it; this process has no session in it unless the case makes a call itself."""
    door = MountDoor(own_mount, "text")
    yield door
    if own_mount.daemon.poll() is None:
        door.close()


@pytest.fixture
def new_queue(nothing_left: None) -> Iterator[Callable[..., int]]:
    """Makes queues of root's, natively: ``new_queue(full=True, mode=0o600)``."""
    made = []

    def make(*, full: bool = False, mode: int = 0o600) -> int:
        made.append(msgget(CONSTANTS["IPC_PRIVATE"], mode))
        for _ in range(2 if full else 0):
            msgsnd(made[-1], 1, b"x" * 8192)
        return made[-1]

    yield make
    for msqid in made:
        with suppress(OSError):  # the case may have removed it
            msgctl(msqid, CONSTANTS["IPC_RMID"])


@pytest.fixture
def queue(new_queue: Callable[..., int]) -> int:
    """An empty queue."""
    return new_queue()


@pytest.fixture
def full_queue(new_queue: Callable[..., int]) -> int:
    """A queue with two messages of type 1 and no room for another."""
    return new_queue(full=True)
