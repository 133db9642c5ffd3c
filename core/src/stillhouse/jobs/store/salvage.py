"""The repair of a damaged state: every record with a valid seal is kept.

A damaged state is kept under another name. Its readable records become the new state, whose rows are
finished; the other rows are generated again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.store.damage import Damage, all_records, damage_of
from stillhouse.jobs.store.database import (
    QUEUED,
    SQLITE_ERRORS,
    DamagedError,
    StoreError,
    connect,
    has_application_id,
    is_idle,
    read,
    sqlite_uri,
    translated,
)
from stillhouse.jobs.store.pages import contains, records
from stillhouse.jobs.store.schema import build
from stillhouse.jobs.store.seals import facts_of, is_sealed, sealed

__all__ = ["holds_run", "intact", "open_sound", "put_aside", "unknown_command"]

# The columns of each table, which tell its records, and those that are floats: SQLite stores 1.0 as 1.
_COLUMNS = {"rows": 17, "info": 3, "sessions": 9, "members": 4}
_REALS = {"rows": (6, 7, 13), "sessions": (1, 2)}

# Those whose first column is the number of the record, which is not stored a second time.
_NUMBERED = ("rows", "sessions")

_LEDGER = b"CREATE TABLE batch_chunks"


def open_sound(path: Path) -> tuple[sqlite3.Connection, str]:
    """Open the database for the one process that writes it; a damaged one is reduced to its readable records.

    Returns:
        The database, and a message about the damage, which is empty if there was none.

    Raises:
        DamagedError: no record can be read, or it is not a run's database.
        StoreError: it cannot be used for another reason.
    """
    problem, damage = DamagedError(f"the run's state {path} is damaged and cannot be used"), None
    try:
        connection = connect(path)
        try:
            with translated(path):
                damage = damage_of(connection)
        except BaseException:
            connection.close()
            raise
        if damage is None:
            return connection, ""
        connection.close()
    except DamagedError as error:
        problem = error
    aside = _rebuild(path, problem)
    connection = connect(path)
    told = _damage_of_rest(damage, connection).told
    return connection, f"the run's state was damaged: {told}; the damaged one is kept as {aside}"


@contextlib.contextmanager
def intact(path: Path, *, checked: bool = True) -> Iterator[tuple[sqlite3.Connection, Damage | None]]:
    """Open the database for reading while the block runs; of a damaged one, what can be read of it.

    SQLite's errors become `StoreError` in the block.

    Args:
        path: the database.
        checked: whether to look for damage, for which every row is read.

    Raises:
        StoreError: it does not exist or cannot be used, and nothing of it can be read.
    """
    connection, damage = _readable(path, checked)
    with contextlib.closing(connection), translated(path):
        yield connection, damage


def _readable(path: Path, checked: bool) -> tuple[sqlite3.Connection, Damage | None]:
    problem, damage = DamagedError(f"the run's state {path} is damaged and cannot be used"), None
    was_idle = is_idle(path)
    try:
        connection = read(path)
        try:
            with translated(path):
                damage = damage_of(connection) if checked else None
        except BaseException:
            connection.close()
            raise
        if damage is None:
            return connection, None
        connection.close()
    except DamagedError as error:
        problem = error
    if was_idle and not is_idle(path):  # a process began to work on it while it was read
        return _readable(path, checked=False)
    connection = sqlite3.connect("", isolation_level=None)
    try:
        build(connection)
        if not _copy(path, connection):
            raise _lost(path, problem)
    except BaseException:
        connection.close()
        raise
    return connection, _damage_of_rest(damage, connection)


def _damage_of_rest(damage: Damage | None, rest: sqlite3.Connection) -> Damage:
    ((kept,),) = rest.execute("SELECT count(*) FROM rows")
    return Damage(None if damage is None else damage.rows, kept)


def unknown_command(path: Path) -> DamagedError:
    """Return the error for a state that has lost the command of its rows."""
    return DamagedError(
        f"the run's state {path} is damaged: what the run was asked for cannot be read",
        hint="put a copy in its place, or start over with --restart",
    )


def holds_run(path: Path) -> bool:
    """Whether a file is a run's database, damaged or not, or is empty, so that there is nothing to lose."""
    return has_application_id(path) or any(_sealed_records(path))


def _lost(path: Path, problem: StoreError) -> StoreError:
    """Return the error for a state without a readable record."""
    hint = "put a copy in its place, or start over with --restart"
    if not has_application_id(path):
        hint = "put a copy in its place, or move it away and start over"
        if "is damaged" not in problem.message:  # it says what the file is instead
            return problem
    return DamagedError(f"{problem.message}; nothing of it can be read", hint=hint)


def _rebuild(path: Path, problem: StoreError) -> Path:
    """Replace a damaged state by its readable records, and return the path of the damaged one."""
    if not any(table == "rows" for table, _ in _sealed_records(path)):
        raise _lost(path, problem)
    folder = PartialFolder(path)
    try:
        part = folder.path / path.name
        with (
            translated(path),
            contextlib.closing(sqlite3.connect(part.absolute(), isolation_level=None)) as connection,
        ):
            build(connection)
            _copy(path, connection)
            if connection.execute("SELECT 1 FROM info WHERE key = 'command'").fetchone() is None:
                raise unknown_command(path)
            _copy_ledger(path, connection)
        aside = put_aside(path)
        part.replace(path)
    finally:
        folder.remove()
    return aside


def _copy(path: Path, connection: sqlite3.Connection) -> bool:
    """Copy the sealed records of a damaged state, and return whether there are any."""
    connection.execute("BEGIN")
    some = False
    for table, record in _sealed_records(path):
        some = True
        # A page that is not used any more may have an earlier result of a row.
        if (
            table == "rows"
            and connection.execute(
                "SELECT 1 FROM rows WHERE row = ? AND (finished > ? OR (finished = ? AND state = ?))",
                (record[0], record[6], record[6], QUEUED),
            ).fetchone()
        ):
            continue
        marks = ", ".join("?" * len(record))
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", record)  # noqa: S608
    # Rows may be lost, and the output is written again in any case.
    connection.execute("DELETE FROM info WHERE key = 'complete'")
    if connection.execute("SELECT 1 FROM info WHERE key = 'command'").fetchone() is None:
        found = connection.execute(
            "SELECT command FROM sessions WHERE command != 'null' ORDER BY session DESC LIMIT 1"
        ).fetchone()
        if found is not None:
            connection.execute("INSERT INTO info VALUES (?, ?, ?)", sealed("info", "command", found[0]))
    connection.execute("COMMIT")
    return some


def _sealed_records(path: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the table and the columns of every record with a valid seal in a damaged state."""
    for number, values in records(path):
        for table, columns in _COLUMNS.items():
            if len(values) != columns:
                continue
            if table in _NUMBERED:
                values[0] = number
            for place in _REALS.get(table, ()):
                if isinstance(values[place], int):
                    values[place] = float(values[place])
            if is_sealed(table, values):
                yield table, tuple(values)


def _copy_ledger(path: Path, connection: sqlite3.Connection) -> None:
    """Copy the tables of offline batches, which have no seals: a lost record means paying for nothing."""
    # The tables are told by either: damage may have hit the other.
    if not ("batches" in facts_of(connection) or contains(path, _LEDGER)):
        return
    try:
        with contextlib.closing(
            sqlite3.connect(f"{sqlite_uri(path.absolute())}?mode=ro", uri=True)
        ) as damaged:
            found = damaged.execute(
                "SELECT name, type, sql FROM sqlite_master WHERE tbl_name LIKE 'batch%' AND sql IS NOT NULL "
                "ORDER BY type DESC"
            ).fetchall()
            if not any(name == "batch_chunks" for name, *_ in found):
                raise sqlite3.DatabaseError("its tables cannot be found")
            for name, kind, sql in found:
                connection.execute(sql)
                for record in all_records(damaged, name) if kind == "table" else ():
                    marks = ", ".join("?" * len(record))
                    connection.execute(f"INSERT INTO {name} VALUES ({marks})", record)  # noqa: S608
    except SQLITE_ERRORS as error:
        raise StoreError(
            f"the run's state {path} is damaged, and with it the record of its offline batches: {error}",
            hint="put a copy in its place; or, if no batch is running, start over with --restart",
        ) from None


def put_aside(path: Path, label: str = "damaged") -> Path:
    """Keep a state that is replaced, and SQLite's files next to it, under a free name too.

    Args:
        path: the state.
        label: why it is replaced, for the name.
    """
    number, aside = 1, path.with_name(f"{path.name}.{label}")
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.{label}-{number}")
    try:
        os.link(path, aside)
    except OSError:  # a file system without links
        with path.open("rb") as source, aside.open("xb") as copied:
            shutil.copyfileobj(source, copied, 1 << 20)
    # They would be read into the new one.
    for suffix in ("-wal", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    return aside
