"""Questions to the host about processes of others, which such a process can keep the host from answering.

execve(2) holds a lock (exec_update_lock) while it closes the program's files, and the file system of one of them may
never answer. Who reads the process's ``stat``, ``wchan`` or ``attr``, or follows its links (``cwd``, ``fd``, ``ns``),
waits for that lock meanwhile; ``status``, ``comm`` and ``limits`` are told without it.

The main thread must not wait: it has a thread ask, and when that sleeps in the host it gives up, and lets be whom it
asked about until that thread comes back. Other threads ask by themselves.
"""

import _thread
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from synosfs.errors import SynosError

T = TypeVar("T")

#: After so long without an answer the asking thread is looked at, in seconds.
_PATIENCE_S = 0.001

#: So many looks in a row that find it asleep in the host make it stuck.
_LOOKS = 2

#: So many threads may be stuck, one for each process that keeps the host from answering.
_MOST_STUCK = 1024


class _Reader:
    """A thread that asks one question after the other."""

    def __init__(self) -> None:
        self._questions: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._tid = 0
        self._ended = threading.Lock()
        self._ended.acquire()
        _thread.start_new_thread(self._run, ())

    def ask(self, question: Callable[[], T]) -> T:
        """Its answer, or the error that it raised; BlockingIOError: the thread is stuck."""
        self._questions.put(question)
        asleep = 0
        while True:
            try:
                answer, error = self._answers.get(timeout=_PATIENCE_S)
            except Empty:
                asleep = asleep + 1 if self._sleeps_in_host() else 0
                if asleep == _LOOKS:
                    raise BlockingIOError from None
                continue
            if error is not None:
                raise error
            found: T = answer
            return found

    def has_come_back(self) -> bool:
        """Whether it is not stuck any more. The answer that it has brought is dropped."""
        with suppress(Empty):
            self._answers.get_nowait()
            return True
        return False

    def end(self) -> None:
        """It ends, and has done so when this returns."""
        self._questions.put(None)
        with self._ended:
            pass

    def _run(self) -> None:
        self._tid = threading.get_native_id()
        while (question := self._questions.get()) is not None:
            try:
                self._answers.put((question(), None))
            except BaseException as error:
                self._answers.put((None, error))
        self._ended.release()

    def _sleeps_in_host(self) -> bool:
        """Whether it is in state D: neither waiting for a CPU or the interpreter, nor for a question."""
        with suppress(OSError), open(f"/proc/self/task/{self._tid}/status", "rb") as status:
            return b"\nState:\tD" in status.read(256)
        return False


class _Readers:
    """The one that asks for the main thread, and those that are stuck."""

    def __init__(self) -> None:
        self._idle: _Reader | None = None
        self._stuck: dict[int, _Reader] = {}

    def ask(self, pid: int, question: Callable[[], T]) -> T:
        stuck = self._stuck.get(pid)
        if stuck is not None:
            if not stuck.has_come_back():
                raise _unanswered(pid)
            del self._stuck[pid]
            stuck.end()
        if len(self._stuck) >= _MOST_STUCK:
            self._sweep()
            if len(self._stuck) >= _MOST_STUCK:
                raise _unanswered(pid)
        reader, self._idle = self._idle or _Reader(), None
        try:
            answer = reader.ask(question)
        except BlockingIOError:
            self._stuck[pid] = reader
            raise _unanswered(pid) from None
        except BaseException:
            self._idle = reader
            raise
        self._idle = reader
        return answer

    def close(self) -> None:
        """End the thread that is idle: one that waits in the interpreter must not outlive it."""
        if self._idle is not None:
            self._idle.end()
            self._idle = None
        self._sweep()

    def _sweep(self) -> None:
        for pid, reader in list(self._stuck.items()):
            if reader.has_come_back():
                del self._stuck[pid]
                reader.end()


_readers = _Readers()


def _forget() -> None:
    """In a process that was forked: it has none of the threads."""
    global _readers  # noqa: PLW0603 - there is one of it in each process
    _readers = _Readers()


os.register_at_fork(after_in_child=_forget)


def ask(pid: int, question: Callable[[], T]) -> T:
    """What ``question`` returns or raises, which is about the process or thread ``pid``. ``Unanswered``: that is
    executing a program, and keeps the host from telling. Rights that are lent to the main thread are not the asker's.
    """
    if threading.current_thread() is not threading.main_thread():
        return question()
    return _readers.ask(pid, question)


def close() -> None:
    """End what is idle. Whoever asks later gets a new one."""
    _readers.close()


class Unanswered(SynosError):
    """EAGAIN: a process keeps the host from telling of it."""


def _unanswered(pid: int) -> Unanswered:
    return Unanswered(
        errno.EAGAIN, f"process {pid} is executing a program, and the host waits for a file that it closes; try again"
    )
