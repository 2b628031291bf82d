"""Where the paths of a call begin, and how a call that takes one is made: in a thread of the caller's avatar.

``dirfd`` is AT_FDCWD or a descriptor of the caller's. A name without a slash is one in ``pipes/``, unless a descriptor
says where else; ``.`` and ``..`` are paths.
"""

import errno
from collections.abc import Callable
from typing import Any

from synosfs.errors import SynosError, shown
from synosfs.host import abi
from synosfs.host.path import Place
from synosfs.ipc import file_names, file_status
from synosfs.process.descriptors import Description
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import Answer, place_of, type_of
from synosfs.syscall_gate.waiting import OnAvatar

AT_FDCWD = abi.AT_FDCWD


def is_in_pipes(path: str, dirfd: int = AT_FDCWD) -> bool:
    """Whether the path is a name in ``pipes/``."""
    return dirfd == AT_FDCWD and file_names.is_in_pipes(path)


def refuse_bare(call: str, path: str, dirfd: int = AT_FDCWD) -> None:
    """EINVAL for a name in ``pipes/``, where nothing but FIFOs can be."""
    if is_in_pipes(path, dirfd):
        raise SynosError(
            errno.EINVAL,
            f"{call}: a name without a slash is one in pipes/, which has FIFOs alone; write ./{path} for one in the "
            "working directory",
        )


def check_flags(call: str, flags: int, allowed: int) -> None:
    """EINVAL for flags that the call has not."""
    if flags & ~allowed:
        raise SynosError(errno.EINVAL, f"{call}: {flags & ~allowed:#x} in the flags is not for this call")


def on_path(
    caller: Caller,
    dirfd: int,
    path: str,
    call: Callable[..., Any],
    *args: Any,
    finish: Callable[[Any], Any] | None = None,
    within: bool = False,
    **kwargs: Any,
) -> OnAvatar:
    """``call(place, path, *args)``; what it returns is the answer, None is 0. ``finish`` as in ``OnAvatar``.
    ``within``: an absolute path begins at dirfd, too.
    """
    place, used = _begin(caller, dirfd, "" if within else path)
    return OnAvatar(lambda: call(place, path, *args, **kwargs), uses=used, finish=finish or _answer)


def on_paths(
    caller: Caller,
    old: tuple[int, str],
    new: tuple[int, str],
    call: Callable[..., Any],
    *args: Any,
    finish: Callable[[Any], Any] | None = None,
) -> OnAvatar:
    """As ``on_path``, of two, each with its dirfd: ``call(place, path, new_place, new_path, *args)``."""
    place, used = _begin(caller, *old)
    new_place, also_used = _begin(caller, *new)
    return OnAvatar(
        lambda: call(place, old[1], new_place, new[1], *args), uses=used + also_used, finish=finish or _answer
    )


def on_descriptor(
    caller: Caller,
    fd: int,
    call: Callable[[int], Any],
    *,
    changes: bool = False,
    finish: Callable[[Any], Any] | None = None,
) -> Answer:
    """As ``on_path``, with the host descriptor that ``fd`` stands for; ``changes``: it changes what that leads to."""
    description = caller.descriptors.get(fd)
    if description.is_ours:
        return OnAvatar(lambda: call(description.host_fd), description=description, finish=finish or _answer)

    def use(host_fd: int) -> Any:
        if changes:
            file_status.refuse_stand_in(host_fd)
        return call(host_fd)

    answer = type_of(description).host_call(caller, description, use)
    assert isinstance(answer, OnAvatar), f"a stream of the process's own is used in {answer}"
    return OnAvatar(answer.call, description=description, finish=finish or _answer)


def is_descriptor(path: str, flags: int) -> bool:
    """Whether AT_EMPTY_PATH makes the call one on its dirfd itself."""
    return not path and bool(flags & abi.AT_EMPTY_PATH)


def _answer(value: Any) -> Any:
    return 0 if value is None else value


def _begin(caller: Caller, dirfd: int, path: str) -> tuple[Place, tuple[Description, ...]]:
    """The place of the path, and what is to be held for as long as it is used. EBADF, ENOTDIR: no such directory."""
    place = place_of(caller)
    if dirfd == AT_FDCWD or path.startswith("/"):
        directory = caller.process.directory
        if directory is None:
            return place, ()
        return place._replace(directory=directory.host_fd), (directory,)
    description = caller.descriptors.get(dirfd)
    if not description.is_ours:
        raise SynosError(
            errno.ENOTDIR, f"descriptor {dirfd} is a {description.file_type}, and {shown(path)} needs a directory"
        )
    return place._replace(directory=description.host_fd, at_descriptor=True), (description,)
