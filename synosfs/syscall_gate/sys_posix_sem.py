"""POSIX named semaphore calls: sem_open(3), sem_wait(3), sem_post(3), sem_getvalue(3), sem_unlink(3).

A semaphore is open as a descriptor of the process. An absolute time, of CLOCK_REALTIME, is ``abs_sec=`` and
``abs_nsec=``; ``timeout=`` in seconds bounds every call that waits.
"""

import os

from synosfs.host.posix import Timespec
from synosfs.ipc import posix_sem
from synosfs.ipc.posix_sem import Semaphore
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.waiting import InThread


def sys_sem_open(caller: Caller, name: bytes, flags: int, mode: int, value: int) -> int:
    semaphore = posix_sem.open_(name, flags, mode, value, caller.umask())
    return caller.descriptors.add(describe(semaphore), close_on_exec=True)


def describe(semaphore: Semaphore) -> Description:
    """The open semaphore as a description: for a number of the process, or for an open file of the mount."""
    path = posix_sem.path(semaphore.name)
    return Description(
        "sem",
        os.O_RDWR,
        ipc_id=path.partition("sem.")[2],
        path=path,
        release=lambda _: semaphore.close(),
        thing=semaphore,
    )


def sys_sem_close(caller: Caller, sem: int) -> int:
    caller.descriptors.get(sem, "sem")
    caller.descriptors.close(sem)
    return 0


def sys_sem_unlink(caller: Caller, name: bytes) -> int:
    posix_sem.unlink(name)
    return 0


def sys_sem_post(caller: Caller, sem: int) -> int:
    _, semaphore = _open_semaphore(caller, sem)
    semaphore.post()
    return 0


def sys_sem_getvalue(caller: Caller, sem: int) -> int:
    _, semaphore = _open_semaphore(caller, sem)
    return semaphore.value()


def sys_sem_trywait(caller: Caller, sem: int) -> int:
    _, semaphore = _open_semaphore(caller, sem)
    semaphore.try_wait()
    return 0


def sys_sem_wait(caller: Caller, sem: int) -> InThread:
    return _wait(caller, sem, None)


def sys_sem_timedwait(caller: Caller, sem: int, abs_sec: int | None, abs_nsec: int | None) -> InThread:
    return _wait(caller, sem, posix_sem.deadline(abs_sec, abs_nsec))


def _wait(caller: Caller, sem: int, until: Timespec | None) -> InThread:
    description, semaphore = _open_semaphore(caller, sem)

    def attempt() -> int:
        semaphore.try_wait()
        return 0

    def take() -> int:
        semaphore.wait(until)
        return 0

    return InThread(take, attempt, description=description)


def _open_semaphore(caller: Caller, sem: int) -> tuple[Description, Semaphore]:
    description = caller.descriptors.get(sem, "sem")
    semaphore: Semaphore = description.thing
    return description, semaphore
