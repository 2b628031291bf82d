"""Kernel: all that answers calls, and nothing of how they come in.

It owns the processes, the blocked calls, what is watched, the objects, the statistics, the dispatcher and those who
look on, for as long as a mount lives. Doors (``fs``) bring calls in; ``caller`` and ``caller_for`` make who they act
as, from what the host's kernel said and nothing else.
"""

import errno
import logging
from collections.abc import Iterable
from functools import partial

import trio

from synosfs.errors import SynosError
from synosfs.host import asking, credentials, procfs, rights, usernamespace
from synosfs.host.confinement import Confinement, equally_confined
from synosfs.host.credentials import Credentials
from synosfs.host.pidfd import Ids
from synosfs.ipc.journal import Journal
from synosfs.ipc.manager import IPCManager
from synosfs.ipc.ownership import Left
from synosfs.ipc.things import Thing
from synosfs.process import identity
from synosfs.process.accounts import Accounts, Limits
from synosfs.process.host_process import HostProcess
from synosfs.process.process import Process
from synosfs.process.refusals import Refusal, Refusals
from synosfs.process.table import ProcessTable
from synosfs.process.witnesses import Witnesses
from synosfs.slices import Line, Slices
from synosfs.syscall_gate import text
from synosfs.syscall_gate.caller import Caller, Origin
from synosfs.syscall_gate.dispatch import SyscallDispatcher
from synosfs.syscall_gate.parking import Parking
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.statistics import SyscallStatistics
from synosfs.syscall_gate.watches import Watches

log = logging.getLogger(__name__)


class Kernel:
    """One for the mount. Used from the trio thread only."""

    def __init__(self, confined: str = "ipc", limits: Limits | None = None, journal: Journal | None = None) -> None:
        """``confined``: what callers get that are confined otherwise than by their ids; see ``confinement``.
        ``journal``: what a killed daemon has left, and this one will leave.
        """
        self.confinement = Confinement(confined)
        self.ipc = IPCManager(journal)
        self.accounts = Accounts(limits)
        self.processes = ProcessTable(self.ipc, self.accounts)
        self._refusals = Refusals()
        self.parking = Parking()
        self.watches = Watches()
        self.statistics = SyscallStatistics()
        self.dispatcher = SyscallDispatcher(self.parking, self.statistics, self.ipc)
        self.observers = self.dispatcher.observers
        self.trace = self.dispatcher.trace
        self.ipc.removals.told.append(self.trace.gone)
        self.witnesses = Witnesses()
        self.processes.at_exit += [self.parking.end_process, self.statistics.ended, self.ipc.ended]
        self.processes.at_exit += [self._owner_ended, self._remember]

    async def close(self) -> None:
        """Answer all who are blocked, and let go of every process."""
        self.watches.close()
        await self.parking.close()
        self.processes.at_exit.remove(self._owner_ended)  # they live on, and so does what they own
        self.processes.close()
        self.ipc.journal.close()
        asking.close()

    async def recover(self) -> None:
        """Take up what a killed daemon left: owners that are alive own on, and what has none any more goes."""
        ownership, left = self.ipc.ownership, []
        unfinished = ownership.take_up_unfinished()
        if unfinished:
            log.warning("%d objects were being made when the daemon before this one ended", unfinished)
        for owner in self.ipc.journal.owners():
            thing, lent = Thing(owner.kind, owner.name), Credentials(owner.uid, owner.gid, (), owner.capabilities)
            lent = rights.OWN if lent._replace(groups=rights.OWN.groups) == rights.OWN else lent
            process = self.processes.again(owner.pid, owner.start_time)
            if process is not None:
                ownership.restore(process, lent, thing, owner.mark)
            else:
                left.append(Left(thing, owner.mark, lent, owner.pid, owner.start_time))
        await self._remove(left)

    def _owner_ended(self, process: Process) -> Iterable[None]:
        if self.ipc.ownership.of(process):
            left = self.ipc.ownership.ended(process)
            trio.lowlevel.spawn_system_task(self._remove, left, name="what has no owner any more")
        return ()

    async def _remove(self, left: Iterable[Left]) -> None:
        """Remove what has lost its last owner, with that owner's rights."""
        slices = Slices(Line())
        for one in left:
            await slices.pause()
            if not self.ipc.ownership.owners(*one.thing):  # nobody else has come to own it
                await self._remove_one(one)
            self.ipc.journal.disowned(*one.thing, one.pid, one.start_time)

    async def _remove_one(self, one: Left) -> None:
        kind = self.ipc.things.kinds[one.thing.kind]
        remove = partial(kind.remove, one.thing.name, one.rights)
        try:
            seen = self.ipc.things.look(one.thing)
            if seen.mark != one.mark:
                return  # another has the name by now
            with self.ipc.removals.expecting(one.thing):
                if kind.may_sleep:
                    await self.parking.watch(one.rights, remove)
                else:
                    with rights.acting_as(one.rights):
                        remove()
                self.ipc.left(one.thing, seen, one.pid, one.rights.uid, one.program)
        except SynosError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EIDRM):  # it has gone by itself
                log.warning("%s stays, though its last owner (pid %d) has ended: %s", one.thing, one.pid, error)

    def caller(self, tid: int, uid: int, gid: int, origin: Origin) -> Caller:
        """The thread that opens a file to take part, with the rights that it has now. ESRCH when it is gone."""
        process = self.processes.enter(tid)
        self.confinement.check_opener(tid)
        own, permitted = _opener(tid, uid, gid)
        bound = None if _is_privileged(own) else process.ids()
        return self._caller(process, tid, own, origin, bound, permitted=permitted)

    def caller_for(self, seen: HostProcess, tid: int, uid: int, gid: int, origin: Origin) -> Caller:
        """``tid`` opens the kernel on behalf of another process, which takes part from now on: if it may look into it,
        and with no more rights than its own. Else EPERM, or EACCES as ``look_into`` says.
        """
        self.confinement.check_opener(tid)
        opener, permitted = _opener(tid, uid, gid)
        own = self.look_into(seen, tid, opener)
        theirs = self._rights_of(seen)
        if not _is_privileged(opener) and not own and not {*theirs.groups, theirs.gid} <= {*opener.groups, gid}:
            raise SynosError(errno.EPERM, f"process {seen.pid} is in groups that the caller is not in")
        process = self.processes.take_part(seen)
        lent = theirs._replace(capabilities=theirs.capabilities & opener.capabilities)
        lent = rights.OWN if lent == rights.OWN else lent
        bound = None if _is_privileged(opener) else process.ids()
        return self._caller(process, process.pid, lent, origin, bound, own=own, permitted=permitted)

    def _caller(
        self,
        process: Process,
        tid: int,
        lent: Credentials,
        origin: Origin,
        bound: Ids | None,
        *,
        permitted: int,
        own: bool = True,
    ) -> Caller:
        return Caller(
            self.ipc,
            self.parking,
            self.watches,
            process,
            tid,
            lent,
            origin,
            bound,
            by_itself=own,
            permitted=permitted,
            confinement=self.confinement,
            # Capabilities are lent to nobody of another user namespace.
            user_namespace=usernamespace.OURS if own and lent.capabilities else usernamespace.of(process.pid),
        )

    def process_seen(self, pid: int, tid: int, uid: int, gid: int) -> HostProcess | None:
        """The process with this pid, if ``tid`` is to know of it here: one that takes part, or another that ``tid`` may
        act for. Nobody begins to take part by this.
        """
        known = self.processes.known(pid)
        seen = known or self.processes.stranger(pid)
        if seen is None or not self.sees(seen, tid, uid, gid):
            return None
        if known is None:
            try:
                self.look_into(seen, tid, effective(tid, uid, gid))
            except SynosError:
                return None
        return seen

    def sees(self, process: HostProcess, tid: int, uid: int, gid: int) -> bool:
        """Whether ``tid`` is to know of ``process`` at all: not where /proc hides the processes of others."""
        if not procfs.hides_processes():
            return True
        try:
            own = procfs.thread_group(tid) == process.pid
        except ProcessLookupError:
            return False
        if own:
            return True
        with rights.acting_as(effective(tid, uid, gid)):
            return procfs.is_seen(process.pid)

    def shows_processes(self, looker: Credentials) -> bool:
        """Whether the looker may know what other users' processes run: not where /proc hides them."""
        return not procfs.hides_processes() or _is_privileged(looker)

    def look_into(self, process: HostProcess, tid: int, opener: Credentials) -> bool:
        """Whether ``tid`` is of ``process`` itself. Another must be let by the host, as ptrace(2) has it: all ids
        of the process are its own and it is dumpable, or the opener is privileged; a confined one is not. Else EACCES.
        ESRCH.
        """
        try:
            if procfs.thread_group(tid) == process.pid:
                return True
            self.confinement.check_ptrace(tid, process.pid)
            identity.ask_to_trace(process.pid, opener)
        except ProcessLookupError:
            raise SynosError(errno.ESRCH, f"process {process.pid} or thread {tid} has ended") from None
        except PermissionError:
            raise SynosError(
                errno.EACCES, f"process {process.pid} is not the caller's to look into: it has, or had, other rights"
            ) from None
        if not process.is_alive():  # else the pid was its own when the host was asked
            raise SynosError(errno.ESRCH, f"process {process.pid} has ended")
        return False

    def _rights_of(self, process: HostProcess) -> Credentials:
        try:
            ids = credentials.identifiers(process.pid)
        except ProcessLookupError:
            raise SynosError(errno.ESRCH, f"process {process.pid} has ended") from None
        return effective(process.pid, ids.uids[1], ids.gids[1])

    def refused(self, tid: int, uid: int, gid: int, error: SynosError, *, of_program: bool) -> None:
        """An operation on a file has failed that would have changed something. The reason is the last reply of the
        thread's process, and of its parent: a shell sees why its ``rm`` failed. The parent is one of the same session,
        ids and confinement; with ``of_program``, and where the process has executed a program. Nobody begins to take
        part by this.
        """
        reply = text.render(Reply(-1, errno=error.errno, message=error.message))
        try:
            pid, to = procfs.thread_group(tid), effective(tid, uid, gid)
            own = procfs.stat(pid)
            self._tell(pid, Refusal(own.start_time, to, reply))
            if own.ppid and not (of_program and own.is_copy):
                parent = procfs.stat(own.ppid)
                if parent.session == own.session and _are_alike(pid, own.ppid):
                    self._tell(own.ppid, Refusal(parent.start_time, to, reply))
        except OSError:
            pass  # it has ended, or there is no descriptor left to look with

    def _remember(self, process: Process) -> Iterable[None]:
        self.witnesses.remember(process.pid, process.start_time, process.program)
        return ()

    def _tell(self, pid: int, refusal: Refusal) -> None:
        process = self.processes.find(pid)
        if process is not None:
            process.remember(refusal.reply, refusal.to)
        else:
            self._refusals.remember(pid, refusal)

    def last_reply(self, tid: int, uid: int, gid: int) -> bytes:
        """The last reply of the thread's process or of its nearest ancestor that has one; nothing if none has.

        Only for who has the same rights: what root's shell or a setgid program was told is not for a child that has
        given that up, nor for one in a sandbox that its parent is not in.
        """
        try:
            asks = effective(tid, uid, gid)
            for pid in procfs.ancestors(tid):
                process = self.processes.find(pid)
                if process is not None and process.last_reply_to is not None:
                    reply = process.last_reply if asks.may_know(process.last_reply_to) else None
                else:
                    reply = self._refusals.of(pid, asks)
                if reply is not None:
                    return reply if equally_confined(pid, tid) else b""
        except OSError:
            pass  # it, or one of them, has ended
        return b""


def _are_alike(pid: int, parent: int) -> bool:
    one, other = credentials.identifiers(pid), credentials.identifiers(parent)
    return one[2:] == other[2:] and equally_confined(pid, parent)


def _is_privileged(who: Credentials) -> bool:
    """Whether it may look into every process."""
    return bool(who.capabilities & credentials.CAP_SYS_PTRACE)


def effective(tid: int, uid: int, gid: int) -> Credentials:
    """The credentials of a live thread; the daemon's own object where they equal the daemon's."""
    return _opener(tid, uid, gid)[0]


def _opener(tid: int, uid: int, gid: int) -> tuple[Credentials, int]:
    """As ``effective``, with the capabilities that the thread is permitted."""
    try:
        found, permitted = credentials.of_opener(tid, uid, gid)
    except ProcessLookupError:
        raise SynosError(errno.ESRCH, f"thread {tid} has ended, or is outside the mount's pid namespace") from None
    return rights.OWN if found == rights.OWN else found, permitted
