"""A session that was recorded by ``trace.replay`` comes out the same when it is made again."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import Child
from doors import MountDoor, write
from mounts import Mount


@pytest.fixture
def gate(own_mount: Mount) -> Iterator[MountDoor]:
    door = MountDoor(own_mount, "text")
    yield door
    door.close()


def replayed(mount: Mount, script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script"
    file.write_text(script)
    command = [sys.executable, "-m", "synosfs.replay", str(mount.path), str(file)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def mixed_session(gate: MountDoor) -> None:
    """Queues, sets, pipes, POSIX queues, segments; errors, a time-out; a batch in JSON."""
    queue = gate.ok("msgget", 0, 0o600).ret
    keyed = gate.ok("msgget", 0x7E57, 0o1600).ret
    gate.ok("msgsnd", queue, 3, b'a "job"\n\0\xff')
    gate.ok("msgsnd", queue, 4, b"x" * 8000)
    gate.ok("msgsnd", keyed, 1, b"by key")
    gate.ok("msgrcv", queue, 8192, 4)
    gate.ok("msgrcv", queue, 8192, -9)
    gate.ok("msgrcv", keyed, 8192)
    gate.call("msgrcv", queue, 8192, 0, "IPC_NOWAIT")
    gate.call("msgrcv", queue, 8192, timeout=0.01)
    gate.call("msgget", 0x7E57, 0o3600)
    semid = gate.ok("semget", 0, 2, 0o600).ret
    gate.ok("semctl", semid, 0, "SETALL", "5,1")
    gate.ok("semop", semid, "0:-2:0", "1:1:0")
    gate.call("semop", semid, "0:-9:IPC_NOWAIT")
    gate.ok("semctl", semid, 0, "GETALL")
    ends = gate.ok("pipe").results
    gate.ok("write", ends["write"], b"through a pipe")
    copy = gate.ok("dup", ends["read"]).ret
    gate.ok("read", copy, 100)
    for fd in (copy, ends["read"], ends["write"]):
        gate.ok("close", fd)
    mqd = gate.ok("mq_open", "/replayed", "O_CREAT|O_RDWR", 0o600).ret
    gate.ok("mq_send", mqd, b"first", 1)
    gate.ok("mq_send", mqd, b"second", 2)
    gate.ok("mq_receive", mqd, 8192)
    gate.ok("mq_receive", mqd, 8192)
    gate.ok("close", mqd)
    gate.ok("mq_unlink", "/replayed")
    shmid = gate.ok("shmget", 0, 4096, 0o600).ret
    address = gate.ok("shmat", shmid).ret
    gate.ok("shmdt", address)
    gate.ok("shmctl", shmid, "IPC_RMID")
    gate.ok("getpid")
    batch = [
        {"call": "msgsnd", "args": [queue, 5, "batched"]},
        {"call": "msgrcv", "args": [queue, 100, -9]},
        {"call": "msgctl", "args": [queue, "IPC_RMID"]},
        {"call": "msgctl", "args": [keyed, "IPC_RMID"]},
        {"call": "semctl", "args": [semid, 0, "IPC_RMID"]},
    ]
    session = os.open(gate.mount.gate, os.O_RDWR)
    assert write(session, json.dumps(batch).encode() + b"\n") == ""
    assert all("errno" not in reply for reply in json.loads(os.read(session, 1 << 20)))
    os.close(session)


def test_a_mixed_session_is_made_again_with_the_same_results(gate: MountDoor, own_mount: Mount, tmp_path: Path) -> None:
    gate.ok("msgctl", gate.ok("msgget", 0, 0o600).ret, "IPC_RMID")  # so that ids are others the second time
    mixed_session(gate)
    script = (own_mount.path / "trace.replay").read_text()
    assert re.search(r"^msgsnd\(\$msg2, 3, \"a \\\"job\\\"\\n\\0\\377\", 0\) = 0$", script, re.MULTILINE), script
    assert 'read($fd3, 100) = 14 "through a pipe"' in script
    assert not re.search(r"(msgsnd|msgrcv|semop|mq_send|write)\(\d", script)
    gate.close()
    done = replayed(own_mount, script, tmp_path)
    calls = sum(not line.startswith("#") for line in script.splitlines())
    assert done.stdout == f"{calls} calls made, 0 came out otherwise, 0 cannot be made\n", done.stdout + done.stderr
    assert done.returncode == 0
    assert calls > 40


def test_processes_that_wait_for_each_other_are_made_again_in_the_order_of_their_ends(
    gate: MountDoor, own_mount: Mount, tmp_path: Path
) -> None:
    queue = gate.ok("msgget", 0, 0o600).ret
    child = gate.block("msgrcv", queue, 100)
    gate.ok("msgsnd", queue, 7, b"for who waits")
    assert child.result().data == b"for who waits"
    gate.ok("msgctl", queue, "IPC_RMID")
    script = (own_mount.path / "trace.replay").read_text()
    assert len(set(re.findall(r"# process (\w+)", script))) == 2
    done = replayed(own_mount, script, tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_what_comes_out_otherwise_is_told(gate: MountDoor, own_mount: Mount, tmp_path: Path) -> None:
    script = "\n".join(
        (
            "# process pid1",
            "msgget(IPC_PRIVATE, 0600) = $msg1",
            'msgsnd($msg1, 1, "one", 0) = 0',
            'msgrcv($msg1, 100, 0, 0) = 3 mtype=1 "two"',
            "msgctl($msg1, IPC_RMID) = 0",
            "msgctl($msg1, IPC_RMID) = 0",
            "# was interrupted: msgrcv(0, 10, 0, 0) = -1 EINTR (a signal)",
        )
    )
    done = replayed(own_mount, script, tmp_path)
    assert done.returncode == 1
    first, second, total = done.stdout.splitlines()
    assert re.fullmatch(r'line 4: msgrcv\(.*"two": is now 3 mtype=1', first)
    assert re.fullmatch(r"line 6: msgctl\(.* = 0: is now -1 EINVAL .*", second)
    assert total == "5 calls made, 2 came out otherwise, 1 cannot be made"


def test_who_may_not_see_all_of_a_call_has_it_in_no_script(
    gate: MountDoor, own_mount: Mount, children: Callable[..., Child]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be others")
    gate.ok("getppid")
    script = children((own_mount.path / "trace.replay").read_text, uid=65534).result()
    assert script.startswith("# ")
    assert "getppid" not in script
