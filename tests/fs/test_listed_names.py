"""Names that a listing gave are kept by the kernel, and are never stale: what is removed natively is gone at once."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import posix_ipc
import pytest
import sysv_ipc
from children import Child, wait_until
from doors import NOBODY, NativeDoor
from mounts import Mount
from native_msg import CONSTANTS, msgctl
from native_posix import unlink_all
from native_sem import semctl
from native_shm import shmctl, shmget

KEY = 0x5359_0060
#: Nobody else's: /dev/shm is in no IPC namespace.
NAME = f"synosfs-test-{os.getpid()}"


class Object(NamedTuple):
    """A native object: the file it shows as, how a native program removes it, and a write that blocks, if any does."""

    file: Path
    remove: Callable[[], object]
    blocks: bytes | None = None


def queue(mount: Mount, undo: ExitStack) -> Object:
    made = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX)
    undo.enter_context(suppress(sysv_ipc.ExistentialError))
    undo.callback(made.remove)
    msgctl(made.id, CONSTANTS["IPC_SET"], qbytes=1, mode=0o600)
    return Object(mount.path / f"msgq/sysv/{made.id}", made.remove, b"too much")


def keyed_queue(mount: Mount, undo: ExitStack) -> Object:
    made = sysv_ipc.MessageQueue(KEY, sysv_ipc.IPC_CREX)
    undo.enter_context(suppress(sysv_ipc.ExistentialError))
    undo.callback(made.remove)
    return Object(mount.path / f"msgq/key/{KEY:#x}", made.remove)


def semaphores(mount: Mount, undo: ExitStack) -> Object:
    made = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX)
    undo.enter_context(suppress(sysv_ipc.ExistentialError))
    undo.callback(made.remove)
    return Object(mount.path / f"sem/sysv/{made.id}", made.remove, b"0:-1\n")


def segment(mount: Mount, undo: ExitStack) -> Object:
    shmid = shmget(0, 4096, CONSTANTS["IPC_CREAT"] | 0o600)
    remove = partial(shmctl, shmid, CONSTANTS["IPC_RMID"])
    undo.enter_context(suppress(OSError))
    undo.callback(remove)
    return Object(mount.path / f"shm/sysv/{shmid}", remove)


def posix_queue(mount: Mount, undo: ExitStack) -> Object:
    made = posix_ipc.MessageQueue(f"/{NAME}", posix_ipc.O_CREX, max_messages=1, max_message_size=8)
    undo.callback(lambda: unlink_all(f"/{NAME}".encode()))
    made.send(b"full")
    made.close()
    return Object(mount.path / f"msgq/posix/{NAME}", made.unlink, b"more")


def posix_semaphore(mount: Mount, undo: ExitStack) -> Object:
    made = posix_ipc.Semaphore(f"/{NAME}", posix_ipc.O_CREX)
    undo.callback(lambda: unlink_all(f"/{NAME}".encode()))
    made.close()
    return Object(mount.path / f"sem/posix/{NAME}", partial(posix_ipc.unlink_semaphore, f"/{NAME}"), b"-1\n")


FAMILIES = [queue, keyed_queue, semaphores, segment, posix_queue, posix_semaphore]


@pytest.fixture
def listed(request: pytest.FixtureRequest, mount: Mount) -> Iterator[Object]:
    """An object of the family, whose name a listing has given to the kernel."""
    with ExitStack() as undo:
        made = request.param(mount, undo)
        with os.scandir(made.file.parent) as names:
            assert made.file.name in [name.name for name in names]
        made.file.stat()
        yield made


def open_and_close(flags: int) -> Callable[[Path], None]:
    return lambda path: os.close(os.open(path, flags))


USES = {
    "stat": os.stat,
    "access": lambda path: os.stat(path) and None if os.access(path, os.F_OK) else os.stat(path),
    "open to look": open_and_close(os.O_RDONLY),
    "open to write": open_and_close(os.O_WRONLY | os.O_APPEND),
    "open for both": open_and_close(os.O_RDWR),
    "chmod": lambda path: path.chmod(0o600),
    "chown": lambda path: os.chown(path, 0, 0),
    "truncate": lambda path: os.truncate(path, 0),
    "getxattr": lambda path: os.getxattr(path, "user.key"),
    "listxattr": os.listxattr,
    "unlink": os.unlink,
}


@pytest.mark.parametrize("listed", FAMILIES, indirect=True)
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_gone_is_enoent_for_every_use_of_its_name(listed: Object, use: Callable[[Path], object]) -> None:
    listed.remove()
    with pytest.raises(FileNotFoundError):
        use(listed.file)
    assert not listed.file.exists()


def write_to(listed: Object) -> Callable[[], str]:
    def write() -> str:
        try:
            return str(os.write(os.open(listed.file, os.O_WRONLY), listed.blocks or b""))
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    return write


@pytest.mark.parametrize("listed", [queue, semaphores, posix_queue, posix_semaphore], indirect=True)
@pytest.mark.parametrize("use", [os.unlink, lambda path: path.chmod(0o640)], ids=["unlink", "chmod"])
def test_a_listed_file_can_be_changed_and_removed_while_a_write_in_it_is_blocked(
    listed: Object, use: Callable[[Path], object], mount: Mount, children: Callable[..., Child]
) -> None:
    blocked = children(write_to(listed))
    wait_until(lambda: mount.blocked(blocked.pid), "the write blocks")
    os.listdir(listed.file.parent)
    listed.file.stat()
    user = children(lambda: use(listed.file))  # apart: it would wait for ever, and SIGKILL could not end it
    user.result()


@pytest.mark.parametrize("listed", [queue, semaphores, posix_queue, posix_semaphore], indirect=True)
def test_writers_of_a_listed_file_do_not_wait_for_one_another(
    listed: Object, mount: Mount, children: Callable[..., Child]
) -> None:
    writers = [children(write_to(listed)) for _ in range(3)]
    for writer in writers:
        wait_until(lambda pid=writer.pid: mount.blocked(pid), "it blocks in the host's call, not for the inode")


def test_a_listed_key_leads_all_who_write_at_once_to_the_next_set_that_has_it(
    mount: Mount, new_set: Callable[..., int], children: Callable[..., Child]
) -> None:
    file = mount.path / f"sem/key/{KEY:#x}"
    for _ in range(5):
        semid = new_set([0], KEY)
        takers = [children(write_to(Object(file, file.unlink, b"0:-1\n"))) for _ in range(3)]
        for taker in takers:
            wait_until(lambda taker=taker: mount.blocked(taker.pid) or taker.ended(), "it blocks")
        assert os.listdir(file.parent) == [file.name]
        semctl(semid, 0, CONSTANTS["IPC_RMID"])
        assert [taker.result() for taker in takers] == ["EIDRM"] * 3


def test_a_creator_who_is_not_the_owner_removes_a_queue_that_root_has_listed(
    mount: Mount, native: NativeDoor, children: Callable[..., Child]
) -> None:
    msqid = children(lambda: sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX).id, uid=NOBODY).result()
    native.ok("msgctl", msqid, "IPC_SET", uid=1, gid=1, mode=0o600)
    os.listdir(mount.path / "msgq/sysv")
    file = mount.path / f"msgq/sysv/{msqid}"
    assert file.stat().st_uid == 1
    assert children(lambda: removal(file), uid=2).result() == "EPERM"
    assert children(lambda: removal(file), uid=NOBODY).result() == ""
    assert not file.exists()


def removal(file: Path) -> str:
    try:
        file.unlink()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def test_the_key_of_a_removed_segment_that_lives_on_is_gone_and_leads_to_the_next(mount: Mount) -> None:
    old = sysv_ipc.SharedMemory(KEY, sysv_ipc.IPC_CREX, size=4096)  # attached
    os.listdir(mount.path / "shm/key")
    file = mount.path / f"shm/key/{KEY:#x}"
    assert file.stat().st_size == 4096
    old.remove()
    assert not file.exists()
    new = sysv_ipc.SharedMemory(KEY, sysv_ipc.IPC_CREX, size=8192)
    assert file.stat().st_size == 8192
    old.detach()
    new.detach()
    new.remove()
