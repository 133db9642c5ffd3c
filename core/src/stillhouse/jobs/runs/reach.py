"""How far a run is: how much of its input is read, how many rows that makes, and how long the rest takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from stillhouse.jobs.runs.statistics import RunStatistics
    from stillhouse.jobs.selection.choosing import Choice
    from stillhouse.protocols import RowReader

__all__ = [
    "REACH",
    "Total",
    "number_of_rows",
    "recorded_total",
    "seconds_left",
    "share_read",
    "total_of",
]

REACH = "reach"
"""The name of the fact in the state that has the total, for other processes."""

# Before so many seconds, and so many rows or this share of them, a speed says nothing about the end.
MIN_SECONDS = 2.0
MIN_ROWS = 20
MIN_SHARE = 0.01


class Total(NamedTuple):
    """How many rows a run has.

    Attributes:
        rows: their number; `None` where nothing is known.
        is_estimated: whether it is computed from how much of the input was read.
    """

    rows: int | None
    is_estimated: bool


def number_of_rows(reader: RowReader) -> int | None:
    """Return how many rows a reader has, where it knows that without reading them."""
    rows = getattr(reader, "num_rows", None)
    if not isinstance(rows, int) or isinstance(rows, bool):  # a plugin's reader may have anything there
        return None
    return rows


def share_read(choice: Choice, rows: RowReader, statistics: RunStatistics) -> float | None:
    """Return how much of the rows of a run was read, from 0 to 1; `None` where the size is not known."""
    most = choice.at_most()
    if most is None:
        return rows.share_read
    return max(rows.share_read or 0.0, statistics.pulled / max(1, most - statistics.repeats))


def total_of(known: int | None, read: float | None, pulled: int) -> Total:
    """Return how many rows there are.

    Args:
        known: their number, where the input has it.
        read: how much of the input was read, from 0 to 1; `None` where that is not known.
        pulled: how many rows that was.
    """
    if known is not None:
        return Total(max(known, pulled), False)
    if not read or not pulled:
        return Total(None, False)
    return Total(max(pulled, round(pulled / read)), read < 1)


def recorded_total(choice: Choice, rows: RowReader, statistics: RunStatistics) -> list[Any]:
    """Return how many rows there are as the state keeps it."""
    try:
        return [*total_of(number_of_rows(rows), share_read(choice, rows, statistics), statistics.pulled)]
    except Exception:  # whatever a plugin's reader says of itself ends no run
        return [None, False]


def seconds_left(rows: int, left: int | None, speed: float, seconds: float) -> float | None:
    """Return how long the rest takes, as soon as the speed means something.

    Args:
        rows: how many were finished at this speed.
        left: how many are not finished; `None` where that is not known.
        speed: rows per second.
        seconds: since the first one was begun.
    """
    if left is None or not speed or seconds < MIN_SECONDS or rows < min(MIN_ROWS, MIN_SHARE * (rows + left)):
        return None
    return left / speed
