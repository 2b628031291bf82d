"""``orphans``, a file in each System V family, and ``reap``, a word of its ``ctl``: what nobody has a use for.

The file is the dry run: it shows the verdict on every object (``hearing``) and changes nothing. ``reap`` removes what
is an orphan, each object judged again just before its removal, by the system call IPC_RMID, made by the caller.
"""

from errno import EBUSY, EIDRM, EINVAL
from functools import partial
from typing import Any

import trio

from synosfs.errors import SynosError, errno_name
from synosfs.fs.ctl import Work
from synosfs.fs.hearing import Case, Hearing
from synosfs.fs.node import Who, credentials_of
from synosfs.fs.shown import ShownFile
from synosfs.fs.tables import table
from synosfs.fs.uses import Kind
from synosfs.host import rights, users
from synosfs.host.credentials import Credentials
from synosfs.ipc.sysv import listing
from synosfs.ipc.verdict import Verdict
from synosfs.kernel import Kernel
from synosfs.slices import Slices
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.spec import Row, row

#: What was found out of others so long ago is found out again while objects are removed, in seconds.
_STALE_S = 0.25


# --- orphans ---------------------------------------------------------------------------------------------------------


def file(kernel: Kernel, kind: Kind) -> ShownFile:
    """``orphans``: the verdict on every object of a family, as it is when the file is opened."""
    return ShownFile(
        kernel, partial(_verdicts, kernel, kind), "this file is for reading; write 'reap' to ctl beside it"
    )


async def _verdicts(kernel: Kernel, kind: Kind, who: Who, slices: Slices) -> str:
    hearing = Hearing(kernel, kind, _rights_of(who), slices)
    rows = []
    for status in kind.listing():
        await hearing.prepare()
        try:
            rows.append(_row(await hearing.case(status)))
        except SynosError:
            continue  # removed since it was listed
        await slices.pause()
    number, size = kind.columns
    return await table((number, "key", "uid", size, "idle", "verdict", "evidence"), rows, slices)


def _rights_of(who: Who) -> Credentials:
    try:
        return credentials_of(who)
    except SynosError:  # outside the mount's pid namespace everybody may look, with no more than their ids
        return Credentials(who.uid, who.gid, (), 0)


def _row(case: Case) -> tuple[object, ...]:
    status, account, judgement, idle = case
    verdict, words = judgement
    return account.number, f"{status.key:#x}", status.uid, account.size, idle, verdict.value, words


# --- reap ------------------------------------------------------------------------------------------------------------


def command(kernel: Kernel, kind: Kind) -> Row:
    """``reap``."""

    def reap(which: tuple[tuple[int, ...], bool] | None, older: float | None, user: str | None) -> Work:
        ids, empty = which or ((), False)
        if empty and kind.is_empty is None:
            raise SynosError(EINVAL, f"reap: empty is for queues: a {kind.noun} has no messages")
        return _Reaping(kernel, kind, ids, empty, older, user)

    words = f"remove each {kind.noun} that is an orphan, or of those with these ids; empty: that has no message"
    return row(None, "reap", reap, "id:reaped? older:seconds? user:user?", help=words)


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
        hearing = Hearing(self._kernel, self._kind, caller.credentials, slices)
        every = (listed.number for listed in listing(self._kind.table))
        for number in self._ids or every:
            await hearing.prepare(newer_than_s=_STALE_S)
            try:
                await self._reap(number, hearing, caller, uid)
            except SynosError as error:
                if self._ids:
                    before = f"; removed before: {', '.join(map(str, self._removed))}" if self._removed else ""
                    self._removed = []  # the error is the answer
                    raise SynosError(error.errno, error.message + before) from None
                if error.errno not in (EINVAL, EIDRM):  # these: it has gone by itself
                    self._refused.append(f"{number}:{errno_name(error.errno)}")
            await slices.pause()
        return self._reply()

    def so_far(self) -> Reply | None:
        """What was removed until it was ended from outside."""
        return self._reply() if self._removed else None

    def _reply(self) -> Reply:
        results: dict[str, Any] = {"removed": self._removed}
        if self._refused:
            results["refused"] = self._refused
        return Reply(len(self._removed), results)

    async def _uid(self, caller: Caller) -> int | None:
        if self._user is None:
            return None
        if self._user.isascii() and self._user.isdigit():
            return caller.user_namespace.given(int(self._user), None)[0]
        return await self._kernel.parking.watch(rights.OWN, partial(users.uid_blocking, self._user))

    async def _reap(self, number: int, hearing: Hearing, caller: Caller, uid: int | None) -> None:
        """Remove it, if it is meant and nobody has a use for it."""
        kind, noun = self._kind, self._kind.noun
        case = await hearing.case(kind.status(number))
        if not self._is_meant(case, uid):
            return
        verdict, words = case.judgement
        if verdict in (Verdict.IN_USE, Verdict.OWNED):
            if self._ids:
                raise SynosError(EBUSY, f"{noun} {number} is {verdict.value.replace('-', ' ')}: {words}")
            return
        if verdict is Verdict.UNKNOWN and not self._ids:
            return
        if kind.status(number) != case.status:  # others were let in meanwhile
            if self._ids:
                raise SynosError(EBUSY, f"{noun} {number} is being used at this moment")
            return
        with trio.CancelScope(shield=True):  # a removal that has begun is carried out, and told
            caller.because = f"reaped: {words}"
            try:
                await self._kernel.dispatcher.called(caller, kind.removal(number))
            finally:
                caller.because = ""
        self._removed.append(number)

    def _is_meant(self, case: Case, uid: int | None) -> bool:
        if uid is not None and case.status.uid != uid:
            return False
        if self._older is not None and case.idle < self._older:
            return False
        return not (self._empty and self._kind.is_empty is not None and not self._kind.is_empty(case.status))
