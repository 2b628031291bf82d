"""Ordinary programs that tests start in a mount."""

import subprocess

from children import PATIENCE_S, wait_until
from doors import NativeDoor
from mounts import Mount

#: The key that such programs meet on.
KEY = 0x5359_1701


class Program:
    """A program that was started, and may block in a call through the mount or in the host's own."""

    def __init__(self, mount: Mount, native: NativeDoor, command: tuple[str, ...]) -> None:
        self._mount = mount
        self._native = native
        self.process = subprocess.Popen(
            command, cwd=mount.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_until_blocked(self, call: str = "msgrcv") -> "Program":
        """Return when it sleeps in this call, wherever."""
        wait_until(lambda: self._is_blocked(call) or self.process.poll() is not None, f"the program blocks in {call}")
        assert self.process.returncode is None, self.process.communicate()
        return self

    def _is_blocked(self, call: str) -> bool:
        pid = self.process.pid
        return self._native.is_blocked(pid, call) or any(what.startswith(call) for what in self._mount.blocked(pid))

    def output(self) -> str:
        """What it printed, when it has ended well."""
        printed, complaint = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, complaint
        return printed

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
