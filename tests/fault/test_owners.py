"""What is owned goes with its last owner: however that ends, and whenever the daemon is killed meanwhile."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount, mounted
from native_msg import CONSTANTS, msgget

from synosfs.ipc.ownership import _CLOCK_REALTIME_COARSE

EPHEMERAL = "IPC_CREAT|IPC_EPHEMERAL|0600"

#: A call that makes each kind of object for the caller, and where it is then.
MAKING = {
    "queue": (f"msgget 0x5a11 {EPHEMERAL}", "msgq/key/0x5a11"),
    "private queue": (f"msgget IPC_PRIVATE {EPHEMERAL}", "msgq/sysv/*"),
    "set": (f"semget 0x5a12 3 {EPHEMERAL}", "sem/key/0x5a12"),
    "set with values": (f"semget 0x5a13 2 {EPHEMERAL} init=1,2", "sem/key/0x5a13"),
    "private set": (f"semget IPC_PRIVATE 1 {EPHEMERAL}", "sem/sysv/*"),
    "segment": (f"shmget 0x5a14 4096 {EPHEMERAL}", "shm/key/0x5a14"),
    "private segment": (f"shmget IPC_PRIVATE 4096 {EPHEMERAL}", "shm/sysv/*"),
    "POSIX queue": ("mq_open /5a11 O_CREAT|O_RDWR|IPC_EPHEMERAL", "msgq/posix/5a11"),
    "POSIX semaphore": ("sem_open /5a12 O_CREAT|IPC_EPHEMERAL", "sem/posix/5a12"),
    "POSIX memory": ("shm_open /5a13 O_CREAT|O_RDWR|IPC_EPHEMERAL", "shm/posix/5a13"),
}


def request(mount: Mount, line: str) -> str:
    """The first line of the reply, or the errno with which the write failed."""
    session = os.open(mount.gate, os.O_RDWR)
    try:
        return write(session, line.encode() + b"\n") or os.read(session, 4096).decode().partition("\n")[0]
    except OSError as failed:
        return os.strerror(failed.errno or 0)
    finally:
        with suppress(OSError):  # of a daemon that has been killed
            os.close(session)


def there(mount: Mount, where: str) -> list[str]:
    directory, _, name = where.rpartition("/")
    return sorted(entry for entry in os.listdir(mount.path / directory) if name in ("*", entry))


@pytest.mark.parametrize("kind", MAKING)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_an_object_goes_when_its_owner_ends(mount: Mount, gate: MountDoor, kind: str, end: int | None) -> None:
    line, where = MAKING[kind]
    told, tell = os.pipe()

    def own() -> None:
        assert request(mount, line).isdigit()
        os.write(tell, b"1")
        if end is not None:
            signal.pause()

    owner = gate.spawn(own)
    os.read(told, 1)
    if end is not None:
        assert there(mount, where)
        assert f"Owns:\t{where.split('/')[0]}/" in (mount.path / f"proc/{owner.pid}/status").read_text()
        os.kill(owner.pid, end)
    wait_until(owner.ended, "the owner ends")
    wait_until(lambda: not there(mount, where), "the object is gone")
    removed = mount.path / where.split("/")[0] / "removed"
    told_of = re.compile(rf" {owner.pid} .* its last owner has ended$", re.MULTILINE)
    wait_until(lambda: told_of.search(removed.read_text()), "the log tells of it")
    os.close(told), os.close(tell)


def test_the_last_of_several_owners_takes_it_along_and_a_child_is_none(mount: Mount, gate: MountDoor) -> None:
    key = msgget(0x5A15, CONSTANTS["IPC_CREAT"] | 0o600)
    told, tell = os.pipe()

    def own() -> None:
        assert request(mount, "own msgq/key/0x5a15") == "0"
        child = os.fork()  # is none
        if child == 0:
            os.execlp("sleep", "sleep", "60")
        os.write(tell, b"%d " % child)
        signal.pause()

    owners = [gate.spawn(own) for _ in range(2)]
    children = []
    while len(children) < 2:
        children += [int(pid) for pid in os.read(told, 100).split()]
    table = (mount.path / "msgq/ctl").read_text().splitlines()
    assert set(table[-1].split()[-1].split(",")) == {str(owner.pid) for owner in owners}
    os.kill(owners[0].pid, signal.SIGKILL)
    wait_until(owners[0].ended, "one ends")
    assert request(mount, f"msgctl {key} IPC_STAT").startswith("0")
    os.kill(owners[1].pid, signal.SIGKILL)
    wait_until(lambda: not there(mount, "msgq/key/0x5a15"), "it has gone with the last")
    for child in children:
        os.kill(child, signal.SIGKILL)
    os.close(told), os.close(tell)


def test_what_is_disowned_or_was_removed_and_made_anew_stays(mount: Mount, gate: MountDoor) -> None:
    def own() -> list[str]:
        answers = [request(mount, f"msgget 0x5a16 {EPHEMERAL}"), request(mount, "disown msgq/key/0x5a16")]
        answers += [request(mount, "shm_open /5a17 O_CREAT|O_RDWR|IPC_EPHEMERAL")]
        os.unlink("/dev/shm/5a17")
        Path("/dev/shm/5a17").write_bytes(b"another's")
        return answers

    owner = gate.spawn(own)
    first, second, third = owner.result()
    assert (second, third.isdigit()) == ("0", True)
    wait_until(lambda: str(owner.pid) not in os.listdir(mount.path / "proc"), "its end is known")
    assert request(mount, f"msgctl {first} IPC_RMID") == "0"
    assert Path("/dev/shm/5a17").read_bytes() == b"another's"
    os.unlink("/dev/shm/5a17")


def test_who_may_not_remove_an_object_may_not_own_it(mount: Mount, gate: MountDoor, queue: int) -> None:
    def own() -> list[str]:
        lines = f"own msgq/{queue}", "own msgq/99999", "own jobs", "disown msgq/key/0x1", f"disown sem/sysv/{queue}"
        return [
            request(mount, line) for line in (*lines, "msgget 0x5a18 IPC_EPHEMERAL", "mkfifo /x 0600 IPC_EPHEMERAL")
        ]

    assert gate.spawn(own, uid=65534).result() == ["EPERM", "EINVAL", "EINVAL", "ENOENT", "ENOENT", "EINVAL", "EINVAL"]


# --- the daemon is killed ---


def dying(when: int) -> tuple[str, ...]:
    """A command that runs a daemon which is killed before the journal's statement of this number, of those it makes
    while it serves; 0 is when the object has just been made.
    """
    change = f"""
import os, signal
from synosfs.ipc import journal, ownership
made = 0
plain, thing_made = journal.Journal._execute, ownership.Making.made
def execute(self, *arguments):
    global made
    made += 1
    if made == {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, *arguments)
def is_made(self, thing):
    if {when} == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return thing_made(self, thing)
journal.Journal._execute, ownership.Making.made = execute, is_made
"""
    return (
        sys.executable,
        "-c",
        f"import sys; exec({change!r}); from synosfs.cli import main; sys.exit(main(sys.argv[2:]))",
    )


#: Before its intent, before it is owned, in the middle of that, before that holds.
MOMENTS = (1, 0, 2, 3, 4, 5)


@pytest.fixture(params=MOMENTS)
def dying_mount(request: pytest.FixtureRequest, nothing_left: None) -> Iterator[Mount]:
    with mounted(prefix=dying(request.param)) as mount:
        mount.moment = request.param  # type: ignore[attr-defined]
        yield mount


def start_again(mount: Mount) -> None:
    mount.daemon.wait()
    mount._prefix = ()
    mount.start()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["queue", "private queue", "set with values", "private segment", "POSIX queue", "POSIX memory"]
)
def test_a_daemon_killed_at_any_moment_leaves_nothing_of_an_owner_who_is_dead(dying_mount: Mount, kind: str) -> None:
    line, where = MAKING[kind]
    expected = []
    if kind == "private queue":
        other = msgget(0, 0o600)
        expected = [str(other)]
        # It and what is made are told apart by the second, on the host's clock for these.
        made = os.stat(dying_mount.path / f"msgq/sysv/{other}").st_ctime
        wait_until(lambda: int(time.clock_gettime(_CLOCK_REALTIME_COARSE)) > made, "a second later")
    assert Child(lambda: request(dying_mount, line)).result() in ("ENOTCONN", "ECONNABORTED")
    start_again(dying_mount)
    wait_until(lambda: there(dying_mount, where) == expected, "it is gone, and what is another's is not")
    for name in expected:
        os.unlink(dying_mount.path / f"msgq/sysv/{name}")
    dying_mount.complaints()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["queue", "private segment", "POSIX memory"])
def test_a_daemon_killed_at_any_moment_leaves_what_is_made_to_an_owner_who_lives(dying_mount: Mount, kind: str) -> None:
    line, where = MAKING[kind]
    told, tell = os.pipe()

    def own() -> None:
        assert request(dying_mount, line) in ("ENOTCONN", "ECONNABORTED")
        os.write(tell, b"1")
        signal.pause()

    owner = Child(own)
    os.read(told, 1)
    start_again(dying_mount)
    if dying_mount.moment != 1:  # type: ignore[attr-defined]
        assert there(dying_mount, where)
        assert f"Owns:\t{where.split('/')[0]}/" in (dying_mount.path / f"proc/{owner.pid}/status").read_text()
    owner.kill()
    wait_until(lambda: not there(dying_mount, where), "it has gone with its owner")
    dying_mount.complaints()
    os.close(told), os.close(tell)


@pytest.mark.parametrize("end", [Mount.kill, Mount.stop])
def test_owners_and_removals_outlive_the_daemon(own_mount: Mount, end: Callable[[Mount], None]) -> None:
    told, tell = os.pipe()

    def own() -> None:
        assert request(own_mount, f"msgget 0x5a19 {EPHEMERAL}").isdigit()
        assert request(own_mount, f"semget 0x5a19 1 {EPHEMERAL}").isdigit()
        os.write(tell, b"1")
        signal.pause()

    living, dying = Child(own), Child(own)
    assert os.read(told, 1) + os.read(told, 1) == b"11"
    os.unlink(own_mount.path / "sem/key/0x5a19")
    end(own_mount)
    assert msgget(0x5A19, 0) >= 0
    dying.kill()
    own_mount.start()
    table = (own_mount.path / "msgq/ctl").read_text().splitlines()
    assert table[-1].split()[-1] == str(living.pid)
    removed = (own_mount.path / "sem/removed").read_text().splitlines()
    assert [line.split()[-1] for line in removed[1:]] == ["rm"]
    living.kill()
    wait_until(lambda: not there(own_mount, "msgq/key/0x5a19"), "it has gone with the last")
    os.close(told), os.close(tell)


def test_fifos_outlive_the_daemon_that_is_killed_and_no_other(own_mount: Mount) -> None:
    def own() -> None:
        assert request(own_mount, "mkfifo gone 0600 IPC_EPHEMERAL") == "0"
        os.write(tell, b"1")
        signal.pause()

    told, tell = os.pipe()
    pipes = own_mount.path / "pipes"
    os.mkfifo(pipes / "jobs", 0o640)
    os.mkfifo(os.fsencode(pipes) + b"/\xff")
    os.rename(pipes / "jobs", pipes / "work")
    os.chown(pipes / "work", 65534, 65534)
    owner = Child(own)
    os.read(told, 1)
    before = {name: os.stat(os.path.join(os.fsencode(pipes), name)) for name in os.listdir(os.fsencode(pipes))}
    own_mount.kill()
    owner.kill()
    own_mount.start()
    assert {b"work", b"\xff"} <= before.keys()
    assert sorted(os.listdir(os.fsencode(pipes))) == sorted(before.keys() - {b"gone"})
    after = os.stat(pipes / "work")
    assert (after.st_mode, after.st_uid, after.st_gid) == (before[b"work"].st_mode, 65534, 65534)
    own_mount.stop()
    own_mount.start()
    assert sorted(os.listdir(pipes)) == ["ctl", "removed"]
    os.close(told), os.close(tell)


def test_without_a_place_for_a_journal_there_is_all_else(nothing_left: None) -> None:
    with mounted() as mount:
        mount.stop()
        mount.runtime.rmdir() if not os.listdir(mount.runtime) else None
        for name in os.listdir(mount.runtime):
            os.unlink(mount.runtime / name)
        mount.runtime.rmdir()
        mount.runtime.write_text("no directory")
        mount.start()
        owner = Child(lambda: request(mount, f"msgget 0x5a20 {EPHEMERAL}"))
        assert owner.result().isdigit()
        wait_until(lambda: not there(mount, "msgq/key/0x5a20"), "it has gone with its owner")
        removed = mount.path / "msgq/removed"
        wait_until(lambda: "its last owner has ended" in removed.read_text(), "the log tells of it")
        mount.complaints()


def test_a_journal_that_cannot_be_read_is_no_hindrance(own_mount: Mount) -> None:
    own_mount.stop()
    for name in os.listdir(own_mount.runtime):
        (own_mount.runtime / name).write_bytes(b"no database at all, but long enough to be looked at" * 100)
    own_mount.start()
    assert request(own_mount, "getpid") == str(os.getpid())
    assert any("no journal is kept" in complaint for complaint in own_mount.complaints())
