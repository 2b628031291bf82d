"""Where /proc hides the processes of others (hidepid=, proc(5)), the mount hides them too."""

import os
import re
import sys
from pathlib import Path

import pytest
from command import run

_SCRIPT = """
set -e
drop="setpriv --reuid=65534 --regid=65534 --clear-groups"
{hide}
cd {mount}
exec 3<>syscall
echo pipe >&3
{later}
echo "root: $(ls proc | tr '\\n' ' ') $(ls pipes | tr '\\n' ' ') $(wc -l <pipes/ctl)"
echo "others: $($drop sh -c 'echo getpid > syscall; ls proc; ls pipes; cat pipes/ctl' | tr -s '\\n ' ' ')"
$drop cat proc/$$/status || echo "status $?"
$drop ls pipes/$$.3 || echo "pipe $?"
cd /
umount -l {mount}
"""


def _script(mount: Path, hide: str) -> str:
    start, later = f"mount -t proc -o hidepid={hide} proc /proc; synosfs -o allow_other {mount}", ""
    if hide == "later":  # it takes a second to be noticed
        start = f"mount -t proc proc /proc; synosfs -o allow_other {mount}"
        later = "$drop test -e proc/$$; mount -o remount,hidepid=2 /proc; while $drop test -e proc/$$; do :; done"
    return _SCRIPT.format(mount=mount, hide=start, later=later)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts /proc")
@pytest.mark.parametrize("hide", ["1", "2", "4", "noaccess", "invisible", "later"])
def test_other_users_do_not_see_roots_processes(tmp_path: Path, ipc_namespace: None, hide: str) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    mount = tmp_path / "mnt"
    mount.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = run("unshare", "--mount", "bash", "-c", _script(mount, hide), env=os.environ | {"PATH": path})
    root, others, status, pipe = done.stdout.splitlines()
    assert " self " in f" {root} "
    assert len(root.split()) >= 6  # itself, self, ctl and two ends
    assert root.split()[-1] == "3"
    # Of the processes only its own, which has ended, or none; and the header of the table.
    assert "root" not in others
    assert [word for word in others.split() if word.count(".") == 1] == []
    assert (status, pipe) == ("status 1", "pipe 2")


_ORPHANS = """
mount -t proc -o hidepid=2 proc /proc; synosfs -o allow_other {mount}
coproc perl -e '$| = 1; print shmget(0, 10, 0600), "\\n"; sleep'
read -r id <&${{COPROC[0]}}
tail -n 1 {mount}/shm/orphans
setpriv --reuid=65534 --regid=65534 --clear-groups tail -n 1 {mount}/shm/orphans
kill $COPROC_PID; ipcrm -m $id; umount -l {mount}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts /proc")
def test_other_users_do_not_see_what_roots_processes_run_by_what_they_use(tmp_path: Path, nothing_left: None) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    mount = tmp_path / "mnt"
    mount.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = run("unshare", "--mount", "bash", "-c", _ORPHANS.format(mount=mount), env=os.environ | {"PATH": path})
    root, others = (line.split(maxsplit=6)[5:] for line in done.stdout.splitlines())
    assert root[0] == others[0] == "in-use"
    assert re.fullmatch(r"made by pid \d+ \(perl\), alive since .*; not attached", root[1])
    assert re.fullmatch(r"made by pid \d+, alive; not attached", others[1])
