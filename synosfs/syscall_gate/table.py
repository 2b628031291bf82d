"""The system calls that the gate answers: one row a call, in the order of their x86-64 numbers, then those without.

The rows stand in ``rows_file``, ``rows_ipc`` and ``rows_process``.

Number, name, handler, parameters (``name:kind``, ``=default``, ``?`` optional), and what ``spec.Row`` tells besides.
The row is the policy: nothing about a call is decided by its name elsewhere. ``help`` is printed from this table.
"""

import errno

from synosfs.errors import SynosError, shown
from synosfs.syscall_gate import rows_file, rows_ipc, rows_process
from synosfs.syscall_gate.converters import suggestion
from synosfs.syscall_gate.numbers import NAMES, NUMBERS
from synosfs.syscall_gate.refused import REASONS
from synosfs.syscall_gate.spec import Row

ROWS: tuple[Row, ...] = tuple(
    sorted(
        (*rows_file.ROWS, *rows_ipc.ROWS, *rows_process.ROWS),
        key=lambda row: len(NUMBERS) if row.number is None else row.number,
    )
)

_BY_NAME = {row.name: row for row in ROWS}
_BY_CALL: dict[str | int, Row] = {key: row for row in ROWS for key in (row.name, row.number) if key is not None}


def find(call: str | int) -> Row:
    """The row of a call by name or number. ENOSYS, by name, for what is unknown or not built."""
    try:
        return _BY_CALL[call]
    except KeyError:
        raise SynosError(errno.ENOSYS, _unknown(call)) from None


def _unknown(call: str | int) -> str:
    name = NAMES.get(call) if isinstance(call, int) else call
    if name in REASONS:
        return f"{name} is refused: {REASONS[name]}"
    if isinstance(call, int):
        return f"{name} ({call}) is not built" if name else f"no call has number {call}"
    if call in NUMBERS:
        return f"{call} is not built; cat help lists the calls that are"
    return f"no call is named {shown(call)}{suggestion(call, _BY_NAME)}"
