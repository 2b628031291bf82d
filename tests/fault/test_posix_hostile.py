"""What one user can make of names in /dev/shm and of POSIX queues, while the daemon serves the others.

Whoever uses such a thing through the gate waits as long as natively, can be killed, and holds up nobody else.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import NOBODY, MountDoor, write
from native_posix import checked, libc, mq_open, sem_open, unlink_all

#: Nobody else's: /dev/shm is in no IPC namespace.
TEXT = f"synosfs-hostile-{os.getpid()}"
NAME = b"/" + TEXT.encode()
MEMORY, SEMAPHORE = Path(f"/dev/shm/{TEXT}"), Path(f"/dev/shm/sem.{TEXT}")

#: What froze the daemon did so for 45 s (fs.lease-break-time), or for ever.
AT_ONCE_S = 5.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")


@pytest.fixture(autouse=True)
def names(nothing_left: None) -> Iterator[None]:
    yield
    unlink_all(NAME)
    for path in (MEMORY, SEMAPHORE):
        with suppress(FileNotFoundError):
            (os.rmdir if path.is_dir() and not path.is_symlink() else os.unlink)(path)


def others_are_served(gate: MountDoor) -> None:
    """Another process gets its answer, and a look at the attacked things has one, whatever it says."""
    began = time.monotonic()
    assert gate.spawn(lambda: gate.call("getpid").ret).result(AT_ONCE_S) > 0
    for path in (gate.mount.path / "sem/posix" / TEXT, gate.mount.path / "msgq/posix" / TEXT):
        assert gate.spawn(partial(looks, path)).result(AT_ONCE_S)
    assert time.monotonic() - began < AT_ONCE_S


def looks(path: Path) -> list[str]:
    def names_of(path: Path) -> list[str]:
        return os.listxattr(path)

    def contents(path: Path) -> bytes:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.read(fd, 100)  # FileIO takes EAGAIN for an end
        finally:
            os.close(fd)

    return [refused(partial(look, path)) for look in (os.stat, contents, names_of, os.path.exists)]


def refused(operation: Callable[[], object]) -> str:
    try:
        operation()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def attack(gate: MountDoor, call: str, *args: object) -> Child:
    """An attacker that blocks in the call for as long as nothing else happens."""
    attacker = gate.start(call, *args, as_uid=NOBODY)
    wait_until(lambda: any(what.startswith(f"{call}(") for what in gate.mount.blocked(attacker.pid)), "it blocks")
    return attacker


# --- FIFOs


@pytest.mark.parametrize(("flags", "other"), [("O_RDONLY", os.O_WRONLY), ("O_WRONLY", os.O_RDONLY)])
def test_who_opens_a_fifo_as_memory_waits_alone_and_can_be_killed(gate: MountDoor, flags: str, other: int) -> None:
    os.mkfifo(MEMORY)
    os.chmod(MEMORY, 0o666)
    attacker = attack(gate, "shm_open", NAME, flags)
    others_are_served(gate)
    attacker.kill()
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
    interrupted = attack(gate, "shm_open", NAME, flags)
    interrupted.interrupt()
    assert interrupted.result().errno == "EINTR"
    served = attack(gate, "shm_open", NAME, flags)
    os.close(os.open(MEMORY, other))
    assert not served.result().errno


def test_a_fifo_that_was_opened_as_memory_is_a_fifo(gate: MountDoor) -> None:
    os.mkfifo(MEMORY)
    fd = gate.ok("shm_open", NAME, "O_RDWR").ret
    gate.ok("write", fd, b"hello")
    assert gate.ok("read", fd, 10).data == b"hello"
    reader = gate.block("read", fd, 10)
    others_are_served(gate)
    reader.kill()
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
    gate.ok("close", fd)


@pytest.mark.parametrize(
    ("make", "semaphore", "memory"),
    [
        (os.mkfifo, "ENODEV", ""),
        (os.mkdir, "EISDIR", "EINVAL"),
        (lambda path: os.symlink("/etc/passwd", path), "ELOOP", "ELOOP"),
        (lambda path: os.mknod(path, 0o140666), "ENXIO", "ENXIO"),
    ],
)
def test_what_is_no_file_is_refused_as_natively(
    gate: MountDoor, make: Callable[[Path], None], semaphore: str, memory: str
) -> None:
    make(SEMAPHORE)
    make(MEMORY)
    for _ in range(2):
        assert gate.call("sem_open", NAME).errno == semaphore
        fd = gate.call("shm_open", NAME, "O_RDWR")
        assert fd.errno == memory
        if not memory:
            gate.ok("close", fd.ret)
    assert looks(gate.mount.path / "sem/posix" / TEXT) == ["ENOENT", "ENOENT", "ENOENT", "done"]
    others_are_served(gate)


# --- leases


@pytest.fixture
def leased(gate: MountDoor) -> Iterator[Callable[[Path], None]]:
    """Makes an ordinary user hold a lease on a file of theirs, and not give it up."""
    holders: list[Child] = []

    def lease(path: Path, ready: int) -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(ready, b"x")
        signal.pause()

    def hold(path: Path) -> None:
        receive, send = os.pipe()
        os.chown(path, NOBODY, NOBODY)
        os.chmod(path, 0o666)
        holders.append(gate.spawn(partial(lease, path, send), uid=NOBODY))
        os.close(send)
        assert os.read(receive, 1) == b"x", holders[-1].result()
        os.close(receive)

    yield hold
    for holder in holders:
        holder.kill()


def make_memory(mqueues: Path) -> Path:
    os.close(checked(libc.shm_open(NAME, os.O_CREAT | os.O_RDWR, 0o666)))
    return MEMORY


def make_semaphore(mqueues: Path) -> Path:
    libc.sem_close(sem_open(NAME, os.O_CREAT, 0o666, 3))
    return SEMAPHORE


def make_queue(mqueues: Path) -> Path:
    os.close(mq_open(NAME, os.O_CREAT | os.O_RDWR, 0o666))
    return mqueues / TEXT


@pytest.fixture
def mqueues(tmp_path: Path) -> Iterator[Path]:
    """The mqueue file system, for somebody who wants a descriptor that can have a lease."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    mounted(b"mqueue", tmp_path, b"mqueue")
    yield tmp_path
    checked(libc.umount2(os.fsencode(tmp_path), MNT_DETACH))


FAMILIES = {
    "shm_open": (make_memory, ("O_RDWR",), "shm_unlink"),
    "sem_open": (make_semaphore, (), "sem_unlink"),
    "mq_open": (make_queue, ("O_RDWR",), "mq_unlink"),
}


@pytest.mark.parametrize("call", FAMILIES)
def test_who_opens_what_is_leased_waits_alone_and_can_be_killed(
    gate: MountDoor, leased: Callable[[Path], None], mqueues: Path, call: str
) -> None:
    make, flags, unlink = FAMILIES[call]
    leased(make(mqueues))
    attacker = attack(gate, call, NAME, *flags)
    # Who waits in mq_open keeps all names of queues locked (ipc/mqueue.c): who lists them waits alone, too.
    lister = gate.spawn(lambda: os.listdir(gate.mount.path / "msgq/posix"))
    others_are_served(gate)
    attacker.kill()
    lister.result()
    wait_until(lambda: gate.blocked_callers() == 0, "nobody is blocked")
    # A session that is not to wait does not.
    session = os.open(gate.mount.gate, os.O_RDWR | os.O_NONBLOCK)
    assert write(session, f"{call} {NAME.decode()} {' '.join(flags)}\n".encode()) == "EAGAIN"
    os.close(session)
    interrupted = attack(gate, call, NAME, *flags)
    interrupted.interrupt()
    assert interrupted.result().errno == "EINTR"
    gate.ok(unlink, NAME)  # a lease does not hold a name


@pytest.mark.parametrize(("make", "directory"), [(make_semaphore, "sem/posix"), (make_queue, "msgq/posix")])
def test_a_look_at_what_is_leased_does_not_wait(
    gate: MountDoor, leased: Callable[[Path], None], mqueues: Path, make: Callable, directory: str
) -> None:
    leased(make(mqueues))
    path = gate.mount.path / directory / TEXT
    for _ in range(2):
        assert gate.spawn(lambda: (os.stat(path).st_size, os.stat(path).st_uid)).result(AT_ONCE_S) == (0, NOBODY)
        assert gate.spawn(partial(looks, path)).result(AT_ONCE_S) == ["done", "EAGAIN", "EAGAIN", "done"]
    changes = [partial(os.chmod, path, 0o604), partial(os.chown, path, NOBODY, 0), partial(os.utime, path)]
    assert [gate.spawn(partial(refused, change)).result(AT_ONCE_S) for change in changes] == ["done"] * 3
    status = path.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o604, NOBODY, 0)
    assert gate.spawn(partial(refused, path.unlink)).result(AT_ONCE_S) == "done"
    assert not path.exists()


# --- forged semaphores


FORGED = [
    # value, how many wait, and what glibc takes for the kind of futex: with private=0 its FUTEX_WAKE is another call
    *((value, waiters, private) for value in (0, 1) for waiters in (0, 1, 0xFFFFFFFF) for private in (0, 1, 129, -1)),
    (0x7FFFFFFF, 5, 128),
    (0xFFFFFFFF, 0xFFFFFFFF, 0),
]


def test_a_forged_semaphore_answers_and_holds_up_nobody(gate: MountDoor) -> None:
    def use_all() -> list[set[str]]:
        seen: list[set[str]] = []
        for value, waiters, private in FORGED:
            with SEMAPHORE.open("wb") as file:
                file.write(struct.pack("=IIi20s", value, waiters, private, b"\xff" * 20))
            sem = gate.ok("sem_open", NAME).ret
            calls = [("sem_getvalue", sem), ("sem_post", sem), ("sem_trywait", sem), ("sem_post", sem)]
            seen.append({gate.call(*call).errno for call in calls})
            seen[-1].add(gate.call("sem_timedwait", sem, abs_sec=1).errno)
            gate.ok("sem_close", sem)
            SEMAPHORE.unlink()
        return seen

    for seen in gate.spawn(use_all, uid=NOBODY).result():
        assert seen <= {"", "EAGAIN", "EOVERFLOW", "ETIMEDOUT"}
    others_are_served(gate)


def test_a_semaphore_that_is_written_without_a_pause_holds_up_nobody(gate: MountDoor) -> None:
    make_semaphore(Path())
    SEMAPHORE.chmod(0o666)

    def hammer() -> None:
        with SEMAPHORE.open("r+b") as file, mmap.mmap(file.fileno(), 32) as memory:
            while True:
                for value in range(100):
                    memory[0] = value

    hammerers = [gate.spawn(hammer, uid=NOBODY) for _ in range(2)]
    sem = gate.ok("sem_open", NAME).ret
    for _ in range(200):
        assert gate.call("sem_post", sem).errno in ("", "EAGAIN")
        assert gate.call("sem_trywait", sem).errno in ("", "EAGAIN")
    others_are_served(gate)
    for hammerer in hammerers:
        hammerer.kill()
    gate.ok("sem_close", sem)


# --- what is mounted over a name

MNT_DETACH = 2


def mounted(source: bytes, path: Path, kind: bytes, options: bytes = b"") -> None:
    checked(libc.mount(source, os.fsencode(path), kind, 0, options))


@pytest.fixture
def silent_servers(gate: MountDoor) -> Iterator[Callable[[Path], None]]:
    """Mounts, over a file, a file system whose server never says a word: who goes there waits until it ends."""
    served: list[tuple[Path, int]] = []

    def over(path: Path) -> None:
        path.write_bytes(bytes(32))
        device = os.open("/dev/fuse", os.O_RDWR)
        served.append((path, device))
        mounted(b"silent", path, b"fuse", b"fd=%d,rootmode=100000,user_id=0,group_id=0,allow_other" % device)

    yield over
    for path, device in served:
        os.close(device)
        checked(libc.umount2(os.fsencode(path), MNT_DETACH))


def test_a_file_system_that_is_mounted_over_a_name_is_not_entered(
    gate: MountDoor, silent_servers: Callable[[Path], None]
) -> None:
    silent_servers(MEMORY)
    silent_servers(SEMAPHORE)

    def use() -> list[str]:
        answers = [gate.call("sem_open", NAME).errno, gate.call("sem_open", NAME, "O_CREAT").errno]
        answers += [gate.call("shm_open", NAME, flags).errno for flags in ("O_RDONLY", "O_RDWR|O_CREAT")]
        return answers + [gate.call(call, NAME).errno for call in ("sem_unlink", "shm_unlink")]

    assert gate.spawn(use).result(AT_ONCE_S) == ["EXDEV"] * 4 + ["EBUSY"] * 2
    path = gate.mount.path / "sem/posix" / TEXT
    assert gate.spawn(partial(looks, path)).result(AT_ONCE_S) == ["ENOENT"] * 3 + ["done"]
    changes = [partial(os.chmod, path, 0o604), partial(os.utime, path), path.unlink]
    assert gate.spawn(lambda: [refused(change) for change in changes]).result(AT_ONCE_S) == ["ENOENT"] * 3
    assert gate.spawn(lambda: len(list(os.scandir(path.parent)))).result(AT_ONCE_S) == 0
    others_are_served(gate)


# --- locks of the host


def hold_lock(path: Path, ready: int) -> None:
    """Write to the file what never comes: the host holds the file's lock meanwhile. As an ordinary user would with a
    page that a file system of theirs does not deliver; root has userfaultfd(2) for it.
    """
    faults = checked(libc.syscall(ctypes.c_long(323), os.O_CLOEXEC))
    fcntl.ioctl(faults, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))  # UFFDIO_API
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fcntl.ioctl(faults, 0xC020AA00, struct.pack("QQQQ", address, mmap.PAGESIZE, 1, 0))  # UFFDIO_REGISTER
    fd = os.open(path, os.O_RDWR)
    os.write(ready, b"x")
    libc.write(fd, ctypes.c_void_p(address), mmap.PAGESIZE)


@pytest.fixture
def held(gate: MountDoor) -> Iterator[Callable[[Path], Child]]:
    """Makes somebody hold the lock of a file until they are killed."""
    holders: list[Child] = []

    def hold(path: Path) -> Child:
        receive, send = os.pipe()
        holder = gate.spawn(partial(hold_lock, path, send))
        holders.append(holder)
        os.close(send)
        ready = os.read(receive, 1)
        os.close(receive)
        if not ready:
            pytest.skip("this host has no userfaultfd(2) for root")
        wait_until(lambda: Path(f"/proc/{holder.pid}/syscall").read_text().startswith("1 "), "it writes")
        return holder

    yield hold
    for holder in holders:
        holder.kill()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of calls are this machine's")
@pytest.mark.parametrize(
    ("make", "call", "args"),
    [
        (make_semaphore, "sem_unlink", ()),
        (make_memory, "shm_unlink", ()),
        (make_memory, "shm_open", ("O_RDWR|O_TRUNC",)),
    ],
)
def test_who_waits_for_a_lock_of_the_host_waits_alone(
    gate: MountDoor, held: Callable[[Path], Child], make: Callable, call: str, args: tuple
) -> None:
    path = make(Path())
    holder = held(path)
    attacker = gate.start(call, NAME, *args)
    wait_until(lambda: any(what.startswith(call) for what in gate.mount.blocked(attacker.pid)), "it blocks")
    others_are_served(gate)
    # The directory is locked by now: what is not there is not waited for either.
    nothing = gate.mount.path / "sem/posix/synosfs-none"
    assert gate.spawn(nothing.exists).result(AT_ONCE_S) is False
    lister = gate.spawn(lambda: os.listdir(nothing.parent))
    others_are_served(gate)
    holder.kill()
    lister.result()
    assert not attacker.result().errno
