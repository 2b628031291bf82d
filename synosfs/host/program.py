"""Small programs of ours beside the daemon, where a process has to be what the daemon cannot be."""

import socket
import subprocess

from synosfs.host import rights


def start(command: list[str], stdin: socket.socket, stdout: socket.socket | None = None) -> "subprocess.Popen[bytes]":
    """Run one with the daemon's own rights. Its standard input is a socket of the daemon's, and it ends with that."""
    with rights.acting_as_daemon():
        return subprocess.Popen(
            command,
            stdin=stdin.fileno(),
            stdout=subprocess.DEVNULL if stdout is None else stdout.fileno(),
            cwd="/",
            start_new_session=True,
        )
