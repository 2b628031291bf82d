"""Whose objects go with their owners: System V objects persist by nature, and leak; what is *owned* does not.

An object has any number of owners, all of them processes, and goes when the last one ends; a child of fork owns
nothing. Who may remove an object may own it. The host knows nothing of this, so the journal does, beyond the daemon's
own death.

Invariant: what the tables here say, the journal says too, except while an object is being made (see ``making``).
"""

import logging
import time
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EDQUOT, EEXIST, ENOENT, EPERM
from typing import NamedTuple, Protocol

from synosfs.errors import SynosError
from synosfs.host.credentials import Credentials
from synosfs.ipc.journal import Intent, Journal, Owner
from synosfs.ipc.sysv import listing
from synosfs.ipc.things import Thing, Things

log = logging.getLogger(__name__)

#: The most that the processes of one user may own, each object counted for each of its owners.
MOST_PER_USER = 32_768

#: The clock that the host takes the times of objects from.
_CLOCK_REALTIME_COARSE = 5


class Process(Hashable, Protocol):
    """A SynOS process, as far as owning goes."""

    pid: int
    start_time: int
    program: str


@dataclass(slots=True)
class _Owned:
    """What tells the object from others of its name, and its owners with the rights that they owned it by."""

    mark: str
    owners: dict[Process, Credentials] = field(default_factory=dict)


class Left(NamedTuple):
    """An object whose last owner has ended: what it is, and with which rights it goes."""

    thing: Thing
    mark: str
    rights: Credentials
    pid: int
    start_time: int
    program: str = ""


class Making:
    """An object that is being made for an owner."""

    def __init__(self, ownership: "Ownership", process: Process, rights: Credentials, intent: int) -> None:
        self._ownership = ownership
        self._process = process
        self._rights = rights
        self._intent = intent

    def made(self, thing: Thing) -> None:
        """It is there, or was before: the process owns it from now on. EPERM: it was, and is not the caller's."""
        self._ownership.own(self._process, self._rights, thing, intent=self._intent)
        self._intent = 0

    def over(self) -> None:
        """Nothing more is to come."""
        if self._intent:
            self._ownership.journal.given_up(self._intent)

    def over_soon(self) -> None:
        """As ``over``, from any thread."""
        if self._intent:
            self._ownership.given_up.append(self._intent)


class Ownership:
    """One for the mount; used from the trio thread only."""

    def __init__(self, things: Things, journal: Journal) -> None:
        self._things = things
        self.journal = journal
        self._owned: dict[Thing, _Owned] = {}
        self._of: dict[Hashable, dict[Thing, None]] = {}
        self._of_user: Counter[int] = Counter()
        #: Intents that came to nothing, told of by other threads.
        self.given_up: list[int] = []

    def __len__(self) -> int:
        return len(self._owned)

    def owners(self, kind: str, name: int | str) -> list[Process]:
        """Who owns it, in the order in which they came to. Nobody: it stays until it is removed."""
        owned = self._owned.get(Thing(kind, name))
        return [] if owned is None else list(owned.owners)

    def of(self, process: Hashable) -> list[Thing]:
        """What a process owns."""
        return list(self._of.get(process, ()))

    def own(self, process: Process, rights: Credentials, thing: Thing, *, intent: int = 0) -> None:
        """``process`` owns it from now on. ENOENT, EINVAL: there is none; EPERM: the caller may not remove it; EDQUOT:
        its user's processes own too much.
        """
        seen = self._things.look(thing)
        if not any(rights.may_change(uid) for uid in seen.removers):
            raise SynosError(EPERM, f"{thing} belongs to user {seen.uid}: who may not remove it may not own it")
        if self._of_user[rights.uid] >= MOST_PER_USER and thing not in self._of.get(process, ()):
            message = f"the processes of user {rights.uid} own {MOST_PER_USER} objects already; disown or remove some"
            raise SynosError(EDQUOT, message)
        groups = rights.gid, rights.capabilities
        self.journal.owned(Owner(*thing, seen.mark, process.pid, process.start_time, rights.uid, *groups), intent)
        self._add(process, rights, thing, seen.mark)

    def disown(self, process: Process, thing: Thing) -> None:
        """It does not go with the process any more. ENOENT: the process does not own it."""
        if thing not in self._of.get(process, ()):
            raise SynosError(ENOENT, f"process {process.pid} does not own {thing}; its status shows what it owns")
        self.journal.disowned(*thing, process.pid, process.start_time)
        self._drop(process, thing)

    def gone(self, thing: Thing) -> None:
        """It has been removed."""
        owned = self._owned.pop(thing, None)
        if owned is not None:
            self.journal.gone(*thing)
            for process, rights in owned.owners.items():
                self._disclaim(process, rights, thing)

    @contextmanager
    def making(self, process: Process, rights: Credentials, kind: str, name: int | str) -> Iterator[Making]:
        """An object is about to be made, by this key or name: for the length of the body, in which ``made`` is called
        once it is there, before anybody is told of it.
        """
        making = self.begin(process, rights, kind, name)
        try:
            yield making
        finally:
            making.over()

    def begin(self, process: Process, rights: Credentials, kind: str, name: int | str) -> Making:
        """As ``making``, for who says ``over`` itself."""
        while self.given_up:
            self.journal.given_up(self.given_up.pop())
        at = time.clock_gettime(_CLOCK_REALTIME_COARSE)
        who = process.pid, process.start_time, rights.uid, rights.gid, rights.capabilities
        intent = Intent(kind, name, self._mark_of(kind, name), at, *who)
        return Making(self, process, rights, self.journal.intend(intent))

    def ended(self, process: Process) -> Iterator[Left]:
        """``process`` has ended: what has no owner any more, one after the other. The journal keeps it until it is
        ``gone``.
        """
        for thing in list(self._of.get(process, ())):
            owned = self._owned.get(thing)
            if owned is None or process not in owned.owners:
                continue  # it has been removed meanwhile
            rights = owned.owners[process]
            self._drop(process, thing)
            if owned.owners:
                self.journal.disowned(*thing, process.pid, process.start_time)
            else:
                yield Left(thing, owned.mark, rights, process.pid, process.start_time, process.program)

    def restore(self, process: Process, rights: Credentials, thing: Thing, mark: str) -> None:
        """An owner of before the daemon's death is alive."""
        self._add(process, rights, thing, mark)

    def take_up_unfinished(self) -> int:
        """Note in the journal who owns what a killed daemon had begun to make, and made: how many there were. Its
        intents are over with this.
        """
        found = 0
        known = {Thing(owner.kind, owner.name) for owner in self.journal.owners()}
        for number, intent in self.journal.intents():
            try:
                thing = self._made_for(intent, known)
                seen = self._things.look(thing)
            except SynosError as error:
                log.info("what was to be made for process %d is not there: %s", intent.pid, error.message)
            else:
                if seen.mark != intent.before and intent.uid in seen.removers:
                    self.journal.owned(Owner(*thing, seen.mark, *intent[4:]), number)
                    found += 1
            self.journal.given_up(number)
        return found

    def _made_for(self, intent: Intent, known: set[Thing]) -> Thing:
        if not isinstance(intent.name, int):
            return Thing(intent.kind, intent.name)
        if intent.name:
            return self._things.find(intent.kind, intent.name)
        candidates = [
            thing
            for thing in (Thing(intent.kind, listed.number) for listed in listing(intent.kind) if not listed.key)
            if thing not in known and self._things.is_new(thing, intent, self.journal.daemon_before)
        ]
        if len(candidates) != 1:
            raise SynosError(EEXIST if candidates else ENOENT, f"{len(candidates)} objects could be it")
        return candidates[0]

    def _mark_of(self, kind: str, name: int | str) -> str:
        try:
            thing = Thing(kind, name) if not isinstance(name, int) else self._things.find(kind, name) if name else None
            return "" if thing is None else self._things.look(thing).mark
        except SynosError:
            return ""

    def _add(self, process: Process, rights: Credentials, thing: Thing, mark: str) -> None:
        owned = self._owned.get(thing)
        if owned is None or owned.mark != mark:  # another has the name by now
            for other, lent in owned.owners.items() if owned is not None else ():
                self._disclaim(other, lent, thing)
            owned = self._owned[thing] = _Owned(mark)
        elif process in owned.owners:
            self._disclaim(process, owned.owners[process], thing)
        owned.owners[process] = rights
        self._of.setdefault(process, {})[thing] = None
        self._of_user[rights.uid] += 1

    def _drop(self, process: Process, thing: Thing) -> None:
        owned = self._owned[thing]
        self._disclaim(process, owned.owners.pop(process), thing)
        if not owned.owners:
            del self._owned[thing]

    def _disclaim(self, process: Process, rights: Credentials, thing: Thing) -> None:
        self._of_user[rights.uid] -= 1
        if not self._of_user[rights.uid]:
            del self._of_user[rights.uid]
        things = self._of[process]
        del things[thing]
        if not things:
            del self._of[process]
