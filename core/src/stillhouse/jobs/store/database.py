"""The database of a run: its schema, how it is opened, and what its errors mean.

One SQLite file holds a run: its command (`info`), every row that has a result (`rows`), and the
processes that worked on it (`sessions`). One process at a time writes it, which a lock file next to it
ensures; any number may read meanwhile.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Literal

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.targets import beside

__all__ = [
    "DONE", "FAILED", "QUEUED", "Outcome", "StoreError", "connect", "holds_run", "not_ours", "read",
    "reading", "store_path", "translated",
]  # fmt: skip

SCHEMA_VERSION = 2
APPLICATION_ID = 0x5374696C  # "Stil"

# The states of a row.
QUEUED, DONE, FAILED = 0, 1, 2

Outcome = Literal["complete", "interrupted", "stopped", "waiting"]
"""How the work of a process on a run ended; `stopped`: by an error, `waiting`: for offline batches."""

_SCHEMA = """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE rows (
    row INTEGER PRIMARY KEY,       -- its place in the input, from 0
    digest INTEGER NOT NULL,       -- of the row as it was when it was sent
    state INTEGER NOT NULL,        -- QUEUED (to be generated again), DONE or FAILED
    kind TEXT,                     -- of the error; NULL if there is none
    made INTEGER NOT NULL,         -- how many generations there are
    result TEXT NOT NULL,          -- the columns that the output gets, as JSON
    finished REAL NOT NULL,        -- when, in seconds since 1970
    seconds REAL,                  -- how long the call took; 0 without one, NULL for a batch
    input_tokens INTEGER,          -- as far as the backend said
    output_tokens INTEGER,         -- reasoning included
    cached_tokens INTEGER,         -- of the input, what was read from the provider's cache
    written_tokens INTEGER,        -- of the input, what was written to it
    written_1h_tokens INTEGER,     -- of these, what is kept for an hour
    cost REAL,                     -- in USD, where the provider itself says it
    billed_input_tokens INTEGER,   -- what it bills, where it says that this is another count
    billed_output_tokens INTEGER
);
CREATE INDEX failures ON rows (kind) WHERE kind IS NOT NULL;

CREATE TABLE sessions (
    session INTEGER PRIMARY KEY,
    started REAL NOT NULL,
    ended REAL,                    -- NULL while it works, and if it was killed
    outcome TEXT,                  -- complete, interrupted, stopped, or waiting for batches
    process INTEGER NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL          -- of stillhouse
);
"""


# What a version of the schema added to `rows`, by that version: always at the end.
_ADDED = {
    2: (
        "written_1h_tokens INTEGER",
        "cost REAL",
        "billed_input_tokens INTEGER",
        "billed_output_tokens INTEGER",
    )
}


class StoreError(ConfigurationError):
    """The run's database cannot be used, or cannot be written any more."""


def not_ours(path: Path) -> StoreError:
    """Return the error for something that Stillhouse did not make under a name that a run needs."""
    return StoreError(
        f"{path} exists, and Stillhouse did not make it; the run needs a file of that name",
        hint="move it away, or give another output",
    )


def store_path(output: Path) -> Path:
    """Return the path of the database of an output's run."""
    return beside(output, ".run.db")


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for the one process that writes it; create it if it does not exist.

    One of an older version gets the columns that it lacks.

    Raises:
        StoreError: it is damaged, of a newer version, not a run's, or cannot be written.
    """
    with translated(path):
        connection = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        try:
            # Checked before anything is changed: it may be a database of something else.
            version = _version(connection, path)
            # A commit is safe from the end of the process at once, and from that of the machine
            # when `RunStore` has it written through.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if version == 0:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                    f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
                # So that the file itself, without its log, shows that it is a run's.
                connection.execute("PRAGMA wal_checkpoint")
            elif version < SCHEMA_VERSION:
                added = "".join(f"ALTER TABLE rows ADD COLUMN {column};" for column in _lacking(version))
                connection.executescript(
                    f"BEGIN IMMEDIATE; {added} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
        except BaseException:
            connection.close()
            raise
    return connection


def read(path: Path) -> sqlite3.Connection:
    """Open the database for reading, also while another process writes it; see `reading`.

    Raises:
        StoreError: it does not exist, or cannot be used.
    """
    if not path.is_file():
        raise StoreError(
            f"there is no run of this output: {path} does not exist",
            hint="give the OUTPUT of a stillhouse generate",
        )
    # No process writes where there is no log; reading it as immutable leaves no files next to it.
    is_idle = not Path(f"{path}-wal").exists()
    uri = f"{sqlite_uri(path.absolute())}?mode=ro{'&immutable=1' if is_idle else ''}"
    with translated(path):
        connection = sqlite3.connect(uri, uri=True, timeout=10.0)
        try:
            version = _version(connection, path)
            if version == 0:
                raise StoreError(f"{path} holds no run yet", hint="start one, or wait until it has started")
            if version < SCHEMA_VERSION:  # nobody but the process that works on it changes it
                empty = ", ".join(f"NULL AS {column.split()[0]}" for column in _lacking(version))
                connection.execute(f"CREATE TEMP VIEW rows AS SELECT *, {empty} FROM main.rows")  # noqa: S608
        except BaseException:
            connection.close()
            raise
    return connection


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for reading while the block runs, in which SQLite's errors become `StoreError`.

    Raises:
        StoreError: it does not exist, or cannot be used.
    """
    with contextlib.closing(read(path)) as connection, translated(path):
        yield connection


def sqlite_uri(path: PurePath) -> str:
    """Return an absolute path as the address by which SQLite opens it.

    SQLite takes no host in an address. That of a share on Windows, `\\\\host\\share`, is part of its path.
    """
    uri = path.as_uri()
    return uri if uri.startswith("file:///") else uri.replace("file://", "file:////", 1)


def holds_run(path: Path) -> bool:
    """Whether a file is a run's database, damaged or not; an empty file is the beginning of one."""
    try:
        with path.open("rb") as stream:
            head = stream.read(72)
    except OSError:
        return False
    if not head or head[68:] == APPLICATION_ID.to_bytes(4, "big"):
        return True
    # The application's id may still be in the log.
    try:
        with contextlib.closing(
            sqlite3.connect(f"{sqlite_uri(path.absolute())}?mode=ro", uri=True)
        ) as connection:
            return _version(connection, path) > 0
    except (sqlite3.Error, StoreError):
        return False


def _lacking(version: int) -> list[str]:
    """Return the columns that `rows` lacks in a database of an older version."""
    return [column for added in range(version + 1, SCHEMA_VERSION + 1) for column in _ADDED[added]]


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the schema; 0 for a new file."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID and (
        application or version or connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    ):
        raise StoreError(f"{path} is a database of something else", hint="give another output, or move it")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer version of stillhouse (schema {version}; this one knows "
            f"{SCHEMA_VERSION})",
            hint="pip install --upgrade stillhouse",
        )
    return version


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `StoreError`: what happened to the run and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        hint = "make the same command again when that is mended; it goes on from there"
        if code == sqlite3.SQLITE_FULL:
            raise StoreError(f"the disk of {path} is full", hint=f"make room; {hint[5:]}") from error
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise StoreError(
                f"the run's state {path} is damaged: {error}",
                hint="put a copy in its place, or begin anew with --restart"
                if holds_run(path)
                else "put a copy in its place, or move it away and begin anew",
            ) from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise StoreError(
                f"the run's state {path} cannot be written: {error}",
                hint="check the folder and its permissions",
            ) from error
        raise StoreError(f"the run's state {path} cannot be used: {error}", hint=hint) from error
