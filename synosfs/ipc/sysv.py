"""What the System V families have in common on the host: ids, and their slots in the kernel's tables."""

import errno
from collections.abc import Callable
from typing import TypeVar

from synosfs.errors import SynosError

T = TypeVar("T")

#: The bits of an id that are its slot in the kernel's table (ipc_mni_shift: 15, or 24 with ipcmni_extend).
_SLOT_MASKS = (0x7FFF, 0xFFFFFF)


def in_its_slot(number: int, stat_slot: Callable[[int], tuple[int, T]]) -> T | None:
    """The status of the object with this id, by its slot; None when there is none.

    ``stat_slot`` gives the id and the status of the object in a slot, EINVAL when there is none. It is how ``ipcs``
    shows every object to everybody, whatever its permissions (MSG_STAT_ANY and its kin).
    """
    for mask in _SLOT_MASKS:
        try:
            found, status = stat_slot(number & mask)
        except SynosError as error:
            if error.errno != errno.EINVAL:
                raise
            continue
        if found == number:
            return status
    return None
