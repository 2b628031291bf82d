"""The files that only show: ``help`` and ``stats``. They render what others count and change nothing."""

from collections.abc import Iterable

from synosfs import __version__
from synosfs.fs.tables import columns
from synosfs.kernel import Kernel
from synosfs.process.accounts import KINDS
from synosfs.syscall_gate import table

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
  proc/self/      this process: status, blocked, undo, syscall            stats     counts and latencies of every call
  waiting         who waits on this host, for what, behind whom (pid? is a guess); waiting.dot | dot -Tsvg
  advice          deadlocks and the way out of each, and other waits that will not end by themselves
  proc/<pid>/ctl  what a process has, a table; write 'close 5', 'detach 0x7f…', 'end <tid>', 'end all EIO' to take it

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


def stats_text(kernel: Kernel, door: Iterable[tuple[str, object]]) -> str:
    """``stats``: the totals, the blocked callers, what the door has to say of itself, and a line a call; times in
    microseconds in the table.
    """
    totals, parking = kernel.statistics.totals(), kernel.parking.statistics()
    watched = kernel.watches.statistics()
    lines = [
        f"total_calls {totals.total_calls}",
        f"ipc_calls {totals.ipc_calls}",
        f"avg_response_time {totals.avg_response_time:.9f}",
        f"consciousness_optimizations {totals.consciousness_optimizations}",
        f"processes {len(kernel.processes)}",
        f"children {kernel.processes.forks.statistics()}",
        f"blocked_callers {parking.parked}",
        f"blocked_total {parking.total}",
        *(f"{name} {figure}" for name, figure in door),
        f"watched {watched.watched}",
        f"watchers {watched.watchers}",
        f"watching_threads {watched.threads}",
        f"watches_started {watched.started}",
    ]
    rows = [
        (
            record.name,
            record.count,
            record.errors,
            record.blocked,
            record.bytes,
            *(f"{seconds * 1e6:.1f}" for seconds in (record.mean, record.p50, record.p99, record.most)),
            ",".join(f"{name}:{count}" for name, count in record.errnos.items()) or "-",
        )
        for record in kernel.statistics.records()
    ]
    header = ("call", "count", "errors", "blocked", "bytes", "mean_us", "p50_us", "p99_us", "max_us", "errnos")
    return "\n".join(lines) + "\n\n" + columns(header, rows) + "\n" + _users(kernel)


def _users(kernel: Kernel) -> str:
    """What each user holds of the daemon, and how much that may be."""
    rows = [
        (each.uid, *(f"{used}/{each.limits[name]}" for name, used in each.used.items()))
        for each in kernel.accounts.statistics()
    ]
    return columns(("uid", *KINDS), rows)
