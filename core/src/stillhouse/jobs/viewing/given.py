"""`RunInput`: the prompts and the columns of the rows of a state, from the input of the run or its output."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.jobs.viewing.inputs import SourceRows
from stillhouse.jobs.viewing.prompts import Prompts
from stillhouse.jobs.viewing.records import InputRecord, input_record
from stillhouse.jobs.viewing.search import Scan
from stillhouse.jobs.viewing.sources import latest_session, source_of
from stillhouse.jobs.viewing.state import Result
from stillhouse.jobs.viewing.survey import Survey
from stillhouse.protocols import HookCalls, Row

__all__ = ["RunInput"]

NAMED_ROWS = 100
"""The columns are those of the first rows."""

# What says that only some rows of the input belong to the run.
_CHOOSING = ("where", "sample", "shard")


class RunInput:
    """The rows of the input, by the indexes that the state has.

    Args:
        facts: what the state says about the run.
        target: the output, as the run was given it.
        output: the path of the output.
        state: the path of the state.
        hooks: the installed plugins.
        survey: counts the rows of the state: those of an output have no other index.

    Attributes:
        prompts: makes the prompts.
        source: where they come from.
        rows: reads the source; `None` if there is nothing to read.
        notice: what a person has to know; empty for nothing.
    """

    def __init__(
        self,
        facts: Mapping[str, Any],
        target: str,
        output: Path,
        state: Path,
        hooks: HookCalls,
        survey: Survey,
    ) -> None:
        self._command: Mapping[str, Any] = facts.get("command") or {}
        self._limit = _limit_of(facts)
        self._survey = survey
        self._names: list[str] | None = None
        self.prompts = Prompts(self._command)
        self.source = source_of(facts, target, output, state, hooks)
        self.notice = self.source.notice
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
        rows = None if self.rows is None else self.rows.index.rows
        if rows is None or self._limit == "unknown" or any(name in self._command for name in _CHOOSING):
            return None
        return rows if self._limit is None else min(rows, int(self._limit))

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

    def __init__(self, owner: RunInput) -> None:
        super().__init__(StillhouseError, OSError)
        self._owner = owner

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        is_noted = bool(super().__exit__(kind, error, traceback))
        if is_noted:
            reason = error.message if isinstance(error, StillhouseError) else error.strerror or error
            self._owner.notice = f"Prompts and columns cannot be shown: {reason}."
        return is_noted


def _limit_of(facts: Mapping[str, Any]) -> str | None:
    """Return the limit of the run as the command gave it; `unknown` where the state does not say."""
    complete = facts.get("complete")
    if complete:
        limit = complete.get("limit")
        return str(limit) if isinstance(limit, int) else None
    parts = latest_session(facts).get("command")
    if not isinstance(parts, list) or not parts:
        return None
    for part in parts:
        if isinstance(part, list) and len(part) == 2 and part[0] == "--limit" and str(part[1]).isdecimal():
            return str(part[1])
    return "unknown" if "limit=" in str(parts) else None
