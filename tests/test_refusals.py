"""What is kept of refusals is little, and for nobody else."""

import os

from synosfs.host import procfs
from synosfs.process.refusals import Refusal, Refusals

PID = os.getpid()
BEGAN = procfs.stat(PID).start_time


def test_it_is_kept_for_the_process_and_the_user_who_was_told() -> None:
    refusals = Refusals()
    refusals.remember(PID, Refusal(BEGAN, 1000, b"told"))
    assert refusals.of(PID, 1000) == b"told"
    assert refusals.of(PID, 1001) is None
    refusals.remember(PID, Refusal(BEGAN - 1, 1000, b"told another that had this pid"))
    assert refusals.of(PID, 1000) is None


def test_the_latest_of_each_user_are_kept() -> None:
    refusals = Refusals()
    refusals.remember(PID, Refusal(BEGAN, 1, b"of one user"))
    for pid in range(2_000_000, 2_000_063):
        refusals.remember(pid, Refusal(0, 1, b""))
    assert refusals.of(PID, 1) == b"of one user"
    refusals.remember(2_000_063, Refusal(0, 1, b""))
    assert refusals.of(PID, 1) is None


def test_of_many_users_those_are_forgotten_who_were_told_longest_ago() -> None:
    refusals = Refusals()
    for uid in range(257):
        refusals.remember(PID, Refusal(BEGAN, uid, b"%d" % uid))
    assert refusals.of(PID, 0) is None
    assert refusals.of(PID, 1) == b"1"
    assert refusals.of(PID, 256) == b"256"
