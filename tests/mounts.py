"""A mount of its own for tests: started, looked at, ended, and its log read.

It lives in the foreground as a child of the test process, so that its end is a fact and its status is known.
"""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from children import PATIENCE_S
from command import SYNOSFS

from synosfs import mountpoint

#: What no daemon may write into its log while tests run.
COMPLAINT = re.compile(r".*(?: WARNING | ERROR | CRITICAL |^Traceback).*", re.MULTILINE)


class Mount:
    """A running daemon and its mount point. ``prefix`` is a command that runs the daemon, such as ``unshare --ipc``."""

    def __init__(self, directory: Path, *, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.path = directory / "mnt"
        self.path.mkdir(exist_ok=True)
        self.gate = self.path / "syscall"
        self.log = directory / "log"
        self.runtime = directory / "runtime"
        self._prefix = prefix
        self._options = options
        self._log_read = 0
        self.daemon: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start the daemon, again if it has ended; return when the mount answers."""
        notify = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            command = [*self._prefix, SYNOSFS, "-f", "--log-file", str(self.log), *self._options, str(self.path)]
            own = {"NOTIFY_SOCKET": str(notify), "SYNOSFS_GUARD": "1", "RUNTIME_DIRECTORY": str(self.runtime)}
            environment = os.environ | own
            self.daemon = subprocess.Popen(command, env=environment, start_new_session=True)
            ended = os.pidfd_open(self.daemon.pid)
            try:
                told, _, _ = select.select([ready, ended], [], [], PATIENCE_S)
                assert told, f"the daemon is not ready within {PATIENCE_S:g} s"
                assert ready in told, f"the daemon ended with status {self.daemon.wait()}, see its standard error"
                assert ready.recv(4096).startswith(b"READY=1")
            finally:
                os.close(ended)
                notify.unlink()
        os.stat(self.path / "help")

    def stop(self) -> None:
        """End it as a service manager does. Nothing may stay mounted, and the end is a clean one."""
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
        assert self.daemon.wait(PATIENCE_S) == 0, self.log.read_text()
        assert not mountpoint.mounted(str(self.path))

    def kill(self) -> None:
        """``kill -9``: the mount stays behind, dead."""
        self.daemon.kill()
        self.daemon.wait()

    def clear(self) -> None:
        """Whatever state it is in, leave nothing."""
        self.kill()
        while mountpoint.mounted(str(self.path)):
            mountpoint.detach(str(self.path))

    def complaints(self) -> list[str]:
        """The warnings and errors in the log since the last look."""
        text = self.log.read_text()
        new, self._log_read = text[self._log_read :], len(text)
        return [match[0] for match in COMPLAINT.finditer(new)]

    def stats(self) -> dict[str, str]:
        """The lines at the top of ``stats``."""
        head = (self.path / "stats").read_text().split("\n\n")[0]
        return dict(line.split(" ", 1) for line in head.splitlines())

    def busy_s(self) -> float:
        """For how long the daemon's main thread has run, in seconds: what others wait for, whatever else runs here."""
        text = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/schedstat").read_text()
        return int(text.split()[0]) / 1e9

    def blocked_callers(self) -> int:
        return int(self.stats()["blocked_callers"])

    def blocked(self, pid: int) -> list[str]:
        """The calls that a process is blocked in, as ``proc/<pid>/blocked`` shows them."""
        try:
            lines = (self.path / f"proc/{pid}/blocked").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [line.split(maxsplit=2)[2] for line in lines]


@contextmanager
def mounted(*, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> Iterator[Mount]:
    """A mount that others than its owner can reach where that is permitted. It must have had nothing to complain of."""
    directory = Path(tempfile.mkdtemp(prefix="synosfs-test-"))
    directory.chmod(0o711)
    if os.geteuid() == 0:
        options = (*options, "-o", "allow_other")
    mount = None
    try:
        mount = Mount(directory, prefix=prefix, options=options)
        yield mount
        if mount.daemon.poll() is None:
            mount.stop()
        complaints = mount.complaints()
        assert not complaints, complaints
    finally:
        if mount is not None:
            mount.clear()
        shutil.rmtree(directory)
