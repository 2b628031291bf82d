"""``trace``: what has been done here, in strace's notation.

Opened for reading it shows the latest calls and removals, the oldest first, and ends. Opened for both it is a live
stream: a read blocks until there is a line, and what is written is a filter (``trace_filter``), for what comes from
then on.

Each stream has a buffer of lines of its own, charged to its user, and a place in the ring. One task, the *pump*, brings
the streams that have room up to date, for a bounded share of the time; a stream without room is not looked at until
somebody reads. So who never reads costs nothing, nobody's calls wait for a reader, and what the ring has lost by the
time that there is room again is counted in a line of the stream.
"""

import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from errno import EAGAIN, EINVAL
from functools import partial

import trio

from synosfs.errors import SynosError
from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, credentials_of, reads, writes
from synosfs.fs.session import open_caller
from synosfs.fs.shown import ShownFile
from synosfs.fs.sight import Sight
from synosfs.host import rights
from synosfs.ipc.change import Change
from synosfs.ipc.things import Thing
from synosfs.kernel import Kernel
from synosfs.slices import Slices
from synosfs.syscall_gate import strace, trace_filter
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.readiness import IN, OUT, Look, Source, Watch, with_rights
from synosfs.syscall_gate.script import HEAD, Script
from synosfs.syscall_gate.trace import Ended, Entry, Gone, told
from synosfs.syscall_gate.trace_filter import Filter
from synosfs.syscall_gate.waiting import Until

#: A stream has room for another line until it holds so much, in bytes.
BUFFER = 64 << 10

#: The pump rests so long between two rounds, in seconds, and longer where it would take more than this share of the
#: time.
_REST, _SHARE = 0.001, 0.1

_EVERYTHING = Filter()


@dataclass(frozen=True)
class TraceFile(Node):
    """The file. All streams of a mount are its."""

    kernel: Kernel
    pump: "Pump"

    fresh = True  # a reader that waits must not keep others from opening it
    steady = True
    entry_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o666)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if not writes(flags):
            return Snapshot(await latest(self.kernel, who))
        if not reads(flags):
            raise SynosError(EINVAL, "a filter is for who reads: open trace for both, as in exec 3<>trace")
        return Stream(self.kernel, open_caller(self.kernel, who, flags, inode), self.pump)

    async def change(self, change: Change, who: Who) -> None:
        """``>`` truncates nothing here."""
        await super().change(replace(change, size=None), who)


async def latest(kernel: Kernel, who: Who) -> bytes:
    """The lines of all that is in the ring and ``who`` may see."""
    sight = Sight(kernel, who.pid, credentials_of(who))
    slices = Slices(kernel.accounts.of(who.uid).line)
    _, entries = kernel.trace.since(0)
    lines = []
    for entry in entries:
        lines.append(line(entry, sight, _EVERYTHING))
        await slices.pause()
    return b"".join(lines)


async def script(kernel: Kernel, who: Who, slices: Slices) -> bytes:
    """The calls in the ring that ``who`` may see all of, to be made again."""
    sight = Sight(kernel, who.pid, credentials_of(who))
    _, entries = kernel.trace.since(0)
    made = Script()
    lines = [HEAD]
    for entry in entries:
        what = told(entry)
        if isinstance(what, Ended) and sight.of_call(what.who).whole:
            lines += (f"{each}\n" for each in made.lines(what))
        await slices.pause()
    return "".join(lines).encode("utf-8", "backslashreplace")


def script_file(kernel: Kernel) -> ShownFile:
    """``trace.replay``."""
    refusal = "trace.replay is for reading; python -m synosfs.replay makes the calls again"
    return ShownFile(kernel, partial(script, kernel), refusal)


def line(entry: Entry, sight: Sight, wanted: Filter) -> bytes:
    """The line of an entry; nothing where it is not for who looks, or not wanted."""
    what = told(entry)
    if not wanted.matches(what):
        return b""
    if isinstance(what, Gone):
        text = strace.removal_line(what.at_ns, what.removal) if sight.of_removal(what.removal) else ""
    else:
        seen = sight.of_call(what.who)
        text = strace.line(what, whole=seen.whole) if seen.at_all else ""
    return f"{text}\n".encode("utf-8", "backslashreplace") if text else b""


class Stream(Handle):
    """An open file of a reader's. Its place in the ring is where the pump goes on for it."""

    held = BUFFER

    def __init__(self, kernel: Kernel, caller: Caller, pump: "Pump") -> None:
        self._parking = kernel.parking
        self._things = kernel.ipc.things
        self._caller = caller
        self._pump = pump
        self._filter = _EVERYTHING
        self._lines = bytearray()
        self._last, self._offset = b"", 0  # what was read last, and where the file's position is after it
        self._filled = trio.lowlevel.ParkingLot()
        self.sight = Sight(kernel, caller.process.pid, caller.credentials)
        self.place = kernel.trace.next
        self.slices = Slices(caller.process.account.line)
        pump.add(self)

    @property
    def has_room(self) -> bool:
        return len(self._lines) < BUFFER

    def dropped(self, count: int) -> None:
        """So many entries were gone before there was room for them."""
        self.place += count
        self._put(b"# %d calls have ended that are not shown: they were faster than this reader\n" % count)

    def take(self, entry: Entry) -> None:
        """The next entry of the ring."""
        self.place += 1
        made = line(entry, self.sight, self._filter)
        if made:
            self._put(made)

    def _put(self, made: bytes) -> None:
        self._lines += made
        self._filled.unpark_all()

    async def read(self, offset: int, size: int) -> bytes:
        """As much as there is; the next line, when it comes, if there is nothing. EAGAIN with O_NONBLOCK."""
        self._caller.check()
        if 0 < self._offset - offset <= len(self._last):  # a shell's read takes more than a line, and goes back
            self._lines[:0] = self._last[offset - self._offset :]
        if not self._lines:
            if self._caller.nonblock:
                raise SynosError(EAGAIN, "trace: there is no line yet, and it was opened with O_NONBLOCK")
            self._caller.interrupted = False
            with self._parking.parked(self._caller, "trace") as parked:
                await self._parking.wait(parked, Until(self.wait_lines), None, EAGAIN)
        chunk = bytes(self._lines[:size])
        had_room = self.has_room
        del self._lines[:size]
        self._last, self._offset = chunk, offset + len(chunk)
        if not had_room:
            self._pump.go()
        return chunk

    async def write(self, offset: int, data: bytes) -> int:
        """A filter a line, of which the last holds: for what ends from now on."""
        self._caller.check()
        wanted = _EVERYTHING
        for words in data.splitlines() or [b""]:
            wanted = trace_filter.parse(words, self._named)
        self._filter = wanted
        self._lines.clear()
        self._last, self._offset = b"", offset + len(data)
        self._pump.from_now_on(self)
        return len(data)

    def source(self) -> Source:
        return _Lines(self)

    async def close(self) -> None:
        self._pump.remove(self)

    def _named(self, path: str) -> Thing:
        return with_rights(self._caller.credentials, lambda: self._things.named(path))

    def has_lines(self) -> bool:
        return bool(self._lines)

    async def wait_lines(self) -> int:
        while not self._lines:
            await self._filled.park()
        return 0


class _Lines:
    """What poll(2) asks of a stream: input when there is a line. A filter never waits."""

    credentials = rights.OWN

    def __init__(self, stream: Stream) -> None:
        self.key = ("trace", id(stream))
        self._stream = stream

    def ready(self, events: int, look: Look) -> int:
        return OUT | (IN if self._stream.has_lines() else 0)

    def watches(self, events: int) -> Iterator[Watch]:
        if events & IN:
            yield Watch(self.key, self.credentials, self._stream.has_lines, self._sleep)

    async def _sleep(self) -> None:
        await self._stream.wait_lines()


@dataclass(eq=False)
class Pump:
    """Fills the streams of one mount."""

    kernel: Kernel
    _streams: dict[Stream, None] = field(default_factory=dict)
    _news: trio.Event | None = None
    _runs: bool = False

    def add(self, stream: Stream) -> None:
        self._streams[stream] = None
        self.go()

    def remove(self, stream: Stream) -> None:
        self._streams.pop(stream, None)
        if not self._streams:
            self.go()

    def from_now_on(self, stream: Stream) -> None:
        """What has ended is nothing to it any more."""
        stream.place = self.kernel.trace.next
        self.go()

    def go(self) -> None:
        """There may be something to do."""
        if not self._runs:
            self._runs = True
            trio.lowlevel.spawn_system_task(self._run, name="trace")
        elif self._news is not None:
            self._news.set()

    async def _run(self) -> None:
        trace = self.kernel.trace
        try:
            while streams := [stream for stream in self._streams if stream.has_room]:
                began = time.perf_counter()
                for stream in streams:
                    await self._fill(stream)
                await trio.sleep(max(_REST, (time.perf_counter() - began) * (1 / _SHARE - 1)))
                if all(stream.place == trace.next for stream in self._streams if stream.has_room):
                    self._news = trio.Event()
                    trace.wake = self._news.set
                    await self._news.wait()
                    self._news = None
        finally:
            self._runs, trace.wake = False, None

    async def _fill(self, stream: Stream) -> None:
        dropped, entries = self.kernel.trace.since(stream.place)
        if dropped:
            stream.dropped(dropped)
        stream.sight.look_again()
        place = stream.place
        for entry in entries:
            if not stream.has_room or stream.place != place or stream not in self._streams:
                return  # it is full, or has another filter, or is closed
            stream.take(entry)
            place += 1
            await stream.slices.pause()
