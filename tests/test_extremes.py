"""Whatever a request holds, it costs an errno that says why, and that request alone: no row of the table can be made to
fail for a reason of the daemon's own.
"""

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from here import caller_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_msg import CONSTANTS, msgctl, msgget
from native_sem import semctl
from native_shm import shmctl

from synosfs.host.thread import install_interrupt_handler
from synosfs.kernel import Kernel
from synosfs.syscall_gate import table
from synosfs.syscall_gate.codecs import JSON, MSGPACK, TEXT, RequestStream, encode
from synosfs.syscall_gate.record import Bare, Reply, Request


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


#: None of them names a file or an object that is there.
EXTREMES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**64, 10**40, 10**4000),
    *(0.5, -0.0, 1e300, float("inf"), float("-inf"), float("nan")),
    *(
        "",
        " ",
        "no-such-name",
        "9" * 400,
        "9" * 5000,
        "0x" + "f" * 5000,
        "\ud800",
        "a\0b",
        "IPC_STAT|" * 30,
        "=",
        "x=1",
    ),
    *(b"", b"\xff\xfe", b"a\0b", b"-" * 300, b"/no/such/" + b"x" * 300, Bare(b"timeout=-1"), Bare(b"1" * 400)),
    *([], [None], [[]], [-1] * 600, [[0, 0, 0]] * 600, ["no-such-name"] * 600, {}, {"a": 1}),
    *(nested(10), nested(900)),
]
VALUES = st.one_of(st.sampled_from(EXTREMES), st.integers(), st.text(max_size=5).filter(lambda text: "/" not in text))


@pytest.fixture
async def kernel(nothing_left: None) -> AsyncIterator[Kernel]:
    install_interrupt_handler()
    kernel = Kernel()
    yield kernel
    await kernel.close()
    remove_all(set())


def objects() -> set[tuple[str, int]]:
    tables = {family: Path(f"/proc/sysvipc/{family}").read_text().splitlines()[1:] for family in REMOVE}
    return {(family, int(line.split()[1])) for family, lines in tables.items() for line in lines}


def remove_all(but: set[tuple[str, int]]) -> None:
    for family, number in objects() - but:
        REMOVE[family](number)


REMOVE = {
    "msg": lambda number: msgctl(number, CONSTANTS["IPC_RMID"]),
    "sem": lambda number: semctl(number, 0, CONSTANTS["IPC_RMID"]),
    "shm": lambda number: shmctl(number, CONSTANTS["IPC_RMID"]),
}


async def answer(kernel: Kernel, request: Request) -> Reply:
    caller = caller_here(kernel)
    caller.nonblock = True
    with trio.fail_after(30):
        return await kernel.dispatcher.call(caller, request)


def by_itself(reply: Reply) -> None:
    """It has not failed for a reason of ours; and each notation can say it."""
    assert reply.errno != errno.EIO, reply.message
    for notation in (TEXT, JSON, MSGPACK):
        record = next(iter(RequestStream().feed(b"getpid\n")))
        record.notation = notation
        assert encode(record, [reply])


#: Those that would change what is not ours, given a number that happens to fit.
_SPARED = (
    {"chown", "chmod", "unlink", "rename", "utimensat", "utime", "utimes", "futimesat", "nanosleep"}
    | {"kill", "tgkill", "pidfd_send_signal"}  # 1 is a process, and -1 is all
    | {"setrlimit", "prlimit64", "setpriority", "nice", "sched_setaffinity"}  # of the tests' own process
    | {"fchmod", "fchown", "fchmodat", "fchownat", "futimens", "fsetxattr", "fremovexattr"}  # 0 may be /dev/null
    | {"lchown", "link", "linkat", "mkdir", "mkdirat", "mknod", "mknodat", "rmdir", "symlink", "symlinkat", "creat"}
    | {"truncate", "renameat", "renameat2", "unlinkat", "setxattr", "lsetxattr", "removexattr", "lremovexattr"}
)


@pytest.mark.parametrize("name", [row.name for row in table.ROWS if row.name not in _SPARED])
async def test_a_row_answers_each_extreme_in_each_place(kernel: Kernel, name: str) -> None:
    row = table.find(name)
    for place in range(len(row.params) + 1):
        for extreme in EXTREMES:
            args: list[Any] = ["no-such-name"] * place
            by_itself(await answer(kernel, Request(name, [*args, extreme])))
            by_itself(await answer(kernel, Request(name, [-1] * place + [extreme])))


@pytest.mark.parametrize("timeout", [-1, -0.1, float("nan"), float("inf"), 10**400, "x", "9" * 5000, [], nested(900)])
@pytest.mark.parametrize("where", ["field", "name"])
async def test_a_timeout_that_is_none_is_einval(kernel: Kernel, timeout: Any, where: str) -> None:
    request = Request("msgrcv", [1 << 30, 1], {"timeout": timeout} if where == "name" else {})
    if where == "field":
        request.timeout = timeout
    assert (await answer(kernel, request)).errno == errno.EINVAL


@settings(suppress_health_check=list(HealthCheck), max_examples=200)
@given(
    name=st.sampled_from([row.name for row in table.ROWS if row.name not in _SPARED]),
    args=st.lists(VALUES, max_size=6),
    kwargs=st.dictionaries(
        st.sampled_from(["flags", "mode", "timeout", "data", "x", "value", "init"]), VALUES, max_size=3
    ),
)
def test_any_mixture_is_answered(ipc_namespace: None, name: str, args: list, kwargs: dict) -> None:
    async def main() -> None:
        kernel = Kernel()
        try:
            by_itself(await answer(kernel, Request(name, args, kwargs)))
        finally:
            await kernel.close()

    install_interrupt_handler()
    before = objects()
    trio.run(main)
    remove_all(before)


async def test_too_many_operations_are_told_by_their_count_before_one_is_looked_at(kernel: Kernel) -> None:
    reply = await answer(kernel, Request("semop", [0, [object()] * 700_000]))
    assert reply.errno == errno.E2BIG


async def test_replies_earned_before_a_bad_request_are_not_lost(kernel: Kernel) -> None:
    queue = msgget(0, 0o600)
    caller = caller_here(kernel)
    bad = [Request("msgrcv", [queue, nested(900)]), Request("msgrcv", [10**4000]), Request("getpid", [], {}, -1)]
    turn = kernel.dispatcher.turn(caller)
    replies = await kernel.dispatcher.run_all(caller, [Request("getpid"), *bad, Request("getpid")], turn)
    assert [reply.errno for reply in replies] == [0, *[errno.EINVAL] * 3, 0]
    msgctl(queue, CONSTANTS["IPC_RMID"])
