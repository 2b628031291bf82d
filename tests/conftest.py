"""Fixtures for all tests, the care that they leave nothing behind, and the table of conformance cases.

Tests that make IPC objects ask for ``ipc_namespace``, directly or by ``mount`` or ``door``; they are skipped where the
objects of others could be hurt.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doors import DispatcherDoor, Door, MountDoor, NativeDoor
from hypothesis import HealthCheck, settings
from mounts import Mount, mounted
from native_msg import CONSTANTS, msgctl
from native_sem import semctl
from native_shm import shmctl

# The machines that run this are shared and slow at times: an example that takes long is no failure.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

DOORS = ("native", "dispatcher", "text", "json", "msgpack")

_TABLES = {family: Path(f"/proc/sysvipc/{family}") for family in ("msg", "sem", "shm")}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "not_for(door=reason): the doors that a case cannot apply to, and why")


def _sysv_objects() -> set[tuple[str, int]]:
    """Family and id of every System V object of this namespace."""
    lines = [(family, line) for family, table in _TABLES.items() for line in table.read_text().splitlines()[1:]]
    return {(family, int(line.split()[1])) for family, line in lines}


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
    doors = {notation: MountDoor(_session_mount, notation) for notation in ("text", "json", "msgpack")}
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
