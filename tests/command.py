"""Running synosfs as a command, for tests: as others, with another ``serve``, in other surroundings; and its traces."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from synosfs import mountpoint

SYNOSFS = str(Path(sys.executable).with_name("synosfs"))
TIMEOUT_S = 60

# nobody, who may nevertheless read everything: the interpreter may be in the home directory of root.
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
#: What daemons are to keep there is root's.
AS_NOBODY += ["env", "-u", "RUNTIME_DIRECTORY"]

#: Gives nobody a device to open, whatever the mode of the machine's own; it is on a tmpfs that ends with the namespace.
OPEN_DEVICE = """
mkdir "$TMP/dev"; mount -t tmpfs none "$TMP/dev"
mknod "$TMP/dev/fuse" c 10 229; chmod 666 "$TMP/dev/fuse"; mount --bind "$TMP/dev/fuse" /dev/fuse
"""


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_root = pytest.mark.skipif(
    not succeeds("unshare", "--mount", *AS_NOBODY, "true"), reason="needs root, to be others and to hide devices"
)


def run(*command: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run to the end. Output goes through pipes, so a daemon that kept its standard streams would be noticed."""
    options = {"capture_output": True, "text": True, "timeout": TIMEOUT_S, "check": False, "stdin": subprocess.DEVNULL}
    return subprocess.run(command, **(options | kwargs))  # noqa: PLW1510 - check is among the options


def synosfs(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return run(SYNOSFS, *map(str, arguments), **kwargs)


@contextmanager
def namespace(tmp_path: Path, setup: str) -> Iterator[list[str]]:
    """A mount namespace, prepared in shell with TMP as its directory; the value is what to run a command in it."""
    inside = ["unshare", "--mount", "sh", "-ec", f"{setup}\n echo; exec cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(inside, stdin=pipe, stdout=pipe, env=os.environ | {"TMP": str(tmp_path)}) as keeper:
        assert keeper.stdout
        assert keeper.stdout.readline() == b"\n"
        yield ["nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt"]


def stub(body: str, *arguments: object) -> list[str]:
    """The command line of a synosfs whose ``serve(options, ready)`` has this body (lines separated by semicolons)."""
    code = f"""
import sys, types
def serve(options, ready):
    import os, signal; from synosfs.errors import SynosError; {body}
sys.modules["synosfs.mount"] = types.ModuleType("synosfs.mount")
sys.modules["synosfs.mount"].serve = serve
from synosfs import cli, daemon, mountpoint
daemon.START_TIMEOUT_S = mountpoint.PROBE_TIMEOUT_S = 2.0
sys.exit(cli.main())
"""
    return [sys.executable, "-c", code, *map(str, arguments)]


def assert_refused(done: subprocess.CompletedProcess[str], pattern: str, status: int = 1) -> None:
    """One line on standard error, which names the program and matches; nothing on standard output."""
    assert re.fullmatch(rf"synosfs: .*{pattern}.*\n", done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (status, "")


def processes_of(path: Path) -> list[int]:
    """The processes that have this path on their command line, this one's children that are still here included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(path) in words:
                found.append(int(entry.name))
    return found


def daemon_of(path: Path) -> int:
    [pid] = processes_of(path)
    return pid


def wait_gone(pid: int) -> None:
    """Wait for the end of a process that is not necessarily a child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(TIMEOUT_S * 1000)
    os.close(pidfd)
    assert ended, f"process {pid} does not end"


def mount_line(path: Path) -> str:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next((line for line in reversed(lines) if f" {path} " in line), "")


@contextmanager
def mount_point(tmp_path: Path) -> Iterator[Path]:
    """A mount point that anybody may write to. Whatever a test leaves on it, daemons included, is ended."""
    path = tmp_path / "mnt"
    path.mkdir()
    path.chmod(0o777)
    tmp_path.chmod(0o711)
    yield path
    for pid in processes_of(path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
    while mountpoint.mounted(str(path)):
        mountpoint.detach(str(path))
