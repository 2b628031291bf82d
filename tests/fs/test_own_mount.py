"""A mount of an ordinary user's own, without root's help but for fusermount3: children, files and limits in it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import (
    AS_NOBODY,
    OPEN_DEVICE,
    SYNOSFS,
    daemon_of,
    mount_point,
    namespace,
    needs_root,
    processes_of,
    run,
    wait_gone,
)
from doors import NOBODY
from mounts import COMPLAINT

pytestmark = needs_root

#: As any user is: it has no capability, which AS_NOBODY gives the daemon so that it finds the interpreter.
PLAIN = [word for word in AS_NOBODY if "caps" not in word]

Ask = Callable[[str], list[str]]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Run lines of bash in the mount, as its owner; what they say, in lines. ``ask`` is a request and its reply."""
    with mount_point(tmp_path) as directory, namespace(tmp_path, OPEN_DEVICE) as inside:
        log = tmp_path / "log"
        log.touch()
        log.chmod(0o666)
        mounted = run(*inside, *AS_NOBODY, SYNOSFS, "--log-file", str(log), str(directory))
        if re.search("/dev/fuse|fusermount3", mounted.stderr):
            pytest.skip(f"an ordinary user cannot mount here: {mounted.stderr}")
        assert (mounted.returncode, mounted.stderr) == (0, "")
        daemon = daemon_of(directory)
        assert Path(f"/proc/{daemon}").stat().st_uid == NOBODY

        def ask(script: str) -> list[str]:
            prepared = 'exec 3<>syscall; ask() { echo "$*" >&3; read -r reply <&3; }; ' + script
            done = run(*inside, *PLAIN, "bash", "-c", f"cd {directory} && {prepared}", stdin=None)
            assert (done.stderr, done.returncode) == ("", 0)
            return done.stdout.splitlines()

        yield ask
        assert run(*inside, *PLAIN, "fusermount3", "-u", str(directory)).returncode == 0
        wait_gone(daemon)
        assert not processes_of(directory)
        assert not COMPLAINT.findall(log.read_text())


def test_a_program_is_spawned_and_waited_for(ask: Ask) -> None:
    said = ask(
        "ask pipe2 O_CLOEXEC; ask spawn /usr/bin/id id -u stdout=4; child=$reply; ask close 4; "
        'echo "read 3 100" >&3; cat <&3; ask wait4 $child; echo "${reply#"$child "}"'
    )
    assert said[:2] == ["6", str(NOBODY)]
    assert said[-1].startswith("status=exited:0 ")


def test_a_child_is_forked_prepared_and_becomes_a_program(ask: Ask) -> None:
    said = ask(
        'ask fork; child=$reply; gate=proc/$child/syscall; stat -c "%u %a" $gate; '
        "echo 'setenv GREETING hello' > $gate; echo 'setrlimit RLIMIT_NOFILE 50 60' > $gate; "
        "echo 'chdir /' > $gate; echo 'umask 027' > $gate; "
        """echo 'execve /bin/sh sh -c "echo $GREETING $(pwd) $(ulimit -n) $(umask) $(id -u)"' > $gate; """
        'ask wait4 $child; echo "${reply#"$child "}"'
    )
    assert said[:2] == [f"{NOBODY} 600", f"hello / 50 0027 {NOBODY}"]
    assert said[2].startswith("status=exited:0 ")


def test_children_are_signalled_and_end_with_their_parent(ask: Ask) -> None:
    said = ask(
        "ask spawn /bin/sleep sleep 1000; child=$reply; ask kill $child SIGTERM; ask wait4 $child; "
        'echo "${reply#"$child "}"; ask fork; echo $reply'
    )
    assert said[0].startswith("status=killed:15 ")
    wait_gone(int(said[1]))


def test_what_is_roots_is_refused_as_natively(ask: Ask) -> None:
    said = ask(
        "for request in 'kill 1 0' 'setpriority PRIO_PROCESS 0 -5' 'open /etc/shadow O_RDONLY' 'chown /tmp 0 0' "
        "'setrlimit RLIMIT_CORE 0 0' 'setrlimit RLIMIT_CORE unlimited unlimited'; do "
        'ask $request; set -- $reply; echo "$1 ${2-}"; done 2>/dev/null || :'
    )
    assert [line.strip() for line in said] == ["-1 EPERM", "-1 EACCES", "-1 EACCES", "-1 EPERM", "0", "-1 EPERM"]
