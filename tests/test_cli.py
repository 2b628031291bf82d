"""The command line: what it accepts, and what it says, in one line, about what cannot be.

Everything but the words after ``-o`` runs as a real process; what needs another /dev or an ordinary user's view happens
in a mount namespace that ends with the test.
"""

import errno
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import (
    AS_NOBODY,
    OPEN_DEVICE,
    SYNOSFS,
    assert_refused,
    mount_point,
    namespace,
    needs_root,
    processes_of,
    run,
    stub,
    synosfs,
)

from synosfs import __version__
from synosfs.errors import SynosError
from synosfs.options import MountOptions, parse_mount_words


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with mount_point(tmp_path) as path:
        yield path


# --- the words after -o


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", MountOptions("/m")),
        (
            "rw,defaults,auto,noauto,user=me,nofail,_netdev,x-systemd.automount,x-gvfs-name=S,comment=c",
            MountOptions("/m"),
        ),
        ("rw,dev,suid", MountOptions("/m", flags=frozenset({"dev", "suid"}))),
        ("allow_other,fsname=s,nosuid", MountOptions("/m", "s", allow_other=True, flags=frozenset({"nosuid"}))),
        ("suid,nosuid,noatime,atime", MountOptions("/m", flags=frozenset({"nosuid", "atime"}))),
        ("ro,rw", MountOptions("/m")),
    ],
)
def test_each_mount_word_is_honoured_or_spoken_to_others(words: str, expected: MountOptions) -> None:
    assert parse_mount_words("/m", None, words.split(",")) == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("ro", "every request is a write"),
        ("remount", "unmount it and mount it again"),
        ("allow_root", "use allow_other"),
        ("auto_unmount", "the next start replaces"),
        ("alow_other", "unknown mount option 'alow_other'; did you mean 'allow_other'?"),
        ("fsnam=x", "unknown mount option 'fsnam'; did you mean 'fsname'?"),
        ("zzz", "unknown mount option 'zzz'; synosfs --help lists them"),
        ("fsname=", "'fsname' needs a name"),
        ("nosuid=1", "'nosuid' takes no value"),
    ],
)
def test_other_mount_words_are_refused_by_name(word: str, reason: str) -> None:
    with pytest.raises(SynosError, match=re.escape(reason)) as raised:
        parse_mount_words("/m", None, [word])
    assert raised.value.errno == errno.EINVAL


def test_fsname_counts_more_than_the_source_before_the_mount_point() -> None:
    assert parse_mount_words("/m", "a", []).source == "a"
    assert parse_mount_words("/m", "a", ["fsname=b"]).source == "b"


def test_a_source_with_a_comma_is_refused() -> None:
    with pytest.raises(SynosError, match="comma"):
        parse_mount_words("/m", "a,ro", [])


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], "no mount point given; try: synosfs --help"),
        (["a", "b", "c"], "one word too many: 'c'"),
        (["--unknown", "/m"], "--unknown"),
        (["--fore", "/m"], "--fore"),
        (["--log-level", "loud", "/m"], "'loud'"),
        (["-o"], "-o"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(arguments: list[str], pattern: str) -> None:
    assert_refused(synosfs(*arguments), pattern, status=2)


def test_help_names_every_option_and_a_first_example() -> None:
    done = synosfs("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        "--foreground",
        "--supervise",
        "-o ",
        "--log-level",
        "--log-file",
        "--version",
        "allow_other",
        "fsname",
        "/etc/fstab",
    ):
        assert word in done.stdout
    assert "synosfs /mnt/synos" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_version() -> None:
    assert synosfs("--version").stdout == f"synosfs {__version__}\n"


def test_the_command_loads_no_heavy_module_before_the_daemon() -> None:
    code = "import sys, synosfs.cli; print(sorted({'trio', 'pyfuse3', 'msgspec', 'asyncio'} & set(sys.modules)))"
    assert run(sys.executable, "-c", code).stdout == "[]\n"


def test_options_may_stand_before_between_and_after_the_paths(directory: Path) -> None:
    for arguments in (["-o", "zzz", "s", directory], ["s", "-o", "zzz", directory], ["s", directory, "-o", "rw,zzz"]):
        assert_refused(synosfs(*arguments), "unknown mount option 'zzz'")


# --- what cannot be mounted, and the way out


def test_a_missing_mount_point(tmp_path: Path) -> None:
    assert_refused(synosfs(tmp_path / "no"), f"{tmp_path}/no does not exist; make it: mkdir -p {tmp_path}/no")


def test_a_file_as_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(synosfs(tmp_path / "file"), "file is not a directory")


def test_a_mount_point_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(synosfs(tmp_path / "file/below"), "cannot be used: not a directory")


def test_a_mount_of_another_kind() -> None:
    assert_refused(synosfs("/proc"), r"/proc is already a mount of proc \(.*\); choose another directory")


def test_read_only(directory: Path) -> None:
    assert_refused(synosfs("-o", "ro", directory), "'ro' is refused: every request is a write")


def test_a_log_file_that_cannot_be_opened(directory: Path) -> None:
    done = run(*stub("ready()", "--log-file", "/proc/no/log", directory))
    assert_refused(done, "cannot open the log file /proc/no/log: no such file or directory")


@needs_root
@pytest.mark.parametrize(
    ("setup", "arguments", "pattern"),
    [
        (OPEN_DEVICE + 'chmod 755 "$TMP/mnt"', [], "no write permission for .*; choose a directory of your own"),
        (OPEN_DEVICE, ["-o", "suid"], "only root may mount with 'suid'; use 'nosuid'"),
        (
            OPEN_DEVICE + "mount --bind /dev/null /etc/fuse.conf",
            ["-o", "allow_other"],
            "allow_other is not permitted .*; as root: echo user_allow_other >> /etc/fuse.conf",
        ),
        (
            OPEN_DEVICE + 'mount --bind /dev/null "$(command -v fusermount3)"',
            [],
            "fusermount3 is missing.*; as root: apt install fuse3",
        ),
        (OPEN_DEVICE + 'chmod 600 "$TMP/dev/fuse"', [], "cannot open /dev/fuse: permission denied; as root: chmod 666"),
    ],
)
def test_what_an_ordinary_user_may_not(
    directory: Path, tmp_path: Path, setup: str, arguments: list[str], pattern: str
) -> None:
    with namespace(tmp_path, setup) as inside:
        assert_refused(run(*inside, *AS_NOBODY, SYNOSFS, *arguments, str(directory)), pattern)
    assert not processes_of(directory)


@needs_root
def test_no_device(directory: Path, tmp_path: Path) -> None:
    with namespace(tmp_path, "mount -t tmpfs none /dev; : >/dev/null") as inside:
        done = run(*inside, SYNOSFS, str(directory))
    assert_refused(done, "cannot open /dev/fuse: no such file or directory; as root: modprobe fuse; in a container")
