"""poll(2), over any mix of descriptors, queues and semaphores."""

import re
import select
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from errno import EINVAL, EOPNOTSUPP
from functools import partial
from typing import NamedTuple

from synosfs.errors import SynosError, WouldBlock
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.process.descriptors import Description, held
from synosfs.syscall_gate import watches
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.readiness import (
    ALWAYS,
    DescriptorSource,
    Fixed,
    Look,
    PosixSemaphoreSource,
    QueueSource,
    SemaphoreSource,
    Source,
    with_rights,
)
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import Until

#: One call can poll so many different things: a look at all of them is one step, some 20 ms.
_MOST_THINGS = 4096


class _Polled(NamedTuple):
    """One thing to poll; ``description`` is what must not be closed meanwhile, if the thing has one."""

    source: Source
    description: Description | None = None


def sys_poll(caller: Caller, things: list[tuple[str, int]]) -> Until:
    """Each thing is named by ``3`` a descriptor, ``msgq/0`` or ``msgq/0@7`` a queue, ``sem/3.0`` a semaphore.

    As in poll(2), a number that is not open is POLLNVAL, and a negative one is passed over. A thing that is named often
    is looked at, and waited for, once.
    """
    polled: dict[Hashable, _Polled] = {}
    wanted: dict[Hashable, int] = {}
    asked: list[tuple[Hashable, int]] = []
    for what, selected in things:
        thing, events = _polled(caller, what), selected | ALWAYS
        key = thing.source.key
        polled.setdefault(key, thing)
        wanted[key] = wanted.get(key, 0) | events
        asked.append((key, events))
    if len(polled) > _MOST_THINGS:
        raise SynosError(EINVAL, f"poll: {len(polled)} different things are more than {_MOST_THINGS}")

    def look() -> Reply:
        shared = Look()
        ready = {key: thing.source.ready(wanted[key], shared) for key, thing in polled.items()}
        revents = [ready[key] & events for key, events in asked]
        return Reply(sum(map(bool, revents)), {"revents": revents})

    def attempt() -> Reply:
        reply = look()
        if not reply.ret:
            raise WouldBlock(EINVAL, "nothing is ready")
        return reply

    # The dispatcher lends the caller's rights for the attempt, and for nothing that comes later.
    look_later = partial(with_rights, caller.credentials, look)

    async def wait() -> Reply:
        with ExitStack() as while_waiting:
            for thing in polled.values():
                if thing.description is not None:
                    while_waiting.enter_context(held(thing.description))
            while not (reply := look_later()).ret:
                await watches.of(caller.parking).any_of(
                    watch for key, thing in polled.items() for watch in thing.source.watches(wanted[key])
                )
            return reply

    return Until(wait, attempt, on_timeout=look_later)


def _polled(caller: Caller, what: str) -> _Polled:
    for pattern, make in _SOURCES.items():
        if match := re.fullmatch(pattern, what):
            return make(caller, *match.groups())
    raise SynosError(EINVAL, f"poll: '{what}' is no descriptor, msgq/<msqid>[@type] or sem/<semid>.<num>")


def _descriptor(caller: Caller, number: str) -> _Polled:
    if int(number) < 0:
        return _Polled(Fixed(0))
    if int(number) not in caller.descriptors:
        return _Polled(Fixed(select.POLLNVAL))
    description = caller.descriptors.get(int(number))
    if description.file_type == "sem":
        return _Polled(PosixSemaphoreSource(description.thing), description)
    if description.host_fd < 0:
        # 0, 1 and 2 are the process's own: an end of a pipe that the daemon held meanwhile would not be closed.
        raise SynosError(EOPNOTSUPP, f"poll: {number} is a {description.file_type} stream; its process can poll it")
    return _Polled(DescriptorSource(description.host_fd), description)


def _queue(caller: Caller, msqid: str, mtype: str | None) -> _Polled:
    return _Polled(QueueSource(caller.parking, caller.credentials, MessageQueue(int(msqid)), int(mtype or 0)))


def _semaphore(caller: Caller, semid: str, num: str) -> _Polled:
    return _Polled(SemaphoreSource(caller.parking, caller.credentials, SemaphoreSet(int(semid)), int(num)))


_SOURCES: dict[str, Callable[..., _Polled]] = {
    r"(-?[0-9]{1,9})": _descriptor,
    r"msgq/([0-9]{1,9})(?:@(-?[0-9]{1,18}))?": _queue,
    r"sem/([0-9]{1,9})\.([0-9]{1,5})": _semaphore,
}
