"""``/syscall``: echo and cat in two processes, sessions on one open file, and whose reply a reader gets."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from command import run
from mounts import Mount


@pytest.fixture
def bash(mount: Mount) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a script in a shell of its own, in the mount."""
    return lambda script: run("bash", "-c", script, cwd=str(mount.path))


@pytest.fixture
def session(mount: Mount) -> Iterator[int]:
    """An open session of this process."""
    with opened(mount.gate) as fd:
        yield fd


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


Bash = Callable[[str], subprocess.CompletedProcess[str]]

# --- echo and cat


def test_cat_shows_the_reply_to_the_echo_of_the_same_shell(bash: Bash) -> None:
    done = bash("echo getpid > syscall; cat syscall; echo $$")
    pid, itself = done.stdout.split()
    assert pid == itself


def test_reading_twice_shows_the_reply_twice(bash: Bash) -> None:
    assert bash("echo geteuid > syscall; cat syscall; cat syscall").stdout == "0\n0\n"


def test_a_process_without_a_reply_reads_nothing(own_mount: Mount) -> None:
    assert own_mount.gate.read_bytes() == b""


def test_the_nearest_ancestor_that_has_a_reply_is_read(bash: Bash) -> None:
    script = """
    echo 'getpid' > syscall
    bash -c 'bash -c "cat syscall"'           # nobody in between has one
    bash -c 'echo "clock_gettime 99" > syscall 2>/dev/null; bash -c "cat syscall"'
    cat syscall
    echo $$
    """
    first, second, third, pid = bash(script).stdout.splitlines()
    assert (first, third) == (pid, pid)
    assert second.startswith("-1 EINVAL")


def test_a_shell_does_not_see_the_replies_of_a_shell_beside_it(own_mount: Mount) -> None:
    script = 'bash -c "echo getppid > syscall; cat syscall"; bash -c "cat syscall"; echo $$'
    answer, pid = run("bash", "-c", script, cwd=str(own_mount.path)).stdout.split()
    assert answer == pid


@pytest.mark.parametrize(
    ("request_", "number"),
    [
        ("msgget 0x7fffff01", errno.ENOENT),
        ("msgrcv 2147483647 10", errno.EINVAL),
        ("no_such_call", errno.ENOSYS),
        ("bpf 1", errno.ENOSYS),
        ("getpid 1", errno.EINVAL),
        ("nanosleep 9 timeout=0", errno.ETIMEDOUT),
        ('msgsnd 0 1 "unterminated', errno.EINVAL),
    ],
)
def test_a_failing_request_makes_the_write_fail_with_its_errno(mount: Mount, request_: str, number: int) -> None:
    with opened(mount.gate) as fd:
        with pytest.raises(OSError, match="Errno") as raised:
            os.write(fd, request_.encode() + b"\n")
        assert raised.value.errno == number
        assert os.read(fd, 1000).startswith(b"-1 " + errno.errorcode[number].encode() + b" ")


def test_a_shell_sees_the_failure_and_can_read_why(bash: Bash) -> None:
    done = bash("echo 'msgget 0x7fffff01' > syscall || cat syscall")
    assert done.stdout.startswith("-1 ENOENT no queue has key 0x7fffff01")
    assert "No such file or directory" in done.stderr


def test_a_batch_of_lines_is_answered_in_order_and_does_not_fail_as_a_whole(bash: Bash) -> None:
    # bash itself writes line by line; cat writes what it has.
    script = """
    exec 3<>syscall
    printf 'geteuid\\nmsgget 0x7fffff01\\nno_such_call\\ngetpid\\n' | cat >&3 && cat <&3
    echo $$
    """
    first, second, third, fourth, pid = bash(script).stdout.splitlines()
    assert (first, fourth) == ("0", pid)
    assert second.startswith("-1 ENOENT ")
    assert third.startswith("-1 ENOSYS ")


@pytest.mark.parametrize("redirection", ["> syscall", ">> syscall", "1<> syscall", "| tee syscall >/dev/null"])
def test_every_way_of_writing_is_welcome(bash: Bash, redirection: str) -> None:
    assert bash(f"echo getpid {redirection}").returncode == 0


@pytest.mark.parametrize("text", ["getpid", " \t getpid \r\n", "# a comment\ngetpid\n", "\n\ngetpid\n"])
def test_what_printf_leaves_out_or_puts_in_does_not_matter(bash: Bash, text: str) -> None:
    done = bash(f"printf %s '{text}' > syscall; cat syscall; echo $$")
    pid, itself = done.stdout.split()
    assert pid == itself


# --- sessions


def test_replies_come_in_order_on_the_same_descriptor_and_then_the_end(session: int) -> None:
    os.write(session, b"getpid\ngeteuid\n")
    os.write(session, b"clock_gettime 1\n")
    replies = os.read(session, 1000).splitlines()
    assert replies[:2] == [b"%d" % os.getpid(), b"0"]
    assert replies[2].startswith(b"0 tv_sec=")
    assert os.read(session, 1000) == b""
    os.write(session, b"getuid\n")
    assert os.read(session, 1000) == b"0\n"


def test_a_reply_can_be_read_in_pieces_of_any_size(session: int) -> None:
    os.write(session, b"getpid\ngetppid\n")
    pieces = iter(lambda: os.read(session, 1), b"")
    assert b"".join(pieces) == b"%d\n%d\n" % (os.getpid(), os.getppid())


def test_a_request_can_be_written_in_pieces(session: int) -> None:
    request = json.dumps({"call": "getpid", "id": "x"}).encode()
    for byte in request:
        os.write(session, bytes([byte]))
    os.write(session, b"\n")
    assert json.loads(os.read(session, 1000)) == {"ret": os.getpid(), "id": "x"}


def test_offsets_do_not_matter(session: int) -> None:
    os.pwrite(session, b"geteuid\n", 1 << 40)
    assert os.pread(session, 100, 12345) == b"0\n"


def test_bash_reads_line_by_line_from_one_reply_and_keeps_the_rest(bash: Bash) -> None:
    script = r"""
    exec 3<>syscall
    printf 'getpid\ngeteuid\ngetppid\n' >&3
    read -r first <&3; read -r second <&3; read -r third <&3
    echo "$first $second $third"
    echo getegid >&3; read -r fourth <&3; echo "$fourth"; echo $$
    """
    numbers, fourth, pid = bash(script).stdout.splitlines()
    assert numbers == f"{pid} 0 {os.getpid()}"
    assert fourth == "0"


def test_a_shell_reads_the_data_behind_a_reply(bash: Bash) -> None:
    script = r"""
    exec 3<>syscall
    echo 'msgget IPC_PRIVATE 0600' >&3; read -r id <&3
    echo "msgsnd $id 7 \"two words\nand a line\"" >&3; read -r zero <&3
    echo "msgrcv $id 100" >&3; read -r length type <&3; read -r one <&3; read -r two <&3
    echo "$zero/$length/$type/$one/$two"
    echo "msgctl $id IPC_RMID" >&3
    """
    assert bash(script).stdout == "0/20/mtype=7/two words/and a line\n"


def test_python_opens_it_for_reading_and_writing(mount: Mount) -> None:
    code = """
import os, sys
with open(sys.argv[1], "r+", buffering=1) as gate:
    print("getpid", file=gate)
    assert gate.readline() == f"{os.getpid()}\\n"
    print("getppid", file=gate)
    assert gate.readline() == f"{os.getppid()}\\n"
"""
    done = run(sys.executable, "-c", code, str(mount.gate))
    # Python asks whether the file can seek, and says what it thinks of streams that cannot.
    assert (done.returncode, done.stderr) == (0, "")


def test_the_three_notations_may_take_turns_in_one_session(session: int) -> None:
    os.write(session, b'getpid\n{"call":"getpid"}\n' + msgspec.msgpack.encode({"call": "getpid"}))
    reply = os.read(session, 1000)
    text, as_json, as_msgpack = reply.split(b"\n", 2)
    assert int(text) == json.loads(as_json)["ret"] == msgspec.msgpack.decode(as_msgpack)["ret"] == os.getpid()


def test_a_json_array_is_a_batch_and_one_answer(session: int) -> None:
    os.write(session, b'[{"call":"geteuid","id":1},{"call":"nothing","id":2},{"call":39}]\n')
    first, second, third = json.loads(os.read(session, 1000))
    assert first == {"ret": 0, "id": 1}
    assert (second["ret"], second["errno"], second["id"]) == (-1, "ENOSYS", 2)
    assert third == {"ret": os.getpid()}


def test_closing_runs_a_request_without_a_newline(mount: Mount, bash: Bash) -> None:
    with opened(mount.gate) as fd:
        before = int(mount.stats()["total_calls"])
        os.write(fd, b'{"call":"getpid"')
        os.write(fd, b"}")
    # The kernel tells the daemon of the close when it gets to it.
    while int(mount.stats()["total_calls"]) == before:
        pass


def test_with_o_nonblock_what_would_wait_is_eagain(mount: Mount) -> None:
    with opened(mount.gate, os.O_RDWR | os.O_NONBLOCK) as fd:
        with pytest.raises(BlockingIOError):
            os.write(fd, b"nanosleep 100\n")
        assert os.read(fd, 1000).startswith(b"-1 EAGAIN ")
        os.write(fd, b"getpid\n")
        assert os.read(fd, 1000) == b"%d\n" % os.getpid()


def test_two_sessions_of_one_process_are_two_streams(mount: Mount) -> None:
    with opened(mount.gate) as one, opened(mount.gate) as two:
        os.write(one, b"getpid\n")
        os.write(two, b"geteuid\n")
        assert os.read(two, 100) == b"0\n"
        assert os.read(one, 100) == b"%d\n" % os.getpid()


def test_the_c_form_and_the_number_mean_the_same(session: int) -> None:
    os.write(session, b"getpid()\n39\n39()\ngetpid() = 5\n")
    assert os.read(session, 1000) == b"%d\n" % os.getpid() * 4
