"""Two IPC namespaces never meet on one key."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from children import Child
from doors import DispatcherDoor, Door, MountDoor, NativeDoor
from mounts import mounted
from native import checked, libc

KEY = 0x5359_0003
CLONE_NEWIPC = 0x08000000
ELSEWHERE = ("unshare", "--ipc")


@pytest.fixture
def elsewhere(door: Door, tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Makes a call in another namespace, by the same door; natively each call is in one of its own."""
    with ExitStack() as stack:
        if door.name == "native":
            children = []

            def call(*args: object) -> object:
                def body() -> object:
                    checked(libc.unshare(ctypes.c_int(CLONE_NEWIPC)))
                    return NativeDoor().call(*args)

                children.append(Child(body))
                return children[-1].result()

            yield call
            for child in children:
                child.close()
            return
        if door.name == "dispatcher":
            other: Door = DispatcherDoor(tmp_path, ELSEWHERE)
        else:
            other = MountDoor(stack.enter_context(mounted(prefix=ELSEWHERE)), door.name)
        stack.callback(other.close)
        yield other.call


def test_a_key_names_another_queue_in_another_namespace(
    door: Door, new_queue: Callable[..., int], elsewhere: Callable[..., object]
) -> None:
    queue = new_queue(KEY)
    door.ok("msgsnd", queue, 1, b"here")
    assert elsewhere("msgget", KEY, "0").errno == "ENOENT"
    there = elsewhere("msgget", KEY, "IPC_CREAT|IPC_EXCL|0600")
    assert not there.errno
    assert elsewhere("msgrcv", there.ret, 10, 0, "IPC_NOWAIT").errno in ("ENOMSG", "EINVAL")
    assert door.ok("msgrcv", queue, 10, 0, "IPC_NOWAIT").data == b"here"
