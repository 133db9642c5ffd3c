"""`FirstSeen`: where each of many keys was seen first."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self

__all__ = ["FirstSeen"]

_SCHEMA = """
PRAGMA journal_mode = OFF;         -- nothing in it is ever needed again
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -16000;        -- KiB
CREATE TABLE seen (key BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
BEGIN;
"""


class FirstSeen:
    """Keys, each with the place where it was seen first; a context manager.

    They wait in a temporary database without a name, which the system removes with the process, so that
    memory does not grow with their number.

    Raises:
        sqlite3.Error: the disk for temporary files cannot be used; so does `first`.
    """

    def __enter__(self) -> Self:
        self._database = sqlite3.connect("", isolation_level=None)
        try:
            self._database.executescript(_SCHEMA)
        except BaseException:
            self._database.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def first(self, key: bytes, place: int) -> int | None:
        """Return where a key was seen before; `None` if it is new, and was seen here first."""
        database = self._database
        if database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, place)).rowcount:
            return None
        ((first,),) = database.execute("SELECT place FROM seen WHERE key = ?", (key,))
        return int(first)
