"""`Viewer`: answers what the page asks about a run, each question in a bounded time and memory."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.reporting.chats import text_of_value
from stillhouse.jobs.reporting.facts import outcome_of
from stillhouse.jobs.reporting.pace import Pace
from stillhouse.jobs.reporting.units import duration, moment, rows_rate
from stillhouse.jobs.runs.sources import RunSource, source_of
from stillhouse.jobs.runs.summary import Session
from stillhouse.jobs.store.found import state_of
from stillhouse.jobs.store.lock import is_worked_on
from stillhouse.jobs.store.seals import facts_of, is_sealed
from stillhouse.jobs.viewing.given import GivenRows
from stillhouse.jobs.viewing.inputs import Pending
from stillhouse.jobs.viewing.prompts import Prompts
from stillhouse.jobs.viewing.records import (
    LIST_CHARACTERS,
    ROW_CHARACTERS,
    cut,
    input_record,
    parts_of,
    row_record,
    whole_text,
)
from stillhouse.jobs.viewing.search import Filter, Page, kinds_of, search
from stillhouse.jobs.viewing.state import Result, RunState, results
from stillhouse.jobs.viewing.survey import Survey
from stillhouse.protocols import HookCalls, Row

__all__ = ["PAGE_ROWS", "Viewer"]

PAGE_ROWS = 50
"""How many rows a page has at most."""

MAX_NAME_CHARACTERS = 300

SLICE_SECONDS = 0.35
"""How long one question reads the state, and how long it waits for the input."""

COUNT_SECONDS = 0.1

MIN_RATE_SECONDS = 2.0


class Viewer:
    """A run, for looking at it. Nothing of the run is created or changed, and its state is not held open.

    Args:
        target: its output, as the run was given it, or its state.
        hooks: the installed plugins.
        state: its state, if it is not beside the output.

    Raises:
        StoreError: there is no run of that output, or its state cannot be read.
    """

    def __init__(self, target: str, hooks: HookCalls, state: Path | None = None) -> None:
        place = output_path(target, hooks)
        self._state = RunState(state_of(place, state))
        self._target, self._place, self._hooks = target, place, hooks
        if place == self._state.path:  # the state was named
            self._place = place.with_name(place.name.removesuffix(".run.db"))
            self._target = str(self._place)
        self._survey = Survey()
        self._lock = threading.Lock()  # several requests may ask at a time
        self._pace: Pace | None = None
        self._began = 0.0
        self._input = self._opened_input()

    def _opened_input(self) -> GivenRows:
        def question(connection: sqlite3.Connection) -> tuple[RunSource, Prompts]:
            source = source_of(connection, self._target, self._place, self._state.path, self._hooks)
            return source, Prompts(facts_of(connection).get("command"))

        return GivenRows(*self._state.ask(question), self._survey)

    @property
    def name(self) -> str:
        """The name of the output."""
        return self._place.name

    def close(self) -> None:
        """Stop reading."""
        self._input.close()

    # What the page asks

    def run(self) -> dict[str, Any]:
        """Describe the run, and what can be filtered by."""
        facts = self._state.ask(facts_of)
        if self._input.rows is None:  # it may have been put back, or the run is complete now
            self._input = self._opened_input()
        command = facts.get("command") or {}
        endings = (facts.get("reasons") or {}).get("endings")
        return {
            "name": cut(self.name, MAX_NAME_CHARACTERS)["text"],
            "model": cut(str(command.get("model_name") or ""), MAX_NAME_CHARACTERS)["text"],
            "source": cut(self._input.source.name, MAX_NAME_CHARACTERS)["text"],
            "columns": self._input.columns(SLICE_SECONDS),
            "finish": [str(reason)[:100] for reason in endings][:100] if isinstance(endings, dict) else [],
            "kinds": self._state.ask(kinds_of),
            "notice": self._input.notice,
            "has_input": self._input.rows is not None,
            **self.progress(),
        }

    def progress(self) -> dict[str, Any]:
        """Describe how far the run is."""
        working = is_worked_on(self._state.path)
        version = self._state.version

        def question(connection: sqlite3.Connection) -> dict[str, Any]:
            with self._lock:
                self._survey.update(connection, version, COUNT_SECONDS)
            (failed,) = connection.execute("SELECT count(*) FROM rows WHERE kind IS NOT NULL").fetchone()
            (last,) = connection.execute("SELECT max(row) FROM rows").fetchone()
            record = connection.execute("SELECT * FROM sessions ORDER BY session DESC LIMIT 1").fetchone()
            complete = connection.execute("SELECT 1 FROM info WHERE key = 'complete' AND value != 'null'")
            session = Session(*record[1:7]) if record is not None and is_sealed("sessions", record) else None
            state = "working" if working else "complete" if complete.fetchone() else outcome_of(session)
            return {
                "state": state,
                "failed": failed,
                "last": 0 if last is None else last + 1,
                "started": None if session is None else moment(session.started),
            }

        found = self._state.ask(question)
        rows, total = self._survey.rows, self._input.total(self._survey.rows)
        rate = self._rate(rows) if working and self._survey.is_whole else None
        left = (total - rows) / rate if rate and total is not None and total > rows else None
        return {
            **found,
            "working": working,
            "version": version,
            "rows": rows,
            "counted": self._survey.is_whole,
            "total": total,
            "rate": None if rate is None else rows_rate(rate),
            "left": None if left is None else duration(left),
        }

    def list(
        self, wanted: Filter, after: int = -1, limit: int = PAGE_ROWS, before: int | None = None
    ) -> dict[str, Any]:
        """Return rows that match, with where to go on.

        Args:
            wanted: what is looked for.
            after: the index of the row after which they begin.
            limit: how many at most.
            before: instead, the index of the row before which they end; only without a filter.
        """
        limit = max(1, min(limit, PAGE_ROWS))

        def question(connection: sqlite3.Connection) -> tuple[Page, list[Result], dict[int, int]]:
            self._survey_output(connection)
            page = self._page(connection, wanted, after, limit, before)
            found = _in_time(connection, page.rows)
            if len(found) < len(page.rows):  # the others are for the next page
                rows = page.rows[: len(found)]
                page = Page(rows, rows[-1], page.searched)
            return page, found, self._input.places(connection, page.rows)

        page, found, places = self._state.ask(question)
        given, is_read = self._input.records(places, SLICE_SECONDS)
        return {
            "rows": [
                row_record(item, self._input.checked(item, given.get(item.row)), LIST_CHARACTERS)
                for item in found
            ],
            "next": page.position,
            "searched": page.searched,
            "reading": not (is_read and self._input.are_known(places, page.rows)),
            "notice": self._input.notice,
        }

    def row(self, index: int) -> dict[str, Any]:
        """Return everything about a row, with long texts shortened."""
        result, places, (earlier, later) = self._about(index)
        is_read = result is None or self._input.are_known(places, [index])
        row: Row | None = None
        try:
            row = self._input.whole(places, index, SLICE_SECONDS)
        except Pending:
            is_read = False
        given = None
        if row is not None:
            given = input_record(row, self._input.prompts, self._input.source.left_out, ROW_CHARACTERS)
        if result is None:
            record = {"row": index + 1, "state": "missing", "input": None if given is None else given.facts}
        else:
            record = row_record(result, self._input.checked(result, given), ROW_CHARACTERS)
            record["parts"] = [
                {"name": cut(name, MAX_NAME_CHARACTERS)["text"], **cut(text_of_value(value), ROW_CHARACTERS)}
                for name, value in parts_of(result)
            ]
        return {
            **record,
            "reading": not is_read,
            "notice": self._input.notice,
            "earlier": None if earlier is None else earlier + 1,
            "later": None if later is None else later + 1,
        }

    def text(self, index: int, part: Sequence[str]) -> str | None:
        """Return a text of a row, whole; `None` if there is no such text.

        Raises:
            Pending: the row of the input is not read yet.
        """
        result, places, _ = self._about(index)
        row = None
        if part[0] in ("prompt", "column"):
            if result is not None and not self._input.are_known(places, [index]):
                raise Pending
            row = self._input.whole(places, index, SLICE_SECONDS)
        return whole_text(result, row, self._input.prompts, part)

    def _page(
        self, connection: sqlite3.Connection, wanted: Filter, after: int, limit: int, before: int | None
    ) -> Page:
        """Return the rows of a page, and where to go on."""
        if before is not None:
            query = "SELECT row FROM rows WHERE row < ? ORDER BY row DESC LIMIT ?"
            rows = [row for (row,) in connection.execute(query, (before, limit))][::-1]
            return Page(rows, rows[-1] if rows else None, len(rows))
        if wanted.is_empty:
            query = "SELECT row FROM rows WHERE row > ? ORDER BY row LIMIT ?"
            rows = [row for (row,) in connection.execute(query, (after, limit + 1))]
            return Page(rows[:limit], rows[limit - 1] if len(rows) > limit else None, len(rows[:limit]))
        scan = self._input.scan(connection) if wanted.needs_input else None
        prompts = self._input.prompts
        return search(connection, wanted, after, limit, SLICE_SECONDS, scan, prompts.text)

    def _about(self, index: int) -> tuple[Result | None, dict[int, int], tuple[int | None, int | None]]:
        """Return what the state has of a row, where it is in the source, and the rows before and after it."""

        def question(
            connection: sqlite3.Connection,
        ) -> tuple[Result | None, dict[int, int], tuple[int | None, int | None]]:
            self._survey_output(connection)
            result = next(results(connection, [index]), None)
            (earlier,) = connection.execute("SELECT max(row) FROM rows WHERE row < ?", (index,)).fetchone()
            (later,) = connection.execute("SELECT min(row) FROM rows WHERE row > ?", (index,)).fetchone()
            places: dict[int, int] = {}
            if result is not None or not self._input.source.is_output:
                places = self._input.places(connection, [index])
            return result, places, (earlier, later)

        return self._state.ask(question)

    def _survey_output(self, connection: sqlite3.Connection) -> None:
        """Count rows, where the source is an output: a row of it is found by how many are before it."""
        if self._input.source.is_output:
            with self._lock:
                self._survey.update(connection, self._state.version, COUNT_SECONDS)

    def _rate(self, rows: int) -> float | None:
        """Return how many rows are finished per second, as soon as that can be said."""
        now = time.monotonic()
        with self._lock:
            if self._pace is None:
                self._pace, self._began = Pace(rows), now
            self._pace.add(now - self._began, rows, 0)
            rate = self._pace.rows_per_second
        return rate if rate > 0 and now - self._began >= MIN_RATE_SECONDS else None


def _in_time(connection: sqlite3.Connection, rows: Sequence[int]) -> list[Result]:
    """Return what the state has of rows, as many as are read in time; at least one."""
    ends = time.monotonic() + SLICE_SECONDS
    found = []
    for result in results(connection, rows):
        found.append(result)
        if time.monotonic() > ends:
            break
    return found
