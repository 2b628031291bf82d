"""Perl's modules IPC::Msg, IPC::Semaphore and IPC::SharedMem, which make the host's own calls, meet shells in the mount
and Perl itself there.
"""

import pytest
from children import wait_until
from command import succeeds
from doors import NativeDoor
from programs import KEY, Programs

MODULES = ("-MIPC::Msg", "-MIPC::Semaphore", "-MIPC::SharedMem")
pytestmark = pytest.mark.skipif(not succeeds("perl", *MODULES, "-e", "1"), reason="Perl has no IPC::SysV modules here")

QUEUE = "IPC::SysV qw(IPC_CREAT); use IPC::Msg"
SET = "IPC::SysV qw(IPC_CREAT SEM_UNDO); use IPC::Semaphore"
MEMORY = "IPC::SysV qw(IPC_CREAT); use IPC::SharedMem"

OPEN = f"my $q = IPC::Msg->new({KEY}, 0) or die $!;"

#: Perl's own file functions, on the gate.
GATE = r"""
sysopen(my $gate, "syscall", O_RDWR) or die $!;
sub call { syswrite($gate, "@_\n") // die "@_: $!"; sysread($gate, my $reply, 65536) // die $!; return $reply }
"""


# --- queues


def test_perl_sends_and_a_shell_receives(programs: Programs, queue: int) -> None:
    programs.perl(QUEUE, OPEN + '$q->snd(7, "from perl") or die $!')
    assert programs.shell(f"echo 'msgrcv {queue} 100 7' > syscall; cat syscall") == "9 mtype=7\nfrom perl\n"


def test_a_shell_sends_and_perl_receives(programs: Programs, queue: int) -> None:
    programs.shell(f"""echo 'msgsnd {queue} 7 "from bash"' > syscall""")
    script = OPEN + 'my $type = $q->rcv(my $text, 100, -9) or die $!; print "$type $text"'
    assert programs.perl(QUEUE, script) == "7 from bash"


@pytest.mark.parametrize("sends", ["echo 'msgsnd {0} 7 awaited' > syscall", "printf awaited > msgq/sysv/{0}@7"])
def test_perl_waits_for_a_message_that_a_shell_sends(programs: Programs, queue: int, sends: str) -> None:
    waiting = programs.start_perl(QUEUE, OPEN + "$q->rcv(my $text, 100, 7) or die $!; print $text")
    waiting.wait_until_blocked("msgrcv")
    programs.shell(sends.format(queue))
    assert waiting.output() == "awaited"


@pytest.mark.parametrize(
    "receives",
    [
        "echo 'msgrcv {0} 100 7' > syscall; tail -n +2 syscall",
        "dd bs=8192 count=1 status=none <> msgq/sysv/{0}@7; echo",
    ],
)
def test_a_shell_waits_for_a_message_that_perl_sends(programs: Programs, queue: int, receives: str) -> None:
    waiting = programs.start_shell(receives.format(queue))
    # Who waits is the shell itself, or dd, its child.
    wait_until(lambda: programs.mount.blocked_callers() == 1, "somebody waits")
    programs.perl(QUEUE, OPEN + '$q->snd(7, "awaited") or die $!')
    assert waiting.output() == "awaited\n"


def test_perl_waits_for_room_that_the_gate_makes(programs: Programs, native: NativeDoor, queue: int) -> None:
    fill = OPEN + '$q->snd(1, "x" x 8192) for 1..2; $q->snd(2, "late") or die $!; print "sent"'
    waiting = programs.start_perl(QUEUE, fill).wait_until_blocked("msgsnd")
    programs.shell(f"echo 'msgrcv {queue} 8192' > syscall")
    assert waiting.output() == "sent"
    assert native.ok("msgctl", queue, "IPC_STAT").results["qnum"] == 2


def test_perl_makes_a_queue_that_the_mount_shows_and_removes_it(programs: Programs, native: NativeDoor) -> None:
    programs.perl(QUEUE, f"IPC::Msg->new({KEY}, IPC_CREAT | 0640) or die $!")
    assert programs.run("stat", "-c", "%a", f"msgq/key/{KEY:#x}") == "640\n"
    programs.perl(QUEUE, OPEN + "$q->remove or die $!")
    assert native.call("msgget", KEY, "0").errno == "ENOENT"


def test_perl_finds_and_removes_a_queue_that_the_gate_made(programs: Programs, native: NativeDoor) -> None:
    programs.shell(f"echo 'msgget {KEY:#x} IPC_CREAT|0600' > syscall")
    assert programs.perl(QUEUE, OPEN + 'print "found"; $q->remove or die $!') == "found"
    assert native.call("msgget", KEY, "0").errno == "ENOENT"


def test_perl_sees_the_true_pids_in_the_mount_and_the_same_figures(programs: Programs, queue: int) -> None:
    script = rf"""
    call("msgsnd {queue} 3 hello");
    my ($lspid, $qnum) = call("msgctl {queue} IPC_STAT") =~ /lspid=(\d+)/ ? ($1, $q->stat->qnum) : ();
    print $lspid == $$ ? "me" : "not me", " $qnum";
    """
    assert programs.perl(f"{QUEUE}; use Fcntl", GATE + OPEN + script) == "me 1"


def test_perl_uses_the_gate_as_a_session(programs: Programs, queue: int) -> None:
    script = rf"""
    print call("getpid") == $$ ? "ok" : "not ok", "\n";
    call('msgsnd {queue} 4 "a\nb"');
    print call("msgrcv {queue} 100 4");
    eval {{ call("msgget 0x7fffff01") }};
    print $@ =~ /No such file or directory/ ? "refused\n" : $@;
    """
    assert programs.perl("Fcntl", GATE + script) == "ok\n3 mtype=4\na\nb\nrefused\n"


# --- semaphores


def test_perl_makes_a_set_that_a_shell_reads_takes_from_and_removes(programs: Programs) -> None:
    programs.perl(
        SET, "my $s = IPC::Semaphore->new(0x61, 3, 0600 | IPC_CREAT) or die $!; $s->setall(1, 2, 3) or die $!"
    )
    assert programs.shell("cat sem/key/0x61; echo 1:-2:0 2:+4:0 > sem/key/0x61; cat sem/key/0x61") == "1 2 3\n1 0 7\n"
    assert programs.perl(SET, 'print join " ", IPC::Semaphore->new(0x61, 0, 0)->getall') == "1 0 7"
    programs.shell("rm sem/key/0x61")
    assert programs.perl(SET, 'print IPC::Semaphore->new(0x61, 0, 0) ? "there" : "gone"') == "gone"


def test_perl_waits_for_a_semaphore_that_a_shell_gives(programs: Programs) -> None:
    programs.shell("echo 'create 0x62 1' > sem/ctl")
    waiting = programs.start_perl(SET, 'IPC::Semaphore->new(0x62, 0, 0)->op(0, -1, 0) or die $!; print "had it"')
    ncnt = "echo 'semget 0x62 0' > syscall; read -r id < syscall; echo \"semctl $id 0 GETNCNT\" > syscall; cat syscall"
    wait_until(lambda: programs.shell(ncnt) == "1\n", "Perl waits")
    programs.shell("echo 0:+1:0 > sem/key/0x62")
    assert waiting.output() == "had it"
    programs.shell("rm sem/key/0x62")


def test_a_shell_waits_for_a_semaphore_that_perl_gives(programs: Programs) -> None:
    programs.shell("echo 'create 0x63 1' > sem/ctl")
    waiting = programs.start_shell("echo 0:-1:0 > sem/key/0x63; echo had it").wait_until_blocked("semop")
    programs.perl(SET, "IPC::Semaphore->new(0x63, 0, 0)->op(0, 1, 0) or die $!")
    assert waiting.output() == "had it\n"
    programs.shell("rm sem/key/0x63")


def test_what_perl_holds_with_undo_is_free_in_the_mount_when_it_ends(programs: Programs) -> None:
    programs.shell("echo 'create 0x64 1 init=1' > sem/ctl")
    script = "IPC::Semaphore->new(0x64, 0, 0)->op(0, -1, SEM_UNDO) or die $!; print `cat sem/key/0x64`"
    assert programs.perl(SET, script) == "0\n"
    assert programs.shell("cat sem/key/0x64; rm sem/key/0x64") == "1\n"


# --- memory


def test_perl_and_a_shell_write_one_segment(programs: Programs) -> None:
    programs.perl(MEMORY, 'my $m = IPC::SharedMem->new(0x65, 16, 0600 | IPC_CREAT) or die $!; $m->write("hello", 0, 5)')
    assert programs.shell("head -c 5 shm/key/0x65; stat -c ' %s' shm/key/0x65") == "hello 16\n"
    programs.shell("printf HE | dd of=shm/key/0x65 conv=notrunc status=none")
    assert programs.perl(MEMORY, "print IPC::SharedMem->new(0x65, 0, 0)->read(0, 5)") == "HEllo"
    programs.perl(MEMORY, "IPC::SharedMem->new(0x65, 0, 0)->remove")
    programs.shell("[ ! -e shm/key/0x65 ]")


def test_the_mount_counts_perls_attachments(programs: Programs) -> None:
    column = 'awk \'NR == 1 { for (n = 1; n <= NF; n++) at[$n] = n } $1 == "0x66" { print $at["nattch"] }\' shm/ctl'
    attach = "my $m = IPC::SharedMem->new(0x66, 16, 0600 | IPC_CREAT) or die $!; $m->attach or die $!; $m->remove"
    assert programs.perl(MEMORY, f"{attach}; system(q({column}))") == ""  # removed: it has no key any more
    attached = attach.replace("; $m->remove", "")
    assert programs.perl(MEMORY, f"{attached}; system(q({column}))") == "1\n"
    assert programs.shell(f"{column}; rm shm/key/0x66") == "0\n"


def test_ftok_is_the_same_key_in_perl_and_in_the_gate(programs: Programs) -> None:
    in_perl = programs.perl("IPC::SysV qw(ftok)", "print ftok('/etc/passwd', 7)")
    assert int(programs.shell("echo 'ftok /etc/passwd 7' > syscall; cat syscall"), 0) == int(in_perl)
