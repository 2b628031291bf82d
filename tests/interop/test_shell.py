"""bash and awk alone exchange messages through the mount, without a line of C between them."""

from collections.abc import Callable

from doors import NativeDoor
from programs import KEY, Program

Start = Callable[..., Program]


def test_two_shells_exchange_messages_by_the_gate(start: Start, native: NativeDoor) -> None:
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
    serving = start("bash", "-c", server).wait_until_blocked()
    assert start("bash", "-c", client).output() == "one 3 mtype=2 ONE\ntwo 3 mtype=2 TWO\nthree 5 mtype=2 THREE\n"
    assert serving.output() == "served, 0\n"
    assert native.call("msgget", KEY, "0").errno == "ENOENT"


def test_two_shells_exchange_lines_by_the_files_of_a_queue(start: Start, queue: int) -> None:
    server = f'while read -r word <> msgq/sysv/{queue}@1; do echo "got $word" > msgq/sysv/{queue}@2; done'
    serving = start("bash", "-c", server).wait_until_blocked()
    for word in ("one", "two"):
        client = f"echo {word} > msgq/sysv/{queue}@1; read -r answer <> msgq/sysv/{queue}@2; echo $answer"
        assert start("bash", "-c", client).output() == f"got {word}\n"
    serving.close()


def test_a_shell_script_can_tell_the_errors_apart(start: Start, queue: int) -> None:
    script = f"""
    echo 'msgrcv {queue} 10 0 IPC_NOWAIT' > syscall || cat syscall
    echo 'msgrcv {queue} 10 timeout=0.01' > syscall || cat syscall
    echo 'msgget 0x53591701 IPC_CREAT|IPC_EXCL' > syscall || cat syscall
    """
    lines = start("bash", "-c", script + "2>&1").output().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("-1 ")] == ["ENOMSG", "ETIMEDOUT", "EEXIST"]


def test_a_shell_waits_in_the_background_and_collects_the_status(start: Start, queue: int) -> None:
    script = f"""
    echo 'msgrcv {queue} 8192' > syscall & pid=$!
    until grep -q msgrcv proc/$pid/blocked; do :; done 2>/dev/null
    rm msgq/sysv/{queue}
    wait $pid; echo "status $?"
    """
    assert start("bash", "-c", script).output() == "status 1\n"


def test_awk_calls_by_the_gate(start: Start, native: NativeDoor, queue: int) -> None:
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
    assert start("awk", program).output() == "11 mtype=5\nan awk\tline\n1\n"
    assert native.ok("msgctl", queue, "IPC_STAT").results["qnum"] == 0


def test_awk_reads_the_tables(start: Start, queue: int) -> None:
    program = (
        """NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next } { print $column["msqid"], $column["perms"] }"""
    )
    assert start("awk", program, "msgq/ctl").output() == f"{queue} 0600\n"


def test_awk_takes_a_message_from_a_file_and_sends_one(start: Start, native: NativeDoor, queue: int) -> None:
    native.ok("msgsnd", queue, 3, b"a job\n")
    script = f'awk \'{{ print "done:", $0 }}\' <<<"$(head -n1 <> msgq/sysv/{queue}@3)" > msgq/sysv/{queue}@4'
    start("bash", "-c", script).output()
    assert native.ok("msgrcv", queue, 100, 4, "IPC_NOWAIT").data == b"done: a job\n"
