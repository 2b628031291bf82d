"""The evidence about System V objects, gathered from all who know something, and the verdict (``ipc.verdict``) on it.

A ``Hearing`` is one look of one user. It asks each process once; who waits in queues, and which objects may belong
together, is found out when it is first needed, and again when that was too long ago.

What an object keeps to itself is told to who may read it alone (who operated on the semaphores of a set), and what
processes keep to themselves as a number (how many wait in a queue).
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from errno import EACCES, EPERM
from typing import Any, NamedTuple

from synosfs.errors import SynosError
from synosfs.fs.sysv import Status
from synosfs.fs.uses import ALL, PIECE, Account, Inside, Kind
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.verdict import Deed, Evidence, Judgement, Use, Verdict, judge, named
from synosfs.kernel import Kernel
from synosfs.process.witnesses import Waiters
from synosfs.slices import Slices

#: Keys so far apart may be those of one program.
_BESIDE = 4

#: The bits of a key that ftok(3) makes of the file: one program's keys often differ in the others alone.
_OF_FILE = 0xFFFFFF


class Case(NamedTuple):
    """One object, and what is to be thought of it."""

    status: Any
    account: Account
    judgement: Judgement
    idle: int


class Hearing:
    """One look at the objects of a kind."""

    def __init__(self, kernel: Kernel, kind: Kind, credentials: Credentials, slices: Slices) -> None:
        self._kernel = kernel
        self._kind = kind
        self._credentials = credentials
        self.slices = slices
        #: As /proc does, where it hides processes: the programs of others are not for everybody.
        self._look = kernel.witnesses.look(names=kernel.shows_processes(credentials))
        self._waiters: Waiters | None = None
        self._relatives: _Relatives | None = None
        self._asked = 0.0

    async def prepare(self, *, newer_than_s: float = float("inf")) -> None:
        """Find out anew what was found out longer ago than that, if it is needed."""
        now = time.monotonic()
        if now - self._asked > newer_than_s:
            self._waiters = self._relatives = None
            self._asked = now
        if self._kind.waits_unseen and self._waiters is None:
            self._waiters = await self._kernel.witnesses.waiters(self.slices)

    async def case(self, status: Status) -> Case:
        """The verdict on the object of this status. EINVAL, EIDRM: it is gone."""
        account, evidence = await self._evidence(self._kind, status)
        judgement = judge(evidence)
        if judgement.verdict is Verdict.ORPHAN and status.key:
            relative = await self._relative_in_use(status, account)
            if relative:
                doubt = f"its key is beside that of {relative}, which is in use: they may belong together"
                judgement = judge(evidence._replace(doubts=(doubt,)))
        return Case(status, account, judgement, max(0, int(time.time()) - account.changed))

    async def _evidence(self, kind: Kind, status: Status) -> tuple[Account, Evidence]:
        """It pauses for a large set alone."""
        books = self._kernel.ipc
        account = kind.account(books, status)
        uses = account.uses
        waiting: int | None = None
        doubts: tuple[str, ...] = ()
        if kind.waits_unseen and self._waiters is not None:
            waiting, doubts = _waiting(self._waiters, account.number, status)
        elif kind.inside is not None:
            uses, waiting, doubts = await self._inside(kind.inside(books, status), account)
        told = self._look.witnesses(uses)
        owned = owners(self._kernel, kind.table, account.number)
        return account, Evidence(told, account.attached, waiting, owned, doubts)

    async def _inside(
        self, pieces: Iterator[Inside], account: Account
    ) -> tuple[tuple[Use, ...], int | None, tuple[str, ...]]:
        """The uses, how many wait, and the doubts that the semaphores of a set tell of, to who may read them."""
        pids: set[int] = set()
        waiting, untouched = 0, False
        try:
            while True:
                with rights.acting_as(self._credentials):
                    piece = next(pieces, None)
                if piece is None:
                    break
                pids |= piece.pids
                waiting += piece.waiting
                untouched = untouched or piece.untouched
                if account.size > PIECE:
                    await self.slices.pause()
        except SynosError as error:
            if error.errno not in (EACCES, EPERM):
                raise
            return (), None, ("who used its semaphores is not the caller's to know: they are not readable",)
        # A set has one time for all of its operations, and SETVAL leaves its pid and no time but ctime.
        found = tuple(Use(Deed.OPERATED, pid, account.changed) for pid in sorted(pids))
        doubts = ("a process outside the mount's pid namespace may have used some of its semaphores",)
        doubtful = found and untouched and not self._kernel.witnesses.see_all
        return found or account.uses, waiting, doubts if doubtful else ()

    async def _relative_in_use(self, status: Status, account: Account) -> str:
        """An object that may belong to the same program and is in use, in words; '' when there is none. Programs make
        several together and may use some seldom: fakeroot's server never operates on its set.
        """
        if self._relatives is None:
            self._relatives = _Relatives()
            for kind in ALL:
                for listed in kind.listing():
                    self._relatives.add(kind, listed)
                    await self.slices.pause()
        for relative in self._relatives.of(self._kind, status):
            if relative.in_use is None:
                try:
                    _, evidence = await self._evidence(relative.kind, relative.status)
                    relative.in_use = judge(evidence).verdict in (Verdict.IN_USE, Verdict.OWNED)
                except SynosError:
                    relative.in_use = False  # it is gone
            if relative.in_use:
                return f"{relative.kind.noun} {relative.status[0]}"
        return ""


class _Relative:
    """An object that has a key. ``in_use``: None, until somebody asks."""

    __slots__ = ("in_use", "kind", "status")

    def __init__(self, kind: Kind, status: Any) -> None:
        self.kind = kind
        self.status = status
        self.in_use: bool | None = None


class _Relatives:
    """Which objects may belong together: made by one user, with keys beside each other, or of one file."""

    def __init__(self) -> None:
        self._by_key: defaultdict[tuple[int, int], list[_Relative]] = defaultdict(list)
        self._by_file: defaultdict[tuple[int, int], list[_Relative]] = defaultdict(list)

    def add(self, kind: Kind, status: Status) -> None:
        if status.key:
            relative = _Relative(kind, status)
            self._by_key[status.cuid, status.key].append(relative)
            self._by_file[status.cuid, status.key & _OF_FILE].append(relative)

    def of(self, kind: Kind, status: Any) -> Iterator[_Relative]:
        """All but itself."""
        keys = range(status.key - _BESIDE, status.key + _BESIDE + 1)
        beside = (self._by_key.get((status.cuid, key), ()) for key in keys)
        of_file = self._by_file.get((status.cuid, status.key & _OF_FILE), ())
        for relatives in (*beside, of_file):
            for relative in relatives:
                if relative.kind is not kind or relative.status[0] != status[0]:
                    yield relative


def _waiting(waiters: Waiters, number: int, status: Status) -> tuple[int, tuple[str, ...]]:
    """How many wait in a queue, and what may have been overlooked."""
    doubts = []
    if waiters.is_late:
        doubts.append("not every process could be looked at in time, and one may wait")
    unseen = waiters.unseen if status.mode & 0o066 else waiters.unseen & {status.uid, status.cuid}
    if unseen:
        doubts.append(f"processes of uid {', '.join(map(str, sorted(unseen)))} cannot be looked at, and may wait")
    return waiters.of[number], tuple(doubts)


def owners(kernel: Kernel, family: str, number: int) -> tuple[str, ...]:
    """The processes that an object is to go with, in words."""
    ownership = getattr(kernel, "ownership", None)
    found = [] if ownership is None else ownership.owners(family, number)
    return tuple(named(owner.pid, owner.program) for owner in found)
