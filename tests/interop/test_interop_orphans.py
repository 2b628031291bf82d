"""What programs leave behind, and what those that run still need: PostgreSQL, fakeroot, Perl, a server of many sets."""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import wait_until
from command import needs_root, run, succeeds
from programs import Programs


def verdicts(programs: Programs, family: str) -> dict[str, str]:
    """Of all objects, by id."""
    return {each[0]: each[5] for each in _lines(programs, family)}


def evidence(programs: Programs, family: str) -> list[str]:
    return [each[6] for each in _lines(programs, family)]


def _lines(programs: Programs, family: str) -> list[list[str]]:
    _, *lines = programs.run("cat", f"{family}/orphans").splitlines()
    return [line.split(maxsplit=6) for line in lines]


def reap(programs: Programs, family: str) -> str:
    return programs.shell(f"echo reap > {family}/ctl; cat syscall").strip()


# --- PostgreSQL

_POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/nowhere"))


@pytest.fixture
def postgres(programs: Programs) -> Iterator[subprocess.Popen[bytes]]:
    """A running server, as nobody, which may be killed."""
    with tempfile.TemporaryDirectory(prefix="synosfs-test-") as directory:
        os.chown(directory, 65534, 65534)
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        data = Path(directory, "data")
        made = run(*nobody, _POSTGRES / "initdb", "-D", data, "-A", "trust", "--no-sync", "--locale=C", cwd=directory)
        assert made.returncode == 0, made.stderr
        command = [*nobody, _POSTGRES / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses="]
        with subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            about = data / "postmaster.pid"
            wait_until(lambda: about.exists() and "ready" in about.read_text(), "PostgreSQL is ready")
            yield server
            server.terminate()


@needs_root
@pytest.mark.skipif(not _POSTGRES.exists(), reason="there is no PostgreSQL here (Debian: postgresql)")
def test_what_a_running_postgresql_uses_stays_and_what_it_leaves_when_it_is_killed_goes(
    programs: Programs, postgres: subprocess.Popen[bytes]
) -> None:
    families = ("shm", "sem")  # sets only where it was built so
    assert verdicts(programs, "shm")
    for family in families:
        assert {*verdicts(programs, family).values()} <= {"in-use"}
        assert reap(programs, family) == "0 removed="
    [words] = evidence(programs, "shm")
    assert words.startswith("attached ")
    assert f"made by pid {postgres.pid} (postgres), alive since" in words

    postgres.kill()  # its children end when they notice
    for family in families:
        wait_until(lambda family=family: {*verdicts(programs, family).values()} <= {"orphan"}, "they have ended")
    [words] = evidence(programs, "shm")
    assert f"made by pid {postgres.pid} (postgres), dead" in words
    assert reap(programs, "shm").startswith("1 removed=")
    reap(programs, "sem")


# --- fakeroot

_FAKED = re.compile(r"received from last by pid (\d+) \(faked[-a-z]*\), alive")


@pytest.mark.skipif(not succeeds("fakeroot", "-v"), reason="there is no fakeroot here")
def test_what_a_running_fakeroot_uses_stays_and_what_it_leaves_when_it_is_killed_goes(programs: Programs) -> None:
    said = subprocess.Popen(
        ["fakeroot", "sh", "-c", 'chown daemon "$0"; echo "$FAKEROOTKEY"; read -r _', "/dev/null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with said as session:
        assert session.stdout
        assert session.stdin
        assert session.stdout.readline().strip()
        found = {family: verdicts(programs, family) for family in ("msgq", "sem")}
        # The server never operates on the set: those who did are dead, but it goes with the queues.
        assert {family: [*each.values()] for family, each in found.items()} == {
            "msgq": ["in-use", "in-use"],
            "sem": ["unknown"],
        }
        assert re.search(r"its key is beside that of queue \d+, which is in use", evidence(programs, "sem")[0])
        assert [reap(programs, family) for family in found] == ["0 removed="] * 2
        [faked] = {int(pid) for words in evidence(programs, "msgq") for pid in _FAKED.findall(words)}
        os.kill(faked, signal.SIGKILL)
        wait_until(lambda: not succeeds("kill", "-0", str(faked)), "faked has ended")
        session.stdin.close()
    wait_until(lambda: {*verdicts(programs, "msgq").values()} == {"orphan"}, "all have ended")
    assert [reap(programs, family)[0] for family in found] == ["2", "1"]


# --- Perl, and a server that is killed time and again

LEAK = """msgsnd(msgget(0, 0600), pack('l! a*', 1, 'forgotten'), 0) or die $!;
    shmwrite(shmget(0, 10, 0600), 'a', 0, 1) or die $!"""


def test_what_a_perl_script_leaks_is_shown_with_it_and_removed(programs: Programs) -> None:
    script = programs.start("perl", "-e", f"$| = 1; {LEAK}; print qq(made\\n); sleep")
    assert script.process.stdout
    assert script.process.stdout.readline() == "made\n"
    for family in ("msgq", "shm"):
        assert f"by pid {script.pid} (perl), alive since" in evidence(programs, family)[0]
        assert reap(programs, family) == "0 removed="
    script.kill()
    for family in ("msgq", "shm"):
        assert f"by pid {script.pid} (perl), dead" in evidence(programs, family)[0]
        assert reap(programs, family).startswith("1 removed=")


def test_sets_by_the_thousand_go_and_those_of_the_server_that_runs_stay(programs: Programs) -> None:
    """Each time that it starts, the server makes sets with the value 1 (SETVAL); its worker takes one and ends, or
    waits for it again.
    """
    server = r"""$| = 1; my @s = map { my $s = semget(0, 1, 0600) // die $!; semctl($s, 0, 16, 1); $s } 1 .. shift;
        if (!fork) { semop($s[0], pack 's*', 0, -1, 0); print "@s\n"; semop($s[0], pack 's*', 0, -1, 0) if @ARGV; exit }
        wait"""
    left = programs.run("perl", "-e", server, 2000).split()
    running = programs.start("perl", "-e", server, 2, "wait")
    assert running.process.stdout
    own = running.process.stdout.readline().split()
    assert verdicts(programs, "sem") == dict.fromkeys(left, "orphan") | dict.fromkeys(own, "in-use")
    count, removed = reap(programs, "sem").split(" removed=")
    assert (count, {*removed.split(",")}) == ("2000", {*left})
    assert verdicts(programs, "sem") == dict.fromkeys(own, "in-use")
    for semid in own:
        programs.shell(f"rm sem/sysv/{semid}")  # which ends the worker
