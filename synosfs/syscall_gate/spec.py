"""Rows of the table, and how the arguments of a request are bound to one.

A ``Row`` describes one call; ``bind`` turns a request's arguments into the handler's positional values. Every error is
EINVAL with a message that names the call, the parameter, what stood there, and what would be right.
"""

import errno
import functools
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from synosfs.errors import SynosError, shown
from synosfs.syscall_gate.converters import BadArgument, parse_int, seconds, suggestion
from synosfs.syscall_gate.effects import Effect
from synosfs.syscall_gate.kinds import KINDS, Kind
from synosfs.syscall_gate.record import Bare, Request


class Param(NamedTuple):
    """A parameter: its name as in the man page, its kind, its default (``REQUIRED`` if it has none)."""

    name: str
    kind: Kind
    default: Any


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


#: The kind of what a descriptor stands for, whatever that is.
BY_DESCRIPTOR = "descriptor"


class Family(Enum):
    """The families of calls, each with whether all of its calls are interprocess communication. A call of ``FILE`` is
    when its descriptor is of such a thing.
    """

    FILE = "file", False
    PIPE = "pipe", True
    MSG = "msg", True
    SEM = "sem", True
    SHM = "shm", True
    MQ = "mq", True
    POSIX_SEM = "posix_sem", True
    POSIX_SHM = "posix_shm", True
    POLL = "poll", False
    PROCESS = "process", False
    CTL = "ctl", False  # command words, which are carried out as calls of the other families

    def __init__(self, label: str, is_ipc: bool) -> None:
        self.label = label
        self.is_ipc = is_ipc


FAMILIES = {family.label: family for family in Family}


class About(NamedTuple):
    """The object that a call is about: its kind, and which value names it (-1: the return value does)."""

    kind: str
    place: int


class Row(NamedTuple):
    """One call, and all that is special about it: x86-64 number or None, name, handler, parameters, family, the object
    that it is about, whether it may wait and with which errno its time-out ends that, whether its return value counts
    the bytes that it moved, whether its handler only looks and answers ``InSteps`` (so it may be asked while calls of
    that kind are still to be made), what its success leaves in the books, one line of help.

    ``variadic`` is the place of the parameter that takes all words from there on, -1 without one; those behind it are
    given by name, or stand in place behind a list. ``c_order`` is for a call whose optional arguments C has in the
    middle: the places of the parameters in C's order, which is meant when all are given in place; else the optional
    pointers, from place ``in_place`` on, are given by name.
    """

    number: int | None
    name: str
    handler: Callable[..., Any]
    params: tuple[Param, ...]
    family: Family
    about: About | None
    waits: bool
    timed_out: int
    moves_ret: bool
    in_steps: bool
    effect: Effect | None
    help: str
    variadic: int = -1
    c_order: tuple[int, ...] = ()

    @property
    def in_place(self) -> int:
        """How many arguments can be given in place, in the order of the parameters."""
        if not self.c_order:
            return len(self.params)
        return next(place for place, param in enumerate(self.params) if param.default is None)

    @property
    def is_ipc(self) -> bool:
        """Whether it is interprocess communication by its name alone."""
        return self.family.is_ipc

    def usage(self) -> str:
        """The text form, as ``help`` prints it: ``msgrcv msqid size [mtype] [flags]``."""
        words = [self.name]
        for place, param in enumerate(self.params):
            if param.kind.rest:
                words.append(f"[{param.kind.label}…]")
                continue
            by_name = 0 <= self.variadic < place or place >= self.in_place
            name = param.name + "…" * param.kind.variadic + "=" * by_name
            words.append(name if param.default is REQUIRED else f"[{name}]")
        return " ".join(words)


def row(
    number: int | None,
    name: str,
    handler: Callable[..., Any],
    parameters: str = "",
    *,
    family: str = "ctl",
    about: str = "",
    waits: bool = False,
    timed_out: int = errno.ETIMEDOUT,
    moves_ret: bool = False,
    in_steps: bool = False,
    effect: Effect | None = None,
    c_form: str = "",
    help: str,
) -> Row:
    """A row from its short form: ``"msqid:int cmd:msg_command mode:int? flags:msg_flags=0"``.

    ``=`` gives a default; ``?`` makes the argument optional, and None when it is not given. ``about`` is
    ``kind:parameter``, or ``kind:ret`` for what the return value names; ``c_form`` names the parameters in C's order,
    where that is another.
    """
    params = []
    for item in parameters.split():
        label, _, default_text = item.partition("=")
        param, _, kind_name = label.rstrip("?").partition(":")
        kind = KINDS[kind_name]
        default = kind.convert(Bare(default_text.encode())) if default_text else REQUIRED
        params.append(Param(param, kind, {} if kind.rest else None if label[-1] == "?" else default))
    names = [param.name for param in params]
    kind_of, _, named = about.partition(":")
    thing = About(kind_of, -1 if named == "ret" else names.index(named)) if about else None
    variadic = next((place for place, param in enumerate(params) if param.kind.variadic), -1)
    return Row(
        number,
        name,
        handler,
        tuple(params),
        FAMILIES[family],
        thing,
        waits,
        timed_out,
        moves_ret,
        in_steps,
        effect,
        help,
        variadic,
        tuple(names.index(name) for name in c_form.split()),
    )


Bound = tuple[list[Any], float | None]


def binder(row: Row) -> Callable[[Request], Bound]:
    """``bind`` for one row, made for speed: what every program sends, all values in place and of their kind, is bound
    without looking at the rules of the rest.
    """
    converts = [param.kind.convert for param in row.params]
    defaults = [param.default for param in row.params]
    least, most = sum(default is REQUIRED for default in defaults), row.in_place
    if row.variadic >= 0 or any(param.kind.rest for param in row.params):
        return functools.partial(bind, row)

    def bind_quickly(request: Request) -> Bound:
        args = request.args
        if not least <= len(args) <= most or request.kwargs or not request.timeout is request.data is None:
            return bind(row, request)
        values = defaults.copy()
        try:
            for place, arg in enumerate(args):
                if type(arg) is Bare and arg.count(b"="):  # a word of the text notation may be name=value
                    return bind(row, request)
                if arg is not None or defaults[place] is REQUIRED:
                    values[place] = converts[place](arg)
        except BadArgument:
            return bind(row, request)  # says what is wrong
        return values, None

    return bind_quickly


def bind(row: Row, request: Request) -> Bound:
    """The handler's values in order, and the time-out in seconds (None: for ever)."""
    params, args = row.params, request.args
    named: dict[str, Any] = dict(request.kwargs)
    positional = args
    if any(isinstance(arg, Bare) and arg.count(b"=") for arg in args):
        positional = _split_named(row, args, named)
    if row.variadic >= 0:
        positional = _folded(row, positional)
    if len(positional) > row.in_place:
        positional = _in_order(row, positional)
    if request.data is not None:
        named["data"] = request.data
    timeout = request.timeout
    if "timeout" in named and "timeout" not in [p.name for p in params]:
        timeout = named.pop("timeout")
    values = list(positional)
    value: Any = None
    name = ""
    try:
        for index, (param, value) in enumerate(zip(params, positional, strict=False)):
            if param.name in named:
                raise SynosError(errno.EINVAL, f"{row.name}: {param.name} is given twice, in place and by name")
            name = param.name
            values[index] = _converted(param, value)
        for param in params[len(positional) :]:
            if param.name in named:
                name, value = param.name, named.pop(param.name)
                values.append(_converted(param, value))
            elif param.kind.rest:
                name, value = param.name, named
                values.append(param.kind.convert(named))
                named = {}
            elif param.default is REQUIRED:
                raise SynosError(errno.EINVAL, f"{row.name}: {param.name} is missing; usage: {row.usage()}")
            else:
                values.append(param.default)
        if timeout is not None:
            name, value = "timeout", None
            timeout = seconds(timeout)
    except BadArgument as problem:
        word = re.match(rb"([a-z_]+)=", value) if type(value) is Bare else None
        if word:
            raise _unknown_name(row, word[1].decode()) from None
        raise SynosError(errno.EINVAL, f"{row.name}: {name} {problem}") from None
    if named:
        raise _unknown_name(row, next(iter(named)))
    return values, timeout


def _converted(param: Param, value: Any) -> Any:
    """The value as the handler wants it. ``null`` of JSON and MessagePack stands for an argument that is not given."""
    return param.default if value is None and param.default is not REQUIRED else param.kind.convert(value)


def _in_order(row: Row, positional: list[Any]) -> list[Any]:
    """C's arguments, all of them in place, in the order of the parameters. EINVAL: there are too many."""
    if len(positional) != len(row.c_order):
        raise _too_many(row, positional)
    ordered = positional.copy()
    for place, value in zip(row.c_order, positional, strict=True):
        ordered[place] = value
    return ordered


def _folded(row: Row, positional: list[Any]) -> list[Any]:
    """The words from the variadic parameter on as one list.

    A list that stands there is it; C puts its length behind it, and then what other parameters there are.
    """
    before, rest = positional[: row.variadic], positional[row.variadic :]
    if not rest or not isinstance(rest[0], list):
        return [*before, rest] if rest else before
    items, *behind = rest
    if behind and not isinstance(behind[0], list):
        count = behind.pop(0)
        try:
            agrees = count is None or parse_int(count) == len(items)  # null: it is not given
        except BadArgument:
            agrees = False
        if not agrees:
            raise SynosError(errno.EINVAL, f"{row.name}: the list has {len(items)} items, not {shown(count)}")
    return [*before, items, *behind]


def _split_named(row: Row, args: list[Any], named: dict[str, Any]) -> list[Any]:
    """Move the ``name=value`` words whose name is a parameter (or timeout) into ``named``; the rest stays in place."""
    names = {param.name for param in row.params if not param.kind.rest} | {"timeout"}
    rest = any(param.kind.rest for param in row.params)
    positional = []
    for arg in args:
        name, equals, value = arg.partition(b"=") if type(arg) is Bare else (b"", b"", b"")
        text = name.decode("utf-8", "replace")
        if equals and (text in names or (rest and _VARIABLE.fullmatch(text))):
            named[text] = Bare(value)
        else:
            positional.append(arg)
    return positional


#: What the name of a variable looks like, for words that might be anything.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def _too_many(row: Row, positional: list[Any]) -> SynosError:
    extra = positional[row.in_place]
    hint = f"; usage: {row.usage()}" if row.params else "; it takes none"
    if isinstance(extra, Bare) and extra.count(b"="):
        return _unknown_name(row, extra.partition(b"=")[0].decode("utf-8", "replace"))
    if any(param.kind.label == "data" for param in row.params):
        hint += '; data with blanks goes in "double quotes"'
    return SynosError(errno.EINVAL, f"{row.name}: one argument too many: {shown(extra)}{hint}")


def _unknown_name(row: Row, name: str) -> SynosError:
    known = [param.name for param in row.params] + ["timeout"]
    near = suggestion(name, known)
    return SynosError(
        errno.EINVAL, f"{row.name}: no argument is named {shown(name)}{near or '; usage: ' + row.usage()}"
    )
