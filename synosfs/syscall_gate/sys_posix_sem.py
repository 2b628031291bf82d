"""POSIX named semaphore calls: sem_open(3), sem_wait(3), sem_post(3), sem_getvalue(3), sem_unlink(3).

A semaphore is open as a descriptor of the process. An absolute time, of CLOCK_REALTIME, is ``abs_sec=`` and
``abs_nsec=``; ``timeout=`` in seconds bounds every call that waits.
"""

from functools import partial

from synosfs.host import abi
from synosfs.ipc import posix_sem
from synosfs.ipc.posix_sem import Semaphore
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import on_file
from synosfs.syscall_gate.sys_file import sys_close
from synosfs.syscall_gate.sys_own import opened, removed_on_avatar
from synosfs.syscall_gate.sys_pipe import done
from synosfs.syscall_gate.waiting import InThread, OnAvatar, Until


def sys_sem_open(caller: Caller, name: bytes, flags: int, mode: int, value: int) -> OnAvatar:
    def finish(semaphore: Semaphore) -> int:
        return caller.descriptors.add(_described(semaphore), close_on_exec=True)

    given = flags & ~abi.IPC_EPHEMERAL
    make = partial(posix_sem.open_, name, given, mode, value, caller.umask(), nonblock=caller.nonblock)
    return opened(caller, "semaphore", _file_name(name), flags, OnAvatar(on_file(caller, name, make), finish=finish))


def _file_name(name: bytes) -> str:
    """The name without what the file's begins with."""
    return posix_sem.path(name).partition("sem.")[2]


def _described(semaphore: Semaphore) -> Description:
    path = posix_sem.path(semaphore.name)
    return Description(
        "sem",
        abi.O_RDWR,
        ipc_id=_file_name(semaphore.name),
        path=path,
        release=lambda _: semaphore.close(),
        thing=semaphore,
        apart=True,
    )


def sys_sem_close(caller: Caller, sem: int) -> int | Until:
    caller.descriptors.get(sem, "sem")
    return sys_close(caller, sem)


def sys_sem_unlink(caller: Caller, name: bytes) -> OnAvatar:
    unlink = on_file(caller, name, partial(posix_sem.unlink, name))
    return removed_on_avatar(caller, "semaphore", _file_name(name), "sem_unlink", unlink)


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
    return sys_sem_timedwait(caller, sem, None, None)


def sys_sem_timedwait(caller: Caller, sem: int, abs_sec: int | None, abs_nsec: int | None) -> InThread:
    until = posix_sem.deadline(abs_sec, abs_nsec)
    description, semaphore = _open_semaphore(caller, sem)
    return InThread(partial(done, semaphore.wait, until), partial(done, semaphore.try_wait), description=description)


def _open_semaphore(caller: Caller, sem: int) -> tuple[Description, Semaphore]:
    description = caller.descriptors.get(sem, "sem")
    semaphore: Semaphore = description.thing
    return description, semaphore
