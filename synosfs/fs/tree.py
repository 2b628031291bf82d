"""The tree: which name at the top leads to what."""

from functools import partial

from synosfs.fs import msgq, observe, pipes, sem, shm
from synosfs.fs.node import Directory, TextFile
from synosfs.fs.proc import Processes
from synosfs.fs.syscall_file import SyscallFile
from synosfs.syscall_gate.session import Gate


def root(gate: Gate) -> Directory:
    """The root of the mount."""
    return Directory(
        {
            "syscall": SyscallFile(gate),
            "help": TextFile(observe.help_text),
            "pipes": pipes.directory(gate),
            "msgq": msgq.directory(gate),
            "shm": shm.directory(gate),
            "proc": Processes(gate),
            "sem": sem.directory(gate),
            "stats": TextFile(partial(observe.stats_text, gate)),
        }
    )
