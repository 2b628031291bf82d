"""ipcs, ipcmk, ipcrm and lsipc see sets and segments of the mount, and it theirs. Queues: ``test_util_linux``."""

import pytest
from command import succeeds

pytestmark = pytest.mark.skipif(not succeeds("ipcs"), reason="there is no util-linux here")

FAMILIES = pytest.mark.parametrize(
    ("directory", "option", "makes"), [("sem", "s", ("-S", "2")), ("shm", "m", ("-M", "4096"))]
)
MADE = {"sem": "echo 'create 0x91 2' > sem/ctl", "shm": "truncate -s 4096 shm/key/0x91"}


@FAMILIES
def test_what_the_mount_made_is_in_ipcs_until_it_is_removed(programs, directory, option, makes):
    programs.shell(MADE[directory])
    listed = programs.run("ipcs", f"-{option}")
    [line] = [line.split() for line in listed.splitlines() if line.startswith("0x00000091")]
    assert line[1] in programs.run("ls", f"{directory}/sysv").split()
    assert line[4] == makes[1]
    programs.shell(f"rm {directory}/sysv/{line[1]}")
    assert "0x00000091" not in programs.run("ipcs", f"-{option}")


@FAMILIES
def test_what_ipcmk_made_is_in_one_ls_and_what_ipcrm_removed_in_none(programs, directory, option, makes):
    made = programs.run("ipcmk", *makes, "-p", "0640").split()[-1]
    assert made in programs.run("ls", f"{directory}/sysv").split()
    assert programs.run("stat", "-c", "%a %U", f"{directory}/sysv/{made}") == "640 root\n"
    keys = programs.run("ls", f"{directory}/key").split()
    programs.run("ipcrm", f"-{option}", made)
    assert made not in programs.run("ls", f"{directory}/sysv").split()
    assert len(programs.run("ls", f"{directory}/key").split()) == len(keys) - 1
    programs.run("stat", f"{directory}/sysv/{made}", status=1)


@FAMILIES
def test_ipcrm_by_key_removes_what_the_mount_made(programs, directory, option, makes):
    programs.shell(MADE[directory])
    programs.run("ipcrm", f"-{option.upper()}", "0x91")
    assert programs.run("ls", f"{directory}/key") == ""


@FAMILIES
def test_lsipc_shows_what_ctl_shows(programs, directory, option, makes):
    programs.shell(MADE[directory])
    number = programs.run("ls", f"{directory}/sysv").split()[-1]
    shown = programs.run("lsipc", f"-{option}", "-i", number)
    fields = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    assert int(fields["Key" if "Key" in fields else "Resource key"].split()[0], 0) == 0x91
    programs.run("ipcrm", f"-{option}", number)


def test_chmod_and_chown_in_the_mount_are_what_ipcs_shows(programs):
    programs.shell("truncate -s 100 shm/key/0x92; chmod 640 shm/key/0x92; chown 65534:65534 shm/key/0x92")
    [line] = [line.split() for line in programs.run("ipcs", "-m").splitlines() if line.startswith("0x00000092")]
    assert line[2:4] == ["nobody", "640"]
    programs.run("ipcrm", "-M", "0x92")
