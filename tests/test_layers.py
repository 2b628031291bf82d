"""Imports go down only, C is spoken in one place, and FUSE is known to the door alone."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import synosfs

ROOT = Path(synosfs.__file__).parent
MODULES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}

#: From the bottom to the top. What is in none of the packages and not named here is a leaf.
LAYERS = (
    *("leaf", "synosfs.host", "synosfs.ipc", "synosfs.process", "synosfs.syscall_gate", "synosfs.kernel"),
    *("synosfs.fs", "synosfs.mount", "entry"),
)
ENTRY = ("synosfs.daemon", "synosfs.cli", "synosfs.__main__")


def layer(module: str) -> int:
    if module in ENTRY:
        return LAYERS.index("entry")
    return next((at for at, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}.")), 0)


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
    names = set(imported(module)) & MODULES.keys()
    return names - {"synosfs"}  # the version


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    assert {name for name in own(module) if layer(name) > layer(module)} == set()


def test_no_modules_import_each_other() -> None:
    TopologicalSorter({module: own(module) for module in MODULES}).prepare()  # raises CycleError


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        ("ctypes", "synosfs.host"),
        ("sysv_ipc", "synosfs.host"),
        ("posix_ipc", "synosfs.host"),
        ("pyfuse3", ("synosfs.fs.operations", "synosfs.fs.receive", "synosfs.mount")),
    ],
)
def test_a_library_is_known_to_its_own_modules_only(library: str, importers: str | tuple[str, ...]) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imported(module))}
    assert {user for user in users if not user.startswith(importers)} == set()


def test_the_gate_and_what_is_below_know_no_door() -> None:
    below = [module for module in MODULES if layer(module) < LAYERS.index("synosfs.fs")]
    assert not [name for module in below for name in imported(module) if name.startswith(("synosfs.fs", "pyfuse3"))]


@pytest.mark.parametrize("module", [module for module in MODULES if ".sys_" in module])
def test_a_handler_makes_no_host_call_itself(module: str) -> None:
    assert not {"ctypes", "fcntl", "socket", "subprocess", "signal"} & {name.split(".")[0] for name in imported(module)}
