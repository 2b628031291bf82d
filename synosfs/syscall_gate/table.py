"""The system calls that the gate answers: one row a call, in the order of their x86-64 numbers.

Number, name, handler, parameters (``name:kind``, ``=default``, ``?`` optional), whether it may block, and a line of
help.
``help`` and the documentation are printed from this table.
"""

import errno

from synosfs.errors import SynosError
from synosfs.syscall_gate import sys_msg, sys_poll, sys_process
from synosfs.syscall_gate.kinds import shown, suggestion
from synosfs.syscall_gate.numbers import NAMES, NUMBERS
from synosfs.syscall_gate.spec import Row, row

# fmt: off
ROWS: tuple[Row, ...] = (
    row(7, "poll", sys_poll.sys_poll, "what:polled", blocks=True,
        help="wait for any of 3:POLLIN msgq/0[@type]:POLLIN|POLLOUT sem/3.0:POLLIN; revents of each; 0 after timeout="),
    row(35, "nanosleep", sys_process.sys_nanosleep, "tv_sec:seconds tv_nsec:long=0", blocks=True,
        help="sleep; tv_sec may have a fraction"),
    row(39, "getpid", sys_process.sys_getpid, help="the caller's process id"),
    row(63, "uname", sys_process.sys_uname, help="the names of the system"),
    row(68, "msgget", sys_msg.sys_msgget, "key:key flags:get_flags=0",
        help="find or make a message queue; flags IPC_CREAT|IPC_EXCL|mode"),
    row(69, "msgsnd", sys_msg.sys_msgsnd, "msqid:int mtype:long data:data flags:msg_flags=0", blocks=True,
        help="send a message; IPC_NOWAIT: EAGAIN when full"),
    row(70, "msgrcv", sys_msg.sys_msgrcv, "msqid:int size:size mtype:long=0 flags:msg_flags=0", blocks=True,
        help="receive; IPC_NOWAIT MSG_NOERROR MSG_EXCEPT MSG_COPY"),
    row(71, "msgctl", sys_msg.sys_msgctl, "msqid:int cmd:msg_command uid:uid? gid:uid? mode:mode? qbytes:long?",
        help="IPC_STAT IPC_SET IPC_RMID IPC_INFO MSG_INFO MSG_STAT MSG_STAT_ANY"),
    row(102, "getuid", sys_process.sys_getuid, help="the caller's real user id"),
    row(104, "getgid", sys_process.sys_getgid, help="the caller's real group id"),
    row(107, "geteuid", sys_process.sys_geteuid, help="the caller's effective user id"),
    row(108, "getegid", sys_process.sys_getegid, help="the caller's effective group id"),
    row(110, "getppid", sys_process.sys_getppid, help="the caller's parent"),
    row(115, "getgroups", sys_process.sys_getgroups, help="the caller's supplementary groups"),
    row(186, "gettid", sys_process.sys_gettid, help="the thread that opened the gate"),
    row(228, "clock_gettime", sys_process.sys_clock_gettime, "clockid:clock", help="CLOCK_REALTIME, CLOCK_MONOTONIC"),
)
# fmt: on

#: The calls whose business is interprocess communication, for ``ipc_calls`` in ``stats``.
IPC_HANDLERS = (sys_msg.__name__,)

_BY_NAME = {row.name: row for row in ROWS}
_BY_CALL: dict[str | int, Row] = {key: row for row in ROWS for key in (row.name, row.number) if key is not None}


def find(call: str | int) -> Row:
    """The row of a call by name or number. ENOSYS, by name, for what is unknown or not built."""
    try:
        return _BY_CALL[call]
    except KeyError:
        raise SynosError(errno.ENOSYS, _unknown(call)) from None


def is_ipc(row: Row) -> bool:
    return row.handler.__module__ in IPC_HANDLERS


def _unknown(call: str | int) -> str:
    if isinstance(call, int):
        name = NAMES.get(call)
        return f"{name} ({call}) is not built" if name else f"no call has number {call}"
    if call in NUMBERS:
        return f"{call} is not built; cat help lists the calls that are"
    return f"no call is named {shown(call)}{suggestion(call, _BY_NAME)}"
