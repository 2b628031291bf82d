"""Calls of Linux that are left out on purpose, each with the reason that whoever makes it is told (ENOSYS)."""

_SIGNALS = "{} is for the program that has the signals: a SynOS process keeps its own, and the daemon has none of them"
_MEMORY = "{} takes pages of the caller's memory, which the daemon has not: write does what it is for"

REASONS: dict[str, str] = {
    **{name: _SIGNALS.format(name) for name in ("signalfd", "signalfd4")},
    "vmsplice": _MEMORY.format("vmsplice"),
}
