"""Rows of the table, and how the arguments of a request are bound to one.

A ``Row`` describes one call; ``bind`` turns a request's arguments into the handler's positional values. Every error is
EINVAL with a message that names the call, the parameter, what stood there, and what would be right.
"""

import errno
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from synosfs.errors import SynosError
from synosfs.syscall_gate.kinds import KINDS, BadArgument, Kind, seconds, shown, suggestion
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


class Row(NamedTuple):
    """One call: x86-64 number or None, name, handler, parameters, whether it may block, one line of help."""

    number: int | None
    name: str
    handler: Callable[..., Any]
    params: tuple[Param, ...]
    blocks: bool
    help: str

    def usage(self) -> str:
        """The text form, as ``help`` prints it: ``msgrcv msqid size [mtype] [flags]``."""
        words = [self.name]
        for param in self.params:
            name = param.name + "…" * param.kind.variadic
            words.append(name if param.default is REQUIRED else f"[{name}]")
        return " ".join(words)


def row(
    number: int | None, name: str, handler: Callable[..., Any], parameters: str = "", *, blocks: bool = False, help: str
) -> Row:
    """A row from its short form: ``"msqid:int cmd:msg_command mode:int? flags:msg_flags=0"``.

    ``=`` gives a default; ``?`` makes the argument optional, and None when it is not given.
    """
    params = []
    for item in parameters.split():
        label, _, default_text = item.partition("=")
        param, _, kind_name = label.rstrip("?").partition(":")
        kind = KINDS[kind_name]
        default = kind.convert(Bare(default_text.encode())) if default_text else REQUIRED
        params.append(Param(param, kind, None if label[-1] == "?" else default))
    return Row(number, name, handler, tuple(params), blocks, help)


def bind(row: Row, request: Request) -> tuple[list[Any], float | None]:
    """The handler's values in order, and the time-out in seconds (None: for ever)."""
    params, args = row.params, request.args
    if not args and not params and not request.kwargs and request.timeout is None:
        return [], None
    named: dict[str, Any] = dict(request.kwargs)
    positional = args
    if any(isinstance(arg, Bare) and arg.count(b"=") for arg in args):
        positional = _split_named(row, args, named)
    if params and params[-1].kind.variadic:
        positional = _folded(positional, len(params) - 1)
    if request.data is not None:
        named["data"] = request.data
    timeout = request.timeout
    if "timeout" in named and "timeout" not in [p.name for p in params]:
        timeout = named.pop("timeout")
    if len(positional) > len(params):
        raise _too_many(row, positional)
    values = list(positional)
    value: Any = None
    try:
        for index, (param, value) in enumerate(zip(params, positional, strict=False)):
            if param.name in named:
                raise SynosError(errno.EINVAL, f"{row.name}: {param.name} is given twice, in place and by name")
            values[index] = param.kind.convert(value)
        for param in params[len(positional) :]:
            if param.name in named:
                values.append(param.kind.convert(named.pop(param.name)))
            elif param.default is REQUIRED:
                raise SynosError(errno.EINVAL, f"{row.name}: {param.name} is missing; usage: {row.usage()}")
            else:
                values.append(param.default)
        if timeout is not None:
            timeout = seconds(timeout)
    except BadArgument as problem:
        word = re.match(rb"([a-z_]+)=", value) if timeout is request.timeout and type(value) is Bare else None
        if word:
            raise _unknown_name(row, word[1].decode()) from None
        name = param.name if timeout is request.timeout else "timeout"
        raise SynosError(errno.EINVAL, f"{row.name}: {name} {problem}") from None
    if named:
        raise _unknown_name(row, next(iter(named)))
    return values, timeout


def _folded(positional: list[Any], first: int) -> list[Any]:
    """The words from ``first`` on as one list; a list that stands there is it, whatever count C puts behind."""
    rest = positional[first:]
    if not rest:
        return positional
    return [*positional[:first], rest[0] if isinstance(rest[0], list) else rest]


def _split_named(row: Row, args: list[Any], named: dict[str, Any]) -> list[Any]:
    """Move the ``name=value`` words whose name is a parameter (or timeout) into ``named``; the rest stays in place."""
    names = {param.name for param in row.params} | {"timeout"}
    positional = []
    for arg in args:
        name, equals, value = arg.partition(b"=") if type(arg) is Bare else (b"", b"", b"")
        if equals and (text := name.decode("utf-8", "replace")) in names:
            named[text] = Bare(value)
        else:
            positional.append(arg)
    return positional


def _too_many(row: Row, positional: list[Any]) -> SynosError:
    extra = positional[len(row.params)]
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
