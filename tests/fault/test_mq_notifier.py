"""The process that is registered for notifications in the daemon's place: what becomes of it, and of what it held."""

import os
import signal
from pathlib import Path

import pytest
from doors import MountDoor
from mounts import Mount
from native_posix import unlink_all

NAME = b"/synosfs-notifier-%d" % os.getpid()


def notifier_of(mount: Mount) -> int:
    tasks = Path(f"/proc/{mount.daemon.pid}/task").iterdir()
    children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    (notifier,) = (pid for pid in children if b"mq_notifier" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return notifier


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_notifier_that_is_ended_or_stopped_is_replaced_and_its_registrations_are_removed(
    own_gate: MountDoor, fate: signal.Signals
) -> None:
    gate = own_gate
    other = NAME + b"-2"
    gate.ok("getpid")
    try:
        mqd, second = (gate.ok("mq_open", name, "O_CREAT|O_RDWR", 0o600).ret for name in (NAME, other))
        waiting = gate.ok("mq_notify", mqd).results["event"]
        first = notifier_of(gate.mount)
        os.kill(first, fate)
        event = gate.ok("mq_notify", second).results["event"]  # of another queue: it needs the notifier
        assert notifier_of(gate.mount) != first
        assert gate.ok("read", waiting, 32).data == b"removed"
        gate.ok("mq_send", second, b"x")
        assert gate.ok("read", event, 32).data == b"message"
        gate.ok("close", waiting)
        again = gate.ok("mq_notify", mqd).results["event"]
        gate.ok("mq_send", mqd, b"x")
        assert gate.ok("read", again, 32).data == b"message"
        os.kill(notifier_of(gate.mount), signal.SIGKILL)
        gate.ok("mq_notify", mqd, "NULL")
        gate.ok("close", mqd)
    finally:
        unlink_all(NAME)
        unlink_all(other)
