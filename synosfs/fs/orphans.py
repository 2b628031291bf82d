"""Whose use the System V objects are to whom: ``orphans``, a file in each family, and ``reap``, a word of its ``ctl``.

Both hear the same evidence and have it judged (``ipc.verdict``). The file is the dry run: it shows the verdict on every
object and changes nothing. ``reap`` removes what is an orphan, each object judged again just before its removal, by the
system call IPC_RMID, made by the caller.

A family says in a ``Kind`` what its objects tell of themselves. What they keep to themselves is asked for with the
rights of who looks (who operated on the semaphores of a set), or told as a number alone (how many wait in a queue).
"""

import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from errno import EACCES, EBUSY, EINVAL, EPERM
from functools import partial
from typing import Any, NamedTuple

import trio

from synosfs.errors import SynosError, errno_name, printable
from synosfs.fs.ctl import Work
from synosfs.fs.node import FOREVER, Attributes, Handle, Node, Snapshot, Who, credentials_of, writes
from synosfs.fs.sysv import Family, Status
from synosfs.fs.tables import table
from synosfs.host import rights, users
from synosfs.host.abi import IPC_RMID
from synosfs.host.credentials import Credentials
from synosfs.ipc.manager import IPCManager
from synosfs.ipc.sysv import listing
from synosfs.ipc.verdict import Deed, Evidence, Judgement, Use, Verdict, judge, named
from synosfs.kernel import Kernel
from synosfs.process.witnesses import Waiters
from synosfs.slices import Slices
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.spec import Row, row

#: Who waits in queues is asked for again after so long, in seconds, while objects are removed.
_STALE_S = 0.25

#: So many semaphores are asked about in a row.
PIECE = 128


class Account(NamedTuple):
    """What the status of an object tells: its id, its size, the uses that the host keeps, and in which second it last
    changed. ``attached`` is None but for segments.
    """

    number: int
    size: int
    uses: tuple[Use, ...]
    changed: int
    attached: int | None = None


@dataclass(frozen=True, eq=False)
class Kind:
    """One family's objects: how they are listed and found, the words for them, and how the status of one is read.

    ``inside``, for sets, yields what each semaphore tells, in pieces; ``waits_unseen``: nothing but the processes
    themselves tells who waits for it; ``is_empty``, for queues, whether nothing is in it.
    """

    family: Family
    noun: str
    columns: tuple[str, str]
    listing: Callable[[], Iterable[Status]]
    account: Callable[[IPCManager, Any], Account]
    inside: Callable[[IPCManager, Any], Iterator["Inside"]] | None = None
    waits_unseen: bool = False
    is_empty: Callable[[Any], bool] | None = None

    def command(self, kernel: Kernel) -> Row:
        """``reap``, a command word of ``ctl``."""

        def reap(which: tuple[tuple[int, ...], bool] | None, older: float | None, user: str | None) -> Work:
            ids, empty = which or ((), False)
            if empty and self.is_empty is None:
                raise SynosError(EINVAL, f"reap: empty is for queues: a {self.noun} has no messages")
            return _Reaping(kernel, self, ids, empty, older, user).run

        words = f"remove each {self.noun} that is an orphan, or of those with these ids; empty: that has no message"
        return row(None, "reap", reap, "id:reaped? older:seconds? user:user?", help=words)


class Inside(NamedTuple):
    """What some semaphores tell: the pids that operated on them (0: of a process that has none in the daemon's pid
    namespace), how many wait, and whether any is as new, for all that can be seen.
    """

    pids: frozenset[int]
    waiting: int
    untouched: bool


class Case(NamedTuple):
    """One object, and what is to be thought of it."""

    status: Any
    account: Account
    judgement: Judgement
    idle: int


class _Hearing:
    """One look of one user at the objects of a kind."""

    def __init__(self, kernel: Kernel, kind: Kind, credentials: Credentials, slices: Slices) -> None:
        self._kernel = kernel
        self._kind = kind
        self._credentials = credentials
        self.slices = slices
        #: As /proc does, where it hides processes: the programs of others are not for everybody.
        self._look = kernel.witnesses.look(names=kernel.shows_processes(credentials))
        self._waiters: Waiters | None = None
        self._walked = 0.0

    async def prepare(self, *, newer_than_s: float = float("inf")) -> None:
        """Find out who waits, if only the processes tell that, and it is not known from so long ago."""
        if self._kind.waits_unseen and (self._waiters is None or time.monotonic() - self._walked > newer_than_s):
            self._walked = time.monotonic()
            self._waiters = await self._kernel.witnesses.waiters(self.slices)

    async def case(self, status: Status) -> Case:
        """The verdict on the object of this status. It pauses for a large set alone. EINVAL, EIDRM: it is gone."""
        kind, books = self._kind, self._kernel.ipc
        account = kind.account(books, status)
        uses = account.uses
        waiting: int | None = None
        doubts: tuple[str, ...] = ()
        if self._waiters is not None:
            waiting, doubts = _waiting(self._waiters, account.number, status)
        elif kind.inside is not None:
            uses, waiting, doubts = await self._inside(kind.inside(books, status), account)
        evidence = Evidence(
            self._look.witnesses(uses),
            account.attached,
            waiting,
            owners(self._kernel, kind.family.table, account.number),
            doubts,
        )
        return Case(status, account, judge(evidence), max(0, int(time.time()) - account.changed))

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


# --- orphans ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrphansFile(Node):
    """``orphans``: the verdict on every object of a family, as it is when the file is opened."""

    kernel: Kernel
    kind: Kind

    entry_timeout = FOREVER
    attr_timeout = FOREVER

    def attributes(self, who: Who) -> Attributes:
        return Attributes(stat.S_IFREG | 0o444)

    async def open(self, flags: int, who: Who, inode: int) -> Handle:
        if writes(flags):
            raise SynosError(EACCES, "this file is for reading; write 'reap' to ctl beside it")
        slices = Slices(self.kernel.accounts.of(who.uid).line)
        hearing = _Hearing(self.kernel, self.kind, _rights_of(who), slices)
        rows = []
        for status in self.kind.listing():
            await hearing.prepare()
            try:
                rows.append(_row(await hearing.case(status)))
            except SynosError:
                continue  # removed since it was listed
            await slices.pause()
        number, size = self.kind.columns
        header = (number, "key", "uid", size, "idle", "verdict", "evidence")
        return Snapshot(await table(header, rows, slices))


def _rights_of(who: Who) -> Credentials:
    try:
        return credentials_of(who)
    except SynosError:  # outside the mount's pid namespace everybody may look, with no more than their ids
        return Credentials(who.uid, who.gid, (), 0)


def _row(case: Case) -> tuple[object, ...]:
    status, account, judgement, idle = case
    words = printable(judgement.words)
    return account.number, f"{status.key:#x}", status.uid, account.size, idle, judgement.verdict.value, words


# --- reap ------------------------------------------------------------------------------------------------------------


class _Reaping:
    """One request to remove orphans: those that are meant and that the caller may remove. Without ``ids`` all are meant
    that fit the rest.
    """

    def __init__(
        self,
        kernel: Kernel,
        kind: Kind,
        ids: tuple[int, ...],
        empty: bool,
        older: float | None,
        user: str | None,
    ) -> None:
        self._kernel = kernel
        self._kind = kind
        self._ids = ids
        self._empty = empty
        self._older = older
        self._user = user
        self._removed: list[int] = []
        self._refused: list[str] = []

    async def run(self, caller: Caller) -> Reply:
        """How many are removed, and their ids; those refused, each with its errno. EBUSY: one that was named is in
        use, or owned; it and those named behind it stay. EINVAL: one that was named does not exist.
        """
        uid = await self._uid(caller)
        slices = Slices(caller.process.account.line)
        hearing = _Hearing(self._kernel, self._kind, caller.credentials, slices)
        every = (number for number, _ in listing(self._kind.family.table))
        for number in self._ids or every:
            await hearing.prepare(newer_than_s=_STALE_S)
            try:
                await self._reap(number, hearing, caller, uid)
            except SynosError as error:
                if self._ids:
                    raise SynosError(error.errno, f"{error.message}{self._so_far()}") from None
                if error.errno == EPERM:
                    self._refused.append(f"{number}:{errno_name(error.errno)}")
            await slices.pause()
        results: dict[str, Any] = {"removed": self._removed}
        if self._refused:
            results["refused"] = self._refused
        return Reply(len(self._removed), results)

    async def _uid(self, caller: Caller) -> int | None:
        if self._user is None:
            return None
        if self._user.isdecimal():
            return caller.user_namespace.given(int(self._user), None)[0]
        return await self._kernel.parking.watch(rights.OWN, partial(users.uid_blocking, self._user))

    async def _reap(self, number: int, hearing: _Hearing, caller: Caller, uid: int | None) -> None:
        """Remove it, if it is meant and nobody has a use for it."""
        family, noun = self._kind.family, self._kind.noun
        case = await hearing.case(family.status(number))
        if not self._is_meant(case, uid):
            return
        verdict, words = case.judgement
        if verdict in (Verdict.IN_USE, Verdict.OWNED):
            if self._ids:
                raise SynosError(EBUSY, f"{noun} {number} is {verdict.value.replace('-', ' ')}: {words}")
            return
        if verdict is Verdict.UNKNOWN and not self._ids:
            return
        if family.status(number) != case.status:  # others were let in meanwhile
            if self._ids:
                raise SynosError(EBUSY, f"{noun} {number} is being used at this moment")
            return
        with trio.CancelScope(shield=True):  # a removal that has begun is carried out, and told
            await self._kernel.dispatcher.called(caller, family.control(number, IPC_RMID))
        self._removed.append(number)

    def _is_meant(self, case: Case, uid: int | None) -> bool:
        if uid is not None and case.status.uid != uid:
            return False
        if self._older is not None and case.idle < self._older:
            return False
        return not (self._empty and self._kind.is_empty is not None and not self._kind.is_empty(case.status))

    def _so_far(self) -> str:
        return f"; removed before: {', '.join(map(str, self._removed))}" if self._removed else ""
