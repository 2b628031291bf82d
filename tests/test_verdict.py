"""The verdict on an object: a pure function of the evidence, and in doubt never ``orphan``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synosfs.ipc.verdict import Deed, Evidence, Fate, Found, Use, Verdict, Witness, fate, judge

NOW = 1_700_000_000
DEAD = Witness(Use(Deed.SENT, 12, NOW))
ALIVE = Witness(Use(Deed.SENT, 12, NOW), Found("perl", NOW - 100.0))
ANOTHER = Witness(Use(Deed.SENT, 12, NOW), Found("cron", NOW + 100.0), "perl")
OUTSIDE = Witness(Use(Deed.SENT, 0, NOW))
NEVER = Witness(Use(Deed.RECEIVED, 0, 0))

# fmt: off
CASES = {
    "a dead sender": (Evidence((DEAD, NEVER), waiting=0), Verdict.ORPHAN,
                      "sent to last by pid 12, dead; never received from; nobody waits"),
    "its name is remembered": (Evidence((DEAD._replace(program="perl"),), waiting=0), Verdict.ORPHAN,
                               "sent to last by pid 12 (perl), dead; nobody waits"),
    "it calls itself anything": (Evidence((DEAD._replace(program="a)\nb"),), waiting=0), Verdict.ORPHAN,
                                 r"sent to last by pid 12 (a)\nb), dead; nobody waits"),
    "the pid is another's": (Evidence((ANOTHER,), waiting=0), Verdict.ORPHAN,
                             "sent to last by pid 12 (perl), dead: pid 12 (cron) started later; nobody waits"),
    "one is dead and one alive": (Evidence((DEAD, ALIVE), waiting=0), Verdict.IN_USE, ", alive since"),
    "somebody waits": (Evidence((DEAD,), waiting=1), Verdict.IN_USE, "somebody waits; sent"),
    "many wait": (Evidence((DEAD,), waiting=3), Verdict.IN_USE, "3 wait; sent"),
    "attached": (Evidence((DEAD,), attached=2), Verdict.IN_USE, "attached 2 times"),
    "not attached": (Evidence((DEAD,), attached=0), Verdict.ORPHAN, "dead; not attached"),
    "used from outside": (Evidence((DEAD, OUTSIDE), waiting=0), Verdict.UNKNOWN, "outside the mount's pid namespace"),
    "nobody ever used it": (Evidence((NEVER, NEVER), waiting=0), Verdict.UNKNOWN, "does not keep who made it"),
    "not all could be seen": (Evidence((DEAD,), waiting=0, doubts=("it is dark",)), Verdict.UNKNOWN, "it is dark"),
    "alive all the same": (Evidence((ALIVE,), waiting=0, doubts=("it is dark",)), Verdict.IN_USE, "alive since"),
    "owned": (Evidence((DEAD,), waiting=0, owners=("pid 3 (sh)",)), Verdict.OWNED, "owned by pid 3 (sh); sent"),
    "nothing is known": (Evidence(), Verdict.UNKNOWN, ""),
}
# fmt: on


@pytest.mark.parametrize(("evidence", "verdict", "words"), CASES.values(), ids=CASES)
def test_the_verdict_and_its_words(evidence: Evidence, verdict: Verdict, words: str) -> None:
    judged = judge(evidence)
    assert judged.verdict is verdict
    assert words in judged.words


@pytest.mark.parametrize(
    ("started", "became"),
    [(-1.0, Fate.ALIVE), (0.0, Fate.ALIVE), (0.99, Fate.ALIVE), (1.99, Fate.ALIVE), (2.0, Fate.ANOTHER)],
)
def test_who_started_in_the_same_second_may_be_the_one_and_who_started_later_is_not(
    started: float, became: Fate
) -> None:
    assert fate(Witness(Use(Deed.SENT, 12, NOW), Found("perl", NOW + started))) is became


def test_a_start_that_nobody_knows_makes_it_the_one() -> None:
    assert fate(Witness(Use(Deed.SENT, 12, NOW), Found("", 0.0))) is Fate.ALIVE


def test_of_a_thousand_users_the_living_are_named_first_and_the_rest_counted() -> None:
    dead = [DEAD._replace(use=Use(Deed.OPERATED, pid, NOW)) for pid in range(100, 1100)]
    words = judge(Evidence((*dead, ALIVE), waiting=0)).words
    assert words.startswith("sent to last by pid 12 (perl), alive")
    assert "and by 997 more" in words


founds = st.none() | st.builds(Found, st.text(), st.floats(0, 2.0 * NOW))
uses = st.builds(Use, st.sampled_from(Deed), st.integers(0, 50), st.integers(0, 2 * NOW))
witnesses = st.builds(Witness, uses, founds, st.text())
counts = st.none() | st.integers(0, 5)
evidences = st.builds(
    Evidence,
    st.lists(witnesses, max_size=6).map(tuple),
    counts,
    counts,
    st.lists(st.text(min_size=1), max_size=2).map(tuple),
    st.lists(st.text(min_size=1), max_size=2).map(tuple),
)


@given(evidences)
def test_an_orphan_has_users_who_are_all_known_and_dead_and_nothing_speaks_against_it(evidence: Evidence) -> None:
    fates = [fate(witness) for witness in evidence.witnesses]
    if judge(evidence).verdict is Verdict.ORPHAN:
        assert {Fate.DEAD, Fate.ANOTHER} & {*fates}
        assert not {Fate.ALIVE, Fate.OUTSIDE} & {*fates}
        assert not any((evidence.attached, evidence.waiting, evidence.owners, evidence.doubts))


@given(evidences, witnesses)
def test_more_evidence_of_life_never_makes_an_orphan(evidence: Evidence, witness: Witness) -> None:
    before = judge(evidence).verdict
    alive = witness._replace(use=witness.use._replace(pid=1, time=NOW), found=Found("init", 0.0))
    after = judge(evidence._replace(witnesses=(*evidence.witnesses, alive))).verdict
    assert after in (Verdict.OWNED, Verdict.IN_USE)
    assert (before is Verdict.OWNED) == (after is Verdict.OWNED)


@given(evidences)
def test_a_doubt_takes_an_orphan_for_unknown_and_changes_nothing_else(evidence: Evidence) -> None:
    certain = judge(evidence._replace(doubts=())).verdict
    doubtful = judge(evidence._replace(doubts=("it is dark",))).verdict
    assert doubtful is (Verdict.UNKNOWN if certain is Verdict.ORPHAN else certain)
