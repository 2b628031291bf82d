"""Making children and turning them into programs: fork(2), clone(2), execve(2), posix_spawn(3), exit(2), setenv(3).

A child waits, and is prepared by calls through its ``proc/<pid>/syscall``, until it becomes a program. Who is a program
already cannot be turned into another from here.
"""

import errno
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from synosfs.errors import SynosError
from synosfs.host import abi
from synosfs.process.descriptors import DescriptorTable, held
from synosfs.process.forks import Child, Variables
from synosfs.process.talk import Orders, Program, Words
from synosfs.syscall_gate.caller import Caller
from synosfs.syscall_gate.file_types import for_program, place_of
from synosfs.syscall_gate.waiting import Until

#: Flags of clone(2) that make a process, and come to the same for one that only waits.
_CLONE_FLAGS = abi.SIGCHLD | abi.CLONE_VM | abi.CLONE_VFORK | abi.CLONE_UNTRACED

#: Descriptors by their numbers in a program: as ``Program`` has them.
Numbers = dict[int, int | Callable[[], int]]


def sys_fork(caller: Caller) -> Until:
    place_of(caller).check("fork")
    return _bear(caller, caller.descriptors.copy)


def sys_clone(caller: Caller, flags: int) -> Until:
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
) -> Until:
    """posix_spawn(3): fork, dup2, chdir and execve in one."""
    place_of(caller).check(path)
    streams = [caller.descriptors.get(fd) if fd is not None else None for fd in (stdin, stdout, stderr)]

    def inherited() -> DescriptorTable:
        descriptors = caller.descriptors.copy()
        for number, description in enumerate(streams):
            if description is not None:
                descriptors.set(number, description)
        return descriptors

    variables = caller.process.variables | environment
    chdir = b"" if cwd is None else _encoded(cwd)

    def program(child: Child, descriptors: DescriptorTable) -> Program:
        return _program(caller, child, path, argv, variables, descriptors)._replace(chdir=chdir)

    return _bear(caller, inherited, program)


def _bear(
    caller: Caller,
    inherited: Callable[[], DescriptorTable],
    program: Callable[[Child, DescriptorTable], Program] | None = None,
) -> Until:
    """Make a child that has these descriptors, and becomes the program at once if there is one."""
    process = caller.process

    async def bear() -> int:
        child = process.forks.child(process)
        descriptors = DescriptorTable()
        try:
            descriptors = inherited()
            streams = sorted({description.thing for description in descriptors.own()})
            if process.child is not None and process.child.waits:
                # What /proc shows of it is not what its program will have.
                child.environment = await _environment(process.child)
                child.files = process.child.files
            words = heritage(caller, streams)
            orders = [] if program is None else await _orders(caller, program(child, descriptors))
            await child.be_born(words, orders)
            if child.is_executed:
                descriptors.executed(_for_program(descriptors))
                child.executed()
            await process.adopt(child, descriptors)
        except BaseException:
            child.let_go()
            descriptors.discard()
            raise
        return child.pid

    return Until(bear, prompt=True)


def heritage(caller: Caller, streams: Sequence[int] = ()) -> Words:
    """What a child needs to know to become what the caller's process is, with these streams of its."""
    lent = (1 << 64) - 1 if caller.own else caller.credentials.capabilities
    umask = caller.process.own_umask
    mask = -1 if umask is None else umask
    return [caller.process.pid, caller.tid, lent, mask, max(caller.ipc.device, 0), len(streams), *streams]


def sys_execve(caller: Caller, path: str, argv: list[bytes] | None, envp: list[bytes] | None) -> Until:
    """Errors are the kernel's, and then the child waits as before."""
    return _execute(caller, path, argv, envp)


def sys_execveat(
    caller: Caller, dirfd: int, path: str, argv: list[bytes] | None, envp: list[bytes] | None, flags: int
) -> Until:
    """As ``execve``, from a directory that is open here; with AT_EMPTY_PATH and an empty path, the open file itself."""
    if dirfd == abi.AT_FDCWD:
        return _execute(caller, path, argv, envp, flags)
    description = caller.descriptors.get(dirfd)
    at = for_program(description)
    if at is None:
        raise SynosError(errno.ENOTDIR, f"descriptor {dirfd} is a {description.file_type}, and no directory or program")
    return _execute(caller, path, argv, envp, flags, at)


def _execute(
    caller: Caller,
    path: str,
    argv: list[bytes] | None,
    envp: list[bytes] | None,
    flags: int = 0,
    at: Callable[[], int] | None = None,
) -> Until:
    place_of(caller).check(path)
    process, child = caller.process, _waiting(caller, "execve turns a child of fork into a program")
    descriptors = caller.descriptors.copy()  # so that none is closed before the child has it
    program = _program(caller, child, path, argv, process.variables, descriptors)._replace(at=at, flags=flags)
    if envp is not None:
        program = program._replace(environment=envp, is_whole=True)

    async def execute() -> int:
        try:
            talk = await child.follow(await _orders(caller, program))
            if not talk.is_over:
                raise SynosError(errno.EIO, "a child that waits answers nonsense: somebody has tampered with it")
            child.executed()
            process.executed(program.numbers)
        finally:
            descriptors.discard()
        return 0

    return Until(execute, prompt=True)


def sys_exit(caller: Caller, status: int) -> Until:
    return ordered(_waiting(caller, "exit ends a child of fork that waits"), b"exit", status & 0xFF)


def sys_setenv(caller: Caller, name: bytes, value: bytes, overwrite: int) -> int | Until:
    """What children find in their environment; a program that runs has its own copy already."""
    _check_name(name)
    if not overwrite:
        raise SynosError(errno.EINVAL, "setenv overwrites here: whether a variable is set, its program knows")
    caller.process.variables[name] = value
    return 0


def sys_unsetenv(caller: Caller, name: bytes) -> int:
    _check_name(name)
    caller.process.variables[name] = None
    return 0


def ordered(child: Child, *words: bytes | int, answer: int = 0) -> Until:
    """The child does something, and the call answers."""

    async def follow() -> int:
        await child.follow([(list(words), [])])
        return answer

    return Until(follow, prompt=True)


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


def _program(
    caller: Caller,
    child: Child,
    path: str,
    argv: list[bytes] | None,
    variables: Variables,
    descriptors: DescriptorTable,
) -> Program:
    whole = child.environment
    if whole is None:
        environment = [name if value is None else b"%b=%b" % (name, value) for name, value in variables.items()]
    else:
        found: Variables = {name: value for name, _, value in (word.partition(b"=") for word in whole)}
        found |= variables
        environment = [b"%b=%b" % (name, value) for name, value in found.items() if value is not None]
    return Program(
        _encoded(path),
        argv or [_encoded(path)],
        environment,
        whole is not None,
        # Where none was set here, the child has the right one already.
        -1 if caller.process.own_umask is None else caller.process.own_umask,
        _for_program(descriptors),
        -1 if caller.process.directory is None else caller.process.directory.host_fd,
        files=child.files or (),
    )


async def _orders(caller: Caller, program: Program) -> Orders:
    if program.is_quick:
        return program.orders()
    # Opening may take long: a FIFO's lock is held by whoever writes to it.
    directory = caller.process.directory
    with held(directory) if directory is not None else nullcontext():
        return await caller.process.avatar.run(caller.credentials, program.orders)


async def _environment(child: Child) -> list[bytes]:
    if child.environment is not None:
        return child.environment
    return await child.tell_environment()


def _for_program(descriptors: DescriptorTable) -> Numbers:
    numbers: Numbers = {}
    for number, description in descriptors.for_program().items():
        if description.file_type == "standard":
            numbers[number] = description.thing
        elif (make := for_program(description)) is not None:
            numbers[number] = make
    return numbers


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
