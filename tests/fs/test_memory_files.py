"""``proc/<pid>/mem`` and ``attach``: attached memory by address; and ftok, whose paths are the caller's."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from children import Child, wait_until
from doors import NOBODY
from mounts import Mount
from native_msg import CONSTANTS
from native_shm import peek, poke, shmctl, shmget


@pytest.fixture
def new_segment(mount: Mount) -> Iterator[Callable[..., int]]:
    """Makes private segments natively: ``new_segment(5000)``."""
    made = []

    def make(size: int = 5000) -> int:
        made.append(shmget(0, size, 0o600))
        return made[-1]

    yield make
    for shmid in made:
        with suppress(OSError):
            shmctl(shmid, CONSTANTS["IPC_RMID"])


def attached(shmid: int) -> int:
    return shmctl(shmid, CONSTANTS["IPC_STAT"]).results["nattch"]


def failure(body: Callable[[], object]) -> str:
    """The name of the errno that the body fails with; empty if it does not."""
    try:
        body()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


@pytest.fixture
def call(mount: Mount) -> Iterator[Callable[[str], int]]:
    """Makes system calls in one session and gives what they return; what is attached at the end is detached."""
    with open(mount.gate, "r+b", buffering=0) as session:

        def make(line: str) -> int:
            session.write(line.encode() + b"\n")
            return int(session.read().split()[0], 0)

        yield make
        table = (mount.path / f"proc/{os.getpid()}/attach").read_text()
        for line in table.splitlines()[1:]:
            make(f"shmdt {line.split()[0]}")


def test_attached_memory_is_read_and_written_by_address(
    mount: Mount, new_segment: Callable[..., int], call: Callable[[str], int]
) -> None:
    shmid = new_segment()
    address = call(f"shmat {shmid}")
    fd = os.open(mount.path / "proc/self/mem", os.O_RDWR)
    assert os.pwrite(fd, b"by address", address + 100) == 10
    assert peek(shmid, 10, 100) == b"by address"
    poke(shmid, b"natively", 4990)
    assert os.pread(fd, 8, address + 4990) == b"natively"
    os.close(fd)


def test_memory_is_whole_pages_and_eio_beside_them(
    mount: Mount, new_segment: Callable[..., int], call: Callable[[str], int]
) -> None:
    address = call(f"shmat {new_segment(5000)} 0x600000000000")
    fd = os.open(mount.path / "proc/self/mem", os.O_RDWR)
    assert os.pread(fd, 10000, address) == bytes(8192)
    assert os.pread(fd, 10000, address + 8190) == bytes(2)
    assert os.pwrite(fd, b"xyz", address + 8190) == 2
    for beside in (0, address - 1, address + 8192):
        assert failure(lambda beside=beside: os.pread(fd, 1, beside)) == "EIO"
        assert failure(lambda beside=beside: os.pwrite(fd, b"x", beside)) == "EIO"
    os.close(fd)


def test_neighbours_are_read_as_one_and_what_is_read_only_is_not_written(
    mount: Mount, new_segment: Callable[..., int], call: Callable[[str], int]
) -> None:
    first, second = new_segment(4096), new_segment(4096)
    call(f"shmat {first} 0x600000000000")
    call(f"shmat {second} 0x600000001000 SHM_RDONLY")
    poke(second, b"behind")
    fd = os.open(mount.path / "proc/self/mem", os.O_RDWR)
    assert os.pwrite(fd, b"before and", 0x600000000FFA) == 6
    assert os.pread(fd, 12, 0x600000000FFA) == b"beforebehind"
    assert failure(lambda: os.pwrite(fd, b"x", 0x600000001000)) == "EIO"
    os.close(fd)


def test_attach_is_a_table_of_what_is_attached(
    mount: Mount, new_segment: Callable[..., int], call: Callable[[str], int]
) -> None:
    shmid = new_segment(5000)
    call(f"shmat {shmid} 0x600000001000 SHM_RDONLY")
    call(f"shmat {shmid}")
    table = (mount.path / "proc/self/attach").read_text()
    assert [line.split() for line in table.splitlines()] == [
        ["address", "shmid", "size", "flags"],
        ["0x600000001000", str(shmid), "5000", "SHM_RDONLY"],
        ["0x7f0000000000", str(shmid), "5000", "-"],
    ]


@pytest.mark.parametrize(
    "command",
    [
        "dd if=proc/{pid}/mem bs=1 skip=$(({address})) count=5 status=none",
        "tail -c +$(({address} + 1)) proc/{pid}/mem 2>/dev/null | head -c 5",
        (
            "printf HELLO | dd of=proc/{pid}/mem bs=1 seek=$(({address})) conv=notrunc status=none"
            " && dd if=proc/{pid}/mem bs=5 skip=$(({address})) iflag=skip_bytes count=1 status=none | tr A-Z a-z"
        ),
    ],
)
def test_shells_reach_memory_with_dd_and_tail(
    mount: Mount, new_segment: Callable[..., int], call: Callable[[str], int], command: str
) -> None:
    shmid = new_segment()
    poke(shmid, b"hello")
    shell = command.format(pid=os.getpid(), address=hex(call(f"shmat {shmid}")))
    assert subprocess.run(["bash", "-c", shell], cwd=mount.path, stdout=subprocess.PIPE, check=True).stdout == b"hello"


def test_memory_is_for_its_owner(mount: Mount, call: Callable[[str], int]) -> None:
    call("getpid")
    file = mount.path / f"proc/{os.getpid()}/mem"
    assert os.stat(file).st_mode & 0o777 == 0o600

    def as_nobody() -> list[str]:
        return [failure(lambda name=name: os.open(file.with_name(name), os.O_RDONLY)) for name in ("mem", "attach")]

    assert Child(as_nobody, uid=NOBODY).result() == ["EACCES", "EACCES"]


def test_memory_of_a_process_that_has_ended_is_esrch(mount: Mount, new_segment: Callable[..., int]) -> None:
    shmid = new_segment()

    def attach_and_sleep() -> None:
        with open(mount.gate, "wb", buffering=0) as session:
            session.write(b"shmat %d 0x600000000000\n" % shmid)
        while True:
            signal.pause()

    child = Child(attach_and_sleep)
    wait_until(lambda: attached(shmid) == 1, "the child attaches")
    fd = os.open(mount.path / f"proc/{child.pid}/mem", os.O_RDONLY)
    assert os.pread(fd, 1, 0x600000000000) == b"\0"
    child.close()
    assert failure(lambda: os.pread(fd, 1, 0x600000000000)) == "ESRCH"
    os.close(fd)
    wait_until(lambda: attached(shmid) == 0, "its attachment goes with it")


def test_ftok_finds_a_file_of_the_mount_itself(mount: Mount, call: Callable[[str], int]) -> None:
    found = os.stat(mount.path / "help")
    assert call(f"ftok {mount.path}/help 1") == 1 << 24 | (found.st_dev & 0xFF) << 16 | found.st_ino & 0xFFFF


@pytest.mark.parametrize("path", ["/proc/self/fd/0", "/proc/self/exe", "/proc/self/root/etc", "/proc/thread-self/cwd"])
def test_ftok_never_follows_the_daemons_own_magic_links(mount: Mount, path: str) -> None:
    with open(mount.gate, "r+b", buffering=0) as session:
        assert failure(lambda: session.write(f"ftok {path} 1\n".encode())) == "ELOOP"
