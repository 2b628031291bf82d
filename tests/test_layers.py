"""What each room may import: its own modules, the rooms below that are named here, and these libraries."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import synosfs

ROOT = Path(synosfs.__file__).parent
MODULES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}

#: Of the standard library, what reaches the host or runs code beside ours. The rest only computes.
REACHING = frozenset(
    ("asyncio", "ctypes", "fcntl", "mmap", "multiprocessing", "os", "pathlib", "pwd", "resource", "select", "shutil")
) | {"signal", "socket", "sqlite3", "subprocess", "tempfile", "termios", "threading", "time", "_thread"}


class Room(NamedTuple):
    """``below``: modules of ours, or whole packages, by name without ``synosfs.``; ``libraries``: those not ours, and
    those of the standard library that reach the host.
    """

    below: frozenset[str]
    libraries: frozenset[str] = frozenset()


def room(below: str, libraries: str = "") -> Room:
    return Room(frozenset(below.split()), frozenset(libraries.split()))


#: By the longest name that fits.
ROOMS = {
    "errors": room("", "os"),
    "options": room("errors"),
    "logfilter": room("errors", "time"),
    "slices": room("", "time trio"),
    "runtime": room("", "os pathlib"),
    "mountpoint": room("errors options host.arch", "os pathlib select shutil signal subprocess threading time"),
    "host": room(
        "errors",
        "ctypes os pathlib select signal threading time fcntl mmap termios socket subprocess posix_ipc trio outcome"
        " _thread pwd",
    ),
    "ipc.journal": room("", "os sqlite3"),
    "host.mq_notifier_program": room("", "ctypes os socket"),  # a program of its own
    "host.sleepers_program": room("", "ctypes os select socket"),  # another
    "ipc": room("errors host", "os select fcntl termios socket threading time msgspec trio"),
    "process": room(
        "slices errors host ipc", "os pathlib select signal socket subprocess threading time trio outcome resource"
    ),
    "syscall_gate": room("slices errors ipc process host.abi", "msgspec select"),
    # Where a call is run with the caller's rights, and waits in a thread.
    "syscall_gate.caller": room("errors ipc process host.confinement host.credentials host.pidfd host.usernamespace"),
    "syscall_gate.dispatch": room("slices errors ipc process host.rights", "time"),
    "syscall_gate.file_types": room("errors ipc process host.abi host.path"),
    "syscall_gate.kinds": room("errors ipc host.abi process.descriptors", "msgspec"),
    "syscall_gate.parking": room(
        "slices errors process host.rights host.credentials host.thread", "threading time trio"
    ),
    "syscall_gate.places": room("errors ipc process host.abi host.path"),
    "syscall_gate.readiness": room("errors ipc process host.rights host.credentials", "os select trio time msgspec"),
    "syscall_gate.strace": room("errors ipc", "os time"),
    "syscall_gate.trace": room("errors ipc process", "time"),
    "syscall_gate.watches": room(
        "slices errors ipc process host.rights host.credentials", "os select trio time msgspec"
    ),
    "kernel": room("slices errors host ipc process syscall_gate", "trio"),
    "fs": room(
        "slices errors ipc process syscall_gate kernel host.abi host.credentials host.rights host.usernamespace",
        "os time trio",
    ),
    "fs.interrupts": room("slices errors syscall_gate mountpoint host.procfs host.inode host.thread", "os time trio"),
    "fs.proc": room("slices errors ipc process syscall_gate.text kernel host.credentials host.procfs", "time"),
    "fs.removed": room("slices errors ipc.things syscall_gate.text kernel host.procfs", "time"),
    "fs.orphans": room(
        "slices errors ipc process syscall_gate kernel host.abi host.credentials host.rights host.users", "trio"
    ),
    "fs.looker": room("errors kernel process host.credentials host.procfs host.rights"),
    "fs.waiters": room("slices errors ipc process syscall_gate.parking kernel host.abi host.procfs", "os time trio"),
    "fs.entries": room("process.accounts", "time pyfuse3"),
    "fs.boundary": room("errors kernel", "pyfuse3"),
    "fs.operations": room("slices errors ipc process.accounts syscall_gate kernel", "os time trio pyfuse3"),
    "fs.receive": room("slices errors", "os select time trio pyfuse3"),
    "replay": room("errors syscall_gate.text", "os pathlib"),
    "mount": room(
        "slices errors options mountpoint runtime kernel fs host ipc.journal process.accounts syscall_gate",
        "resource select signal time trio pyfuse3",
    ),
    "supervisor": room("errors options mountpoint", "os select signal time"),
    "daemon": room(
        "errors logfilter options mountpoint mount host supervisor",
        "os fcntl resource select signal socket time threading",
    ),
    "cli": room("errors options mountpoint daemon mount", "os"),
    "__init__": room(""),
}


def room_of(module: str) -> tuple[str, Room]:
    name = module.removeprefix("synosfs.")
    while name not in ROOMS:
        name, dot, _ = name.rpartition(".")
        assert dot or name, f"{module} is in no room: name it here"
    return name, ROOMS[name]


def imported(module: str) -> Iterator[str]:
    """Every module that this one imports, wherever in it: dotted names, of our own as exactly as can be told."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module or ""


def own(module: str) -> set[str]:
    return (set(imported(module)) & MODULES.keys()) - {"synosfs"}  # the version


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_its_own_room_and_what_is_allowed_below(module: str) -> None:
    name, allowed = room_of(module)
    package = name.partition(".")[0]
    ours = {other.removeprefix("synosfs.") for other in own(module)}
    strangers = {
        other
        for other in ours
        if other.partition(".")[0] != package and not any(f"{other}.".startswith(f"{ok}.") for ok in allowed.below)
    }
    assert strangers == set()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_uses_the_libraries_of_its_room(module: str) -> None:
    tops = {name.partition(".")[0] for name in imported(module)} - {"synosfs"}
    foreign = {top for top in tops if top in REACHING or top not in sys.stdlib_module_names}
    assert foreign - room_of(module)[1].libraries == set()


def test_no_modules_import_each_other() -> None:
    TopologicalSorter({module: own(module) for module in MODULES}).prepare()  # raises CycleError


@pytest.mark.parametrize("module", [module for module in MODULES if ".syscall_gate.sys_" in module])
def test_a_handler_stands_on_the_gate_and_the_objects_alone(module: str) -> None:
    tops = {name.partition(".")[0] for name in imported(module)} - {"synosfs"}
    assert tops & REACHING <= {"select"}  # the names of poll(2)'s events
    hosts = {name for name in own(module) if name.startswith("synosfs.host.")}
    assert hosts <= {"synosfs.host.abi"}


def test_every_room_is_lived_in() -> None:
    lived_in = {room_of(module)[0] for module in MODULES}
    assert set(ROOMS) == lived_in
