"""``orphans`` and ``reap``: what each shows and removes of the objects of native programs and of SynOS processes."""

import errno
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from children import Child, wait_until
from command import needs_root
from mounts import Mount
from native_msg import msgget, msgrcv, msgsnd
from native_sem import semctl, semget, semop
from native_shm import shmat, shmget

Start = Callable[..., Child]


class Line(NamedTuple):
    """A line of ``orphans``."""

    number: int
    key: str
    uid: int
    size: int
    idle: int
    verdict: str
    evidence: str


def orphans(mount: Mount, family: str) -> dict[int, Line]:
    """The lines, by id."""
    header, *lines = (mount.path / family / "orphans").read_text().splitlines()
    assert header.split()[1:3] + header.split()[4:] == ["key", "uid", "idle", "verdict", "evidence"]
    found = [line.split(maxsplit=6) for line in lines]
    return {int(each[0]): Line(int(each[0]), each[1], *map(int, each[2:5]), *each[5:]) for each in found}


def verdict(mount: Mount, family: str, number: int) -> str:
    return orphans(mount, family)[number].verdict


def command(mount: Mount, family: str, words: str) -> dict:
    """The reply to a word of ``ctl``."""
    name, *args = words.split()
    named = dict(arg.split("=") for arg in args if "=" in arg)
    request = {"call": name, "args": [arg for arg in args if "=" not in arg], "kwargs": named}
    fd = os.open(mount.path / family / "ctl", os.O_RDWR)
    try:
        os.write(fd, json.dumps(request).encode() + b"\n")
        return json.loads(os.read(fd, 1 << 20))
    finally:
        os.close(fd)


def queue(*, sent: bool = True, mode: int = 0o600) -> int:
    msqid = msgget(0, mode)
    if sent:
        msgsnd(msqid, 1, b"forgotten")
    return msqid


def semaphores(*, operated: bool = True, mode: int = 0o600) -> int:
    semid = semget(0, 1, mode)
    if operated:
        semop(semid, (0, 1))
    return semid


def segment(*, mode: int = 0o600) -> int:
    return shmget(0, 5000, mode)


MAKE = {"msgq": queue, "sem": semaphores, "shm": segment}


@pytest.fixture(params=MAKE)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def test_what_a_dead_process_left_is_an_orphan_and_reap_removes_it(mount: Mount, family: str, children: Start) -> None:
    made = [children(MAKE[family]).result() for _ in range(3)]
    assert {number: line.verdict for number, line in orphans(mount, family).items()} == dict.fromkeys(made, "orphan")
    swept = command(mount, family, "reap")
    assert (swept["ret"], {*swept["removed"]}) == (3, {*made})
    assert orphans(mount, family) == {}
    assert command(mount, family, "reap") == {"ret": 0, "removed": []}


def test_looking_changes_nothing(mount: Mount, family: str, children: Start) -> None:
    children(MAKE[family]).result()
    table = Path(f"/proc/sysvipc/{family.removesuffix('q')}")
    before = table.read_text()
    orphans(mount, family)
    assert table.read_text() == before
    with pytest.raises(PermissionError):
        (mount.path / family / "orphans").write_text("")
    command(mount, family, "reap")


def test_what_a_living_process_has_made_or_used_is_in_use_until_it_dies(
    mount: Mount, family: str, children: Start
) -> None:
    receive, send = os.pipe()

    def body() -> None:
        os.write(send, b"%d" % MAKE[family]())
        signal.pause()

    child = children(body)
    number = int(os.read(receive, 100))
    line = orphans(mount, family)[number]
    assert line.verdict == "in-use"
    assert f"pid {child.pid} (" in line.evidence
    assert "alive since" in line.evidence
    assert command(mount, family, "reap")["removed"] == []
    refused = command(mount, family, f"reap {number}")
    assert refused["errno"] == "EBUSY"
    assert f"{number} is in use: " in refused["message"]
    assert f"pid {child.pid} (" in refused["message"]
    child.kill()
    assert verdict(mount, family, number) == "orphan"
    assert command(mount, family, f"reap {number}")["removed"] == [number]


@pytest.mark.parametrize("family", ["msgq", "sem"], indirect=True)
def test_what_nobody_has_used_yet_is_unknown_and_goes_only_when_it_is_named(
    mount: Mount, family: str, children: Start
) -> None:
    make = {"msgq": partial(queue, sent=False), "sem": partial(semaphores, operated=False)}[family]
    number = children(make).result()
    line = orphans(mount, family)[number]
    assert line.verdict == "unknown"
    assert "the host does not keep who made it" in line.evidence
    assert command(mount, family, "reap")["removed"] == []
    assert command(mount, family, f"reap {number}")["removed"] == [number]


def test_a_queue_that_somebody_waits_for_is_in_use(mount: Mount, children: Start) -> None:
    msqid = children(queue).result()
    waits = children(partial(msgrcv, msqid, 100, 9))
    wait_until(lambda: verdict(mount, "msgq", msqid) == "in-use", "it waits")
    assert orphans(mount, "msgq")[msqid].evidence.startswith("somebody waits; ")
    assert command(mount, "msgq", f"reap {msqid}")["errno"] == "EBUSY"
    waits.kill()
    assert command(mount, "msgq", "reap")["removed"] == [msqid]


def test_a_queue_that_somebody_waits_for_through_the_mount_is_in_use(mount: Mount, children: Start) -> None:
    msqid = children(queue).result()
    waits = children(lambda: mount.gate.write_text(f"msgrcv {msqid} 100 9"))
    wait_until(lambda: verdict(mount, "msgq", msqid) == "in-use", "it waits")
    waits.kill()
    wait_until(lambda: verdict(mount, "msgq", msqid) == "orphan", "nobody waits any more")
    assert command(mount, "msgq", "reap")["removed"] == [msqid]


def test_a_set_that_somebody_waits_for_is_in_use(mount: Mount, children: Start) -> None:
    def made() -> int:
        semid = semget(0, 3, 0o600)
        semctl(semid, 2, 16, 1)
        return semid

    semid = children(made).result()
    assert verdict(mount, "sem", semid) == "orphan"  # SETVAL tells who made it
    waits = children(partial(semop, semid, (1, -1)))
    wait_until(lambda: verdict(mount, "sem", semid) == "in-use", "it waits")
    waits.kill()
    assert command(mount, "sem", "reap")["removed"] == [semid]


def test_a_segment_that_is_attached_is_in_use_though_all_who_are_known_are_dead(mount: Mount, children: Start) -> None:
    """What is attached is inherited, and the host goes on to name the parent."""
    receive, send = os.pipe()

    def body() -> int:
        shmid = segment()
        shmat(shmid)
        heir = os.fork()
        if not heir:
            os.closerange(3, 256)  # the end of the parent is told by its end of a pipe
            signal.pause()
        os.write(send, b"%d" % heir)
        return shmid

    child = children(body)
    heir = int(os.read(receive, 100))
    try:
        shmid = child.result()
        line = orphans(mount, "shm")[shmid]
        assert line.verdict == "in-use"
        assert line.evidence.startswith("attached ")
        assert command(mount, "shm", f"reap {shmid}")["errno"] == "EBUSY"
    finally:
        os.kill(heir, signal.SIGKILL)
    wait_until(lambda: verdict(mount, "shm", shmid) == "orphan", "nobody has it attached")
    assert command(mount, "shm", "reap")["removed"] == [shmid]


def test_a_synos_process_is_known_though_the_host_knows_the_daemon_alone(
    mount: Mount, family: str, children: Start
) -> None:
    receive, send = os.pipe()
    calls = {
        "msgq": ["msgget 0 0600", "msgsnd {} 1 hello"],
        "sem": ["semget 0 2 0600", "semop {} 1:+1:0"],
        "shm": ["shmget 0 4096 0600"],
    }

    def body() -> None:
        fd = os.open(mount.gate, os.O_RDWR)
        number = b""
        for call in calls[family]:
            os.write(fd, call.format(number.decode().strip()).encode() + b"\n")
            number = number or os.read(fd, 100)
            os.read(fd, 100)
        os.write(send, number)
        signal.pause()

    child = children(body)
    number = int(os.read(receive, 100))
    line = orphans(mount, family)[number]
    assert line.verdict == "in-use"
    assert f"pid {child.pid} (" in line.evidence
    child.kill()
    wait_until(lambda: verdict(mount, family, number) == "orphan", "its death is noticed")
    assert f"pid {child.pid} (" in orphans(mount, family)[number].evidence  # and its program remembered
    assert command(mount, family, "reap")["removed"] == [number]


def test_reap_is_confined_by_age_owner_emptiness_and_ids(mount: Mount, children: Start) -> None:
    def emptied() -> int:
        msqid = queue()
        msgrcv(msqid, 100)
        return msqid

    full, empty, other = (children(body).result() for body in (queue, emptied, queue))
    reap = partial(command, mount, "msgq")
    assert reap("reap older=1000")["removed"] == []
    assert reap("reap user=nobody")["removed"] == []
    assert reap("reap user=65534")["removed"] == []
    assert reap("reap empty")["removed"] == [empty]
    assert reap(f"reap {other}")["removed"] == [other]
    assert reap(f"reap {full} user=root older=0")["removed"] == [full]


@pytest.mark.parametrize(
    ("family", "words", "pattern"),
    [
        ("sem", "reap empty", "empty is for queues"),
        ("msgq", "reap 77777", "no queue 77777"),
        ("shm", "reap word", "wants a number"),
        ("shm", "reap user=no-such-user-here", "no user is named 'no-such-user-here'"),
        ("shm", "reap older=soon", "wants seconds"),
    ],
    indirect=["family"],
)
def test_what_means_nothing_is_refused_with_its_reason(mount: Mount, family: str, words: str, pattern: str) -> None:
    reply = command(mount, family, words)
    assert (reply["errno"], pattern in reply["message"]) == ("EINVAL", True), reply


def test_the_first_that_is_refused_ends_it_and_says_what_went_before(mount: Mount, children: Start) -> None:
    left = children(queue).result()
    own = queue()  # of this very process, which lives
    reply = command(mount, "msgq", f"reap {left} {own}")
    assert reply["errno"] == "EBUSY"
    assert reply["message"].endswith(f"; removed before: {left}")
    assert [*orphans(mount, "msgq")] == [own]
    (mount.path / "msgq" / "sysv" / str(own)).unlink()


def test_a_single_text_request_that_fails_makes_the_write_fail(mount: Mount) -> None:
    with pytest.raises(OSError, match="Invalid argument") as raised:
        (mount.path / "msgq" / "ctl").write_text("reap 77777\n")
    assert raised.value.errno == errno.EINVAL


def test_it_stands_alone_and_in_no_batch(mount: Mount, children: Start) -> None:
    msqid = children(queue).result()
    fd = os.open(mount.path / "msgq" / "ctl", os.O_RDWR)
    os.write(fd, json.dumps([{"call": "reap"}, {"call": "remove", "args": [msqid]}]).encode() + b"\n")
    replies = json.loads(os.read(fd, 4096))
    os.close(fd)
    assert ["send it alone" in reply["message"] for reply in replies] == [True, True]
    assert command(mount, "msgq", "reap")["removed"] == [msqid]


def test_removals_are_calls_of_the_callers_and_counted(mount: Mount, children: Start) -> None:
    def removals() -> int:
        line = next(line for line in (mount.path / "stats").read_text().splitlines() if line.startswith("msgctl "))
        return int(line.split()[1])

    command(mount, "msgq", "remove 77777")  # so that there is a line
    before = removals()
    made = [children(queue).result() for _ in range(2)]
    assert {*command(mount, "msgq", "reap")["removed"]} == {*made}
    assert removals() == before + 2


@needs_root
def test_a_bystander_sees_the_verdicts_and_removes_nothing_of_others(
    mount: Mount, family: str, children: Start
) -> None:
    roots = children(partial(MAKE[family], mode=0o644)).result()
    own = children(MAKE[family], uid=65534).result()
    assert children(lambda: orphans(mount, family)[roots].verdict, uid=65534).result() == "orphan"
    swept = children(lambda: command(mount, family, "reap"), uid=65534).result()
    assert swept == {"ret": 1, "removed": [own], "refused": [f"{roots}:EPERM"]}
    named = children(lambda: command(mount, family, f"reap {roots}"), uid=65534).result()
    assert named["errno"] == "EPERM"
    assert command(mount, family, "reap")["removed"] == [roots]


@needs_root
def test_who_operated_on_a_set_is_told_to_who_may_read_it(mount: Mount, children: Start) -> None:
    semid = children(semaphores).result()
    line = children(lambda: orphans(mount, "sem")[semid], uid=65534).result()
    assert (line.verdict, "pid" in line.evidence) == ("unknown", False)
    assert verdict(mount, "sem", semid) == "orphan"
    assert command(mount, "sem", "reap")["removed"] == [semid]


def test_a_signal_ends_it(mount: Mount, children: Start) -> None:
    """It is parked for as long as it takes, as a call that waits: here a long look at many."""
    made = children(lambda: [queue() for _ in range(3000)]).result()

    def body() -> str:
        fd = os.open(mount.path / "msgq" / "ctl", os.O_WRONLY)
        try:
            for _ in range(1000):
                os.write(fd, b"reap older=1000\n")
        except InterruptedError:
            return "interrupted"
        return "never"

    def raises() -> None:
        raise InterruptedError

    child = Child(body, on_signal=raises)
    try:
        wait_until(lambda: mount.blocked(child.pid) == ["'reap older=1000'"], "it is at work")
        child.interrupt()
        assert child.result() == "interrupted"
    finally:
        child.close()
    assert {*command(mount, "msgq", "reap")["removed"]} == {*made}


def test_one_that_is_ended_midway_says_what_it_has_done(mount: Mount, children: Start) -> None:
    made = {*children(lambda: [queue() for _ in range(5000)]).result()}

    def body() -> dict:
        return command(mount, "msgq", "reap")

    child = Child(body)
    try:
        wait_until(lambda: mount.blocked(child.pid) and len(os.listdir(mount.path / "msgq/sysv")) < 5000, "it removes")
        child.interrupt()
        reply = child.result()
    finally:
        child.close()
    left = {*map(int, os.listdir(mount.path / "msgq/sysv"))}
    assert {*reply["removed"]} == made - left
    assert reply["ret"] == len(reply["removed"])
    assert {*command(mount, "msgq", "reap")["removed"]} == left
