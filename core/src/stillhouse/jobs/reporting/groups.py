"""Figures of a run by the values of a column of its input, in one pass over the input and the rows."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.jobs.reporting.chats import cut, json_text
from stillhouse.jobs.runs.latencies import Latencies
from stillhouse.jobs.runs.prompted import RunInput
from stillhouse.jobs.spending.prices import Prices
from stillhouse.jobs.store.columns import Tokens
from stillhouse.jobs.store.database import FAILED
from stillhouse.protocols import Row

__all__ = ["Group", "Groups", "groups_of"]

MAX_GROUPS = 50
"""How many values of the column are shown; the rows of the others are counted together."""

MAX_COUNTED = 200
LABEL_CHARACTERS = 80


@dataclass
class Group:
    """The rows with one value of a column.

    Attributes:
        label: the value as text.
        rows: how many are finished.
        failed: of them, those that failed.
        input_tokens: as far as the backend reported them; `None` where it reported none.
        output_tokens: likewise.
        cost: in USD; `None` where it is not known.
    """

    label: str
    rows: int = 0
    failed: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    _seconds: Latencies = field(default_factory=Latencies)

    def percentile(self, share: float) -> float | None:
        """Return the seconds that this share of the calls does not exceed, to 2 percent."""
        return self._seconds.percentile(share)

    def add(self, state: int, seconds: float | None, tokens: Tokens, prices: Prices | None) -> None:
        """Count a row."""
        self.rows += 1
        self.failed += state == FAILED
        self._seconds.add(seconds)
        if tokens.input is not None:
            self.input_tokens = tokens.input + (self.input_tokens or 0)
        if tokens.output is not None:
            self.output_tokens = tokens.output + (self.output_tokens or 0)
        if prices is not None:
            self.cost = prices.cost(tokens, seconds) + (self.cost or 0.0)
        elif tokens.cost is not None and seconds != 0:
            self.cost = tokens.cost + (self.cost or 0.0)

    def merge(self, other: Group) -> None:
        """Add the rows of another group."""
        self.rows += other.rows
        self.failed += other.failed
        for name in ("input_tokens", "output_tokens", "cost"):
            value = getattr(other, name)
            if value is not None:
                setattr(self, name, value + (getattr(self, name) or 0))
        self._seconds.add_all(other._seconds)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "value": self.label, "rows": self.rows, "failed": self.failed,
            "p50_seconds": self.percentile(0.5), "p95_seconds": self.percentile(0.95),
            "input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "cost": self.cost,
        }  # fmt: skip


@dataclass
class Groups:
    """The rows of a run by the values of a column.

    Attributes:
        column: its name.
        groups: those with the most rows first.
        other: the rows with other values, counted together; `None` if there are no others.
        others: how many other values there are at least.
        unmatched: rows whose value is not known, since the input was changed.
    """

    column: str
    groups: list[Group] = field(default_factory=list)
    other: Group | None = None
    others: int = 0
    unmatched: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return them as JSON types."""
        return {
            "column": self.column,
            "groups": [group.as_json() for group in self.groups],
            "other": None if self.other is None else {**self.other.as_json(), "values": self.others},
            "unmatched_rows": self.unmatched,
        }


def groups_of(connection: sqlite3.Connection, column: str, source: RunInput, prices: Prices | None) -> Groups:
    """Count the finished rows of a run by the values of a column of its input.

    Args:
        connection: the run's database.
        column: the name of the column.
        source: reads the input.
        prices: those of the model, if they are known.

    Raises:
        ConfigurationError: the input cannot be read, or none of its rows has the column.
    """
    found: dict[str, Group] = {}
    rest, others, unmatched, has_column = Group("other"), set[int](), 0, False
    names: dict[str, None] = {}
    query = (
        "SELECT row, digest, state, seconds, input_tokens, output_tokens, cached_tokens, written_tokens, "
        "written_1h_tokens, cost, billed_input_tokens, billed_output_tokens "
        "FROM rows WHERE state != 0 ORDER BY row"
    )
    rows = source.rows()
    row = next(rows, None)
    try:
        for index, digest, state, seconds, *counts in connection.execute(query):
            while row is not None and row.index < index:
                row = next(rows, None)
            if row is None or row.index != index or row.digest != digest:
                unmatched += 1
                continue
            has_column = has_column or column in row.columns
            if len(names) < 1000:
                names |= dict.fromkeys(row.columns)
            label = _label(row, column)
            group = found.get(label)
            if group is None:
                if len(found) >= MAX_COUNTED:
                    group = rest
                    if len(others) < 100_000:
                        others.add(hash(label))
                else:
                    group = found[label] = Group(label)
            group.add(state, seconds, Tokens._make(counts), prices)
    finally:
        rows.close()  # type: ignore[attr-defined]
    if not has_column:
        _refuse(column, source, list(names))
    return _ordered(Groups(column, unmatched=unmatched), found, rest, len(others))


def _ordered(groups: Groups, found: dict[str, Group], rest: Group, others: int) -> Groups:
    ordered = sorted(found.values(), key=lambda group: (-group.rows, group.label))
    groups.groups, small = ordered[:MAX_GROUPS], ordered[MAX_GROUPS:]
    for group in small:
        rest.merge(group)
    if rest.rows:
        groups.other, groups.others = rest, others + len(small)
    return groups


def _refuse(column: str, source: RunInput, names: list[str]) -> None:
    """Say why there are no groups: nothing was read, or the column is another one.

    Raises:
        ConfigurationError: always.
    """
    if not names:
        raise ConfigurationError(
            f"the rows cannot be grouped by {column}: {source.note or 'no finished row is in the input now'}",
            hint="put the input back where it was, or leave out --by",
        )
    raise ConfigurationError(
        f"the input has no column {column!r}", hint=near_matches(column, names) or "leave out --by"
    )


def _label(row: Row, column: str) -> str:
    if row.error is not None:
        return "(the row cannot be read)"
    if column not in row.columns:
        return "(no such column)"
    value = row.columns[column]
    if value is None:
        return "(null)"
    if isinstance(value, str):
        return cut(value, LABEL_CHARACTERS) or "(empty)"
    return cut(json_text(value), LABEL_CHARACTERS)
