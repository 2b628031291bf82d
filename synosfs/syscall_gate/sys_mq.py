"""POSIX message queue calls: mq_open(3), mq_send(3), mq_receive(3), mq_notify(3), mq_getattr(3), mq_unlink(3).

A queue is open as a descriptor of the process. A time-out is ``timeout=`` in seconds, as with every call, or the
absolute time of CLOCK_REALTIME that C takes, as ``abs_sec=`` and ``abs_nsec=``.
"""

import errno
import os

import trio

from synosfs.errors import SynosError
from synosfs.host import rights
from synosfs.host.abi import SIGEV_CANCEL, SIGEV_NONE, SIGEV_THREAD
from synosfs.host.posix import Timespec
from synosfs.ipc import mq_notifier, posix_mq
from synosfs.ipc.mq_notifier import Event
from synosfs.ipc.posix_mq import PosixQueue
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.waiting import InThread


def sys_mq_open(
    caller: Caller, name: bytes, flags: int, mode: int, maxmsg: int | None, msgsize: int | None
) -> int | Reply:
    queue = posix_mq.open_(name, flags, mode, maxmsg, msgsize, umask=caller.umask())
    return caller.descriptors.add(describe(caller, queue, flags), close_on_exec=True)


def describe(caller: Caller, queue: PosixQueue, flags: int) -> Description:
    """The open queue as a description: for a number of the process, or for an open file of the mount."""

    def flush(description: Description, closed_in: object) -> None:
        # As mq_close(3) has it: closing any descriptor of the queue ends the process's registration for it.
        caller.ipc.notifier.release(queue.identity(), closed_in)

    shown = os.fsdecode(queue.name)
    return Description(
        "mqueue",
        flags & (os.O_ACCMODE | os.O_NONBLOCK),
        queue.host_fd,
        ipc_id=shown.lstrip("/"),
        path=shown,
        flush=flush,
        release=lambda _: queue.close(),
        thing=queue,
    )


def sys_mq_unlink(caller: Caller, name: bytes) -> int:
    posix_mq.unlink(name)
    return 0


def sys_mq_timedsend(
    caller: Caller, mqd: int, data: bytes, priority: int, abs_sec: int | None, abs_nsec: int | None
) -> int | InThread:
    description, queue = _open_queue(caller, mqd)
    until = _deadline(abs_sec, abs_nsec)

    def attempt() -> int:
        queue.send_nowait(data, priority, until)
        return 0

    def send() -> int:
        queue.send(data, priority, until)
        return 0

    nonblock = description.flags & os.O_NONBLOCK
    return attempt() if nonblock else InThread(send, attempt, description=description)


def sys_mq_send(caller: Caller, mqd: int, data: bytes, priority: int) -> int | InThread:
    return sys_mq_timedsend(caller, mqd, data, priority, None, None)


def sys_mq_timedreceive(
    caller: Caller, mqd: int, size: int | None, abs_sec: int | None, abs_nsec: int | None
) -> Reply | InThread:
    description, queue = _open_queue(caller, mqd)
    until = _deadline(abs_sec, abs_nsec)
    room = queue.attributes().msgsize if size is None else size
    if room < 0:
        raise SynosError(errno.EMSGSIZE, f"size {room} is negative")

    def attempt() -> Reply:
        return _received(*queue.receive_nowait(room, until))

    def receive() -> Reply:
        return _received(*queue.receive(room, until))

    nonblock = description.flags & os.O_NONBLOCK
    return attempt() if nonblock else InThread(receive, attempt, description=description)


def sys_mq_receive(caller: Caller, mqd: int, size: int | None) -> Reply | InThread:
    return sys_mq_timedreceive(caller, mqd, size, None, None)


def sys_mq_getsetattr(caller: Caller, mqd: int, mq_flags: int | None) -> Reply:
    description, queue = _open_queue(caller, mqd)
    found = {"flags": description.flags & os.O_NONBLOCK} | queue.attributes()._asdict()
    if mq_flags is not None:
        if mq_flags & ~os.O_NONBLOCK:
            raise SynosError(errno.EINVAL, "O_NONBLOCK is the only attribute of a queue that can be set")
        description.flags = description.flags & ~os.O_NONBLOCK | mq_flags
    return Reply(0, found)


def sys_mq_getattr(caller: Caller, mqd: int) -> Reply:
    return sys_mq_getsetattr(caller, mqd, None)


def sys_mq_notify(caller: Caller, mqd: int, sigev_notify: int) -> int | Reply:
    """SIGEV_THREAD gives a descriptor, ``event``: it can be read and polled from the notification on, and says why."""
    _, queue = _open_queue(caller, mqd)
    notifier, owner = caller.ipc.notifier, caller.descriptors
    if sigev_notify == SIGEV_CANCEL:
        notifier.release(queue.identity(), owner)
        return 0
    if sigev_notify not in (SIGEV_NONE, SIGEV_THREAD):
        raise SynosError(errno.EINVAL, "a notification is SIGEV_THREAD (a descriptor to wait for), SIGEV_NONE or NULL")
    event = mq_notifier.Event()
    try:
        with rights.acting_as_daemon(caller.credentials):  # who may be the first, for whom the program is started
            notifier.register(queue.identity(), queue.host_fd, sigev_notify, event, owner, caller.process.pid)
        if sigev_notify == SIGEV_NONE:
            event.close()
            return 0
        number = owner.add(_described(event, queue), close_on_exec=True)
    except SynosError:
        event.close()
        raise
    return Reply(0, {"event": number})


def _described(event: Event, queue: PosixQueue) -> Description:
    def release(description: Description) -> None:
        trio.lowlevel.notify_closing(description.host_fd)
        event.close()

    path = os.fsdecode(queue.name) + " (notification)"
    return Description("event", os.O_RDONLY, event.fileno(), path=path, release=release, thing=event)


def _open_queue(caller: Caller, mqd: int) -> tuple[Description, PosixQueue]:
    description = caller.descriptors.get(mqd, "mqueue")
    queue: PosixQueue = description.thing
    return description, queue


def _deadline(seconds: int | None, nanoseconds: int | None) -> Timespec | None:
    return None if seconds is None and nanoseconds is None else Timespec(seconds or 0, nanoseconds or 0)


def _received(data: bytes, priority: int) -> Reply:
    return Reply(len(data), {"priority": priority}, data)
