"""The log: one line a message, and the same thing once a second at most."""

import logging

import pytest

from synosfs.logfilter import Sober


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> tuple[logging.Logger, list[str]]:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Lines()
    handler.addFilter(Sober(quiet_s=3600))
    logger = logging.getLogger("synosfs.test")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(handler)
    return logger, lines


def test_the_same_thing_is_said_once(said: tuple[logging.Logger, list[str]]) -> None:
    logger, lines = said
    for number in range(1000):
        logger.warning("%s: no descriptor left", number)
    logger.warning("another thing")
    assert lines == ["0: no descriptor left", "another thing"]


def test_how_often_it_was_left_out_is_said_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sober, now = Sober(), [0.0]
    monkeypatch.setattr("synosfs.logfilter.time.monotonic", lambda: now[0])
    records = [logging.LogRecord("x", logging.WARNING, "", 0, "full", (), None) for _ in range(4)]
    passed = []
    for record, time in zip(records, (0.0, 0.1, 0.2, 1.5), strict=True):
        now[0] = time
        passed.append(sober.filter(record))
    assert passed == [True, False, False, True]
    assert records[-1].getMessage() == "full (2 more since it was last said)"


def test_what_a_caller_wrote_makes_no_line_of_its_own(said: tuple[logging.Logger, list[str]]) -> None:
    logger, lines = said
    logger.warning("no file %s", "a\nWARNING root: forged\x1b[31m")
    assert lines == ["no file a\\nWARNING root: forged\\x1b[31m"]
