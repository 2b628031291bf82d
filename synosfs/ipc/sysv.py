"""What the System V families have in common on the host: keys, ids, ownership, and slots in the kernel's tables."""

import re
from collections.abc import Callable, Iterator
from errno import EIDRM, EINVAL, ENOENT
from typing import Any, NamedTuple, Protocol, TypeVar

from synosfs.errors import SynosError
from synosfs.host.abi import IPC_PRIVATE

Status = TypeVar("Status", bound=tuple[Any, ...])

#: The bits of an id that are its slot in the kernel's table (ipc_mni_shift: 15, or 24 with ipcmni_extend).
_SLOT_MASKS = (0x7FFF, 0xFFFFFF)


def in_its_slot(number: int, stat_slot: Callable[[int], Status]) -> Status | None:
    """The status of the object with this id, by its slot; None when there is none.

    ``stat_slot`` gives the status of the object in a slot, of which the id is the first field, or EINVAL. It is how
    ``ipcs`` shows every object to everybody, whatever its permissions (MSG_STAT_ANY and its kin).
    """
    for mask in _SLOT_MASKS:
        try:
            found = stat_slot(number & mask)
        except SynosError as error:
            if error.errno not in (EINVAL, EIDRM):  # EIDRM: it is being removed
                raise
            continue
        if found[0] == number:
            return found
    return None


class Perm(Protocol):
    """``struct ipc_perm`` in every family's status; the key as an unsigned number."""

    @property
    def key(self) -> int: ...
    @property
    def cuid(self) -> int: ...
    @property
    def cgid(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def mode(self) -> int: ...


def new_perm(now: Perm, uid: int | None, gid: int | None, mode: int | None) -> dict[str, int]:
    """The fields of ``ipc_perm`` for IPC_SET; what is None stays as it is."""
    return {
        "uid": now.uid if uid is None else uid,
        "gid": now.gid if gid is None else gid,
        "mode": now.mode if mode is None else mode,
    }


def table_of(family: str) -> Iterator[bytes]:
    """The lines of ``/proc/sysvipc/<family>`` (msg, sem, shm) without the header: a line an object (``sysvipc(7)``).

    They are read as they are taken: the host takes 1 us to write one, and there can be tens of thousands.
    """
    with open(f"/proc/sysvipc/{family}", "rb", buffering=_PIECE) as table:
        next(table, b"")
        yield from table


#: So much is read at once, in bytes: some hundred lines.
_PIECE = 16 << 10


class Listed(NamedTuple):
    """An object in a list of all: its id, its unsigned key, its owner."""

    number: int
    key: int
    uid: int


#: Where the owner stands in a line.
_UID = {"msg": 7, "sem": 4, "shm": 7}


def listing(family: str) -> Iterator[Listed]:
    """Every object of the namespace in the kernel's order, whoever made it."""
    uid = _UID[family]
    for line in table_of(family):
        fields = line.split(None, 8)
        yield Listed(int(fields[1]), int(fields[0]) & 0xFFFFFFFF, int(fields[uid]))


class Limits(NamedTuple):
    """What a family's ``*_INFO`` commands answer by the C names, and the highest used slot."""

    highest: int
    values: dict[str, int]


def key_in(name: str) -> int | None:
    """A key as it stands in a name, 0x and up to 8 hexadecimal digits, as the signed number that the host takes; None
    where there is none.
    """
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", name):
        return None
    key = int(name, 16)
    return key - (1 << 32) if key >> 31 else key


def refuse_private(key: int) -> None:
    """ENOENT: IPC_PRIVATE always makes an object and finds none."""
    if key == IPC_PRIVATE:
        raise SynosError(ENOENT, "IPC_PRIVATE is not a key that can be looked up")
