"""bash and awk alone: what a script can do with nothing but files, and not a line of C between two of them."""

import os
import signal
from pathlib import Path

from children import wait_until
from doors import NativeDoor
from programs import KEY, Programs

# --- queues, by the gate


def test_two_shells_exchange_messages_by_the_gate(programs: Programs, native: NativeDoor) -> None:
    server = r"""
    exec 3<>syscall
    echo 'msgget 0x53591701 IPC_CREAT|0600' >&3; read -r id <&3
    while echo "msgrcv $id 8192 1" >&3; read -r length type <&3; read -r word <&3; [ "$word" != stop ]; do
        echo "msgsnd $id 2 \"${word^^}\"" >&3; read -r zero <&3
    done
    echo "msgctl $id IPC_RMID" >&3; read -r zero <&3; echo "served, $zero"
    """
    client = r"""
    exec 3<>syscall
    echo 'msgget 0x53591701' >&3; read -r id <&3
    for word in one two three; do
        echo "msgsnd $id 1 $word" >&3; read -r zero <&3
        echo "msgrcv $id 8192 2" >&3; read -r length type <&3; read -r answer <&3
        echo "$word $length $type $answer"
    done
    echo "msgsnd $id 1 stop" >&3
    """
    serving = programs.start_shell(server).wait_until_blocked("msgrcv")
    assert programs.shell(client) == "one 3 mtype=2 ONE\ntwo 3 mtype=2 TWO\nthree 5 mtype=2 THREE\n"
    assert serving.output() == "served, 0\n"
    assert native.call("msgget", KEY, "0").errno == "ENOENT"


def test_a_shell_script_can_tell_the_errors_apart(programs: Programs, queue: int) -> None:
    printed = programs.shell(f"""
    exec 2>/dev/null
    echo 'msgrcv {queue} 10 0 IPC_NOWAIT' > syscall || cat syscall
    echo 'msgrcv {queue} 10 timeout=0.01' > syscall || cat syscall
    echo 'msgget 0x53591701 IPC_CREAT|IPC_EXCL' > syscall || cat syscall
    """)
    assert [line.split()[:2] for line in printed.splitlines()] == [
        ["-1", "ENOMSG"],
        ["-1", "ETIMEDOUT"],
        ["-1", "EEXIST"],
    ]


def test_a_shell_waits_in_the_background_and_collects_the_status(programs: Programs, queue: int) -> None:
    printed = programs.shell(f"""
    exec 2>/dev/null
    echo 'msgrcv {queue} 8192' > syscall & pid=$!
    until grep -q msgrcv proc/$pid/blocked; do :; done
    rm msgq/sysv/{queue}
    wait $pid; echo "status $?"
    """)
    assert printed == "status 1\n"


def test_awk_calls_by_the_gate(programs: Programs, native: NativeDoor, queue: int) -> None:
    program = rf"""
    function call(request) {{
        print request > gate; close(gate)
        getline reply < gate; rest = ""
        while ((getline line < gate) > 0) rest = rest line "\n"
        close(gate)
        return reply
    }}
    BEGIN {{
        gate = "syscall"
        id = call("msgget {KEY:#x}")
        call("msgsnd " id " 5 \"an awk\\tline\"")
        print call("msgrcv " id " 8192 5")
        printf "%s", rest
        print call("getpid") == call("getpid")
    }}
    """
    assert programs.run("awk", program) == "11 mtype=5\nan awk\tline\n1\n"
    assert native.ok("msgctl", queue, "IPC_STAT").results["qnum"] == 0


# --- queues, by their files


def test_a_builtin_read_takes_one_message_a_time(programs: Programs) -> None:
    output = programs.shell("""
        exec 3<>msgq/key/0x51
        echo one >&3; echo two >&3
        read -r first <&3; read -r second <&3
        echo "$second $first"; rm msgq/key/0x51
    """)
    assert output == "two one\n"


def test_one_queue_is_a_request_and_reply_channel_by_types(programs: Programs) -> None:
    number = programs.shell(": > msgq/key/0x55; ls msgq/sysv").strip()
    server = f'while read -r word <> msgq/sysv/{number}@1; do echo "${{word^^}}" > msgq/sysv/{number}@2; done'
    serving = programs.start_shell(server).wait_until_blocked("msgrcv")
    for word in ("one", "two"):
        client = f'echo {word} > msgq/key/0x55@1; read -r answer <> msgq/key/0x55@2; echo "$answer"'
        assert programs.shell(client) == f"{word.upper()}\n"
    serving.kill()
    programs.shell("rm msgq/key/0x55")


def test_workers_share_the_jobs_that_awk_makes(programs: Programs) -> None:
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


def test_awk_takes_a_message_from_a_file_and_sends_one(programs: Programs, native: NativeDoor, queue: int) -> None:
    native.ok("msgsnd", queue, 3, b"a job\n")
    done = """awk '{ print "done:", $0 }'"""
    programs.shell(f'{done} <<<"$(head -n1 <> msgq/sysv/{queue}@3)" > msgq/sysv/{queue}@4')
    assert native.ok("msgrcv", queue, 100, 4, "IPC_NOWAIT").data == b"done: a job\n"


def test_awk_reads_the_tables(programs: Programs, queue: int) -> None:
    program = """
    NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    { print $column["msqid"], $column["perms"] }
    """
    assert programs.run("awk", program, "msgq/ctl") == f"{queue} 0600\n"


def test_a_signal_to_who_was_handed_a_queue_ends_that_wait_alone(programs: Programs) -> None:
    mount = programs.mount
    programs.shell(": > msgq/key/0x59")
    shells = [programs.start_shell("exec 3<>msgq/key/0x59; head -c 5 <&3; echo; echo ended") for _ in range(3)]
    wait_until(lambda: mount.blocked_callers() == 3, "three programs wait in descriptors of their shells")
    [head] = map(int, Path(f"/proc/{shells[1].pid}/task/{shells[1].pid}/children").read_text().split())
    os.kill(head, signal.SIGTERM)
    assert shells[1].output().endswith("\nended\n")
    assert mount.blocked_callers() == 2
    programs.shell("for n in 1 2; do printf hello > msgq/key/0x59; done")
    assert [shells[each].output() for each in (0, 2)] == ["hello\nended\n"] * 2
    programs.shell("rm msgq/key/0x59")


def test_posix_queues_and_semaphores_are_files_to_a_shell(programs: Programs) -> None:
    output = programs.shell("""
        : > msgq/posix/shell-$$; echo low > msgq/posix/shell-$$; echo high > msgq/posix/shell-$$@9
        exec 3<>msgq/posix/shell-$$; read -r first <&3; read -r second <&3; echo "$first $second"
        rm msgq/posix/shell-$$
        echo 2 > sem/posix/shell-$$; echo -1 > sem/posix/shell-$$; cat sem/posix/shell-$$; rm sem/posix/shell-$$
    """)
    assert output == "high low\n1\n"


# --- semaphores, memory, pipes


def test_a_lock_excludes_and_is_undone_when_its_holder_is_killed(programs: Programs) -> None:
    semid = programs.shell("echo 'create 0x54 1 init=1' > sem/ctl; awk '$1 == \"0x54\" {print $2}' sem/ctl").strip()
    value = programs.mount.path / f"sem/sysv/{semid}"
    programs.shell("mkfifo pipes/54")
    holder = programs.start_shell("echo 0:-1 > sem/key/0x54; read -r forever <> pipes/54")
    wait_until(lambda: value.read_text() == "0\n", "the lock is held")
    waiter = programs.start_shell("echo 0:-1 > sem/key/0x54; echo mine; cat sem/key/0x54").wait_until_blocked("semop")
    holder.kill()
    assert waiter.output() == "mine\n0\n"
    wait_until(lambda: value.read_text() == "1\n", "the lock is free")
    programs.shell("rm sem/key/0x54 pipes/54")


def test_shared_memory_is_a_file_to_dd(programs: Programs) -> None:
    output = programs.shell("""
        truncate -s 4096 shm/key/0x56
        printf 42 | dd of=shm/key/0x56 bs=1 seek=100 conv=notrunc status=none
        dd if=shm/key/0x56 bs=1 skip=100 count=2 status=none; echo
        stat -c %s shm/key/0x56; rm shm/key/0x56
    """)
    assert output == "42\n4096\n"


def test_a_fifo_joins_two_shells(programs: Programs) -> None:
    output = programs.shell("mkfifo pipes/a; seq 1 1000 > pipes/a & awk '{n += $1} END {print n}' pipes/a; rm pipes/a")
    assert output == "500500\n"


def test_an_anonymous_pipe_carries_between_commands_of_one_shell(programs: Programs) -> None:
    output = programs.shell("""
        exec 3<>syscall
        echo pipe >&3; read -r reply <&3; echo "$reply"
        echo 'write 4 "through the kernel"' >&3; read -r count <&3
        echo 'read 3 100' >&3; read -r length <&3; read -r text <&3; echo "$count $length $text"
    """)
    assert output == "0 read=3 write=4\n18 18 through the kernel\n"


def test_poll_in_a_shell_waits_for_whichever_comes_first(programs: Programs) -> None:
    programs.shell(": > msgq/key/0x57; echo 'create 0x58 1' > sem/ctl")
    poller = programs.start_shell("""
        id() { echo "$1" > syscall; read -r number < syscall; }
        id "msgget 0x57"; one=$number; id "semget 0x58 1"
        echo "poll msgq/$one sem/$number.0" > syscall; cat syscall
    """).wait_until_blocked("poll")
    programs.shell("echo 0:+1:0 > sem/key/0x58")
    assert poller.output() == "1 revents=0,1\n"
    programs.shell("rm msgq/key/0x57 sem/key/0x58")
