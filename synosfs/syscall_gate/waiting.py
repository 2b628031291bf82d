"""The shapes of a wait: what a handler answers that cannot answer at once.

A handler tries first, where trying is possible: only what would block comes here, and then sleeps in the host (or on a
descriptor) without being tried again. ``attempt`` is the one try of a shape whose handler left it to the dispatcher.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from synosfs.process.descriptors import Description


class InThread(msgspec.Struct, frozen=True):
    """The host call itself blocks, in a thread, with the caller's rights: so the host keeps their order.

    ``give_back`` is for a call that takes something: it is handed what was taken for a caller that is gone by then, or
    was signalled, and puts it back. ``description``, if given, is held for as long as the call waits, so that closing
    its number meanwhile does not end the call (as in Linux). ``finish`` makes the answer out of what ``call`` returned,
    in the main thread. ``was_there``: the object that ``call`` names by an id has been seen, so if the id is unknown to
    it (EINVAL), the object was removed meanwhile (EIDRM).
    """

    call: Callable[[], Any]
    attempt: Callable[[], Any] | None = None
    give_back: Callable[[Any], object] | None = None
    description: Description | None = None
    finish: Callable[[Any], Any] | None = None
    was_there: bool = False


class OnAvatar(msgspec.Struct, frozen=True):
    """As ``InThread``, in a thread that shares its process's undo list and umask (``process.avatar``).

    It may be a call that need not wait at all: one that leaves a SEM_UNDO entry must be made there, and one that may
    sleep on a disk had better. So it is not refused on a session with O_NONBLOCK: the handler has seen to that.
    """

    call: Callable[[], Any]
    give_back: Callable[[Any], object] | None = None
    description: Description | None = None
    finish: Callable[[Any], Any] | None = None
    was_there: bool = False
    uses: tuple[Description, ...] = ()  # held as ``description`` is: directories that paths begin at


class InSteps(msgspec.Struct, frozen=True):
    """A long call in an avatar's thread, made in steps: between two of them it can be ended.

    ``step`` says whether the call is over. ``so_far`` is then its answer, and its answer too if it is ended from
    outside, or fails, after something has been done; None: nothing has. ``descriptions`` are held meanwhile.

    ``first`` is a step that does not wait (WouldBlock): of calls that follow each other in a batch, the first steps are
    made in one go (``Parking.first_steps``). One that fails has done nothing, and is made again for its error.
    """

    first: Callable[[], bool]
    step: Callable[[], bool]
    so_far: Callable[[], Any]
    descriptions: tuple[Description, ...] = ()


class WhenReady(msgspec.Struct, frozen=True):
    """Wait until a host descriptor of the daemon's is readable (or writable), in a line with who waits for the same,
    then attempt.

    ``on_avatar``: an attempt may sleep in the host all the same, so each is made in a thread of the avatar's.
    Without ``description`` a descriptor that is closed meanwhile is EBADF; who closes it calls
    ``trio.lowlevel.notify_closing`` first. ``so_far`` is asked when the call ends with an error: what it answers (not
    None) is the call's result, because something had been done already.
    """

    attempt: Callable[[], Any]
    host_fd: int
    writable: bool
    description: Description | None = None
    so_far: Callable[[], Any] | None = None
    on_avatar: bool = False


class Until(msgspec.Struct, frozen=True):
    """Wait for something that trio can await.

    ``on_timeout`` makes the answer of a call for which a time-out is no error (poll(2)). One that is ``prompt`` waits
    for nobody's deed: it is not refused on a session with O_NONBLOCK. ``so_far``: as of ``InSteps``.
    """

    wait: Callable[[], Awaitable[Any]]
    attempt: Callable[[], Any] | None = None
    on_timeout: Callable[[], Any] | None = None
    prompt: bool = False
    so_far: Callable[[], Any] | None = None


class Sleep(msgspec.Struct, frozen=True):
    """Wait for so many seconds; the answer is 0."""

    seconds: float


Blocking = InThread | OnAvatar | InSteps | WhenReady | Until | Sleep
