"""Perl's IPC::Msg and IPC::SysV, which make the host's own calls, meet Perl, bash and others in the mount."""

from collections.abc import Callable

import pytest
from children import wait_until
from command import succeeds
from doors import NativeDoor
from mounts import Mount
from programs import KEY, Program

pytestmark = pytest.mark.skipif(not succeeds("perl", "-MIPC::Msg", "-e", "1"), reason="Perl has no IPC::Msg here")

Start = Callable[..., Program]

OPEN = f"use strict; use IPC::Msg; my $q = IPC::Msg->new({KEY}, 0) or die $!;"

#: Perl's own file functions, on the gate.
GATE = r"""
use strict; use Fcntl;
sysopen(my $gate, "syscall", O_RDWR) or die $!;
sub call { syswrite($gate, "@_\n") // die "@_: $!"; sysread($gate, my $reply, 65536) // die $!; return $reply }
"""


def test_perl_sends_and_a_shell_receives(start: Start, queue: int) -> None:
    start("perl", "-e", OPEN + '$q->snd(7, "from perl") or die $!').output()
    script = f"echo 'msgrcv {queue} 100 7' > syscall; cat syscall"
    assert start("bash", "-c", script).output() == "9 mtype=7\nfrom perl\n"


def test_a_shell_sends_and_perl_receives(start: Start, queue: int) -> None:
    start("bash", "-c", f"""echo 'msgsnd {queue} 7 "from bash"' > syscall""").output()
    program = OPEN + 'my $type = $q->rcv(my $text, 100, -9) or die $!; print "$type $text"'
    assert start("perl", "-e", program).output() == "7 from bash"


@pytest.mark.parametrize("sends", ["echo 'msgsnd {0} 7 awaited' > syscall", "printf awaited > msgq/sysv/{0}@7"])
def test_perl_waits_and_a_shell_wakes_it(start: Start, queue: int, sends: str) -> None:
    waiting = start("perl", "-e", OPEN + "$q->rcv(my $text, 100, 7) or die $!; print $text").wait_until_blocked()
    start("bash", "-c", sends.format(queue)).output()
    assert waiting.output() == "awaited"


@pytest.mark.parametrize(
    "receives",
    [
        "echo 'msgrcv {0} 100 7' > syscall; tail -n +2 syscall",
        "dd bs=8192 count=1 status=none <> msgq/sysv/{0}@7; echo",
    ],
)
def test_a_shell_waits_and_perl_wakes_it(start: Start, mount: Mount, queue: int, receives: str) -> None:
    waiting = start("bash", "-c", receives.format(queue))
    # Who waits is the shell itself, or dd, its child.
    wait_until(lambda: mount.blocked_callers() == 1, "somebody waits")
    start("perl", "-e", OPEN + '$q->snd(7, "awaited") or die $!').output()
    assert waiting.output() == "awaited\n"


def test_perl_waits_for_room_that_the_gate_makes(start: Start, native: NativeDoor, queue: int) -> None:
    fill = OPEN + '$q->snd(1, "x" x 8192) for 1..2; $q->snd(2, "late") or die $!; print "sent"'
    waiting = start("perl", "-e", fill).wait_until_blocked("msgsnd")
    start("bash", "-c", f"echo 'msgrcv {queue} 8192' > syscall").output()
    assert waiting.output() == "sent"
    assert native.ok("msgctl", queue, "IPC_STAT").results["qnum"] == 2


def test_perl_makes_a_queue_that_the_mount_shows_and_removes_one_that_it_made(start: Start, native: NativeDoor) -> None:
    make = f"use IPC::Msg; IPC::Msg->new({KEY}, 01000 | 0640) or die $!"
    start("perl", "-e", make).output()
    assert start("stat", "-c", "%a", f"msgq/key/{KEY:#x}").output() == "640\n"
    start("perl", "-e", OPEN + "$q->remove or die $!").output()
    assert native.call("msgget", KEY, "0").errno == "ENOENT"
    start("bash", "-c", f"echo 'msgget {KEY:#x} IPC_CREAT|0600' > syscall").output()
    start("perl", "-e", OPEN + 'print "found"; $q->remove or die $!').output()
    assert native.call("msgget", KEY, "0").errno == "ENOENT"


def test_perl_sees_the_true_pids_in_the_mount_and_the_same_figures(start: Start, queue: int) -> None:
    program = (
        GATE
        + OPEN.replace("use strict; ", "")
        + rf"""
    call("msgsnd {queue} 3 hello");
    my ($lspid, $qnum) = call("msgctl {queue} IPC_STAT") =~ /lspid=(\d+)/ ? ($1, $q->stat->qnum) : ();
    print $lspid == $$ ? "me" : "not me", " $qnum";
    """
    )
    assert start("perl", "-e", program).output() == "me 1"


def test_perl_uses_the_gate_as_a_session(start: Start, queue: int) -> None:
    program = (
        GATE
        + rf"""
    print call("getpid") == $$ ? "ok" : "not ok", "\n";
    call('msgsnd {queue} 4 "a\nb"');
    print call("msgrcv {queue} 100 4");
    eval {{ call("msgget 0x7fffff01") }};
    print $@ =~ /No such file or directory/ ? "refused\n" : $@;
    """
    )
    assert start("perl", "-e", program).output() == "ok\n3 mtype=4\na\nb\nrefused\n"
