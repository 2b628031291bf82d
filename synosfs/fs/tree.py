"""The tree: which name at the top leads to what."""

from synosfs.fs import msgq, observe, pipes, sem, shm, waiting
from synosfs.fs.node import Directory, Node, TextFile
from synosfs.fs.proc import Processes
from synosfs.fs.syscall_file import SyscallFile
from synosfs.fs.waiters import Waiters
from synosfs.kernel import Kernel


def root(kernel: Kernel, stats: Node, waiters: Waiters) -> Directory:
    """The root of the mount. ``stats`` is of its maker, who knows the door too, and sees to the ``waiters``."""
    return Directory(
        {
            "syscall": SyscallFile(kernel),
            "help": TextFile(observe.help_text),
            "pipes": pipes.directory(kernel),
            "msgq": msgq.directory(kernel),
            "shm": shm.directory(kernel),
            "proc": Processes(kernel),
            "sem": sem.directory(kernel),
            "stats": stats,
            **waiting.files(kernel, waiters),
        }
    )
