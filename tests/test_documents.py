"""What documents and ``--help`` say of options and limits is what the code has: neither goes on without the other."""

import errno
import re
import resource
from dataclasses import fields
from pathlib import Path

import pytest
from command import synosfs

from synosfs import options
from synosfs.process import accounts
from synosfs.process.accounts import KINDS, Limits

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text()
_SECURITY = (_ROOT / "docs/security.md").read_text()


def _rows(document: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with ``first``."""
    table = document[document.index(f"\n| {first} |") + 1 :].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


#: By the name of the limit: its default, what it is of, and the errno beyond it.
_DOCUMENTED = {name.strip("`"): cells for name, *cells in _rows(_SECURITY, "option")}


def _numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


def test_limits_are_the_same_in_documents_options_and_accounts() -> None:
    names = [limit.name for limit in fields(Limits)]
    assert list(_DOCUMENTED) == names
    assert list(options.LIMITS) == names


@pytest.mark.parametrize("name", KINDS)
def test_the_documented_errno_of_a_limit_is_that_of_its_kind(name: str) -> None:
    assert _DOCUMENTED[f"max_{name}"][2] == errno.errorcode[KINDS[name].errno]


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"descriptors", "queue_bytes"}))
def test_the_documented_default_of_a_limit_is_its_default(name: str) -> None:
    assert _numbers(_DOCUMENTED[f"max_{name}"][0])[0] == getattr(Limits(), f"max_{name}")


def test_the_documented_share_of_descriptors_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    least, most = _numbers(_DOCUMENTED["max_descriptors"][0])
    assert "a quarter of the daemon's RLIMIT_NOFILE" in _DOCUMENTED["max_descriptors"][0]
    for limit, share in ((20_000, 5000), (1 << 30, most), (8, least)):
        monkeypatch.setattr(accounts.resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert Limits().max_descriptors == share


def test_the_documented_share_of_queue_bytes_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    [default] = _numbers(_DOCUMENTED["max_queue_bytes"][0])
    assert "half of the daemon's RLIMIT_MSGQUEUE" in _DOCUMENTED["max_queue_bytes"][0]
    for limit, share in ((resource.RLIM_INFINITY, default), (default, default // 2)):
        monkeypatch.setattr(accounts.resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert Limits().max_queue_bytes == share


def test_each_mount_option_stands_in_the_help_and_in_the_readme() -> None:
    told = synosfs("--help").stdout.split("mount options (")[1]
    described = "\n".join(" ".join(cells) for cells in _rows(_README, "`-o`"))
    for word in options.HONOURED:
        assert re.search(rf"(?<![\w-]){word}(?![\w-])", told), f"--help says nothing of {word}"
        assert re.search(rf"`{word}[=`]", described), f"the README says nothing of {word}"


@pytest.mark.parametrize("name", ["confined", "receive"])
def test_each_value_of_an_option_stands_in_the_help_and_in_the_readme(name: str) -> None:
    told = re.search(rf"{name}=([\w|]+)", synosfs("--help").stdout)
    assert told
    [row] = [" ".join(cells) for cells in _rows(_README, "`-o`") if cells[0].startswith(f"`{name}=")]
    for value in told[1].split("|"):
        options.parse_mount_words("/m", None, [f"{name}={value}"])
        assert value in re.findall(r"`(?:\w+=)?(\w+)`", row)
