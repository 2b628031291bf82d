"""Owners of objects: own, disown, and IPC_EPHEMERAL at the calls that make one; and who removes one says so.

None of this is Linux's. An owned object goes when its last owner ends (``ipc.ownership``), and what is gone is in the
log of removals (``ipc.removals``).
"""

from collections.abc import Callable
from contextlib import suppress
from errno import EINVAL
from functools import partial
from typing import Any

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.ipc.things import Seen, Thing
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.waiting import OnAvatar


def sys_own(caller: Caller, object: str) -> int:
    caller.ipc.ownership.own(caller.process, caller.credentials, caller.ipc.things.named(object))
    return 0


def sys_disown(caller: Caller, object: str) -> int:
    caller.ipc.ownership.disown(caller.process, caller.ipc.things.named(object))
    return 0


def got(caller: Caller, kind: str, key: int, flags: int, get: Callable[[int], int]) -> int:
    """The id that ``get`` has for the flags; with IPC_EPHEMERAL its object is the caller's own from the beginning."""
    if not flags & abi.IPC_EPHEMERAL:
        return get(flags)
    _check(flags & abi.IPC_CREAT or key == abi.IPC_PRIVATE, "IPC_CREAT")
    with caller.ipc.ownership.making(caller.process, caller.credentials, kind, key) as making:
        number = get(flags & ~abi.IPC_EPHEMERAL)
        making.made(Thing(kind, number))
    return number


def opened(caller: Caller, kind: str, name: str, flags: int, answer: OnAvatar) -> OnAvatar:
    """As ``got``, of a name that is opened: ``answer`` finishes with the descriptor."""
    if not flags & abi.IPC_EPHEMERAL:
        return answer
    _check(flags & abi.O_CREAT, "O_CREAT")
    making = caller.ipc.ownership.begin(caller.process, caller.credentials, kind, name)

    def call() -> Any:
        try:
            return answer.call()
        except BaseException:
            making.over_soon()
            raise

    def finish(made: Any) -> int:
        assert answer.finish is not None
        number: int = answer.finish(made)
        try:
            making.made(Thing(kind, name))
        except SynosError:
            caller.descriptors.close(number)
            raise
        finally:
            making.over()
        return number

    return OnAvatar(call, finish=finish)


def _check(creates: int | bool, flag: str) -> None:
    if not creates:
        raise SynosError(EINVAL, f"IPC_EPHEMERAL is for what is made, with {flag}; 'own' is for what is there")


def removed(caller: Caller, kind: str, name: int | str, what: str, remove: Callable[[], object]) -> int:
    """Remove it, and note that."""
    removal = _Removal(caller, Thing(kind, name), what)
    removal.carry_out(remove)
    return removal.finish()


def removed_on_avatar(caller: Caller, kind: str, name: str | int, what: str, remove: Callable[[], object]) -> OnAvatar:
    """As ``removed``, in a thread."""
    removal = _Removal(caller, Thing(kind, name), what)
    return OnAvatar(partial(removal.carry_out, remove), finish=removal.finish)


class _Removal:
    """An object that is about to be removed; what it was has to be seen before."""

    def __init__(self, caller: Caller, thing: Thing, what: str) -> None:
        self._caller = caller
        self._thing = thing
        self._what = what
        self._seen: Seen | None = None
        with suppress(SynosError):
            self._seen = caller.ipc.things.look(thing)

    def carry_out(self, remove: Callable[[], object]) -> None:
        """Here or in a thread."""
        expected = self._caller.ipc.removals.expected
        expected.add(self._thing)
        try:
            remove()
        except BaseException:
            expected.discard(self._thing)
            raise

    def finish(self, _: object = None) -> int:
        """It is gone."""
        caller = self._caller
        caller.ipc.removals.expected.discard(self._thing)
        why = caller.because or self._what
        caller.ipc.removed(self._thing, self._seen, why, caller.process, caller.credentials.uid)
        return 0
