"""`search`: rows that match a filter, looked for in bounded slices of time."""

from __future__ import annotations

import heapq
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from stillhouse.jobs.formats.writers import to_json
from stillhouse.jobs.reporting.chats import text_of_value
from stillhouse.jobs.store.database import DONE, FAILED, QUEUED
from stillhouse.protocols import Row

__all__ = ["Filter", "Page", "Scan", "kinds_of", "search"]

Scan = Callable[[Sequence[int], Callable[[int, Row | None], bool], float], tuple[int, list[int]]]
"""Looks at rows of the input, as `SourceRows.scan` does."""

WINDOW_ROWS = 1000
"""How many rows of the state are looked at before the input is."""

MIN_SCAN_SECONDS = 0.05

MAX_KINDS = 100

# What JSON may have in another way than a text has it.
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]')

_STATES = {"done": DONE, "failed": FAILED, "queued": QUEUED}


@dataclass(frozen=True)
class Filter:
    """What rows are looked for; an empty text takes every row.

    Attributes:
        state: `done`, `failed` or `queued`.
        kind: the kind of the error.
        finish: a finish reason, of at least one of the answers.
        text: a text in an answer, in the message of the error, or in the prompt; capitals do not matter.
        scope: where `text` is looked for: `both`, `answer` or `prompt`.
        column: a column of the input.
        value: what its value is, as text.
    """

    state: str = ""
    kind: str = ""
    finish: str = ""
    text: str = ""
    scope: str = "both"
    column: str = ""
    value: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.state or self.kind or self.finish or self.text or self.column)

    @property
    def needs_result(self) -> bool:
        """Whether the results are looked at."""
        return bool(self.finish or (self.text and self.scope != "prompt"))

    @property
    def needs_input(self) -> bool:
        """Whether the input may be looked at."""
        return bool(self.column or (self.text and self.scope != "answer"))


class Page(NamedTuple):
    """Some of the rows that match.

    Attributes:
        rows: their indexes.
        position: the index of the last row that was looked at, to go on after it; `None` at the end.
        searched: how many rows of the state were looked at.
    """

    rows: list[int]
    position: int | None
    searched: int


def search(
    connection: sqlite3.Connection,
    wanted: Filter,
    after: int,
    limit: int,
    seconds: float,
    scan: Scan | None = None,
    prompt_of: Callable[[Row], str] = lambda _: "",
) -> Page:
    """Return the first rows after a row that match, as far as they are found in time.

    Args:
        connection: the state.
        wanted: what is looked for.
        after: the index of the row after which the search begins.
        limit: how many rows at most.
        seconds: how long at most.
        scan: looks at rows of the input; without one, no row matches a condition on the input.
        prompt_of: the text of the prompt of a row.
    """
    ends = time.monotonic() + seconds
    judge = _Judge(wanted, prompt_of)
    rows: list[int] = []
    searched = 0
    while True:
        window = _Window()
        for row, state, text in _records(connection, wanted, after):
            window.add(row, judge.of_result(state, text))
            if time.monotonic() > ends:
                window.is_last = False
                break
        if window.unsure and scan is not None:
            seconds_left = max(MIN_SCAN_SECONDS, ends - time.monotonic())
            visited, found = scan([*window.unsure], judge.of_inputs(window.unsure), seconds_left)
            window.matches += found
            if visited < len(window.unsure):
                window.cut([*window.unsure][visited])
        for row in sorted(window.matches):
            rows.append(row)
            if len(rows) == limit:
                return Page(rows, row, searched + window.looked.index(row) + 1)
        searched += len(window.looked)
        if window.is_last:
            return Page(rows, None, searched)
        after = window.looked[-1] if window.looked else after
        if time.monotonic() >= ends:
            return Page(rows, after, searched)


@dataclass
class _Window:
    """Rows of the state that follow each other.

    Attributes:
        looked: the rows.
        matches: those that match.
        unsure: those that only the input decides about, and whether by their prompts.
        is_last: whether no row of the state follows.
    """

    looked: list[int] = field(default_factory=list)
    matches: list[int] = field(default_factory=list)
    unsure: dict[int, bool] = field(default_factory=dict)
    is_last: bool = True

    def add(self, row: int, verdict: str) -> None:
        self.looked.append(row)
        self.is_last = len(self.looked) < WINDOW_ROWS
        if verdict == _MATCHES:
            self.matches.append(row)
        elif verdict != _DIFFERS:
            self.unsure[row] = verdict == _BY_PROMPT

    def cut(self, row: int) -> None:
        """Leave out a row and those after it."""
        del self.looked[self.looked.index(row) :]
        self.matches = [found for found in self.matches if found < row]
        self.is_last = False


_MATCHES, _DIFFERS, _BY_INPUT, _BY_PROMPT = "matches", "differs", "by input", "by prompt"


class _Judge:
    """Decides whether rows match, first by their results, then by the input."""

    def __init__(self, wanted: Filter, prompt_of: Callable[[Row], str]) -> None:
        self._wanted = wanted
        self._prompt_of = prompt_of
        self._needle = wanted.text.casefold()
        self._state = _STATES.get(wanted.state)
        # The longest part of the text that JSON has as it is: few results have to be decoded.
        parts = _ESCAPED.split(self._needle)
        self._part = max(parts, key=len)
        self._finish = to_json(wanted.finish)

    def of_result(self, state: int, text: str) -> str:
        """Return what the result of a row decides."""
        wanted = self._wanted
        if self._state is not None and state != self._state:
            return _DIFFERS
        if wanted.finish and not (_may_have(text, self._finish) and self._has_reason(text)):
            return _DIFFERS
        if wanted.text:
            may_match = wanted.scope != "prompt" and _may_have(text.casefold(), self._part)
            if may_match and self._has_text(text):
                return _BY_INPUT if wanted.column else _MATCHES
            return _DIFFERS if wanted.scope == "answer" else _BY_PROMPT
        return _BY_INPUT if wanted.column else _MATCHES

    def of_inputs(self, unsure: Mapping[int, bool]) -> Callable[[int, Row | None], bool]:
        """Return what decides about rows of the input, as far as their results did not.

        Args:
            unsure: the indexes of these rows, and whether their prompts decide.
        """
        column = self._wanted.column

        def is_match(index: int, row: Row | None) -> bool:
            if row is None or (column and not self._has_value(row, column)):
                return False
            return not unsure[index] or self._needle in self._prompt_of(row).casefold()

        return is_match

    def _has_value(self, row: Row, column: str) -> bool:
        return column in row.columns and text_of_value(row.columns[column]) == self._wanted.value

    def _has_reason(self, text: str) -> bool:
        reasons = _decoded(text).get("finish_reasons")
        return isinstance(reasons, list) and self._wanted.finish in reasons

    def _has_text(self, text: str) -> bool:
        result = _decoded(text)
        answers = result.get("generations")
        error = result.get("error")
        texts = [*answers] if isinstance(answers, list) else []
        if isinstance(error, dict):
            texts.append(error.get("message"))
        return any(isinstance(item, str) and self._needle in item.casefold() for item in texts)


def _may_have(text: str, part: str) -> bool:
    """Whether JSON may have a part of a text: it has all others as they are, or all of them escaped."""
    return part in text or "\\u" in text


def _decoded(text: str) -> dict[str, Any]:
    try:
        result = json.loads(text)
    except (ValueError, RecursionError):  # it is damaged
        return {}
    return result if isinstance(result, dict) else {}


def _records(connection: sqlite3.Connection, wanted: Filter, after: int) -> Iterator[tuple[int, int, str]]:
    """Yield the rows after a row that may match, a window of them: each with its state and its result."""
    result = "result" if wanted.needs_result else "''"
    kinds = [wanted.kind] if wanted.kind else []
    if not kinds and wanted.state in ("failed", "queued"):
        kinds = kinds_of(connection)
        if not kinds:
            return
    if 0 < len(kinds) < MAX_KINDS:
        query = f"SELECT row, state, {result} FROM rows WHERE row = ?"  # noqa: S608
        for row in _rows_of_kinds(connection, kinds, after):
            yield connection.execute(query, (row,)).fetchone()
        return
    query = f"SELECT row, state, {result} FROM rows WHERE row > ? ORDER BY row LIMIT ?"  # noqa: S608
    yield from connection.execute(query, (after, WINDOW_ROWS))


def _rows_of_kinds(connection: sqlite3.Connection, kinds: Sequence[str], after: int) -> Iterator[int]:
    """Yield the rows after a row that have an error of one of these kinds, a window of them, by the index."""
    query = "SELECT row FROM rows WHERE kind = ? AND row > ? ORDER BY row LIMIT ?"
    found = [connection.execute(query, (kind, after, WINDOW_ROWS)) for kind in kinds]
    return islice((row for (row,) in heapq.merge(*found)), WINDOW_ROWS)


def kinds_of(connection: sqlite3.Connection) -> list[str]:
    """Return the kinds of errors that rows have, by the index, at most `MAX_KINDS`."""
    kinds: list[str] = []
    query = "SELECT min(kind) FROM rows WHERE kind IS NOT NULL AND kind > ?"
    first = "SELECT min(kind) FROM rows WHERE kind IS NOT NULL AND kind >= ?"
    while len(kinds) < MAX_KINDS:
        (kind,) = connection.execute(query if kinds else first, (kinds[-1] if kinds else "",)).fetchone()
        if kind is None:
            break
        kinds.append(kind)
    return kinds
