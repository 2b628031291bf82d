"""poll, select and epoll on files of queues and semaphores: ready when a call would not wait, woken by natives too."""

import itertools
import os
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import posix_ipc
import pytest
from children import Child, wait_until
from doors import NOBODY, NativeDoor
from mounts import Mount

Opened = Callable[[str], int]


@pytest.fixture
def opened(mount: Mount) -> Iterator[Opened]:
    """Opens a file of the mount to take part."""
    with ExitStack() as stack:

        def open_(path: str) -> int:
            fd = os.open(mount.path / path, os.O_RDWR)
            stack.callback(os.close, fd)
            return fd

        yield open_


@pytest.fixture
def queue(native: NativeDoor) -> Iterator[int]:
    msqid = native.ok("msgget", 0, 0o600).ret
    yield msqid
    native.call("msgctl", msqid, "IPC_RMID")


def ready(fd: int, timeout_s: float = 0) -> int:
    """What poll(2) reports, of input and room."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    return next((revents for _, revents in poll.poll(timeout_s * 1000)), 0)


def by_poll(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(30_000))


def by_select(fd: int) -> bool:
    return bool(select.select([fd], [], [], 30)[0])


def by_epoll(fd: int) -> bool:
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN)
        return bool(epoll.poll(30))


def by_epoll_edges(fd: int) -> bool:
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        return bool(epoll.poll(30))


WAYS = pytest.mark.parametrize("wait", [by_poll, by_select, by_epoll, by_epoll_edges])


def asleep(child: Child) -> Child:
    """The child, when it sleeps in one of the calls that poll."""
    numbers = {"7", "270", "281", "271", "23", "232"}
    while Path(f"/proc/{child.pid}/syscall").read_text().split()[0] not in numbers:
        assert not child.ended(), child.result()
    return child


def test_a_queue_is_ready_for_input_with_a_message_and_for_output_with_room(
    native: NativeDoor, queue: int, opened: Opened
) -> None:
    fd = opened(f"msgq/sysv/{queue}")
    assert ready(fd) == select.POLLOUT
    native.ok("msgsnd", queue, 1, b"x" * 8192)
    assert ready(fd) == select.POLLIN | select.POLLOUT
    native.ok("msgsnd", queue, 1, b"x" * 8192)
    assert ready(fd) == select.POLLIN
    assert len(os.read(fd, 8192)) == 8192
    assert ready(fd) == select.POLLIN | select.POLLOUT


def test_a_selected_type_alone_is_input(native: NativeDoor, queue: int, opened: Opened) -> None:
    seven, up_to_five = opened(f"msgq/sysv/{queue}@7"), opened(f"msgq/sysv/{queue}@-5")
    native.ok("msgsnd", queue, 7, b"x")
    assert (ready(seven) & select.POLLIN, ready(up_to_five) & select.POLLIN) == (select.POLLIN, 0)


def test_a_file_that_only_looks_is_always_ready(mount: Mount, queue: int) -> None:
    with open(mount.path / f"msgq/sysv/{queue}", "rb") as file:
        assert ready(file.fileno()) == select.POLLIN | select.POLLOUT


@WAYS
def test_a_native_message_wakes_who_waits_for_input(
    native: NativeDoor, queue: int, opened: Opened, children: Callable[..., Child], wait: Callable[[int], bool]
) -> None:
    fd = opened(f"msgq/sysv/{queue}@3")
    waiting = asleep(children(lambda: wait(fd)))
    native.ok("msgsnd", queue, 2, b"another type")
    assert not waiting.ended()
    native.ok("msgsnd", queue, 3, b"native")
    assert waiting.result()
    assert os.read(fd, 100) == b"native"


@WAYS
def test_a_native_increment_wakes_who_waits_for_a_semaphore(
    native: NativeDoor,
    new_set: Callable[..., int],
    opened: Opened,
    children: Callable[..., Child],
    wait: Callable[[int], bool],
) -> None:
    semid = new_set([0])
    fd = opened(f"sem/sysv/{semid}")
    assert ready(fd) == select.POLLOUT
    waiting = asleep(children(lambda: wait(fd)))
    native.ok("semctl", semid, 0, "SETVAL", 1)
    assert waiting.result()
    assert os.write(fd, b"0:-1:0") == 6
    assert ready(fd) == select.POLLOUT
    assert native.ok("semctl", semid, 0, "GETNCNT").ret == 0


def test_a_set_of_several_is_ready_when_any_of_them_is(
    native: NativeDoor, new_set: Callable[..., int], opened: Opened, children: Callable[..., Child]
) -> None:
    semid = new_set([0, 0, 0])
    fd = opened(f"sem/sysv/{semid}")
    waiting = asleep(children(lambda: by_poll(fd)))
    native.ok("semop", semid, (2, 1, 0))
    assert waiting.result()


@pytest.mark.parametrize("family", ["msgq", "sem"])
def test_removal_wakes_with_pollhup(
    native: NativeDoor,
    queue: int,
    new_set: Callable[..., int],
    opened: Opened,
    children: Callable[..., Child],
    family: str,
) -> None:
    semid = new_set([0])
    fd = opened(f"{family}/sysv/{queue if family == 'msgq' else semid}")
    waiting = asleep(children(lambda: by_poll(fd)))
    native.ok("msgctl", queue, "IPC_RMID") if family == "msgq" else native.ok("semctl", semid, 0, "IPC_RMID")
    assert waiting.result()
    assert ready(fd) & select.POLLHUP


def test_a_posix_queue_and_a_posix_semaphore_wake_who_polls(opened: Opened, children: Callable[..., Child]) -> None:
    name = f"synosfs-poll-{os.getpid()}"
    with ExitStack() as stack:
        queue = posix_ipc.MessageQueue(f"/{name}", posix_ipc.O_CREX)
        stack.callback(queue.close)
        stack.callback(queue.unlink)
        semaphore = posix_ipc.Semaphore(f"/{name}", posix_ipc.O_CREX)
        stack.callback(semaphore.close)
        stack.callback(semaphore.unlink)
        for path, wake in ((f"msgq/posix/{name}", lambda: queue.send(b"x")), (f"sem/posix/{name}", semaphore.release)):
            fd = opened(path)
            assert ready(fd) == select.POLLOUT
            waiting = asleep(children(lambda fd=fd: by_epoll(fd)))
            wake()
            assert waiting.result()
            assert ready(fd) == select.POLLIN | select.POLLOUT


def test_one_epoll_over_many_files_tells_which(
    native: NativeDoor, queue: int, new_set: Callable[..., int], opened: Opened
) -> None:
    semid = new_set([0])
    files = {opened(path): path for path in (f"msgq/sysv/{queue}@1", f"msgq/sysv/{queue}@2", f"sem/sysv/{semid}")}
    with select.epoll() as epoll:
        for fd in files:
            epoll.register(fd, select.EPOLLIN)
        assert epoll.poll(0) == []
        native.ok("msgsnd", queue, 2, b"x")
        assert [files[fd] for fd, _ in epoll.poll(30)] == [f"msgq/sysv/{queue}@2"]
        native.ok("semctl", semid, 0, "SETVAL", 1)
        names: set[str] = set()
        while len(names) < 2:
            names |= {files[fd] for fd, _ in epoll.poll(30)}
        assert names == {f"msgq/sysv/{queue}@2", f"sem/sysv/{semid}"}


def drain(fd: int, take: Callable[[int], object]) -> int:
    """As who polls for edges has to: until the call would wait."""
    for count in itertools.count():
        try:
            take(fd)
        except BlockingIOError:
            return count
    raise AssertionError


@pytest.mark.parametrize("family", ["msgq/sysv", "msgq/posix", "sem/sysv", "sem/posix"])
def test_who_polls_for_edges_is_told_of_each_that_follows_a_call_that_would_wait(
    mount: Mount, native: NativeDoor, queue: int, new_set: Callable[..., int], family: str
) -> None:
    semid, name = new_set([0]), f"synosfs-edges-{os.getpid()}"
    with ExitStack() as stack:
        posix_queue = posix_ipc.MessageQueue(f"/{name}", posix_ipc.O_CREX)
        semaphore = posix_ipc.Semaphore(f"/{name}", posix_ipc.O_CREX)
        for each in (posix_queue, semaphore):
            stack.callback(each.close)
            stack.callback(each.unlink)
        path, give, take = {
            "msgq/sysv": (queue, lambda: native.ok("msgsnd", queue, 1, b"x"), lambda fd: os.read(fd, 100)),
            "msgq/posix": (name, lambda: posix_queue.send(b"x"), lambda fd: os.read(fd, 100)),
            "sem/sysv": (
                semid,
                lambda: native.ok("semop", semid, (0, 1, 0)),
                lambda fd: os.write(fd, b"0:-1:0"),
            ),
            "sem/posix": (name, semaphore.release, lambda fd: os.write(fd, b"-1")),
        }[family]
        fd = os.open(mount.path / family / str(path), os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, fd)
        epoll = stack.enter_context(select.epoll())
        epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        assert epoll.poll(0) == []
        for _ in range(3):
            give()
            assert epoll.poll(30) == [(fd, select.EPOLLIN)]
            assert drain(fd, take) == 1
            assert epoll.poll(0) == []


def test_room_that_comes_after_a_write_would_wait_is_an_edge(mount: Mount, native: NativeDoor, queue: int) -> None:
    fd = os.open(mount.path / f"msgq/sysv/{queue}", os.O_RDWR | os.O_NONBLOCK)
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLOUT | select.EPOLLET)
        for count in (2, 1, 1):
            assert epoll.poll(30) == [(fd, select.EPOLLOUT)]
            assert drain(fd, lambda fd: os.write(fd, b"x" * 8192)) == count
            assert epoll.poll(0) == []
            native.ok("msgrcv", queue, 8192)
        assert epoll.poll(30) == [(fd, select.EPOLLOUT)]
    os.close(fd)


def test_a_poller_that_is_killed_leaves_no_watcher_in_the_queue(
    native: NativeDoor, new_set: Callable[..., int], mount: Mount, children: Callable[..., Child]
) -> None:
    semid = new_set([0])

    def wait() -> bool:
        return by_poll(os.open(mount.path / f"sem/sysv/{semid}", os.O_RDWR))

    waiting = asleep(children(wait))
    while native.ok("semctl", semid, 0, "GETNCNT").ret != 1:
        assert not waiting.ended()
    waiting.kill()
    while native.ok("semctl", semid, 0, "GETNCNT").ret:
        pass


# --- whose it is


def watched(mount: Mount) -> tuple[int, int]:
    """How many things are watched, and for how many."""
    stats = mount.stats()
    return int(stats["watched"]), int(stats["watchers"])


def fill(native: NativeDoor, queue: int) -> None:
    for _ in range(2):
        native.ok("msgsnd", queue, 1, b"x" * 8192)


def polls_in_a_while(mount: Mount) -> int:
    before = int(mount.stats()["polls"])
    select.select([], [], [], 0.2)
    return int(mount.stats()["polls"]) - before


def test_an_ordinary_user_polls_the_files_of_a_queue_that_it_may_read(
    mount: Mount, native: NativeDoor, queue: int, children: Callable[..., Child]
) -> None:
    def wait() -> tuple[int, bool]:
        fd = os.open(mount.path / f"msgq/sysv/{queue}", os.O_RDWR)
        return ready(fd), by_poll(fd)

    native.ok("msgctl", queue, "IPC_SET", mode=0o666)
    waiting = children(wait, uid=NOBODY)
    wait_until(lambda: watched(mount) == (1, 1), "it waits")
    native.ok("msgsnd", queue, 1, b"x")
    assert waiting.result() == (select.POLLOUT, True)


def test_who_may_only_send_polls_for_room_and_hears_nothing_of_messages(
    mount: Mount, native: NativeDoor, queue: int, children: Callable[..., Child]
) -> None:
    def wait() -> tuple[int, int, bool]:
        fd = os.open(mount.path / f"msgq/sysv/{queue}", os.O_WRONLY)
        first = ready(fd)
        fill(native, queue)
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return first, ready(fd), bool(poll.poll(30_000))

    native.ok("msgctl", queue, "IPC_SET", mode=0o622)
    waiting = children(wait, uid=NOBODY)
    wait_until(lambda: watched(mount) == (1, 1), "it waits")
    # It waits for room, and is not told again and again that nothing has come.
    wait_until(lambda: polls_in_a_while(mount) == 0, "it is left alone")
    native.ok("msgrcv", queue, 8192)
    assert waiting.result() == (select.POLLOUT, 0, True)


# --- what a look cannot see


def test_a_message_behind_many_others_is_input_to_who_looks_and_to_who_waits(
    native: NativeDoor, queue: int, opened: Opened, children: Callable[..., Child]
) -> None:
    fd = opened(f"msgq/sysv/{queue}@7")
    for _ in range(5000):
        native.ok("msgsnd", queue, 8, b"x")
    assert ready(fd) == select.POLLOUT
    waiting = asleep(children(lambda: by_poll(fd)))
    native.ok("msgsnd", queue, 7, b"deep")
    assert waiting.result()
    assert children(lambda: by_poll(fd)).result()
    for _ in range(1000):
        native.ok("msgrcv", queue, 10, 8)
    assert ready(fd) == select.POLLIN | select.POLLOUT
    assert os.read(fd, 10) == b"deep"
    assert ready(fd) == select.POLLOUT


def test_a_look_takes_nothing_from_a_queue_be_it_empty(native: NativeDoor, queue: int, opened: Opened) -> None:
    fd = opened(f"msgq/sysv/{queue}@7")
    for mtype, data in [(8, b"x")] * 40 + [(7, b""), (7, b"second")]:
        native.ok("msgsnd", queue, mtype, data)
    assert ready(fd) == select.POLLIN | select.POLLOUT
    status = native.ok("msgctl", queue, "IPC_STAT").results
    assert (status["qnum"], status["rtime"], status["lrpid"]) == (42, 0, 0)
    assert [native.ok("msgrcv", queue, 10, 7).data for _ in range(2)] == [b"", b"second"]


def test_who_may_no_longer_take_waits_quietly(
    mount: Mount, native: NativeDoor, new_set: Callable[..., int], children: Callable[..., Child]
) -> None:
    semid = new_set([0], mode=0o606)

    def wait() -> bool:
        fd = os.open(mount.path / f"sem/sysv/{semid}", os.O_RDWR)
        os.write(opened, b".")
        os.read(changed, 1)
        return by_poll(fd)

    open_, opened = os.pipe()
    changed, change = os.pipe()
    waiting = children(wait, uid=NOBODY)
    os.read(open_, 1)
    native.ok("semctl", semid, 0, "IPC_SET", mode=0o604)
    polls = int(mount.stats()["polls"])
    os.write(change, b".")
    asleep(waiting)
    # The watch, which needs the right to take, is told of at once; the file then hears of nothing, and is not asked.
    wait_until(lambda: int(mount.stats()["polls"]) > polls, "the kernel has asked")
    wait_until(lambda: polls_in_a_while(mount) == 0, "it is left alone")
    waiting.kill()
    for fd in (open_, opened, changed, change):
        os.close(fd)
