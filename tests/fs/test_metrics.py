"""``metrics``: a text that readers of OpenMetrics take, with every object of the namespace and all that was called."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import posix_ipc
import pytest
import trio
from children import wait_until
from command import AS_NOBODY
from doors import MountDoor
from hypothesis import given
from hypothesis import strategies as st
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgget, msgsnd
from native_sem import CONSTANTS as SEM
from native_sem import semctl, semget
from native_shm import shmctl, shmget
from prometheus_client import parser as old_format
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics

from synosfs.fs.metrics import Metrics
from synosfs.fs.openmetrics import Family, labels, text
from synosfs.host.thread import install_interrupt_handler
from synosfs.ipc.limits import Forecast, pages
from synosfs.kernel import Kernel
from synosfs.process.figures import Distribution, values_of
from synosfs.slices import Line, Slices

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/metrics.md").read_text()
Labels = frozenset[tuple[str, str]]


@pytest.fixture
def gate(own_mount: Mount) -> Iterator[MountDoor]:
    door = MountDoor(own_mount, "text")
    yield door
    door.end_children()
    door.close()


def families(found: str) -> dict[str, Metric]:
    return {family.name: family for family in openmetrics.text_string_to_metric_families(found)}


def samples(found: str) -> dict[tuple[str, Labels], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(found).values()
        for sample in family.samples
    }


def look(mount: Mount) -> dict[tuple[str, Labels], float]:
    return samples((mount.path / "metrics").read_text())


def of(found: dict[tuple[str, Labels], float], name: str, /, **wanted: object) -> float:
    """The one sample of a name that has these labels, among others."""
    asked = {(label, str(value)) for label, value in wanted.items()}
    [value] = [value for (each, marked), value in found.items() if each == f"synosfs_{name}" and asked <= marked]
    return value


def names(found: dict[tuple[str, Labels], float], name: str, label: str) -> set[str]:
    return {dict(marked)[label] for each, marked in found if each == f"synosfs_{name}"}


@pytest.fixture
def objects(nothing_left: None) -> Iterator[tuple[int, int, int]]:
    """A queue with a message, a set and a segment, of a native program."""
    made = msgget(CONSTANTS["IPC_PRIVATE"], 0o600), semget(0, 3, 0o600), shmget(0, 5000, 0o600)
    msgsnd(made[0], 1, b"x" * 100)
    semctl(made[1], 1, SEM["SETVAL"], 7)
    yield made
    msgctl(made[0], CONSTANTS["IPC_RMID"])
    semctl(made[1], 0, CONSTANTS["IPC_RMID"])
    shmctl(made[2], CONSTANTS["IPC_RMID"])


# --- what is in it ---


def test_native_objects_are_there_with_what_is_in_them(own_mount: Mount, objects: tuple[int, int, int]) -> None:
    queue, semaphores, segment = objects
    found = look(own_mount)
    assert of(found, "queue_messages", msqid=queue) == 1
    assert of(found, "queue_bytes", msqid=queue) == 100
    assert of(found, "queue_limit_bytes", msqid=queue) == int(Path("/proc/sys/kernel/msgmnb").read_text())
    assert of(found, "set_semaphores", semid=semaphores) == 3
    assert [of(found, "semaphore_value", semid=semaphores, num=num) for num in range(3)] == [0, 7, 0]
    assert of(found, "segment_bytes", shmid=segment) == 5000
    assert of(found, "segment_attachments", shmid=segment) == 0
    for limit, used in {"msgmni": 1, "semmni": 1, "semmns": 3, "shmmni": 1, "shmall": pages(5000)}.items():
        assert of(found, "limit_used", limit=limit) == used
    assert of(found, "limit", limit="msgmni") == int(Path("/proc/sys/kernel/msgmni").read_text())
    assert not names(found, "object_calls_total", "id")


def test_who_waits_for_a_semaphore_is_counted(gate: MountDoor, own_mount: Mount, objects: tuple[int, int, int]) -> None:
    _, semaphores, _ = objects
    for operation in ((0, -1, 0), (1, 0, 0), (1, 0, 0)):
        gate.block("semop", semaphores, operation)
    found = look(own_mount)
    assert of(found, "semaphore_waiting", semid=semaphores, num=0, **{"for": "increase"}) == 1
    assert of(found, "semaphore_waiting", semid=semaphores, num=1, **{"for": "zero"}) == 2
    assert of(found, "blocked_callers") == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_values_are_for_those_who_may_read_them(own_mount: Mount, objects: tuple[int, int, int]) -> None:
    queue = posix_ipc.MessageQueue("/synosfs-metrics-secret", posix_ipc.O_CREX, mode=0o600)
    try:
        shown = subprocess.run(
            [*AS_NOBODY, "cat", str(own_mount.path / "metrics")], stdout=subprocess.PIPE, check=True, text=True
        ).stdout
        found = samples(shown)
        assert of(found, "set_semaphores", semid=objects[1]) == 3
        assert not names(found, "semaphore_value", "num")
        assert of(found, "posix_queue_mode", name="/synosfs-metrics-secret") == 0o600
        assert "/synosfs-metrics-secret" not in names(found, "posix_queue_bytes", "name")
        assert "/synosfs-metrics-secret" in names(look(own_mount), "posix_queue_bytes", "name")
    finally:
        queue.close()
        queue.unlink()


def test_calls_are_there_as_in_the_other_files(gate: MountDoor, own_mount: Mount) -> None:
    queue = gate.ok("msgget", "IPC_PRIVATE", "0600").ret
    gate.ok("msgsnd", queue, 1, b"hello")
    assert gate.call("msgrcv", queue, 1).errno == "E2BIG"
    gate.call("msgrcv", queue, 10, 9, timeout=0.01)
    found, stats = look(own_mount), json.loads((own_mount.path / "stats.json").read_text())
    assert list(stats)[:4] == ["total_calls", "ipc_calls", "avg_response_time", "consciousness_optimizations"]
    for call, figures in stats["calls"].items():
        assert of(found, "calls_total", call=call) == figures["count"] == of(found, "running_seconds_count", call=call)
        assert of(found, "moved_bytes_total", call=call) == figures["bytes"]
        assert of(found, "running_seconds_sum", call=call) == pytest.approx(figures["running"]["total"])
        assert of(found, "running_seconds_bucket", call=call, le="+Inf") == figures["count"]
        for name, count in figures["errnos"].items():
            assert of(found, "errors_total", call=call, errno=name) == count
    assert of(found, "parked_seconds_count", call="msgrcv") == 1
    [user] = stats["users"].values()
    assert of(found, "user_calls_total") == user["count"] == stats["total_calls"] == 4
    assert of(found, "object_calls_total", kind="msg", id=queue) == 4
    assert of(found, "object_moved_bytes_total", kind="msg", id=queue) == 5
    assert of(found, "object_waits_total", kind="msg", id=queue) == 1
    [header, row] = [line.split() for line in (own_mount.path / "msgq/ctl").read_text().splitlines()]
    shown = dict(zip(header, row, strict=True))
    assert (shown["calls"], shown["moved"], shown["waits"]) == ("4", "5", "1")
    gate.ok("msgctl", queue, "IPC_RMID")
    assert not names(look(own_mount), "object_calls_total", "id")


def test_counters_never_become_less_when_processes_end(own_mount: Mount) -> None:
    for count in range(1, 6):
        subprocess.run(["sh", "-c", "echo getpid > syscall"], cwd=own_mount.path, check=True)
        assert of(look(own_mount), "calls_total", call="getpid") == count
    wait_until(lambda: own_mount.stats()["processes"] == "0", "all have left")
    assert of(look(own_mount), "calls_total", call="getpid") == 5


@pytest.mark.parametrize("name", ['a"b', "back\\slash", "two\nlines", "caf\udce9", "{x}=,#", "ü €"])
def test_any_name_of_a_queue_can_be_shown(mount: Mount, name: str) -> None:
    path = f"/synosfs-{name}"
    queue = posix_ipc.MessageQueue(os.fsencode(path), posix_ipc.O_CREX, mode=0o600)
    try:
        shown = names(look(mount), "posix_queue_messages", "name")
        assert path.encode("utf-8", "backslashreplace").decode() in shown
    finally:
        queue.close()
        queue.unlink()


def test_the_older_text_format_has_it_too(own_mount: Mount, objects: tuple[int, int, int]) -> None:
    found = (own_mount.path / "metrics").read_text()
    old = {s.name for family in old_format.text_string_to_metric_families(found) for s in family.samples}
    assert old >= {"synosfs_queue_messages", "synosfs_limit", "synosfs_requests_total"}
    assert {kind for line in found.splitlines() if line.startswith("# TYPE") for kind in line.split()[3:]} <= {
        *("counter", "gauge", "histogram", "summary")
    }


def test_a_full_limit_is_reached_now_and_growth_tells_when(own_mount: Mount, nothing_left: None) -> None:
    assert of(look(own_mount), "limit_reached_seconds", limit="msgmni") == float("inf")
    made = [msgget(CONSTANTS["IPC_PRIVATE"], 0o600) for _ in range(3)]
    try:
        assert 0 < of(look(own_mount), "limit_reached_seconds", limit="msgmni") < float("inf")
    finally:
        for queue in made:
            msgctl(queue, CONSTANTS["IPC_RMID"])
    assert of(look(own_mount), "limit_reached_seconds", limit="msgmni") == float("inf")


@given(st.lists(st.tuples(st.floats(0.1, 1000), st.integers(0, 100)), min_size=2, max_size=100))
def test_a_forecast_goes_by_the_rate_of_the_last_minutes(looks: list[tuple[float, int]]) -> None:
    forecast, now, seen = Forecast(), 0.0, []
    for apart, used in looks:
        now += apart
        seen.append((now, used))
        left = forecast.seconds("msgmni", used, 100, now)
        if used == 100:
            assert left == 0
        elif left != float("inf"):
            rate = (100 - used) / left
            assert any(
                (used - before) / (now - since) == pytest.approx(rate) for since, before in seen[:-1] if since < now
            )
    assert len(forecast._looks["msgmni"]) <= 62


class Counting(Slices):
    """Slices, and how often others could have been let in."""

    pauses = 0

    async def pause(self) -> None:
        self.pauses += 1
        await super().pause()


async def test_others_are_let_in_between_two_objects(objects: tuple[int, int, int], nothing_left: None) -> None:
    install_interrupt_handler()
    kernel, made = Kernel(), [msgget(CONSTANTS["IPC_PRIVATE"], 0o600) for _ in range(100)]
    try:
        slices = Counting(Line())
        who = SimpleNamespace(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid(), umask=0)
        whole = await Metrics(kernel, list).render(who, slices)
        shown = names(samples(whole.decode()), "queue_messages", "msqid")
        assert slices.pauses >= len(shown) >= len(made)
    finally:
        for queue in made:
            msgctl(queue, CONSTANTS["IPC_RMID"])
        await kernel.close()


# --- the text ---

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(ANY_TEXT, ANY_TEXT, st.lists(st.integers(0, 1 << 40), max_size=50), st.floats(allow_nan=False))
def test_what_is_written_is_read_again(one: str, other: str, numbers: list[int], value: float) -> None:
    found = Distribution()
    if numbers:
        found.add(values_of(numbers))
    gauge, counter = Family("a", "gauge", other), Family("b_bytes", "counter", "told", "bytes")
    histogram, summary = Family("c_seconds", "histogram", "x", "seconds"), Family("d", "summary", "x")
    marked = labels(one=one, other=other)
    gauge.add(marked, value)
    gauge.add("", 1)
    counter.add(marked, 1 << 60)
    histogram.histogram(marked, found, range(10, 32, 2))
    summary.summary(marked, found)
    whole = trio.run(text, [gauge, counter, histogram, summary], Slices(Line()))
    read = samples(whole.decode())
    same = {("one", one), ("other", other)}
    assert read["a", frozenset(same)] == value
    assert read["b_bytes_total", frozenset(same)] == 1 << 60
    assert read["c_seconds_count", frozenset(same)] == len(numbers) == read["d_count", frozenset(same)]
    for (name, marks), count in read.items():
        if name == "c_seconds_bucket":
            assert marks > same
            edge = float(dict(marks)["le"])
            assert count == sum(number / 1e9 <= edge for number in numbers)
    assert read["d", frozenset({*same, ("quantile", "1.0")})] == max(numbers, default=0) / 1e9


# --- how it is fetched ---


def documented(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


@contextmanager
def serving(mount: Mount) -> Iterator[int]:
    """The server of the document, on a port of its own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    [program] = documented("python")
    told = program.replace("/mnt/synos", str(mount.path)).replace("9101", str(port))
    assert told.count(str(port)) == told.count(str(mount.path)) == 1
    server = subprocess.Popen([sys.executable, "-c", told], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_heard(port), "it listens")
        yield port
    finally:
        server.kill()
        server.wait()


def is_heard(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_the_documented_server_serves_it(own_mount: Mount, gate: MountDoor) -> None:
    gate.ok("getpid")
    with serving(own_mount) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        kind, found = answer.headers["Content-Type"], answer.read().decode()
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert of(samples(found), "calls_total", call="getpid") == 1


PROMETHEUS = shutil.which("prometheus") or shutil.which(str(Path(sys.executable).with_name("prometheus")))


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="no Prometheus: scripts/install --dev fetches Debian's where it can")
def test_a_prometheus_scrapes_it(own_mount: Mount, gate: MountDoor, tmp_path: Path) -> None:
    gate.ok("getpid")
    with serving(own_mount) as port, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        own = taken.getsockname()[1]
        taken.close()
        [config] = [each for each in documented("yaml") if "scrape_configs" in each]
        (tmp_path / "prometheus.yml").write_text(config.replace("9101", str(port)).replace("15s", "1s"))
        command = [PROMETHEUS, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        with open(tmp_path / "log", "wb") as log:
            server = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{own}"], stderr=log)
        try:
            wait_until(lambda: asked(own, "up") == [1], "it has scraped")
            wait_until(lambda: asked(own, 'synosfs_calls_total{call="getpid"}') == [1], "a counter is there")
            quantile = 'histogram_quantile(0.5, synosfs_running_seconds_bucket{call="getpid"})'
            assert 0 < asked(own, quantile)[0] < 2
            assert asked(own, "synosfs_limit_reached_seconds{limit='msgmni'}") == [float("inf")]
        finally:
            server.terminate()
            server.wait()


def asked(port: int, query: str) -> list[float]:
    """What a Prometheus answers to a query; nothing while it is not there yet."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url) as answer:
            return [float(each["value"][1]) for each in json.load(answer)["data"]["result"]]
    except OSError:
        return []
