"""`Narrowed`: the columns of a table, kept to a number that a format of tables can hold."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from stillhouse.jobs.formats.columns import MAX_COLUMNS
from stillhouse.jobs.formats.writers import to_json
from stillhouse.protocols import OutputColumns

__all__ = ["Narrowed"]

_NAME = "more_columns"

_logger = logging.getLogger("stillhouse.jobs")


class Narrowed:
    """Limits the columns of rows: those after the first `MAX_COLUMNS` become one, of JSON text.

    Columns that are known before any row, and those that the output adds, all stay.

    Args:
        known: the columns that are known before any row.
        columns: the columns that the output adds; `None` where nothing is known of them.
    """

    def __init__(self, known: Iterable[str], columns: OutputColumns | None) -> None:
        self._seen = {*known}
        self._columns = columns
        self._room = max(MAX_COLUMNS - len(self._seen), 0)
        self._rest: str | None = None  # a column may have no name

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a row with the columns that it may have."""
        if record.keys() <= self._seen:
            return record
        own = () if self._columns is None else self._columns.names
        kept: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for name, value in record.items():
            if name in own:
                self._seen.add(name)
            if name in self._seen or self._admits(name):
                kept[name] = value
            else:
                rest[name] = value
        if rest:
            kept[self._rest_name(record)] = to_json(rest)
        return kept

    def _admits(self, name: str) -> bool:
        if not self._room or name == self._rest:
            return False
        self._room -= 1
        self._seen.add(name)
        return True

    def _rest_name(self, record: dict[str, Any]) -> str:
        if self._rest is None:
            name = _NAME
            while name in self._seen or name in record:
                name += "_"
            self._rest = name
            _logger.warning(
                "the rows have more than %s different columns: the others are in the column %s, as JSON text",
                f"{MAX_COLUMNS:,}", self._rest,
            )  # fmt: skip
        return self._rest
