"""The mount point before a mount: what can be known to fail is said here, in one line, with the way out.

Nothing here talks to a mounted filesystem in its own process: a FUSE mount whose daemon is stopped or stuck blocks
whoever touches it, SIGKILL included. ``probe`` lets a child process ask and waits for that only so long. Everything
else looks at the mount table, which never blocks.
"""

import errno
import os
import re
import select
import shutil
import signal
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from synosfs.errors import SynosError
from synosfs.host import arch
from synosfs.options import ROOT_FLAGS, MountOptions

FSTYPE = "fuse.synosfs"

#: How long a mount may take to answer before it counts as stuck, in seconds.
PROBE_TIMEOUT_S = 10.0

_FUSE_CONF = Path("/etc/fuse.conf")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table."""

    fstype: str
    source: str


def resolve(path: str) -> str:
    """The absolute name of a mount point without symbolic links, as the mount table shows it; it need not exist."""
    try:
        absolute = os.path.abspath(path)
    except OSError as error:  # the working directory is gone
        raise SynosError(error.errno or errno.ENOENT, f"{path}: no working directory; give an absolute path") from None
    # Only the parents are walked when something is mounted here: the last step would enter the mount and may hang.
    parent, name = os.path.split(absolute)
    inside_parent = os.path.join(os.path.realpath(parent), name)
    return inside_parent if mounted(inside_parent) else os.path.realpath(absolute)


def mounted(path: str) -> Mount | None:
    """What is mounted on exactly this path, the topmost if several are; None when it is not a mount point."""
    found = None
    for line in _mount_table():
        # proc(5): id parent major:minor root mountpoint options [optional...] - fstype source superoptions
        before, _, after = line.partition(" - ")
        if _unescape(before.split(" ")[4]) == path:
            fstype, source, *_ = after.split(" ")
            found = Mount(fstype, _unescape(source))
    return found


def device(path: str) -> int:
    """The device number (st_dev) of what is mounted on exactly this path; -1 when nothing is."""
    number = -1
    for line in _mount_table():
        _, _, major_minor, _, point, *_ = line.split(" ")
        if _unescape(point) == path:
            number = os.makedev(*map(int, major_minor.split(":")))
    return number


def sees(tid: int, device: int) -> bool:
    """Whether a thread has this device mounted anywhere: under another name, or in a mount namespace of its own.

    False where the caller may not ask.
    """
    try:
        table = Path(f"/proc/{tid}/mountinfo").read_bytes()
    except OSError:
        return False
    number = b"%d:%d" % (os.major(device), os.minor(device))
    return any(line.split(b" ")[2] == number for line in table.splitlines())


def is_ours(path: str) -> bool:
    """Whether the topmost mount on ``path`` is a synosfs, alive or dead."""
    mount = mounted(path)
    return mount is not None and mount.fstype == FSTYPE


def probe(path: str) -> int:
    """Ask the filesystem at ``path`` for its statistics: 0, the errno of its answer, or ETIMEDOUT when none came."""
    child = os.fork()
    if child == 0:
        answer = errno.EIO
        try:
            os.statvfs(path)
            answer = 0
        except OSError as error:
            answer = error.errno or errno.EIO
        finally:
            os._exit(answer)
    with os.fdopen(os.pidfd_open(child)) as pidfd:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(PROBE_TIMEOUT_S * 1000):
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # It may be beyond SIGKILL until the daemon is gone: leave it to init rather than wait.
    os.kill(child, signal.SIGKILL)
    return errno.ETIMEDOUT


def prepare(options: MountOptions) -> bool:
    """Check whatever can be checked before mounting and clear a dead mount away; True when there was one.

    Raises SynosError with a message for the user: ENOENT, ENOTDIR, EBUSY, ENODEV, EACCES, EPERM, ETIMEDOUT.
    """
    if reason := arch.refusal():
        raise SynosError(errno.ENOSYS, reason)
    path = options.mountpoint
    replaced = clear_dead(path)
    _check_directory(path)
    _check_device()
    if os.geteuid() != 0:
        _check_ordinary_user(options)
    return replaced


def clear_dead(path: str) -> bool:
    """Detach what dead daemons of ours have left on ``path``; True when there was something. EBUSY, ETIMEDOUT: another
    mount is there, or a live one.
    """
    replaced = False
    while mount := mounted(path):  # a second daemon killed on top of the first leaves two
        _check_dead(path, mount)
        detach(path)
        replaced = True
    return replaced


def detach(path: str) -> None:
    """Unmount ``path`` even if it is dead or in use (MNT_DETACH); EBUSY with the tool's own words when refused."""
    if os.geteuid() == 0:
        command = ["umount", "--no-canonicalize", "--lazy", path]  # looking at a dead mount fails or hangs
    else:
        command = [_fusermount(), "-u", "-z", path]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SynosError(errno.EBUSY, f"cannot remove the dead mount on {path}: {done.stderr.strip()}")


def _check_dead(path: str, mount: Mount) -> None:
    """Return when the daemon behind the mount is gone; otherwise say whose mount it is."""
    what = "synosfs" if mount.fstype == FSTYPE else f"{mount.fstype} ({mount.source})"
    answer = probe(path) if mount.fstype.startswith("fuse") else 0
    match answer:
        case errno.ENOTCONN | errno.ECONNABORTED if mount.fstype == FSTYPE:
            return
        case errno.ENOTCONN | errno.ECONNABORTED:
            raise SynosError(errno.EBUSY, f"{path} has a dead mount of {what}; remove it: fusermount3 -uz {path}")
        case errno.ETIMEDOUT:
            raise SynosError(errno.ETIMEDOUT, f"{path} is mounted by {what}, which does not answer; end that daemon")
    if mount.fstype == FSTYPE:
        raise SynosError(errno.EBUSY, f"{path} is already mounted by synosfs; to unmount it: fusermount3 -u {path}")
    raise SynosError(errno.EBUSY, f"{path} is already a mount of {what}; choose another directory")


def _check_directory(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise SynosError(errno.ENOENT, f"{path} does not exist; make it: mkdir -p {path}") from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO).lower()
        raise SynosError(error.errno or errno.EIO, f"{path} cannot be used: {reason}; choose another") from None
    if not stat.S_ISDIR(mode):
        raise SynosError(errno.ENOTDIR, f"{path} is not a directory; a mount point has to be an empty directory")


def _check_device() -> None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        match error:
            case PermissionError():
                way_out = "as root: chmod 666 /dev/fuse; in a container: run it with --device /dev/fuse"
            case FileNotFoundError():
                way_out = "as root: modprobe fuse; in a container: run it with --device /dev/fuse"
            case _:
                way_out = "the kernel's fuse module is missing; as root: modprobe fuse"
        number = error.errno or errno.ENODEV
        raise SynosError(number, f"cannot open /dev/fuse: {os.strerror(number).lower()}; {way_out}") from None


def _check_ordinary_user(options: MountOptions) -> None:
    """What fusermount3 would refuse, asked beforehand because its own words do not say how to go on."""
    path = options.mountpoint
    _fusermount()
    if not os.access(path, os.W_OK):
        way_out = "choose a directory of your own, or mount as root"
        raise SynosError(errno.EACCES, f"you have no write permission for {path}, which mounting needs; {way_out}")
    if options.allow_other and not _user_allow_other():
        way_out = f"as root: echo user_allow_other >> {_FUSE_CONF}, or leave allow_other out"
        raise SynosError(errno.EPERM, f"allow_other is not permitted to ordinary users here; {way_out}")
    for flag in sorted(options.flags & ROOT_FLAGS):
        raise SynosError(errno.EPERM, f"only root may mount with '{flag}'; use 'no{flag}'")


def _fusermount() -> str:
    # libfuse tries the directory it was built for and then PATH, and so does this.
    found = shutil.which("fusermount3", path=f"/usr/bin:/bin:{os.environ.get('PATH', '')}")
    if not found:
        raise SynosError(errno.ENOENT, "fusermount3 is missing, ordinary users need it; as root: apt install fuse3")
    return found


def _user_allow_other() -> bool:
    with suppress(OSError):
        return any(line.partition("#")[0].strip() == "user_allow_other" for line in _FUSE_CONF.read_text().splitlines())
    return False


def _mount_table() -> list[str]:
    """ENOENT: /proc is not there, or shows a pid namespace that this process is not in."""
    try:
        return Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        raise SynosError(
            errno.ENOENT,
            "/proc does not show this process: it is not mounted, or is that of another pid namespace; "
            "mount the namespace's own: mount -t proc proc /proc",
        ) from None


def _unescape(text: str) -> str:
    r"""Undo the mount table's escapes: blank, tab, newline and backslash stand there as \040, \011, \012 and \134."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
