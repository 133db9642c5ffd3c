"""`GivenRows`: the prompts and the columns of a run's rows, from its input or from its output."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.jobs.runs.sources import RunSource
from stillhouse.jobs.viewing.inputs import SourceRows
from stillhouse.jobs.viewing.prompts import Prompts
from stillhouse.jobs.viewing.records import InputRecord, input_record
from stillhouse.jobs.viewing.search import Scan
from stillhouse.jobs.viewing.state import Result
from stillhouse.jobs.viewing.survey import Survey
from stillhouse.protocols import Row

__all__ = ["GivenRows"]

NAMED_ROWS = 100
"""The columns are those of the first rows."""


class GivenRows:
    """The rows of the input, by the indexes that the state has.

    Args:
        source: where they come from.
        prompts: makes the prompts.
        survey: counts the rows of the state: those of an output have no other index.

    Attributes:
        prompts: makes the prompts.
        source: where they come from.
        rows: reads the source; `None` if there is nothing to read.
        notice: what a person has to know; empty for nothing.
    """

    def __init__(self, source: RunSource, prompts: Prompts, survey: Survey) -> None:
        self._survey = survey
        self._names: list[str] | None = None
        self.prompts = prompts
        self.source = source
        self.notice = _notice(source.missing) if source.missing else ""
        self.rows: SourceRows[InputRecord] | None = None
        if self.source.open is not None:
            self.rows = SourceRows(self.source.open, self._shortened)

    def close(self) -> None:
        """Stop reading."""
        if self.rows is not None:
            self.rows.close()

    def _shortened(self, row: Row) -> InputRecord:
        return input_record(row, self.prompts, self.source.left_out)

    def columns(self, seconds: float) -> list[str]:
        """Return the names of the columns, as far as they are read in time."""
        if self._names is None and self.rows is not None:
            found, is_read = self._get(range(NAMED_ROWS), seconds)
            names = dict.fromkeys(
                column["name"] for _, record in sorted(found.items()) for column in record.facts["columns"]
            )
            if not is_read:
                return list(names)
            self._names = list(names)
        return self._names or []

    def total(self, finished: int) -> int | None:
        """Return how many rows the run has; `None` where that is not known."""
        if self.source.is_output:
            return finished
        return self.source.total(None if self.rows is None else self.rows.index.rows)

    def places(self, connection: sqlite3.Connection, rows: Sequence[int]) -> dict[int, int]:
        """Return where rows are in the source, by their indexes in the state, as far as that is known.

        Args:
            connection: the state.
            rows: the indexes, increasing.
        """
        if self.rows is None:
            return {}
        if not self.source.is_output:
            return {row: row for row in rows}
        places: dict[int, int] = {}
        before: tuple[int, int] | None = None
        for row in rows:
            if before is None:
                place = self._survey.place_of(connection, row)
                if place is None:
                    return {}
            else:
                query = "SELECT count(*) FROM rows WHERE row >= ? AND row < ?"
                place = before[1] + connection.execute(query, (before[0], row)).fetchone()[0]
            places[row], before = place, (row, place)
        return places

    def are_known(self, places: Mapping[int, int], rows: Sequence[int]) -> bool:
        """Whether `places` has every row, or there is nothing to read."""
        return self.rows is None or all(row in places for row in rows)

    def records(self, places: Mapping[int, int], seconds: float) -> tuple[dict[int, InputRecord], bool]:
        """Return what the page gets of rows, by their indexes in the state, and whether all were read.

        Args:
            places: what `places` returned.
            seconds: how long to wait at most.
        """
        found, is_read = self._get([*places.values()], seconds)
        return {row: found[place] for row, place in places.items() if place in found}, is_read

    def whole(self, places: Mapping[int, int], row: int, seconds: float) -> Row | None:
        """Return a row as it is; `None` if it cannot be read.

        Raises:
            Pending: it is not read yet.
        """
        if self.rows is None or row not in places:
            return None
        with self._noting():
            return self.rows.whole(places[row], seconds)
        return None

    def scan(self, connection: sqlite3.Connection) -> Scan | None:
        """Return what looks at rows by their indexes in the state; `None` if there is nothing to read."""
        rows = self.rows
        if rows is None:
            return None

        def scan(
            wanted: Sequence[int], is_match: Callable[[int, Row | None], bool], seconds: float
        ) -> tuple[int, list[int]]:
            places = self.places(connection, wanted)
            if not places:  # the survey goes on
                return 0, []
            index_of = {place: row for row, place in places.items()}
            visited, found = rows.scan(
                [*index_of], lambda place, row: is_match(index_of[place], row), seconds
            )
            return visited, [index_of[place] for place in found]

        return scan

    def checked(self, result: Result, record: InputRecord | None) -> dict[str, Any] | None:
        """Return the record of a row, with whether the row has changed since it was sent."""
        if record is None:
            return None
        is_changed = (
            not self.source.is_output and result.state != "damaged" and record.digest != result.digest
        )
        return {**record.facts, "changed": is_changed}

    def _get(self, wanted: Sequence[int], seconds: float) -> tuple[dict[int, InputRecord], bool]:
        if self.rows is not None:
            with self._noting():
                return self.rows.get(wanted, seconds)
        return {}, True

    def _noting(self) -> _Noting:
        return _Noting(self)


class _Noting(suppress):
    """Notes why the source cannot be read, and goes on without it."""

    def __init__(self, owner: GivenRows) -> None:
        super().__init__(StillhouseError, OSError)
        self._owner = owner

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        is_noted = bool(super().__exit__(kind, error, traceback))
        if is_noted:
            reason = error.message if isinstance(error, StillhouseError) else error.strerror or error
            self._owner.notice = _notice(reason)
        return is_noted


def _notice(reason: object) -> str:
    return f"Prompts and columns cannot be shown: {reason}."
