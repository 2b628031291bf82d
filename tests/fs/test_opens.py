"""Opening for writing: each open has an inode of its own, and whoever comes too late for one gets another, unseen."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mounts import Mount

from synosfs.errors import SynosError
from synosfs.fs.inodes import Inodes
from synosfs.fs.node import Directory, Node


class _Fresh(Node):
    fresh = True


def _inodes() -> tuple[Inodes, Node]:
    return Inodes(Directory({})), _Fresh()


def test_a_number_with_a_writer_is_not_given_again() -> None:
    inodes, node = _inodes()
    first = inodes.refer(node, 1)
    assert inodes.refer(node, 2) == first
    inodes.open_for_writing(first, 1)
    assert inodes.refer(node, 2) != first


def test_who_comes_too_late_is_refused_once_and_then_has_a_number_that_nobody_can_take() -> None:
    inodes, node = _inodes()
    first = inodes.refer(node, 1)
    inodes.open_for_writing(first, 1)
    with pytest.raises(SynosError) as refused:
        inodes.open_for_writing(first, 2)
    assert refused.value.strerror == "stale file handle"
    second = inodes.refer(node, 2)
    with pytest.raises(SynosError):
        inodes.open_for_writing(second, 3)
    inodes.open_for_writing(second, 2)
    assert inodes.refer(node, 3) not in (first, second)


def test_who_comes_again_without_a_look_up_shares_the_number() -> None:
    inodes, node = _inodes()
    number = inodes.refer(node, 1)
    inodes.open_for_writing(number, 1)
    with pytest.raises(SynosError):
        inodes.open_for_writing(number, 2)
    inodes.open_for_writing(number, 2)


def test_a_forgotten_number_is_gone_and_the_next_is_a_new_one() -> None:
    inodes, node = _inodes()
    number = inodes.refer(node, 1)
    inodes.refer(node, 1)
    inodes.forget([(number, 1)])
    assert inodes[number] is node
    inodes.forget([(number, 1)])
    assert len(inodes) == 1
    assert inodes.refer(node, 1) != number


@pytest.mark.parametrize("name", ["syscall", "sem/ctl", "proc/self/syscall"])
def test_many_threads_open_one_file_at_once_and_none_is_turned_away(mount: Mount, name: str) -> None:
    path = Path(mount.path) / name
    (Path(mount.path) / "syscall").write_text("getpid\n")

    def open_and_close(_: int) -> None:
        for _ in range(50):
            os.close(os.open(path, os.O_RDWR))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_close, range(8)))


def test_a_session_can_be_opened_again_by_its_descriptor(mount: Mount) -> None:
    first = os.open(Path(mount.path) / "syscall", os.O_RDWR)
    second = os.open(f"/proc/self/fd/{first}", os.O_RDWR)
    for session in (first, second):
        os.write(session, b"getpid\n")
        assert os.read(session, 100) == b"%d\n" % os.getpid()
        os.close(session)
