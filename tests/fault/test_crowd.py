"""A thousand callers blocked at once: others are answered meanwhile, each is freed just once, and nothing is left."""

import ctypes
import os
import pickle
import signal
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import native
import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgget, msgrcv, msgsnd

NOWAIT = CONSTANTS["IPC_NOWAIT"]
CROWD = 1000


# Sessions are opened one after the other: names that the kernel may not remember are looked up by all who open them at
# once, again and again until each has won, and that is not what these cases are about.


def as_threads(gate: Path, requests: list[bytes]) -> list[tuple[str, bytes]]:
    """Make each call in a session and a thread of its own; the errno of each write, and the reply."""
    answers: list[tuple[str, bytes]] = []
    opened = threading.Semaphore(0)

    def call(request: bytes) -> None:
        session = os.open(gate, os.O_RDWR)
        opened.release()
        answers.append((write(session, request), os.read(session, 4096)))

    threading.stack_size(256 << 10)
    threads = [threading.Thread(target=call, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
        opened.acquire()
    for thread in threads:
        thread.join()
    return answers


def as_processes(gate: Path, requests: list[bytes]) -> list[tuple[str, bytes]]:
    """Make each call in a process of its own, which ends with this one."""
    receive, send = os.pipe()
    opened, opens = os.pipe()
    for request in requests:
        if os.fork() == 0:
            native.libc.prctl(ctypes.c_int(1), ctypes.c_ulong(signal.SIGKILL))  # PR_SET_PDEATHSIG
            session = os.open(gate, os.O_RDWR)
            os.write(opens, b".")
            errno = write(session, request)
            answer = pickle.dumps((errno, os.read(session, 4096)))
            os.write(send, struct.pack("I", len(answer)) + answer)  # below PIPE_BUF: in one piece
            os._exit(0)
        os.read(opened, 1)
    os.close(send)
    answers = []
    with open(receive, "rb") as pipe:
        while head := pipe.read(4):
            answers.append(pickle.loads(pipe.read(*struct.unpack("I", head))))
    for _ in requests:
        os.wait()
    return answers


Crowd = Callable[[list[bytes]], Child]


#: Forking this large process a thousand times takes longer than all the rest.
BOTH = pytest.mark.parametrize(("crowd", "size"), [(as_threads, CROWD), (as_processes, CROWD // 5)], indirect=["crowd"])


@pytest.fixture
def crowd(request: pytest.FixtureRequest, gate: MountDoor) -> Iterator[Crowd]:
    """Makes callers that are all blocked when it returns. In the end the daemon has no more threads than before."""
    mount = gate.mount
    gathered = getattr(request, "param", as_threads)
    threads = threads_of(mount)

    def gather(requests: list[bytes]) -> Child:
        child = gate.spawn(lambda: gathered(mount.gate, requests))
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
    with suppress(OSError):  # the case may have removed it
        msgctl(queue, CONSTANTS["IPC_RMID"])


def threads_of(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.daemon.pid}/task"))


def data_of(answers: list[tuple[str, bytes]]) -> Counter[bytes]:
    assert {errno for errno, _ in answers} == {""}
    return Counter(reply.split(b"\n")[1] for _, reply in answers)


def errnos_of(answers: list[tuple[str, bytes]]) -> Counter[str]:
    return Counter(errno for errno, _ in answers)


@BOTH
def test_a_thousand_messages_reach_a_thousand_receivers_of_one_queue_each_once(
    crowd: Crowd, size: int, queue: int
) -> None:
    blocked = crowd([b"msgrcv %d 10\n" % queue] * size)
    for number in range(size):
        msgsnd(queue, 1, b"%d" % number)
    assert data_of(blocked.result()) == Counter(b"%d" % number for number in range(size))
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


@BOTH
def test_sigkill_frees_a_thousand_and_they_have_taken_nothing(
    crowd: Crowd, size: int, gate: MountDoor, queues: list[int]
) -> None:
    blocked = crowd([b"msgrcv %d 10\n" % queues[number % 100] for number in range(size)])
    blocked.kill()
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
    for queue in queues:
        msgsnd(queue, 1, b"later")
    assert [msgrcv(queue, 10, 0, NOWAIT).data for queue in queues] == [b"later"] * 100


def test_blocked_senders_and_receivers_are_freed_each_in_its_way(crowd: Crowd, full_queue: int, queue: int) -> None:
    each = CROWD // 10
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
