"""Fixtures for all tests, the care that they leave nothing behind, and the table of conformance cases.

Tests that make IPC objects ask for ``ipc_namespace``, directly or by ``mount`` or ``door``; they are skipped where the
objects of others could be hurt.
"""

import fcntl
import os
import re
import signal
import tempfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import compress
from pathlib import Path

import pytest
from doors import DispatcherDoor, Door, MountDoor, NativeDoor
from here import caller_here
from hypothesis import HealthCheck, settings
from mounts import Mount, mounted
from native_msg import CONSTANTS, msgctl
from native_sem import semctl
from native_shm import shmctl

from synosfs.host.thread import install_interrupt_handler
from synosfs.kernel import Kernel
from synosfs.syscall_gate.record import Reply, Request

# The machines that run this are shared and slow at times: an example that takes long is no failure.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

MOUNT_DOORS = ("text", "json", "msgpack")
DOORS = ("native", "dispatcher", *MOUNT_DOORS)

_TABLES = {family: Path(f"/proc/sysvipc/{family}") for family in ("msg", "sem", "shm")}


#: Tests that bear no company, and those that take seconds, by what is in their ids. Others may be marked so themselves.
_ALONE = re.compile("fault/test_(crowd|fairness|exec_that_hangs)[.]|conformance/test_msg_handover[.]")
_SLOW = re.compile("fault/test_(crowd|fairness|exhausted|limits)[.]|tests/test_daemon[.]|test_killing_many_who_open")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="each case through one door of the mount, and nothing slow")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "not_for(door=reason): the doors that a case cannot apply to, and why")
    config.addinivalue_line("markers", "alone: crowds or observes the whole machine; no other test runs meanwhile")
    config.addinivalue_line("markers", "slow: takes seconds, or has a daemon of its own; --fast leaves it out")
    if config.getoption("fast"):
        settings.register_profile("fast", settings.get_profile("shared machine"), max_examples=20)
        settings.load_profile("fast")
    _heed_signals()
    # What daemons keep beyond their end is to go with the run. Mounts have directories of their own.
    runtime = tempfile.TemporaryDirectory(prefix="synosfs-test-runtime-")
    config.add_cleanup(runtime.cleanup)
    os.environ["RUNTIME_DIRECTORY"] = runtime.name


def _heed_signals() -> None:
    """A shell starts what it puts in the background with these ignored, and programs of tests would inherit that."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Each test in its turn, if others run side by side with it."""
    _heed_signals()
    if os.environ.get("PYTEST_XDIST_WORKER") is None:
        return (yield)
    run = Path(item.config.getoption("basetemp")).parent  # which the workers have in common
    with open(run / "gate", "w") as gate, open(run / "room", "w") as room:
        # All come in by the gate: who is to be alone shuts it behind itself, and waits until the others have left.
        fcntl.flock(gate, fcntl.LOCK_EX)
        alone = item.get_closest_marker("alone")
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # at once: what was forked may still have it


def pytest_make_parametrize_id(val: object) -> str | None:
    """Workers that run side by side must have collected the same ids, so none shows the number of its process."""
    text = val.decode(errors="backslashreplace") if isinstance(val, bytes) else val
    named = re.compile(rf"(synosfs-\w+)-{os.getpid()}\b")
    return named.sub(r"\1", text) if isinstance(text, str) and named.search(text) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _ALONE.search(item.nodeid):
            item.add_marker("alone")
        if _SLOW.search(item.nodeid) or "own_mount" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    if config.getoption("fast"):
        left_out = [item.get_closest_marker("slow") is not None or _goes_through_another_door(item) for item in items]
        config.hook.pytest_deselected(items=[*compress(items, left_out)])
        items[:] = [item for item, out in zip(items, left_out, strict=True) if not out]


def _goes_through_another_door(item: pytest.Item) -> bool:
    """Whether a fast run takes this case through another door: through one of the mount's if it is for any, since the
    dispatcher is within. The name of the case decides, so it is the same one each time, and each notation comes up.
    """
    door = item.callspec.params.get("door") if hasattr(item, "callspec") else None
    if door is None:
        return False
    excluded = {name for marker in item.iter_markers("not_for") for name in marker.kwargs}
    doors = [name for name in MOUNT_DOORS if name not in excluded] or [name for name in DOORS if name not in excluded]
    function, _, parameters = item.nodeid.partition("[")
    case = function + parameters.replace(door, "", 1)
    return door != doors[zlib.crc32(case.encode()) % len(doors)]


def _sysv_objects() -> set[tuple[str, int]]:
    """Family and id of every System V object of this namespace."""
    lines = [(family, line) for family, table in _TABLES.items() for line in table.read_text().splitlines()[1:]]
    return {(family, int(line.split()[1])) for family, line in lines}


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """pytest keeps its directories from others; through those above they reach what a test opens for them."""
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o711)
    return tmp_path


@pytest.fixture(scope="session")
def ipc_namespace() -> Iterator[None]:
    """An IPC namespace that is nobody else's. Nothing may be in it at the end."""
    try:
        shared = os.readlink("/proc/self/ns/ipc") == os.readlink("/proc/1/ns/ipc")
    except PermissionError:  # in a user namespace pid 1 is a stranger
        shared = bool(_sysv_objects())
    if shared:
        pytest.skip("makes IPC objects; scripts/test runs it in an IPC namespace of its own")
    yield
    assert not _sysv_objects()


@pytest.fixture
def nothing_left(ipc_namespace: None) -> Iterator[None]:
    """The objects after a test are those before it."""
    before = _sysv_objects()
    yield
    left = _sysv_objects() - before
    for family, number in left:
        if family == "msg":
            msgctl(number, CONSTANTS["IPC_RMID"])
        elif family == "sem":
            semctl(number, 0, CONSTANTS["IPC_RMID"])
        elif family == "shm":
            shmctl(number, CONSTANTS["IPC_RMID"])
    assert not left


@pytest.fixture(scope="session")
def _session_mount(ipc_namespace: None) -> Iterator[Mount]:
    with mounted() as mount:
        yield mount


@pytest.fixture
def mount(_session_mount: Mount, nothing_left: None) -> Iterator[Mount]:
    """The mount that tests share. None may leave a caller blocked in it or a complaint in its log."""
    yield _session_mount
    assert _session_mount.blocked_callers() == 0
    assert not _session_mount.complaints()


@pytest.fixture
def own_mount(ipc_namespace: None, nothing_left: None) -> Iterator[Mount]:
    """A mount for one test, which may end it in any way."""
    with mounted() as mount:
        yield mount


@pytest.fixture(scope="session")
def _host_doors(ipc_namespace: None) -> Iterator[dict[str, Door]]:
    with tempfile.TemporaryDirectory(prefix="synosfs-test-") as directory:
        os.chmod(directory, 0o711)
        doors = {"native": NativeDoor(), "dispatcher": DispatcherDoor(Path(directory))}
        yield doors
        for door in doors.values():
            door.close()


@pytest.fixture(scope="session")
def _mount_doors(_session_mount: Mount) -> Iterator[dict[str, Door]]:
    doors = {notation: MountDoor(_session_mount, notation) for notation in MOUNT_DOORS}
    yield doors
    for door in doors.values():
        door.close()


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, nothing_left: None) -> Iterator[Door]:
    """Each of the five doors in turn. What a case starts there ends with it."""
    name = request.param
    request.node.user_properties.append(("door", name))
    for marker in request.node.iter_markers("not_for"):
        if name in marker.kwargs:
            pytest.skip(f"not for {name}: {marker.kwargs[name]}")
    if name in ("native", "dispatcher"):
        door = request.getfixturevalue("_host_doors")[name]
    else:
        request.getfixturevalue("mount")
        door = request.getfixturevalue("_mount_doors")[name]
    yield door
    door.end_children()


@pytest.fixture
def native(nothing_left: None) -> Iterator[Door]:
    """The host itself, beside whatever door a test is about."""
    door = NativeDoor()
    yield door
    door.close()


@pytest.fixture
def gate(mount: Mount) -> Iterator[MountDoor]:
    """The mount that tests share, in text. Nobody may be blocked in it at the end."""
    door = MountDoor(mount, "text")
    yield door
    door.close()


@pytest.fixture
async def kernel(nothing_left: None) -> AsyncIterator[Kernel]:
    """A kernel in this process, without a door."""
    install_interrupt_handler()
    kernel = Kernel()
    yield kernel
    await kernel.close()


@pytest.fixture
async def call(kernel: Kernel) -> Callable[..., object]:
    """Makes a call of this process's: ``await call("getpid")``."""
    caller = caller_here(kernel)

    async def make(name: str, *args: object, **kwargs: object) -> Reply:
        return await kernel.dispatcher.call(caller, Request(name, list(args), dict(kwargs)))

    return make


@pytest.fixture
def sysctl(ipc_namespace: None) -> Iterator[Callable[[str, object], None]]:
    """Set a limit of this IPC namespace for one test."""
    before: dict[Path, str] = {}

    def put(name: str, value: object) -> None:
        path = Path("/proc/sys") / name
        before.setdefault(path, path.read_text())
        path.write_text(str(value))

    yield put
    for path, value in before.items():
        if path.read_text() != value:
            path.write_text(value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many conformance cases each family has behind each door."""
    counts: Counter[tuple[str, str, str]] = Counter()
    reasons: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in terminalreporter.stats.get(outcome, ()):
            family = re.search(r"conformance/test_([a-z0-9]+)", getattr(report, "nodeid", ""))
            door = dict(getattr(report, "user_properties", ())).get("door")
            if family and door:
                kind = "failed" if outcome == "error" else outcome
                counts[family[1], door, kind] += 1
                if kind == "skipped":
                    reasons[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
    if not counts:
        return
    terminalreporter.section("conformance cases by family and door")
    terminalreporter.write_line("".join(f"{word:>12}" for word in ("family", *DOORS)))
    for family in sorted({family for family, _, _ in counts}):
        cells = [_cell(counts, family, door) for door in DOORS]
        terminalreporter.write_line("".join(f"{cell:>12}" for cell in (family, *cells)))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"  {count} {reason}")


def _cell(counts: Counter[tuple[str, str, str]], family: str, door: str) -> str:
    failed = counts[family, door, "failed"]
    return f"{counts[family, door, 'passed']}" + (f" ({failed} fail)" if failed else "")
