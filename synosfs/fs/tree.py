"""The tree: which name at the top leads to what."""

from functools import partial

from synosfs.fs import msgq, observe, pipes, sem, shm, waiting
from synosfs.fs.metrics import Metrics
from synosfs.fs.node import Directory, TextFile
from synosfs.fs.observe import Door, stats_json, stats_text
from synosfs.fs.proc import Processes
from synosfs.fs.shown import ShownFile
from synosfs.fs.syscall_file import SyscallFile
from synosfs.fs.trace import Pump, TraceFile, script_file
from synosfs.fs.waiters import Waiters
from synosfs.kernel import Kernel


def root(kernel: Kernel, door: Door, waiters: Waiters) -> Directory:
    """The root of the mount. ``door`` gives the figures of the door that it is seen through; who made the ``waiters``
    sees to them.
    """
    return Directory(
        {
            "syscall": SyscallFile(kernel),
            "help": TextFile(observe.help_text),
            "pipes": pipes.directory(kernel),
            "msgq": msgq.directory(kernel),
            "shm": shm.directory(kernel),
            "proc": Processes(kernel),
            "sem": sem.directory(kernel),
            "stats": ShownFile(kernel, partial(stats_text, kernel, door)),
            "metrics": ShownFile(kernel, Metrics(kernel, door).render),
            "stats.json": ShownFile(kernel, partial(stats_json, kernel, door)),
            "trace": TraceFile(kernel, Pump(kernel)),
            "trace.replay": script_file(kernel),
            **waiting.files(kernel, waiters),
        }
    )
