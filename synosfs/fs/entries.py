"""What the kernel is told of nodes: the attributes of one, and the names in an open directory."""

import itertools
import stat
import time
from collections.abc import Iterable, Iterator

from pyfuse3 import EntryAttributes

from synosfs.fs.node import Attributes, Node, Who
from synosfs.process.accounts import Account

#: The time of files that have none of their own.
_STARTED_NS = time.time_ns()


def entry_attributes(inode: int, node: Node, attributes: Attributes) -> EntryAttributes:
    mode, uid, gid, size, atime_ns, mtime_ns, ctime_ns = attributes
    entry = EntryAttributes()
    entry.st_ino = inode
    entry.st_mode = mode
    entry.st_nlink = 2 if stat.S_ISDIR(mode) else 1
    entry.st_uid = uid
    entry.st_gid = gid
    entry.st_size = size
    entry.st_atime_ns = atime_ns or _STARTED_NS
    entry.st_mtime_ns = mtime_ns or _STARTED_NS
    entry.st_ctime_ns = ctime_ns or _STARTED_NS
    entry.entry_timeout = 0.0
    entry.attr_timeout = node.attr_timeout
    return entry


class Listing:
    """An open directory, and for whom: what it holds is found as it is read, a request's worth at a time."""

    def __init__(self, directory: Node, who: Who, account: Account, entries: Iterable[tuple[str, Node]]) -> None:
        self.directory = directory
        self.who = who
        self.account = account
        self._more = iter(entries)
        self._found: list[tuple[str, Node]] = []

    def since(self, position: int) -> Iterator[tuple[int, tuple[str, Node]]]:
        """The entries from this place on, each with its place. The same place gives the same entry again."""
        for place in itertools.count(position):
            while place >= len(self._found):
                following = next(self._more, None)
                if following is None:
                    return
                self._found.append(following)
            yield place, self._found[place]
