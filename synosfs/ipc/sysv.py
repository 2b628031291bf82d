"""What the System V families have in common on the host: ids, and their slots in the kernel's tables."""

from collections.abc import Callable
from errno import EIDRM, EINVAL
from typing import Any, TypeVar

from synosfs.errors import SynosError

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
