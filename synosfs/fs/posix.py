"""What the directories of the POSIX families (``msgq/posix/``, ``sem/posix/``) have in common: names are the host's."""

import os
import stat
from dataclasses import dataclass
from errno import EACCES, EPERM

from synosfs.errors import SynosError
from synosfs.fs.node import FOREVER, Attributes, Node, Who, credentials_of
from synosfs.host import rights
from synosfs.kernel import Kernel


@dataclass(frozen=True)
class PosixNames(Node):
    """A directory of objects by name, whoever made them."""

    kernel: Kernel

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        # Not sticky: who may remove an object is the host's to say.
        return Attributes(stat.S_IFDIR | 0o777)

    def unlink(self, name: str, who: Who) -> None:
        try:
            with rights.acting_as(credentials_of(who)):
                self.remove(host_name(name))
        except SynosError as error:
            if error.errno != EACCES:
                raise
            # mq_unlink and sem_unlink say EACCES where unlink(2) says EPERM.
            raise SynosError(EPERM, error.message) from None

    def remove(self, name: bytes) -> None:
        """Remove the object with the calling thread's rights."""
        raise NotImplementedError


def host_name(name: str) -> bytes:
    """The name as the host's calls take it."""
    return b"/" + os.fsencode(name)


def may_read(found: os.stat_result, who: Who) -> bool:
    """Whether the mode plainly lets ``who`` read: supplementary groups are not looked at."""
    if who.uid == 0:
        return True
    if who.uid == found.st_uid:
        return bool(found.st_mode & stat.S_IRUSR)
    return bool(found.st_mode & (stat.S_IRGRP if who.gid == found.st_gid else stat.S_IROTH))
