"""Make the calls of a script again: ``python -m synosfs.replay MOUNTPOINT [SCRIPT]``.

A script is what ``trace.replay`` shows: requests in the text notation, with symbols such as ``$msg1`` for what the host
gives numbers to. A symbol is bound by the first result that it stands for. Each process of the script is a process
here, or the child that a call has made; the calls are made one after the other. What differs from the script is told,
and the exit status is 1 then: the return value or errno, data, and those results that say the same every time.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

from synosfs.errors import printable
from synosfs.syscall_gate.text import quote

#: Results by name that are compared; others are times, process ids and sizes, which change.
_COMPARED = frozenset(("mtype", "priority", "values", "status"))

_PROCESS = re.compile(r"# process (\w+)")
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|\) = |\$\w+|[^"$)]+|.', re.DOTALL)
_WORD = re.compile(r'(?:(\w+)=)?("(?:[^"\\]|\\.)*"(?:,"(?:[^"\\]|\\.)*")*|\(.*\)|\S+)')


class Worker:
    """A process with a session of its own, which makes the calls that are sent to it."""

    def __init__(self, mount: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._to)
            os.close(self._from)
            with suppress(OSError), open(to_read, "rb") as requests, open(to_write, "wb") as replies:
                _serve(os.open(mount / "syscall", os.O_RDWR | os.O_CLOEXEC), requests, replies)
            os._exit(0)
        os.close(to_read)
        os.close(to_write)
        self._replies = open(self._from, "rb")  # noqa: SIM115 - closed by close
        self._requests = open(self._to, "wb")  # noqa: SIM115

    def call(self, request: str) -> bytes:
        self._requests.write(request.encode() + b"\n")
        self._requests.flush()
        return self._replies.read(int(self._replies.readline() or b"0"))

    def close(self) -> None:
        self._requests.close()
        self._replies.close()
        os.waitpid(self._pid, 0)


class OnBehalf:
    """The session of a child that waits (``proc/<pid>/syscall``)."""

    def __init__(self, mount: Path, pid: str) -> None:
        self._fd = os.open(mount / f"proc/{pid}/syscall", os.O_RDWR | os.O_CLOEXEC)

    def call(self, request: str) -> bytes:
        return _called(self._fd, request.encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def _serve(session: int, requests: Iterable[bytes], replies: BinaryIO | IO[bytes]) -> None:
    for request in requests:
        reply = _called(session, request)
        replies.write(b"%d\n%b" % (len(reply), reply))
        replies.flush()


def _called(session: int, request: bytes) -> bytes:
    with suppress(OSError):  # a request that fails makes the write fail; its reply says why
        os.write(session, request)
    reply = b""
    while piece := os.read(session, 1 << 20):
        reply += piece
    return reply


class Replay:
    """The script so far: what symbols stand for, and what came out otherwise."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        self._bound: dict[str, str] = {}
        self._processes: dict[str, Worker | OnBehalf] = {}
        self._process = ""
        self.made = self.skipped = 0
        self.differences: list[str] = []

    def line(self, number: int, line: str) -> None:
        if found := _PROCESS.match(line):
            self._process = found[1]
        elif line.startswith("#") or not line.strip():
            self.skipped += line.startswith("# ") and number > 1
        else:
            request, expected = self._split(line)
            self.made += 1
            reply = self._session().call(request)
            if problem := self._differs(expected, reply):
                self.differences.append(f"line {number}: {line}: {problem}")

    def close(self) -> None:
        for process in reversed(self._processes.values()):  # the later ones have the pipes of those before
            process.close()

    def _session(self) -> Worker | OnBehalf:
        process = self._processes.get(self._process)
        if process is None:
            child = self._bound.get(f"${self._process}")
            process = Worker(self._mount) if child is None else OnBehalf(self._mount, child)
            self._processes[self._process] = process
        return process

    def _split(self, line: str) -> tuple[str, str]:
        """The request with numbers for its symbols, and what is to come of it."""
        request: list[str] = []
        for part in _PART.finditer(line):
            if part[0] == ") = ":
                return "".join(request) + ")", line[part.end() :]
            request.append(self._bound.get(part[0], part[0]))
        return "".join(request), ""

    def _differs(self, expected: str, reply: bytes) -> str:
        """In what a reply is not what the script says; nothing if it is. Binds the symbols that are new."""
        head, _, data = reply.partition(b"\n")
        got = _words(head.decode("utf-8", "replace"))
        wanted = _words(expected)
        if wanted and wanted[0] == ("", "-1"):
            same = got[:2] == wanted[:2]
        else:
            results = dict(got[1:])
            same = bool(got) and bool(wanted) and self._is(wanted[0][1], got[0][1])
            for name, value in wanted[1:] if same else ():
                if not name:
                    same &= value == quote(data[:-1])
                elif value.startswith("$") or name in _COMPARED:
                    same &= self._is(value, results.get(name, ""))
        return "" if same else f"is now {printable(head.decode('utf-8', 'replace'))}"

    def _is(self, wanted: str, got: str) -> bool:
        return self._bound.setdefault(wanted, got) == got if wanted.startswith("$") else wanted == got


def _words(text: str) -> list[tuple[str, str]]:
    return [(name or "", value) for name, value in _WORD.findall(text)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m synosfs.replay", description="Make the calls of a script again.")
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("script", nargs="?", type=argparse.FileType("r"), default=sys.stdin)
    options = parser.parse_args()
    replay = Replay(options.mountpoint)
    lines = options.script.read().splitlines()  # before the first call: it may be the trace of this very mount
    try:
        for number, line in enumerate(lines, start=1):
            replay.line(number, line)
    finally:
        replay.close()
    for difference in replay.differences:
        print(difference)
    print(f"{replay.made} calls made, {len(replay.differences)} came out otherwise, {replay.skipped} cannot be made")
    return 1 if replay.differences else 0


if __name__ == "__main__":
    sys.exit(main())
