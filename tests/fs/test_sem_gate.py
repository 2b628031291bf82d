"""Semaphores at the gate, where only text can say it, and what ``proc/<pid>/undo`` shows."""

import os
import re
from collections.abc import Callable

import pytest
from mounts import Mount
from native_sem import CONSTANTS, semctl


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ("semop({semid}, [{{0, 1, 0}}, {{sem_num=1, sem_op=-1, sem_flg=IPC_NOWAIT}}], 2) = 0", "0"),
        ("semtimedop({semid}, [{{0, 1, SEM_UNDO}}], 1, NULL) = 0", "0"),
        ("semtimedop({semid}, [{{0, 1, 0}}], 1, {{tv_sec=1, tv_nsec=0}})", "0"),
        ("semtimedop({semid}, [{{0, -9, 0}}], 1, {{tv_sec=0, tv_nsec=10000000}})", "-1 EAGAIN set .* within 0.01 s"),
        ("semtimedop({semid}, [{{0, 1, 0}}], 1, {{tv_sec=0, tv_nsec=1000000000}})", "-1 EINVAL semtimedop: timeout .*"),
        ("semtimedop({semid}, [{{0, 1, 0}}], 1, {{tv_sec=-1, tv_nsec=0}})", "-1 EINVAL semtimedop: timeout .*"),
        ("semop({semid}, [{{0, 1, 0}}], 2)", "-1 EINVAL semop: the list has 1 items, not '2'"),
        ("semop({semid}, [], 0)", "-1 EINVAL no set .* or 0 operations are none"),
        ("semop({semid}, [{{0, 1, 0}}], 1, NULL)", "-1 EINVAL semop: one argument too many: 'NULL'.*"),
        ("semctl({semid}, 1, SETVAL, 0x7)", "0"),
        ("semctl({semid}, 0, SETALL, [3, 4])", "0"),
        ("semctl({semid}, 0, GETALL)", "0 values=0,1"),
        ("semctl {semid} 0 SETVAL", "-1 EINVAL semctl: the value is missing.*"),
        ("semctl {semid} 0 SETVAL 1,2", "-1 EINVAL semctl: SETVAL takes one value, not 2.*"),
        ("semctl {semid} 0 SETALL 1", "-1 EINVAL set .* has 2 semaphores, not 1.*"),
        ("semop {semid} 0:1:SEM_UNDOO", "-1 EINVAL semop: ops has no value named 'SEM_UNDOO'; did you mean SEM_UNDO.*"),
        ("semop {semid} 70000:1", "-1 EINVAL semop: ops wants a number from 0 to 65535.*"),
        ("64 0x7fffffff 1", "-1 ENOENT no semaphore set has key 0x7fffffff.*"),
        ("65 {semid} 0:1", "0"),
        ("66 {semid} 1 GETVAL", "1"),
        ("220 {semid} 0:0 timeout=0", "0"),
    ],
)
def test_semaphore_calls_in_text(mount: Mount, new_set: Callable[..., int], request_: str, reply: str) -> None:
    """As strace prints them, by number, and with what only words can get wrong."""
    semid = new_set([0, 1])
    with open(mount.gate, "r+b", buffering=0) as gate:
        try:
            gate.write(request_.format(semid=semid).encode() + b"\n")
        except OSError:
            assert reply.startswith("-1")
        assert re.fullmatch(reply, gate.read(4096).decode().removesuffix("\n"))


def test_the_undo_file_follows_what_clears_adjustments(mount: Mount, new_set: Callable[..., int]) -> None:
    first, second, third = new_set([9, 9]), new_set([9]), new_set([9])

    def adjustments() -> list[list[int]]:
        lines = (mount.path / f"proc/{os.getpid()}/undo").read_text().splitlines()[1:]
        return [[int(word) for word in line.split()] for line in lines]

    with open(mount.gate, "r+b", buffering=0) as gate:

        def do(request: str) -> None:
            gate.write(request.encode() + b"\n")
            assert gate.read(4096) == b"0\n"

        do(f"semop {first} 0:-1:SEM_UNDO 1:+2:SEM_UNDO")
        do(f"semop {first} 0:-3:SEM_UNDO")
        do(f"semop {second} 0:-1:SEM_UNDO")
        do(f"semop {third} 0:-1:SEM_UNDO")
        assert adjustments() == [[first, 0, 4], [first, 1, -2], [second, 0, 1], [third, 0, 1]]
        do(f"semctl {first} 0 SETVAL 5")
        assert adjustments() == [[first, 1, -2], [second, 0, 1], [third, 0, 1]]
        do(f"semctl {first} 0 SETALL 5,5")
        assert adjustments() == [[second, 0, 1], [third, 0, 1]]
        do(f"semctl {second} 0 IPC_RMID")
        semctl(third, 0, CONSTANTS["IPC_RMID"])
        assert adjustments() == []
