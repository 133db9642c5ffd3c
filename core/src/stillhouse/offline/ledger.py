"""`BatchLedger`: the state of offline batches, in a file that outlives the process.

Over 300 lines: the SQL of all four tables is kept in one place.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from stillhouse.errors import ConfigurationError
from stillhouse.offline.chunks import Chunk, new_name
from stillhouse.offline.row_sets import Rows

__all__ = ["BatchLedger", "default_path"]

_BUSY_SECONDS = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch_runs (key TEXT PRIMARY KEY, note TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batch_chunks (
    name TEXT PRIMARY KEY, key TEXT NOT NULL, number INTEGER NOT NULL, round INTEGER NOT NULL,
    state TEXT NOT NULL, provider TEXT NOT NULL, path TEXT NOT NULL, rows TEXT NOT NULL,
    requests INTEGER NOT NULL, digest TEXT NOT NULL, own_forms INTEGER NOT NULL,
    job TEXT NOT NULL, input_file TEXT NOT NULL, result_files TEXT NOT NULL,
    provider_state TEXT NOT NULL, counts TEXT NOT NULL, message TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL, sent_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS batch_chunks_of_run ON batch_chunks (key, number);
CREATE TABLE IF NOT EXISTS batch_parts (
    key TEXT NOT NULL, row INTEGER NOT NULL, part INTEGER NOT NULL, output TEXT NOT NULL,
    PRIMARY KEY (key, row, part)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch_outputs (
    key TEXT NOT NULL, row INTEGER NOT NULL, output TEXT, error TEXT, PRIMARY KEY (key, row)
) WITHOUT ROWID;
"""


def default_path() -> Path:
    """Return the file for batches that belong to no bulk run: in the user's state folder.

    The environment variable `STILLHOUSE_STATE_DIR` names another folder.
    """
    import platformdirs

    given = os.environ.get("STILLHOUSE_STATE_DIR")
    folder = Path(given) if given else Path(platformdirs.user_state_dir("stillhouse"))
    return folder / "batches.db"


# What SQLite keeps in the database of a bulk run, to say whose it is: "Stil".
_BULK_RUN = 0x5374696C

_COLUMNS = tuple(Chunk.__dataclass_fields__)


def _may_be_extended(connection: sqlite3.Connection) -> bool:
    """Whether a database is empty, has batches in it, or is that of a bulk run."""
    ((application,),) = connection.execute("PRAGMA application_id")
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return application == _BULK_RUN or not names or any(name.startswith("batch_") for name in names)


class BatchLedger:
    """The chunks of runs, each recorded before it is sent to the provider.

    It has its own tables, whose names begin with `batch_`, in a file that may hold others, and its
    own connection; every transaction is short and on the disk when it ends. Neither requests nor
    credentials are in it.

    Args:
        path: the SQLite file; it is created if it does not exist, readable by its owner alone.

    Attributes:
        path: as above.
        on_change: called after each change, if it is set.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.on_change: Callable[[], object] | None = None
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self.path.touch(mode=0o600)
            # A relative path may look like an address to SQLite, as `file:x` does.
            self._connection = sqlite3.connect(
                self.path.absolute(), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            if not _may_be_extended(self._connection):
                self._connection.close()
                raise ConfigurationError(
                    f"{self.path} is a database of something else, in which no batches are recorded",
                    hint="move it away, or name another folder with the environment variable "
                    "STILLHOUSE_STATE_DIR",
                )
            self._connection.execute("PRAGMA journal_mode=WAL")
            # An intent that is lost in a power cut would be a job that nobody knows of.
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the ledger of offline batches, {self.path}, cannot be used: {error}",
                hint="make the folder writable, or name another with the environment variable "
                "STILLHOUSE_STATE_DIR",
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"the ledger of offline batches, {self.path}, cannot be written: {error}",
                hint="make room for it, then make the same call again; no job is made twice",
            ) from None
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if self.on_change is not None:
            self.on_change()

    # Runs

    @contextmanager
    def working(self, key: str) -> Iterator[None]:
        """Hold the lock of a run, so that no other process works on it; a bulk run has its own lock.

        What another process is sending looks like what a dead one left behind, and would be sent
        again.

        Raises:
            ConfigurationError: another process, or thread, works on it.
        """
        import filelock

        folder = self.path.with_name(f"{self.path.name}.locks")
        folder.mkdir(exist_ok=True, mode=0o700)
        try:
            with filelock.FileLock(folder / key, timeout=1.0):
                yield
        except filelock.Timeout:
            raise ConfigurationError(
                "another process is at the same offline batch",
                hint="wait until it is done, then make the same call again",
            ) from None

    def open_run(self, key: str, **note: Any) -> None:
        """Begin a run, or resume it; the note of a known run stays as it is."""
        with self._transaction() as connection:
            values = (key, json.dumps(note), time.time())
            connection.execute("INSERT OR IGNORE INTO batch_runs VALUES (?, ?, ?)", values)

    def run_keys(self) -> list[str]:
        """Return the keys of all runs, in the order in which they were begun."""
        return [key for (key,) in self._rows("SELECT key FROM batch_runs ORDER BY created_at, key")]

    def note(self, key: str) -> dict[str, Any] | None:
        """Return the note that a run was begun with; `None` if the run is not known."""
        found = self._rows("SELECT note FROM batch_runs WHERE key = ?", key)
        return json.loads(found[0][0]) if found else None

    def run_of_jobs(self, jobs: Iterable[str]) -> str | None:
        """Return the key of the run that one of these jobs belongs to; `None` if there is none."""
        for job in jobs:
            found = self._rows("SELECT key FROM batch_chunks WHERE job = ?", job)
            if found:
                return str(found[0][0])
        return None

    def known_jobs(self) -> set[str]:
        """Return the ids of all jobs of all runs."""
        return {job for (job,) in self._rows("SELECT job FROM batch_chunks WHERE job != ''")}

    def forget(self, key: str) -> None:
        """Remove everything about a run."""
        with self._transaction() as connection:
            for table in ("batch_runs", "batch_chunks", "batch_parts", "batch_outputs"):
                connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608

    # Chunks

    def chunks(self, key: str) -> list[Chunk]:
        """Return the chunks of a run in order, including the collected ones."""
        columns = ", ".join(_COLUMNS)
        found = self._rows(f"SELECT {columns} FROM batch_chunks WHERE key = ? ORDER BY number", key)  # noqa: S608
        return [_chunk(values) for values in found]

    def held(self, key: str) -> Rows:
        """Return the rows that are in a chunk which is not collected yet."""
        found = self._rows("SELECT rows FROM batch_chunks WHERE key = ? AND state != 'collected'", key)
        return Rows.union(Rows.parse(text) for (text,) in found)

    def add(self, key: str, chunk: Chunk, plan: Chunk | None = None) -> Chunk:
        """Record a new chunk, and give it its number. If its rows come from a plan, remove them from it."""
        with self._transaction() as connection:
            if plan is not None:
                (text,) = connection.execute(
                    "SELECT rows FROM batch_chunks WHERE name = ?", (plan.name,)
                ).fetchone()
                rest = Rows(row for row in Rows.parse(text) if row not in chunk.rows)
                if len(rest):
                    connection.execute(
                        "UPDATE batch_chunks SET rows = ? WHERE name = ?", (str(rest), plan.name)
                    )
                else:
                    connection.execute("DELETE FROM batch_chunks WHERE name = ?", (plan.name,))
            return self._insert(connection, key, chunk)

    def update(self, chunk: Chunk, **changes: Any) -> Chunk:
        """Change fields of a chunk, and return the changed one."""
        changed = replace(chunk, **changes, updated_at=time.time())
        changes["updated_at"] = changed.updated_at
        names = ", ".join(f"{name} = ?" for name in changes)
        with self._transaction() as connection:
            connection.execute(
                f"UPDATE batch_chunks SET {names} WHERE name = ?",  # noqa: S608
                (*(_plain(value) for value in changes.values()), chunk.name),
            )
        return changed

    def drop(self, chunk: Chunk) -> None:
        """Remove a chunk for which no job was requested, so that its rows are free again."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM batch_chunks WHERE name = ?", (chunk.name,))

    def replan(self, key: str, chunk: Chunk) -> None:
        """Replace a chunk that has no job by a plan for the same rows, under a new name.

        The name is new because the old one was already sent to the provider, if only in a file.
        """
        with self._transaction() as connection:
            self._insert(connection, key, _planned(chunk, chunk.rows, chunk.round))
            connection.execute("DELETE FROM batch_chunks WHERE name = ?", (chunk.name,))

    def collected(
        self, key: str, chunk: Chunk, again: Rows, parts: Iterable[tuple[int, int, Any]], done: Iterable[int]
    ) -> None:
        """Record that a chunk's results are stored, in one transaction with what follows from it.

        Args:
            key: the run.
            chunk: the chunk.
            again: the rows that are to be sent again.
            parts: the collected generations of these rows: row, part and output.
            done: the rows whose parts are no longer needed.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE batch_chunks SET state = 'collected', updated_at = ? WHERE name = ?",
                (time.time(), chunk.name),
            )
            connection.executemany(
                "DELETE FROM batch_parts WHERE key = ? AND row = ?", ((key, row) for row in done)
            )
            connection.executemany(
                "INSERT OR REPLACE INTO batch_parts VALUES (?, ?, ?, ?)",
                ((key, row, part, _json(output)) for row, part, output in parts),
            )
            if len(again):
                self._insert(connection, key, _planned(chunk, again, chunk.round + 1))

    def _insert(self, connection: sqlite3.Connection, key: str, chunk: Chunk) -> Chunk:
        (last,) = connection.execute("SELECT max(number) FROM batch_chunks WHERE key = ?", (key,)).fetchone()
        number, now = (0 if last is None else last + 1), time.time()
        chunk = replace(chunk, number=number, created_at=now, updated_at=now)
        columns = ", ".join(("key", *_COLUMNS))
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        connection.execute(
            f"INSERT INTO batch_chunks ({columns}) VALUES ({marks})",  # noqa: S608
            (key, *(_plain(getattr(chunk, name)) for name in _COLUMNS)),
        )
        return chunk

    # Collected generations of incomplete rows, and outputs that wait for the whole list

    def parts(self, key: str) -> dict[int, set[int]]:
        """Return which generations of incomplete rows are collected, by row."""
        collected: dict[int, set[int]] = {}
        for row, part in self._rows("SELECT row, part FROM batch_parts WHERE key = ?", key):
            collected.setdefault(row, set()).add(part)
        return collected

    def outputs_of_parts(self, key: str, row: int) -> dict[int, Any]:
        """Return the outputs of the collected generations of a row."""
        found = self._rows("SELECT part, output FROM batch_parts WHERE key = ? AND row = ?", key, row)
        return {part: json.loads(text) for part, text in found}

    def keep(self, key: str, results: Iterable[tuple[int, Any, Any]]) -> None:
        """Keep results until the list is complete: row, and output or error, of JSON types."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO batch_outputs VALUES (?, ?, ?, ?)",
                (
                    (key, row, *(None if item is None else _json(item) for item in (output, error)))
                    for row, output, error in results
                ),
            )

    def kept(self, key: str) -> Iterator[tuple[int, Any, Any]]:
        """Yield the kept results, in the order of the rows."""
        query = "SELECT row, output, error FROM batch_outputs WHERE key = ? ORDER BY row"
        for row, output, error in self._connection.execute(query, (key,)):
            yield row, output and json.loads(output), error and json.loads(error)

    def kept_rows(self, key: str) -> Rows:
        """Return the rows whose results were kept."""
        found = self._connection.execute("SELECT row FROM batch_outputs WHERE key = ? ORDER BY row", (key,))
        return Rows(row for (row,) in found)

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._connection.execute(query, values).fetchall()


def _json(value: Any) -> str:
    """Return a result as JSON; what a backend adds of other types becomes its text."""
    return json.dumps(value, default=str)


def _planned(chunk: Chunk, rows: Rows, round: int) -> Chunk:
    return Chunk(new_name(), 0, round, "planned", chunk.provider, chunk.path, rows, own_forms=chunk.own_forms)


def _plain(value: Any) -> Any:
    if isinstance(value, Rows):
        return str(value)
    return json.dumps(value) if isinstance(value, (dict, tuple)) else value


def _chunk(values: Sequence[Any]) -> Chunk:
    fields = dict(zip(_COLUMNS, values, strict=True))
    fields["rows"] = Rows.parse(fields["rows"])
    fields["own_forms"] = bool(fields["own_forms"])
    fields["result_files"] = tuple(json.loads(fields["result_files"]))
    fields["counts"] = json.loads(fields["counts"])
    return Chunk(**fields)
