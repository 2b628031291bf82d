"""How requests are received: fast, by standing in for pyfuse3's loop, or plainly. Either way every call is answered and
every blocked caller can be freed, and ``stats`` and the log say which way it is.
"""

import logging
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pyfuse3
import pytest
import trio
from children import Child, wait_until
from doors import Blocked, MountDoor, write
from mounts import Mount, mounted

from synosfs.errors import SynosError
from synosfs.fs import receive
from synosfs.fs.receive import Receiver
from synosfs.options import parse_mount_words

#: Nobody is made to wait for the look that comes once in two seconds, nor is a busy machine a failure.
FREED_S = 1.5


def daemon_with(change: str) -> tuple[str, ...]:
    """A command that runs the daemon after a change to what it is made of."""
    return (sys.executable, "-c", f"import sys; {change}; from synosfs.cli import main; sys.exit(main(sys.argv[2:]))")


#: How the daemon is started, and what it then says of itself.
WAYS = {
    "fast": ((), (), "on", ""),
    "as the option asks": ((), ("-o", "receive=plain"), "off: receive=plain", ""),
    "a version that was not tried": (
        daemon_with("import trio; trio.__version__ = '9.9.0'"),
        (),
        "off: trio 9.9.0 was not tried (0.30 up to below 0.36)",
        "requests are received the plain way: trio 9.9.0 was not tried",
    ),
    "trio has changed inside": (
        daemon_with("import synosfs.fs.receive as r; r._runner = object"),
        (),
        "off: trio",
        "keeps its deadlines and its epoll otherwise",
    ),
    "pyfuse3 has changed inside": (
        daemon_with("import synosfs.fs.receive as r; r._replace_trio = lambda _: 0; r._ENTERED_BY = 0"),
        (),
        "off: pyfuse3",
        "does not wait by way of its global trio",
    ),
}


class Started:
    """A mount that receives its requests in one of the ways, and a door to it."""

    def __init__(self, mount: Mount, said: str, complaint: str) -> None:
        self.mount = mount
        self.door = MountDoor(mount, "text")
        self.said = said
        self.complaint = complaint

    def blocked(self) -> Blocked:
        return self.door.block("nanosleep", 1000)


@pytest.fixture(params=WAYS)
def started(request: pytest.FixtureRequest, ipc_namespace: None) -> Iterator[Started]:
    prefix, options, said, complaint = WAYS[request.param]
    with mounted(prefix=prefix, options=options) as mount:
        wait_until(lambda: mount.stats()["fast_receive"].startswith(said), f"it is {said}")
        found = Started(mount, said, complaint)
        yield found
        if mount.daemon.poll() is None:
            found.door.close()
        complaints = mount.complaints()
        assert len(complaints) == bool(complaint)
        assert complaint in "".join(complaints)


def test_it_answers_frees_who_is_killed_and_who_is_signalled_and_says_how_it_receives(started: Started) -> None:
    door, mount = started.door, started.mount
    assert [door.ok("getpid").ret for _ in range(100)] == [os.getpid()] * 100
    killed = started.blocked()
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(killed.ended, "the death of a blocked caller", FREED_S)
    assert killed.status == -signal.SIGKILL
    signalled = started.blocked()
    signalled.interrupt()
    assert signalled.result(FREED_S).errno == "EINTR"
    assert mount.blocked_callers() == 0
    stats = mount.stats()
    assert stats["fast_receive"].startswith(started.said)
    assert int(stats["requests"]) > 200
    assert (int(stats["interrupts"]) > 0) == (started.said == "on")


def test_several_who_are_killed_at_once_are_all_freed(started: Started) -> None:
    callers = [started.blocked() for _ in range(20)]
    for caller in callers:
        os.kill(caller.pid, signal.SIGKILL)
    wait_until(lambda: all(caller.ended() for caller in callers), "the death of twenty", 2 * FREED_S)


def test_a_signal_to_the_daemon_ends_it_and_frees_who_is_blocked(started: Started) -> None:
    def wait() -> str:
        return write(os.open(started.mount.gate, os.O_RDWR), b"nanosleep 1000\n")

    blocked = Child(wait)
    wait_until(lambda: started.mount.blocked(blocked.pid), "it blocks")
    started.mount.daemon.send_signal(signal.SIGTERM)
    assert blocked.result() == "ECANCELED"
    blocked.close()
    assert started.mount.daemon.wait(30) == 0
    assert ("plain way" in started.mount.log.read_text()) == (started.said != "on")


# --- the check of itself


@pytest.fixture
def pyfuse3s_trio() -> Iterator[None]:
    """What stands in there is put back."""
    yield
    pyfuse3.trio = trio  # type: ignore[attr-defined]


def why_off(**changed: object) -> str:
    """What a receiver says after ``install`` in surroundings that are changed."""

    async def install() -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in changed.items():
                patch.setattr(receive, name, value)
            receiver = Receiver(lambda: None, lambda *_: None)
            await receiver.install()
            stands_in = pyfuse3.trio is not trio  # type: ignore[attr-defined]
            assert stands_in == (not receiver.statistics().off)
            return receiver.statistics().off

    return trio.run(install)


class Changed:
    """An object with another one's attributes, but for some."""

    def __init__(self, original: object, **others: object) -> None:
        self._original = original
        self.__dict__ |= others

    def __getattr__(self, name: str) -> object:
        return getattr(self._original, name)


def runner(**others: object) -> object:
    return Changed(trio._core._run.GLOBAL_RUN_CONTEXT.runner, **others)


def test_it_is_in_force_with_the_versions_that_are_installed_here(pyfuse3s_trio: None) -> None:
    assert why_off() == ""


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"deadlines": None}, "keeps its deadlines and its epoll otherwise"),
        ({"io_manager": SimpleNamespace()}, "keeps its deadlines and its epoll otherwise"),
        ({"deadlines": SimpleNamespace(next_deadline=lambda: float("inf"))}, "does not tell its next deadline"),
        ({"deadlines": SimpleNamespace(next_deadline=lambda: 0.0)}, "does not tell its next deadline"),
    ],
)
def test_a_trio_that_is_another_inside_is_noticed(
    pyfuse3s_trio: None, caplog: pytest.LogCaptureFixture, others: dict[str, object], reason: str
) -> None:
    assert reason in why_off(_runner=partial(runner, **others))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.message
    assert "250 ms" in record.message


def test_an_epoll_that_trio_does_not_sleep_on_is_noticed(pyfuse3s_trio: None) -> None:
    with select.epoll() as another:
        io_manager = SimpleNamespace(_epoll=another)
        assert "is not woken by its epoll" in why_off(_runner=partial(runner, io_manager=io_manager))


@pytest.mark.parametrize("version", ["0.29.0", "0.36.0", "1.0", "unknown"])
def test_a_version_that_was_not_tried_is_not_trusted(
    pyfuse3s_trio: None, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(trio, "__version__", version)
    assert why_off().startswith(f"trio {version} was not tried")


def test_the_option_is_fast_or_plain() -> None:
    assert not parse_mount_words("/m", None, []).plain_receive
    assert not parse_mount_words("/m", None, ["receive=plain", "receive=fast"]).plain_receive
    assert parse_mount_words("/m", None, ["receive=plain"]).plain_receive
    for word in ("receive", "receive=", "receive=slow"):
        with suppress(SynosError):
            parse_mount_words("/m", None, [word])
            pytest.fail(word)
