"""``waiting``: who waits on this host, for what, and behind whom; ``waiting.dot``, the same for Graphviz; ``advice``.

Everybody sees that a process waits; in which call, for what and behind whom, only who may look into it. Each file is
made by a look when it is opened (``waiters``), and looking changes nothing.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator

from synosfs.errors import printable
from synosfs.fs.advice import Advice
from synosfs.fs.looker import Looker
from synosfs.fs.node import Node, Who
from synosfs.fs.shown import ShownFile
from synosfs.fs.tables import Row, table
from synosfs.fs.waiters import Look, Waiter, Waiters
from synosfs.kernel import Kernel
from synosfs.process.waits import Holders
from synosfs.slices import Slices
from synosfs.syscall_gate.text import word

_HEADER = ("pid", "tid", "program", "state", "since", "object", "behind", "call")

Render = Callable[[Look, Looker, Slices], Awaitable[str]]


def files(kernel: Kernel, waiters: Waiters) -> dict[str, Node]:
    """Those at the top of the mount."""

    def file(render: Render) -> ShownFile:
        async def shown(who: Who, slices: Slices) -> str:
            looker = Looker(kernel, who)
            return await render(await waiters.look(), looker, slices)

        return ShownFile(kernel, shown)

    return {"waiting": file(_table), "waiting.dot": file(_graph), "advice": file(Advice(kernel).text)}


# --- waiting ---------------------------------------------------------------------------------------------------------


async def _table(look: Look, looker: Looker, slices: Slices) -> str:
    now = time.monotonic()
    ordered = sorted(look.waiters, key=lambda waiter: now if waiter.since is None else waiter.since)
    return await table(_HEADER, _rows(look, looker, ordered, now), slices)


def _rows(look: Look, looker: Looker, waiters: Iterable[Waiter], now: float) -> Iterator[Row]:
    """The longest waiting first; those that nobody has seen before last."""
    for waiter in waiters:
        if not looker.sees(waiter.process):
            continue
        shown = [waiter.pid, waiter.tid, word(waiter.program), waiter.state]
        if looker.may_look_into(waiter.process):
            since = "-" if waiter.since is None else f"{now - waiter.since:.3f}"
            yield (*shown, since, word(str(waiter.object)), _behind(look, waiter), waiter.call)
        else:
            yield (*shown, *4 * ("-",))


def _behind(look: Look, waiter: Waiter) -> str:
    """Pids, joined by commas; with a question mark where it is a guess."""
    holders = look.holders.get(waiter.object, Holders())
    if holders.pids:
        most = sorted(holders.pids)[:_MOST_BEHIND]
        rest = ",..." * (len(holders.pids) > _MOST_BEHIND)
        return ",".join(f"{pid}{'' if holders.exact else '?'}" for pid in most) + rest
    hint = look.hints.get(waiter.object)
    return "-" if hint is None else f"{hint}?"


#: So many holders of one object are shown.
_MOST_BEHIND = 8


# --- waiting.dot -----------------------------------------------------------------------------------------------------


async def _graph(look: Look, looker: Looker, slices: Slices) -> str:
    """The wait-for graph: an arrow from who waits to what for, and from there to who holds it, dashed for a guess; what
    waits in a circle is red.
    """
    red = {pid for deadlock in look.deadlocks for pid in deadlock.waits}
    processes: dict[int, str] = {}
    objects: dict[str, None] = {}
    arrows: dict[str, None] = {}
    for waiter in look.waiters:
        await slices.pause()
        if not looker.sees(waiter.process):
            continue
        processes[waiter.pid] = f"{waiter.pid} {printable(waiter.program)}"
        if not looker.may_look_into(waiter.process) or str(waiter.object) == "-":
            continue
        name = f"{waiter.object.kind} {waiter.object}"
        objects[f"  {_quoted(name)} [label={_quoted(str(waiter.object))} shape=ellipse]\n"] = None
        color = " color=red" * (waiter.pid in red)
        call = waiter.call.partition("(")[0]
        arrows[f"  {_quoted(str(waiter.pid))} -> {_quoted(name)} [label={_quoted(call)}{color}]\n"] = None
        holders = look.holders.get(waiter.object, Holders())
        style = "" if holders.exact else " style=dashed"
        for pid in sorted(holders.pids, key=lambda pid: (pid not in red, pid))[:_MOST_BEHIND]:
            processes.setdefault(pid, str(pid))
            held = " color=red" * (pid in red and waiter.pid in red)
            arrows[f"  {_quoted(name)} -> {_quoted(str(pid))} [label=held{style}{held}]\n"] = None
            await slices.pause()
    nodes = [
        f"  {_quoted(str(pid))} [label={_quoted(label)} shape=box{' color=red' * (pid in red)}]\n"
        for pid, label in processes.items()
    ]
    return f"digraph waiting {{\n{''.join(nodes)}{''.join(objects)}{''.join(arrows)}}}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
