"""What is kept of refusals is little, and for nobody else."""

import os

from synosfs.host import procfs
from synosfs.host.credentials import Credentials
from synosfs.process.refusals import Refusal, Refusals

PID = os.getpid()
BEGAN = procfs.stat(PID).start_time


def user(uid: int, *groups: int) -> Credentials:
    return Credentials(uid, uid, groups, 0)


def test_it_is_kept_for_the_process_and_the_user_who_was_told() -> None:
    refusals = Refusals()
    refusals.remember(PID, Refusal(BEGAN, user(1000), b"told"))
    assert refusals.of(PID, user(1000)) == b"told"
    assert refusals.of(PID, user(1001)) is None
    refusals.remember(PID, Refusal(BEGAN - 1, user(1000), b"told another that had this pid"))
    assert refusals.of(PID, user(1000)) is None


def test_the_latest_of_each_user_are_kept() -> None:
    refusals = Refusals()
    refusals.remember(PID, Refusal(BEGAN, user(1), b"of one user"))
    for pid in range(2_000_000, 2_000_063):
        refusals.remember(pid, Refusal(0, user(1), b""))
    assert refusals.of(PID, user(1)) == b"of one user"
    refusals.remember(2_000_063, Refusal(0, user(1), b""))
    assert refusals.of(PID, user(1)) is None


def test_of_many_users_those_are_forgotten_who_were_told_longest_ago() -> None:
    refusals = Refusals()
    for uid in range(257):
        refusals.remember(PID, Refusal(BEGAN, user(uid), b"%d" % uid))
    assert refusals.of(PID, user(0)) is None
    assert refusals.of(PID, user(1)) == b"1"
    assert refusals.of(PID, user(256)) == b"256"


def test_it_is_for_who_is_in_all_the_groups_of_who_was_told() -> None:
    refusals = Refusals()
    refusals.remember(PID, Refusal(BEGAN, user(7, 8), b"told"))
    assert refusals.of(PID, user(7, 8, 9)) == b"told"
    assert refusals.of(PID, user(7, 9)) is None
