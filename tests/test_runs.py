"""Copies that follow each other in a batch: made in one go, and answered as one by one."""

import errno
import os
from functools import partial
from pathlib import Path

import pytest
import trio
from here import caller_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synosfs.errors import SynosError
from synosfs.host.thread import install_interrupt_handler
from synosfs.kernel import Kernel
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.dispatch import NOT_RUN
from synosfs.syscall_gate.observers import Completed
from synosfs.syscall_gate.record import Reply, Request

DATA = bytes(range(256)) * 64


class Batch:
    """A process with a file to read (3), one to write (4), and a pipe (5, 6)."""

    def __init__(self, kernel: Kernel, directory: Path) -> None:
        self.kernel = kernel
        self.caller: Caller = caller_here(kernel)
        self.source, self.target = directory / "source", directory / "target"
        self.source.write_bytes(DATA)

    async def open(self) -> None:
        self.target.write_bytes(b"")
        await self.run(("close_range", 3, 1023))
        replies = await self.run(
            ("open", os.fsencode(self.source), "O_RDONLY"), ("open", os.fsencode(self.target), "O_RDWR"), ("pipe",)
        )
        assert [reply.errno for reply in replies] == [0, 0, 0]
        assert replies[2].results == {"read": 5, "write": 6}

    async def run(self, *calls: tuple, until_error: bool = False) -> list[Reply]:
        """In one batch."""
        requests = [Request(name, list(arguments)) for name, *arguments in calls]
        turn = self.kernel.dispatcher.turn(self.caller)
        return await self.kernel.dispatcher.run_all(self.caller, requests, turn, until_error=until_error)


@pytest.fixture
async def batch(kernel: Kernel, tmp_path: Path) -> Batch:
    batch = Batch(kernel, tmp_path)
    await batch.open()
    return batch


INTO, OUT_OF = ("splice", 3, 6, 100), ("splice", 5, 4, 100)


async def test_they_are_made_in_one_go(kernel: Kernel, batch: Batch) -> None:
    parked = kernel.parking.statistics().total
    seen: list[Completed] = []
    kernel.observers.add(seen.append)
    replies = await batch.run(*[INTO, OUT_OF] * 20)
    assert [reply.ret for reply in replies] == [100] * 40
    assert batch.target.read_bytes() == DATA[:2000]
    assert kernel.parking.statistics().total - parked < 20
    assert [each.reply for each in seen] == replies
    assert all(each.moved == 100 and each.parked_ns is not None and each.parked_ns > 0 for each in seen)


async def test_one_that_fails_ends_none_of_the_others(batch: Batch) -> None:
    replies = await batch.run(INTO, ("splice", 3, 4, 100), OUT_OF, ("splice", 3, 99, 100), INTO, OUT_OF)
    assert [reply.errno for reply in replies] == [0, errno.EINVAL, 0, errno.EBADF, 0, 0]
    assert batch.target.read_bytes() == DATA[:200]


async def test_up_to_the_first_that_fails_if_so_asked(batch: Batch) -> None:
    seen: list[Completed] = []
    batch.kernel.observers.add(seen.append)
    replies = await batch.run(INTO, ("splice", 3, 4, 100), INTO, OUT_OF, until_error=True)
    assert [reply.errno for reply in replies] == [0, errno.EINVAL]
    assert [each.reply for each in seen] == replies
    assert batch.target.read_bytes() == b""


async def test_what_is_between_two_of_them_is_done_between(batch: Batch) -> None:
    replies = await batch.run(INTO, ("lseek", 3, 1000, "SEEK_SET"), INTO, OUT_OF, ("close", 5), OUT_OF, INTO)
    assert [reply.errno for reply in replies] == [0, 0, 0, 0, 0, errno.EBADF, errno.EPIPE]
    assert batch.target.read_bytes() == DATA[:100]  # one splice takes from one buffer


@pytest.mark.parametrize("reason", [errno.EINTR, errno.ESRCH])
async def test_one_that_waits_is_ended_and_what_is_behind_it_is_not_made(batch: Batch, reason: int) -> None:
    parking = batch.kernel.parking
    replies: list[Reply] = []

    async def run() -> None:
        replies.extend(await batch.run(INTO, OUT_OF, OUT_OF, INTO, OUT_OF))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        # It is at the third: the first two are over, and their effects can be seen.
        while not (batch.target.stat().st_size and any(each.what == "splice(5, 4, 100, 0)" for each in parking)):
            await trio.lowlevel.checkpoint()
        for parked in parking:
            parked.end(SynosError(reason, "ended"))
    assert [reply.ret for reply in replies[:2]] == [100, 100]
    assert replies[2].errno == reason
    assert replies[3:] == [NOT_RUN, NOT_RUN]
    assert batch.target.read_bytes() == DATA[:100]
    assert not len(parking)


async def test_one_that_waits_goes_on(batch: Batch) -> None:
    parking = batch.kernel.parking
    other = caller_here(batch.kernel)
    replies: list[Reply] = []

    async def run() -> None:
        replies.extend(await batch.run(INTO, OUT_OF, OUT_OF, INTO, OUT_OF))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not (batch.target.stat().st_size and len(parking)):
            await trio.lowlevel.checkpoint()
        await batch.kernel.dispatcher.called(other, Request("write", [6, b"came"]))
    assert [reply.ret for reply in replies] == [100, 100, 4, 100, 100]
    assert batch.target.read_bytes() == DATA[:100] + b"came" + DATA[100:200]


@pytest.mark.parametrize("at", range(8))
async def test_they_can_be_ended_between_two(batch: Batch, at: int) -> None:
    """Wherever it comes: what was made is answered as made, and nothing else has been."""
    replies: list[Reply] = []
    calls = [("copy_file_range", 3, 4, 100), ("splice", 3, 6, 1), ("splice", 5, 4, 1)] * 20

    async def run() -> None:
        replies.extend(await batch.run(*calls))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while batch.target.stat().st_size < at * 101 and not replies:
            await trio.lowlevel.checkpoint()
        for parked in batch.kernel.parking.interruptible():
            parked.end(SynosError(errno.EINTR, "interrupted"))
    assert len(replies) == len(calls)
    made = [reply for reply in replies if not reply.errno]
    assert replies[: len(made)] == made
    assert all(reply.errno == errno.EINTR or reply == NOT_RUN for reply in replies[len(made) :])
    written = sum(reply.ret for reply, call in zip(made, calls, strict=False) if call[:2] != ("splice", 3))
    assert batch.target.stat().st_size == written


_fd = st.sampled_from((3, 4, 5, 6, 99))
_call = st.one_of(
    st.tuples(st.just("splice"), _fd, _fd, st.integers(0, 300), st.just("SPLICE_F_NONBLOCK")),
    st.tuples(st.just("tee"), _fd, _fd, st.integers(0, 300), st.just("SPLICE_F_NONBLOCK")),
    st.tuples(st.just("sendfile"), _fd, st.sampled_from((3, 4)), st.integers(-1, 300)),
    st.tuples(st.just("copy_file_range"), _fd, _fd, st.integers(0, 300)),
    st.tuples(st.just("lseek"), st.sampled_from((3, 4)), st.integers(0, 500), st.just("SEEK_SET")),
)


@pytest.fixture
def directory(tmp_path: Path, nothing_left: None) -> Path:
    return tmp_path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(_call, max_size=12))
def test_a_batch_answers_what_its_calls_answer_one_by_one(directory: Path, calls: list[tuple]) -> None:
    install_interrupt_handler()
    assert trio.run(partial(_answers, directory, calls, 12)) == trio.run(partial(_answers, directory, calls, 1))


async def _answers(directory: Path, calls: list[tuple], together: int) -> tuple[list[tuple], bytes]:
    kernel = Kernel()
    try:
        batch = Batch(kernel, directory)
        await batch.open()
        await batch.run(("fcntl", 5, "F_SETFL", "O_NONBLOCK"), ("fcntl", 6, "F_SETFL", "O_NONBLOCK"))
        replies: list[Reply] = []
        for at in range(0, len(calls), together):
            replies += await batch.run(*calls[at : at + together])
        return [(reply.ret, reply.errno, reply.message) for reply in replies], batch.target.read_bytes()
    finally:
        await kernel.close()
