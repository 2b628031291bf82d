"""What a process hands on: to its children at fork(2), to a program at execve(2)."""

import errno
from collections.abc import Callable
from functools import partial

from synosfs.errors import SynosError
from synosfs.host import heritage, rights
from synosfs.host.path import Place
from synosfs.process.descriptors import DescriptorTable
from synosfs.process.forks import Birth, Program
from synosfs.process.table import Process


def birth(
    process: Process,
    place: Place,
    umask: int,
    descriptors: DescriptorTable,
    program: Callable[[dict[bytes, bytes]], Program] | None = None,
) -> Birth:
    """What makes a child of the process with these descriptors, when it is called in a thread. EAGAIN: too many."""
    streams = sorted({description.thing for description in descriptors.own()})
    inherit = partial(heritage.of, place, umask, place.credentials.capabilities, streams)
    return Birth(process.forks.child(process), inherit, program)


def environment(process: Process) -> dict[bytes, bytes]:
    """What a child of the process finds in its environment. It may sleep: for a thread."""
    if process.environment is not None:
        return process.environment
    if process.child is not None and process.child.waits:
        return process.child.environment
    try:
        with rights.acting_as_daemon():
            return heritage.environment(process.pid)
    except ProcessLookupError:
        raise SynosError(errno.ESRCH, f"process {process.pid} has ended") from None
