"""What tests of files share: objects that the host makes, and processes."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from children import Child
from doors import NativeDoor
from native_sem import CONSTANTS, semctl


@pytest.fixture
def new_set(native: NativeDoor) -> Iterator[Callable[..., int]]:
    """Makes sets natively: ``new_set([1, 2, 3], KEY, 0o640)``."""
    made = []

    def make(values: list[int], key: int = 0, mode: int = 0o600) -> int:
        semid = native.ok("semget", key, len(values), 0o1000 | mode).ret
        made.append(semid)
        native.ok("semctl", semid, 0, "SETALL", values)
        return semid

    yield make
    for semid in made:
        with suppress(OSError):  # the test may have removed it
            semctl(semid, 0, CONSTANTS["IPC_RMID"])


@pytest.fixture
def children() -> Iterator[Callable[..., Child]]:
    started = []

    def start(body: Callable[[], object], uid: int = 0) -> Child:
        started.append(Child(body, uid=uid))
        return started[-1]

    yield start
    for child in started:
        child.close()
