"""Kinds of arguments: what a word of text, or a value of JSON or MessagePack, means as a parameter of a call.

A kind is a name for people and a conversion, which raises BadArgument with words that complete "<call>: <parameter> …".
"""

import functools
from contextlib import suppress
from errno import E2BIG, EINVAL, errorcode
from typing import Annotated, Any, NamedTuple

import msgspec

from synosfs.errors import SynosError, excerpt, shown
from synosfs.host import abi
from synosfs.ipc import sysv_sem
from synosfs.ipc.change import Named
from synosfs.ipc.sysv_sem import Operation
from synosfs.process.descriptors import MOST_DESCRIPTORS
from synosfs.syscall_gate import times
from synosfs.syscall_gate.converters import (
    BadArgument,
    Convert,
    data,
    flags,
    named_number,
    parse_int,
    ranged,
    seconds,
    unsigned_long,
)
from synosfs.syscall_gate.record import Bare


class Kind(NamedTuple):
    """A kind of argument: the word for it in messages and ``help``, and the conversion.

    A ``variadic`` kind takes all words from its place on, as a list; in JSON and MessagePack it is given as one list.
    A ``rest`` kind takes all that is given by a name which is no parameter's; in text such a name is in capitals.
    """

    label: str
    convert: Convert
    variadic: bool = False
    rest: bool = False


#: No set has as many semaphores (SEMMSL).
_MOST_VALUES = 65_535

_MSG_FLAGS = {name: getattr(abi, name) for name in ("IPC_NOWAIT", "MSG_NOERROR", "MSG_EXCEPT", "MSG_COPY")}
_GET_FLAGS = {name: getattr(abi, name) for name in ("IPC_CREAT", "IPC_EXCL", "IPC_EPHEMERAL")}
_IPC_COMMANDS = {name: getattr(abi, name) for name in ("IPC_RMID", "IPC_SET", "IPC_STAT", "IPC_INFO")}
_MSG_COMMANDS = _IPC_COMMANDS | {name: getattr(abi, name) for name in ("MSG_STAT", "MSG_INFO", "MSG_STAT_ANY")}
_SHM_GET_FLAGS = _GET_FLAGS | {
    name: getattr(abi, name) for name in ("SHM_HUGETLB", "SHM_NORESERVE", "SHM_HUGE_2MB", "SHM_HUGE_1GB")
}
_SHM_FLAGS = {name: getattr(abi, name) for name in ("SHM_RDONLY", "SHM_RND", "SHM_REMAP", "SHM_EXEC")}
_SHM_COMMANDS = _IPC_COMMANDS | {
    name: getattr(abi, name) for name in ("SHM_LOCK", "SHM_UNLOCK", "SHM_STAT", "SHM_INFO", "SHM_STAT_ANY")
}


def _address(value: Any) -> int:
    """An address of memory; none, NULL, null and 0 are the same."""
    return 0 if value is None else _ADDRESS(value)


_ADDRESS = named_number({"NULL": 0, "none": 0}, bits=64, wrap=True)


def _polled(value: Any) -> list[tuple[str, int]]:
    """Things to poll, each ``what[:events]`` or a pair of these; input is waited for when no events are given."""
    things = value if isinstance(value, list) else [value]
    if len(things) > _MOST_NAMED:
        raise SynosError(EINVAL, f"poll: {len(things)} things are more than {_MOST_NAMED}")
    items = [(*item,) if type(item) is list else item for item in things]
    try:
        known = dict.fromkeys(items)  # one thing may be named ten thousand times
    except TypeError:
        raise BadArgument("wants things such as msgq/0:POLLIN, or pairs of a thing and its events") from None
    if len(known) > _MOST_POLLED:
        raise SynosError(EINVAL, f"poll: {len(known)} different things are more than {_MOST_POLLED}")
    meant = {item: _one_polled(item) for item in known}
    return [meant[item] for item in items]


def _one_polled(item: Any) -> tuple[str, int]:
    if isinstance(item, tuple):
        if len(item) != 2:
            raise BadArgument(f"wants pairs of a thing and its events, not {shown([*item])}")
        what, events = item
    else:
        what, _, events = data(str(item) if isinstance(item, int) else item).partition(b":")
    text = what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)
    if not events:
        return text, abi.POLL_EVENTS["POLLIN"]
    return text, _events(events) if isinstance(events, str | bytes) else _EVENT_FLAGS(events)


#: So many things can be named, and so many different ones: each may be with other events than before.
_MOST_NAMED, _MOST_POLLED = 10_000, 2 * MOST_DESCRIPTORS


_EVENT_FLAGS = flags(abi.POLL_EVENTS)
_events = functools.lru_cache(256)(_EVENT_FLAGS)


def semaphore_operation(value: Any, flags: Any = 0) -> Operation:
    """``num:delta[:flags]``, or a list of these; ``flags`` are those of an operation that names none."""
    parts = _split(value, ":")
    if not isinstance(parts, (list, tuple)) or len(parts) not in (2, 3):
        raise BadArgument(f"wants operations num:delta[:flags], such as 0:-1:SEM_UNDO, not {shown(value)}")
    num, delta, flags = (*parts, flags) if len(parts) == 2 else parts
    numbers = parse_int(num), parse_int(delta), _SEM_FLAGS(flags)
    for number, low, high in zip(numbers, (0, -0x8000, 0), (0xFFFF, 0x7FFF, 0xFFFF), strict=True):
        if not low <= number <= high:
            raise BadArgument(f"wants a number from {low} to {high} in {shown(value)}, not {excerpt(number)}")
    return Operation(*numbers)


def _split(value: Any, separator: str) -> Any:
    """The parts of a word; what is no word stays as it is."""
    if isinstance(value, bytes):
        return value.split(separator.encode(), _MOST_VALUES)
    return value.split(separator, _MOST_VALUES) if isinstance(value, str) else value


def _semaphore_operations(value: Any) -> list[Operation]:
    if not isinstance(value, list):
        raise BadArgument(f"wants a list of operations [num, delta, flags], not {shown(value)}")
    if len(value) > sysv_sem.operations_max():
        raise SynosError(E2BIG, sysv_sem.too_many(len(value)))
    return [semaphore_operation(item) for item in value]


#: Numbers in a row, of which none is octal or hexadecimal.
_decimals = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]]).decode

#: So many values can be of different forms.
_MOST_UNLIKE = 8192


def _values(value: Any) -> list[int]:
    """``v,v,v``, a list, or one number."""
    many = len(value) if isinstance(value, list) else 1 + value.count(b",") if isinstance(value, bytes) else 1
    if many > _MOST_VALUES:
        raise BadArgument(f"wants a value for each semaphore, {_MOST_VALUES} at most, not {many}")
    # One by one, tens of thousands would take tens of milliseconds.
    if isinstance(value, list) and set(map(type, value)) == {int}:
        return value
    if isinstance(value, bytes) and many > 1 and len(value.split(None, 1)) == 1:
        with suppress(ValueError):
            return _decimals(b"[%b]" % value)
    if many > _MOST_UNLIKE:
        raise BadArgument(f"wants plain decimal numbers where there are more than {_MOST_UNLIKE}")
    items = _split(value, ",")
    return [parse_int(item) for item in items] if isinstance(items, list) else [parse_int(items)]


_SEM_FLAGS = flags({name: getattr(abi, name) for name in ("IPC_NOWAIT", "SEM_UNDO")})
_SEM_COMMANDS = _IPC_COMMANDS | {
    name: getattr(abi, name)
    for name in (
        *("GETVAL", "SETVAL", "GETALL", "SETALL", "GETPID", "GETNCNT", "GETZCNT"),
        *("SEM_STAT", "SEM_INFO", "SEM_STAT_ANY"),
    )
}


def _path(value: Any) -> str | Named:
    """A path; bytes that are not UTF-8 as surrogates, as os.fsdecode has them. A door may hand over an object."""
    if isinstance(value, Named):
        return value
    path = data(value)
    if b"\0" in path:
        raise BadArgument(f"wants a path, which has no byte 0, not {shown(path)}")
    return path.decode("utf-8", "surrogateescape")


def _path_or_null(value: Any) -> str | Named | None:
    """A path that may be missing: null, or the word NULL without quotes."""
    return None if value is None or (type(value) is Bare and value == b"NULL") else _path(value)


def _constants(prefix: str) -> dict[str, int]:
    return {name: value for name, value in vars(abi).items() if name.startswith(prefix) and isinstance(value, int)}


_OPEN_FLAGS = _constants("O_")
_AT_FLAGS = {name: value for name, value in _constants("AT_").items() if value >= 0}
_NODES = {"S_IFIFO": abi.S_IFIFO, "S_IFREG": abi.S_IFREG, "S_IFSOCK": abi.S_IFSOCK}
_NODES |= {"S_IFCHR": abi.S_IFCHR, "S_IFBLK": abi.S_IFBLK}
_FCNTL = {name: value for name, value in _constants("F_").items() if name != "F_OK"}
_ACCESS = {"F_OK": abi.F_OK, "R_OK": abi.R_OK, "W_OK": abi.W_OK, "X_OK": abi.X_OK}
_SOCKET_FLAGS = {
    "SOCK_CLOEXEC": abi.O_CLOEXEC,
    "SOCK_NONBLOCK": abi.O_NONBLOCK,
    **{name: getattr(abi, name) for name in ("SOCK_STREAM", "SOCK_DGRAM", "SOCK_SEQPACKET")},
}
_FCNTL_FLAGS = flags(_OPEN_FLAGS | {"FD_CLOEXEC": abi.FD_CLOEXEC} | abi.LOCK_TYPES | abi.SEALS)
_LOCK_TYPE = named_number(abi.LOCK_TYPES)
_WHENCE = named_number(abi.SEEK)
_SIZE = ranged(64)


def _of_counter(prefix: str, **more: int) -> Convert:
    return flags({f"{prefix}_CLOEXEC": abi.O_CLOEXEC, f"{prefix}_NONBLOCK": abi.O_NONBLOCK} | _OPEN_FLAGS | more)


def _fcntl_argument(value: Any) -> int | list[int]:
    """A number, flags, seals, the type of a lock; or a struct flock as a list."""
    if not isinstance(value, list):
        return _FCNTL_FLAGS(value)  # type: ignore[no-any-return]
    if len(value) not in (4, 5):
        raise BadArgument("wants of a struct flock l_type, l_whence, l_start and l_len")
    converts = (_LOCK_TYPE, _WHENCE, ranged(64), ranged(64), ranged(32))
    return [convert(item) for convert, item in zip(converts, value, strict=False)]


def _sizes(value: Any) -> list[int]:
    """Sizes of buffers."""
    items = value if isinstance(value, list) else [value]
    return [_SIZE(item) for item in items]


def _offset(value: Any) -> int | None:
    """What a pointer to an offset leads to, which strace shows in brackets; NULL: there is none."""
    if type(value) is Bare and value == b"NULL":
        return None
    return int(_long(value[0] if isinstance(value, list) and len(value) == 1 else value))


_long = ranged(64)


def _pieces(value: Any) -> list[bytes]:
    """Data, piece by piece."""
    return [data(item) for item in value] if isinstance(value, list) else [data(value)]


def _object_name(value: Any) -> bytes:
    name = data(value)
    if b"\0" in name:
        raise BadArgument("holds a byte 0, which ends a name")
    return name


def _words(value: Any) -> list[bytes]:
    """The arguments of a program, or its environment."""
    words = [data(str(item) if type(item) is int else item) for item in (value if isinstance(value, list) else [value])]
    if any(b"\0" in word for word in words):
        raise BadArgument("wants words, in which there is no byte 0")
    return words


def _variables(value: Any) -> dict[bytes, bytes]:
    """Variables of an environment, by name."""
    items = value.items() if isinstance(value, dict) else [word.partition(b"=")[::2] for word in _words(value)]
    return {one: other for name, word in items for one, other in [_words([name, word])]}


def _limit_value(value: Any) -> int:
    """A resource limit; -1 is none."""
    number = _LIMIT(value)
    return -1 if number >= 1 << 63 else number


def _signal(value: Any) -> int:
    """A signal by number, or by name with or without SIG."""
    if isinstance(value, bytes | str) and (word := data(value).decode("utf-8", "replace"))[:1].isalpha():
        value = word if word.startswith("SIG") else f"SIG{word}"
    return int(_SIGNAL(value))


_LIMIT = named_number({"unlimited": -1, "RLIM_INFINITY": -1}, bits=64, wrap=True)
_SIGNAL = named_number(abi.SIGNALS)
_WAIT_OPTIONS = {
    name: getattr(abi, name) for name in ("WNOHANG", "WUNTRACED", "WSTOPPED", "WEXITED", "WCONTINUED", "WNOWAIT")
} | {f"__{name}": getattr(abi, name) for name in ("WALL", "WCLONE", "WNOTHREAD")}
_CLONE_FLAGS = _constants("CLONE_") | {"SIGCHLD": abi.SIGCHLD}

_POSIX_FLAGS = {
    name: getattr(abi, name)
    for name in (
        *("O_RDONLY", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_NONBLOCK", "O_CLOEXEC"),
        "IPC_EPHEMERAL",
    )
}
_NOTIFICATIONS = {name: getattr(abi, name) for name in ("SIGEV_SIGNAL", "SIGEV_NONE", "SIGEV_THREAD")}


def _reaped(value: Any) -> tuple[tuple[int, ...], bool]:
    """Ids of System V objects; and whether the word ``empty`` stands among them."""
    items = value if isinstance(value, list) else [value]
    ids = [item for item in items if item not in (b"empty", "empty")]
    return tuple(map(_ID, ids)), len(ids) < len(items)


def _user(value: Any) -> str:
    """The name of a user, or a number: a user's id."""
    text = data(str(value) if type(value) is int else value).decode("utf-8", "replace")
    if not text or "\0" in text:
        raise BadArgument("wants the name or id of a user")
    return str(_UID(int(text))) if text.isascii() and text.isdigit() else text


_ID = ranged(32)
_UID = ranged(32, signed=False)

KINDS: dict[str, Kind] = {
    "polled": Kind("what:events", _polled, variadic=True),
    "int": Kind("number", ranged(32)),
    "long": Kind("number", ranged(64)),
    "size": Kind("number", ranged(64)),
    "size_t": Kind("number", unsigned_long),
    "data": Kind("data", data),
    "seconds": Kind("seconds", seconds),
    "uid": Kind("number", ranged(32, signed=False)),
    "mode": Kind("mode", ranged(32, signed=False)),
    "key": Kind("key", named_number({"IPC_PRIVATE": abi.IPC_PRIVATE}, wrap=True)),
    "get_flags": Kind("flags", flags(_GET_FLAGS)),
    "msg_flags": Kind("flags", flags(_MSG_FLAGS)),
    "shm_get_flags": Kind("flags", flags(_SHM_GET_FLAGS)),
    "shm_flags": Kind("flags", flags(_SHM_FLAGS)),
    "shm_command": Kind("command", named_number(_SHM_COMMANDS)),
    "address": Kind("address", _address),
    "msg_command": Kind("command", named_number(_MSG_COMMANDS)),
    "operations": Kind("num:delta[:flags]", _semaphore_operations, variadic=True),
    "values": Kind("numbers joined by commas", _values),
    "sem_command": Kind("command", named_number(_SEM_COMMANDS)),
    "timeout": Kind("seconds", times.timeout),
    "name": Kind("name", _object_name),
    "posix_flags": Kind("flags", flags(_POSIX_FLAGS)),
    "notification": Kind("notification", named_number(_NOTIFICATIONS | {"NULL": abi.SIGEV_CANCEL})),
    "clock": Kind("clock", named_number(abi.CLOCKS)),
    "path": Kind("path", _path),
    "object": Kind("object", _path),  # a path below the mount, which leads nowhere else
    "path_or_null": Kind("path", _path_or_null),
    "open_flags": Kind("flags", flags(_OPEN_FLAGS)),
    "socket_flags": Kind("flags", flags(_OPEN_FLAGS | _SOCKET_FLAGS)),
    "node_mode": Kind("mode", flags(_NODES)),
    "dirfd": Kind("descriptor or AT_FDCWD", named_number({"AT_FDCWD": abi.AT_FDCWD}, wrap=True)),
    "at_flags": Kind("flags", flags(_AT_FLAGS)),
    "resolve_flags": Kind("flags", flags(_constants("RESOLVE_"))),
    "rename_flags": Kind("flags", flags(_constants("RENAME_"))),
    "access_mode": Kind("mode", flags(_ACCESS)),
    "statx_mask": Kind("mask", flags(abi.STATX)),
    "xattr_flags": Kind("flags", flags(_constants("XATTR_"))),
    "time_ns": Kind("nanoseconds", named_number({"UTIME_NOW": abi.UTIME_NOW, "UTIME_OMIT": abi.UTIME_OMIT}, bits=64)),
    "whence": Kind("whence", _WHENCE),
    "fcntl_command": Kind("command", named_number(_FCNTL)),
    "fcntl_argument": Kind("argument", _fcntl_argument),
    "words": Kind("words", _words, variadic=True),
    "environment": Kind("words", _words),
    "variables": Kind("NAME=value", _variables, rest=True),
    "signal": Kind("signal", _signal),
    "waiting_thread": Kind("tid or all", named_number({"all": -1})),
    "errno": Kind("errno", named_number({name: number for number, name in errorcode.items()})),
    "wait_options": Kind("options", flags(_WAIT_OPTIONS)),
    "idtype": Kind("idtype", named_number(_constants("P_"))),
    "priority": Kind("which", named_number(abi.PRIORITIES)),
    "limit": Kind("limit", named_number(abi.LIMITS)),
    "limit_value": Kind("number or unlimited", _limit_value),
    "usage": Kind("who", named_number(abi.RUSAGE)),
    "clone_flags": Kind("flags", flags(_CLONE_FLAGS)),
    "sizes": Kind("sizes", _sizes, variadic=True),
    "pieces": Kind("data", _pieces, variadic=True),
    "rwf_flags": Kind("flags", flags(abi.RWF)),
    "falloc_mode": Kind("mode", flags(abi.FALLOC)),
    "sync_flags": Kind("flags", flags(abi.SYNC_FILE_RANGE)),
    "advice": Kind("advice", named_number(abi.FADVISE)),
    "flock_operation": Kind("operation", flags(_constants("LOCK_"))),
    "memfd_flags": Kind("flags", flags(abi.MFD)),
    "splice_flags": Kind("flags", flags(_constants("SPLICE_F_"))),
    "close_range_flags": Kind("flags", flags(_constants("CLOSE_RANGE_"))),
    "eventfd_flags": Kind("flags", _of_counter("EFD", EFD_SEMAPHORE=abi.EFD_SEMAPHORE)),
    "timerfd_flags": Kind("flags", _of_counter("TFD")),
    "timer_flags": Kind(
        "flags",
        flags(
            {
                "TFD_TIMER_ABSTIME": abi.TFD_TIMER_ABSTIME,
                "TFD_TIMER_CANCEL_ON_SET": abi.TFD_TIMER_CANCEL_ON_SET,
            }
        ),
    ),
    "itimerspec": Kind("seconds", times.itimerspec),
    "timespec": Kind("seconds", times.timespec),
    "timeval": Kind("seconds", times.timeval),
    "timevals": Kind("seconds", times.timevals),
    "utimbuf_time": Kind("seconds", times.utimbuf_time),
    "utimbuf": Kind("seconds", times.utimbuf),
    "offset": Kind("offset", _offset),
    "count64": Kind("number", ranged(64, signed=False)),
    "reaped": Kind("ids", _reaped, variadic=True),
    "user": Kind("user", _user),
    "ioctl_request": Kind("request", named_number({"FIONREAD": abi.FIONREAD}, bits=64)),
}
