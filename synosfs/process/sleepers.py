"""What threads of the host sleep in, asked by a process beside the daemon: ``host.sleepers_program`` says why.

Here is the daemon's side, used from the trio thread only. Whoever keeps the program from an answer for a quarter of a
second is passed over, and the program is killed and started anew for the rest. One that cannot be killed yet is left to
itself; a user who has two of those is not asked about until they have ended. So no user hides the threads of others,
and none ties up more than two small processes.
"""

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import trio

from synosfs.host import credentials, procfs, program, sleepers_program
from synosfs.host.arch import CALLS
from synosfs.host.sleepers_program import IDLE
from synosfs.slices import Slices

#: The calls that are told of.
_TOLD = (
    *("msgsnd", "msgrcv", "semop", "semtimedop", "mq_timedsend", "mq_timedreceive"),
    *("read", "write", "readv", "writev", "futex"),
)

#: How long the program may take for one answer, and to start, in seconds.
_PATIENCE_S = 0.25
_START_S = 5.0

#: So long answers are let gather, in seconds: to wake for each costs more than to read it.
_GATHER_S = 0.01

#: So many programs that do not end are borne for one user, and so many are killed for one in a look, and for all.
_MOST_STUCK = 2
_MOST_LATE = 8

#: So many ends of pipes are told of at the most.
_MOST_ENDS = 1 << 16

#: No user has this number.
_NOBODY = -1


class Sleeper(NamedTuple):
    """A thread that sleeps in a call, with its six arguments. ``runs`` is the same for as long as it sleeps. Of its
    process there are the program and the start, in clock ticks after boot.

    ``operations`` are a semop's, None where its memory could not be read without waiting. ``file`` is what the call's
    descriptor leads to, as /proc has it, and for a futex the name in /dev/shm.
    """

    pid: int
    tid: int
    call: str
    args: tuple[int, ...]
    runs: int
    operations: tuple[tuple[int, int, int], ...] | None = None
    file: str = ""
    program: str = ""
    start_time: int = 0
    state: str = "S"


class Asked(NamedTuple):
    """The threads that sleep in a call that is told of; those that sleep until another of their process wakes them;
    processes that may not be looked at; and those that were passed over, because they did not let themselves be looked
    at in time.
    """

    sleepers: list[Sleeper]
    idle: frozenset[int]
    refused: frozenset[int]
    late: frozenset[int]


class Ends(NamedTuple):
    """Who has an end of a pipe, by its inode number: pids that may read and pids that may write. ``complete``: every
    process of the host could be looked at.
    """

    readers: dict[int, frozenset[int]]
    writers: dict[int, frozenset[int]]
    complete: bool


class _Late(Exception):
    """The program did not answer in time, or has ended."""


class _Program:
    """The running program."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        self._connection.setblocking(False)
        numbers = json.dumps({name: CALLS[name] for name in _TOLD})
        with theirs:
            command = [sys.executable, "-I", "-S", sleepers_program.__file__, numbers]
            self.process: subprocess.Popen[bytes] = program.start(command, theirs, theirs)
        self._patience_s = _START_S
        self._read = b""
        #: Whether answers are outstanding: whoever asked may have been cancelled.
        self.is_asked = False

    async def ask(self, what: str, argument: Sequence[Any]) -> AsyncIterator[Any]:
        """Its answers, one by one."""
        self.is_asked = True
        await self._send(json.dumps([what, argument]).encode() + b"\n")
        while True:
            *lines, self._read = self._read.split(b"\n")
            for line in lines:
                if line == b"null":
                    self.is_asked = False
                    return
                yield json.loads(line)
            self._read += await self._received()
            self._patience_s = _PATIENCE_S

    async def _send(self, data: bytes) -> None:
        with trio.move_on_after(_START_S):
            while data:
                try:
                    data = data[self._connection.send(data) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._connection)
                except OSError:
                    break
            else:
                return
        raise _Late

    async def _received(self) -> bytes:
        with trio.move_on_after(self._patience_s), suppress(OSError):
            while True:
                try:
                    received = self._connection.recv(1 << 17)
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._connection)
                    await trio.sleep(_GATHER_S)
            if received:
                return received
        raise _Late

    def end(self) -> None:
        """Kill it. ``has_ended`` tells when it is gone."""
        self._connection.close()
        self.process.kill()

    def has_ended(self) -> bool:
        return self.process.poll() is not None


class Sleepers:
    """One for the mount. One look at a time asks; the others wait for it."""

    def __init__(self) -> None:
        self._program: _Program | None = None
        #: Programs that have been killed, with the user whose process each was asking about.
        self._ending: list[tuple[_Program, int]] = []
        self._late: set[int] = set()
        self._lock = trio.StrictFIFOLock()

    async def ask(self, threads: Iterable[tuple[int, int]], slices: Slices) -> Asked:
        """What these threads (pid, tid) sleep in, as it is when each is looked at."""
        async with self._lock:
            self._reap()
            sleepers: list[Sleeper] = []
            idle: set[int] = set()
            refused: set[int] = set()
            late: set[int] = set()
            # Who was late before comes last, so that it is late for itself alone.
            left = sorted(threads, key=lambda thread: thread[0] in self._late)
            waited: Counter[int] = Counter(uid for _, uid in self._ending)
            while left:
                done = 0
                try:
                    async for answer in self._running().ask("calls", left):
                        pid, tid = left[done]
                        if answer == IDLE:
                            idle.add(tid)
                        elif isinstance(answer, str):
                            refused.add(pid)
                        elif answer:
                            sleepers.append(_sleeper(pid, tid, answer))
                        done += 1
                        await slices.pause()
                    break
                except _Late:
                    culprit = left[done][0] if done < len(left) else 0
                    uid = _user(culprit)
                    self._give_up(uid)
                    waited[uid] += 1
                    late.add(culprit)
                    left, passed = await self._without(left[done:], culprit, waited, slices)
                    late |= passed
            self._late = late
            return Asked(sleepers, frozenset(idle), frozenset(refused), frozenset(late))

    async def _without(
        self, threads: list[tuple[int, int]], culprit: int, waited: Counter[int], slices: Slices
    ) -> tuple[list[tuple[int, int]], set[int]]:
        """Those that are still to be asked, and the pids of those that are passed over."""
        left, passed = [], set()
        for pid, tid in threads:
            if pid == culprit:
                continue
            if waited.total() >= _MOST_LATE or waited[_user(pid)] >= _MOST_STUCK:
                passed.add(pid)
            else:
                left.append((pid, tid))
            await slices.pause()
        return left, passed

    async def ends(self, inodes: Iterable[int], slices: Slices) -> Ends:
        """Who has an end of these pipes. Nobody is known where they are too many: half of them would be a lie."""
        readers: dict[int, set[int]] = {}
        writers: dict[int, set[int]] = {}
        complete, count = False, 0
        async with self._lock:
            self._reap()
            try:
                async for answer in self._running().ask("ends", list(inodes)):
                    complete = answer.get("unseen") == 0 and procfs.sees_all()
                    found = answer.get("ends", ())
                    count += len(found)
                    if count > _MOST_ENDS:
                        raise _Late
                    for inode, access in found:
                        for letter, who in (("r", readers), ("w", writers)):
                            if letter in access:
                                who.setdefault(inode, set()).add(answer["pid"])
                    await slices.pause()
            except _Late:
                self._give_up(_NOBODY)
                return Ends({}, {}, complete=False)
        frozen = [{inode: frozenset(pids) for inode, pids in found.items()} for found in (readers, writers)]
        return Ends(frozen[0], frozen[1], complete)

    def statistics(self) -> list[int]:
        """The pids of the programs that there are: the one that is asked, and those that do not end yet."""
        self._reap()
        running = [] if self._program is None else [self._program]
        return [each.process.pid for each in (*running, *(killed for killed, _ in self._ending))]

    def close(self) -> None:
        if self._program is not None:
            self._give_up(_NOBODY)
        self._reap()

    def _running(self) -> _Program:
        if self._program is not None and (self._program.is_asked or self._program.has_ended()):
            self._give_up(_NOBODY)
        if self._program is None:
            self._program = _Program()
        return self._program

    def _give_up(self, uid: int) -> None:
        assert self._program is not None
        self._program.end()
        self._ending.append((self._program, uid))
        self._program = None

    def _reap(self) -> None:
        self._ending = [(killed, uid) for killed, uid in self._ending if not killed.has_ended()]


def _user(pid: int) -> int:
    """The real user of a process, which a program that is set-user-ID does not change; _NOBODY when it has ended."""
    try:
        return credentials.identifiers(pid).uids[0]
    except OSError:
        return _NOBODY


def _sleeper(pid: int, tid: int, answer: dict[str, Any]) -> Sleeper:
    operations = answer.get("operations")
    return Sleeper(
        pid,
        tid,
        answer["call"],
        tuple(answer["args"]),
        answer["runs"],
        None if operations is None else tuple((num, delta, flags) for num, delta, flags in operations),
        answer.get("file", ""),
        *answer["stat"],
    )
