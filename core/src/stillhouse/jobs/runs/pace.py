"""`RunPace`: how long a run took so far and how fast it is, read from its state by another process."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from stillhouse.jobs.runs.provenance import provenances_of
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
        total: the number of rows; `None` where it is not known before the end.
        seconds: the time that processes worked on the run.
        rows_per_second: in the last half minute; `None` if no process works on it.
        seconds_left: until the end, at this speed; `None` where that cannot be said.
    """

    llm: str | None
    model: str | None
    input: list[str]
    total: int | None
    seconds: float
    rows_per_second: float | None
    seconds_left: float | None


def pace_of(connection: sqlite3.Connection, summary: Summary, working: bool) -> RunPace:
    """Return the pace of a run; `working` is whether a process works on it."""
    now = time.time()
    total: Any = summary.rows if summary.complete else facts_of(connection).get("total")
    if not isinstance(total, int) or total < summary.rows:
        total = None
    seconds = 0.0
    for place, session in enumerate(summary.sessions, 1):
        is_last = place == len(summary.sessions)
        ended = session.ended
        if ended is None:  # one that was killed worked at least until its last row, if that is known
            ended = now if working and is_last else (summary.last_finished or 0.0) if is_last else 0.0
        seconds += max(0.0, ended - session.started)
    speed = left = None
    if working and summary.sessions:
        window = min(WINDOW_SECONDS, max(now - summary.sessions[-1].started, 1.0))
        query = "SELECT count(*) FROM rows WHERE finished > ?"
        speed = connection.execute(query, (now - window,)).fetchone()[0] / window
        if total is not None and speed:
            left = (total - summary.rows) / speed
    command = summary.command or {}
    llm = command.get("llm")
    sources = [found.input for _, found in sorted(provenances_of(connection).items()) if found.input]
    return RunPace(
        llm=llm.get("llm") if isinstance(llm, dict) else None,
        model=command.get("model_name"),
        input=sources[-1] if sources else [],
        total=total,
        seconds=seconds,
        rows_per_second=speed,
        seconds_left=left,
    )
