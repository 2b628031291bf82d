"""``stats`` and ``help``: what they show is what there is."""

import json
import os
import re
from collections.abc import Iterator

import pytest
from doors import MountDoor
from mounts import Mount

from synosfs.syscall_gate import table


@pytest.fixture
def gate(own_mount: Mount) -> Iterator[MountDoor]:
    door = MountDoor(own_mount, "text")
    yield door
    door.close()


def calls(mount: Mount) -> dict[str, dict[str, str]]:
    """The table of ``stats``, by the name of the call."""
    header, *lines = (mount.path / "stats").read_text().split("\n\n")[1].splitlines()
    rows = [dict(zip(header.split(), line.split(), strict=True)) for line in lines]
    return {row["call"]: row for row in rows}


def test_stats_begins_with_four_fields(own_mount: Mount) -> None:
    names = [line.split()[0] for line in (own_mount.path / "stats").read_text().splitlines()[:4]]
    assert names == ["total_calls", "ipc_calls", "avg_response_time", "consciousness_optimizations"]


def test_a_fresh_mount_has_counted_nothing(own_mount: Mount) -> None:
    stats = own_mount.stats()
    assert {stats[name] for name in ("total_calls", "ipc_calls", "processes", "blocked_callers", "blocked_total")} == {
        "0"
    }
    assert float(stats["avg_response_time"]) == 0
    assert calls(own_mount) == {}


def test_every_call_is_counted_with_its_errors_and_bytes(gate: MountDoor, own_mount: Mount) -> None:
    queue = gate.ok("msgget", "IPC_PRIVATE", "0600").ret
    gate.ok("msgsnd", queue, 1, b"hello")
    gate.ok("msgrcv", queue, 100)
    for flags in ("IPC_NOWAIT", "IPC_NOWAIT", "MSG_COPY"):
        assert gate.call("msgrcv", queue, 100, 0, flags).errno
    gate.ok("msgctl", queue, "IPC_RMID")
    gate.ok("getpid")
    assert gate.call("no_such_call").errno == "ENOSYS"
    stats, rows = own_mount.stats(), calls(own_mount)
    assert (stats["total_calls"], stats["ipc_calls"], stats["processes"]) == ("9", "7", "1")
    assert float(stats["avg_response_time"]) > 0
    counted = {name: (row["count"], row["errors"], row["blocked"], row["bytes"]) for name, row in rows.items()}
    assert counted == {
        "msgget": ("1", "0", "0", "0"),
        "msgsnd": ("1", "0", "0", "5"),
        "msgrcv": ("4", "3", "0", "5"),
        "msgctl": ("1", "0", "0", "0"),
        "getpid": ("1", "0", "0", "0"),
        "unknown": ("1", "1", "0", "0"),
    }
    assert rows["msgrcv"]["errnos"] == "ENOMSG:2,EINVAL:1"
    for row in rows.values():
        assert 0 < float(row["p50_us"]) <= float(row["p99_us"]) <= float(row["max_us"])


def test_time_spent_blocked_is_no_response_time(gate: MountDoor, own_mount: Mount) -> None:
    assert gate.call("nanosleep", 5, timeout=0.3).errno == "ETIMEDOUT"
    row = calls(own_mount)["nanosleep"]
    assert (row["count"], row["errors"], row["blocked"]) == ("1", "1", "1")
    assert float(row["max_us"]) < 300_000 <= float(row["parked_max_us"])
    assert own_mount.stats()["blocked_total"] == "1"


def test_a_process_has_the_figures_of_its_own_calls(gate: MountDoor, own_mount: Mount) -> None:
    for _ in range(300):
        gate.ok("getpid")
    assert gate.call("close", 77).errno == "EBADF"
    head, table = (own_mount.path / f"proc/{os.getpid()}/stats").read_text().split("\n\n")
    assert head.splitlines() == ["calls 301", "errors 1"]
    header, *lines = [line.split() for line in table.splitlines()]
    rows = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert {name: (row["count"], row["errnos"]) for name, row in rows.items()} == {
        "getpid": ("300", "-"),
        "close": ("1", "EBADF:1"),
    }
    row = rows["getpid"]
    assert 0 < float(row["p50_us"]) <= float(row["p90_us"]) <= float(row["p99_us"]) <= float(row["max_us"])


def test_the_tables_of_objects_show_what_was_done_with_each(gate: MountDoor, own_mount: Mount) -> None:
    ends = gate.ok("pipe").results
    gate.ok("write", ends["write"], b"hello")
    gate.ok("read", ends["read"], 3)
    header, *lines = [line.split() for line in (own_mount.path / "pipes/ctl").read_text().splitlines()]
    shown = {line[header.index("fd")]: line[-3:] for line in lines}
    assert header[-3:] == ["calls", "moved", "waits"]
    assert shown == {str(ends["read"]): ["1", "3", "0"], str(ends["write"]): ["1", "5", "0"]}
    made = {"sem": gate.ok("semget", "IPC_PRIVATE", 1, "0600").ret, "shm": gate.ok("shmget", 0, 10, "0600").ret}
    for directory, number in made.items():
        header, line = [line.split() for line in (own_mount.path / directory / "ctl").read_text().splitlines()]
        assert header[-4:] == ["calls", "moved", "waits", "owners"]
        assert line[-4:] == ["1", "0", "0", "-"]
        (own_mount.path / directory / "sysv" / str(number)).unlink()


def test_stats_json_is_the_same_for_programs(gate: MountDoor, own_mount: Mount) -> None:
    gate.ok("getpid")
    whole, stats, rows = json.loads((own_mount.path / "stats.json").read_text()), own_mount.stats(), calls(own_mount)
    assert list(whole)[: len(stats)] == list(stats)
    assert whole["calls"].keys() == rows.keys()
    assert whole["calls"]["getpid"]["running"]["most"] * 1e6 == pytest.approx(float(rows["getpid"]["max_us"]), abs=0.1)
    assert whole["users"][str(os.geteuid())]["count"] == whole["total_calls"] == 1
    assert whole["held"][str(os.geteuid())]["sessions"]["used"] >= 1


def test_looking_is_not_counted(own_mount: Mount) -> None:
    for path in ("stats", "stats.json", "metrics", "help", "syscall", "msgq/ctl"):
        (own_mount.path / path).read_bytes()
    list(os.walk(own_mount.path))
    assert own_mount.stats()["total_calls"] == "0"


def test_help_lists_every_call_with_its_arguments(mount: Mount) -> None:
    lines = (mount.path / "help").read_text().splitlines()
    for row in table.ROWS:
        assert any(line.startswith(row.usage() + "  ") and row.help in line for line in lines), row.name


def test_the_calls_that_help_lists_exist_and_others_are_enosys(gate: MountDoor, own_mount: Mount) -> None:
    text = (own_mount.path / "help").read_text()
    listed = re.findall(r"^([a-z][a-z0-9_]*)", text[text.index("\ncall ") + 6 :], re.MULTILINE)
    assert len(listed) == len(table.ROWS)
    for name in listed:
        # None of them can do anything with nine of these.
        assert gate.call(name, *["x"] * 9).errno not in ("", "ENOSYS"), name
    assert gate.call("ptrace").errno == "ENOSYS"


def test_help_fits_a_terminal(mount: Mount) -> None:
    head = (mount.path / "help").read_text().split("\ncall ")[0]
    assert max(map(len, head.splitlines())) <= 120


@pytest.mark.parametrize("name", ["help", "stats", "stats.json", "metrics"])
def test_what_only_shows_cannot_be_written(mount: Mount, name: str) -> None:
    with pytest.raises(PermissionError):
        os.open(mount.path / name, os.O_WRONLY)
