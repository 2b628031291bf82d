"""The one point of completion: every call that has ended comes by once, with what it moved and how long it took."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import trio
from native_msg import CONSTANTS, msgctl, msgget, msgrcv

from synosfs.kernel import Kernel
from synosfs.syscall_gate.observers import Completed
from synosfs.syscall_gate.statistics import Totals


@pytest.fixture
def seen(kernel: Kernel) -> list[Completed]:
    seen: list[Completed] = []
    kernel.observers.add(seen.append)
    return seen


def bytes_of(kernel: Kernel, name: str) -> int:
    for _ in kernel.statistics.fold():
        pass
    return dict(kernel.statistics.calls())[name].bytes


def totals(kernel: Kernel) -> Totals:
    for _ in kernel.statistics.fold():
        pass
    return kernel.statistics.totals()


async def test_a_partial_write_counts_what_went_in(kernel: Kernel, call: Callable, seen: list[Completed]) -> None:
    write_end = (await call("pipe2", "O_NONBLOCK")).results["write"]
    reply = await call("write", write_end, b"x" * 200_000)
    assert 0 < reply.ret < 200_000
    assert bytes_of(kernel, "write") == reply.ret == seen[-1].moved


async def test_a_blocked_send_that_succeeds_counts_its_bytes_and_its_time_apart(
    kernel: Kernel, call: Callable, seen: list[Completed]
) -> None:
    queue = msgget(CONSTANTS["IPC_PRIVATE"], 0o600)
    for _ in range(2):
        await call("msgsnd", queue, 1, b"x" * 8192)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(call, "msgsnd", queue, 1, b"y" * 100))
        while not len(kernel.parking):
            await trio.lowlevel.checkpoint()
        assert msgrcv(queue, 8192).ret == 8192
    msgctl(queue, CONSTANTS["IPC_RMID"])
    last = seen[-1]
    assert last.row is not None
    assert (last.row.name, last.moved, last.reply.ret) == ("msgsnd", 100, 0)
    assert last.parked_ns is not None
    assert last.ran_ns < last.parked_ns
    assert bytes_of(kernel, "msgsnd") == 2 * 8192 + 100


async def test_every_end_comes_by_once(kernel: Kernel, call: Callable, seen: list[Completed]) -> None:
    await call("getpid")
    await call("no_such_call")
    await call("getpid", 1)  # cannot be bound
    await call("close", 99)
    await call("nanosleep", 9, timeout=0.001)
    ends = [(each.row and each.row.name, each.reply.errno != 0, each.parked_ns is not None) for each in seen]
    assert ends == [
        ("getpid", False, False),
        (None, True, False),
        ("getpid", True, False),
        ("close", True, False),
        ("nanosleep", True, True),
    ]
    assert totals(kernel).total_calls == 5


async def test_a_read_counts_what_came_and_is_ipc_by_its_descriptor(kernel: Kernel, call: Callable) -> None:
    ends = (await call("pipe")).results
    await call("write", ends["write"], b"hello")
    assert (await call("read", ends["read"], 100)).data == b"hello"
    assert bytes_of(kernel, "read") == 5
    ipc_calls = totals(kernel).ipc_calls
    file = (await call("open", "/etc/hostname")).ret
    await call("read", file, 100)
    assert totals(kernel).ipc_calls == ipc_calls


async def test_an_observer_that_raises_is_dropped_and_hurts_nobody(
    kernel: Kernel, call: Callable, seen: list[Completed], caplog: pytest.LogCaptureFixture
) -> None:
    def bad(completed: Completed) -> None:
        raise ZeroDivisionError

    kernel.observers.add(bad)
    for _ in range(3):
        assert (await call("getpid")).ret == os.getpid()
    assert len(seen) == 3
    statistics = kernel.observers.statistics()
    assert (statistics.watching, statistics.dropped) == (1, 1)
    assert caplog.text.count("an observer failed and is dropped") == 1


async def test_a_handler_that_may_not_wait_and_does_is_a_bug_of_one_call(
    kernel: Kernel, call: Callable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = kernel.dispatcher._calls
    wrong = calls["nanosleep"]
    monkeypatch.setitem(calls, "nanosleep", replace(wrong, row=wrong.row._replace(waits=False)))
    assert (await call("nanosleep", 0)).errno == errno.EIO
    assert "nanosleep may not wait, and its handler does" in caplog.text
    assert (await call("getpid")).ret == os.getpid()
