"""What must outlive a killed daemon: who owns what, what was about to be made for whom, what was removed, and the names
of FIFOs, which the host does not have.

An SQLite database in the daemon's runtime directory, which is in memory and the daemon's alone. Each change is one
transaction, so after SIGKILL at any point all of it is there or nothing: an *intent* stands before an owned object is
made, and gives way to its owner before anybody is told of the object. Nothing is forced to a disk: what could lose what
the kernel has already taken, a power failure, takes the objects too.

Where there is no place for it, or it fails, the mount goes on without; the log says so, once.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

#: So many removals are kept; when there are this many more, the oldest go.
MOST_REMOVALS, _SOME = 10_000, 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS host (boot TEXT, pid_namespace TEXT, daemon INTEGER);
CREATE TABLE IF NOT EXISTS intent (
    id INTEGER PRIMARY KEY, kind TEXT, name, before TEXT, at REAL,
    pid INTEGER, start_time INTEGER, uid INTEGER, gid INTEGER, capabilities INTEGER);
CREATE TABLE IF NOT EXISTS owner (
    kind TEXT, name, mark TEXT, pid INTEGER, start_time INTEGER, uid INTEGER, gid INTEGER, capabilities INTEGER,
    PRIMARY KEY (kind, name, pid, start_time)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fifo (name PRIMARY KEY, mode INTEGER, uid INTEGER, gid INTEGER, made_ns INTEGER);
CREATE TABLE IF NOT EXISTS removal (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, kind TEXT, name, key INTEGER, owner INTEGER, why TEXT,
    pid INTEGER, uid INTEGER, program TEXT);
"""


class Owner(NamedTuple):
    """An owner of an object: the process, and the rights with which the object goes when it is the last one."""

    kind: str
    name: int | str
    mark: str
    pid: int
    start_time: int
    uid: int
    gid: int
    capabilities: int


class Intent(NamedTuple):
    """What was about to be made for a process: ``name`` is a key (0: IPC_PRIVATE) or a name. ``before`` is the mark of
    what had it then, and empty if nothing had; ``at`` is when, in seconds since the epoch.
    """

    kind: str
    name: int | str
    before: str
    at: float
    pid: int
    start_time: int
    uid: int
    gid: int
    capabilities: int


class Removal(NamedTuple):
    """An object that is gone: when (seconds since the epoch), what it was, whose, why, and by whom (pid 0: nobody
    knows; uid or owner -1 likewise).
    """

    at: float
    kind: str
    name: int | str
    key: int
    owner: int
    why: str
    pid: int
    uid: int
    program: str


class KeptFifo(NamedTuple):
    """A FIFO of ``pipes/``: permission bits, owner, and when it was made, in nanoseconds since the epoch."""

    name: str
    mode: int
    uid: int
    gid: int
    made_ns: int


class Journal:
    """One for the mount; used from the trio thread only. Without a ``path`` it forgets."""

    def __init__(self, path: str | None = None) -> None:
        self._database: sqlite3.Connection | None = None
        self._removals = 0
        #: The daemon that was killed, 0 if there was none; what it made carries its pid.
        self.daemon_before = 0
        if path is not None:
            try:
                self._open(path)
            except (sqlite3.Error, OSError) as error:
                self._fail(error)

    @property
    def is_kept(self) -> bool:
        return self._database is not None

    def _open(self, path: str) -> None:
        database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        os.chmod(path, 0o600)
        self._database = database
        # In memory alone but for the log of changes, and nobody else's: so no other file is needed, or opened later.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=OFF", "temp_store=MEMORY"):
            database.execute(f"PRAGMA {pragma}")
        database.executescript(_SCHEMA)
        with open("/proc/sys/kernel/random/boot_id") as boot:
            here = boot.read().strip(), os.readlink("/proc/self/ns/pid")
        *there, daemon = database.execute("SELECT * FROM host").fetchone() or ("", "", 0)
        database.execute("BEGIN")
        if tuple(there) == here:
            self.daemon_before = daemon
        else:  # pids of another boot or namespace say nothing here
            database.execute("DELETE FROM owner")
            database.execute("DELETE FROM intent")
        database.execute("DELETE FROM host")
        database.execute("INSERT INTO host VALUES (?, ?, ?)", (*here, os.getpid()))
        database.execute("COMMIT")
        (self._removals,) = database.execute("SELECT count(*) FROM removal").fetchone()

    def intend(self, intent: Intent) -> int:
        """It is about to be made; the answer names the intent."""
        return self._execute("INSERT INTO intent VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", intent)

    def owned(self, owner: Owner, intent: int = 0) -> None:
        """The object has this owner; an intent that led to it is over."""
        self._execute("BEGIN")
        self._execute("INSERT OR REPLACE INTO owner VALUES (?, ?, ?, ?, ?, ?, ?, ?)", owner)
        self._execute("DELETE FROM intent WHERE id = ?", (intent,))
        self._execute("COMMIT")

    def given_up(self, intent: int) -> None:
        """Nothing was made."""
        self._execute("DELETE FROM intent WHERE id = ?", (intent,))

    def disowned(self, kind: str, name: int | str, pid: int, start_time: int) -> None:
        """A process is no owner of it any more."""
        where = "kind = ? AND name = ? AND pid = ? AND start_time = ?"
        self._execute(f"DELETE FROM owner WHERE {where}", (kind, name, pid, start_time))

    def gone(self, kind: str, name: int | str) -> None:
        """Nothing is left to own."""
        self._execute("DELETE FROM owner WHERE kind = ? AND name = ?", (kind, name))

    def removed(self, removal: Removal) -> None:
        """Keep it in mind, and forget the oldest when there are too many."""
        self._execute("INSERT INTO removal VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", removal)
        self._removals += 1
        if self._removals >= MOST_REMOVALS + _SOME:
            oldest = f"SELECT id FROM removal ORDER BY id DESC LIMIT -1 OFFSET {MOST_REMOVALS}"
            self._execute(f"DELETE FROM removal WHERE id IN ({oldest})")
            self._removals = MOST_REMOVALS

    def fifo(self, fifo: KeptFifo) -> None:
        """A name of ``pipes/`` leads to this one."""
        self._execute("INSERT OR REPLACE INTO fifo VALUES (?, ?, ?, ?, ?)", fifo)

    def fifo_gone(self, name: str) -> None:
        self._execute("DELETE FROM fifo WHERE name = ?", (name,))

    def fifos(self) -> list[KeptFifo]:
        """Those of a daemon that was killed: with one that ends by itself, its FIFOs end too."""
        return [KeptFifo(*row) for row in self._select("SELECT * FROM fifo")]

    def owners(self) -> list[Owner]:
        """As they were when the daemon before this one ended."""
        return [Owner(*row) for row in self._select("SELECT * FROM owner")]

    def intents(self) -> list[tuple[int, Intent]]:
        """Those that it did not come to carry out."""
        return [(number, Intent(*row)) for number, *row in self._select("SELECT * FROM intent")]

    def removals(self) -> Iterator[Removal]:
        """The latest last."""
        for _, *row in self._select("SELECT * FROM removal ORDER BY id"):
            yield Removal(*row)

    def close(self) -> None:
        self._execute("DELETE FROM owner WHERE kind = ?", ("fifo",))
        self._execute("DELETE FROM fifo")
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> int:
        if self._database is None:
            return 0
        try:
            return self._database.execute(statement, [_stored(value) for value in values]).lastrowid or 0
        except sqlite3.Error as error:
            self._fail(error)
            return 0

    def _select(self, statement: str) -> list[tuple[Any, ...]]:
        if self._database is None:
            return []
        try:
            return [tuple(map(_found, row)) for row in self._database.execute(statement)]
        except sqlite3.Error as error:
            self._fail(error)
            return []

    def _fail(self, error: Exception) -> None:
        log.warning("no journal is kept, so a killed daemon forgets owners, removals and FIFOs: %s", error)
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None


def _stored(value: object) -> object:
    """Names need not be text, and a database's text has to be: they are stored as bytes."""
    return os.fsencode(value) if isinstance(value, str) else value


def _found(value: object) -> object:
    return os.fsdecode(value) if isinstance(value, bytes) else value
