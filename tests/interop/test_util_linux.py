"""``ipcs``, ``ipcrm``, ``ipcmk`` and ``lsipc`` see what the mount makes, and the mount what they do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run, succeeds
from doors import NativeDoor
from mounts import Mount
from programs import KEY, Program

Start = Callable[..., Program]


def ipcs() -> dict[int, list[str]]:
    """The fields of each line of ``ipcs -q``, by id."""
    lines = run("ipcs", "-q").stdout.splitlines()
    return {int(line.split()[1]): line.split() for line in lines if line.startswith("0x")}


def test_ipcs_shows_a_queue_that_the_mount_made(start: Start, native: NativeDoor) -> None:
    script = f"""
    echo 'msgget {KEY:#x} IPC_CREAT|0640' > syscall; id=$(cat syscall)
    echo "msgsnd $id 1 hello" > syscall; echo $id
    """
    queue = int(start("bash", "-c", script).output())
    assert ipcs()[queue] == [f"{KEY:#010x}", str(queue), "root", "640", "5", "1"]
    start("rm", f"msgq/sysv/{queue}").output()
    assert queue not in ipcs()


def test_the_mount_shows_what_ipcs_shows(native: NativeDoor, mount: Mount, queue: int) -> None:
    native.ok("msgsnd", queue, 1, b"hello")
    header, *lines = (mount.path / "msgq/ctl").read_text().splitlines()
    shown = {int(row["msqid"]): row for row in (dict(zip(header.split(), line.split(), strict=True)) for line in lines)}
    listed = ipcs()
    assert shown.keys() == listed.keys()
    for msqid, (key, _, _, perms, used, messages) in listed.items():
        row = shown[msqid]
        assert (int(row["key"], 16), row["perms"], row["cbytes"], row["qnum"]) == (
            int(key, 16),
            f"0{perms}",
            used,
            messages,
        )


@pytest.mark.parametrize("how", ["-q {queue}", "-Q {key}"])
def test_ipcrm_removes_a_queue_under_who_waits_in_the_mount(start: Start, mount: Mount, queue: int, how: str) -> None:
    waiting = start("bash", "-c", f"echo 'msgrcv {queue} 10' > syscall || cat syscall").wait_until_blocked()
    assert run("ipcrm", *how.format(queue=queue, key=hex(KEY)).split()).returncode == 0
    assert waiting.output().startswith("-1 EIDRM ")
    assert not (mount.path / f"msgq/sysv/{queue}").exists()
    assert not (mount.path / f"msgq/key/{KEY:#x}").exists()


@pytest.mark.parametrize("how", ["rm msgq/sysv/{queue}", "rm msgq/key/{key}", "echo 'remove {queue}' > msgq/ctl"])
def test_what_the_mount_removes_ipcrm_does_not_find(start: Start, queue: int, how: str) -> None:
    start("bash", "-c", how.format(queue=queue, key=hex(KEY))).output()
    assert "invalid id" in run("ipcrm", "-q", str(queue)).stderr
    assert queue not in ipcs()


def test_ipcmk_makes_a_queue_that_the_mount_serves(start: Start, native: NativeDoor) -> None:
    made = run("ipcmk", "-Q", "-p", "0600").stdout
    found = re.search(r"id: (\d+)", made)
    assert found, made
    queue = found[1]
    try:
        script = f"echo hello > msgq/sysv/{queue}; cat msgq/sysv/{queue}"
        assert start("bash", "-c", script).output() == "hello\n"
    finally:
        native.ok("msgctl", int(queue), "IPC_RMID")


def test_ipcs_shows_the_details_that_the_mount_shows(mount: Mount, native: NativeDoor, queue: int) -> None:
    native.ok("msgsnd", queue, 1, b"hello")
    details = run("ipcs", "-q", "-i", str(queue)).stdout
    attributes = dict(re.findall(r"(\w+)=(\S+)", details))
    status = Path(mount.path / f"msgq/sysv/{queue}").stat()
    assert (attributes["uid"], attributes["cbytes"], int(attributes["mode"], 8)) == (
        str(status.st_uid),
        str(status.st_size),
        status.st_mode & 0o777,
    )


@pytest.mark.skipif(not succeeds("lsipc", "-q"), reason="no lsipc here")
def test_lsipc_lists_a_queue_of_the_mount(start: Start, native: NativeDoor) -> None:
    queue = start("bash", "-c", f"echo 'msgget {KEY:#x} IPC_CREAT|0600' > syscall; cat syscall").output().strip()
    try:
        assert queue in run("lsipc", "-q", "--noheadings", "-o", "ID").stdout.split()
    finally:
        native.ok("msgctl", int(queue), "IPC_RMID")
