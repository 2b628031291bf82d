"""A thousand callers blocked at once: others are answered meanwhile, each is freed exactly once, and nothing is left."""

import ctypes
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import native
import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgget, msgrcv, msgsnd

NOWAIT = CONSTANTS["IPC_NOWAIT"]
CROWD = 1000


def call(gate: Path, request: bytes) -> tuple[str, bytes]:
    """One call with an open of its own: the errno of the write, and the reply."""
    session = os.open(gate, os.O_RDWR)
    try:
        return write(session, request), os.read(session, 4096)
    finally:
        os.close(session)


def as_threads(gate: Path, requests: list[bytes]) -> list[tuple[str, bytes]]:
    """Make each call in a thread of its own."""
    answers: list[tuple[str, bytes]] = []
    threading.stack_size(256 << 10)
    threads = [threading.Thread(target=lambda r=request: answers.append(call(gate, r))) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def as_processes(gate: Path, requests: list[bytes]) -> list[tuple[str, bytes]]:
    """Make each call in a process of its own, which ends with this one."""
    receive, send = os.pipe()
    for request in requests:
        if os.fork() == 0:
            native.libc.prctl(ctypes.c_int(1), ctypes.c_ulong(signal.SIGKILL))  # PR_SET_PDEATHSIG
            errno, reply = call(gate, request)
            os.write(send, f"{errno}|{reply.decode()}\0".encode())  # below PIPE_BUF: in one piece
            os._exit(0)
    os.close(send)
    with open(receive, "rb") as answers:
        lines = answers.read().decode().split("\0")[:-1]
    for _ in requests:
        os.wait()
    return [(errno, reply.encode()) for errno, _, reply in (line.partition("|") for line in lines)]


Crowd = Callable[[list[bytes]], Child]


@pytest.fixture(params=[as_threads, as_processes])
def crowd(request: pytest.FixtureRequest, gate: MountDoor) -> Iterator[Crowd]:
    """Makes callers that are all blocked when it returns. When all is over, the daemon has no more threads than before."""
    mount = gate.mount
    threads = threads_of(mount)

    def gather(requests: list[bytes]) -> Child:
        child = gate.spawn(lambda: request.param(mount.gate, requests))
        wait_until(lambda: mount.blocked_callers() == len(requests), f"{len(requests)} callers are blocked")
        assert gate.ok("getpid").ret == os.getpid()
        return child

    yield gather
    wait_until(lambda: mount.blocked_callers() == 0, "nobody is blocked")
    wait_until(lambda: threads_of(mount) <= threads + 2, "the threads of blocked calls have ended")


@pytest.fixture
def queues(nothing_left: None) -> Iterator[list[int]]:
    """A hundred queues."""
    made = [msgget(CONSTANTS["IPC_PRIVATE"], 0o600) for _ in range(100)]
    yield made
    for queue in made:
        remove(queue)


def remove(queue: int) -> None:
    try:
        msgctl(queue, CONSTANTS["IPC_RMID"])
    except OSError:
        pass  # removed by the case


def threads_of(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.daemon.pid}/task"))


def data_of(answers: list[tuple[str, bytes]]) -> Counter[bytes]:
    assert {errno for errno, _ in answers} == {""}
    return Counter(reply.split(b"\n")[1] for _, reply in answers)


def errnos_of(answers: list[tuple[str, bytes]]) -> Counter[str]:
    return Counter(errno for errno, _ in answers)


def test_a_thousand_messages_reach_a_thousand_receivers_of_one_queue_each_once(crowd: Crowd, queue: int) -> None:
    blocked = crowd([b"msgrcv %d 10\n" % queue] * CROWD)
    for number in range(CROWD):
        msgsnd(queue, 1, b"%d" % number)
    assert data_of(blocked.result()) == Counter(b"%d" % number for number in range(CROWD))
    assert msgctl(queue, CONSTANTS["IPC_STAT"]).results["qnum"] == 0


def test_a_thousand_messages_reach_a_thousand_receivers_of_a_hundred_queues(crowd: Crowd, queues: list[int]) -> None:
    # Ten in each queue, of which some wait for types of their own.
    blocked = crowd([b"msgrcv %d 10 %d\n" % (queues[n % 100], n // 100 % 4 + 1) for n in range(CROWD)])
    for number in range(CROWD):
        msgsnd(queues[number % 100], number // 100 % 4 + 1, b"%d" % number)
    assert data_of(blocked.result()) == Counter(b"%d" % number for number in range(CROWD))


def test_removal_frees_a_thousand(crowd: Crowd, queue: int) -> None:
    blocked = crowd([b"msgrcv %d 10\n" % queue] * CROWD)
    remove(queue)
    assert errnos_of(blocked.result()) == {"EIDRM": CROWD}


def test_sigkill_frees_a_thousand_and_they_have_taken_nothing(crowd: Crowd, gate: MountDoor, queues: list[int]) -> None:
    blocked = crowd([b"msgrcv %d 10\n" % queues[number % 100] for number in range(CROWD)])
    blocked.kill()
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
    for queue in queues:
        msgsnd(queue, 1, b"later")
    assert [msgrcv(queue, 10, 0, NOWAIT).data for queue in queues] == [b"later"] * 100


def test_blocked_senders_and_receivers_are_freed_each_in_its_way(crowd: Crowd, full_queue: int, queue: int) -> None:
    each = CROWD // 10  # a sender blocks in a thread of the daemon's: a thousand of those is for another case
    requests = [b"msgsnd %d 2 %d\n" % (full_queue, number) for number in range(each)]
    requests += [b"msgrcv %d 10 3\n" % full_queue] * each
    requests += [b"msgrcv %d 10 %d timeout=%g\n" % (queue, number + 1, 3 + number / 1000) for number in range(each)]
    blocked = crowd(requests)
    received = []
    while len(received) < each + 2:
        received.append(msgrcv(full_queue, 8192, -2).data)  # also what the senders could send meanwhile
    assert Counter(received[2:]) == Counter(b"%d" % number for number in range(each))
    remove(full_queue)
    assert errnos_of(blocked.result()) == {"": each, "EIDRM": each, "ETIMEDOUT": each}


@pytest.mark.parametrize("crowd", [as_threads], indirect=True)
@pytest.mark.parametrize("way", ["receive", "remove", "kill"])
def test_a_thousand_blocked_senders_are_freed(crowd: Crowd, gate: MountDoor, full_queue: int, way: str) -> None:
    blocked = crowd([b"msgsnd %d 2 %d\n" % (full_queue, number) for number in range(CROWD)])
    if way == "receive":
        received = Counter(msgrcv(full_queue, 8192).data for _ in range(CROWD + 2))
        assert received == Counter([b"x" * 8192] * 2 + [b"%d" % number for number in range(CROWD)])
        assert errnos_of(blocked.result()) == {"": CROWD}
    elif way == "remove":
        remove(full_queue)
        assert errnos_of(blocked.result()) == {"EIDRM": CROWD}
    else:
        blocked.kill()
        wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
        assert [msgrcv(full_queue, 8192, 0, NOWAIT).ret for _ in range(2)] == [8192] * 2
        assert msgctl(full_queue, CONSTANTS["IPC_STAT"]).results["qnum"] == 0
