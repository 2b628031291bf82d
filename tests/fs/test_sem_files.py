"""``sem/``: semaphore sets as files, used as shells and other programs use files."""

import errno
import os
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from children import Child, wait_until
from doors import NOBODY, NativeDoor
from mounts import Mount

KEY = 0x5359_0201


@pytest.fixture
def sem(mount: Mount) -> Path:
    return mount.path / "sem"


def values(native: NativeDoor, semid: int) -> list[int]:
    return native.ok("semctl", semid, 0, "GETALL").results["values"]


def shell(script: str, mount: Mount) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", script]
    return subprocess.run(command, cwd=mount.path, capture_output=True, text=True, timeout=30, check=False)


def write(path: Path, text: str, flags: int = 0) -> int:
    """One write(2); the number of bytes that were taken."""
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        return os.write(fd, text.encode())
    finally:
        os.close(fd)


# --- reading


def test_reading_shows_the_values_on_one_line(sem: Path, new_set: Callable[..., int]) -> None:
    semid = new_set([1, 0, 32767], KEY)
    assert (sem / f"sysv/{semid}").read_text() == "1 0 32767\n"
    assert (sem / f"key/{KEY:#x}").read_text() == "1 0 32767\n"


def test_looking_changes_nothing(mount: Mount, native: NativeDoor, new_set: Callable[..., int]) -> None:
    semid = new_set([1, 0], KEY)
    before = native.ok("semctl", semid, 0, "IPC_STAT"), native.ok("semctl", semid, 0, "GETPID")
    for script in ("grep -r . sem", "find sem -type f -exec cat {} +", "tar c sem | tar t", "wc sem/*/*", "ls -lR sem"):
        assert shell(script, mount).returncode == 0
    assert (native.ok("semctl", semid, 0, "IPC_STAT"), native.ok("semctl", semid, 0, "GETPID")) == before
    assert values(native, semid) == [1, 0]


def test_a_copy_has_the_values(mount: Mount, new_set: Callable[..., int], tmp_path: Path) -> None:
    semid = new_set([3, 4])
    assert shell(f"tar c sem/sysv/{semid} | tar x -C {tmp_path}", mount).returncode == 0
    assert (tmp_path / f"sem/sysv/{semid}").read_text() == "3 4\n"


def test_a_reader_that_begins_again_sees_the_values_of_now(
    sem: Path, native: NativeDoor, new_set: Callable[..., int]
) -> None:
    semid = new_set([3, 4])
    with open(sem / f"sysv/{semid}") as file:
        assert file.read() == "3 4\n"
        native.ok("semop", semid, (0, 10))
        file.seek(0)
        assert file.read() == "13 4\n"


# --- writing


def test_a_line_is_one_semop(mount: Mount, native: NativeDoor, new_set: Callable[..., int]) -> None:
    semid = new_set([1, 0])
    assert shell(f"echo '0:-1:0 1:+2:0' > sem/sysv/{semid}", mount).returncode == 0
    assert values(native, semid) == [0, 2]
    assert shell(f"echo '1:-1:0 0:-1:IPC_NOWAIT' > sem/sysv/{semid}", mount).stderr.endswith(
        "Resource temporarily unavailable\n"
    )
    assert values(native, semid) == [0, 2]


def test_lines_of_one_write_are_done_in_order_until_one_fails(
    sem: Path, native: NativeDoor, new_set: Callable[..., int]
) -> None:
    semid = new_set([2, 0])
    first = "0:-1:0\n\n1:+1:0\n"
    assert write(sem / f"sysv/{semid}", first + "0:-5:IPC_NOWAIT\n1:+1:0\n") == len(first)
    assert values(native, semid) == [1, 1]


def test_what_a_shell_takes_comes_back_when_it_dies(
    mount: Mount, native: NativeDoor, new_set: Callable[..., int]
) -> None:
    semid = new_set([3, 0])
    held = shell(f"echo '0:-2 1:+1:0' > sem/sysv/{semid}; cat sem/sysv/{semid} proc/$$/undo; kill -9 $$", mount)
    assert held.stdout.split() == ["1", "1", "semid", "num", "adjustment", str(semid), "0", "2"]
    wait_until(lambda: values(native, semid) == [3, 1], "the shell's operation is undone")


def test_an_operation_with_flags_has_these_alone(mount: Mount, native: NativeDoor, new_set: Callable[..., int]) -> None:
    semid = new_set([3, 0])
    held = shell(f"echo '0:-1:0 1:+1:SEM_UNDO' > sem/sysv/{semid}; cat proc/$$/undo", mount)
    assert held.stdout.split() == ["semid", "num", "adjustment", str(semid), "1", "-1"]
    wait_until(lambda: values(native, semid) == [2, 0], "what had SEM_UNDO is undone, and the rest is not")


@pytest.mark.parametrize(
    "text", ["0", "0:x", "x:1", "0:1:SEM_UNDOO", "0:1:0:0", "0:1\n0:99999", "-1:1", "0:1 1", "0,1"]
)
def test_a_line_that_means_nothing_is_einval_and_nothing_is_done(
    sem: Path, native: NativeDoor, new_set: Callable[..., int], text: str
) -> None:
    semid = new_set([0, 0])
    assert refused(lambda: write(sem / f"sysv/{semid}", text)) == "EINVAL"
    assert values(native, semid) == [0, 0]


def test_a_blocked_writer_blocks_no_other_user_of_the_file(
    sem: Path, mount: Mount, new_set: Callable[..., int], children: Callable[..., Child]
) -> None:
    semid = new_set([0], KEY)
    path = sem / f"key/{KEY:#x}"
    takers = [children(lambda: write(path, "0:-1")) for _ in range(3)]
    wait_until(lambda: all(mount.blocked(taker.pid) for taker in takers), "all wait")
    assert path.read_text() == "0\n"
    assert path.stat().st_size == 2
    write(path, "0:+3:0")
    assert [taker.result() for taker in takers] == [4, 4, 4]
    wait_until(lambda: path.read_text() == "3\n", "what the takers held has come back")
    assert semid in {int(name) for name in os.listdir(sem / "sysv")}


@pytest.mark.parametrize("text", ["0:-1", "0:-1:0"])
def test_with_o_nonblock_what_would_wait_is_eagain(sem: Path, new_set: Callable[..., int], text: str) -> None:
    semid = new_set([0])
    with pytest.raises(BlockingIOError):
        write(sem / f"sysv/{semid}", text, os.O_NONBLOCK)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("text", ["0:-1", "0:-1:0", "1:0"])
def test_a_signal_ends_a_blocked_write(
    sem: Path,
    mount: Mount,
    native: NativeDoor,
    new_set: Callable[..., int],
    children: Callable[..., Child],
    text: str,
    number: int,
) -> None:
    semid = new_set([0, 1])
    taker = children(lambda: write(sem / f"sysv/{semid}", text))
    wait_until(lambda: mount.blocked(taker.pid), "it waits")
    os.kill(taker.pid, number)
    wait_until(taker.ended, "it has ended")
    wait_until(lambda: mount.blocked_callers() == 0, "nobody waits")
    assert [native.ok("semctl", semid, 0, "GETNCNT").ret, native.ok("semctl", semid, 1, "GETZCNT").ret] == [0, 0]


def test_removal_ends_a_blocked_write_with_eidrm(
    sem: Path, mount: Mount, new_set: Callable[..., int], children: Callable[..., Child]
) -> None:
    semid = new_set([0])

    def take() -> int:
        try:
            return write(sem / f"sysv/{semid}", "0:-1")
        except OSError as error:
            return -(error.errno or 0)

    taker = children(take)
    wait_until(lambda: mount.blocked(taker.pid), "it waits")
    (sem / f"sysv/{semid}").unlink()
    assert taker.result() == -errno.EIDRM


# --- the file system's own operations


def test_stat_shows_owner_mode_and_times(sem: Path, native: NativeDoor, new_set: Callable[..., int]) -> None:
    semid = new_set([10, 0], KEY, 0o640)
    status = native.ok("semctl", semid, 0, "IPC_STAT").results
    shown = (sem / f"sysv/{semid}").stat()
    assert (stat.S_IMODE(shown.st_mode), shown.st_uid, shown.st_gid, shown.st_size) == (0o640, 0, 0, len("10 0\n"))
    assert (shown.st_ctime, shown.st_mtime) == (status["ctime"], status["ctime"])
    native.ok("semop", semid, (0, 1))
    status = native.ok("semctl", semid, 0, "IPC_STAT").results
    assert (sem / f"sysv/{semid}").stat().st_mtime == max(status["otime"], status["ctime"])


def test_chmod_and_chown_are_ipc_set(sem: Path, native: NativeDoor, new_set: Callable[..., int]) -> None:
    semid = new_set([0], KEY)
    os.chmod(sem / f"sysv/{semid}", 0o646)
    os.chown(sem / f"key/{KEY:#x}", NOBODY, 7)
    status = native.ok("semctl", semid, 0, "IPC_STAT").results
    assert (status["mode"], status["uid"], status["gid"]) == (0o646, NOBODY, 7)


@pytest.mark.parametrize("name", ["sysv/{semid}", "key/{key:#x}"])
def test_rm_removes_the_set(sem: Path, native: NativeDoor, new_set: Callable[..., int], name: str) -> None:
    semid = new_set([0], KEY)
    (sem / name.format(semid=semid, key=KEY)).unlink()
    assert native.call("semctl", semid, 0, "IPC_STAT").errno == "EINVAL"
    assert not (sem / f"sysv/{semid}").exists()


def test_a_file_made_in_key_is_a_set_of_one_semaphore_of_value_0(sem: Path, native: NativeDoor) -> None:
    path = sem / f"key/{KEY:#x}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o620))
    semid = native.ok("semget", KEY, 1, 0).ret
    assert values(native, semid) == [0]
    assert native.ok("semctl", semid, 0, "IPC_STAT").results["mode"] == 0o620 & ~_umask()
    with pytest.raises(FileExistsError):
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    path.unlink()


@pytest.mark.parametrize("name", ["lock", "0x", "0x123456789", "0x77@3"])
def test_a_name_in_key_that_is_no_key_is_enoent_and_makes_nothing(sem: Path, name: str) -> None:
    before = os.listdir(sem / "sysv")
    with pytest.raises(FileNotFoundError):
        (sem / "key" / name).touch()
    assert os.listdir(sem / "sysv") == before


def test_the_directories_list_what_the_host_has_now(sem: Path, native: NativeDoor, new_set: Callable[..., int]) -> None:
    keyed, private = new_set([0], KEY), new_set([0])
    assert set(os.listdir(sem / "sysv")) >= {str(keyed), str(private)}
    assert f"{KEY:#x}" in os.listdir(sem / "key")
    native.ok("semctl", keyed, 0, "IPC_RMID")
    assert str(keyed) not in os.listdir(sem / "sysv")
    assert f"{KEY:#x}" not in os.listdir(sem / "key")
    for name in ("00", "-1", "1x", "2147483648", f"{private}@1"):
        assert not (sem / "sysv" / name).exists()


def test_extended_attributes_tell_what_stat_does_not(
    sem: Path, native: NativeDoor, new_set: Callable[..., int]
) -> None:
    semid = new_set([0, 0, 0], KEY)
    path = sem / f"sysv/{semid}"
    shown = {name: os.getxattr(path, name).decode() for name in os.listxattr(path)}
    ctime = native.ok("semctl", semid, 0, "IPC_STAT").results["ctime"]
    assert shown == {
        "user.key": f"{KEY:#x}",
        "user.nsems": "3",
        "user.otime": "0",
        "user.ctime": str(ctime),
        "user.cuid": "0",
        "user.cgid": "0",
    }


def test_truncation_changes_nothing(sem: Path, native: NativeDoor, new_set: Callable[..., int]) -> None:
    semid = new_set([5])
    os.truncate(sem / f"sysv/{semid}", 0)
    assert values(native, semid) == [5]
    with pytest.raises(OSError, match="Invalid argument"):
        os.truncate(sem / f"sysv/{semid}", 1)


# --- the rights of other users


def refused(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


@pytest.mark.parametrize(
    ("mode", "reads", "writes"), [(0o600, "EACCES", "EACCES"), (0o604, "", "EACCES"), (0o606, "", "")]
)
def test_others_may_read_and_write_as_the_mode_says(
    sem: Path,
    native: NativeDoor,
    new_set: Callable[..., int],
    children: Callable[..., Child],
    mode: int,
    reads: str,
    writes: str,
) -> None:
    semid = new_set([1], mode=mode)
    path = sem / f"sysv/{semid}"
    assert children(lambda: refused(path.read_text), NOBODY).result() == reads
    assert children(lambda: refused(lambda: write(path, "0:1:0")), NOBODY).result() == writes
    assert values(native, semid) == [1 if writes else 2]


def test_others_may_neither_remove_nor_change_a_set_nor_learn_the_length_of_its_values(
    sem: Path, new_set: Callable[..., int], children: Callable[..., Child]
) -> None:
    semid = new_set([1000])
    path = sem / f"sysv/{semid}"

    def attack() -> list[object]:
        acts = (path.unlink, lambda: path.chmod(0o666), lambda: os.chown(path, NOBODY, NOBODY))
        return [path.stat().st_size, *(refused(act) in ("EPERM", "EACCES") for act in acts)]

    assert children(attack, NOBODY).result() == [0, True, True, True]


def test_what_a_process_has_to_undo_is_for_its_owner(mount: Mount, children: Callable[..., Child]) -> None:
    mount.gate.write_text("getpid\n")
    undo = mount.path / f"proc/{os.getpid()}/undo"
    assert children(lambda: refused(undo.read_text), NOBODY).result() == "EACCES"


# --- ctl


def ctl_rows(sem: Path) -> dict[str, dict[str, str]]:
    header, *lines = (line.split() for line in (sem / "ctl").read_text().splitlines())
    return {line[1]: dict(zip(header, line, strict=True)) for line in lines}


def test_ctl_is_a_table_of_the_sets(sem: Path, native: NativeDoor, new_set: Callable[..., int]) -> None:
    semid = new_set([1, 2], KEY, 0o640)
    row = ctl_rows(sem)[str(semid)]
    ctime = native.ok("semctl", semid, 0, "IPC_STAT").results["ctime"]
    assert row == {
        "key": f"{KEY:#x}",
        "semid": str(semid),
        "uid": "0",
        "gid": "0",
        "perms": "0640",
        "nsems": "2",
        "otime": "0",
        "ctime": str(ctime),
        "cuid": "0",
        "cgid": "0",
        "calls": "0",
        "moved": "0",
        "waits": "0",
        "owners": "-",
    }


def test_the_words_of_ctl(mount: Mount, sem: Path, native: NativeDoor) -> None:
    script = f"echo 'create {KEY:#x} 3 0640 init=1,2,3' > sem/ctl && cat syscall"
    semid = int(shell(script, mount).stdout)
    assert values(native, semid) == [1, 2, 3]
    (sem / "ctl").write_text(f"setval {semid} 1 9\n")
    assert values(native, semid) == [1, 9, 3]
    (sem / "ctl").write_text(f"setall {semid} 4,5,6\n")
    assert values(native, semid) == [4, 5, 6]
    (sem / "ctl").write_text(f"set {semid} mode=0600 uid={NOBODY}\n")
    assert (ctl_rows(sem)[str(semid)]["perms"], ctl_rows(sem)[str(semid)]["uid"]) == ("0600", str(NOBODY))
    (sem / "ctl").write_text(f"remove {semid}\n")
    assert str(semid) not in ctl_rows(sem)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("creat 1", "'creat 1': no such command; did you mean create?"),
        ("setval 1", "'setval 1': setval: num is missing; usage: setval semid num value"),
        ("setall 0", "'setall 0': setall: values is missing"),
        ("remove x", "'remove x': remove: semid wants a number"),
    ],
)
def test_a_wrong_word_is_einval_and_the_message_echoes_the_line(mount: Mount, line: str, message: str) -> None:
    told = shell(f"echo '{line}' > sem/ctl || cat syscall", mount)
    assert told.stdout.startswith(f"-1 EINVAL {message}")


def _umask() -> int:
    previous = os.umask(0o77)
    os.umask(previous)
    return previous
