"""Node reads and writes queue files with ``fs``: no module, no binding."""

import shutil

import pytest
from programs import Program, Programs

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")

RECEIVE = "const b = Buffer.alloc(8192); const take = () => b.toString('utf8', 0, fs.readSync(fd, b, 0, 8192, null));"


def start_node(programs: Programs, script: str) -> Program:
    return programs.start("node", "-e", f"const fs = require('fs'); {script}")


def test_node_sends_to_a_shell_and_receives_from_one(programs: Programs) -> None:
    programs.shell(": > msgq/key/0x81")
    send = r"for (const n of [1, 2, 3]) fs.appendFileSync('msgq/key/0x81', `job ${n}\n`)"
    assert start_node(programs, send).output() == ""
    assert programs.shell("for n in 1 2 3; do read -r job <> msgq/key/0x81; echo $job; done") == "job 1\njob 2\njob 3\n"
    receive = f"const fd = fs.openSync('msgq/key/0x81@7', 'r+'); {RECEIVE} console.log(take(), take())"
    receiver = start_node(programs, receive)
    programs.shell("for n in 1 2; do printf hello > msgq/key/0x81@7; done")
    assert receiver.output() == "hello hello\n"
    programs.shell("rm msgq/key/0x81")


def test_node_calls_in_json(programs: Programs) -> None:
    script = r"""
    const fd = fs.openSync('syscall', 'r+'), b = Buffer.alloc(65536);
    const call = (call, ...args) => {
        fs.writeSync(fd, JSON.stringify({call, args}) + '\n');
        return JSON.parse(b.toString('utf8', 0, fs.readSync(fd, b, 0, 65536, null)));
    };
    const set = call('semget', 0, 1, 0o600).ret;
    call('semop', set, [[0, 5, 0]]);
    console.log(call('semctl', set, 0, 'GETVAL').ret, call('semctl', set, 0, 'IPC_RMID').ret);
    console.log(call('semop', set, [[0, 1, 0]]).errno);
    """
    assert start_node(programs, script).output() == "5 0\nEINVAL\n"


def test_node_shares_memory_with_perl(programs: Programs) -> None:
    script = r"""
    const fd = fs.openSync('shm/key/0x82', 'r+'), b = Buffer.alloc(4);
    fs.readSync(fd, b, 0, 4, 0); b.writeUInt32LE(b.readUInt32LE(0) + 1, 0); fs.writeSync(fd, b, 0, 4, 0);
    """
    programs.shell("truncate -s 4 shm/key/0x82")
    for _ in range(2):
        assert start_node(programs, script).output() == ""
    count = r'shmread(shmget(0x82, 0, 0) // die($!), my $x, 0, 4) or die $!; print unpack("L<", $x)'
    assert programs.run("perl", "-e", count) == "2"
    programs.shell("rm shm/key/0x82")
