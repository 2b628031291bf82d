"""The numbers of the calls are those of the host's <asm/unistd_64.h>."""

import errno
import platform
import re
from pathlib import Path

import pytest

from synosfs.errors import SynosError
from synosfs.syscall_gate import table
from synosfs.syscall_gate.numbers import NAMES, NUMBERS
from synosfs.syscall_gate.refused import REASONS

HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h")


@pytest.fixture(scope="module")
def host() -> dict[str, int]:
    """Names and numbers as the host's header has them."""
    header = next((path for path in map(Path, HEADERS) if path.exists()), None)
    if header is None or platform.machine() != "x86_64":
        pytest.skip("no <asm/unistd_64.h> here")
    found = re.findall(r"^#define __NR_(\w+) (\d+)$", header.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in found}


def test_every_number_is_the_hosts(host: dict[str, int]) -> None:
    newest = max(host.values())
    assert {name: number for name, number in NUMBERS.items() if number <= newest} == {
        name: number for name, number in host.items() if number <= max(NUMBERS.values()) and name in NUMBERS
    }


def test_no_call_of_the_host_is_missing_below_the_newest_that_is_known(host: dict[str, int]) -> None:
    newest = NUMBERS["set_mempolicy_home_node"]
    unknown = {name for name, number in host.items() if number <= newest} - NUMBERS.keys()
    assert unknown <= {"uretprobe", "uprobe"}  # the kernel's own, given a number in the gap


def test_names_and_numbers_are_one_to_one() -> None:
    assert len(NAMES) == len(NUMBERS)


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.name)
def test_a_row_has_linuxs_number_and_is_found_by_it(row: table.Row) -> None:
    assert row.number == NUMBERS.get(row.name)
    assert table.find(row.name) is row
    if row.number is not None:
        assert table.find(row.number) is row


def test_the_table_is_in_the_order_of_the_numbers() -> None:
    numbers = [row.number for row in table.ROWS if row.number is not None]
    assert numbers == sorted(set(numbers))


def test_each_name_stands_once() -> None:
    names = [row.name for row in table.ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", REASONS)
def test_a_call_that_is_refused_says_why(name: str) -> None:
    for call in (name, NUMBERS[name]):
        with pytest.raises(SynosError, match=f"{name} is refused: ") as refusal:
            table.find(call)
        assert refusal.value.errno == errno.ENOSYS
