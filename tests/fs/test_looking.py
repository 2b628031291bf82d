"""Looking changes nothing: whatever reads the whole mount, each object is afterwards what it was before.

In the mount is one of everything that could be hurt: full queues and blocked callers, a held semaphore, attached
memory, pipes with data. The one exception is the host's: reading a segment sets its atime, dtime and lpid.
"""

import array
import ctypes
import fcntl
import os
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import posix_ipc
import pytest
from children import Child, wait_until
from doors import MountDoor
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgget, msgrcv, msgsnd
from native_sem import CONSTANTS as SEM
from native_sem import semctl, semget
from native_shm import shmat, shmctl, shmdt, shmget

#: Longer than any of the commands takes, and shorter than a test may: none may wait for anything.
PATIENCE_S = 40

_XATTRS = """
import os, sys
for path in sys.argv[1:]:
    for name in os.listxattr(path, follow_symlinks=False):
        os.getxattr(path, name, follow_symlinks=False)
"""

#: Readers of all there is.
COMMANDS = {
    "grep -r": "grep -r needle .",
    "find -exec cat": "find . -type f -exec cat {} +",
    "tar": "tar -c . | cat",
    "cp -r": 'cp -r . "$OUT"',
    "wc": "find . -type f -exec wc {} +",
    "ls -lR": "ls -lR",
    "stat": "find . -exec stat {} +",
    "xattrs": f"find . -exec {sys.executable} -c '{_XATTRS}' {{}} +",
}


#: What readers may complain of: memory at addresses where none is attached; tar(1) of what is longer or shorter than it
#: looked; cp(1) of a gate, which is another at each look; what others on this host remove from /dev/shm meanwhile.
EXPECTED = re.compile(
    "/mem|padding|changed as we read|shrank|/syscall.*replaced|removed before|sem/posix.*No such file"
)

#: An object's key and id in a table of /proc/sysvipc.
OBJECT = re.compile(r"^ *(-?\d+) +(\d+)", re.MULTILINE)


class Scene(NamedTuple):
    """What stands in the mount, and who is at work in it."""

    mount: Mount
    msqids: list[int]
    semid: int
    shmid: int
    fifo: int
    posix_queue: posix_ipc.MessageQueue
    posix_semaphore: posix_ipc.Semaphore
    worker: Child
    blocked: list[Child]


def work(gate: MountDoor, semid: int, shmid: int, queue: int) -> None:
    """Hold a semaphore, attach memory, fill a pipe; then wait in an empty queue."""
    gate.ok("semop", semid, (1, -1, "SEM_UNDO"))
    gate.ok("shmat", shmid)
    ends = gate.ok("pipe").results
    gate.ok("write", ends["write"], b"in the pipe")
    gate.call("msgrcv", queue, 10, 99)


@pytest.fixture
def scene(mount: Mount) -> Iterator[Scene]:
    gate, name = MountDoor(mount, "json"), f"/looked-at-{os.getpid()}"
    with ExitStack() as stack:
        full, empty = msgget(0x10CC, 0o1600), msgget(0x10CD, 0o1600)
        stack.callback(msgctl, full, CONSTANTS["IPC_RMID"])
        stack.callback(msgctl, empty, CONSTANTS["IPC_RMID"])
        msgsnd(full, 1, b"needle one")
        msgsnd(full, 7, b"needle seven")
        msgctl(full, CONSTANTS["IPC_SET"], qbytes=22)
        semid, shmid = semget(0x10CE, 3, 0o1600), shmget(0x10CF, 5000, 0o1600)
        stack.callback(semctl, semid, 0, SEM["IPC_RMID"])
        stack.callback(shmctl, shmid, CONSTANTS["IPC_RMID"])
        semctl(semid, 0, SEM["SETALL"], [0, 2, 5])
        address = shmat(shmid)
        stack.callback(shmdt, address)
        ctypes.memset(address, ord("m"), 5000)
        path = mount.path / "pipes" / "looked-at"
        os.mkfifo(path)
        stack.callback(path.unlink)
        fifo = os.open(path, os.O_RDWR)
        stack.callback(os.close, fifo)
        os.write(fifo, b"in the fifo")
        posix_queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=2, max_message_size=64)
        stack.callback(posix_queue.close)
        stack.callback(posix_queue.unlink)
        posix_queue.send(b"low", priority=1)
        posix_queue.send(b"high", priority=9)
        posix_semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX, initial_value=3)
        stack.callback(posix_semaphore.close)
        stack.callback(posix_semaphore.unlink)
        stack.callback(gate.close)
        blocked: list[Child] = [
            gate.block("msgrcv", empty, 10, 5),
            gate.block("msgsnd", full, 3, b"more"),
            gate.block("semop", semid, (0, -1, 0)),
            gate.block("semop", semid, (2, 0, 0)),
        ]
        worker = gate.spawn(lambda: work(gate, semid, shmid, empty))
        blocked.append(worker)
        wait_until(lambda: "msgrcv(" in "".join(mount.blocked(worker.pid)), "the worker waits")
        yield Scene(mount, [full, empty], semid, shmid, fifo, posix_queue, posix_semaphore, worker, blocked)


def natively(scene: Scene) -> dict[str, object]:
    """Every object as the host knows it."""
    waiting = array.array("i", [0])
    fcntl.ioctl(scene.fifo, termios.FIONREAD, waiting)
    numbers = [
        semctl(scene.semid, num, SEM[command])
        for num in range(3)
        for command in ("GETVAL", "GETPID", "GETNCNT", "GETZCNT")
    ]
    segment = shmctl(scene.shmid, CONSTANTS["IPC_STAT"]).results
    looks = {"atime", "dtime", "lpid"}
    return {
        "queues": [msgctl(msqid, CONSTANTS["IPC_STAT"]) for msqid in scene.msqids],
        "messages": [msgrcv(scene.msqids[0], 64, index, 0o44000) for index in range(2)],
        "set": semctl(scene.semid, 0, SEM["IPC_STAT"]),
        "semaphores": numbers,
        "segment": {name: value for name, value in segment.items() if name not in looks},
        "fifo": waiting[0],
        "posix queue": scene.posix_queue.current_messages,
        "posix semaphore": scene.posix_semaphore.value,
        "all": [(table.name, OBJECT.findall(table.read_text())) for table in Path("/proc/sysvipc").iterdir()],
    }


def in_the_mount(scene: Scene) -> dict[str, object]:
    """The same as the mount tells it, and who is blocked in it."""
    root = scene.mount.path
    tables = {name: (root / name / "ctl").read_text() for name in ("msgq", "sem", "pipes")}
    [header, *rows] = [line.split() for line in (root / "shm" / "ctl").read_text().splitlines()]
    tables["shm"] = str(
        [{k: v for k, v in zip(header, row, strict=True) if k not in ("atime", "dtime")} for row in rows]
    )
    worker = root / "proc" / str(scene.worker.pid)
    own = {name: (worker / name).read_text() for name in ("undo", "fds", "attach", "stats")}
    blocked = [scene.mount.blocked(each.pid) for each in scene.blocked]
    return tables | own | {"blocked": blocked, "processes": sorted(os.listdir(root / "proc"))}


def run(command: str, directory: Path, out: Path) -> subprocess.CompletedProcess[bytes]:
    shell, environment = ["bash", "-c", command], os.environ | {"OUT": str(out)}
    return subprocess.run(shell, cwd=directory, env=environment, capture_output=True, timeout=PATIENCE_S, check=False)


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> str:
    return COMMANDS[request.param]


def test_looking_at_the_whole_mount_changes_nothing(scene: Scene, command: str, tmp_path: Path) -> None:
    before = natively(scene) | in_the_mount(scene)
    done = run(command, scene.mount.path, tmp_path)
    after = natively(scene) | in_the_mount(scene)
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert not changed
    assert not any(each.ended() for each in scene.blocked)
    odd = [line for line in done.stderr.decode().splitlines() if not EXPECTED.search(line)]
    assert not odd, odd


def test_every_file_of_the_mount_can_be_read(scene: Scene) -> None:
    for directory, _, names in os.walk(scene.mount.path):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink() and name != "mem":
                path.read_bytes()


def test_copying_a_queue_gives_its_messages_and_leaves_them(scene: Scene, tmp_path: Path) -> None:
    run('cp msgq/key/0x10cc "$OUT/copy"', scene.mount.path, tmp_path)
    assert (tmp_path / "copy").read_bytes() == b"needle oneneedle seven"


def test_grep_finds_what_is_in_the_queues(scene: Scene, tmp_path: Path) -> None:
    done = run("grep -rac needle msgq", scene.mount.path, tmp_path)
    assert f"msgq/sysv/{scene.msqids[0]}:1\n" in done.stdout.decode()


def test_what_was_blocked_goes_on_when_it_can(scene: Scene, tmp_path: Path) -> None:
    """After all of that, a blocked caller is still served."""
    run("grep -r needle .", scene.mount.path, tmp_path)
    msgsnd(scene.msqids[1], 5, b"hello")
    assert scene.blocked[0].result().data == b"hello"
