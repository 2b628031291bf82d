"""The command ``synosfs``: parse, check, mount.

Two forms, one program: ``synosfs MOUNTPOINT`` for people, and ``synosfs SOURCE MOUNTPOINT -o OPTIONS`` for mount(8),
which reaches it through mount.fuse3. Whatever cannot be done is one line on stderr with the way out; the exit status
is 0 when the mount answers (in the foreground: when it has ended well), 1 when it cannot be, 2 for a wrong command
line. What is costly to import (pyfuse3, trio) comes after the checks and the fork.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from synosfs import __version__, daemon, mountpoint
from synosfs.errors import SynosError
from synosfs.options import parse_mount_words

_DESCRIPTION = """\
Mount SynOS, a small operating system made of files, on a directory.

Its system calls are lines written to a file, and they act on this machine's own
pipes, message queues, semaphores and shared memory:

  mkdir -p /mnt/synos && synosfs /mnt/synos     mount; returns when it can be used
  cat /mnt/synos/help                           what is there and how to use it
  echo getpid > /mnt/synos/syscall              make a system call
  cat /mnt/synos/syscall                        read its answer
  fusermount3 -u /mnt/synos                     unmount
"""

_EPILOG = """\
mount options (-o, separated by commas; may be repeated):
  allow_other           let other users in too; each acts with his own rights. An ordinary
                        user needs the line user_allow_other in /etc/fuse.conf for it
  confined=allow|ipc|deny
                        for callers under a sandbox (no_new_privs, seccomp, another security
                        label): as for others; IPC, but no files (the default); nothing
  fsname=NAME           the source that mount(8) and df show; default: synosfs
  max_sessions=N max_memory=N max_descriptors=N max_attachments=N max_waiting=N max_queue_bytes=N
  max_children=N        how much of the daemon one user may hold: open files, bytes of replies
                        and half records, descriptors, attached segments, waiting calls, bytes
                        in POSIX queues, children
  receive=fast|plain    how requests are waited for; plain: by pyfuse3's own loop, which is
                        slower (to find faults)
  nosuid nodev noexec   as in mount(8); also suid dev exec, sync async dirsync, atime noatime
  noauto nofail x-* ... words that fstab needs are accepted

The same by mount(8), and by a line in /etc/fstab:
  mount -t fuse.synosfs synosfs /mnt/synos -o allow_other
  synosfs  /mnt/synos  fuse.synosfs  allow_other,nofail  0  0

Root and ordinary users can mount; the latter need a directory of their own.
A mount left behind by a killed daemon is replaced; with --supervise at once, by a small parent
that starts the daemon again. Unmounting, or SIGTERM to either, ends both.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage block."""
        self.exit(2, f"synosfs: {message}; try: synosfs --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. A wrong command line, ``--help`` and ``--version`` exit at once."""
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    match arguments.paths:
        case [path]:
            source = None
        case [source, path]:
            pass
        case []:
            parser.error("no mount point given")
        case [_, _, extra, *_]:
            parser.error(f"one word too many: '{extra}'")
    words = [word for text in arguments.options for word in text.split(",")]
    try:
        options = parse_mount_words(mountpoint.resolve(path), source, words)
        if mountpoint.prepare(options):
            print(f"synosfs: replacing the mount that a dead daemon left on {options.mountpoint}", file=sys.stderr)
        log = daemon.LogOptions(arguments.log_level, arguments.log_file and os.path.abspath(arguments.log_file))
        if arguments.foreground:
            daemon.run(options, log, supervised=arguments.supervise)
        else:
            daemon.start(options, log, supervised=arguments.supervise)
    except SynosError as error:
        print(f"synosfs: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="synosfs",
        usage="synosfs [-f] [--supervise] [-o OPTIONS] [--log-level L] [--log-file F] [SOURCE] MOUNTPOINT",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="MOUNTPOINT", help="the directory to mount on (a SOURCE before it is just shown)")
    add("-f", "--foreground", action="store_true", help="stay in the foreground; Ctrl-C unmounts and ends")
    add("-o", dest="options", action="append", default=[], metavar="OPTIONS", help="mount options, see below")
    add("--supervise", action="store_true", help="start the daemon again when it has been killed, by a small parent")
    levels = ("debug", "info", "warning", "error")
    add("--log-level", choices=levels, default="info", metavar="LEVEL", help=f"{', '.join(levels)}; default: info")
    add("--log-file", metavar="FILE", help="append the log to FILE; default: syslog, with -f: standard error")
    add("--version", action="version", version=f"synosfs {__version__}")
    return parser
