"""``trace`` through the mount: the latest calls, live streams with filters, who sees what, and that nobody waits for a
reader.
"""

import os
import re
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ctypes import create_string_buffer, get_errno

import native
import pytest
from children import Child, wait_until
from doors import NOBODY, MountDoor, write
from mounts import Mount
from native_msg import msgget

from synosfs.fs.trace import BUFFER
from synosfs.syscall_gate.trace import LATEST

Opened = Callable[..., int]


@pytest.fixture
def stream(mount: Mount) -> Iterator[Opened]:
    """Opens a live stream, with a filter."""
    with ExitStack() as stack:

        def open_(words: str = "", flags: int = 0) -> int:
            fd = os.open(mount.path / "trace", os.O_RDWR | flags)
            stack.callback(os.close, fd)
            if words:
                os.write(fd, words.encode())
            return fd

        yield open_


def lines(fd: int, count: int) -> list[str]:
    """So many lines of a stream, each without its time."""
    text = b""
    while text.count(b"\n") < count:
        text += os.read(fd, 1 << 16)
    return [line[16:] for line in text.decode().splitlines()]


def test_what_was_called_last_is_shown_with_process_result_and_duration(gate: MountDoor, mount: Mount) -> None:
    queue = gate.ok("msgget", 0, 0o600).ret
    gate.ok("msgsnd", queue, 1, b"hello,\nkernel")
    gate.ok("msgrcv", queue, 8192)
    gate.call("msgrcv", queue, 8192, 5, "IPC_NOWAIT")
    gate.ok("msgctl", queue, "IPC_RMID")
    shown = [line for line in (mount.path / "trace").read_text().splitlines() if f" {os.getpid()} " in line]
    patterns = [
        rf'msgsnd\({queue}, 1, "hello,\\nkernel", 0\) = 0',
        rf'msgrcv\({queue}, 8192, 0, 0\) = 13 mtype=1 "hello,\\nkernel"',
        rf"msgrcv\({queue}, 8192, 5, IPC_NOWAIT\) = -1 ENOMSG \(.*\)",
        rf"msgctl\({queue}, IPC_RMID\) = 0",
        rf"--- removed msgq/sysv/{queue} .*: IPC_RMID ---",
    ]
    assert len(shown) >= len(patterns)
    for pattern, line in zip(patterns, sorted(shown[-5:], key=lambda line: "---" in line), strict=True):
        assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d{{6}} \d+ {pattern}( <\d\.\d{{6}}>)?", line), line


def test_a_stream_shows_what_ends_from_then_on_as_its_filter_has_it(gate: MountDoor, stream: Opened) -> None:
    mine, others = f"pid={os.getpid()}", "pid=1"
    fds = [
        stream(f"{mine} call=getpid,getppid"),
        stream(f"{mine} errno=EBADF"),
        stream(f"{mine} errno=any"),
        stream(f"uid={os.getuid()} {mine} call=close"),
    ]
    quiet = stream(others, os.O_NONBLOCK)
    gate.ok("getpid")
    gate.call("close", 99)
    gate.call("getppid")
    assert [line.split(" <")[0] for line in lines(fds[0], 2)] == [
        f"{os.getpid()} getpid() = {os.getpid()}",
        f"{os.getpid()} getppid() = {os.getppid()}",
    ]
    for fd in fds[1:]:
        assert f"{os.getpid()} close(99) = -1 EBADF (" in lines(fd, 1)[0]
    with pytest.raises(BlockingIOError):
        os.read(quiet, 100)


def test_an_object_is_filtered_by_whatever_names_it(gate: MountDoor, stream: Opened) -> None:
    queue = gate.ok("msgget", 0x7A11, 0o1600).ret
    by_key, by_id = stream("object=msgq/0x7a11"), stream(f"object=msgq/{queue}")
    other = gate.ok("msgget", 0, 0o600).ret
    gate.ok("msgsnd", other, 1, b"x")
    gate.ok("msgsnd", queue, 1, b"x")
    gate.ok("msgctl", other, "IPC_RMID")
    gate.ok("msgctl", queue, "IPC_RMID")
    for fd in (by_key, by_id):
        found = lines(fd, 3)
        assert sorted(line.split()[1].split("(")[0] for line in found) == ["---", "msgctl", "msgsnd"]
        assert all(f"({queue}," in line or f"msgq/sysv/{queue} " in line for line in found)


def test_a_posix_queue_is_filtered_by_its_name_and_descriptor(gate: MountDoor, stream: Opened) -> None:
    fd = stream("object=msgq/posix/traced")
    mqd = gate.ok("mq_open", "/traced", "O_CREAT|O_RDWR", 0o600).ret
    gate.ok("mq_send", mqd, b"x")
    gate.ok("close", mqd)
    gate.ok("mq_unlink", "/traced")
    found = [line.split(" ", 1)[1].split("(")[0] for line in lines(fd, 5)]
    removed = f"--- removed msgq/posix/traced owner={os.getuid()} uid={os.getuid()} program=python: mq_unlink ---"
    assert sorted(found) == [removed, "close", "mq_open", "mq_send", "mq_unlink"]


def test_a_wait_shows_how_it_ended(gate: MountDoor, stream: Opened, children: Callable[..., Child]) -> None:
    queue = gate.ok("msgget", 0, 0o600).ret
    fd = stream("call=msgrcv slower=0.001")
    gate.call("msgrcv", queue, 10, timeout=0.01)
    assert re.search(r"= -1 ETIMEDOUT \(.*\) <0\.\d{6}> timed out$", lines(fd, 1)[0])
    for end, pattern in (
        (lambda child: child.interrupt(), r"= -1 EINTR \(.*\) <\d+\.\d{6}> interrupted$"),
        (lambda child: gate.ok("msgctl", queue, "IPC_RMID"), r"= -1 EIDRM \(.*\) <\d+\.\d{6}> waited$"),
    ):
        child = gate.block("msgrcv", queue, 10)
        wait_until(lambda child=child: child.state == "S", "it sleeps")
        end(child)
        assert re.search(pattern, lines(fd, 1)[0])


def test_an_unknown_word_is_einval_and_says_what_words_there_are(mount: Mount, stream: Opened) -> None:
    fd = stream()
    for words in ("nonsense=1", "pid", "pid=x", "errno=EFOO", "call=msgsend", "slower=-1"):
        with pytest.raises(OSError, match="Invalid argument"):
            os.write(fd, words.encode())
        told = (mount.path / "syscall").read_text()
        assert "pid= uid= call= errno= object= slower=SECONDS" in told, told
    with pytest.raises(FileNotFoundError):
        os.write(fd, b"object=msgq/0x7fffffff")


def test_who_reads_more_than_a_line_and_goes_back_gets_the_rest_again(gate: MountDoor, stream: Opened) -> None:
    fd = stream(f"pid={os.getpid()} call=getpid,getppid")
    gate.ok("getpid")
    gate.call("getppid")
    while (text := os.read(fd, 1 << 16)).count(b"\n") < 2:
        os.lseek(fd, -len(text), os.SEEK_CUR)
    rest = text.partition(b"\n")[2]
    os.lseek(fd, -len(rest), os.SEEK_CUR)
    assert os.read(fd, 1 << 16) == rest


def test_for_writing_only_it_is_not_opened(mount: Mount) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        os.open(mount.path / "trace", os.O_WRONLY)


# --- waiting readers


def test_poll_select_and_epoll_wake_for_a_line(gate: MountDoor, mount: Mount, children: Callable[..., Child]) -> None:
    def wait(how: str) -> str:
        fd = os.open(mount.path / "trace", os.O_RDWR | os.O_NONBLOCK)
        os.write(fd, b"call=getppid")
        os.write(ready, b"x")
        if how == "poll":
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            assert poll.poll(30_000)
        elif how == "select":
            assert select.select([fd], [], [], 30)[0]
        else:
            with select.epoll() as epoll:
                epoll.register(fd, select.EPOLLIN | (select.EPOLLET if how == "edges" else 0))
                assert epoll.poll(30)
        return os.read(fd, 1000).decode()

    for how in ("poll", "select", "epoll", "edges"):
        told, ready = os.pipe()
        child = children(lambda how=how: wait(how))
        os.close(ready)
        os.read(told, 1)
        os.close(told)
        gate.call("getppid")
        assert "getppid() = " in child.result()


def blocked_reader(mount: Mount, children: Callable[..., Child]) -> Child:
    def read() -> str:
        fd = os.open(mount.path / "trace", os.O_RDWR)
        os.write(fd, b"pid=1")
        return native_read(fd)

    child = children(read)
    wait_until(lambda: mount.blocked(child.pid) == ["trace"], "it waits for a line")
    wait_until(lambda: child.state == "S", "it sleeps")
    return child


def test_a_signal_frees_a_reader_of_a_stream_that_its_parent_opened(
    mount: Mount, children: Callable[..., Child], stream: Opened
) -> None:
    fd = stream("pid=1")
    child = children(lambda: native_read(fd))
    wait_until(lambda: mount.blocked(os.getpid()) == ["trace"], "it waits for a line")
    wait_until(lambda: child.state == "S", "it sleeps")
    child.interrupt()
    assert child.result() == "EINTR"


def native_read(fd: int) -> str:
    """read(2), once; the name of its errno."""
    return "" if native.libc.read(fd, create_string_buffer(10), 10) >= 0 else native.errno_name(get_errno())


def test_a_signal_frees_a_reader(mount: Mount, children: Callable[..., Child]) -> None:
    child = blocked_reader(mount, children)
    child.interrupt()
    assert child.result() == "EINTR"


def test_a_killed_reader_is_gone(mount: Mount, children: Callable[..., Child]) -> None:
    child = blocked_reader(mount, children)
    child.kill()
    assert child.status == -signal.SIGKILL
    wait_until(lambda: mount.blocked_callers() == 0, "nobody is blocked")


def test_who_may_act_for_it_ends_a_readers_wait(mount: Mount, children: Callable[..., Child]) -> None:
    child = blocked_reader(mount, children)
    (mount.path / f"proc/{child.pid}/ctl").write_text("end all EIO\n")
    assert child.result() == "EIO"


def test_the_end_of_the_mount_frees_a_reader(own_mount: Mount, children: Callable[..., Child]) -> None:
    child = blocked_reader(own_mount, children)
    own_mount.stop()
    assert child.result() == "ECANCELED"


# --- readers that are slow


def test_one_that_never_reads_holds_nobody_up_and_is_told_how_many_it_has_missed(
    gate: MountDoor, mount: Mount, stream: Opened
) -> None:
    never, quick = stream(f"pid={os.getpid()} call=getpid"), stream(f"pid={os.getpid()} call=getppid")
    batch = b"[" + b",".join([b'{"call":"getpid"}'] * 1000) + b"]\n"
    session = os.open(mount.gate, os.O_RDWR)
    rounds = (BUFFER // 30 + 2 * LATEST) // 1000 + 1
    for _ in range(rounds):
        assert write(session, batch) == ""
        while os.read(session, 1 << 20):
            pass
    os.close(session)
    gate.call("getppid")
    lines(quick, 1)
    seen = dropped = 0
    while seen + dropped < 1000 * rounds:
        for line in os.read(never, 1 << 20).decode().splitlines():
            if found := re.fullmatch(r"# (\d+) calls have ended that are not shown: .*", line):
                dropped += int(found[1])
            else:
                seen += "getpid() = " in line
    assert dropped
    assert seen >= BUFFER // 100


def test_the_buffer_is_charged_to_the_reader(mount: Mount, stream: Opened) -> None:
    def memory() -> int:
        lines = (mount.path / "stats").read_text().splitlines()
        begins = next(place for place, line in enumerate(lines) if line.startswith("uid"))
        header, *rows = (line.split() for line in lines[begins:])
        row = next((row for row in rows if row[:1] == [str(os.getuid())]), None)
        return int(row[header.index("memory")].split("/")[0]) if row else 0

    before = memory()
    stream()
    assert memory() - before == BUFFER


# --- who sees what


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
def test_others_see_the_calls_of_their_own_user_alone(
    gate: MountDoor, mount: Mount, children: Callable[..., Child]
) -> None:
    gate.ok("getpid")

    def look() -> str:
        fd = os.open(mount.gate, os.O_RDWR)
        write(fd, b"getppid\n")
        return (mount.path / "trace").read_text()

    shown = children(look, uid=NOBODY).result()
    assert "getppid() = " in shown
    assert all(line.split()[1] != str(os.getpid()) for line in shown.splitlines())
    other = children((mount.path / "trace").read_text, uid=NOBODY + 1).result()
    assert "getppid()" not in other
    assert "getppid() = " in (mount.path / "trace").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
def test_of_a_process_that_its_user_may_not_look_into_no_data_is_shown(
    gate: MountDoor, mount: Mount, children: Callable[..., Child]
) -> None:
    def secretive() -> None:
        native.libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: as ssh-agent does
        fd = os.open(mount.gate, os.O_RDWR)
        write(fd, b"ftok /secret 1\n")
        os.write(ready, b"x")
        signal.pause()

    told, ready = os.pipe()
    child = children(secretive, uid=NOBODY)
    os.read(told, 1)
    shown = children((mount.path / "trace").read_text, uid=NOBODY).result()
    [line] = [line for line in shown.splitlines() if f" {child.pid} " in line]
    assert "ftok(...) = -1 " in line
    assert "secret" not in shown
    assert 'ftok("/secret", 1)' in (mount.path / "trace").read_text()
    os.close(told)
    os.close(ready)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
def test_a_stream_of_another_users_shows_no_removal_of_roots(
    gate: MountDoor, mount: Mount, children: Callable[..., Child]
) -> None:
    def look() -> str:
        fd = os.open(mount.path / "trace", os.O_RDWR)
        os.write(ready, b"x")
        session = os.open(mount.gate, os.O_RDWR)
        os.read(go, 1)
        write(session, b"getppid\n")
        return os.read(fd, 1 << 16).decode()

    told, ready = os.pipe()
    go, gone = os.pipe()
    child = children(look, uid=NOBODY)
    os.read(told, 1)
    queue = msgget(0, 0o600)
    gate.ok("msgctl", queue, "IPC_RMID")
    os.write(gone, b"x")
    shown = child.result()
    assert "getppid()" in shown
    assert "removed" not in shown
    assert "msgctl" not in shown
    for fd in (told, ready, go, gone):
        os.close(fd)
