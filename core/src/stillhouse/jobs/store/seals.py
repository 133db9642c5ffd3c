"""Seals: a digest beside each record of a state, by which damage to the record is seen.

A database notices damage to its own structure, and none to the values in it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

__all__ = ["SEALS", "facts_of", "is_sealed", "row_seal", "sealed"]

# The place of the result among the columns of a row.
_RESULT = 5


def _seal(values: tuple[Any, ...], text: str) -> int:
    """Return a signed 64-bit digest of a text and of short values, of the very types that SQLite returns."""
    # `ascii` rather than `repr`, which depends on the Unicode that a version of Python knows.
    digest = blake2b(ascii(values).encode(), digest_size=8)
    digest.update(text.encode())
    return int.from_bytes(digest.digest(), signed=True)


def row_seal(record: tuple[Any, ...]) -> int:
    """Return the seal of a record of the table `rows`."""
    return _seal(record[:_RESULT] + record[_RESULT + 1 :], record[_RESULT])


SEALS: Mapping[str, Callable[[tuple[Any, ...]], int]] = {
    "rows": row_seal,
    "info": lambda record: _seal(("info", record[0]), record[1]),
    "sessions": lambda record: _seal(("sessions", *record[:-1]), record[-1]),
    "members": lambda record: _seal(("members", *record[:-1]), record[-1]),
}
"""By the name of a table, the function that returns the seal of a record, which is its last column."""


def sealed(table: str, *values: Any) -> tuple[Any, ...]:
    """Return a record with its seal."""
    return *values, SEALS[table](values)


def is_sealed(table: str, record: Sequence[Any]) -> bool:
    """Whether the seal of a record is its own: it is as it was written."""
    values = tuple(record)
    try:
        return bool(SEALS[table](values[:-1]) == values[-1])
    except (AttributeError, TypeError, UnicodeError):  # damage can give a value another type
        return False


def facts_of(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the facts about a run, without damaged ones, as JSON types."""
    records = connection.execute("SELECT * FROM info")
    return {record[0]: json.loads(record[1]) for record in records if is_sealed("info", record)}
