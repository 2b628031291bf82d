"""POSIX message queue calls: mq_open(3), mq_send(3), mq_receive(3), mq_notify(3), mq_getattr(3), mq_unlink(3).

A queue is open as a descriptor of the process. A time-out is ``timeout=`` in seconds, as with every call, or the
absolute time of CLOCK_REALTIME that C takes, as ``abs_sec=`` and ``abs_nsec=``.
"""

import errno
from functools import partial

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc import mq_notifier, posix_mq
from synosfs.ipc.mq_notifier import Event
from synosfs.ipc.posix_mq import PosixQueue
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.record import Reply
from synosfs.syscall_gate.sys_own import opened, removed_on_avatar
from synosfs.syscall_gate.sys_pipe import done
from synosfs.syscall_gate.waiting import InThread, OnAvatar


def sys_mq_open(
    caller: Caller, name: bytes, flags: int, mode: int, maxmsg: int | None, msgsize: int | None
) -> OnAvatar:
    process, share = caller.process, None
    if flags & abi.O_CREAT:
        share = process.queue_bytes.reserve(process.account, posix_mq.file_name(name), maxmsg, msgsize)

    def finish(queue: PosixQueue) -> int:
        process.queue_bytes.opened(queue.identity(), share)
        return caller.descriptors.add(_described(caller, queue, flags), close_on_exec=True)

    given = flags & ~abi.IPC_EPHEMERAL
    make = partial(posix_mq.open_, name, given, mode, maxmsg, msgsize, umask=caller.umask(), nonblock=caller.nonblock)
    return opened(caller, "mqueue", posix_mq.file_name(name), flags, OnAvatar(make, finish=finish))


def _described(caller: Caller, queue: PosixQueue, flags: int) -> Description:
    def flush(description: Description, closed_in: object) -> None:
        # As mq_close(3) has it: closing any descriptor of the queue ends the process's registration for it.
        caller.ipc.notifier.release(queue.identity(), closed_in)

    def release(_: Description) -> None:
        identity = queue.identity()
        queue.close()
        caller.process.queue_bytes.closed(identity)

    new = abi.O_CREAT | abi.O_EXCL
    return Description(
        "mqueue",
        flags & (abi.O_ACCMODE | abi.O_NONBLOCK),
        queue.host_fd,
        ipc_id=queue.path.lstrip("/"),
        path=queue.path,
        flush=flush,
        release=release,
        thing=queue,
        usage=caller.ipc.usages.opened("mqueue", posix_mq.file_name(queue.name), new=flags & new == new),
    )


def sys_mq_unlink(caller: Caller, name: bytes) -> OnAvatar:
    return removed_on_avatar(caller, "mqueue", posix_mq.file_name(name), "mq_unlink", partial(posix_mq.unlink, name))


def sys_mq_timedsend(
    caller: Caller, mqd: int, data: bytes, priority: int, abs_sec: int | None, abs_nsec: int | None
) -> int | InThread:
    until = posix_mq.deadline(abs_sec, abs_nsec)
    posix_mq.check_priority(priority)
    description, queue = _open_queue(caller, mqd)
    attempt = partial(done, queue.send_nowait, data, priority)
    if description.flags & abi.O_NONBLOCK:
        return attempt()
    return InThread(partial(done, queue.send, data, priority, until), attempt, description=description)


def sys_mq_send(caller: Caller, mqd: int, data: bytes, priority: int) -> int | InThread:
    return sys_mq_timedsend(caller, mqd, data, priority, None, None)


def sys_mq_timedreceive(
    caller: Caller, mqd: int, size: int | None, abs_sec: int | None, abs_nsec: int | None
) -> Reply | InThread:
    until = posix_mq.deadline(abs_sec, abs_nsec)
    description, queue = _open_queue(caller, mqd)
    room = queue.attributes().msgsize if size is None else size
    if room < 0:
        raise SynosError(errno.EMSGSIZE, f"size {room} is negative")

    def attempt() -> Reply:
        return _received(*queue.receive_nowait(room))

    def receive() -> Reply:
        return _received(*queue.receive(room, until))

    return attempt() if description.flags & abi.O_NONBLOCK else InThread(receive, attempt, description=description)


def sys_mq_receive(caller: Caller, mqd: int, size: int | None) -> Reply | InThread:
    return sys_mq_timedreceive(caller, mqd, size, None, None)


def sys_mq_getsetattr(caller: Caller, mqd: int, mq_flags: int | None) -> Reply:
    if mq_flags is not None and mq_flags & ~abi.O_NONBLOCK:
        raise SynosError(errno.EINVAL, "O_NONBLOCK is the only attribute of a queue that can be set")
    description, queue = _open_queue(caller, mqd)
    found = {"flags": description.flags & abi.O_NONBLOCK} | queue.attributes()._asdict()
    if mq_flags is not None:
        description.flags = description.flags & ~abi.O_NONBLOCK | mq_flags
    return Reply(0, found)


def sys_mq_getattr(caller: Caller, mqd: int) -> Reply:
    return sys_mq_getsetattr(caller, mqd, None)


def sys_mq_notify(caller: Caller, mqd: int, sigev_notify: int) -> int | Reply:
    """SIGEV_THREAD gives a descriptor, ``event``: it can be read and polled from the notification on, and says why."""
    if sigev_notify not in (abi.SIGEV_CANCEL, abi.SIGEV_NONE, abi.SIGEV_THREAD):
        raise SynosError(errno.EINVAL, "a notification is SIGEV_THREAD (a descriptor to wait for), SIGEV_NONE or NULL")
    _, queue = _open_queue(caller, mqd)
    notifier, owner = caller.ipc.notifier, caller.descriptors
    if sigev_notify == abi.SIGEV_CANCEL:
        notifier.release(queue.identity(), owner)
        return 0
    event = mq_notifier.Event()
    try:
        notifier.register(queue.identity(), queue.host_fd, sigev_notify, event, owner, caller.process.pid)
        if sigev_notify == abi.SIGEV_NONE:
            event.close()
            return 0
        return Reply(0, {"event": owner.add(_described_event(event, queue), close_on_exec=True)})
    except SynosError:
        event.close()
        raise


def _described_event(event: Event, queue: PosixQueue) -> Description:
    return Description(
        "event",
        abi.O_RDONLY,
        event.fileno(),
        path=f"{queue.path} (notification)",
        release=lambda _: event.close(),
        thing=event,
    )


def _open_queue(caller: Caller, mqd: int) -> tuple[Description, PosixQueue]:
    description = caller.descriptors.get(mqd, "mqueue")
    queue: PosixQueue = description.thing
    return description, queue


def _received(data: bytes, priority: int) -> Reply:
    return Reply(len(data), {"priority": priority}, data)
