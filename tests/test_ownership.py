"""Owners of objects, and what a killed daemon would leave of them: the tables and the journal say the same, whatever is
owned, disowned, removed and made anew, in any order.
"""

import shutil
import tempfile
from dataclasses import dataclass
from errno import EDQUOT, EINVAL, ENOENT, EPERM
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from synosfs.errors import SynosError
from synosfs.host.credentials import Credentials
from synosfs.ipc import journal as journal_module
from synosfs.ipc import ownership as ownership_module
from synosfs.ipc.fifo import FifoRegistry
from synosfs.ipc.journal import Intent, Journal, Owner, Removal
from synosfs.ipc.ownership import Left, Ownership
from synosfs.ipc.removals import UNSEEN, Removals
from synosfs.ipc.sysv import Listed
from synosfs.ipc.things import Thing, Things

ROOT, USER, OTHER = Credentials(0, 0, (), 1 << 3), Credentials(1000, 1000, (), 0), Credentials(1001, 1001, (), 0)

_NAME, _PLACE = st.sampled_from(["a", "b \n\udcff", "c"]), st.integers(0, 2)


@dataclass(frozen=True, eq=False)
class Process:
    pid: int
    start_time: int
    program: str = "test"


class Owning(RuleBasedStateMachine):
    """FIFOs are owned here, whose books are the daemon's own: no host is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="synosfs-test-"))
        self.journal = Journal(str(self.directory / "journal"))
        self.fifos = FifoRegistry(self.journal)
        self.ownership = Ownership(Things(self.fifos), self.journal)
        self.processes = [Process(100 + place, 0) for place in range(3)]
        self.owners: dict[str, list[Process]] = {}

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.directory)

    @rule(name=_NAME)
    def make(self, name: str) -> None:
        if self.fifos.find(name) is None:
            self.fifos.make(name, 0o600, USER.uid, USER.gid)

    @rule(name=_NAME)
    def remove(self, name: str) -> None:
        if self.fifos.find(name) is not None:
            self.fifos.remove(name, ROOT)
            self.ownership.gone(Thing("fifo", name))
            self.owners.pop(name, None)

    @rule(name=_NAME, place=_PLACE, rights=st.sampled_from([ROOT, USER, OTHER]))
    def own(self, name: str, place: int, rights: Credentials) -> None:
        process, thing = self.processes[place], Thing("fifo", name)
        if self.fifos.find(name) is None or rights is OTHER:
            with pytest.raises(SynosError) as refused:
                self.ownership.own(process, rights, thing)
            assert refused.value.errno == (ENOENT if self.fifos.find(name) is None else EPERM)
            return
        self.ownership.own(process, rights, thing)
        owners = self.owners.setdefault(name, [])
        if process not in owners:
            owners.append(process)

    @rule(name=_NAME, place=_PLACE, comes_to_be=st.booleans())
    def make_for(self, name: str, place: int, comes_to_be: bool) -> None:
        if self.fifos.find(name) is not None:
            return
        with self.ownership.making(self.processes[place], USER, "fifo", name) as making:
            assert [intent.name for _, intent in self.journal.intents()] == [name]
            if comes_to_be:
                self.fifos.make(name, 0o600, USER.uid, USER.gid)
                making.made(Thing("fifo", name))
                self.owners[name] = [self.processes[place]]

    @rule(name=_NAME, place=_PLACE)
    def disown(self, name: str, place: int) -> None:
        process, owners = self.processes[place], self.owners.get(name, [])
        if process in owners:
            self.ownership.disown(process, Thing("fifo", name))
            owners.remove(process)
        else:
            with pytest.raises(SynosError, match="does not own"):
                self.ownership.disown(process, Thing("fifo", name))

    @rule(place=_PLACE)
    def end(self, place: int) -> None:
        process = self.processes[place]
        self.processes[place] = Process(process.pid, process.start_time + 1)  # its pid is used again
        left = {one.thing.name: one for one in self.ownership.ended(process)}
        for name, owners in list(self.owners.items()):
            if process in owners:
                owners.remove(process)
            elif not owners:
                continue
            if not owners:
                one = left.pop(name)
                assert isinstance(one, Left)
                assert one.mark == self.ownership._things.look(one.thing).mark
                self.journal.gone(*one.thing)
        assert not left

    @precondition(lambda self: self.owners)
    @rule(name=_NAME)
    def replace_behind_our_back(self, name: str) -> None:
        """The name then means another object: who owned the first one owns nothing that is there."""
        if self.owners.get(name):
            self.fifos.remove(name, ROOT)
            self.fifos.make(name, 0o600, USER.uid, USER.gid)
            process = Process(999, 0)
            self.ownership.own(process, USER, Thing("fifo", name))
            assert self.ownership.owners("fifo", name) == [process]
            self.remove(name)

    @invariant()
    def tables_and_journal_agree(self) -> None:
        for name in ("a", "b \n\udcff", "c"):
            assert self.ownership.owners("fifo", name) == self.owners.get(name, [])
        for process in self.processes:
            owned = {name for name, owners in self.owners.items() if process in owners}
            assert {thing.name for thing in self.ownership.of(process)} == owned
        owned = sum(len(owners) for owners in self.owners.values())
        assert self.ownership._of_user.total() == owned
        written = {(owner.name, owner.pid, owner.start_time) for owner in self.journal.owners()}
        assert written == {
            (name, process.pid, process.start_time) for name, owners in self.owners.items() for process in owners
        }
        assert self.journal.intents() == []


Owning.TestCase.settings = settings(stateful_step_count=30, max_examples=40)
TestOwning = Owning.TestCase

OWNER = Owner("msg", 3, "mark", 10, 20, 0, 0, 0)
INTENT = Intent("msg", 0x71, "", 1.5, 10, 20, 0, 0, 0)


def test_a_user_owns_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership_module, "MOST_PER_USER", 3)
    fifos = FifoRegistry(Journal())
    ownership, process = Ownership(Things(fifos), Journal()), Process(10, 0)
    for name in "abcd":
        fifos.make(name, 0o600, USER.uid, USER.gid)
    for name in "abca":
        ownership.own(process, USER, Thing("fifo", name))
    with pytest.raises(SynosError, match="user 1000 own 3 objects already") as refused:
        ownership.own(Process(11, 0), USER, Thing("fifo", "d"))
    assert refused.value.errno == EDQUOT
    ownership.disown(process, Thing("fifo", "a"))
    ownership.own(process, USER, Thing("fifo", "d"))


def image(path: Path) -> Path:
    """What a daemon that is killed now leaves."""
    copy = path.with_name("image")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def test_what_a_killed_daemon_leaves_is_all_of_each_change(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    number = journal.intend(INTENT)
    after = Journal(str(image(path)))
    assert (after.intents(), after.owners()) == ([(number, INTENT)], [])
    after.close()
    journal.owned(OWNER, number)
    after = Journal(str(image(path)))
    assert (after.intents(), after.owners()) == ([], [OWNER])
    assert after.daemon_before == journal_module.os.getpid()
    after.close()
    journal.close()


def test_pids_of_another_boot_are_forgotten_and_removals_are_not(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.owned(OWNER)
    removal = Removal(1.0, "mqueue", "\udcff", 0, -1, "rm", 10, 0, "bash")
    journal.removed(removal)
    journal._execute("UPDATE host SET boot = 'another'")
    journal.close()
    journal = Journal(str(path))
    assert (journal.owners(), list(journal.removals())) == ([], [removal])
    journal.close()


def test_removals_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST_REMOVALS", 10)
    monkeypatch.setattr(journal_module, "_SOME", 5)
    journal = Journal(str(tmp_path / "journal"))
    for number in range(1000):
        journal.removed(Removal(1.0, "msg", number, 0, 0, "rm", 10, 0, "bash"))
        kept = [removal.name for removal in journal.removals()]
        assert len(kept) <= 15
        assert kept[-10:] == list(range(max(0, number - 9), number + 1))
    journal.close()


def test_one_that_nobody_may_read_or_that_is_none_does_not_end_the_mount(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "directory", tmp_path / "nowhere/journal"):
        journal = Journal(str(path))
        assert not journal.is_kept
        journal.owned(OWNER, journal.intend(INTENT))
        assert journal.owners() == []
        journal.close()


def test_what_is_missing_at_a_look_is_told_of_once_and_what_was_removed_here_is_not() -> None:
    removals = Removals(Journal())

    def look(*numbers: int) -> None:
        listing = [Listed(number, number + 100, 1000) for number in numbers]
        assert list(removals.looking("msg", listing)) == listing

    look(1, 2, 3, 4)
    removals.add(Thing("msg", 2), None, "IPC_RMID", 10, 0, "bash")
    removals.expected.add(Thing("msg", 4))
    look(1)
    look(1)
    told = [(removal.name, removal.why, removal.key, removal.owner) for removal in removals.of("msgq")]
    assert told == [(3, UNSEEN, 103, 1000), (2, "IPC_RMID", 0, -1)]


@pytest.mark.parametrize(
    ("path", "thing"),
    [
        ("msgq/3", Thing("msg", 3)),
        ("sem/sysv/3", Thing("sem", 3)),
        ("shm/posix/a b", Thing("memory", "a b")),
        ("sem/posix/s", Thing("semaphore", "s")),
        ("pipes/jobs", Thing("fifo", "jobs")),
    ],
)
def test_a_path_names_an_object(path: str, thing: Thing) -> None:
    assert Things(FifoRegistry(Journal())).named(path) == thing


@pytest.mark.parametrize(
    "path", ["", "3", "msgq", "msgq/", "msgq/key/7", "sem/sysv/0x7", "proc/3", "pipes/", "msgq/x/3"]
)
def test_what_names_none_is_refused_with_the_forms_that_do(path: str) -> None:
    with pytest.raises(SynosError, match="names no object; as msgq/3") as refused:
        Things(FifoRegistry(Journal())).named(path)
    assert refused.value.errno == EINVAL
