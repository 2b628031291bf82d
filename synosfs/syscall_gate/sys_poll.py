"""poll(2), over any mix of descriptors, queues and semaphores."""

import itertools
import re
import select
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from errno import EINVAL, EOPNOTSUPP
from typing import NamedTuple

from synosfs.errors import SynosError, WouldBlock
from synosfs.ipc.sysv_msg import MessageQueue
from synosfs.ipc.sysv_sem import SemaphoreSet
from synosfs.process.descriptors import MOST_DESCRIPTORS, Description, held
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.readiness import (
    ALWAYS,
    IN,
    OUT,
    DescriptorSource,
    Fixed,
    Look,
    PosixSemaphoreSource,
    QueueSource,
    SemaphoreSource,
    Source,
    Watch,
    with_rights,
)
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import Until

#: One call can poll so many different things: as poll(2), RLIMIT_NOFILE.
_MOST_THINGS = MOST_DESCRIPTORS

#: So many are looked at in one step: some 2 ms.
_AT_ONCE = 64


class _Polled(NamedTuple):
    """One thing to poll; ``description`` is what must not be closed meanwhile, if the thing has one."""

    source: Source
    description: Description | None = None


def sys_poll(caller: Caller, things: list[tuple[str, int]]) -> Until:
    """Each thing is named by ``3`` a descriptor, ``msgq/0`` or ``msgq/0@7`` a queue, ``sem/3.0`` a semaphore.

    As in poll(2), a number that is not open is POLLNVAL, and a negative one is passed over. A thing that is named often
    is looked at, and waited for, once.
    """
    poll = _Poll(caller, things)
    return Until(poll.wait, poll.attempt, on_timeout=poll.answer_late)


class _Poll:
    """One call. The dispatcher lends the caller's rights for ``attempt``, and for nothing that comes later."""

    def __init__(self, caller: Caller, things: list[tuple[str, int]]) -> None:
        self._caller = caller
        self._polled: dict[Hashable, _Polled] = {}
        self._wanted: dict[Hashable, int] = {}
        #: What the last look has found.
        self._ready: dict[Hashable, int] = {}
        self._unsure: set[Hashable] = set()
        self._things = things
        self._different = dict.fromkeys(things)
        #: What each of them means, once that has been found out.
        self._meant: dict[tuple[str, int], tuple[Hashable, int]] = {}

    def attempt(self) -> Reply:
        # Much is looked at later, in slices. Who cannot wait has to be answered now.
        if len(self._different) <= _AT_ONCE or self._caller.nonblock:
            for _ in itertools.chain(self._find(), self._look(Look())):
                pass
            reply = self._reply()
            if reply.ret and (not self._unsure or self._caller.nonblock):
                return reply
        raise WouldBlock(EINVAL, "nothing is ready")

    async def wait(self) -> Reply:
        registry = self._caller.watches
        if not self._meant:
            await registry.step_through(self._caller.credentials, self._find())
        with ExitStack() as while_waiting:
            for thing in self._polled.values():
                if thing.description is not None:
                    while_waiting.enter_context(held(thing.description))
            await registry.step_through(self._caller.credentials, self._look_thoroughly())
            while not (reply := self._reply()).ret:
                source_of: dict[Watch, Hashable] = {}
                await registry.step_through(self._caller.credentials, self._watch(source_of))
                told = await registry.any_of(source_of)
                await registry.step_through(self._caller.credentials, self._look(Look()))
                for watch in told:
                    if (key := source_of[watch]) in self._unsure:
                        self._ready[key] |= watch.tells
            return reply

    def answer_late(self) -> Reply:
        """The time is over."""
        if len(self._polled) <= _AT_ONCE and not self._unsure:
            with_rights(self._caller.credentials, lambda: [*self._look(Look())])
        return self._reply()

    def _find(self) -> Iterator[None]:
        """Find out what is named; a step each."""
        named: dict[str, _Polled] = {}
        for thing in self._different:
            what, selected = thing
            if what not in named:
                named[what] = _polled(self._caller, what)
            self._meant[thing] = key, events = named[what].source.key, selected | ALWAYS
            self._polled.setdefault(key, named[what])
            self._wanted[key] = self._wanted.get(key, 0) | events
            yield
        if len(self._polled) > _MOST_THINGS:
            raise SynosError(EINVAL, f"poll: {len(self._polled)} different things are more than {_MOST_THINGS}")

    def _look(self, look: Look) -> Iterator[None]:
        """At all of them; a step each."""
        for key in self._polled:
            self._look_at(key, look)
            yield
        self._unsure = set(look.unsure)

    def _look_thoroughly(self) -> Iterator[None]:
        look = Look()
        yield from self._look(look)
        yield from look.copy_more()
        for key in self._unsure:
            self._look_at(key, look)
            yield
        self._unsure = set(look.unsure)

    def _look_at(self, key: Hashable, look: Look) -> None:
        self._ready[key] = self._polled[key].source.ready(self._wanted[key], look)

    def _watch(self, source_of: dict[Watch, Hashable]) -> Iterator[None]:
        """What to watch, and for which thing; a step each."""
        for key, thing in self._polled.items():
            source_of.update((watch, key) for watch in thing.source.watches(self._wanted[key]))
            yield

    def _reply(self) -> Reply:
        found = {thing: self._ready.get(key, 0) & events for thing, (key, events) in self._meant.items()}
        revents = [found.get(thing, 0) for thing in self._things]
        return Reply(len(revents) - revents.count(0), {"revents": revents})


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
    if description.file_type in ("file", "directory", "memfd", "shm"):
        return _Polled(Fixed(IN | OUT))  # always ready (poll(2)); the host is not asked, whatever the file is on
    return _Polled(DescriptorSource(description), description)


def _queue(caller: Caller, msqid: str, mtype: str | None) -> _Polled:
    return _Polled(QueueSource(caller.parking, caller.credentials, MessageQueue(int(msqid)), int(mtype or 0)))


def _semaphore(caller: Caller, semid: str, num: str) -> _Polled:
    return _Polled(SemaphoreSource(caller.parking, caller.credentials, SemaphoreSet(int(semid)), int(num)))


_SOURCES: dict[str, Callable[..., _Polled]] = {
    r"(-?[0-9]{1,9})": _descriptor,
    r"msgq/([0-9]{1,9})(?:@(-?[0-9]{1,18}))?": _queue,
    r"sem/([0-9]{1,9})\.([0-9]{1,5})": _semaphore,
}
