"""Where a MessagePack object ends, for a stream that delivers objects in pieces or several in one.

``ObjectEnd`` goes on where it stopped, so no byte is looked at twice however small the pieces. It counts the items that
must still follow and does not nest: depth costs nothing, and a header that promises too much is seen at once. Whether
the object makes sense is the decoder's business.
"""

import sys


class ObjectEnd:
    """The search for the end of one object in data that grows behind it."""

    __slots__ = ("missing", "passed", "position")

    def __init__(self, position: int = 0) -> None:
        #: Items that must still follow, and the offset of the first of them, which may lie behind the data.
        self.missing = 1
        self.position = position
        #: Items that have been passed over.
        self.passed = 0

    @property
    def at_least(self) -> int:
        """The least number of bytes the whole object takes: no item is smaller than one."""
        return self.position + self.missing

    def search(self, data: bytes | bytearray, most: int = sys.maxsize) -> bool | None:
        """Whether the object is complete in ``data``, which has only grown since the last search.

        None: ``most`` items were passed over and it is not known yet; search on.
        """
        size, position, missing, left = len(data), self.position, self.missing, most
        while missing and position < size:
            left -= 1
            if left < 0:
                self.position, self.missing = position, missing
                self.passed += most
                return None
            layout = _LAYOUTS[data[position]]
            if layout is None:
                raise ValueError(f"invalid byte 0x{data[position]:02x} at byte {position}")
            fixed, width, children, per_count = layout
            if width:
                if position + 1 + width > size:
                    break
                count = int.from_bytes(data[position + 1 : position + 1 + width], "big")
                if per_count:
                    children = count * per_count
                else:
                    fixed += count
            position += fixed
            missing += children - 1
        self.position, self.missing = position, missing
        self.passed += most - left
        return not missing and position <= size


def _layouts() -> list[tuple[int, int, int, int] | None]:
    """By its first byte, an item's size, the width of its count, items in it, items per count (0: it counts bytes)."""
    layouts: list[tuple[int, int, int, int] | None] = [(1, 0, 0, 0)] * 256
    for n in range(16):
        layouts[0x80 + n] = (1, 0, 2 * n, 0)  # map
        layouts[0x90 + n] = (1, 0, n, 0)  # array
    for n in range(32):
        layouts[0xA0 + n] = (1 + n, 0, 0, 0)  # str
    for n, width in enumerate((1, 2, 4)):
        layouts[0xC4 + n] = layouts[0xD9 + n] = (1 + width, width, 0, 0)  # bin, str
        layouts[0xC7 + n] = (2 + width, width, 0, 0)  # ext: one byte of type behind the count
    layouts[0xCA] = (5, 0, 0, 0)  # float
    layouts[0xCB] = (9, 0, 0, 0)
    for n in range(4):
        layouts[0xCC + n] = layouts[0xD0 + n] = (1 + (1 << n), 0, 0, 0)  # uint, int
    for n in range(5):
        layouts[0xD4 + n] = (2 + (1 << n), 0, 0, 0)  # fixext
    for n, width in enumerate((2, 4)):
        layouts[0xDC + n] = (1 + width, width, 0, 1)  # array
        layouts[0xDE + n] = (1 + width, width, 0, 2)  # map
    layouts[0xC1] = None
    return layouts


_LAYOUTS = _layouts()
