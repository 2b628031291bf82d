"""The shells that there are: substitutions, pipelines, background jobs and sessions do what their users expect."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import Programs

SHELLS = {
    "bash": ("bash",),
    "dash": ("dash",),
    "zsh": ("zsh", "-f"),
    "busybox": ("busybox", "sh"),
    "fish": ("fish", "-N"),
}

#: What the shell itself and what fish has to be told in its own words: a session and a question in it.
POSIX = r"""
exec 5<>syscall
ask() { printf '%s\n' "$*" >&5; IFS= read -r reply <&5; ret=${reply%% *}; }
"""

Shell = Callable[[str], str]


@pytest.fixture(params=SHELLS)
def name(request: pytest.FixtureRequest) -> str:
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"there is no {request.param} here")
    return str(request.param)


@pytest.fixture
def shell(programs: Programs, name: str) -> Shell:
    """Runs a script in the root of the mount; its output."""
    return lambda script: programs.run(*SHELLS[name], "-c", script)


@pytest.fixture
def posix(shell: Shell, name: str) -> Shell:
    """As ``shell``, with the function ``ask`` of a session; fish has a syntax of its own."""
    if name == "fish":
        pytest.skip("fish has no descriptor that stays open between two commands")
    return lambda script: shell(POSIX + script)


def test_a_substitution_is_a_process_of_its_own(shell: Shell, name: str) -> None:
    pid = "$fish_pid" if name == "fish" else "$$"
    answer, own = shell(
        f"echo (echo getpid > syscall; cat syscall); echo {pid}"
        if name == "fish"
        else f"echo $(echo getpid > syscall; cat syscall); echo {pid}"
    ).split()
    # In fish a substitution runs in the shell itself.
    assert (answer == own) == (name == "fish")


def test_a_failed_request_is_a_failed_command(shell: Shell) -> None:
    printed = shell("echo 'msgget 0x53591702' 2>/dev/null > syscall || cat syscall")
    assert printed.splitlines()[-1].startswith("-1 ENOENT no queue")  # fish complains itself


def test_what_one_command_says_the_next_reads(shell: Shell) -> None:
    assert shell("echo 'getppid' > syscall; cat syscall").strip() == str(os.getpid())


def test_a_pipeline_ends_in_the_gate(shell: Shell) -> None:
    assert shell("echo getuid | cat > syscall; echo geteuid | tee syscall > /dev/null; echo done") == "done\n"


def test_a_program_that_is_spawned_writes_where_the_shell_does(shell: Shell, name: str) -> None:
    script = "echo 'spawn /bin/echo echo hello' > syscall; echo wait4 > syscall; cat syscall"
    hello, waited = shell(script).splitlines()
    assert hello == "hello"
    assert "status=exited:0" in waited


def test_a_job_in_the_background_waits_alone(posix: Shell) -> None:
    printed = posix("""
    ask msgget IPC_PRIVATE 0600; queue=$ret
    (echo "msgrcv $queue 100" > syscall; cat syscall) & job=$!
    until grep -q msgrcv proc/$job/blocked 2>/dev/null; do :; done
    ask getpid
    ask msgsnd $queue 1 hello
    wait $job
    ask msgctl $queue IPC_RMID
    """)
    assert printed == "5 mtype=1\nhello\n"


def test_a_signal_to_a_job_ends_its_wait(posix: Shell) -> None:
    printed = posix("""
    ask msgget IPC_PRIVATE 0600; queue=$ret
    (exec sh -c "echo 'msgrcv $queue 100' > syscall") & job=$!
    until grep -q msgrcv proc/$job/blocked 2>/dev/null; do :; done
    kill $job; wait $job; echo $?
    ask msgctl $queue IPC_RMID
    """)
    assert printed.splitlines()[-1] == str(128 + 15)


def test_a_session_asks_and_answers(posix: Shell) -> None:
    printed = posix('ask getpid; [ "$ret" = $$ ] && echo mine; ask pipe; echo "$reply"; ask close 3; echo "$ret"')
    assert printed == "mine\n0 read=3 write=4\n0\n"


def test_a_pipeline_of_programs_from_echo_and_cat(posix: Shell) -> None:
    printed = posix("""
    ask pipe2 O_CLOEXEC; ask pipe2 O_CLOEXEC
    ask spawn /usr/bin/sort sort stdin=3 stdout=6; sort=$ret
    ask spawn /usr/bin/uniq uniq -c stdin=5; uniq=$ret
    ask close 3; ask close 5; ask close 6
    ask write 4 '"b\\na\\nb\\n"'
    ask close 4
    ask wait4 $sort; echo "${reply#* }" | cut -d' ' -f1
    ask wait4 $uniq; echo "${reply#* }" | cut -d' ' -f1
    """)
    assert sorted(printed.split("\n")) == sorted(["      1 a", "      2 b", "status=exited:0", "status=exited:0", ""])


def test_a_child_is_forked_prepared_and_executed(posix: Shell) -> None:
    printed = posix("""
    ask pipe2 O_CLOEXEC
    ask fork; child=$ret
    echo 'dup2 4 1' > proc/$child/syscall
    echo 'setenv WHOM world' > proc/$child/syscall
    echo 'execve /bin/sh sh -c "echo hello $WHOM"' > proc/$child/syscall
    ask close 4
    ask read 3 100; IFS= read -r line <&5; IFS= read -r empty <&5; echo "$line"
    ask wait4 $child; echo "${reply#* }" | cut -d' ' -f1
    """)
    assert printed == "hello world\nstatus=exited:0\n"


def test_a_supervisor_starts_again_what_fails(posix: Shell, tmp_path: Path) -> None:
    (tmp_path / "flaky").write_text(f"#!/bin/sh\necho x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 3 ]\n")
    (tmp_path / "flaky").chmod(0o755)
    printed = posix(f"""
    until ask spawn {tmp_path}/flaky; ask wait4 "$ret"; case $reply in *status=exited:0*) :;; *) false;; esac; do
        echo "failed: ${{reply#* }}" | cut -d' ' -f1,2
    done
    echo "done"
    """)
    assert printed == "failed: status=exited:1\n" * 2 + "done\n"
