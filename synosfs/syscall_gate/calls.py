"""All that the dispatcher's hot path needs of a call, found by one look-up; made once of the table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synosfs.ipc.usage import Usage, Usages
from synosfs.syscall_gate import table
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.effects import Effect
from synosfs.syscall_gate.record import Reply, Request
from synosfs.syscall_gate.spec import BY_DESCRIPTOR, Bound, Row, binder


@dataclass(frozen=True, slots=True)  # a slot is read in a third of the time that a tuple's field takes
class Call:
    """``data_at``: where its data stands among the values, -1 when it takes none; ``object_at``: the descriptor that it
    is about, -1 when it is about none. ``kind``: that of the System V objects that it is about; ``usages``: theirs,
    where the value at ``used_at`` names one, else nothing. ``lists``: whether there may be much in its values beside
    data and names.
    """

    row: Row
    handler: Callable[..., Any]
    bind: Callable[[Request], Bound]
    name: str
    effect: Effect | None
    data_at: int
    moves_ret: bool
    object_at: int
    kind: str | None
    usages: Mapping[int | str, Usage]
    used_at: int
    lists: bool


#: Kinds of arguments, by their labels, whose values are numbers, or names that a call with success bounds.
_SMALL = frozenset(("number", "flags", "key", "mode", "command", "address", "seconds", "path", "name", "object"))


def calls(usages: Usages) -> Iterator[Call]:
    """One of each row."""
    for row in table.ROWS:
        labels, about = [param.kind.label for param in row.params], row.about
        kind = row.family.label if row.family.label in usages else None
        if about is None or about.kind not in (kind, "address"):
            kind = None
        data_at = labels.index("data") if "data" in labels and not row.moves_ret else -1
        by_value = about is not None and about.kind == kind and about.place >= 0
        yield Call(
            row=row,
            handler=row.handler,
            bind=binder(row),
            name=row.name,
            effect=row.effect,
            data_at=data_at,
            moves_ret=row.moves_ret,
            object_at=about.place if about is not None and about.kind == BY_DESCRIPTOR else -1,
            kind=kind,
            usages=usages[kind] if kind is not None and by_value else {},
            used_at=about.place if about is not None and by_value else 0,
            lists=any(place != data_at and label not in _SMALL for place, label in enumerate(labels)),
        )


def used_by(call: Call, caller: Caller, values: Sequence[Any], reply: Reply) -> Usage | None:
    """The usage of the System V object that a call was about. It begins with the first call that succeeds, but for
    those that control: an id may be any number, and IPC_RMID leaves none.
    """
    about, usages = call.row.about, caller.ipc.usages
    assert about is not None
    assert call.kind is not None
    number = reply.ret if about.place < 0 else values[about.place]
    if about.kind == "address":
        number = caller.address_space.shmid_at(number)
    used = usages[call.kind].get(number)
    if used is None and not reply.errno and number is not None and not call.name.endswith("ctl"):
        used = usages.begin(call.kind, number)
    return used
