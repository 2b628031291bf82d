"""The three notations as a client of the gate writes and reads them; independent of the daemon's own codecs.

A call's arguments are: int; str, a word (flags, a name, a command); bytes, data; tuple, one operation of semop; list,
values.
"""

import base64
import os
import re
from itertools import groupby
from typing import Any

import msgspec
from native import Result

from synosfs.syscall_gate import table

#: One of the items of a result, in quotes or as it is.
_ITEM = r'(?:"(?:[^"\\]|\\.)*"|[^\s,"]*)'


#: Calls with structs or pointers, which words cannot say: text has them as C does.
_AS_C = ("utime", "utimes", "futimesat")


def encode_text(call: str, args: tuple, kwargs: dict) -> bytes:
    if call in _AS_C:
        return f"{call}({', '.join(map(_in_c, args))})\n".encode()
    words = [call, *map(_text_word, args), *(f"{name}={_text_word(value)}" for name, value in kwargs.items())]
    return " ".join(words).encode() + b"\n"


def _in_c(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_in_c, value))}]"
    return _text_word(value)


def encode_json(call: str, args: tuple, kwargs: dict) -> bytes:
    request: dict[str, Any] = {"call": call, "args": [], "kwargs": dict(kwargs)}
    timeout = request["kwargs"].pop("timeout", None)
    if timeout is not None:
        request["timeout"] = timeout
    for position, arg in enumerate(operations_joined(args)):
        if isinstance(arg, bytes) and _utf8(arg) is None:
            # Bytes that are no text travel in a field of their own, and what follows them has to be named.
            request["data64"] = base64.b64encode(arg).decode()
            names = [param.name for param in table.find(call).params][position + 1 :]
            request["kwargs"] |= dict(zip(names, args[position + 1 :], strict=False))
            break
        request["args"].append(_utf8(arg) if isinstance(arg, bytes) else arg)
    return msgspec.json.encode(request) + b"\n"


def encode_msgpack(call: str, args: tuple, kwargs: dict) -> bytes:
    request: dict[str, Any] = {"call": call, "args": operations_joined(args), "kwargs": dict(kwargs)}
    timeout = request["kwargs"].pop("timeout", None)
    if timeout is not None:
        request["timeout"] = timeout
    return msgspec.msgpack.encode(request)


def decode_text(reply: bytes) -> Result:
    line, newline, rest = reply.partition(b"\n")
    assert newline, reply
    text = line.decode()
    if failed := re.fullmatch(r"-1 (E[A-Z0-9]+) (.*)", text):
        assert not rest, reply
        return Result(-1, failed[1], {}, None, failed[2])
    ret, _, named = text.partition(" ")
    results = {name: _value(value) for name, value in re.findall(rf"(\w+)=((?:{_ITEM},)*{_ITEM})", named)}
    if not rest:
        return Result(int(ret, 0), "", results)
    assert rest.endswith(b"\n"), reply
    assert len(rest) - 1 == int(ret), reply
    return Result(int(ret), "", results, rest[:-1])


def decode_json(reply: bytes) -> Result:
    assert reply.count(b"\n") == 1, reply
    return _decoded(msgspec.json.decode(reply))


def decode_msgpack(reply: bytes) -> Result:
    return _decoded(msgspec.msgpack.decode(reply))


def _decoded(answer: dict[str, Any]) -> Result:
    data = answer.pop("data", None)
    if isinstance(data, str):
        data = data.encode()
    if "data64" in answer:
        data = base64.b64decode(answer.pop("data64"), validate=True)
    for name in [name for name in answer if name.endswith("64")]:
        answer[name[:-2]] = [os.fsdecode(base64.b64decode(item, validate=True)) for item in answer.pop(name)]
    return Result(answer.pop("ret"), answer.pop("errno", ""), answer, data, answer.pop("message", ""))


def operations_joined(args: tuple) -> list:
    """Operations in a row are one argument: a list of lists."""
    joined: list[Any] = []
    for is_operation, group in groupby(args, lambda arg: isinstance(arg, tuple)):
        items = list(group)
        joined += [[list(operation) for operation in items]] if is_operation else items
    return joined


def _text_word(value: Any) -> str:
    if isinstance(value, bytes):
        return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in value) + '"'
    if value is None:
        return "NULL"
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _value(text: str) -> Any:
    if not re.fullmatch(_ITEM, text):
        return [_value(item) for item in re.findall(rf"(?:^|,)({_ITEM})", text)]
    if text.startswith('"'):
        return os.fsdecode(text[1:-1].encode().decode("unicode_escape").encode("latin-1"))
    if re.fullmatch(r"0[0-7]+", text):
        return int(text, 8)
    return int(text, 0) if re.fullmatch(r"-?(0x[0-9a-f]+|[0-9]+)", text) else text
