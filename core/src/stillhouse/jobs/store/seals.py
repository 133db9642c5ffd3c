"""Seals: a digest next to each record of a state, which reveals damage to the record.

A database detects damage to its own structure, but not to the values in it.
"""

from __future__ import annotations

import json
import marshal
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

__all__ = ["SEALED", "facts_of", "is_sealed", "row_seal", "sealed"]

SEALED = ("rows", "info", "sessions", "members")
"""The tables whose last column is the seal of a record."""

# Of the formats of `marshal`, one that writes equal values alike; a test has what it gives.
_FORMAT = 2


def row_seal(record: tuple[Any, ...]) -> int:
    """Return the seal of a record of the table `rows`: a signed 64-bit digest.

    Args:
        record: its columns, each of exactly the type that the database returns.
    """
    # The fastest way to bytes: this is done for every row, when it is stored and when it is read.
    content = marshal.dumps(record, _FORMAT)
    return int.from_bytes(blake2b(content, digest_size=8).digest(), signed=True)


def _seal(table: str, record: tuple[Any, ...]) -> int:
    return row_seal(record if table == "rows" else (table, *record))


def sealed(table: str, *values: Any) -> tuple[Any, ...]:
    """Return a record with its seal."""
    return *values, _seal(table, values)


def is_sealed(table: str, record: Sequence[Any]) -> bool:
    """Whether the seal of a record is valid, so that the record is as it was written."""
    values = tuple(record)
    return bool(_seal(table, values[:-1]) == values[-1])


def facts_of(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the facts about a run, without damaged ones, as JSON types."""
    records = connection.execute("SELECT * FROM info")
    return {record[0]: json.loads(record[1]) for record in records if is_sealed("info", record)}
