"""Groups, priorities, processors and limits: what a process may ask and change, of itself and of others."""

import os
import signal
import time
from pathlib import Path

import pytest
from children import wait_until
from doors import NOBODY, Door


def in_a_process(door: Door, *calls: tuple, uid: int = 0) -> list[str | int]:
    """What a process of its own is answered, which the calls may change: the errno, or the return value."""

    def make() -> list[str | int]:
        return [result.errno or result.ret for result in (door.call(*call) for call in calls)]

    return door.spawn(make, uid=uid).result()


def test_groups_and_sessions_are_the_hosts(door: Door) -> None:
    assert door.ok("getpgrp").ret == os.getpgrp()
    for pid in (0, os.getpid(), os.getppid(), 1):
        assert door.ok("getpgid", pid).ret == os.getpgid(pid)
        assert door.ok("getsid", pid).ret == os.getsid(pid)


@pytest.mark.parametrize("call", ["getpgid", "getsid", "sched_getaffinity"])
def test_of_a_process_that_is_not_there(door: Door, call: str) -> None:
    assert door.call(call, 2**22 + 1).errno == "ESRCH"


def test_getpriority_is_the_hosts(door: Door) -> None:
    assert door.ok("getpriority", "PRIO_PROCESS", 0).ret == os.getpriority(os.PRIO_PROCESS, 0)
    assert door.ok("getpriority", "PRIO_PGRP", 0).ret == os.getpriority(os.PRIO_PGRP, 0)
    assert door.call("getpriority", 3, 0).errno == "EINVAL"
    assert door.call("getpriority", "PRIO_PROCESS", 2**22 + 1).errno == "ESRCH"


def test_a_process_is_nicer_at_will_and_less_nice_with_the_right(door: Door) -> None:
    calls = (
        ("setpriority", "PRIO_PROCESS", 0, 5),
        ("nice", 2),
        ("getpriority", "PRIO_PROCESS", 0),
        ("setpriority", "PRIO_PROCESS", 0, 3),
    )
    assert in_a_process(door, *calls) == [0, 7, 7, 0]
    assert in_a_process(door, *calls, uid=NOBODY) == [0, 7, 7, "EACCES"]


def test_another_users_process_keeps_its_priority(door: Door) -> None:
    assert in_a_process(door, ("setpriority", "PRIO_PROCESS", os.getpid(), 10), uid=NOBODY) == ["EPERM"]


def test_processors_are_set_and_told(door: Door) -> None:
    def pin() -> list[object]:
        first = min(os.sched_getaffinity(0))
        door.ok("sched_setaffinity", 0, [first])
        cpus = door.ok("sched_getaffinity").results["cpus"]
        return [cpus in (first, [first]), sorted(os.sched_getaffinity(0)) == [first]]

    assert door.spawn(pin).result() == [True, True]


@pytest.mark.parametrize("cpus", [[99999], []])
def test_processors_that_there_are_not(door: Door, cpus: list[int]) -> None:
    if cpus or door.name in ("native", "json", "msgpack"):
        assert in_a_process(door, ("sched_setaffinity", 0, cpus)) == ["EINVAL"]


def test_another_users_process_keeps_its_processors(door: Door) -> None:
    assert in_a_process(door, ("sched_setaffinity", os.getpid(), [0]), uid=NOBODY) == ["EPERM"]


def test_limits_are_told_and_lowered(door: Door) -> None:
    def lower() -> list[object]:
        door.ok("setrlimit", "RLIMIT_CORE", 1000, 2000)
        old = door.ok("prlimit64", 0, "RLIMIT_CORE").results
        return [old, door.ok("getrlimit", "RLIMIT_CORE").results]

    told = {"soft": 1000, "hard": 2000}
    assert door.spawn(lower, uid=NOBODY).result() == [told, told]


def test_prlimit_answers_what_was_before(door: Door) -> None:
    def change() -> list[object]:
        door.ok("setrlimit", "RLIMIT_CORE", 1000, 2000)
        before = door.ok("prlimit64", 0, "RLIMIT_CORE", 5, 10).results
        return [before, door.ok("getrlimit", "RLIMIT_CORE").results]

    assert door.spawn(change).result() == [{"soft": 1000, "hard": 2000}, {"soft": 5, "hard": 10}]


def test_who_has_not_the_right_raises_no_hard_limit(door: Door) -> None:
    calls = (
        ("setrlimit", "RLIMIT_CORE", 10, 20),
        ("setrlimit", "RLIMIT_CORE", 20, 20),
        ("setrlimit", "RLIMIT_CORE", 10, 30),
        ("setrlimit", "RLIMIT_CORE", 21, 20),
        ("setrlimit", "RLIMIT_CORE", "unlimited", 20),
    )
    assert in_a_process(door, *calls, uid=NOBODY) == [0, 0, "EPERM", "EINVAL", "EINVAL"]


def test_a_limit_that_there_is_not(door: Door) -> None:
    assert door.call("getrlimit", 16).errno == "EINVAL"
    assert door.call("prlimit64", 0, 99).errno == "EINVAL"


# --- use, and the machine


def test_times_and_usage_grow(door: Door) -> None:
    if door.name == "native":
        pytest.skip("the host's own are not read of /proc")

    def use() -> list[bool]:
        before, usage = door.ok("times"), door.ok("getrusage", "RUSAGE_SELF").results
        deadline = time.process_time() + 0.1
        while time.process_time() < deadline:
            pass
        after, more = door.ok("times"), door.ok("getrusage").results
        return [
            after.ret >= before.ret > 0,
            sum(after.results.values()) > sum(before.results.values()),
            more["utime_us"] + more["stime_us"] >= usage["utime_us"] + usage["stime_us"] + 50_000,
            door.ok("getrusage", "RUSAGE_CHILDREN").results["utime_us"] == 0,
            door.call("getrusage", "RUSAGE_THREAD").errno == "EINVAL",
        ]

    assert door.spawn(use).result() == [True] * 5


def test_sysinfo_tells_of_the_machine(door: Door) -> None:
    if door.name == "native":
        pytest.skip("Python has no sysinfo")
    found = door.ok("sysinfo").results
    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    assert found["totalram"] * found["mem_unit"] == memory["MemTotal"] * 1024
    assert abs(found["uptime"] - float(Path("/proc/uptime").read_text().split()[0])) < 5
    assert found["procs"] > 1


# --- threads


def test_tgkill_reaches_a_thread_of_that_process_alone(door: Door) -> None:
    if door.name == "native":
        pytest.skip("Python has no tgkill")
    target = door.spawn(signal.pause)
    wait_until(lambda: target.state == "S", "it sleeps")
    assert door.call("tgkill", target.pid, os.getpid(), 0).errno == "ESRCH"
    assert door.call("tgkill", 0, target.pid, 0).errno == "EINVAL"
    assert door.call_as(NOBODY, "tgkill", target.pid, target.pid, 0).errno == "EPERM"
    door.ok("tgkill", target.pid, target.pid, "SIGTERM")
    wait_until(target.ended, "it is dead")
    assert target.status == -signal.SIGTERM
