"""An object's creator has its owner's rights (sysvipc(7)), also by file; what one of them sees locks no other out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from children import Child
from command import run
from doors import NOBODY
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgget, msgsnd
from native_sem import semctl, semget
from native_shm import shmctl, shmget

CREATOR, OWNER, STRANGER, GROUP = NOBODY, NOBODY - 1, NOBODY - 2, 4242


class Family(NamedTuple):
    directory: str
    make: Callable[[], int]
    control: Callable[..., object]


def _queue() -> int:
    queue = msgget(0, 0o600)
    msgsnd(queue, 1, b"x")
    return queue


FAMILIES = {
    "queue": Family("msgq/sysv", _queue, msgctl),
    "set": Family(
        "sem/sysv", lambda: semget(0, 1, 0o600), lambda semid, *args, **given: semctl(semid, 0, *args, **given)
    ),
    "segment": Family("shm/sysv", lambda: shmget(0, 100, 0o600), shmctl),
}


def as_user(uid: int, gid: int, groups: list[int], body: Callable[[], object]) -> object:
    def become() -> object:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        return body()

    child = Child(become)
    try:
        return child.result()
    finally:
        child.close()


@pytest.fixture(params=FAMILIES)
def made(request: pytest.FixtureRequest, mount: Mount) -> Iterator[tuple[Family, int, Path]]:
    """Made by CREATOR, with the group GROUP, and given away to OWNER."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    family = FAMILIES[request.param]
    number = as_user(CREATOR, GROUP, [], family.make)
    family.control(number, CONSTANTS["IPC_SET"], uid=OWNER, gid=OWNER, mode=0o640)
    yield family, number, mount.path / family.directory / str(number)
    family.control(number, CONSTANTS["IPC_RMID"])


def opens(path: Path) -> list[str]:
    tried = []
    for flags in (os.O_RDONLY, os.O_RDWR):
        try:
            os.close(os.open(path, flags))
            tried.append("")
        except PermissionError:
            tried.append("EACCES")
    return tried


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "expected"),
    [
        (OWNER, STRANGER, [], ["", ""]),
        (CREATOR, STRANGER, [], ["", ""]),
        (STRANGER, OWNER, [], [""]),
        (STRANGER, STRANGER, [OWNER], [""]),
        (STRANGER, GROUP, [], [""]),  # the creator's group
        (STRANGER, STRANGER, [GROUP], [""]),
        (STRANGER, STRANGER, [], ["EACCES"]),
    ],
)
def test_the_file_opens_for_those_whom_the_host_lets(
    made: tuple[Family, int, Path], uid: int, gid: int, groups: list[int], expected: list[str]
) -> None:
    _, _, path = made
    assert as_user(uid, gid, groups, lambda: opens(path))[: len(expected)] == expected


def test_what_the_creator_sees_does_not_lock_the_owner_out(made: tuple[Family, int, Path]) -> None:
    _, _, path = made

    def look() -> None:
        while True:
            os.stat(path)

    def drop_and_look() -> None:
        os.setresgid(CREATOR, CREATOR, CREATOR)
        os.setresuid(CREATOR, CREATOR, CREATOR)
        look()

    looker = Child(drop_and_look)
    try:
        tried = as_user(OWNER, OWNER, [], lambda: [opens(path) for _ in range(200)])
    finally:
        looker.close()
    assert tried == [["", ""]] * 200


def test_the_creator_is_the_owner_to_itself_and_to_nobody_else(made: tuple[Family, int, Path]) -> None:
    _, _, path = made

    def see() -> tuple:
        status = os.stat(path)
        os.listdir(path.parent)  # whoever lists the names keeps them for all
        return status.st_mode & 0o777, status.st_uid, status.st_gid

    truth = (0o640, OWNER, OWNER)
    for _ in range(3):
        assert as_user(CREATOR, CREATOR, [], see) == (0o640, CREATOR, OWNER)
        assert [as_user(uid, uid, [], see) for uid in (OWNER, STRANGER)] == [truth] * 2
        assert as_user(STRANGER, STRANGER, [GROUP], see) == (0o640, OWNER, GROUP)
        assert see() == truth


def test_the_creator_finds_it_in_the_list_and_changes_its_mode(made: tuple[Family, int, Path]) -> None:
    _, number, path = made

    def change() -> bool:
        path.chmod(0o600)
        with os.scandir(path.parent) as entries:
            return any(entry.name == str(number) and entry.stat().st_uid == CREATOR for entry in entries)

    assert as_user(CREATOR, CREATOR, [], change) is True
    assert path.stat().st_mode & 0o777 == 0o600


def test_root_without_capabilities_is_a_creator_as_others_are(mount: Mount) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    queue = _queue()
    msgctl(queue, CONSTANTS["IPC_SET"], uid=OWNER, gid=OWNER, mode=0o600)
    path = mount.path / f"msgq/sysv/{queue}"
    done = run("setpriv", "--bounding-set=-all", "--inh-caps=-all", "sh", "-c", f"stat -c %u {path}; cat {path}")
    assert (done.returncode, done.stdout) == (0, "0\nx")
    assert path.stat().st_uid == OWNER
    msgctl(queue, CONSTANTS["IPC_RMID"])
