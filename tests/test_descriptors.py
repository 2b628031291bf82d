"""Descriptor tables against a plain model: lists of numbers, and a count of who has what open."""

import errno

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from synosfs.errors import SynosError
from synosfs.process import descriptors
from synosfs.process.descriptors import Description, DescriptorTable, held

NUMBERS = st.integers(0, 12)


class Tables(RuleBasedStateMachine):
    """Some processes, and what each of their numbers stands for."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.models: list[tuple[DescriptorTable, dict[int, object]]] = []
        self.released: list[Description] = []
        self.made: list[Description] = []

    @rule(target=tables)
    def begin(self) -> int:
        table = DescriptorTable()
        self.models.append((table, {number: table.get(number) for number in range(3)}))
        return len(self.models) - 1

    @rule(target=tables, which=tables)
    def fork(self, which: int) -> int:
        table, model = self.models[which]
        self.models.append((table.copy(), dict(model)))
        return len(self.models) - 1

    @rule(which=tables, lowest=NUMBERS)
    def open(self, which: int, lowest: int) -> None:
        table, model = self.models[which]
        description = Description("pipe", 0, release=self.released.append)
        number = table.add(description, lowest=lowest)
        assert number == min(set(range(lowest, 100)) - set(model))
        model[number] = description
        self.made.append(description)

    @rule(which=tables, number=NUMBERS)
    def dup(self, which: int, number: int) -> None:
        table, model = self.models[which]
        if number in model:
            other = table.add(table.get(number))
            assert other == min(set(range(100)) - set(model))
            model[other] = model[number]

    @rule(which=tables, number=NUMBERS, onto=NUMBERS)
    def dup2(self, which: int, number: int, onto: int) -> None:
        table, model = self.models[which]
        if number in model:
            table.set(onto, table.get(number))
            model[onto] = model[number]

    @rule(which=tables, number=NUMBERS)
    def close(self, which: int, number: int) -> None:
        table, model = self.models[which]
        if number in model:
            table.close(number)
            del model[number]
        else:
            with pytest.raises(SynosError) as raised:
                table.close(number)
            assert raised.value.errno == errno.EBADF

    @rule(which=tables)
    def end(self, which: int) -> None:
        for _ in self.models[which][0].close_all():
            pass
        fresh = DescriptorTable()
        self.models[which] = fresh, {number: fresh.get(number) for number in range(3)}

    @invariant()
    def numbers_stand_for_what_they_should(self) -> None:
        for table, model in self.models:
            assert {record.fd_number for record in table} == set(model)
            assert len(table) == len(model)
            assert all(table.get(number) is description for number, description in model.items())

    @invariant()
    def a_description_is_released_once_and_with_its_last_number(self) -> None:
        open_ones = {id(description) for _, model in self.models for description in model.values()}
        assert len(self.released) == len({id(description) for description in self.released})
        for description in self.made:
            assert (description in self.released) == (id(description) not in open_ones)


TestTables = Tables.TestCase


def test_a_table_holds_1024_numbers_and_releases_what_it_cannot_take() -> None:
    table = DescriptorTable()
    for number in range(3, descriptors.MOST_DESCRIPTORS):
        assert table.add(Description("pipe", 0)) == number
    released: list[Description] = []
    with pytest.raises(SynosError) as raised:
        table.add(Description("pipe", 0, release=released.append))
    assert (raised.value.errno, len(released)) == (errno.EMFILE, 1)
    # A duplicate that cannot be had releases nothing.
    with pytest.raises(SynosError):
        table.add(table.get(3))
    assert table.get(3).references == 1


def test_a_table_has_no_more_than_4096_numbers_whatever_the_limit() -> None:
    table = DescriptorTable(most=lambda: 1 << 40)
    assert table.set(4095, table.get(0)) is None
    with pytest.raises(SynosError) as raised:
        table.set(4096, table.get(0))
    assert (raised.value.errno, "up to 4096" in raised.value.message) == (errno.EBADF, True)


def test_a_limit_of_0_is_emfile() -> None:
    table = DescriptorTable(most=lambda: 0)
    with pytest.raises(SynosError) as raised:
        table.add(Description("pipe", 0))
    assert (raised.value.errno, "ulimit -n" in raised.value.message) == (errno.EMFILE, True)


def test_an_ended_process_gets_no_descriptor() -> None:
    table = DescriptorTable()
    for _ in table.close_all():
        pass
    released: list[Description] = []
    with pytest.raises(SynosError) as raised:
        table.add(Description("pipe", 0, release=released.append))
    assert (raised.value.errno, len(released)) == (errno.ESRCH, 1)


def test_a_held_description_outlives_its_number() -> None:
    table, released = DescriptorTable(), list[Description]()
    number = table.add(Description("pipe", 0, release=released.append))
    with held(table.get(number)):
        table.close(number)
        assert not released
        assert table.add(Description("pipe", 0)) == number
    assert len(released) == 1


def test_close_on_exec_is_the_numbers_and_not_the_descriptions() -> None:
    table = DescriptorTable()
    number = table.add(Description("pipe", 0), close_on_exec=True)
    other = table.add(table.get(number))
    assert (table.close_on_exec(number), table.close_on_exec(other)) == (True, False)
    child = table.copy()
    child.close_on_exec(number, False)
    assert table.close_on_exec(number)
