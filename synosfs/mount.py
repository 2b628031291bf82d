"""The composition root: everything that lives for as long as a mount does, on one exit stack."""

import errno
import gc
import logging
import resource
import select
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial

import pyfuse3
import trio

from synosfs import runtime
from synosfs.errors import SynosError
from synosfs.fs import tree
from synosfs.fs.interrupts import InterruptWatch, Waiter
from synosfs.fs.operations import Operations
from synosfs.fs.receive import Receiver
from synosfs.fs.waiters import Waiters
from synosfs.host import guard
from synosfs.host.thread import install_interrupt_handler
from synosfs.ipc.journal import Journal
from synosfs.kernel import Kernel
from synosfs.mountpoint import device, mounted
from synosfs.options import MountOptions
from synosfs.process.accounts import Limits
from synosfs.syscall_gate.parking import Parking

log = logging.getLogger(__name__)

#: Each unanswered request holds one task of pyfuse3's; a blocked caller is an unanswered request.
_MOST_REQUESTS = 1_000_000

#: Collect all garbage so often, in seconds, when nobody is blocked; else after so many times that.
_COLLECT_S, _MOST_WAITED = 30, 60

#: So many collections of Python's middle generation are not made.
_NEVER = 1 << 30


def serve(options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount, call ``ready`` once requests are answered, and return after a clean unmount.

    Ends by SIGTERM, SIGINT or unmounting; blocked callers get ECANCELED. Raises SynosError when it cannot mount.
    """
    _raise_limits()
    logging.getLogger("pyfuse3").addFilter(_worth_logging)
    trio.run(_serve, options, ready)


def _worth_logging(record: logging.LogRecord) -> bool:
    """Not that the kernel no longer wants an answer: so it is when a mount is detached while requests are under way."""
    return "fuse_reply_* failed" not in record.getMessage()


def _raise_limits() -> None:
    """Each process that takes part costs a descriptor (its pidfd), each pipe two, and all users' POSIX queues are
    charged to the daemon: take all that the host allows.
    """
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_MSGQUEUE):
        _, most = resource.getrlimit(limit)
        resource.setrlimit(limit, (most, most))
    with suppress(ValueError, OSError):  # it takes CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def _serve(options: MountOptions, ready: Callable[[], None]) -> None:
    async with AsyncExitStack() as stack:
        # Before the mount is there: a signal during the start must not leave it behind.
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        install_interrupt_handler()
        kernel = Kernel(options.confined, Limits(**options.limits), Journal(runtime.journal(options.mountpoint)))
        stack.push_async_callback(kernel.close)
        interrupts = InterruptWatch(kernel.parking, lambda: kernel.ipc.device)
        receiver = Receiver(interrupts.notice, partial(signal.setitimer, signal.ITIMER_REAL))
        signal.signal(signal.SIGALRM, receiver.rouse)
        stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)  # or it would end an interpreter that is ending

        def door() -> list[tuple[str, object]]:  # which has the root, and is shown in it
            return operations.statistics()

        waiters = Waiters(kernel)
        stack.callback(waiters.close)
        operations = Operations(tree.root(kernel, door, waiters), receiver, kernel)

        await receiver.install(plain=options.plain_receive)
        _mount(operations, options)
        stack.callback(pyfuse3.close, unmount=True)
        kernel.ipc.mountpoint, kernel.ipc.device = options.mountpoint, device(options.mountpoint)

        # What is loaded now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(_collect_garbage, receiver, kernel.parking, name="garbage")
        nursery.start_soon(_end_on_signal, signals, kernel.parking, operations, name="signals")
        nursery.start_soon(kernel.processes.watch, name="deaths of processes")
        nursery.start_soon(interrupts.run, name="interrupts")
        nursery.start_soon(waiters.watch, name="who waits")
        nursery.start_soon(receiver.watch, lambda: bool(kernel.parking.interruptible()), name="receiver")
        nursery.start_soon(
            _free_when_detached, options.mountpoint, kernel.ipc.device, kernel.parking, name="mount table"
        )
        await kernel.recover()
        guard.enforce()
        ready()
        log.info("mounted on %s", options.mountpoint)
        try:
            await pyfuse3.main(min_tasks=1, max_tasks=_MOST_REQUESTS)
        except* ConnectionAbortedError:
            # So the last unmounting looks when requests were under way, and ``umount -f`` always (fuse_dev_do_read).
            log.info("the kernel has ended the connection")
        log.info("unmounted from %s", options.mountpoint)
        nursery.cancel_scope.cancel()


def _mount(operations: Operations, options: MountOptions) -> None:
    fuse_options = {*pyfuse3.default_options, f"fsname={options.source}", "subtype=synosfs", *options.flags}
    if options.allow_other:
        fuse_options.add("allow_other")
    try:
        pyfuse3.init(operations, options.mountpoint, fuse_options)
    except RuntimeError as error:
        raise SynosError(errno.EIO, f"cannot mount on {options.mountpoint}: {error}") from None


async def _collect_garbage(receiver: Receiver, parking: Parking) -> None:
    """Look at all objects when few are held. Python would do so whenever there are many new ones: the lists of one
    large batch cost everybody 40 ms. Most garbage is found by looking at the new ones alone.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    seen, waited = 0, 0
    while True:
        await trio.sleep(_COLLECT_S)
        waited += 1
        if receiver.handled != seen and (not len(parking) or waited > _MOST_WAITED):
            seen, waited = receiver.handled, 0
            gc.collect()


async def _end_on_signal(signals: AsyncIterator[int], parking: Parking, operations: Operations) -> None:
    """SIGTERM and SIGINT: answer those who are blocked, then leave the main loop."""
    async for number in signals:
        log.info("ending on %s", signal.Signals(number).name)
        await parking.close()
        operations.close()
        pyfuse3.terminate()


async def _free_when_detached(mountpoint: str, st_dev: int, parking: Parking) -> None:
    """``umount -l`` leaves a mount alive for as long as a file in it is open: free those who wait in one, and
    let nobody wait any more, unless they see the mount elsewhere.

    The kernel announces a change of the mount table as an exceptional condition of mountinfo (proc(5)), once to the
    first who polls: trio's epoll, which polls twice, would miss it, so a thread waits for it.
    """
    async with await trio.open_file("/proc/self/mountinfo") as table:
        changes = select.poll()
        changes.register(table.fileno(), select.POLLPRI)
        while True:
            await trio.to_thread.run_sync(changes.poll, abandon_on_cancel=True)
            if mounted(mountpoint) is None:
                log.info("detached from %s", mountpoint)
                Waiter.detached = st_dev
                parking.let_go()
