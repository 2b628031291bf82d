"""``msgq/``: queues as files. What looking, writing and reading do, and what rm, chmod, stat and names mean."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import Child
from command import run
from doors import NOBODY, NativeDoor
from mounts import Mount

KEY = 0x5359_0F01


@pytest.fixture
def new_queue(native: NativeDoor) -> Iterator[Callable[..., int]]:
    """Makes queues natively; they are gone at the end."""
    made = []

    def make(key: int | str = "IPC_PRIVATE", mode: str = "0600") -> int:
        made.append(native.ok("msgget", key, f"IPC_CREAT|{mode}").ret)
        return made[-1]

    yield make
    for msqid in made:
        native.call("msgctl", msqid, "IPC_RMID")


@pytest.fixture
def queue(new_queue: Callable[..., int]) -> int:
    return new_queue()


@pytest.fixture
def file(mount: Mount, queue: int) -> Path:
    """The file of ``queue``."""
    return mount.path / f"msgq/sysv/{queue}"


@pytest.fixture
def by_key(mount: Mount, native: NativeDoor) -> Iterator[Path]:
    """A name in ``key/`` that nothing has; what gets it is removed."""
    yield mount.path / f"msgq/key/{KEY:#x}"
    native.call("msgctl", native.call("msgget", KEY, "0").ret, "IPC_RMID")


def send(native: NativeDoor, queue: int, *messages: tuple[int, bytes]) -> None:
    for mtype, data in messages:
        native.ok("msgsnd", queue, mtype, data, "IPC_NOWAIT")


def taken(native: NativeDoor, queue: int) -> list[tuple[int, bytes | None]]:
    """All messages of the queue, taken."""
    result = []
    while not (message := native.call("msgrcv", queue, 8192, 0, "IPC_NOWAIT")).errno:
        result.append((message.results["mtype"], message.data))
    return result


# --- looking


def test_reading_read_only_shows_the_messages_and_takes_none(native: NativeDoor, queue: int, file: Path) -> None:
    messages = [(1, b"one\n"), (2, b"two\n"), (1, b""), (1, b"three\n")]
    send(native, queue, *messages)
    for _ in range(2):
        assert file.read_bytes() == b"one\ntwo\nthree\n"
    status = native.ok("msgctl", queue, "IPC_STAT").results
    assert (status["lrpid"], status["rtime"]) == (0, 0)
    assert taken(native, queue) == messages


def test_each_read_is_one_message(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (1, b"one"), (2, b"two"))
    with file.open("rb", buffering=0) as look:
        assert [look.read(100), look.read(100), look.read(100)] == [b"one", b"two", b""]


def test_a_message_larger_than_the_read_is_shown_in_pieces(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (1, b"hello"), (1, b"again"))
    with file.open("rb", buffering=0) as look:
        assert [look.read(3) for _ in range(5)] == [b"hel", b"lo", b"aga", b"in", b""]


@pytest.mark.parametrize(
    ("selection", "shown"), [("", b"abcd"), ("@0", b"abcd"), ("@1", b"bd"), ("@3", b"a"), ("@-2", b"bcd"), ("@9", b"")]
)
def test_a_type_after_the_name_selects_what_is_shown(
    native: NativeDoor, queue: int, file: Path, selection: str, shown: bytes
) -> None:
    messages = [(3, b"a"), (1, b"b"), (2, b"c"), (1, b"d")]
    send(native, queue, *messages)
    assert Path(f"{file}{selection}").read_bytes() == shown
    assert taken(native, queue) == messages


def test_looking_at_an_empty_queue_does_not_wait(file: Path) -> None:
    assert file.read_bytes() == b""


# --- taking part


def test_writing_sends_one_message_of_type_1_a_write(native: NativeDoor, queue: int, file: Path) -> None:
    with file.open("wb", buffering=0) as sending:
        for data in (b"one", b"two\n"):
            assert sending.write(data) == len(data)
    assert taken(native, queue) == [(1, b"one"), (1, b"two\n")]


@pytest.mark.parametrize("redirection", [">", ">>", "1<>"])
def test_a_shell_sends_a_line_with_its_newline(native: NativeDoor, queue: int, file: Path, redirection: str) -> None:
    send(native, queue, (2, b"before"))
    assert run("bash", "-c", f"echo hello {redirection} {file}@7").returncode == 0
    assert taken(native, queue) == [(2, b"before"), (7, b"hello\n")]


def test_reading_read_write_receives_one_message_a_read(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (1, b"one"), (2, b"two"), (1, b"three"))
    with file.open("r+b", buffering=0) as taking:
        assert taking.read(100) == b"one"
        assert taking.read(100) == b"two"
    assert taken(native, queue) == [(1, b"three")]


def test_a_type_after_the_name_selects_what_is_received(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (3, b"a"), (1, b"b"), (2, b"c"))
    with Path(f"{file}@-2").open("r+b", buffering=0) as taking:
        assert [taking.read(10), taking.read(10)] == [b"b", b"c"]
    assert taken(native, queue) == [(3, b"a")]


def test_a_message_larger_than_the_read_is_e2big_and_stays(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (1, b"hello"))
    with file.open("r+b", buffering=0) as taking:
        with pytest.raises(OSError, match="too long") as raised:
            taking.read(3)
        assert raised.value.errno == errno.E2BIG
    assert taken(native, queue) == [(1, b"hello")]


@pytest.mark.parametrize("selection", ["@0", "@-3"])
def test_a_type_that_is_not_positive_cannot_be_sent(file: Path, selection: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        Path(f"{file}{selection}").write_bytes(b"x")


def test_with_o_nonblock_what_would_wait_is_eagain(native: NativeDoor, queue: int, file: Path) -> None:
    fd = os.open(file, os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            os.read(fd, 100)
        send(native, queue, (2, bytes(8192)), (2, bytes(8192)))
        with pytest.raises(BlockingIOError):
            os.write(fd, b"x")
        assert os.read(fd, 8192) == bytes(8192)
    finally:
        os.close(fd)


def test_a_blocked_reader_a_blocked_writer_and_one_who_looks_do_not_block_each_other(
    native: NativeDoor, mount: Mount, queue: int, file: Path
) -> None:
    send(native, queue, (1, bytes(8192)), (1, bytes(8192)))
    reader = Child(lambda: os.read(os.open(f"{file}@7", os.O_RDWR), 10))
    writer = Child(lambda: os.write(os.open(f"{file}@7", os.O_WRONLY), b"for it"))
    try:
        for child in (reader, writer):
            while not mount.blocked(child.pid):
                assert not child.ended()
        assert len(file.read_bytes()) == 16384
        native.ok("msgrcv", queue, 8192)
        assert writer.result() == 6
        assert reader.result() == b"for it"
    finally:
        reader.close()
        writer.close()


def test_a_reader_waits_and_is_seen_until_its_message_comes(
    native: NativeDoor, mount: Mount, queue: int, file: Path
) -> None:
    reader = Child(lambda: os.read(os.open(f"{file}@7", os.O_RDWR), 10))
    try:
        while not (blocked := mount.blocked(reader.pid)):
            assert not reader.ended()
        assert blocked == [f"msgrcv({queue}, 10, 7, 0)"]
        send(native, queue, (6, b"not this"), (7, b"this"))
        assert reader.result() == b"this"
        assert taken(native, queue) == [(6, b"not this")]
    finally:
        reader.close()


# --- names


def test_the_directories_list_what_the_host_has_now(
    native: NativeDoor, mount: Mount, new_queue: Callable[..., int]
) -> None:
    directory = mount.path / "msgq"
    first, second = new_queue(), new_queue(KEY)
    assert {str(first), str(second)} <= set(os.listdir(directory / "sysv"))
    assert os.listdir(directory / "key") == [f"{KEY:#x}"]
    assert os.stat(directory / f"key/{KEY:#x}").st_size == 0
    native.ok("msgctl", second, "IPC_RMID")
    assert str(second) not in os.listdir(directory / "sysv")
    assert os.listdir(directory / "key") == []
    assert not (directory / f"sysv/{second}").exists()


@pytest.mark.parametrize("name", ["0x", "1234", "0x123456789", "0xg", "hello", "-1"])
def test_a_name_in_key_that_is_no_key_is_enoent_and_makes_nothing(mount: Mount, name: str) -> None:
    path = mount.path / "msgq/key" / name
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        path.touch()


@pytest.mark.parametrize("name", ["01", "-1", "99999999999", "x", "1@", "1@x", "1@1@1", ""])
def test_a_name_in_sysv_that_is_no_id_is_enoent(mount: Mount, queue: int, name: str) -> None:
    assert not (mount.path / "msgq/sysv" / (name or f"{queue}@")).exists()


def test_creating_a_file_in_key_makes_the_queue_with_the_modes_bits_and_umask(native: NativeDoor, by_key: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(os.open(by_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    finally:
        os.umask(before)
    status = native.ok("msgctl", native.ok("msgget", KEY, "0").ret, "IPC_STAT").results
    assert (status["key"], status["mode"], status["uid"]) == (KEY, 0o640, 0)
    with pytest.raises(FileExistsError):
        os.open(by_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def test_a_key_of_32_bits_is_the_one_that_programs_use(
    native: NativeDoor, mount: Mount, new_queue: Callable[..., int]
) -> None:
    queue = new_queue(0xDEADBEEF)
    send(native, queue, (1, b"found"))
    assert (mount.path / "msgq/key/0xdeadbeef").read_bytes() == b"found"


def test_rm_removes_the_queue_by_id_and_by_key(native: NativeDoor, mount: Mount, new_queue: Callable[..., int]) -> None:
    for queue, path in ((new_queue(), "sysv/{}"), (new_queue(KEY), f"key/{KEY:#x}")):
        (mount.path / "msgq" / path.format(queue)).unlink()
        assert native.call("msgctl", queue, "IPC_STAT").errno == "EINVAL"


@pytest.mark.parametrize("name", ["ctl", "sysv", "key"])
def test_what_is_no_queue_stays(mount: Mount, name: str) -> None:
    assert run("rm", "-rf", str(mount.path / "msgq" / name)).returncode == 1
    assert (mount.path / "msgq" / name).exists()


# --- attributes


def test_stat_shows_size_owner_mode_and_times(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (1, b"hello"), (1, b""))
    native.ok("msgctl", queue, "IPC_SET", uid=12, gid=34, mode=0o640)
    status, found = native.ok("msgctl", queue, "IPC_STAT").results, os.stat(file)
    assert (found.st_size, found.st_uid, found.st_gid, found.st_mode) == (5, 12, 34, stat.S_IFREG | 0o640)
    assert found.st_ctime == status["ctime"]
    assert found.st_mtime == max(status["stime"], status["ctime"])


def test_chmod_and_chown_are_ipc_set(native: NativeDoor, queue: int, file: Path) -> None:
    os.chmod(file, 0o7644)
    os.chown(file, 12, 34)
    status = native.ok("msgctl", queue, "IPC_STAT").results
    assert (status["mode"], status["uid"], status["gid"], status["qbytes"]) == (0o644, 12, 34, 16384)


def test_extended_attributes_tell_what_stat_has_no_field_for(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (1, b"hello"))
    status = native.ok("msgctl", queue, "IPC_STAT").results
    found = {name.removeprefix("user."): os.getxattr(file, name).decode() for name in os.listxattr(file)}
    assert found.pop("key") == "0x0"
    assert found == {name: str(status[name]) for name in found}
    assert {"qnum", "cbytes", "qbytes", "lspid", "lrpid", "cuid", "cgid"} <= set(found)
    for name in ("user.nothing", "security.selinux"):
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(file, name)


def test_truncation_takes_no_message(native: NativeDoor, queue: int, file: Path) -> None:
    send(native, queue, (1, b"hello"))
    os.truncate(file, 0)
    with pytest.raises(OSError, match="Invalid argument"):
        os.truncate(file, 3)
    assert taken(native, queue) == [(1, b"hello")]


def others_errno(action: Callable[[], object]) -> int:
    """The errno that an ordinary user gets, 0 for none."""

    def body() -> int:
        try:
            action()
        except OSError as error:
            return error.errno or 0
        return 0

    child = Child(body, uid=NOBODY)
    try:
        return child.result()
    finally:
        child.close()


@pytest.mark.parametrize(
    ("mode", "flags", "expected"),
    [
        ("0600", os.O_RDONLY, errno.EACCES),
        ("0600", os.O_WRONLY, errno.EACCES),
        ("0604", os.O_RDONLY, 0),
        ("0604", os.O_RDWR, errno.EACCES),
        ("0602", os.O_WRONLY, 0),
        ("0606", os.O_RDWR, 0),
    ],
)
def test_others_may_open_what_the_mode_allows(
    mount: Mount, new_queue: Callable[..., int], mode: str, flags: int, expected: int
) -> None:
    path = mount.path / f"msgq/sysv/{new_queue(mode=mode)}"
    assert others_errno(lambda: os.open(path, flags)) == expected


def test_others_may_neither_remove_nor_change_a_queue(
    native: NativeDoor, new_queue: Callable[..., int], mount: Mount
) -> None:
    queue = new_queue(mode="0666")
    path = mount.path / f"msgq/sysv/{queue}"
    for action in (path.unlink, lambda: path.chmod(0o600), lambda: os.chown(path, NOBODY, NOBODY)):
        assert others_errno(action) == errno.EPERM
    assert native.ok("msgctl", queue, "IPC_STAT").results["mode"] == 0o666


# --- ctl


def test_ctl_is_a_table_of_the_queues(native: NativeDoor, mount: Mount, new_queue: Callable[..., int]) -> None:
    queue = new_queue(KEY, "0640")
    send(native, queue, (1, b"hello"))
    header, *lines = (mount.path / "msgq/ctl").read_text().splitlines()
    rows = [dict(zip(header.split(), line.split(), strict=True)) for line in lines]
    (row,) = (row for row in rows if row["msqid"] == str(queue))
    assert row["key"] == f"{KEY:#x}"
    assert row["perms"] == "0640"
    status = native.ok("msgctl", queue, "IPC_STAT").results
    for name in ("uid", "gid", "cbytes", "qnum", "qbytes", "lspid", "lrpid", "stime", "rtime", "ctime", "cuid", "cgid"):
        assert row[name] == str(status[name])


def command(mount: Mount, line: str) -> str:
    """Write a line to ctl from a shell; the reply, or the error that bash tells."""
    script = f"echo {line!r} > msgq/ctl 2>/dev/null; cat syscall"
    return run("bash", "-c", script, cwd=str(mount.path)).stdout


def test_the_words_of_ctl_make_change_and_remove_a_queue(native: NativeDoor, mount: Mount) -> None:
    queue = int(command(mount, f"create {KEY:#x} 0640"))
    assert native.ok("msgget", KEY, "0").ret == queue
    assert command(mount, f"set {queue} uid=12 mode=0600 qbytes=100") == "0\n"
    status = native.ok("msgctl", queue, "IPC_STAT").results
    assert (status["uid"], status["mode"], status["qbytes"]) == (12, 0o600, 100)
    assert command(mount, f"remove {queue}") == "0\n"
    assert native.call("msgget", KEY, "0").errno == "ENOENT"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("crate 0x1", "'crate 0x1': no such command; did you mean create?"),
        ("remove", "'remove': remove: msqid is missing"),
        ("remove 1 2", "'remove 1 2': remove: one argument too many: '2'"),
        ("remove x", "'remove x': remove: msqid wants a number"),
        ("msgget 1", "'msgget 1': no such command"),
    ],
)
def test_a_wrong_word_is_einval_and_the_message_echoes_the_line(mount: Mount, line: str, message: str) -> None:
    assert command(mount, line).startswith(f"-1 EINVAL {message}")


def test_a_failing_command_makes_the_write_fail_with_its_errno(mount: Mount) -> None:
    with pytest.raises(OSError, match="Invalid argument"), (mount.path / "msgq/ctl").open("wb", buffering=0) as ctl:
        ctl.write(b"remove 2147483647\n")
