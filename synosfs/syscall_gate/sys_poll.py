"""poll(2), over any mix of descriptors, queues and semaphore sets."""

import re
from collections.abc import Callable
from errno import EBADF, EINVAL
from functools import partial

from synosfs.errors import SynosError, WouldBlock
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.syscall_gate.parking import Caller, Until
from synosfs.syscall_gate.readiness import ALWAYS, DescriptorSource, QueueSource, Source, first_of
from synosfs.syscall_gate.record import Reply


def sys_poll(caller: Caller, things: list[tuple[str, int]]) -> Until:
    """Each thing is named by ``3`` a descriptor, ``msgq/0`` or ``msgq/0@7`` a queue, ``sem/3.0`` a semaphore."""
    sources = [(_source(caller, what), events | ALWAYS) for what, events in things]

    def look() -> Reply:
        revents = [source.ready() & events for source, events in sources]
        return Reply(sum(map(bool, revents)), {"revents": revents})

    def attempt() -> Reply:
        reply = look()
        if not reply.ret:
            raise WouldBlock(EINVAL, "nothing is ready")
        return reply

    async def wait() -> Reply:
        reply = look()
        while not reply.ret:
            await first_of([partial(source.wait, events) for source, events in sources])
            reply = look()
        return reply

    return Until(wait, attempt, on_timeout=look)


def _source(caller: Caller, what: str) -> Source:
    for pattern, make in _SOURCES.items():
        if match := re.fullmatch(pattern, what):
            return make(caller, *match.groups())
    raise SynosError(EINVAL, f"poll: '{what}' is no descriptor, msgq/<msqid>[@type] or sem/<semid>.<num>")


def _descriptor(caller: Caller, number: str) -> Source:
    description = caller.process.descriptors.get(int(number))
    if description.host_fd < 0:
        raise SynosError(EBADF, f"poll: a descriptor of type {description.file_type} cannot be polled")
    return DescriptorSource(description.host_fd)


def _queue(caller: Caller, msqid: str, mtype: str | None) -> Source:
    return QueueSource(caller.parking, caller.credentials, MessageQueue(int(msqid)), int(mtype or 0))


_SOURCES: dict[str, Callable[..., Source]] = {
    r"([0-9]{1,9})": _descriptor,
    r"msgq/([0-9]{1,9})(?:@(-?[0-9]{1,18}))?": _queue,
}
