"""What one user may hold of the daemon: each limit has its errno, names itself, and leaves room for others."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import NOBODY, MountDoor, write
from hypothesis import given
from hypothesis import strategies as st
from mounts import Mount, mounted
from native import libc
from native_msg import CONSTANTS, msgctl, msgget
from native_shm import shmctl, shmget

from synosfs.errors import SynosError
from synosfs.options import LIMITS
from synosfs.process.accounts import KINDS, Account, Accounts, Holding, Limits

PR_SET_DUMPABLE = 4

OPTIONS = "max_sessions=20,max_memory=3000000,max_descriptors=12,max_attachments=3,max_waiting=4"


@pytest.fixture(scope="module")
def _small(ipc_namespace: None) -> Iterator[Mount]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    with mounted(options=("-o", OPTIONS)) as mount:
        yield mount


@pytest.fixture
def small(_small: Mount, nothing_left: None) -> Iterator[MountDoor]:
    """A mount with small limits. Nobody holds anything in it at the end but who asks."""
    door = MountDoor(_small, "json")
    yield door
    door.end_children()
    assert not _small.complaints()


def used(mount: Mount, uid: int) -> dict[str, int]:
    """What ``stats`` says that a user holds."""
    header, *rows = (mount.path / "stats").read_text().split("\n\n")[-1].strip().splitlines()
    for row in rows:
        if row.split()[0] == str(uid):
            return {
                name: int(cell.split("/")[0]) for name, cell in zip(header.split()[1:], row.split()[1:], strict=True)
            }
    return {}


def refused(small: MountDoor, body: Callable[[], str]) -> str:
    """What an ordinary user's process is told in the end. Meanwhile root is served, and afterwards nothing is held."""
    message = small.spawn(body, uid=NOBODY).result()
    assert small.ok("getpid").ret
    wait_until(lambda: not used(small.mount, NOBODY), f"user {NOBODY} holds nothing any more")
    return message


def test_open_files(small: MountDoor) -> None:
    gate = small.mount.gate

    def open_many() -> str:
        with suppress(OSError):
            while True:
                os.open(gate, os.O_RDWR)
        try:
            os.open(small.mount.path / "help", os.O_RDONLY)
        except OSError as error:
            return f"{error.errno} {len(os.listdir('/proc/self/fd'))}"
        return "none"

    errno, count = refused(small, open_many).split()
    assert errno == "24"
    assert int(count) >= 20


def test_descriptors(small: MountDoor) -> None:
    def make_pipes() -> str:
        while True:
            result = small.call("pipe")
            if result.errno:
                return f"{result.errno}: {result.message}"

    # One is the process itself, and one the first end of the pipe that is not made.
    expected = f"EMFILE: user {NOBODY} has 12 of 12 descriptors, processes and semaphores: close some, or mount"
    assert refused(small, make_pipes).startswith(expected)


def test_what_duplicates_is_charged_once(small: MountDoor) -> None:
    def duplicate() -> str:
        end = small.ok("pipe").results["read"]
        for _ in range(100):
            small.ok("dup", end)
        return str(used(small.mount, NOBODY)["descriptors"])

    assert refused(small, duplicate) == "3"


def test_attachments(small: MountDoor) -> None:
    shmid = shmget(0, 4096, 0o666)

    def attach() -> str:
        for _ in range(3):
            address = small.ok("shmat", shmid).ret
        full = small.call("shmat", shmid)
        small.ok("shmdt", address)
        small.ok("shmat", shmid)
        return f"{full.errno}: {full.message}"

    assert refused(small, attach).startswith(f"ENOMEM: user {NOBODY} has 3 of 3 attached segments: detach some")
    shmctl(shmid, CONSTANTS["IPC_RMID"])


def test_waiting_calls(small: MountDoor) -> None:
    queue = msgget(0, 0o666)
    blocked = [small.block("msgrcv", queue, 10, as_uid=NOBODY) for _ in range(4)]
    fifth = small.call_as(NOBODY, "msgrcv", queue, 10)
    assert (fifth.errno, fifth.message.split(": ")[0]) == ("EAGAIN", f"user {NOBODY} has 4 of 4 calls that wait")
    assert small.block("msgrcv", queue, 10).is_blocked()  # root's own
    blocked.pop().kill()
    wait_until(lambda: small.blocked_callers() == 4, "one is gone")
    assert small.block("msgrcv", queue, 10, as_uid=NOBODY).is_blocked()
    small.end_children()
    msgctl(queue, CONSTANTS["IPC_RMID"])


def test_half_records(small: MountDoor) -> None:
    gate = small.mount.gate

    def begin_many() -> str:
        answers = []
        for _ in range(6):
            session = os.open(gate, os.O_RDWR)
            answers.append(write(session, b'{"call":"write","args":[1,"' + b"x" * 800_000))
        return " ".join(answers)

    assert refused(small, begin_many).split() == ["ENOMEM"] * 3


def test_unread_replies(small: MountDoor) -> None:
    gate = small.mount.gate
    queue = msgget(0, 0o666)
    looks = b"[" + b",".join([b'{"call":"uname"}'] * 8000) + b"]\n"  # more than 1 MB of replies

    def read_nothing() -> str:
        sessions = [os.open(gate, os.O_RDWR) for _ in range(5)]
        answers = [write(session, looks) for session in sessions]
        first = b""
        while piece := os.read(sessions[0], 1 << 20):
            first += piece
        answers.append(write(sessions[0], b'{"call":"getpid"}\n'))
        return f"{answers} {first.count(b'sysname')} {used(small.mount, NOBODY)['memory'] <= 6_000_000}"

    *_, count, bounded = refused(small, read_nothing).split()
    assert int(count) == 8000  # what was earned is not lost
    assert bounded == "True"
    msgctl(queue, CONSTANTS["IPC_RMID"])


def test_last_replies(small: MountDoor) -> None:
    """Of processes that nobody reads: what is too much is not kept, and the reply of the next says so."""
    looks = b"[" + b",".join([b'{"call":"uname"}'] * 6000) + b"]\n"
    ready, tell = os.pipe()

    def answered() -> None:
        session = os.open(small.mount.gate, os.O_WRONLY)
        os.write(tell, write(session, looks).encode() + b".")
        signal.pause()

    def start_many() -> str:
        libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), ctypes.c_ulong(1))  # its children let each other look into them
        members = [Child(answered) for _ in range(5)]
        assert os.read(ready, 1) + b"".join(os.read(ready, 1) for _ in members[1:]) == b"....."
        replies = [(small.mount.path / f"proc/{member.pid}/syscall").read_bytes() for member in members]
        held = used(small.mount, NOBODY)["memory"]
        for member in members:
            member.close()
        kept = [reply for reply in replies if reply.count(b"sysname") == 6000]
        assert held >= sum(map(len, kept))
        return f"{len(kept)} {[reply[:40] for reply in replies if reply not in kept]}"

    count, _, told = refused(small, start_many).partition(" ")
    assert int(count) < 5
    assert told.count("-1 ENOMEM the last reply is not kept") == 5 - int(count)
    os.close(ready)
    os.close(tell)


def test_texts_of_open_files(small: MountDoor) -> None:
    made = [msgget(0, 0o600) for _ in range(2000)]
    path = small.mount.path / "msgq/ctl"

    def look_often() -> str:
        kept = []
        with suppress(OSError):
            while len(kept) < 19:
                kept += [os.open(path, os.O_RDONLY)]
        return str(len(kept))

    size = len(path.read_bytes())
    assert int(refused(small, look_often)) == 3_000_000 // size
    for queue in made:
        msgctl(queue, CONSTANTS["IPC_RMID"])


# --- accounts by themselves


def test_each_limit_is_an_option() -> None:
    assert set(LIMITS) == {f"max_{name}" for name in KINDS}


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2000)), max_size=60))
def test_an_account_is_the_sum_of_what_is_held_and_never_above_its_limit(steps: list[tuple[int, int]]) -> None:
    accounts = Accounts(Limits(max_memory=3000))
    account = accounts.of(7)
    held = [Holding(account, "memory") for _ in range(4)]
    for place, amount in steps:
        before = [each.amount for each in held]
        wanted = sum(before) - before[place] + amount
        if wanted <= 3000:
            held[place].set(amount)
        else:
            with pytest.raises(SynosError, match="max_memory"):
                held[place].set(amount)
            assert [each.amount for each in held] == before
        assert account.used["memory"] == sum(each.amount for each in held)
    for each in held:
        each.close()
    assert list(accounts.statistics()) == []


def test_accounts_that_hold_nothing_are_forgotten() -> None:
    accounts = Accounts()
    for uid in range(3000):
        accounts.of(uid)
    assert len(accounts._of_user) <= 1025
    holder: Account = accounts.of(5000)
    holder.charge("waiting")
    for uid in range(3000):
        accounts.of(uid)
    assert accounts.of(5000) is holder


@pytest.mark.parametrize(
    "word", ["max_sessions=0", "max_memory=-1", "max_waiting=many", "max_descriptors", "max_files=3"]
)
def test_a_limit_that_is_no_number_is_refused(word: str, tmp_path: Path) -> None:
    from synosfs.options import parse_mount_words

    with pytest.raises(SynosError, match="max_"):
        parse_mount_words(str(tmp_path), None, [word])


# --- POSIX queues


def test_queue_bytes(small_queues: MountDoor) -> None:
    name = b"/synosfs-limit-%d" % os.getpid()
    mounted_as = small_queues.mount

    def make_queues() -> str:
        errnos = []
        for number in range(4):
            result = small_queues.call("mq_open", name + b"%d" % number, "O_CREAT|O_RDWR", 0o600, 2, 100)
            errnos.append(result.errno)
        first = small_queues.ok("mq_open", name + b"0", "O_CREAT|O_RDWR", 0o600).ret  # it is there: nothing is made
        small_queues.ok("mq_unlink", name + b"1")  # still open
        errnos.append(small_queues.call("mq_open", name + b"4", "O_CREAT|O_RDWR", 0o600, 2, 100).errno)
        for descriptor in (4, first):
            small_queues.ok("close", descriptor)
        errnos.append(small_queues.call("mq_open", name + b"4", "O_CREAT|O_RDWR", 0o600, 2, 100).errno)
        held = used(mounted_as, NOBODY)["queue_bytes"]
        for number in (0, 2, 4):
            small_queues.ok("mq_unlink", name + b"%d" % number)
        return f"{errnos} {held}"

    answer = small_queues.spawn(make_queues, uid=NOBODY).result()
    assert answer == f"{['', '', '', 'EMFILE', 'EMFILE', '']} {3 * 2 * (100 + 112)}"


@pytest.fixture
def small_queues(nothing_left: None) -> Iterator[MountDoor]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    with mounted(options=("-o", "max_queue_bytes=1400")) as mount:
        door = MountDoor(mount, "json")
        yield door
        door.end_children()
        door.close()
