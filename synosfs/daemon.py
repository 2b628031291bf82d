"""From a command to a service: the fork, the log, and the word that the mount is ready.

``start`` forks twice. The daemon tells the waiting parent two lines through a pipe, its pid and then ``ready`` or the
reason why not; the parent believes ``ready`` only after the mount has answered to itself. Until then the daemon's
standard error is a file in memory that both share, because libfuse and fusermount3 give their reasons nowhere else.

Order matters: the pipe is the daemon's life line while it starts. A parent that was interrupted leaves it without a
reader, the write of ``ready`` fails, and the mount is taken down again. Nothing half started stays.
"""

import errno
import logging
import logging.handlers
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from synosfs import mountpoint
from synosfs.errors import SynosError
from synosfs.logfilter import Sober
from synosfs.options import MountOptions
from synosfs.supervisor import supervise

#: The longest a daemon may take to say whether it could mount, in seconds: an import on a slow disk, not a wait.
START_TIMEOUT_S = 60.0

_DIED = "the daemon died while it started; to see why: synosfs -f --log-level debug"
_NO_SIGN = f"the daemon gave no sign for {START_TIMEOUT_S:.0f} s; to see why: synosfs -f --log-level debug"

_SYSLOG = "/dev/log"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """``level`` is the name of a logging level in lower case; ``file`` None means stderr or syslog."""

    level: str = "info"
    file: str | None = None


def run(options: MountOptions, logs: LogOptions, *, supervised: bool = False) -> None:
    """Mount and serve in this process until a clean unmount; ``supervised``: in a child of it, which is started again
    when it has been killed. SynosError when it cannot mount or log.

    It ends the process itself: a thread that begins or wakes while the interpreter takes itself apart crashes it, and
    one that the host holds would wait there.
    """
    configure_log(logs, foreground=True)
    _serve(options, lambda: None, supervised=supervised)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)


def start(options: MountOptions, logs: LogOptions, *, supervised: bool = False) -> None:
    """Mount and serve in a daemon, or in a ``supervised`` child of it; return when the mount has answered. SynosError
    with the daemon's reason if not.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:  # a caller without standard streams: keep their numbers free
        pass
    os.close(spare)
    printed = os.memfd_create("synosfs-start")
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _become_daemon(options, logs, _Report(send), printed, supervised=supervised)
    os.close(send)
    os.waitpid(child, 0)  # the one between, which ends as soon as it has forked
    pid, word = _read_report(receive)
    reason = _reason_not_answering(options.mountpoint) if word == "ready" else word
    if not reason:
        return
    if pid and word in ("ready", _NO_SIGN):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if word in ("ready", _NO_SIGN, _DIED) and mountpoint.is_ours(options.mountpoint):
        with suppress(SynosError):
            mountpoint.detach(options.mountpoint)
    said = "; ".join(filter(None, os.pread(printed, 4096, 0).decode(errors="replace").splitlines()))
    raise SynosError(errno.EIO, f"{reason} ({said})" if said else reason)


def configure_log(logs: LogOptions, *, foreground: bool) -> None:
    """Send all logging to the file, else to stderr (in the foreground), else to syslog if there is one."""
    handler: logging.Handler
    if logs.file:
        try:
            # Opened anew when logrotate has moved it.
            handler = logging.handlers.WatchedFileHandler(logs.file, errors="backslashreplace")
        except OSError as error:
            number = error.errno or errno.EIO
            raise SynosError(number, f"cannot open the log file {logs.file}: {os.strerror(number).lower()}") from None
    elif foreground:
        handler = logging.StreamHandler()
    else:
        handler = _syslog()
    if not handler.formatter:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Sober())
    logging.basicConfig(level=logs.level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = foreground  # a log that cannot be written is no business of a daemon's callers
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread_death
    sys.unraisablehook = _log_unraisable


def _syslog() -> logging.Handler:
    facility = logging.handlers.SysLogHandler.LOG_DAEMON
    try:
        handler = logging.handlers.SysLogHandler(_SYSLOG, facility)
    except OSError:  # no syslog here, as in most containers
        return logging.NullHandler()
    handler.setFormatter(logging.Formatter("synosfs[%(process)d]: %(levelname)s %(name)s: %(message)s"))
    return handler


def sd_notify(address: str, state: str) -> None:
    """Tell the service manager at ``address``, if any (sd_notify(3)); a leading @ stands for an abstract socket."""
    if address.startswith(("/", "@")):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


class _Report:
    """The daemon's end of the pipe. It carries one word after the pid: what fails later is the log's business."""

    def __init__(self, send: int) -> None:
        self.fd = send
        self._open = True

    def pid(self) -> None:
        os.write(self.fd, b"%d\n" % os.getpid())

    def ready(self) -> None:
        """Raises BrokenPipeError, which ends the mount, when nobody waits for it any more."""
        self._say("ready")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def failed(self, reason: str) -> None:
        if self._open:
            with suppress(BrokenPipeError):
                self._say(reason)

    def _say(self, word: str) -> None:
        self._open = False
        try:
            os.write(self.fd, " ".join(word.split()).encode() + b"\n")
        finally:
            os.close(self.fd)


def _serve(options: MountOptions, report_ready: Callable[[], None], *, supervised: bool) -> None:
    # Taken out of the environment: programs that are started from here must not speak for this service.
    manager = os.environ.pop("NOTIFY_SOCKET", "")

    def ready() -> None:
        report_ready()
        sd_notify(manager, f"READY=1\nMAINPID={os.getpid()}")

    if supervised:
        supervise(options, _mount_and_serve, ready, START_TIMEOUT_S * 0.9)  # its reason comes before we give it up
    else:
        _mount_and_serve(options, ready)
    sd_notify(manager, "STOPPING=1")


def _mount_and_serve(options: MountOptions, ready: Callable[[], None]) -> None:
    from synosfs.mount import serve  # noqa: PLC0415 - loads pyfuse3 and trio: after the checks, after the fork

    serve(options, ready)


def _become_daemon(
    options: MountOptions, logs: LogOptions, report: _Report, printed: int, *, supervised: bool
) -> NoReturn:
    """The child's side of ``start``. Leaves by _exit, so that nothing of the parent's runs twice."""
    status = 1
    try:
        os.setsid()
        if os.fork():  # a process that does not lead its session can never be given a terminal
            os._exit(0)
        report.pid()
        _let_go(report.fd, printed)
        configure_log(logs, foreground=False)
        _serve(options, report.ready, supervised=supervised)
        status = 0
    except SynosError as error:
        log.error("%s", error.message)  # noqa: TRY400 - the message is the whole story
        report.failed(error.message)
    except BaseException as error:
        log.exception("the daemon fails")
        report.failed(f"internal error: {type(error).__name__}: {error}")
    finally:
        logging.shutdown()
        os._exit(status)


def _let_go(send: int, printed: int) -> None:
    """Hold on to nothing of the caller's: directory, standard streams, descriptors, umask."""
    os.chdir("/")
    os.umask(0o022)
    os.dup2(printed, 2)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.closerange(3, send)
    os.closerange(send + 1, os.sysconf("SC_OPEN_MAX"))


def _read_report(receive: int) -> tuple[int, str]:
    """The daemon's pid (0 if it never said) and its word; ``_DIED`` or ``_NO_SIGN`` when it has none."""
    report = b""
    deadline = time.monotonic() + START_TIMEOUT_S
    poll = select.poll()
    poll.register(receive, select.POLLIN)
    word = _DIED
    while report.count(b"\n") < 2:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            word = _NO_SIGN
            break
        if not (chunk := os.read(receive, 4096)):
            break
        report += chunk
    os.close(receive)
    pid, _, said = report.decode(errors="replace").partition("\n")
    return int(pid or 0), said.strip() or word


def _reason_not_answering(path: str) -> str:
    """Empty when the mount on ``path`` is ours and answers."""
    if not mountpoint.is_ours(path):
        return f"the daemon is ready, but nothing is mounted on {path}"
    answer = mountpoint.probe(path)
    return f"mounted on {path}, but it does not answer: {os.strerror(answer).lower()}" if answer else ""


def _log_unraisable(failure: "sys.UnraisableHookArgs") -> None:
    # As above, of the threads that host.thread starts, and of what is let go of.
    log.error(
        "%s: %r", failure.err_msg or "something fails that nobody waits for", failure.object, exc_info=failure.exc_value
    )


def _log_thread_death(death: threading.ExceptHookArgs) -> None:
    # The default writes to standard error, which a daemon does not have.
    if death.exc_value and not isinstance(death.exc_value, SystemExit):
        log.error("thread %s dies", death.thread and death.thread.name, exc_info=death.exc_value)
