"""What a program will share with the daemon has the status flags that the user asked for, whatever was done with it.

And what it is given of a pipe or a FIFO is an open file of its own.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from doors import MountDoor
from here import Here

from synosfs.kernel import Kernel
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.file_types import for_program
from synosfs.syscall_gate.record import Reply, Request

NONBLOCK = pytest.mark.parametrize("nonblock", [False, True])


def host_flags(gate: MountDoor, fd: int) -> int:
    """The flags of the daemon's descriptor."""
    link = Path(os.readlink(gate.mount.path / f"proc/{os.getpid()}/fd/{fd}"))
    info = (link.parent.parent / "fdinfo" / link.name).read_text()
    return int(next(line.split()[1] for line in info.splitlines() if line.startswith("flags:")), 8)


def a_socket(gate: MountDoor, path: bytes, nonblock: bool) -> tuple[int, list[Callable[[], object]]]:
    ends = gate.ok("socketpair", "SOCK_NONBLOCK" if nonblock else "0").results
    fd, other = ends["first"], ends["second"]
    return fd, [
        lambda: gate.call("read", fd, 10, timeout=0.02),
        lambda: [gate.ok("write", other, b"x"), gate.ok("read", fd, 10)],
        lambda: [gate.call("write", fd, b"x" * (1 << 20), timeout=0.05), gate.call("read", other, 1 << 20)],
        lambda: gate.block("read", fd, 10).interrupt() if not nonblock else None,
    ]


def a_file(gate: MountDoor, path: bytes, nonblock: bool) -> tuple[int, list[Callable[[], object]]]:
    fd = gate.ok("open", path, "O_RDWR|O_NONBLOCK" if nonblock else "O_RDWR").ret
    return fd, [
        lambda: gate.ok("read", fd, 10),
        lambda: gate.ok("write", fd, b"x"),
        lambda: gate.ok("pread64", fd, 10, 0),
        lambda: gate.ok("fcntl", fd, "F_SETLK", "F_WRLCK", 0, 0),
        lambda: gate.ok("flock", fd, "LOCK_EX"),
        lambda: gate.ok("sendfile", gate.ok("pipe").results["write"], fd, 10, offset=0),
    ]


def memory(gate: MountDoor, path: bytes, nonblock: bool) -> tuple[int, list[Callable[[], object]]]:
    fd = gate.ok("memfd_create", b"memory").ret
    if nonblock:
        gate.ok("fcntl", fd, "F_SETFL", "O_NONBLOCK")
    return fd, [lambda: gate.ok("write", fd, b"x"), lambda: gate.ok("pread64", fd, 10, 0)]


def a_counter(gate: MountDoor, path: bytes, nonblock: bool) -> tuple[int, list[Callable[[], object]]]:
    fd = gate.ok("eventfd2", 0, "EFD_NONBLOCK" if nonblock else "0").ret
    return fd, [
        lambda: gate.call("read", fd, 8, timeout=0.02),
        lambda: gate.ok("eventfd_write", fd, 5),
        lambda: gate.ok("eventfd_read", fd),
        lambda: gate.ok("poll", (fd, "POLLOUT")),
        lambda: gate.block("read", fd, 8).interrupt() if not nonblock else None,
    ]


def a_timer(gate: MountDoor, path: bytes, nonblock: bool) -> tuple[int, list[Callable[[], object]]]:
    fd = gate.ok("timerfd_create", "CLOCK_MONOTONIC", "TFD_NONBLOCK" if nonblock else "0").ret
    return fd, [
        lambda: gate.call("read", fd, 8, timeout=0.02),
        lambda: [gate.ok("timerfd_settime", fd, 0, 0.001), gate.call("read", fd, 8, timeout=0.02)],
    ]


@NONBLOCK
@pytest.mark.parametrize("make", [a_socket, a_file, memory, a_counter, a_timer])
def test_the_hosts_flags_are_the_users_after_every_use(
    gate: MountDoor, tmp_path: Path, make: Callable[..., Any], nonblock: bool
) -> None:
    (tmp_path / "file").write_bytes(b"some data in it")
    fd, uses = make(gate, os.fsencode(tmp_path / "file"), nonblock)
    for use in [lambda: None, *uses]:
        use()
        gate.end_children()
        shown = gate.ok("fcntl", fd, "F_GETFL").ret
        assert bool(shown & os.O_NONBLOCK) == nonblock
        assert host_flags(gate, fd) & ~os.O_CLOEXEC == shown
    for wanted in (0, os.O_NONBLOCK):
        gate.ok("fcntl", fd, "F_SETFL", wanted)
        assert host_flags(gate, fd) & os.O_NONBLOCK == wanted
    gate.ok("close_range", 3, 1023)


def test_a_pipe_of_the_daemons_never_waits(gate: MountDoor) -> None:
    for fd in gate.ok("pipe").results.values():
        assert host_flags(gate, fd) & os.O_NONBLOCK
        assert not gate.ok("fcntl", fd, "F_GETFL").ret & os.O_NONBLOCK
        gate.ok("close", fd)


# --- what a program is given


class Opened:
    """Calls of this process, and what its descriptors stand for."""

    def __init__(self, kernel: Kernel) -> None:
        self._caller = kernel.caller(os.getpid(), os.geteuid(), os.getegid(), Here())
        self._dispatcher = kernel.dispatcher

    async def call(self, call: str, *arguments: Any) -> Reply:
        with trio.fail_after(10):
            reply = await self._dispatcher.call(self._caller, Request(call, list(arguments)))
        assert not reply.errno, reply
        return reply

    def __getitem__(self, fd: int) -> Description:
        return self._caller.descriptors.get(fd)

    async def given(self, fd: int) -> int:
        make = for_program(self[fd])
        assert make is not None
        given = await trio.to_thread.run_sync(make)
        assert fcntl.fcntl(given, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        return given


@NONBLOCK
async def test_a_program_has_an_open_file_of_its_own_for_an_end_of_a_pipe(kernel: Kernel, nonblock: bool) -> None:
    opened = Opened(kernel)
    ends = (await opened.call("pipe2", "O_NONBLOCK" if nonblock else "0")).results
    given = {name: await opened.given(fd) for name, fd in ends.items()}
    for name, access in (("read", os.O_RDONLY), ("write", os.O_WRONLY)):
        flags = fcntl.fcntl(given[name], fcntl.F_GETFL)
        assert flags & os.O_ACCMODE == access
        assert bool(flags & os.O_NONBLOCK) == nonblock
        os.set_blocking(given[name], True)
        assert not os.get_blocking(opened[ends[name]].host_fd)
        assert opened[ends[name]].apart
    os.write(given["write"], b"through")
    assert (await opened.call("read", ends["read"], 10)).data == b"through"
    await opened.call("write", ends["write"], b"back")
    assert os.read(given["read"], 10) == b"back"
    for fd in given.values():
        os.close(fd)
    for fd in ends.values():
        await opened.call("close", fd)


@pytest.mark.parametrize("flags", ["O_RDONLY|O_NONBLOCK", "O_WRONLY", "O_RDWR"])
async def test_a_program_has_one_for_a_fifo_too_even_if_nobody_reads_it(
    kernel: Kernel, tmp_path: Path, flags: str
) -> None:
    opened = Opened(kernel)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fd = (await opened.call("open", os.fsencode(path), flags)).ret
    os.close(reader)
    given = await opened.given(fd)
    assert fcntl.fcntl(given, fcntl.F_GETFL) & os.O_ACCMODE == opened[fd].flags & os.O_ACCMODE
    assert os.get_blocking(given) == ("O_NONBLOCK" not in flags)
    os.close(given)
    await opened.call("close", fd)


@pytest.mark.parametrize(
    "request_",
    [("socketpair",), ("eventfd2",), ("timerfd_create", 1), ("memfd_create", b"m"), ("open", b"/tmp", 0o200000)],
)
async def test_a_program_shares_the_open_file_of_all_others(kernel: Kernel, request_: tuple) -> None:
    opened = Opened(kernel)
    reply = await opened.call(*request_)
    fd = reply.results.get("first", reply.ret)
    given = await opened.given(fd)
    os.set_blocking(given, False)
    assert not os.get_blocking(opened[fd].host_fd)
    assert opened[fd].shared
    assert not opened[fd].is_free
    os.close(given)
    await opened.call("close_range", 3, 1023)


async def test_a_shared_counter_still_waits(kernel: Kernel) -> None:
    opened = Opened(kernel)
    fd = (await opened.call("eventfd2")).ret
    given = await opened.given(fd)
    async with trio.open_nursery() as nursery:
        found = []

        async def read() -> None:
            found.append((await opened.call("read", fd, 8)).results["value"])

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.01)
        os.eventfd_write(given, 7)
    assert found == [7]
    os.close(given)
    await opened.call("close", fd)


async def test_a_program_that_makes_a_shared_thing_wait_holds_up_nobody_else(kernel: Kernel) -> None:
    opened = Opened(kernel)
    for request in (
        ("eventfd2", 0, "EFD_NONBLOCK"),
        ("timerfd_create", 1, "TFD_NONBLOCK"),
        ("socketpair", "SOCK_NONBLOCK"),
    ):
        reply = await opened.call(*request)
        fd = reply.results.get("first", reply.ret)
        given = await opened.given(fd)
        os.set_blocking(given, True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.call, "read", fd, 8)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await opened.call("getpid")
            nursery.cancel_scope.cancel()
        os.close(given)
    await opened.call("close_range", 3, 1023)


async def test_what_a_program_has_no_use_for_it_is_not_given(kernel: Kernel) -> None:
    opened = Opened(kernel)
    assert for_program(opened[0]) is None
