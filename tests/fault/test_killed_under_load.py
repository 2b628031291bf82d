"""kill -9 of the daemon in the middle of work: no message is lost or doubled but what was on its way to a receiver, the
kernel applies the undo entries, nobody hangs, and a new daemon replaces the mount.
"""

import os
import select
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from children import Child, wait_until
from doors import MountDoor
from mounts import Mount
from native_msg import CONSTANTS as MSG
from native_msg import msgctl, msgrcv, msgsnd
from native_sem import CONSTANTS as SEM
from native_sem import semctl, semget

#: How many there are of each: senders and receivers, through the mount and natively.
EACH = 3
#: What ends a native receiver.
STOP = b"stop"


@pytest.fixture
def semid(nothing_left: None) -> Iterator[int]:
    semid = semget(SEM["IPC_PRIVATE"], 1, 0o600)
    yield semid
    semctl(semid, 0, SEM["IPC_RMID"])


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children = []

    def started(body: Callable[..., object], *arguments: object) -> Child:
        children.append(Child(partial(body, *arguments)))
        return children[-1]

    yield started
    for child in children:
        child.close()


def send_through_the_mount(mount: Mount, queue: int, semid: int, name: str) -> tuple[list[bytes], bytes, str]:
    """What was sent, what may have been, and how it ended."""
    session = os.open(mount.gate, os.O_RDWR)
    os.write(session, b"semop %d 0:1:SEM_UNDO\n" % semid)
    os.read(session, 100)
    sent: list[bytes] = []
    while True:
        data = b"%s-%d" % (name.encode(), len(sent))
        try:
            os.write(session, b'msgsnd %d 1 "%s"\n' % (queue, data))
            sent.append(data)
            os.read(session, 100)
        except OSError as error:
            return sent, data, os.strerror(error.errno)


def receive_through_the_mount(mount: Mount, queue: int, tell: int) -> tuple[list[bytes], str]:
    session = os.open(mount.gate, os.O_RDWR)
    received: list[bytes] = []
    while True:
        try:
            os.write(session, b"msgrcv %d 100\n" % queue)
            received.append(os.read(session, 200).split(b"\n")[1])
            os.write(tell, b".")
        except OSError as error:
            return received, os.strerror(error.errno)


def send_natively(queue: int, name: str, stop: int) -> list[bytes]:
    sent: list[bytes] = []
    while not select.select([stop], [], [], 0)[0]:
        sent.append(b"%s-%d" % (name.encode(), len(sent)))
        msgsnd(queue, 1, sent[-1])
    return sent


def receive_natively(queue: int) -> list[bytes]:
    received: list[bytes] = []
    while True:
        data = msgrcv(queue, 100).data
        assert data is not None
        if data == STOP:
            return received
        received.append(data)


def test_no_message_is_lost_or_doubled_but_those_on_their_way_to_a_receiver(
    own_mount: Mount, queue: int, semid: int, start: Callable[..., Child]
) -> None:
    progress, tell = os.pipe()
    stop, stops = os.pipe()
    ours = [start(receive_through_the_mount, own_mount, queue, tell) for _ in range(EACH)]
    native = [start(receive_natively, queue) for _ in range(EACH)]
    senders = [start(send_through_the_mount, own_mount, queue, semid, f"mount{n}") for n in range(EACH)]
    native_senders = [start(send_natively, queue, f"native{n}", stop) for n in range(EACH)]
    wait_until(lambda: semctl(semid, 0, SEM["GETVAL"]) == EACH, "all senders have their undo entries")
    for _ in range(300):
        assert os.read(progress, 1)
    own_mount.kill()

    sent, doubtful, received = Counter[bytes](), set[bytes](), Counter[bytes]()
    ways_to_end = set()
    for sender in senders:
        acknowledged, tried, ended = sender.result()
        sent.update(acknowledged)
        doubtful.add(tried)
        ways_to_end.add(ended)
    for receiver in ours:
        got, ended = receiver.result()
        received.update(got)
        ways_to_end.add(ended)
    assert ways_to_end <= {"Transport endpoint is not connected", "Software caused connection abort"}
    wait_until(lambda: semctl(semid, 0, SEM["GETVAL"]) == 0, "the kernel has applied the undo entries")
    os.write(stops, b".")
    for sender in native_senders:
        sent.update(sender.result())
    for _ in native:
        msgsnd(queue, 2, STOP)
    for receiver in native:
        received.update(receiver.result())

    own_mount.start()
    gate = MountDoor(own_mount, "text")
    while not (result := gate.call("msgrcv", queue, 100, 0, "IPC_NOWAIT")).errno:
        received[result.data or b""] += 1
    gate.close()
    assert max(received.values()) == 1
    assert received.keys() - sent.keys() <= doubtful
    lost = sent.keys() - received.keys()
    assert len(lost - doubtful) <= EACH, "each receiver had one call under way"
    for fd in (progress, tell, stop, stops):
        os.close(fd)


def test_an_empty_message_that_a_watcher_had_to_take_is_there_for_the_next(
    own_mount: Mount, queue: int, start: Callable[..., Child]
) -> None:
    """It goes back by the thread that took it: it is there before the watcher's own process knows of it."""

    def poll() -> int:
        fd = os.open(own_mount.path / f"msgq/sysv/{queue}", os.O_RDWR)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return poller.poll()[0][1]

    for _ in range(3):
        poller = start(poll)
        wait_until(lambda: own_mount.stats()["watching_threads"] == "1", "the queue is watched")
        msgsnd(queue, 7, b"")
        wait_until(lambda: msgctl(queue, MSG["IPC_STAT"]).results["qnum"] == 1, "it is in the queue")
        own_mount.kill()
        assert poller.result()
        own_mount.start()
        result = msgrcv(queue, 10, 0, MSG["IPC_NOWAIT"])
        assert (result.results["mtype"], result.data) == (7, b"")
