"""The tree: which name at the top leads to what."""

from functools import partial

from synosfs.fs import msgq, observe, pipes, sem, shm
from synosfs.fs.node import Directory, TextFile
from synosfs.fs.proc import Processes
from synosfs.fs.syscall_file import SyscallFile
from synosfs.kernel import Kernel


def root(kernel: Kernel) -> Directory:
    """The root of the mount."""
    return Directory(
        {
            "syscall": SyscallFile(kernel),
            "help": TextFile(observe.help_text),
            "pipes": pipes.directory(kernel),
            "msgq": msgq.directory(kernel),
            "shm": shm.directory(kernel),
            "proc": Processes(kernel),
            "sem": sem.directory(kernel),
            "stats": TextFile(partial(observe.stats_text, kernel)),
        }
    )
