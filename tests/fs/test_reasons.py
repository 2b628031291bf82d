"""A file operation that fails leaves its reason as the caller's last reply, and the shell's that ran it; looking leaves
nothing.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from command import AS_NOBODY, needs_root
from mounts import Mount
from native_msg import CONSTANTS, msgctl, msgget


def shell(mount: Mount, script: str, *prefix: str) -> str:
    """What a script prints, errors of its programs left out; in a session of its own, which this process is not in."""
    command = ["setsid", "-w", *prefix, "bash", "-c", f"cd {mount.path}; {script}"]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout


@pytest.fixture
def nothing_new(mount: Mount) -> str:
    """What ``cat syscall`` shows where nothing has come: the last reply of this process, if it has one."""
    return shell(mount, "cat syscall")


@pytest.fixture
def queue(mount: Mount) -> Iterator[int]:
    msqid = msgget(0, 0o600)
    yield msqid
    msgctl(msqid, CONSTANTS["IPC_RMID"])


NO_DIRECTORY = "-1 EPERM no directory can be made here\n"

SETXATTR = f'{sys.executable} -c \'import os; os.setxattr("help", "user.key", b"")\''

#: What a shell's command says afterwards; {q} is a queue.
REASONS = {
    "mkdir pipes/d": NO_DIRECTORY,
    "rmdir pipes": "-1 EPERM the directories here stay\n",
    "ln -s a pipes/b": "-1 EPERM no link can be made here\n",
    "ln help pipes/b": "-1 EPERM no link can be made here\n",
    "rm -f stats": "-1 EPERM nothing can be removed here\n",
    "mv help helped": "-1 EPERM nothing can be renamed here\n",
    "mknod pipes/zero c 1 5": "-1 EPERM only FIFOs, and objects with a key, can be made here\n",
    "mkfifo sem/fifo": "-1 EPERM FIFOs are made in pipes/\n",
    "chmod 600 help": "-1 EPERM the mode and owner of this file are fixed\n",
    "truncate -s 10 msgq/sysv/{q}": "-1 EINVAL a queue's size is what its messages make it; set qbytes for its limit\n",
    SETXATTR: "-1 EPERM extended attributes here are for reading\n",
    "echo x > stats": "-1 EACCES this file is for reading\n",
    "echo x > msgq/key/none": "-1 ENOENT a key is named 0x and up to 8 hexadecimal digits, not none\n",
    "head -c 9000 /dev/zero | dd of=msgq/sysv/{q} bs=9000 iflag=fullblock": "-1 EINVAL",
    "dd if=/dev/zero of=msgq/sysv/{q}@-3 bs=1 count=1": "-1 EINVAL",
}


@pytest.mark.parametrize("command", REASONS)
def test_what_fails_leaves_its_reason_to_the_shell_that_ran_it(mount: Mount, queue: int, command: str) -> None:
    said = shell(mount, f"{command.format(q=queue)} || cat syscall")
    assert said.startswith(REASONS[command]), said
    assert said.count("\n") == 1


@needs_root
def test_a_shell_sees_why_it_may_not_remove_a_queue(mount: Mount, queue: int) -> None:
    said = shell(mount, f"rm -f msgq/sysv/{queue} || cat syscall", *AS_NOBODY)
    assert (
        said == f"-1 EPERM the caller is neither owner nor creator of queue {queue}, or qbytes is above kernel.msgmnb\n"
    )


def test_the_reason_comes_after_replies_and_before_later_ones(mount: Mount) -> None:
    script = "echo getppid > syscall; mkdir pipes/d; cat syscall; echo getuid > syscall; cat syscall"
    assert shell(mount, script) == f"{NO_DIRECTORY}{os.getuid()}\n"


def test_what_fails_in_a_subshell_that_works_on_is_its_own_affair(mount: Mount, queue: int) -> None:
    said = shell(
        mount, f"echo getuid > syscall; (echo x > msgq/sysv/{queue}@-5 || cat syscall); cat syscall"
    ).splitlines()
    assert said[0].startswith("-1 EINVAL")
    assert said[1:] == [str(os.getuid())]


def test_looking_leaves_no_reason_and_no_process(mount: Mount, queue: int, nothing_new: str) -> None:
    looks = """cat nothing; ls pipes/none; cat msgq/sysv/99999 msgq/key/no-key; stat -c %i sem/sysv/77; cat sem/ctl/x
    test -e shm/key/0x123456; [ -w stats ]; cat < proc/1/mem; getfattr -n user.none help; rm msgq/sysv/99999; cat pipes
    mv nothing help; chmod 600 nothing; cat proc/self/blocked; ls proc/$$"""
    entered = taking_part(mount)
    assert shell(mount, f"{{ {looks}; }} > /dev/null; cat syscall") == nothing_new
    assert taking_part(mount) == entered


def test_who_fails_does_not_take_part_by_it(mount: Mount) -> None:
    entered = taking_part(mount)
    assert (
        shell(mount, "mkdir pipes/d; rmdir pipes; cat syscall; ls proc | grep -x $$")
        == "-1 EPERM the directories here stay\n"
    )
    assert taking_part(mount) == entered


def taking_part(mount: Mount) -> int:
    return int(mount.stats()["processes"])


@needs_root
def test_a_reason_is_for_its_own_user(mount: Mount, nothing_new: str) -> None:
    as_nobody = " ".join(AS_NOBODY)
    assert shell(mount, f"mkdir pipes/d; {as_nobody} cat syscall") == ""
    assert shell(mount, f"{as_nobody} mkdir pipes/d; cat syscall") == nothing_new
    said = shell(mount, f"echo getuid > syscall; {as_nobody} bash -c 'mkdir pipes/d; cat syscall'; cat syscall")
    assert said == f"{NO_DIRECTORY}{os.getuid()}\n"


def test_a_reason_goes_no_further_than_the_session(mount: Mount, nothing_new: str) -> None:
    assert shell(mount, "setsid mkdir pipes/d; setsid -w mkdir pipes/d; cat syscall") == nothing_new
    assert shell(mount, "bash -c 'mkdir pipes/d; :'; cat syscall") == nothing_new


def test_a_reason_is_on_one_line_that_a_terminal_shows_as_it_stands(mount: Mount) -> None:
    said = shell(mount, r"echo > msgq/key/$'0x\e[31m\n\x9b5' || cat syscall")
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()
