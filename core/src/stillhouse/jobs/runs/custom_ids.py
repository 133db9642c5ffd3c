"""`check_custom_ids`: checks that every line of an OpenAI batch file has a unique id."""

from __future__ import annotations

import sqlite3

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.prompts.batch_lines import CUSTOM_ID
from stillhouse.jobs.selection.seen import FirstSeen
from stillhouse.jobs.store.database import StoreError
from stillhouse.protocols import Row, RowReader

__all__ = ["check_custom_ids"]

_MAX_SHOWN = 80


def check_custom_ids(rows: RowReader) -> None:
    """Refuse lines without an id or with the same id, because results are joined by it.

    A line that cannot be read has no id, and fails alone.

    Raises:
        ConfigurationError: there are such lines; the message names them.
        StoreError: the disk for temporary files is full.
    """
    try:
        with FirstSeen() as seen:
            for row in rows:
                if row.error is None:
                    _add(seen, row, rows)
    except sqlite3.Error as error:
        raise StoreError(
            f"the ids of the lines cannot be compared: {error}",
            hint="make room on the disk for temporary files, or name another folder in SQLITE_TMPDIR",
        ) from error


def _add(seen: FirstSeen, row: Row, rows: RowReader) -> None:
    given = row.columns.get(CUSTOM_ID)
    if given is None or isinstance(given, (dict, list)):
        raise ConfigurationError(
            f"{row.place} has no {CUSTOM_ID}, by which its result is found in a batch file",
            hint="give every line one of its own",
        )
    first = seen.first(str(given).encode("utf-8", "surrogatepass"), row.index)
    if first is None:
        return
    place = next(other.place for other in rows if other.index == first)
    shown = str(given)[:_MAX_SHOWN]
    raise ConfigurationError(
        f"{place} and {row.place} have the same {CUSTOM_ID}, {shown!r}, which tells results apart",
        hint="give every line one of its own",
    )
