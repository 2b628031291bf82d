"""What one user can do to hold others up, as data: ``ATTACKS`` is the list that `attacks` goes through.

An attack's ``prepare`` runs once in each of its processes, as the attacking user, and returns one turn of the attack,
which is taken again and again. What it makes is in the namespaces of the benchmark, and is removed after it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import sysv_ipc

Turn = Callable[[], object]

MIB = 1 << 20
_SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Attack:
    name: str
    prepare: Callable[[Path], Turn]
    processes: int = 1


# --- parts of attacks ---


def write(path: Path, data: bytes, *, flags: int = os.O_WRONLY) -> None:
    """Write it all, and read the replies of a session; errors are what an attack gets for its pains."""
    with suppress(OSError):
        fd = os.open(path, flags)
        try:
            done = 0
            while done < len(data):
                done += os.write(fd, data[done:])
            while flags & os.O_RDWR and os.read(fd, MIB):
                pass
        finally:
            os.close(fd)


def fill(piece: bytes, size: int = MIB) -> bytes:
    return piece * (size // len(piece))


def writes(file: str, data: bytes, *, flags: int = os.O_WRONLY) -> Callable[[Path], Turn]:
    return lambda mount: partial(write, mount / file, data, flags=flags)


def asks(data: bytes) -> Callable[[Path], Turn]:
    return writes("syscall", data, flags=os.O_RDWR)


def reads(file: str) -> Turn:
    return lambda: Path(file).read_bytes()


def repeated(head: bytes, item: bytes, count: int, tail: bytes) -> bytes:
    """``item`` so many times, with commas between."""
    return head + b",".join([item] * count) + tail


def many_queues(count: int) -> None:
    for _ in range(count):
        sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX, mode=0o600)


def full_queue() -> int:
    queue = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX, mode=0o600, max_message_size=8192)
    for _ in range(2):
        queue.send(b"x" * 8192, False)
    return int(queue.id)


def threads(count: int, run: Callable[[int], object]) -> None:
    threading.stack_size(128 << 10)
    started = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


# --- names in /dev/shm ---


def fifo(mount: Path) -> Turn:
    with suppress(FileExistsError):
        os.mkfifo(_SHM / "bench-fifo", 0o666)
    return lambda: write(mount / "syscall", b"shm_open /bench-fifo O_RDONLY timeout=0.05\n")


def forged(mount: Path) -> Turn:
    """A sem_t whose bytes ask glibc for a futex operation that waits, or for one that there is not."""
    posts = b"sem_post /bench-forged\nsem_wait /bench-forged timeout=0.01\n"

    def turn() -> None:
        for private in (0, 1, 128, 0x80, 0x7F, 0xFFFFFFFF):
            (_SHM / "sem.bench-forged").write_bytes(struct.pack("<IIII16x", 0, 1, private, 1))
            write(mount / "sem/posix/bench-forged", b"+1\n")
            write(mount / "syscall", b"sem_open /bench-forged O_RDWR\n" + posts)

    return turn


def shrinking(mount: Path) -> Turn:
    path = _SHM / "sem.bench-shrinking"
    path.write_bytes(bytes(32))
    fd = os.open(path, os.O_RDWR)

    def shrink() -> None:
        while True:
            os.ftruncate(fd, 0)
            os.ftruncate(fd, 32)

    threading.Thread(target=shrink, daemon=True).start()
    return lambda: write(mount / "sem/posix/bench-shrinking", b"+1\n" * 1000)


def leased(mount: Path) -> Turn:
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    path = _SHM / "bench-leased"
    path.touch(0o666)
    held = os.open(path, os.O_RDWR)

    def turn() -> None:
        with suppress(OSError):
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        write(mount / "syscall", b"shm_open /bench-leased O_RDWR timeout=0.05\n")

    return turn


def posix_lines(mount: Path) -> Turn:
    write(mount / "syscall", b"sem_open /bench-posix O_CREAT 0600 0\n")
    return lambda: write(mount / "sem/posix/bench-posix", b"+1000\n-1000\n" * 1500)


# --- System V ---


def set_lines(mount: Path) -> Turn:
    made = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX, mode=0o600)
    return lambda: write(mount / f"sem/sysv/{made.id}", fill(b"0:0:0\n"))


def empty_messages(mount: Path) -> Turn:
    queue = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX, mode=0o600)
    for _ in range(16_384):
        queue.send(b"", False)
    return reads(f"{mount}/msgq/sysv/{queue.id}")


def cat(file: str, queues: int = 0) -> Callable[[Path], Turn]:
    def prepare(mount: Path) -> Turn:
        many_queues(queues)
        return reads(f"{mount}/{file}")

    return prepare


def lists(directory: str, queues: int) -> Callable[[Path], Turn]:
    """``ls -l``."""

    def prepare(mount: Path) -> Turn:
        many_queues(queues)

        def turn() -> None:
            with os.scandir(mount / directory) as entries:
                for entry in entries:
                    with suppress(OSError):
                        entry.stat()

        return turn

    return prepare


def sets_and_segments(file: str) -> Callable[[Path], Turn]:
    def prepare(mount: Path) -> Turn:
        for _ in range(8000):
            sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX, mode=0o600)
        libc = ctypes.CDLL(None)
        for _ in range(4000):
            libc.shmget(0, 1, 0o600)
        return reads(f"{mount}/{file}")

    return prepare


_VALUES = 32_000


def all_values(form: str) -> Callable[[Path], Turn]:
    """SETALL and GETALL of the largest set."""

    def prepare(mount: Path) -> Turn:
        semid = ctypes.CDLL(None).semget(0, _VALUES, 0o600)
        values = [12_345] * _VALUES
        setall, getall = {"call": "semctl", "args": [semid, 0, "SETALL", values]}, ["semctl", semid, 0, "GETALL"]
        data = {
            "JSON": json.dumps(setall).encode() + b"\n" + json.dumps({"call": getall[0], "args": getall[1:]}).encode(),
            "MessagePack": msgspec.msgpack.encode(setall),
            "text": b"semctl %d 0 SETALL %b\nsemctl %d 0 GETALL" % (semid, b",".join([b"12345"] * _VALUES), semid),
            "ctl": b"setall %d %b" % (semid, b",".join([b"12345"] * _VALUES)),
        }[form]
        return partial(write, mount / ("sem/ctl" if form == "ctl" else "syscall"), data + b"\n", flags=os.O_RDWR)

    return prepare


def look_at_values(mount: Path) -> Turn:
    semid = ctypes.CDLL(None).semget(0, _VALUES, 0o600)
    return reads(f"{mount}/sem/sysv/{semid}")


# --- polling ---


def poll_handles(mount: Path) -> Turn:
    queue = full_queue()

    def turn() -> None:
        poll = select.poll()
        files = []
        with suppress(OSError):
            for _ in range(5000):
                files.append(os.open(mount / f"msgq/sysv/{queue}", os.O_RDWR))
                poll.register(files[-1], select.POLLOUT)
        poll.poll(1500)
        for file in files:
            os.close(file)

    return turn


def polled(count: int, *, different: bool = False, form: str = "JSON", timeout: float = 0.01) -> Callable[[Path], Turn]:
    def prepare(mount: Path) -> Turn:
        queue = full_queue()
        names = [f"msgq/{queue}" + f"@{7 + number}" * different for number in range(count)]
        request = {"call": "poll", "args": [[[name, "POLLIN" if different else "POLLOUT"] for name in names]]}
        request["timeout"] = timeout
        data = {
            "JSON": json.dumps(request).encode() + b"\n",
            "MessagePack": msgspec.msgpack.encode(request),
            "text": f"poll {' '.join(f'{name}:POLLOUT' for name in names)} timeout={timeout}\n".encode(),
        }[form]
        return partial(write, mount / "syscall", data, flags=os.O_RDWR)

    return prepare


# --- opening, and much at once ---


def opening(mount: Path) -> Turn:
    def run(_: int) -> None:
        with suppress(OSError):
            os.close(os.open(mount / "syscall", os.O_RDWR))

    return lambda: threads(1600, run)


def crowd(count: int, data: bytes) -> Callable[[Path], Turn]:
    """The same from so many threads at once."""
    return lambda mount: lambda: threads(count, lambda _: write(mount / "syscall", data))


def unread(mount: Path) -> Turn:
    """Replies that nobody reads, up to the limit, in small pieces."""

    def turn() -> None:
        fd = os.open(mount / "syscall", os.O_RDWR)
        with suppress(OSError):
            while True:
                os.write(
                    fd,
                    b'xyzzy "' + b"x" * 4000 + b'"\n' + fill(b'{"call":"getpid","id":"' + b"i" * 900 + b'"}\n', 60_000),
                )
        os.close(fd)

    return turn


def dribbled(head: bytes, piece: bytes, size: int) -> Callable[[Path], Turn]:
    """A record in pieces, each of which could be its last."""

    def prepare(mount: Path) -> Turn:
        def turn() -> None:
            fd = os.open(mount / "syscall", os.O_WRONLY)
            with suppress(OSError):
                os.write(fd, head)
                for _ in range(size // len(piece)):
                    os.write(fd, piece)
            os.close(fd)

        return turn

    return prepare


def forks(mount: Path) -> Turn:
    """Children that each take part and end."""

    def turn() -> None:
        for _ in range(100):
            if os.fork() == 0:
                write(mount / "syscall", b"getpid\n")
                os._exit(0)
        with suppress(ChildProcessError):
            while True:
                os.wait()

    return turn


def descriptors(file: str) -> Callable[[Path], Turn]:
    """The files that show a process's descriptors, of which it has as many as it may."""

    def prepare(mount: Path) -> Turn:
        session = os.open(mount / "syscall", os.O_RDWR)
        for _ in range(500):
            with suppress(OSError):
                os.write(session, b"pipe\n")
        return reads(f"{mount}/{file}".replace("PID", str(os.getpid())))

    return prepare


def blocked(mount: Path) -> Turn:
    """A thousand callers who wait, and are freed at once."""

    def turn() -> None:
        queue = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX, mode=0o600)
        remover = threading.Timer(1.5, queue.remove)
        remover.start()
        threads(1000, lambda _: write(mount / "syscall", b"msgrcv %d 10\n" % queue.id))
        remover.join()

    return turn


def attributes(mount: Path) -> Turn:
    many_queues(1000)
    path = mount / "msgq/sysv"
    names = os.listdir(path)

    def turn() -> None:
        for name in names:
            for attribute in os.listxattr(path / name):
                os.getxattr(path / name, attribute)

    return turn


def large_data(form: str) -> Callable[[Path], Turn]:
    """A mebibyte through a pipe's descriptor that does not take it, in the widest form that the notation has."""
    binary = os.urandom(MIB)
    accents = "\xe9" * (MIB // 2)
    data = {
        "text, escapes": b'write 9 "' + b"\\xe9" * MIB + b'"\n',
        "text, backslashes": b'write 9 "' + b"\\\\" * MIB + b'"\n',
        "text, bad escape": b'write 9 "' + b"\\xe9" * (MIB - 1) + b'\\q"\n',
        "JSON, accents": json.dumps({"call": "write", "args": [9, accents]}, ensure_ascii=False).encode() + b"\n",
        "JSON, escapes": json.dumps({"call": "write", "args": [9, accents]}).encode() + b"\n",
        "JSON, base64": msgspec.json.encode({"call": "write", "args": [9], "data64": binary}) + b"\n",
        "JSON, newlines": b'{"call":"write","args":[9,"' + b"\\n" * MIB + b'"]}\n',
        "MessagePack, accents": msgspec.msgpack.encode({"call": "write", "args": [9, accents]}),
        "MessagePack, binary": msgspec.msgpack.encode({"call": "write", "args": [9, binary]}),
    }[form]
    return asks(data)


# --- the list ---


def copies(count: int, size: int) -> Callable[[Path], Turn]:
    """A batch of copies from one piece of memory to another, made in runs."""

    def prepare(mount: Path) -> Turn:
        made = b'[{"call":"memfd_create","args":["from"]},{"call":"memfd_create","args":["to"]}'
        write(mount / "syscall", made + b',{"call":"ftruncate","args":[3,%d]}]\n' % size, flags=os.O_RDWR)
        copy = b'{"call":"copy_file_range","args":[3,0,4,0,%d,0]}' % size
        return asks(repeated(b"[", copy, count, b"]\n"))(mount)

    return prepare


def _spin(_: Path) -> Turn:
    return lambda: sum(range(10_000))


_GETPPID = b'{"call":"getppid"}'
_OPERATIONS = repeated(b'{"call":"semop","args":[1,[', b"[0,1]", 680_000, b"]]}\n")
_FOUR_MIB = 4 * MIB

ATTACKS = (
    Attack("nothing", lambda _: partial(time.sleep, 0.1)),
    Attack("a native loop beside the mount", _spin),
    # What issue 7 names.
    Attack("shm_open of a FIFO", fifo, processes=4),
    Attack("a forged sem_t", forged),
    Attack("a semaphore that shrinks", shrinking),
    Attack("a lease that is not given up", leased),
    Attack("+1000 to a POSIX semaphore, 18 KB", posix_lines),
    Attack("1 MiB of lines to a set", set_lines),
    Attack("1 MiB of text lines", asks(fill(b"getppid\n"))),
    Attack("1 MiB of JSON lines", asks(fill(_GETPPID + b"\n"))),
    Attack("1 MiB JSON batch", asks(repeated(b"[", _GETPPID, 55_000, b"]\n"))),
    Attack("1 MiB of MessagePack objects", asks(fill(b"\x81\xa4call\xa7getppid"))),
    Attack("a MessagePack batch of 65,535", asks(b"\xdc\xff\xff" + b"\x81\xa4call\xa7getppid" * 65_535)),
    Attack("look at 16,384 empty messages", empty_messages),
    Attack("a batch of 60,000 copies of a byte", copies(60_000, 1)),
    Attack("a batch of 100 copies of 16 MiB", copies(100, 16 * MIB)),
    Attack("semop, 680,000 in one list, JSON", asks(_OPERATIONS)),
    Attack(
        "semop, 1,300,000, MessagePack",
        asks(msgspec.msgpack.encode({"call": "semop", "args": [1, [[0, 1]] * 1_300_000]})),
    ),
    Attack("semop, 500,000 words, text", asks(b"semop 1 " + b"0:1 " * 500_000 + b"\n")),
    Attack("semop, 4 MiB in C's form", asks(repeated(b"semop(1, [", b"{0,1,0}", 500_000, b"], 1)\n"))),
    Attack("cat msgq/ctl, 10,000 queues", cat("msgq/ctl", 10_000)),
    Attack("cat msgq/ctl, 30,000 queues", cat("msgq/ctl", 30_000)),
    Attack("5,000 poll handles, a full queue", poll_handles),
    Attack("poll, one queue 7,000 times", polled(7000)),
    Attack("poll, one queue 10,000 times", polled(10_000)),
    Attack("1,600 threads open the gate", opening),
    # Their relatives.
    Attack("poll, one queue 19,000 times, MsgPack", polled(19_000, form="MessagePack")),
    Attack("poll, one queue 16,000 times, text", polled(16_000, form="text")),
    Attack("poll, 1,000 different things", polled(1000, different=True)),
    Attack("poll, 1,000 different, 1 s", polled(1000, different=True, timeout=1)),
    Attack("JSON, 4 MiB of brackets", asks(b'{"call":"x","args":' + b"[" * _FOUR_MIB + b"\n")),
    Attack("JSON, 59,000 strings", asks(repeated(b'{"call":"x","args":[', b'"aaaa"', 59_000, b"]}\n"))),
    Attack("JSON, 59,000 lists", asks(repeated(b'{"call":"x","args":[', b"[]", 59_000, b"]}\n"))),
    Attack("JSON, 29,000 objects", asks(repeated(b'{"call":"x","args":[', b'{"a":1}', 29_000, b"]}\n"))),
    Attack(
        "JSON, 29,000 fields",
        asks(b'{"call":"x","kwargs":{' + b",".join(b'"a%d":1' % n for n in range(29_000)) + b"}}\n"),
    ),
    Attack("JSON, 4 MiB of digits", asks(b'{"call":"x","args":[' + b"4" * _FOUR_MIB + b"]}\n")),
    Attack("JSON, 4 MiB of blanks", asks(b'{"call":"x","args":[' + b" " * _FOUR_MIB + b"]}\n")),
    Attack("JSON, a name of 4 MiB", asks(b'{"' + b"x" * _FOUR_MIB + b'":1}\n')),
    Attack("JSON, a call of 4 MiB", asks(b'{"call":"' + b"x" * _FOUR_MIB + b'"}\n')),
    Attack(
        "JSON batch, 4 MiB",
        asks(repeated(b"[", b'{"call":"getppid","args":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}', 65_000, b"]\n")),
    ),
    Attack(
        "JSON in pieces that end in }",
        dribbled(b'{"call":"x","args":[', b'{"a":[1,2,3,4,5,6,7,8,9,10],"b":"c"},{}', 2 * MIB),
    ),
    Attack("MessagePack, 59,000 lists", asks(msgspec.msgpack.encode({"call": "x", "args": [[]] * 59_000}))),
    Attack("MessagePack, a string of 4 MB", asks(msgspec.msgpack.encode({"call": "\xe9" * 2_000_000}))),
    Attack("MessagePack batch, 4 MB", asks(msgspec.msgpack.encode([{"call": "getppid", "args": [0] * 40}] * 65_000))),
    *(
        Attack(f"1 MiB of data: {form}", large_data(form))
        for form in (
            *("text, escapes", "text, backslashes", "text, bad escape", "JSON, accents", "JSON, escapes"),
            *("JSON, base64", "JSON, newlines", "MessagePack, accents", "MessagePack, binary"),
        )
    ),
    Attack("text, 300,000 names", asks(b"x " + b"".join(b'a%d="b" ' % n for n in range(300_000)) + b"\n")),
    Attack("text, 16,000 strings", asks(b"x " + b'"\\n\\t" ' * 16_000 + b"\n")),
    Attack("text, 4 MiB of blanks in C's form", asks(b"x(1" + b" " * _FOUR_MIB + b")\n")),
    Attack("text, 4 MiB of flags in C's form", asks(b"x(" + b"a|" * (2 * MIB) + b"1)\n")),
    Attack("text, 4 MiB of vertical tabs", asks(b"x\v" * (2 * MIB) + b"\n")),
    Attack("text, a word of 4 MiB", asks(b"msgget " + b"1," * (2 * MIB) + b"\n")),
    Attack("SETALL of 32,000, JSON", all_values("JSON")),
    Attack("SETALL of 32,000, MessagePack", all_values("MessagePack")),
    Attack("SETALL of 32,000, text", all_values("text")),
    Attack("SETALL of 32,000, sem/ctl", all_values("ctl")),
    Attack("look at 32,000 values", look_at_values),
    Attack("ls -l of 30,000 queues", lists("msgq/sysv", 30_000)),
    Attack("cat sem/ctl, 8,000 sets", sets_and_segments("sem/ctl")),
    Attack("cat shm/ctl, 4,000 segments", sets_and_segments("shm/ctl")),
    Attack("cat stats, 10,000 queues", cat("stats", 10_000)),
    Attack("cat help", cat("help")),
    Attack("cat pipes/ctl, 1,000 pipes", descriptors("pipes/ctl")),
    Attack("cat proc/PID/fds, 1,000 ends", descriptors("proc/PID/fds")),
    Attack("attributes of 1,000 queues", attributes),
    Attack("64 threads, 1 MiB of lines each", crowd(64, fill(b"getppid\n"))),
    Attack("64 threads, a 1 MiB batch each", crowd(64, repeated(b"[", _GETPPID, 55_000, b"]\n"))),
    Attack("64 threads, semop of 680,000", crowd(64, _OPERATIONS)),
    Attack("16 processes cat msgq/ctl, 1,000 queues each", cat("msgq/ctl", 1000), processes=16),
    Attack("replies that nobody reads", unread),
    Attack("1,000 wait and are freed", blocked),
    Attack("processes that come and go", forks),
)
