"""The descriptors of a SynOS process beside a real process's: after any sequence of calls they answer the same, number
for number and errno for errno.

Each example has a pair of processes, one that makes its calls natively and one that makes them at the gate. A rule is
one call of both. What makes more processes of one, or another program, adds a pair, or changes what a pair has.
"""

import json
import os
import pickle
import resource
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from children import Child
from doors import Door, MountDoor, NativeDoor
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from mounts import Mount
from native import Result

#: Where a process takes its orders from, out of the way of the rules.
ORDERS, ANSWERS = 1000, 1001

#: Numbers that may be open, and some that cannot.
SMALL = st.integers(0, 9)
NUMBERS = st.one_of(SMALL, SMALL, SMALL, st.sampled_from([-1, 40, 1023, 1024, 5000]))
CLOEXEC = st.sampled_from(["0", "O_CLOEXEC"])

#: How many steps all examples had together.
steps = 0


class Process:
    """A process that makes the calls it is told to, through a door."""

    def __init__(self, door: Door) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._child = Child(lambda: _obey(door, orders, answers))
        os.close(orders)
        os.close(answers)

    def call(self, call: str, *arguments: Any) -> Result:
        _send(self._orders, (call, arguments))
        return _receive(self._answers)

    def close(self) -> None:
        self._child.close()
        os.close(self._orders)
        os.close(self._answers)


def _obey(door: Door, orders: int, answers: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    # dup2 makes them inheritable, which does no harm: nothing is executed.
    os.dup2(orders, ORDERS)
    os.dup2(answers, ANSWERS)
    if isinstance(door, NativeDoor):
        os.closerange(3, ORDERS)
    else:
        door.ok("close_range", 3, 1023)  # what the test had opened at the gate
    while order := _receive(ORDERS):
        call, arguments = order
        _send(ANSWERS, _execute(door, *arguments) if call == "execute" else door.call(call, *arguments))


#: A program that writes down which numbers it has.
_LIST = 'set -- /proc/$$/fd/*; echo "$@" > "$0"'


def _execute(door: Door, how: str, listing: str) -> Result:
    """Fork, execute a program in the child, wait for it: the numbers that it had."""
    words = ["sh", "-c", _LIST, listing]
    if isinstance(door, NativeDoor):
        os.waitpid(os.posix_spawn("/bin/sh", words, {}), 0)
    elif how == "spawn":
        door.ok("wait4", door.ok("spawn", b"/bin/sh", words).ret)
    else:
        assert isinstance(door, MountDoor)
        pid = door.ok("fork").ret
        with open(door.mount.path / f"proc/{pid}/syscall", "r+b", buffering=0) as gate:
            gate.write(json.dumps({"call": "execve", "args": ["/bin/sh", words]}).encode() + b"\n")
        door.ok("wait4", pid)
    with open(listing) as file:
        numbers = sorted(int(os.path.basename(path)) for path in file.read().split())
    os.unlink(listing)
    return Result(0, "", {"fds": [number for number in numbers if number < ORDERS]})


def _send(fd: int, message: Any) -> None:
    pickled = pickle.dumps(message)
    os.write(fd, struct.pack("I", len(pickled)) + pickled)


def _receive(fd: int) -> Any:
    header = os.read(fd, 4)
    return pickle.loads(os.read(fd, struct.unpack("I", header)[0])) if header else None


class Pair:
    """A real process and a SynOS process that have done the same."""

    def __init__(self, native: Door, gate: Door) -> None:
        self.real, self.ours = Process(native), Process(gate)

    def call(self, call: str, *arguments: Any) -> Result:
        global steps  # noqa: PLW0603 - a count for people
        steps += 1
        expected, found = self.real.call(call, *arguments), self.ours.call(call, *arguments)
        same = (expected.ret, expected.errno, expected.results)
        assert (found.ret, found.errno, found.results) == same, (call, arguments, expected, found)
        return found

    def close(self) -> None:
        self.real.close()
        self.ours.close()


class Machine(RuleBasedStateMachine):
    """One pair, and the calls that make, move and close numbers."""

    doors: tuple[Door, Door]
    file: bytes
    listing: str

    @initialize()
    def begin(self) -> None:
        self.pair = Pair(*self.doors)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.close()

    @rule(flags=CLOEXEC)
    def pipe(self, flags: str) -> None:
        self.pair.call("pipe2", flags)

    @rule(flags=st.sampled_from(["0", "SOCK_CLOEXEC"]))
    def socketpair(self, flags: str) -> None:
        self.pair.call("socketpair", flags)

    @rule(flags=st.sampled_from(["O_RDONLY", "O_RDWR|O_CLOEXEC", "O_WRONLY|O_APPEND|O_NONBLOCK"]))
    def open(self, flags: str) -> None:
        self.pair.call("open", self.file, flags)

    @rule(flags=st.sampled_from([0, "EFD_CLOEXEC"]))
    def eventfd(self, flags: int | str) -> None:
        self.pair.call("eventfd2", 1, flags)

    @rule(flags=st.sampled_from([0, "MFD_CLOEXEC"]))
    def memory(self, flags: int | str) -> None:
        self.pair.call("memfd_create", b"memory", flags)

    @rule(fd=NUMBERS)
    def dup(self, fd: int) -> None:
        self.pair.call("dup", fd)

    @rule(fd=NUMBERS, newfd=NUMBERS)
    def dup2(self, fd: int, newfd: int) -> None:
        self.pair.call("dup2", fd, newfd)

    @rule(fd=NUMBERS, newfd=NUMBERS, flags=st.sampled_from(["0", "O_CLOEXEC", "O_NONBLOCK"]))
    def dup3(self, fd: int, newfd: int, flags: str) -> None:
        self.pair.call("dup3", fd, newfd, flags)

    @rule(fd=NUMBERS, command=st.sampled_from(["F_DUPFD", "F_DUPFD_CLOEXEC"]), lowest=NUMBERS)
    def duplicate(self, fd: int, command: str, lowest: int) -> None:
        self.pair.call("fcntl", fd, command, lowest)

    @rule(fd=NUMBERS)
    def close(self, fd: int) -> None:
        self.pair.call("close", fd)

    @rule(first=st.integers(0, 12), last=st.integers(0, 900), flags=st.sampled_from([0, "CLOSE_RANGE_CLOEXEC", 16]))
    def close_range(self, first: int, last: int, flags: int | str) -> None:
        self.pair.call("close_range", first, last, flags)

    @rule(fd=NUMBERS, flag=st.integers(0, 1))
    def mark(self, fd: int, flag: int) -> None:
        self.pair.call("fcntl", fd, "F_SETFD", flag)

    @rule(how=st.sampled_from(["spawn", "fork"]))
    def execute(self, how: str) -> None:
        self.pair.call("execute", how, self.listing)

    @invariant()
    def the_same_numbers_are_open(self) -> None:
        if hasattr(self, "pair"):
            for fd in (*range(12), 40, 1023):
                self.pair.call("fcntl", fd, "F_GETFD")


@pytest.fixture
def machine(mount: Mount, tmp_path: Any) -> Iterator[Callable[[], RuleBasedStateMachine]]:
    (tmp_path / "file").write_bytes(b"")
    gate = MountDoor(mount, "json")

    class Here(Machine):
        doors = NativeDoor(), gate
        file = os.fsencode(tmp_path / "file")
        listing = str(tmp_path / "listing")

    yield Here
    gate.close()


@pytest.mark.slow
def test_a_table_answers_as_a_real_processs_does(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{steps} calls of both")
