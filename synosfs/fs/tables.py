"""Tables as text: a header line, one object a line, columns aligned and separated by blanks.

There can be tens of thousands of objects, so ``table`` lets others in after each slice of time; ``columns`` is for
tables that are short.
"""

import time
from collections.abc import Iterable

import trio

from synosfs.syscall_gate.dispatch import SLICE_NS

Row = tuple[object, ...]


class Slices:
    """Work of the main thread that may be long, in slices: ``await pause()`` between its steps."""

    def __init__(self) -> None:
        self._began_ns = time.perf_counter_ns()

    async def pause(self) -> None:
        """Let others in, if the slice is over."""
        if time.perf_counter_ns() - self._began_ns > SLICE_NS:
            await trio.lowlevel.checkpoint()
            self._began_ns = time.perf_counter_ns()


def columns(header: tuple[str, ...], rows: Iterable[Row]) -> str:
    """The text of a short table."""
    lines = [header, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(_line(line, widths) for line in lines)


async def table(header: tuple[str, ...], rows: Iterable[Row]) -> str:
    """The text of a table of any length; ``rows`` are taken one by one."""
    slices = Slices()
    lines, widths = [header], list(map(len, header))
    for row in rows:
        line = tuple(map(str, row))
        widths = list(map(max, widths, map(len, line)))
        lines.append(line)
        await slices.pause()
    text = []
    for line in lines:
        text.append(_line(line, widths))
        await slices.pause()
    return "".join(text)


def _line(line: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(map(str.ljust, line, widths)).rstrip() + "\n"
