"""What /proc is asked is bounded, whatever others make of it."""

import os

import pytest

from synosfs.host import procfs


def test_the_ancestors_of_a_process_are_its_parents_up_to_the_first() -> None:
    found = list(procfs.ancestors(os.getpid()))
    assert found[:2] == [os.getpid(), os.getppid()]
    assert procfs.stat(found[-1]).ppid == 0


def test_of_a_chain_of_processes_that_does_not_end_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "ppid", lambda pid: pid + 1)
    found = list(procfs.ancestors(os.getpid()))
    assert found == list(range(os.getpid(), os.getpid() + 128))
