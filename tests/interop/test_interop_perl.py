"""Perl's IPC modules on one side, files and calls of the mount on the other. Message queues are in ``test_perl``."""

import pytest
from children import wait_until
from command import succeeds

pytestmark = pytest.mark.skipif(
    not succeeds("perl", "-MIPC::Semaphore", "-MIPC::SharedMem", "-e", "1"), reason="Perl has no IPC::SysV modules here"
)

SET = "IPC::SysV qw(IPC_CREAT SEM_UNDO); use IPC::Semaphore"
MEMORY = "IPC::SysV qw(IPC_CREAT); use IPC::SharedMem"


def test_perl_makes_a_set_that_a_shell_reads_takes_from_and_removes(programs):
    programs.perl(
        SET, "my $s = IPC::Semaphore->new(0x61, 3, 0600 | IPC_CREAT) or die $!; $s->setall(1, 2, 3) or die $!"
    )
    assert programs.shell("cat sem/key/0x61; echo 1:-2:0 2:+4:0 > sem/key/0x61; cat sem/key/0x61") == "1 2 3\n1 0 7\n"
    assert programs.perl(SET, 'print join " ", IPC::Semaphore->new(0x61, 0, 0)->getall') == "1 0 7"
    programs.shell("rm sem/key/0x61")
    assert programs.perl(SET, 'print IPC::Semaphore->new(0x61, 0, 0) ? "there" : "gone"') == "gone"


def test_perl_waits_for_a_semaphore_that_a_shell_gives(programs):
    mount = programs.mount
    programs.shell("echo 'create 0x62 1' > sem/ctl")
    waiting = programs.start(
        "perl", "-we", f'use {SET}; IPC::Semaphore->new(0x62, 0, 0)->op(0, -1, 0) or die $!; print "had it"'
    )
    ncnt = "echo 'semget 0x62 0' > syscall; read -r id < syscall; echo \"semctl $id 0 GETNCNT\" > syscall; cat syscall"
    wait_until(lambda: programs.shell(ncnt) == "1\n", "Perl waits")
    (mount.path / "sem/key/0x62").write_text("0:+1:0\n")
    assert programs.wait(waiting) == "had it"
    programs.shell("rm sem/key/0x62")


def test_a_shell_waits_for_a_semaphore_that_perl_gives(programs):
    programs.shell("echo 'create 0x63 1' > sem/ctl")
    waiting = programs.start("bash", "-c", "echo 0:-1:0 > sem/key/0x63; echo had it")
    wait_until(lambda: programs.mount.blocked(waiting.pid), "the shell waits")
    programs.perl(SET, "IPC::Semaphore->new(0x63, 0, 0)->op(0, 1, 0) or die $!")
    assert programs.wait(waiting) == "had it\n"
    programs.shell("rm sem/key/0x63")


def test_what_perl_holds_with_undo_is_free_in_the_mount_when_it_ends(programs):
    programs.shell("echo 'create 0x64 1 init=1' > sem/ctl")
    script = "IPC::Semaphore->new(0x64, 0, 0)->op(0, -1, SEM_UNDO) or die $!; print `cat sem/key/0x64`"
    assert programs.perl(SET, script) == "0\n"
    assert programs.shell("cat sem/key/0x64; rm sem/key/0x64") == "1\n"


def test_perl_and_a_shell_write_one_segment(programs):
    programs.perl(MEMORY, 'my $m = IPC::SharedMem->new(0x65, 16, 0600 | IPC_CREAT) or die $!; $m->write("hello", 0, 5)')
    assert programs.shell("head -c 5 shm/key/0x65; stat -c ' %s' shm/key/0x65") == "hello 16\n"
    programs.shell("printf HE | dd of=shm/key/0x65 conv=notrunc status=none")
    assert programs.perl(MEMORY, "print IPC::SharedMem->new(0x65, 0, 0)->read(0, 5)") == "HEllo"
    programs.perl(MEMORY, "IPC::SharedMem->new(0x65, 0, 0)->remove")
    programs.shell("[ ! -e shm/key/0x65 ]")


def test_the_mount_counts_perls_attachments(programs):
    column = 'awk \'NR == 1 { for (n = 1; n <= NF; n++) at[$n] = n } $1 == "0x66" { print $at["nattch"] }\' shm/ctl'
    attach = "my $m = IPC::SharedMem->new(0x66, 16, 0600 | IPC_CREAT) or die $!; $m->attach or die $!; $m->remove"
    assert programs.perl(MEMORY, f"{attach}; system(q({column}))") == ""  # removed: it has no key any more
    attached = attach.replace("; $m->remove", "")
    assert programs.perl(MEMORY, f"{attached}; system(q({column}))") == "1\n"
    assert programs.shell(f"{column}; rm shm/key/0x66") == "0\n"


def test_ftok_is_the_same_key_in_perl_and_in_the_gate(programs):
    in_perl = programs.perl("IPC::SysV qw(ftok)", "print ftok('/etc/passwd', 7)")
    assert int(programs.shell("echo 'ftok /etc/passwd 7' > syscall; cat syscall"), 0) == int(in_perl)
