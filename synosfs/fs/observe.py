"""The files that only show: ``help``, ``stats``, ``stats.json`` and the ``stats`` of a process. They render what others
count and change nothing.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from synosfs import __version__
from synosfs.fs.node import Who
from synosfs.fs.tables import columns
from synosfs.kernel import Kernel
from synosfs.process.accounts import KINDS
from synosfs.process.figures import Figures
from synosfs.process.host_process import HostProcess
from synosfs.slices import Slices
from synosfs.syscall_gate import table
from synosfs.syscall_gate.statistics import OTHERS, Record, Totals, record_of

_HELP = """\
synosfs {version}: system calls by echo and cat, on this host's own IPC objects.

  echo 'msgget 0x1234 IPC_CREAT|0600' > syscall     write a request ...
  cat syscall                                       ... read its reply: the id, say 0
  echo 'msgsnd 0 1 "hello, kernel"' > syscall       meets native programs on the same key
  echo 'msgrcv 0 8192' > syscall; cat syscall       13 mtype=1, then the data on the next line
  echo 'msgrcv 0 8192 timeout=2' > syscall || echo "nothing came"

  exec 3<>syscall; echo getpid >&3; read -r pid <&3   a session: one open file, replies in order
  {{"call": "msgrcv", "args": [0, 8192]}}               JSON, one object or array (a batch) a line; or MessagePack

A request that fails makes the write fail with its errno; cat syscall tells why, after a failed rm or mkdir too. Numbers
are 10, 0x1f, 0666; flags are joined by |; any argument may be given as name=value; strings with blanks stand in "double
quotes", with C escapes.
A path has a slash, ./data or /tmp/data; a bare name is a FIFO of pipes/. chdir and umask hold for calls here alone.

  msgq/sysv/0     a queue as a file: cat looks and takes nothing, > sends, <> receives; 0@7 is type 7; rm removes it
  msgq/key/0x1234 the same by key; creating it makes the queue      msgq/ctl  a table; write 'create', 'remove', 'set'
  sem/sysv/0      the values of a semaphore set; echo '0:-1' > takes one (undone when the shell dies), '0:+1' gives one
  sem/key/0x1234  the same by key; creating it makes one of value 0  sem/ctl   'create', 'setval', 'setall', 'remove'
  msgq/posix/job  a POSIX queue: > sends, <> receives, job@9 is priority 9; cat shows how many bytes are in it
  sem/posix/lock  a POSIX semaphore: echo 1 > makes it with the value 1, then echo -1 > takes and echo +1 > gives
  shm/sysv/0      the bytes of a segment, a file of a fixed size; truncate -s 4096 shm/key/0x1234 makes one; shm/ctl
  msgq/orphans    what nobody has a use for any more, and why; so in sem/, shm/. echo reap > msgq/ctl removes it;
                  'reap older=3600 user=alice', 'reap empty', 'reap 3 4'; what is in use stays, the unknown goes by id
  pipes/          mkfifo pipes/jobs: a real FIFO, for open 'jobs' too; a pipe shows as <pid>.<fd>; pipes/ctl a table
  own msgq/0      to syscall: it goes with the last process that owns it, as what is made with IPC_EPHEMERAL; disown
  msgq/removed    what is gone from there, whose it was, why and by whom; in sem/, shm/ and pipes/ likewise
  proc/self/fd/   links to what the descriptors stand for (0, 1, 2: the process's own); proc/self/fds their table
  proc/self/mem   what shmat attached, by address: dd if=proc/self/mem bs=1 skip=$((0x7f0000000000)) count=5
  proc/self/      this process: status, blocked, undo, stats, syscall
  stats           counts and latencies of every call; stats.json the same; metrics, for Prometheus, every object too
  waiting         who waits on this host, for what, behind whom (pid? is a guess); waiting.dot | dot -Tsvg
  advice          deadlocks and the way out of each, and other waits that will not end by themselves
  proc/<pid>/ctl  what a process has, a table; write 'close 5', 'detach 0x7f…', 'end <tid>', 'end all EIO' to take it

  trace           the latest calls, as strace shows them; exec 3<>trace, and read -r line <&3: the next one as it comes;
                  echo 'pid=42 call=msgsnd,msgrcv errno=any object=msgq/0 slower=0.1' >&3 chooses; trace.replay a script

  echo spawn /bin/sort sort stdin=3 stdout=6 >&5    a program with descriptors of the session's; then wait4, its status
  fork            a child that waits: echo dup2 4 1 > proc/<child>/syscall, close, chdir, setenv, and then execve path

Calls belong to the process that opened the file. In  r=$(echo getpid > syscall; cat syscall)  that is the subshell:
what it opened goes when it ends. A redirection of a builtin belongs to the shell itself. A signal that the shell
handles ends a wait with EINTR, the end of a background job too: until echo 0:-1 > sem/sysv/0; do :; done
A reply is its process's and shows in its children. Write to proc/$$/syscall for the shell itself, wherever it stands:
r=$(echo pipe > proc/$$/syscall; cat syscall)  and  ... | tee proc/$$/syscall

{calls}"""


def help_text() -> str:
    """``help``: how to use what is here, and every call that the table has."""
    rows = [(row.usage(), row.help) for row in table.ROWS]
    return _HELP.format(version=__version__, calls=columns(("call", "what it does; [optional]"), rows))


#: The door's own figures, by name.
Door = Callable[[], list[tuple[str, object]]]


class Look(NamedTuple):
    """All that is counted: the totals, other single figures by name, and what there is of each call and each user."""

    totals: Totals
    head: dict[str, object]
    calls: list[tuple[str, Figures]]
    users: list[tuple[int, Figures]]


async def look(kernel: Kernel, door: Door, slices: Slices) -> Look:
    for _ in kernel.statistics.fold():
        await slices.pause()
    watched, parking = kernel.watches.statistics(), kernel.parking.statistics()
    head = {
        "processes": len(kernel.processes),
        "children": kernel.processes.forks.statistics(),
        "blocked_callers": parking.parked,
        "blocked_total": parking.total,
        **dict(door()),
        "watched": watched.watched,
        "watchers": watched.watchers,
        "watching_threads": watched.threads,
        "watches_started": watched.started,
    }
    return Look(kernel.statistics.totals(), head, kernel.statistics.calls(), kernel.statistics.users())


async def stats_text(kernel: Kernel, door: Door, _who: Who, slices: Slices) -> str:
    """``stats``: the single figures, a line a call, a line a user, and what each user holds of the daemon, and how much
    that may be.
    """
    found = await look(kernel, door, slices)
    head = found.totals._asdict() | {"avg_response_time": f"{found.totals.avg_response_time:.9f}"} | found.head
    lines = "".join(f"{name} {figure}\n" for name, figure in head.items())
    users = [(user_name(uid), figures) for uid, figures in found.users]
    held = [
        (each.uid, *(f"{used}/{each.limits[name]}" for name, used in each.used.items()))
        for each in kernel.accounts.statistics()
    ]
    texts = [lines, await _figures("call", found.calls, slices), await _figures("user", users, slices)]
    return "\n".join([*texts, columns(("uid", *KINDS), held)])


async def stats_json(kernel: Kernel, door: Door, _who: Who, slices: Slices) -> str:
    """``stats.json``: the same as one object, times in seconds."""
    found = await look(kernel, door, slices)
    whole: dict[str, Any] = found.totals._asdict() | found.head
    whole["calls"] = {name: await _as_json(figures, slices) for name, figures in found.calls}
    whole["users"] = {user_name(uid): await _as_json(figures, slices) for uid, figures in found.users}
    whole["held"] = {
        str(each.uid): {name: {"used": used, "limit": each.limits[name]} for name, used in each.used.items()}
        for each in kernel.accounts.statistics()
    }
    return json.dumps(whole, indent=1) + "\n"


async def process_stats(process: HostProcess, slices: Slices) -> str:
    """``proc/<pid>/stats``: how many calls, how many of them failed, and a line a call."""
    found = []
    for name, figures in process.figures():
        found.append((name, figures))
        await slices.pause()
    found.sort(key=lambda item: -item[1].count)
    calls, errors = process.counted()
    return f"calls {calls}\nerrors {errors}\n\n" + await _figures("call", found, slices)


_HEADER = (
    *("count", "errors", "blocked", "bytes", "mean_us", "p50_us", "p90_us", "p99_us", "max_us"),
    *("parked_mean_us", "parked_p50_us", "parked_p90_us", "parked_p99_us", "parked_max_us", "errnos"),
)


async def _figures(of: str, found: Iterable[tuple[str, Figures]], slices: Slices) -> str:
    """A table of figures, times in microseconds."""
    rows = []
    for name, figures in found:
        rows.append((name, *_row(record_of(figures))))
        await slices.pause()
    return columns((of, *_HEADER), rows)


def _row(record: Record) -> tuple[object, ...]:
    times = (*record.running[1:], *record.parked[1:])
    errnos = ",".join(f"{name}:{count}" for name, count in record.errnos.items()) or "-"
    counts = record.count, record.errors, record.blocked, record.bytes
    return (*counts, *(f"{seconds * 1e6:.1f}" for seconds in times), errnos)


async def _as_json(figures: Figures, slices: Slices) -> dict[str, Any]:
    await slices.pause()
    record = record_of(figures)
    times = {"running": record.running._asdict(), "parked": record.parked._asdict()}
    return {
        "count": record.count,
        "errors": record.errors,
        "blocked": record.blocked,
        "bytes": record.bytes,
        "errnos": record.errnos,
        **times,
    }


def user_name(uid: int) -> str:
    """A user's name in a table: those beyond the first 4096 are one."""
    return "others" if uid == OTHERS else str(uid)
