"""The clocks of a process and of a thread are the caller's; another clock of a process is none."""

import os
import threading
import time

import pytest
from doors import MountDoor
from mounts import Mount

BUSY_S = 0.3


@pytest.fixture
def gate(mount: Mount) -> MountDoor:
    return MountDoor(mount, "text")


def burn(clock: int) -> None:
    until = time.clock_gettime(clock) + BUSY_S
    while time.clock_gettime(clock) < until:
        pass


def told_s(gate: MountDoor, clock: object) -> float:
    results = gate.ok("clock_gettime", clock).results
    return float(results["tv_sec"] + results["tv_nsec"] / 1e9)


def test_the_time_of_a_process_is_the_callers_own(gate: MountDoor) -> None:
    def compare() -> tuple[float, float, float]:
        burn(time.CLOCK_PROCESS_CPUTIME_ID)
        before = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
        told = told_s(gate, "CLOCK_PROCESS_CPUTIME_ID")
        return before, told, time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)

    before, told, after = gate.spawn(compare).result()
    assert BUSY_S <= before <= told <= after
    gate.close()


def test_the_time_of_a_thread_is_the_callers_own(gate: MountDoor, mount: Mount) -> None:
    def compare() -> list[float]:
        times = []

        def run() -> None:
            own = MountDoor(mount, "text")
            burn(time.CLOCK_THREAD_CPUTIME_ID)
            times.extend([told_s(own, "CLOCK_THREAD_CPUTIME_ID"), time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)])
            own.close()

        burn(time.CLOCK_THREAD_CPUTIME_ID)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return times

    told, after = gate.spawn(compare).result()
    assert BUSY_S * 0.9 < told <= after  # /proc has it as of the last tick
    assert after < 2 * BUSY_S
    gate.close()


@pytest.mark.parametrize("clock", [~os.getpid() << 3 | 2, -6, 99, -1], ids=["process", "descriptor", "unknown", "-1"])
def test_a_clock_of_another_process_or_descriptor_is_einval(gate: MountDoor, clock: int) -> None:
    assert gate.call("clock_gettime", clock).errno == "EINVAL"
    gate.close()
