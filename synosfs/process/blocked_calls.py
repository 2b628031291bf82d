"""A call that a thread of the host sleeps in, as strace(1) writes it, and the object that it is about, by its path
below the mount where it has one there. Pure.
"""

from collections.abc import Callable
from typing import NamedTuple

from synosfs.errors import printable
from synosfs.ipc.sysv_sem import Operation
from synosfs.process.sleepers import Sleeper


class Object(NamedTuple):
    """What a call waits for: its kind ('' for none that is told of), its id, inode number or name, and which semaphore
    of a set (-1: not known which). Kinds are ``msg``, ``sem``, that one be ``zero``, ``mqueue``, ``semaphore``
    (POSIX), a semaphore in a file of ``memory``, ``data`` in a pipe or ``room``, and ``fifo``.
    """

    kind: str = ""
    name: int | str = 0
    num: int = -1

    def __str__(self) -> str:
        if not self.kind:
            return "-"
        number = f"[{self.num}]" if self.num >= 0 else ""
        return printable(_FORMS[self.kind].format(self.name)) + number


#: As names in the mount; a pipe as /proc has it.
_FORMS = {
    "msg": "msgq/sysv/{}",
    "sem": "sem/sysv/{}",
    "zero": "sem/sysv/{}",
    "mqueue": "msgq/posix/{}",
    "semaphore": "sem/posix/{}",
    "memory": "shm/posix/{}",
    "data": "pipe:[{}]",
    "room": "pipe:[{}]",
    "fifo": "{}",
}

NOTHING = Object()


def about(sleeper: Sleeper) -> Object:
    """What the call is about."""
    first = _int(sleeper.args[0])
    match sleeper.call:
        case "msgsnd" | "msgrcv":
            return Object("msg", first)
        case "semop" | "semtimedop":
            return Object("sem", first)
        case "mq_timedsend" | "mq_timedreceive":
            return Object("mqueue", sleeper.file.lstrip("/"))
        case "futex":
            is_named = sleeper.file.startswith("sem.")
            return Object("semaphore" if is_named else "memory", sleeper.file.removeprefix("sem."))
        case "read" | "readv" | "write" | "writev":
            if sleeper.file.startswith("pipe:["):
                inode = int(sleeper.file[len("pipe:[") : -1])
                return Object("data" if sleeper.call.startswith("read") else "room", inode)
            return Object("fifo", sleeper.file)
    return NOTHING


def shown(sleeper: Sleeper) -> str:
    """The call."""
    return f"{sleeper.call}({', '.join(_ARGUMENTS[sleeper.call](sleeper))})"


def _semop(sleeper: Sleeper) -> list[str]:
    semid, address, count = sleeper.args[:3]
    operations = _pointer(address)
    if sleeper.operations is not None:
        operations = f"[{', '.join(repr(Operation(*each)) for each in sleeper.operations)}]"
    return [str(_int(semid)), operations, str(count)]


def _descriptor(sleeper: Sleeper) -> str:
    return f"{_int(sleeper.args[0])}<{printable(sleeper.file)}>"


def _msgrcv(sleeper: Sleeper) -> list[str]:
    msqid, address, size, mtype, flags = sleeper.args[:5]
    return [str(_int(msqid)), _pointer(address), str(size), str(_long(mtype)), _flags(flags, _MSG_FLAGS)]


def _futex(sleeper: Sleeper) -> list[str]:
    address, operation, value, timeout, _, bits = sleeper.args
    name = "FUTEX_WAIT_BITSET" if operation & ~_CLOCK_REALTIME == _WAIT_BITSET else "FUTEX_WAIT"
    realtime = "|FUTEX_CLOCK_REALTIME" if operation & _CLOCK_REALTIME else ""
    arguments = [_pointer(address), name + realtime, str(value & 0xFFFFFFFF), _pointer(timeout)]
    if name == "FUTEX_WAIT":
        return arguments
    every = bits & 0xFFFFFFFF == 0xFFFFFFFF
    return [*arguments, "NULL", "FUTEX_BITSET_MATCH_ANY" if every else f"{bits & 0xFFFFFFFF:#x}"]


_CLOCK_REALTIME, _WAIT_BITSET = 256, 9
_MSG_FLAGS = {"MSG_NOERROR": 0o10000, "MSG_EXCEPT": 0o20000}


def _transfer(sleeper: Sleeper) -> list[str]:
    return [_descriptor(sleeper), _pointer(sleeper.args[1]), str(sleeper.args[2])]


def _mq(sleeper: Sleeper) -> list[str]:
    _, address, size, priority, timeout = sleeper.args[:5]
    last = str(priority & 0xFFFFFFFF) if sleeper.call == "mq_timedsend" else _pointer(priority)
    return [_descriptor(sleeper), _pointer(address), str(size), last, _pointer(timeout)]


_ARGUMENTS: dict[str, Callable[[Sleeper], list[str]]] = {
    "msgsnd": lambda s: [str(_int(s.args[0])), _pointer(s.args[1]), str(s.args[2]), _flags(s.args[3], {})],
    "msgrcv": _msgrcv,
    "semop": _semop,
    "semtimedop": lambda s: [*_semop(s), _pointer(s.args[3])],
    "mq_timedsend": _mq,
    "mq_timedreceive": _mq,
    "futex": _futex,
    **dict.fromkeys(("read", "write", "readv", "writev"), _transfer),
}


def _pointer(address: int) -> str:
    return f"{address:#x}" if address else "NULL"


def _flags(value: int, names: dict[str, int]) -> str:
    value &= 0xFFFFFFFF
    words = [name for name, bit in names.items() if value & bit]
    rest = value & ~sum(names.values())
    return "|".join(words + [f"{rest:#x}"] * bool(rest)) or "0"


def _int(value: int) -> int:
    """A C int, of the register that it came in."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _long(value: int) -> int:
    return (value & (1 << 64) - 1 ^ 1 << 63) - (1 << 63)
