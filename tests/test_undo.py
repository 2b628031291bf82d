"""The ledger of outstanding undo: it says what was done, whatever was cleared and whoever has ended meanwhile."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from synosfs.host.abi import SEM_UNDO
from synosfs.ipc.sysv_sem import Operation
from synosfs.ipc.undo import UndoLedger


class Owner:
    """A process."""


_OWNER, _SEMID, _NUM = st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)
_OPERATIONS = st.lists(st.builds(Operation, _NUM, st.integers(-2, 2), st.sampled_from([0, SEM_UNDO])), max_size=4)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("operate"), _OWNER, _SEMID, _OPERATIONS),
        st.tuples(st.just("set one"), _SEMID, _NUM),
        st.tuples(st.just("set all"), _SEMID),
        st.tuples(st.just("end"), _OWNER),
    )
)


@given(_STEPS)
def test_it_keeps_what_is_outstanding_and_nothing_else(steps: list[tuple]) -> None:
    ledger, owners = UndoLedger(), [Owner() for _ in range(3)]
    model: dict[tuple[int, int, int], int] = defaultdict(int)

    def outstanding(owner: int) -> list[tuple[int, int, int]]:
        return sorted((semid, num, n) for (of, semid, num), n in model.items() if of == owner and n)

    for what, *arguments in steps:
        if what == "operate":
            owner, semid, operations = arguments
            ledger.operated(owners[owner], semid, operations)
            for num, delta, flags in operations:
                model[owner, semid, num] -= delta if flags else 0
        elif what == "end":
            assert sorted(ledger.ended(owners[arguments[0]])) == outstanding(arguments[0])
            model = defaultdict(int, {key: n for key, n in model.items() if key[0] != arguments[0]})
        else:
            semid, num = arguments if what == "set one" else (arguments[0], None)
            ledger.cleared(semid, num)
            model = defaultdict(
                int, {key: n for key, n in model.items() if key[1] != semid or num not in (None, key[2])}
            )
        for number, owner in enumerate(owners):
            assert list(ledger.of(owner)) == outstanding(number)
    for owner in owners:
        list(ledger.ended(owner))
    assert not ledger._owners
    assert not ledger._entries


def test_an_end_in_the_middle_of_others_takes_only_what_is_its_own() -> None:
    ledger, first, second = UndoLedger(), Owner(), Owner()
    for owner in (first, second):
        for semid in range(3):
            ledger.operated(owner, semid, [Operation(0, -1, SEM_UNDO)])
    ending = ledger.ended(first)
    assert next(ending) == (0, 0, 1)
    ledger.cleared(1)
    assert list(ledger.of(second)) == [(0, 0, 1), (2, 0, 1)]
    assert len(list(ending)) == 2
    assert list(ledger.of(first)) == []
