"""What the calls here have done with each object: the host counts no calls.

The usage of a System V object is kept by its kind and id, that of a POSIX queue by its name. It goes with the object:
when it is removed here, when a look at all of its kind misses it, and when its id or name is a new one's. Of objects
that native programs remove while nobody looks, the usages of so many are kept that a full namespace has room twice;
then the older half is forgotten. What a descriptor stands for has its usage at hand (``process.descriptors``).
"""

from collections.abc import Container, Mapping

#: So many usages of a kind are kept at most: twice what a namespace has by default (SHMMNI, MSGMNI, SEMMNI: 32,000).
_MOST = 1 << 16


class Usage:
    """The calls on one object, those that failed among them, the bytes that they moved, how many were parked, and how
    long they ran and were parked. The dispatcher adds to the fields directly: this is its hot path.
    """

    __slots__ = ("bytes", "calls", "errors", "parked_ns", "running_ns", "serial", "waits")

    def __init__(self, serial: int = 0) -> None:
        #: Which in the order of all that were ever begun.
        self.serial = serial
        self.calls = self.errors = self.bytes = self.waits = 0
        self.running_ns = self.parked_ns = 0


#: That of an object on which nobody here has called.
UNUSED = Usage()


class Usages:
    """Those of the objects that have a name. Used from the trio thread only."""

    def __init__(self) -> None:
        self._of: dict[str, dict[int | str, Usage]] = {"msg": {}, "sem": {}, "shm": {}, "mqueue": {}}
        #: The serial number of the latest.
        self.latest = 0

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __contains__(self, kind: str) -> bool:
        return kind in self._of

    def __getitem__(self, kind: str) -> Mapping[int | str, Usage]:
        """Those of a kind by id or name, the same mapping for ever."""
        return self._of[kind]

    def of(self, kind: str, number: int | str) -> Usage:
        """That of an object, to look at."""
        return self._of[kind].get(number, UNUSED)

    def opened(self, kind: str, name: str, *, new: bool) -> Usage:
        """That of an object which has been opened by name, perhaps as a new one."""
        return (None if new else self._of[kind].get(name)) or self.begin(kind, name)

    def begin(self, kind: str, number: int | str) -> Usage:
        """Nothing has been done with it yet."""
        usages = self._of[kind]
        self.latest += 1
        usage = usages[number] = Usage(self.latest)
        if len(usages) > _MOST:
            for old in list(usages)[: _MOST // 2]:
                del usages[old]
        return usage

    def gone(self, kind: str, number: int | str) -> None:
        """It has been removed."""
        if kind in self._of:
            self._of[kind].pop(number, None)

    def keep(self, kind: str, there: Container[int | str], latest: int) -> None:
        """A look at all of this kind found ``there``, and began when ``latest`` was: what is older, and of none of
        them, is forgotten.
        """
        usages = self._of[kind]
        for number in [n for n, usage in usages.items() if n not in there and usage.serial <= latest]:
            del usages[number]
