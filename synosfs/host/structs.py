"""Kernel structures, each described once: what is read out of one and what is put into one go by the same fields.

``struct`` unpacks all fields in one step, which takes a tenth of asking a ctypes.Structure for each.
"""

import ctypes
import struct
from collections.abc import Mapping
from typing import Any


class Layout:
    """A C structure: its fields in order, each with its format as ``struct`` has it, native sizes and alignment.

    A name that begins with an underscore is padding (``2x``), or aligns what follows (``0L``).
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._struct = struct.Struct("@" + "".join(fields.values()))
        self.fields = tuple(name for name in fields if not name.startswith("_"))
        self.size = self._struct.size

    def buffer(self, **values: int) -> "ctypes.Array[ctypes.c_char]":
        """A structure in memory, with these fields set and the rest 0."""
        buffer = ctypes.create_string_buffer(self.size)
        if values:
            self._struct.pack_into(buffer, 0, *(values.get(name, 0) for name in self.fields))
        return buffer

    def unpack(self, buffer: "ctypes.Array[ctypes.c_char]") -> tuple[Any, ...]:
        """All fields, in order."""
        return self._struct.unpack_from(buffer)

    def named(self, buffer: "ctypes.Array[ctypes.c_char]") -> dict[str, int]:
        """All fields by name."""
        return dict(zip(self.fields, self.unpack(buffer), strict=True))


#: ``struct ipc64_perm`` of <asm-generic/ipcbuf.h>; the key unsigned.
IPC_PERM = {
    **dict.fromkeys(("key", "uid", "gid", "cuid", "cgid", "mode"), "I"),
    "seq": "H",
    "_pad": "2x",
    "_align": "0L",
    "_unused": "16x",
}
