"""bash and awk alone: what a script can do with nothing but files."""

import os
import signal
from pathlib import Path

from children import wait_until


def test_a_builtin_read_takes_one_message_a_time(programs):
    output = programs.shell("""
        exec 3<>msgq/key/0x51
        echo one >&3; echo two >&3
        read -r first <&3; read -r second <&3
        echo "$second $first"; rm msgq/key/0x51
    """)
    assert output == "two one\n"


def test_workers_share_the_jobs_that_awk_makes(programs):
    output = programs.shell("""
        : > msgq/key/0x53
        work() {
            while read -r job; [ "$job" != stop ]; do echo "$job"; done <> msgq/key/0x53 | awk '{ print "done", $2 }'
        }
        work & work & work &
        awk 'BEGIN { q = "msgq/key/0x53"; for (n = 1; n <= 30; n++) { print "job", n > q; fflush(q) } }'
        for n in 1 2 3; do echo stop > msgq/key/0x53; done
        wait; rm msgq/key/0x53
    """)
    assert sorted(output.splitlines()) == sorted(f"done {n}" for n in range(1, 31))


def test_a_lock_excludes_and_is_undone_when_its_holder_is_killed(programs):
    mount = programs.mount
    semid = int(programs.shell("echo 'create 0x54 1 init=1' > sem/ctl; cat sem/ctl | awk '$1 == \"0x54\" {print $2}'"))
    programs.shell("mkfifo pipes/54")
    holder = programs.start("bash", "-c", "echo 0:-1 > sem/key/0x54; read -r forever <> pipes/54")
    wait_until(lambda: (mount.path / f"sem/sysv/{semid}").read_text() == "0\n", "the lock is held")
    waiter = programs.start("bash", "-c", "echo 0:-1 > sem/key/0x54; echo mine; cat sem/key/0x54")
    wait_until(lambda: mount.blocked(waiter.pid), "the other waits")
    holder.kill()
    assert programs.wait(waiter) == "mine\n0\n"
    wait_until(lambda: (mount.path / f"sem/sysv/{semid}").read_text() == "1\n", "the lock is free")
    programs.shell("rm sem/key/0x54 pipes/54")


def test_one_message_queue_is_a_request_and_reply_channel_by_types(programs):
    output = programs.shell("""
        : > msgq/key/0x55
        { read -r text <> msgq/key/0x55@1; echo "${text^^}" > msgq/key/0x55@2; } &
        echo hello > msgq/key/0x55@1; read -r reply <> msgq/key/0x55@2; echo "$reply"
        wait; rm msgq/key/0x55
    """)
    assert output == "HELLO\n"


def test_shared_memory_is_a_file_to_dd(programs):
    output = programs.shell("""
        truncate -s 4096 shm/key/0x56
        printf 42 | dd of=shm/key/0x56 bs=1 seek=100 conv=notrunc status=none
        dd if=shm/key/0x56 bs=1 skip=100 count=2 status=none; echo
        stat -c %s shm/key/0x56; rm shm/key/0x56
    """)
    assert output == "42\n4096\n"


def test_a_fifo_joins_two_shells(programs):
    output = programs.shell("mkfifo pipes/a; seq 1 1000 > pipes/a & awk '{n += $1} END {print n}' pipes/a; rm pipes/a")
    assert output == "500500\n"


def test_an_anonymous_pipe_carries_between_commands_of_one_shell(programs):
    output = programs.shell("""
        exec 3<>syscall
        echo pipe >&3; read -r reply <&3; echo "$reply"
        echo 'write 4 "through the kernel"' >&3; read -r count <&3
        echo 'read 3 100' >&3; read -r length <&3; read -r text <&3; echo "$count $length $text"
    """)
    assert output == "0 read=3 write=4\n18 18 through the kernel\n"


def test_posix_queues_and_semaphores_are_files_to_a_shell(programs):
    output = programs.shell("""
        : > msgq/posix/shell-$$; echo low > msgq/posix/shell-$$; echo high > msgq/posix/shell-$$@9
        exec 3<>msgq/posix/shell-$$; read -r first <&3; read -r second <&3; echo "$first $second"
        rm msgq/posix/shell-$$
        echo 2 > sem/posix/shell-$$; echo -1 > sem/posix/shell-$$; cat sem/posix/shell-$$; rm sem/posix/shell-$$
    """)
    assert output == "high low\n1\n"


def test_poll_in_a_shell_waits_for_whichever_comes_first(programs):
    programs.shell(": > msgq/key/0x57; echo 'create 0x58 1' > sem/ctl")
    poller = programs.start(
        "bash",
        "-c",
        """
        id() { echo "$1" > syscall; read -r number < syscall; }
        id "msgget 0x57"; one=$number; id "semget 0x58 1"
        echo "poll msgq/$one sem/$number.0" > syscall; cat syscall
        """,
    )
    wait_until(lambda: programs.mount.blocked(poller.pid), "the shell polls")
    programs.shell("echo 0:+1:0 > sem/key/0x58")
    assert programs.wait(poller) == "1 revents=0,1\n"
    programs.shell("rm msgq/key/0x57 sem/key/0x58")


def test_a_signal_to_who_was_handed_a_queue_ends_that_wait_alone(programs):
    mount = programs.mount
    programs.shell(": > msgq/key/0x59")
    shells = [programs.start("bash", "-c", "exec 3<>msgq/key/0x59; head -c 5 <&3; echo; echo ended") for _ in range(3)]
    wait_until(lambda: mount.blocked_callers() == 3, "three programs wait in descriptors of their shells")
    [head] = map(int, Path(f"/proc/{shells[1].pid}/task/{shells[1].pid}/children").read_text().split())
    os.kill(head, signal.SIGTERM)
    assert programs.wait(shells[1]).endswith("\nended\n")
    assert mount.blocked_callers() == 2
    programs.shell("for n in 1 2; do printf hello > msgq/key/0x59; done")
    assert [programs.wait(shells[each]) for each in (0, 2)] == ["hello\nended\n"] * 2
    programs.shell("rm msgq/key/0x59")
