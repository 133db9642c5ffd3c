"""`damage_of`: checks a state for damage before it is used."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from typing import NamedTuple

from stillhouse._wording import number_of
from stillhouse.jobs.store.schema import build
from stillhouse.jobs.store.seals import SEALED, is_sealed

__all__ = ["Damage", "all_records", "damage_of"]


class Damage(NamedTuple):
    """Damage to a state.

    Attributes:
        rows: number of damaged rows; `None` if it is unknown because the database itself is damaged.
        kept: number of readable rows; 0 until they were read.
    """

    rows: int | None
    kept: int = 0

    @property
    def told(self) -> str:
        """The lost rows, as the end of a sentence."""
        if self.rows is None:
            return f"{number_of(self.kept, 'row')} can be read and kept, and the others are generated again"
        if self.rows == 0:
            return "no row is lost"
        return f"{number_of(self.rows, 'row', 'is/are')} generated again"


def damage_of(connection: sqlite3.Connection) -> Damage | None:
    """Check a database for damage: its structure, and every sealed record.

    Raises:
        sqlite3.Error: a table is missing, or cannot be read.
    """
    connection.text_factory = lambda content: content.decode(errors="replace")
    try:
        ((verdict,),) = connection.execute("PRAGMA integrity_check(1)")
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        if verdict != "ok" or not tables.items() >= _expected_tables().items():
            return Damage(None)
        damaged = {
            table: sum(not is_sealed(table, record) for record in all_records(connection, table))
            for table in tables.keys() & SEALED
        }
        return Damage(damaged["rows"]) if any(damaged.values()) else None
    finally:
        connection.text_factory = str


def all_records(connection: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    """Read every record of a table."""
    return connection.execute(f"SELECT * FROM {table}")  # noqa: S608


@functools.cache
def _expected_tables() -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        build(connection)
        return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
