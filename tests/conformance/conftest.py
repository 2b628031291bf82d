"""What conformance cases share: objects that are gone when the case has ended."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from doors import NOBODY, Door
from native_msg import CONSTANTS, msgctl
from native_posix import unlink_all
from native_sem import semctl
from native_shm import shmctl
from opened import Descriptors


def remove_queue(msqid: int) -> None:
    with suppress(OSError):  # the case has removed it
        msgctl(msqid, CONSTANTS["IPC_RMID"])


@pytest.fixture
def new_queue(door: Door) -> Iterator[Callable[..., int]]:
    """Makes queues through the door: ``new_queue(key, "IPC_CREAT|0600")``."""
    made = []

    def make(key: int | str = "IPC_PRIVATE", flags: str = "IPC_CREAT|0600", uid: int = 0) -> int:
        result = door.call_as(uid, "msgget", key, flags) if uid else door.ok("msgget", key, flags)
        assert not result.errno, result
        made.append(result.ret)
        return result.ret

    yield make
    for msqid in made:
        remove_queue(msqid)


@pytest.fixture
def queue(new_queue: Callable[..., int]) -> int:
    """An empty queue of root's, mode 0600."""
    return new_queue()


@pytest.fixture
def others_queue(new_queue: Callable[..., int]) -> int:
    """A queue of an ordinary user's, mode 0600."""
    return new_queue(uid=NOBODY)


@pytest.fixture
def new_set(door: Door) -> Iterator[Callable[..., int]]:
    """Makes semaphore sets through the door: ``new_set(3, key, "IPC_CREAT|0600", values=[1, 2, 3])``."""
    made = []

    def make(
        nsems: int = 2,
        key: int | str = "IPC_PRIVATE",
        flags: str = "IPC_CREAT|0600",
        uid: int = 0,
        values: list[int] | None = None,
    ) -> int:
        result = door.call_as(uid, "semget", key, nsems, flags) if uid else door.ok("semget", key, nsems, flags)
        assert not result.errno, result
        made.append(result.ret)
        if values is not None:
            door.ok("semctl", result.ret, 0, "SETALL", values)
        return result.ret

    yield make
    for semid in made:
        with suppress(OSError):  # the case may have removed it
            semctl(semid, 0, CONSTANTS["IPC_RMID"])


@pytest.fixture
def semaphores(new_set: Callable[..., int]) -> int:
    """Two semaphores of root's, mode 0600, both 0."""
    return new_set(2)


@pytest.fixture
def new_segment(door: Door) -> Iterator[Callable[..., int]]:
    """Makes segments through the door: ``new_segment(5000, key, "IPC_CREAT|0600")``."""
    made = []

    def make(size: int = 4096, key: int | str = "IPC_PRIVATE", flags: str = "IPC_CREAT|0600", uid: int = 0) -> int:
        result = door.call_as(uid, "shmget", key, size, flags) if uid else door.ok("shmget", key, size, flags)
        assert not result.errno, result
        made.append(result.ret)
        return result.ret

    yield make
    for shmid in made:
        with suppress(OSError):  # the case may have removed it
            shmctl(shmid, CONSTANTS["IPC_RMID"])


@pytest.fixture
def segment(new_segment: Callable[..., int]) -> int:
    """A segment of root's, one page, mode 0600."""
    return new_segment()


@pytest.fixture
def attach(door: Door, new_segment: Callable[..., int]) -> Iterator[Callable[..., int]]:
    """Attaches segments through the door, as shmat does; what is still attached at the end is detached."""
    addresses = []

    def at(shmid: int, *arguments: int | str) -> int:
        address = door.ok("shmat", shmid, *arguments).ret
        addresses.append(address)
        return address

    yield at
    for address in addresses:
        door.call("shmdt", address)


@pytest.fixture
def fds(door: Door) -> Iterator[Descriptors]:
    descriptors = Descriptors(door)
    yield descriptors
    descriptors.close(*list(descriptors.open))


@pytest.fixture
def posix_names() -> Iterator[Callable[[bytes], bytes]]:
    """Notes names of POSIX queues, semaphores and memory, which are unlinked at the end of the case."""
    noted: list[bytes] = []

    def note(name: bytes) -> bytes:
        noted.append(name)
        return name

    yield note
    for name in noted:
        unlink_all(name)
