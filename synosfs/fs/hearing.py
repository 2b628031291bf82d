"""The evidence about System V objects, gathered from all who know something, and the verdict (``ipc.verdict``) on it.

A ``Hearing`` is one look of one user. It asks each process once; who waits in queues, and which objects may belong
together, is found out when it is first needed, and again when that was too long ago.

What an object keeps to itself is told to who may read it alone (who operated on the semaphores of a set), and what
processes keep to themselves as a number (how many wait in a queue).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EPERM
from typing import Any, NamedTuple

from synosfs.errors import SynosError
from synosfs.fs.sysv import Status
from synosfs.fs.uses import ALL, PIECE, Account, Inside, Kind
from synosfs.host import rights
from synosfs.host.credentials import Credentials
from synosfs.ipc.verdict import Deed, Evidence, Judgement, Use, Verdict, judge, named, verdict
from synosfs.kernel import Kernel
from synosfs.process.witnesses import Waiters
from synosfs.slices import Slices

#: So many times as long as finding out who waits and what belongs together took, that is good for.
_SHARE = 4

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
        #: When that was found out, and how long it took.
        self._asked = self._took = 0.0

    async def prepare(self, *, newer_than_s: float = float("inf")) -> None:
        """Find out anew what was found out longer ago than that, if it is needed; where that takes long, less often."""
        if time.monotonic() - self._asked > max(newer_than_s, _SHARE * self._took):
            self._waiters = self._relatives = None
            self._took = 0.0
        if self._kind.waits_unseen and self._waiters is None:
            with self._timed():
                self._waiters = await self._kernel.witnesses.waiters(self.slices)

    async def case(self, status: Status) -> Case:
        """The verdict on the object of this status. EINVAL, EIDRM: it is gone."""
        account, evidence = await self._evidence(self._kind, status)
        judgement = judge(evidence)
        if judgement.verdict is Verdict.ORPHAN and status.key:
            relative = await self._relative_in_use(status)
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

    async def _relative_in_use(self, status: Status) -> str:
        """An object that may belong to the same program and is in use, in words; '' when there is none. Programs make
        several together and may use some seldom: fakeroot's server never operates on its set.
        """
        if self._relatives is None:
            with self._timed():
                relatives = _Relatives()
                for kind in ALL:
                    for listed in kind.listing():
                        if listed.key and await self._is_in_use(kind, listed):
                            relatives.add(kind, listed)
                        await self.slices.pause()
                self._relatives = relatives
        return self._relatives.of(status)

    async def _is_in_use(self, kind: Kind, status: Status) -> bool:
        try:
            _, evidence = await self._evidence(kind, status)
        except SynosError:
            return False  # it is gone
        return verdict(evidence) in (Verdict.IN_USE, Verdict.OWNED)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._asked = time.monotonic()
        self._took += self._asked - began


class _Relatives:
    """The objects that have a key and are in use, by who made them. One program's keys are beside each other, or of one
    file.
    """

    def __init__(self) -> None:
        self._by_key: dict[tuple[int, int], str] = {}
        self._by_file: dict[tuple[int, int], str] = {}

    def add(self, kind: Kind, status: Any) -> None:
        named = f"{kind.noun} {status[0]}"
        for key in range(status.key - _BESIDE, status.key + _BESIDE + 1):
            self._by_key[status.cuid, key] = named
        self._by_file[status.cuid, status.key & _OF_FILE] = named

    def of(self, status: Status) -> str:
        """One of them that may belong to the same program."""
        by_file = self._by_file.get((status.cuid, status.key & _OF_FILE), "")
        return by_file or self._by_key.get((status.cuid, status.key), "")


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
    found = [(owner.pid, kernel.processes.find(owner.pid)) for owner in kernel.ipc.ownership.owners(family, number)]
    return tuple(named(pid, process.program if process else "") for pid, process in found)
