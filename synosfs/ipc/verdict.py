"""Whether anybody still has a use for a System V object: a judgement of evidence that others have gathered.

Pure: evidence in, verdict and words out. The host keeps the pids of an object's last users (and of a segment's maker)
and the second of each deed. A process that started after the deed cannot be the one that the pid meant
(``Fate.ANOTHER``).

An object is an orphan only where everything speaks for it: each user that is known is dead, nobody is attached, nobody
waits, and nothing is left in doubt. The host does not keep who made a queue or a set, so one that nobody has used yet
is of unknown use, as is one that a process outside the pid namespace has used.
"""

import time
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from synosfs.errors import printable


class Verdict(Enum):
    """Whether an object may go, by the words that users read. ``OWNED``: it goes with its owners, and not before."""

    IN_USE = "in-use"
    OWNED = "owned"
    ORPHAN = "orphan"
    UNKNOWN = "unknown"


class Deed(Enum):
    """What somebody did to an object: the words for it, and those for that nobody ever did ('': others say so)."""

    MADE = "made by", ""
    ATTACHED = "attached or detached last by", ""
    SENT = "sent to last by", "never sent to"
    RECEIVED = "received from last by", "never received from"
    OPERATED = "operated on last by", "never operated on"

    def __init__(self, by: str, never: str) -> None:
        self.by = by
        self.never = never


class Use(NamedTuple):
    """``pid`` did it in the second ``time`` (since the epoch) at the latest; time 0: nobody ever did. pid 0: a process
    that has no pid in the daemon's pid namespace.
    """

    deed: Deed
    pid: int
    time: int


class Found(NamedTuple):
    """The live process that has a pid now: its program, '' where that is not to be told, nor its start; ``started`` in
    seconds since the epoch, 0.0 where it cannot be known.
    """

    program: str
    started: float


class Witness(NamedTuple):
    """A use, the process that has its pid now (None: there is none), and the program that is known to have had it
    then, '' where none is.
    """

    use: Use
    found: Found | None = None
    program: str = ""


class Fate(Enum):
    """What became of who did something."""

    NEVER = "nobody did it"
    OUTSIDE = "a process outside the pid namespace"
    ALIVE = "alive"
    DEAD = "dead"
    ANOTHER = "dead, and the pid is another's"


class Evidence(NamedTuple):
    """All that is known of one object. ``attached`` and ``waiting`` count, and are None where the kind of object has no
    such thing; ``owners`` are the processes that it is to go with; ``doubts``, in words, what could not be seen.
    """

    witnesses: tuple[Witness, ...] = ()
    attached: int | None = None
    waiting: int | None = None
    owners: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


class Judgement(NamedTuple):
    """A verdict, and the evidence for it in words."""

    verdict: Verdict
    words: str


#: The host's coarse clock gives a deed its second, and a start is rounded as well.
_CERTAINLY_LATER_S = 2

#: So many users of one object are named.
_MOST_NAMED = 4


def fate(witness: Witness) -> Fate:
    """What became of who did it. In doubt whether a live process is the one, it is."""
    use, found = witness.use, witness.found
    if not use.time:
        return Fate.NEVER
    if not use.pid:
        return Fate.OUTSIDE
    if found is None:
        return Fate.DEAD
    return Fate.ANOTHER if started_later(found.started, use.time) else Fate.ALIVE


def started_later(started: float, second: int) -> bool:
    """Whether a process has certainly started after the second of a deed, and so cannot have done it."""
    return started >= second + _CERTAINLY_LATER_S


def judge(evidence: Evidence) -> Judgement:
    """The verdict, and the evidence for it in words."""
    found = verdict(evidence)
    return Judgement(found, _words(found, evidence))


def verdict(evidence: Evidence) -> Verdict:
    """The verdict alone. In doubt an object is not an orphan."""
    if evidence.owners:
        return Verdict.OWNED
    fates = [fate(witness) for witness in evidence.witnesses]
    if evidence.attached or evidence.waiting or Fate.ALIVE in fates:
        return Verdict.IN_USE
    if evidence.doubts or Fate.OUTSIDE in fates or all(each is Fate.NEVER for each in fates):
        return Verdict.UNKNOWN
    return Verdict.ORPHAN


def _words(verdict: Verdict, evidence: Evidence) -> str:
    fates = [fate(witness) for witness in evidence.witnesses]
    told = [f"owned by {owner}" for owner in evidence.owners]
    if evidence.attached:
        told.append(f"attached {_times(evidence.attached)}")
    if evidence.waiting:
        told.append("somebody waits" if evidence.waiting == 1 else f"{evidence.waiting} wait")
    told += _users(zip(evidence.witnesses, fates, strict=True))
    if evidence.attached == 0:
        told.append("not attached")
    if verdict is Verdict.UNKNOWN:
        told += evidence.doubts
        if fates and all(each is Fate.NEVER for each in fates):
            told.append("the host does not keep who made it")
    elif evidence.waiting == 0:
        told.append("nobody waits")
    return "; ".join(filter(None, told))


def _users(witnesses: Iterable[tuple[Witness, Fate]]) -> list[str]:
    """A thousand semaphores may have as many users: those who live come first."""
    ordered = sorted(witnesses, key=lambda each: each[1] is not Fate.ALIVE)
    told = [_user(*each) for each in ordered[:_MOST_NAMED]]
    more = len(ordered) - len(told)
    return [*told, f"and by {more} more"] if more else told


def _user(witness: Witness, became: Fate) -> str:
    deed, pid, _ = witness.use
    match became:
        case Fate.NEVER:
            return deed.never
        case Fate.OUTSIDE:
            return f"{deed.by} a process outside the mount's pid namespace"
        case Fate.ALIVE:
            assert witness.found is not None
            since = f" since {_moment(witness.found.started)}" if witness.found.program else ""
            return f"{deed.by} {named(pid, witness.found.program)}, alive{since}"
        case Fate.DEAD:
            return f"{deed.by} {named(pid, witness.program)}, dead"
        case Fate.ANOTHER:
            assert witness.found is not None
            now = named(pid, witness.found.program).removeprefix("pid ")
            return f"{deed.by} {named(pid, witness.program)}, dead: pid {now} started later"


def named(pid: int, program: str) -> str:
    """A process in words, for people: a program may call itself anything."""
    return f"pid {pid} ({printable(program)})" if program else f"pid {pid}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
