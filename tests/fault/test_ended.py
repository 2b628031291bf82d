"""The ends that a wait can have without a signal: its object is removed, its time passes, its mount or its daemon goes.

In each case all who are blocked are answered, and nothing of theirs happens later.
"""

import os
import subprocess
import time
from collections.abc import Callable
from functools import partial

import pytest
import trio
from children import PATIENCE_S, wait_until
from command import run
from doors import NOBODY, Blocked, MountDoor, write
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgrcv, msgsnd

from synosfs import mountpoint
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.syscall_gate.parking import Parking

NOWAIT = CONSTANTS["IPC_NOWAIT"]


def block_several(gate: MountDoor, queue: int, full_queue: int, each: int = 4, **options: object) -> list[Blocked]:
    """Receivers of one type in line, receivers of types of their own, and senders."""
    receivers = [gate.start("msgrcv", queue, 10, kind // 2, **options) for kind in range(each)]
    senders = [gate.start("msgsnd", full_queue, 2, b"never", **options) for _ in range(each)]
    return [started.wait_until_blocked() for started in receivers + senders]


def contents(queue: int) -> list[bytes | None]:
    number = msgctl(queue, CONSTANTS["IPC_STAT"]).results["qnum"]
    return [msgrcv(queue, 8192, 0, NOWAIT).data for _ in range(number)]


FULL = [b"x" * 8192] * 2


# --- removal


def through_the_gate(gate: MountDoor, queue: int) -> None:
    gate.ok("msgctl", queue, "IPC_RMID")


def natively(gate: MountDoor, queue: int) -> None:
    msgctl(queue, CONSTANTS["IPC_RMID"])


def by_rm(gate: MountDoor, queue: int) -> None:
    os.unlink(gate.mount.path / f"msgq/sysv/{queue}")


def by_ctl(gate: MountDoor, queue: int) -> None:
    (gate.mount.path / "msgq/ctl").write_text(f"remove {queue}\n")


def by_ipcrm(gate: MountDoor, queue: int) -> None:
    assert run("ipcrm", "-q", str(queue)).returncode == 0


@pytest.mark.parametrize("remove", [through_the_gate, natively, by_rm, by_ctl, by_ipcrm])
def test_removal_frees_all_who_are_blocked_with_eidrm(
    gate: MountDoor, queue: int, full_queue: int, remove: Callable[[MountDoor, int], None]
) -> None:
    blocked = block_several(gate, queue, full_queue)
    remove(gate, queue)
    remove(gate, full_queue)
    results = [each.result() for each in blocked]
    assert [result.errno for result in results] == ["EIDRM"] * len(blocked)
    assert all("removed" in result.message for result in results)
    assert gate.blocked_callers() == 0


def test_removal_frees_the_callers_of_that_queue_alone(gate: MountDoor, queue: int, full_queue: int) -> None:
    blocked = block_several(gate, queue, full_queue)
    natively(gate, queue)
    assert [each.result().errno for each in blocked[:4]] == ["EIDRM"] * 4
    assert all(each.is_blocked() for each in blocked[4:])


# --- time-outs


def test_time_outs_free_each_caller_at_its_own_time(gate: MountDoor, queue: int, full_queue: int) -> None:
    def timed(call: str, *args: object, timeout: float) -> tuple[str, float]:
        began = time.monotonic()
        return gate.call(call, *args, timeout=timeout).errno, time.monotonic() - began

    patient = gate.block("msgrcv", queue, 10)
    timeouts = [0.1, 0.2, 0.3, 0.4]
    receivers = [gate.spawn(lambda t=t: timed("msgrcv", queue, 10, timeout=t)) for t in timeouts]
    senders = [gate.spawn(lambda t=t: timed("msgsnd", full_queue, 2, b"never", timeout=t)) for t in timeouts]
    for timeout, child in zip(timeouts * 2, receivers + senders, strict=True):
        errno, seconds = child.result()
        assert errno == "ETIMEDOUT"
        assert seconds >= timeout
    assert patient.is_blocked()
    assert (contents(queue), contents(full_queue)) == ([], FULL)


@pytest.mark.parametrize("timeout", [0, 1e-9])
def test_a_time_out_of_nothing_is_over_at_once(gate: MountDoor, queue: int, full_queue: int, timeout: float) -> None:
    assert gate.call("msgrcv", queue, 10, timeout=timeout).errno == "ETIMEDOUT"
    assert gate.call("msgsnd", full_queue, 2, b"never", timeout=timeout).errno == "ETIMEDOUT"
    assert contents(full_queue) == FULL


# --- the end of the mount


def by_sigterm(mount: Mount) -> None:
    mount.daemon.terminate()


def by_sigint(mount: Mount) -> None:
    mount.daemon.send_signal(2)


def by_umount_lazily(mount: Mount) -> None:
    assert run("umount", "-l", str(mount.path)).returncode == 0


def by_fusermount_lazily(mount: Mount) -> None:
    assert run("fusermount3", "-uz", str(mount.path)).returncode == 0


ENDS = pytest.mark.parametrize("end", [by_sigterm, by_sigint, by_umount_lazily, by_fusermount_lazily])


@ENDS
def test_unmounting_frees_all_who_are_blocked_with_operation_canceled(
    own_mount: Mount, queue: int, full_queue: int, end: Callable[[Mount], None]
) -> None:
    requests = [f"msgrcv {queue} 10", f"msgrcv {queue} 10 5 timeout=60", f'msgsnd {full_queue} 2 "never"'] * 2
    pipe = subprocess.PIPE
    shells = [
        subprocess.Popen(["bash", "-c", f"echo '{request}' > {own_mount.gate}"], stderr=pipe, text=True)
        for request in requests
    ]
    for shell in shells:
        wait_until(lambda pid=shell.pid: own_mount.blocked(pid), "the shell blocks")
    end(own_mount)
    for shell in shells:
        _, said = shell.communicate(timeout=PATIENCE_S)
        assert said.endswith("write error: Operation canceled\n"), said
        assert shell.returncode == 1
    assert own_mount.daemon.wait(PATIENCE_S) == 0
    assert not mountpoint.mounted(str(own_mount.path))
    assert (contents(queue), contents(full_queue)) == ([], FULL)


def test_unmounting_is_refused_while_somebody_is_blocked_and_frees_nobody(own_gate: MountDoor, queue: int) -> None:
    blocked = own_gate.block("msgrcv", queue, 10)
    done = run("umount", str(own_gate.mount.path))
    assert done.returncode != 0
    assert "busy" in done.stderr
    assert blocked.is_blocked()


def test_a_session_that_outlives_a_lazy_unmount_works_on_but_blocks_no_more(
    own_gate: MountDoor, own_mount: Mount, queue: int
) -> None:
    session = os.open(own_mount.gate, os.O_RDWR)
    try:
        blocked = own_gate.block("msgrcv", queue, 10)
        by_umount_lazily(own_mount)
        assert blocked.result().errno == "ECANCELED"
        assert write(session, b"getpid\n") == ""
        assert os.read(session, 100) == b"%d\n" % os.getpid()
        assert write(session, b"msgrcv %d 10\n" % queue) == "ECANCELED"
        msgsnd(queue, 1, b"there")
        assert write(session, b"msgrcv %d 10\n" % queue) == ""
        assert own_mount.daemon.poll() is None
    finally:
        os.close(session)
    assert own_mount.daemon.wait(PATIENCE_S) == 0


def test_who_sees_the_mount_in_a_namespace_of_its_own_blocks_on_when_it_is_unmounted_elsewhere(
    own_gate: MountDoor, own_mount: Mount, queue: int
) -> None:
    script = f"exec 3<>{own_mount.gate}; echo ready; read; echo 'msgrcv {queue} 10' >&3; head -n 2 <&3"
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:
        assert elsewhere.stdin
        assert elsewhere.stdout
        assert elsewhere.stdout.readline() == b"ready\n"
        blocked = own_gate.block("msgrcv", queue, 10)
        by_umount_lazily(own_mount)
        assert blocked.result().errno == "ECANCELED"
        elsewhere.stdin.write(b"\n")
        elsewhere.stdin.close()
        msgsnd(queue, 1, b"there")
        assert elsewhere.stdout.read() == b"5 mtype=1\nthere\n"
    assert own_mount.daemon.wait(PATIENCE_S) == 0


def test_an_empty_message_that_a_full_queue_does_not_take_back_goes_there_when_there_is_room(queue: int) -> None:
    msgctl(queue, CONSTANTS["IPC_SET"], qbytes=1)
    msgsnd(queue, 1, b"x")

    async def give_back_and_wait() -> None:
        Parking().give_back(partial(MessageQueue(queue).send_nowait, 7, b""))
        assert contents(queue) == [b"x"]
        await trio.to_thread.run_sync(wait_until, lambda: contents(queue) == [b""], "it is in the queue")

    trio.run(give_back_and_wait)


def test_a_watcher_leaves_an_empty_message_in_the_queue(queue: int) -> None:
    msgsnd(queue, 7, b"")
    msgsnd(queue, 8, b"x")
    assert MessageQueue(queue).wait_message() is None
    assert contents(queue) == [b"x", b""]  # at the end


def test_a_watcher_that_may_not_send_hands_an_empty_message_over_to_be_sent_back(
    new_queue: Callable[..., int],
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    queue = new_queue(mode=0o604)
    msgsnd(queue, 7, b"")
    with rights.acting_as(Credentials(NOBODY, NOBODY, (), 0)):
        taken = MessageQueue(queue).wait_message()
    assert taken is not None
    assert (taken.mtype, taken.data, contents(queue)) == (7, b"", [])


def test_a_call_that_comes_while_the_mount_goes_is_not_left_behind(own_gate: MountDoor, queue: int) -> None:
    """Callers that keep blocking, at any moment of the end."""

    def block_again_and_again() -> str:
        try:
            while own_gate.call("msgrcv", queue, 10, timeout=0.001).errno == "ETIMEDOUT":
                pass
        except OSError as error:
            return os.strerror(error.errno)
        return "ECANCELED"

    callers = [own_gate.spawn(block_again_and_again) for _ in range(4)]
    listed = own_gate.mount.path / "proc"
    for caller in callers:
        wait_until(lambda pid=caller.pid: str(pid) in os.listdir(listed), "the caller takes part")
    by_sigterm(own_gate.mount)
    for caller in callers:
        caller.result()
    assert own_gate.mount.daemon.wait(PATIENCE_S) == 0
