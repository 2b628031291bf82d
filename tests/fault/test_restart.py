"""kill -9 of the daemon: whoever is blocked is freed, and a new daemon on the same mount point finds every message."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS, msgrcv, msgsnd

NOWAIT = CONSTANTS["IPC_NOWAIT"]


def test_a_killed_daemon_frees_the_blocked_and_a_new_one_finds_every_message(
    own_mount: Mount, queue: int, full_queue: int
) -> None:
    sent = []
    for kind, notation in enumerate(("text", "json", "msgpack"), 2):
        door = MountDoor(own_mount, notation)
        door.ok("msgsnd", queue, kind, notation.encode())
        door.close()
        sent.append((kind, notation.encode()))
    (own_mount.path / f"msgq/sysv/{queue}@5").write_bytes(b"\0file\xff")
    msgsnd(queue, 6, b"")
    sent += [(5, b"\0file\xff"), (6, b"")]

    gate = MountDoor(own_mount, "text")
    requests = [b"msgrcv %d 10 7\n" % queue, b'msgsnd %d 2 "never"\n' % full_queue] * 3
    blocked = [gate.spawn(lambda r=request: write(os.open(own_mount.gate, os.O_RDWR), r)) for request in requests]
    for each in blocked:
        wait_until(lambda pid=each.pid: own_mount.blocked(pid), "it blocks")
    daemon = own_mount.daemon.pid
    own_mount.kill()
    assert [each.result() for each in blocked] == ["ECONNABORTED"] * 6
    assert not Path(f"/proc/{daemon}").exists()
    with pytest.raises(OSError, match="endpoint is not connected"):
        os.stat(own_mount.gate)

    own_mount.start()
    assert own_mount.blocked_callers() == 0
    assert (own_mount.path / f"msgq/sysv/{queue}").read_bytes() == b"".join(data for _, data in sent)
    # Natively and through the new daemon, in the order in which they were sent.
    received = [msgrcv(queue, 100, 0, NOWAIT) for _ in range(3)]
    received += [gate.ok("msgrcv", queue, 100, 0, "IPC_NOWAIT") for _ in range(2)]
    assert [(result.results["mtype"], result.data) for result in received] == sent
    assert gate.call("msgrcv", queue, 100, 0, "IPC_NOWAIT").errno == "ENOMSG"
    for _ in range(2):
        assert gate.ok("msgrcv", full_queue, 8192, 0, "IPC_NOWAIT").data == b"x" * 8192
    assert gate.call("msgrcv", full_queue, 8192, 0, "IPC_NOWAIT").errno == "ENOMSG"
    gate.close()


def test_a_session_with_a_dead_daemon_stays_dead_and_a_new_one_works(own_mount: Mount) -> None:
    session = os.open(own_mount.gate, os.O_RDWR)
    assert os.write(session, b"getpid\n")
    own_mount.kill()
    own_mount.start()
    assert write(session, b"getpid\n") in ("ENOTCONN", "ECONNABORTED")
    with suppress(OSError):
        os.close(session)  # closed all the same
    session = os.open(own_mount.gate, os.O_RDWR)
    os.write(session, b"getpid\n")
    assert os.read(session, 100) == b"%d\n" % os.getpid()
    os.close(session)


def test_a_message_that_was_received_at_the_moment_of_death_is_in_the_queue_or_with_the_receiver(
    own_mount: Mount, queue: int
) -> None:
    """The one window is between the host's msgrcv and the answer: at most one message for each caller."""
    for number in range(200):
        msgsnd(queue, 1, b"%d" % number)
    progress, write_end = os.pipe()

    def receive() -> None:
        session = os.open(own_mount.gate, os.O_RDWR)
        while True:
            os.write(session, b"msgrcv %d 10 0 IPC_NOWAIT\n" % queue)
            os.write(write_end, os.read(session, 100).split(b"\n")[1] + b"\n")

    receiver = Child(receive)
    received = os.read(progress, 10)
    own_mount.kill()
    wait_until(receiver.ended, "the end of the receiver")
    receiver.close()
    os.close(write_end)
    while piece := os.read(progress, 4096):
        received += piece
    os.close(progress)
    own_mount.start()
    gate = MountDoor(own_mount, "text")
    left = []
    while not (result := gate.call("msgrcv", queue, 10, 0, "IPC_NOWAIT")).errno:
        left.append(int(result.data or b""))
    gate.close()
    got = [int(line) for line in received.splitlines()]
    assert got == list(range(len(got)))
    assert left == list(range(200 - len(left), 200))
    assert 200 - len(got) - len(left) in (0, 1)
