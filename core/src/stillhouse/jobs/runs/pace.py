"""`RunPace`: the duration and the speed of a run, read from its state by another process."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from stillhouse.jobs.runs.provenance import provenances_of
from stillhouse.jobs.runs.reach import REACH, seconds_left
from stillhouse.jobs.runs.summary import Summary
from stillhouse.jobs.store.seals import facts_of

__all__ = ["WINDOW_SECONDS", "RunPace", "pace_of"]

WINDOW_SECONDS = 30.0
"""What happened longer ago says little about the rest of a run."""


@dataclass(frozen=True)
class RunPace:
    """What a run works on, and how fast.

    Attributes:
        llm: the name of the backend; `None` where the state does not have it.
        model: that of the model, likewise.
        input: the names of the input.
        total: the number of rows; `None` where nothing is known.
        total_is_estimated: whether it is computed from how much of the input was read.
        seconds: the time that processes worked on the run.
        rows_per_second: in the last half minute; `None` if no process works on it.
        seconds_left: until the end, at this speed; `None` where that cannot be said.
    """

    llm: str | None
    model: str | None
    input: list[str]
    total: int | None
    total_is_estimated: bool
    seconds: float
    rows_per_second: float | None
    seconds_left: float | None


def pace_of(connection: sqlite3.Connection, summary: Summary, working: bool) -> RunPace:
    """Return the pace of a run; `working` is whether a process works on it."""
    now = time.time()
    total, is_estimated = _total(connection, summary)
    seconds = 0.0
    for place, session in enumerate(summary.sessions, 1):
        is_last = place == len(summary.sessions)
        ended = session.ended
        if ended is None:  # one that was killed worked at least until its last row, if that is known
            ended = now if working and is_last else (summary.last_finished or 0.0) if is_last else 0.0
        seconds += max(0.0, ended - session.started)
    speed = left = None
    if working and summary.sessions:
        started = summary.sessions[-1].started
        window = min(WINDOW_SECONDS, max(now - started, 1.0))
        speed = _rows_since(connection, now - window) / window
        rest = None if total is None else total - summary.rows
        left = seconds_left(_rows_since(connection, started), rest, speed, now - started)
    command = summary.command or {}
    llm = command.get("llm")
    sources = [found.input for _, found in sorted(provenances_of(connection).items()) if found.input]
    return RunPace(
        llm=llm.get("llm") if isinstance(llm, dict) else None,
        model=command.get("model_name"),
        input=sources[-1] if sources else [],
        total=total,
        total_is_estimated=is_estimated,
        seconds=seconds,
        rows_per_second=speed,
        seconds_left=left,
    )


def _total(connection: sqlite3.Connection, summary: Summary) -> tuple[int | None, bool]:
    """Return how many rows a run has, and whether that is estimated."""
    if summary.complete:
        return summary.rows, False
    facts = facts_of(connection)
    match facts.get(REACH, [facts.get("total"), False]):  # an earlier version has a total that is known
        case [int(total), bool(is_estimated)] if total >= summary.rows:
            return total, is_estimated
    return None, False


def _rows_since(connection: sqlite3.Connection, moment: float) -> int:
    found: int = connection.execute("SELECT count(*) FROM rows WHERE finished > ?", (moment,)).fetchone()[0]
    return found
