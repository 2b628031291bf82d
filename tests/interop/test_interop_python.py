"""Python's modules for IPC on one side, files and calls of the mount on the other."""

import os
import threading

import posix_ipc
import pytest
import sysv_ipc
from children import wait_until
from programs import Programs


def test_a_sysv_ipc_queue_and_the_file_of_a_queue(programs: Programs) -> None:
    queue = sysv_ipc.MessageQueue(0x71, sysv_ipc.IPC_CREX)
    queue.send(b"from python\n", type=3)
    assert (
        programs.shell('read -r text <> msgq/key/0x71@3; echo "$text"; printf answer > msgq/key/0x71@4')
        == "from python\n"
    )
    assert queue.receive(type=4) == (b"answer", 4)
    assert f"{queue.id}" in os.listdir(programs.mount.path / "msgq/sysv")
    queue.remove()
    assert f"{queue.id}" not in os.listdir(programs.mount.path / "msgq/sysv")


def test_a_sysv_ipc_semaphore_is_had_when_a_shell_gives_it(programs: Programs) -> None:
    semaphore = sysv_ipc.Semaphore(0x72, sysv_ipc.IPC_CREX, initial_value=0)
    waiting = threading.Thread(target=semaphore.acquire)
    waiting.start()
    wait_until(lambda: semaphore.waiting_for_nonzero == 1, "Python waits")
    programs.shell("echo 0:+1:0 > sem/key/0x72")
    waiting.join()
    assert programs.shell("cat sem/key/0x72") == "0\n"
    semaphore.remove()


def test_sysv_ipc_memory_and_the_file_of_a_segment(programs: Programs) -> None:
    memory = sysv_ipc.SharedMemory(0x73, sysv_ipc.IPC_CREX, size=4096)
    memory.write(b"from python")
    assert programs.shell("head -c 11 shm/key/0x73; printf FROM > shm/key/0x73") == "from python"
    assert memory.read(11) == b"FROM python"
    memory.detach()
    programs.shell("rm shm/key/0x73")
    with pytest.raises(sysv_ipc.ExistentialError):
        sysv_ipc.SharedMemory(0x73)


def test_a_posix_queue_of_python_and_one_of_a_shell(programs: Programs, name: str) -> None:
    queue = posix_ipc.MessageQueue(f"/{name}", posix_ipc.O_CREX, max_messages=4, max_message_size=64)
    queue.send(b"low\n", priority=1)
    queue.send(b"high\n", priority=8)
    script = f"exec 3<>msgq/posix/{name}; read -r a <&3; read -r b <&3; echo $a $b; printf back > msgq/posix/{name}@2"
    assert programs.shell(script) == "high low\n"
    assert queue.receive() == (b"back", 2)
    programs.shell(f"rm msgq/posix/{name}")
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.MessageQueue(f"/{name}")
    queue.close()


def test_a_posix_semaphore_of_python_and_a_shell(programs: Programs, name: str) -> None:
    semaphore = posix_ipc.Semaphore(f"/{name}", posix_ipc.O_CREX, initial_value=1)
    assert programs.shell(f"echo -1 > sem/posix/{name}; cat sem/posix/{name}") == "0\n"
    waiting = threading.Thread(target=semaphore.acquire)
    waiting.start()
    programs.shell(f"echo +1 > sem/posix/{name}")
    waiting.join()
    assert semaphore.value == 0
    semaphore.close()
    programs.shell(f"rm sem/posix/{name}")


def test_multiprocessing_shared_memory_is_a_file_in_shm_posix(programs: Programs, name: str) -> None:
    output = programs.python(f"""if True:
        from multiprocessing import shared_memory
        import subprocess
        memory = shared_memory.SharedMemory({name!r}, create=True, size=100)
        memory.buf[:5] = b"hello"
        subprocess.run("head -c 5 shm/posix/{name}; printf HE | dd of=shm/posix/{name} conv=notrunc status=none",
                       shell=True, check=True)
        print("", bytes(memory.buf[:5]).decode())
        memory.close(); memory.unlink()
    """)
    assert output.split() == ["hello", "HEllo"]


def test_python_uses_the_gate_without_any_module(programs: Programs) -> None:
    output = programs.python("""if True:
        import json, os
        gate = os.open("syscall", os.O_RDWR)
        def call(name, *args):
            os.write(gate, json.dumps({"call": name, "args": args}).encode() + b"\\n")
            return json.loads(os.read(gate, 65536))
        queue = call("msgget", 0, 0o600)["ret"]
        call("msgsnd", queue, 5, "a job")
        print(call("msgrcv", queue, 100)["data"], call("msgctl", queue, "IPC_RMID")["ret"])
        print(call("msgrcv", queue, 1)["errno"])
    """)
    assert output == "a job 0\nEINVAL\n"
