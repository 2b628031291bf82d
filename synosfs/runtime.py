"""Where the daemon keeps what must outlive it: a directory in memory that is its own."""

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger(__name__)


def directory() -> Path | None:
    """``$RUNTIME_DIRECTORY`` (systemd.exec(5)), else ``/run/synosfs`` for root and ``$XDG_RUNTIME_DIR/synosfs`` for
    others (basedir specification); made if it is not there. None: there is none to be had.
    """
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    above = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    if not given and not above:
        return None
    path = Path(given or f"{above}/synosfs")
    try:
        path.mkdir(0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        log.info("no runtime directory: %s", error)
        return None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        log.warning("%s is no directory of the daemon's own, which nobody else may write to; it is not used", path)
        return None
    return path


def journal(mountpoint: str) -> str | None:
    """The journal's file of the mount there, in this IPC namespace; None without a runtime directory."""
    where = directory()
    if where is None:
        return None
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/ipc").strip("ipc:[]")
    name = quote(mountpoint, safe="")
    return str(where / f"{name[-200:]}.{namespace}.sqlite3")
