"""Tables as text: a header line, one object a line, columns aligned and separated by blanks.

There can be tens of thousands of objects, so ``table`` lets others in after each slice of time; ``columns`` is for
tables that are short.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from synosfs.slices import Slices

Row = tuple[object, ...]


class Table(NamedTuple):
    """What ``table`` makes a text of."""

    header: tuple[str, ...]
    rows: Iterable[Row]


def columns(header: tuple[str, ...], rows: Iterable[Row]) -> str:
    """The text of a short table."""
    lines = [header, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(_line(line, widths) for line in lines)


async def table(header: tuple[str, ...], rows: Iterable[Row], slices: Slices) -> str:
    """The text of a table of any length; ``rows`` are taken one by one."""
    lines, widths = deque([header]), list(map(len, header))
    for row in rows:
        line = tuple(map(str, row))
        widths = list(map(max, widths, map(len, line)))
        lines.append(line)
        await slices.pause()
    text = []
    while lines:  # each goes when it has been used: all together would take long
        text.append(_line(lines.popleft(), widths))
        await slices.pause()
    return "".join(text)


def _line(line: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(map(str.ljust, line, widths)).rstrip() + "\n"
