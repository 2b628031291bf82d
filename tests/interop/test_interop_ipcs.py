"""``ipcs``, ``ipcrm``, ``ipcmk`` and ``lsipc`` of util-linux see what the mount makes, and the mount what they do."""

import re
from typing import NamedTuple

import pytest
from command import succeeds
from doors import NativeDoor
from programs import KEY, Programs

pytestmark = pytest.mark.skipif(not succeeds("ipcs"), reason="there is no util-linux here")


class Family(NamedTuple):
    directory: str
    option: str  # of ipcs, ipcrm and lsipc; as a capital letter, ipcrm's for a key
    by_the_mount: str  # makes one with KEY
    by_ipcmk: tuple[str, ...]
    shown: list[str]  # in ipcs, of what the mount made: permissions and figures
    figures: list[str]  # their columns in ctl


MSG = Family(
    "msgq",
    "q",
    f"""echo 'msgget {KEY:#x} IPC_CREAT|0640' > syscall; id=$(cat syscall)
        echo "msgsnd $id 1 hello" > syscall""",
    ("-Q",),
    ["640", "5", "1"],
    ["perms", "cbytes", "qnum"],
)
SEM = Family("sem", "s", f"echo 'create {KEY:#x} 2' > sem/ctl", ("-S", "2"), ["600", "2"], ["perms", "nsems"])
SHM = Family(
    "shm",
    "m",
    f"umask 022; truncate -s 4096 shm/key/{KEY:#x}",
    ("-M", "4096"),
    ["644", "4096", "0"],
    ["perms", "segsz", "nattch"],
)


@pytest.fixture(params=[MSG, SEM, SHM], ids=lambda family: family.directory)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture
def made(programs: Programs, family: Family) -> str:
    """The id of one that the mount has made. Each test removes it."""
    programs.shell(family.by_the_mount)
    [number] = names(programs, family, "sysv")
    return number


def names(programs: Programs, family: Family, directory: str) -> list[str]:
    return programs.run("ls", f"{family.directory}/{directory}").split()


def ipcs(programs: Programs, family: Family) -> dict[str, list[str]]:
    """The fields of each line, by id."""
    lines = programs.run("ipcs", f"-{family.option}").splitlines()
    return {line.split()[1]: line.split() for line in lines if line.startswith("0x")}


def test_what_the_mount_made_is_in_ipcs_until_it_is_removed(programs: Programs, family: Family, made: str) -> None:
    assert ipcs(programs, family)[made] == [f"{KEY:#010x}", made, "root", *family.shown]
    programs.run("rm", f"{family.directory}/sysv/{made}")
    assert made not in ipcs(programs, family)


def test_ctl_shows_what_ipcs_shows(programs: Programs, family: Family, made: str) -> None:
    other = programs.run("ipcmk", *family.by_ipcmk).split()[-1]
    header, *lines = (programs.mount.path / family.directory / "ctl").read_text().splitlines()
    rows = [dict(zip(header.split(), line.split(), strict=True)) for line in lines]
    number = header.split()[1]
    shown = {row[number]: [int(row["key"], 16), *(int(row[column]) for column in family.figures)] for row in rows}
    listed = ipcs(programs, family)
    assert shown == {id: [int(key, 16), *map(int, figures)] for id, (key, _, _, *figures) in listed.items()}
    assert shown.keys() == {made, other}
    programs.run("ipcrm", f"-{family.option}", made, f"-{family.option}", other)


@pytest.mark.skipif(not succeeds("lsipc", "-q"), reason="there is no lsipc here")
def test_lsipc_lists_what_the_mount_made(programs: Programs, family: Family, made: str) -> None:
    option = f"-{family.option}"
    assert programs.run("lsipc", option, "--noheadings", "-o", "ID").split() == [made]
    details = programs.run("lsipc", option, "-i", made)
    fields = dict(line.split(":", 1) for line in details.splitlines() if ":" in line)
    assert int(fields["Key" if "Key" in fields else "Resource key"].split()[0], 0) == KEY
    programs.run("ipcrm", option, made)


@pytest.mark.parametrize("how", ["-{option} {id}", "-{option} {key}"])
def test_what_ipcrm_removes_the_mount_does_not_show(programs: Programs, family: Family, made: str, how: str) -> None:
    option = family.option.upper() if "key" in how else family.option
    programs.run("ipcrm", *how.format(option=option, id=made, key=hex(KEY)).split())
    assert names(programs, family, "sysv") == names(programs, family, "key") == []
    programs.run("stat", f"{family.directory}/sysv/{made}", status=1)


@pytest.mark.parametrize("how", ["rm {0}/sysv/{id}", "rm {0}/key/{key}", "echo 'remove {id}' > {0}/ctl"])
def test_what_the_mount_removes_ipcrm_does_not_find(programs: Programs, family: Family, made: str, how: str) -> None:
    programs.shell(how.format(family.directory, id=made, key=hex(KEY)))
    assert "invalid id" in programs.run("ipcrm", f"-{family.option}", made, status=1)
    assert made not in ipcs(programs, family)


@pytest.mark.parametrize("how", ["-q {id}", "-Q {key}"])
def test_ipcrm_removes_a_queue_under_who_waits_in_the_mount(programs: Programs, queue: int, how: str) -> None:
    waiting = programs.start_shell(f"echo 'msgrcv {queue} 10' > syscall 2>/dev/null || cat syscall")
    waiting.wait_until_blocked("msgrcv")
    programs.run("ipcrm", *how.format(id=queue, key=hex(KEY)).split())
    assert waiting.output().startswith("-1 EIDRM ")


def test_what_ipcmk_made_is_in_the_mount(programs: Programs, family: Family) -> None:
    number = programs.run("ipcmk", *family.by_ipcmk, "-p", "0640").split()[-1]
    assert names(programs, family, "sysv") == [number]
    assert len(names(programs, family, "key")) == 1
    assert programs.run("stat", "-c", "%a %U", f"{family.directory}/sysv/{number}") == "640 root\n"
    programs.run("ipcrm", f"-{family.option}", number)


def test_a_queue_of_ipcmk_is_served(programs: Programs) -> None:
    queue = programs.run("ipcmk", "-Q", "-p", "0600").split()[-1]
    assert programs.shell(f"echo hello > msgq/sysv/{queue}; cat msgq/sysv/{queue}; rm msgq/sysv/{queue}") == "hello\n"


def test_ipcs_shows_the_details_that_stat_shows(programs: Programs, native: NativeDoor, queue: int) -> None:
    native.ok("msgsnd", queue, 1, b"hello")
    details = dict(re.findall(r"(\w+)=(\S+)", programs.run("ipcs", "-q", "-i", queue)))
    status = programs.run("stat", "-c", "%u %s %a", f"msgq/sysv/{queue}").split()
    assert status == [details["uid"], details["cbytes"], details["mode"].lstrip("0")]


def test_chmod_and_chown_in_the_mount_are_what_ipcs_shows(programs: Programs, family: Family, made: str) -> None:
    file = f"{family.directory}/key/{KEY:#x}"
    programs.shell(f"chmod 604 {file}; chown 65534:65534 {file}")
    assert ipcs(programs, family)[made][2:4] == ["nobody", "604"]
    programs.run("ipcrm", f"-{family.option}", made)
