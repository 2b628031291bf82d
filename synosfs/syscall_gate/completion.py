"""What is done with every call that has ended: the one point that each comes by, once, however it ended.

Statistics, the books, the usage of objects, the trace and those who look on hang here and nowhere else. It is on the
path of every call: nothing is done here that who reads can do, and no function is called for what is a line.
"""

from collections.abc import Sequence
from typing import Any

from synosfs.ipc.manager import IPCManager
from synosfs.process.descriptors import Description
from synosfs.process.figures import PIECE
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.calls import Call, used_by
from synosfs.syscall_gate.observers import Completed, Observers
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.statistics import SyscallStatistics
from synosfs.syscall_gate.trace import KEPT, Trace, cut_reply, cut_values

#: The name under which calls are counted that there are none of.
UNKNOWN = "unknown"


class Completion:
    """One for the mount."""

    def __init__(self, statistics: SyscallStatistics, books: IPCManager) -> None:
        self.observers = Observers()
        self.trace = Trace()
        self._watching = self.observers.watching
        self._statistics = statistics
        self._books = books

    def ended(
        self,
        call: Call | None,
        caller: Caller,
        values: Sequence[Any],
        reply: Reply,
        began_ns: int,
        ran_ns: int,
        parked_ns: int | None = None,
        about: Description | None = None,
        tid: int = 0,
    ) -> Reply:
        """``call`` is None where there is none of its name; ``values`` are as far as they were bound; ``about`` is the
        open thing that it was about, if it named a descriptor; ``tid`` the host thread that slept for it.
        """
        process, moved, of = caller.process, 0, ""
        given, got = values, reply  # as much of them as the trace keeps
        name = UNKNOWN if call is None else call.name
        tally = process.tallies.get(name)
        if tally is None:
            tally = self._statistics.tally(process, name)
        if reply.errno:
            tally.errnos[reply.errno] = tally.errnos.get(reply.errno, 0) + 1
            given = cut_values(values)
        elif call is not None:
            if reply.data is not None:
                moved = len(reply.data)
            elif call.data_at >= 0:
                moved = len(values[call.data_at])
            elif call.moves_ret:
                moved = reply.ret
            if moved:
                tally.bytes += moved
            if call.effect is not None:
                call.effect(self._books, process, tid, values, reply)
            if call.lists or moved > KEPT:
                given, got = cut_values(values), cut_reply(reply)
            elif reply.results:
                for result in reply.results.values():
                    if type(result) is not int:
                        got = cut_reply(reply)
                        break
        used = None
        if about is not None:
            of = about.ipc_id or about.path
            if about.is_ipc:
                tally.ipc += 1
                used = about.usage
        elif call is not None and call.kind is not None and values:
            used = call.usages.get(values[call.used_at]) or used_by(call, caller, values, reply)
        if used is not None:
            used.calls += 1
            used.bytes += moved
            used.running_ns += ran_ns
            if parked_ns is not None:
                used.waits += 1
                used.parked_ns += parked_ns
            if reply.errno:
                used.errors += 1
        if parked_ns is not None:
            tally.parked.append(parked_ns)
        running = tally.running
        running.append(ran_ns)
        if len(running) >= PIECE:
            tally.fold()
        trace = self.trace  # ``Trace.ended``, without the call
        place = trace.next
        trace.entries[place & trace.mask] = (began_ns, caller.identity, call, given, got, ran_ns, parked_ns, of)
        trace.next = place + 1
        if trace.wake is not None:
            trace.tell()
        if self._watching:
            row = None if call is None else call.row
            self.observers.notify(Completed(row, caller, values, reply, ran_ns, parked_ns, moved))
        return reply
