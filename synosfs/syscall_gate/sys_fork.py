"""Making children and turning them into programs: fork(2), clone(2), execve(2), posix_spawn(3), exit(2), setenv(3).

A child waits, and is prepared by calls through its ``proc/<pid>/syscall``, until it becomes a program. Who is a program
already cannot be turned into another from here.
"""

import errno
from collections.abc import Callable
from functools import partial

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.process import inheritance
from synosfs.process.descriptors import DescriptorTable
from synosfs.process.forks import Birth, Child, Program, Talk
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import place_of, type_of
from synosfs.syscall_gate.waiting import OnAvatar

#: Flags of clone(2) that make a process, and come to the same for one that only waits.
_CLONE_FLAGS = abi.SIGCHLD | abi.CLONE_VM | abi.CLONE_VFORK | abi.CLONE_UNTRACED

#: A descriptor of each, and whom it comes from.
Numbers = dict[int, int | Callable[[], int]]


def sys_fork(caller: Caller) -> OnAvatar:
    return _bear(caller, caller.umask(), caller.descriptors.copy())


def sys_clone(caller: Caller, flags: int) -> OnAvatar:
    if flags & ~_CLONE_FLAGS or (flags & abi.CLONE_VM and not flags & abi.CLONE_VFORK):
        raise SynosError(errno.EINVAL, "clone makes processes here: SIGCHLD, with CLONE_VM|CLONE_VFORK as vfork does")
    return sys_fork(caller)


def sys_spawn(
    caller: Caller,
    path: str,
    argv: list[bytes] | None,
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    cwd: str | None,
    environment: dict[bytes, bytes],
) -> OnAvatar:
    """posix_spawn(3): fork, dup2, chdir and execve in one."""
    place_of(caller).check(path)
    umask, descriptors = caller.umask(), caller.descriptors.copy()
    try:
        for number, source in enumerate((stdin, stdout, stderr)):
            if source is not None:
                descriptors.set(number, caller.descriptors.get(source))
    except SynosError:
        descriptors.close_all()
        raise
    numbers, process = _for_program(descriptors), caller.process

    def program(found: dict[bytes, bytes]) -> Program:
        own = found if process.environment is None else process.environment
        words, chdir = argv or [_encoded(path)], None if cwd is None else _encoded(cwd)
        return Program(_encoded(path), words, own | environment, umask, numbers, chdir=chdir)

    return _bear(caller, umask, descriptors, program)


def _bear(
    caller: Caller,
    umask: int,
    descriptors: DescriptorTable,
    program: Callable[[dict[bytes, bytes]], Program] | None = None,
) -> OnAvatar:
    """Make a child that has these descriptors; what ``program`` makes of its environment, it becomes at once."""
    process = caller.process
    try:
        birth = inheritance.birth(process, place_of(caller), umask, descriptors, program)
    except SynosError:
        descriptors.close_all()
        raise

    def undo(_born: Birth | None = None) -> None:
        birth.child.let_go()
        descriptors.close_all()

    def finish(_born: Birth) -> int:
        if birth.child.is_executed:
            descriptors.executed(_for_program(descriptors))
        process.adopt(birth.child, descriptors)
        return birth.child.pid

    return OnAvatar(birth, finish=finish, give_back=undo, undo=undo)


def sys_execve(caller: Caller, path: str, argv: list[bytes] | None, envp: list[bytes] | None) -> OnAvatar:
    """Errors are the kernel's, and then the child waits as before."""
    process, child = caller.process, _waiting(caller, "execve turns a child of fork into a program")
    place_of(caller).check(path)
    descriptors = caller.descriptors.copy()  # so that none is closed before the child has it
    numbers = _for_program(descriptors)
    environment = process.environment if envp is None else dict(_split(word) for word in envp)
    program = Program(
        _encoded(path),
        argv or [_encoded(path)],
        child.environment if environment is None else environment,
        caller.umask(),
        numbers,
    )

    def finish(talk: Talk) -> int:
        child.is_executed = True
        child.close_connection()
        process.environment = None
        process.descriptors.executed(numbers)
        descriptors.close_all()
        return 0

    return OnAvatar(child.executes(program), finish=finish, undo=descriptors.close_all)


def sys_exit(caller: Caller, status: int) -> OnAvatar:
    child = _waiting(caller, "exit ends a child of fork that waits")
    return OnAvatar(child.ordered(b"exit", status & 0xFF), finish=lambda _: 0)


def sys_setenv(caller: Caller, name: bytes, value: bytes, overwrite: int) -> OnAvatar:
    """What children find in their environment; a program that runs has its own copy already."""
    _check_name(name)

    def finish(found: dict[bytes, bytes]) -> int:
        if overwrite or name not in found:
            caller.process.environment = found | {name: value}
        return 0

    return OnAvatar(partial(inheritance.environment, caller.process), finish=finish)


def sys_unsetenv(caller: Caller, name: bytes) -> OnAvatar:
    _check_name(name)

    def finish(found: dict[bytes, bytes]) -> int:
        caller.process.environment = {known: value for known, value in found.items() if known != name}
        return 0

    return OnAvatar(partial(inheritance.environment, caller.process), finish=finish)


def _check_name(name: bytes) -> None:
    if not name or b"=" in name or b"\0" in name:
        raise SynosError(errno.EINVAL, "the name of an environment variable is not empty, and has no = in it")


def _waiting(caller: Caller, what: str) -> Child:
    child = caller.process.child
    if child is None or not child.waits:
        pid = caller.process.pid
        raise SynosError(
            errno.EPERM, f"{what}, through its proc/<pid>/syscall; process {pid} runs a program of its own"
        )
    return child


def _for_program(descriptors: DescriptorTable) -> Numbers:
    numbers: Numbers = {}
    for number, description in descriptors.for_program().items():
        if description.file_type == "standard":
            numbers[number] = description.thing
        elif description.host_fd >= 0:
            numbers[number] = partial(type_of(description).for_program, description)
    return numbers


def _split(word: bytes) -> tuple[bytes, bytes]:
    name, _, value = word.partition(b"=")
    return name, value


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
