"""`status_as_json`: the status of a run as JSON types; docs/status.schema.json describes them."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillhouse.jobs.copies.facts import CopyFact
from stillhouse.jobs.reporting.facts import outcome_of
from stillhouse.jobs.runs.pace import RunPace
from stillhouse.jobs.runs.summary import Summary
from stillhouse.jobs.store.damage import Damage
from stillhouse.jobs.store.database import DONE, FAILED

__all__ = ["STATUS_VERSION", "Places", "latest_counts", "status_as_json"]

STATUS_VERSION = 1
"""Of the form of the JSON. It grows when a key changes or goes away; new keys may be added without that."""


@dataclass(frozen=True)
class Places:
    """Where a run is.

    Attributes:
        output: its output.
        state: its state.
        copied_from: the name of another output whose state this is; empty if it is that of this one.
    """

    output: Path
    state: Path
    copied_from: str


def latest_counts(connection: sqlite3.Connection, summary: Summary) -> tuple[int, int] | None:
    """Return how many rows the latest session finished and failed; `None` if there was no session."""
    if not summary.sessions:
        return None
    query = "SELECT state, count(*) FROM rows WHERE finished >= ? GROUP BY state"
    counts = dict(connection.execute(query, (summary.sessions[-1].started,)).fetchall())
    return counts.get(DONE, 0), counts.get(FAILED, 0)


def status_as_json(
    output: str,
    working: bool,
    summary: Summary,
    pace: RunPace,
    places: Places,
    latest: tuple[int, int] | None,
    damage: Damage | None,
    copied: CopyFact | None = None,
) -> dict[str, Any]:
    """Return the status of a run as JSON types; what is not known is `None`.

    Args:
        output: what the user gave.
        working: whether a process works on the run.
        summary: the state of the run.
        pace: how fast it is.
        places: where it is.
        latest: see `latest_counts`.
        damage: what of the state is damaged; `None` if nothing is.
        copied: what the state knows of its copies; `None` for a run without any.
    """
    last = summary.sessions[-1] if summary.sessions else None
    outcome = "not started" if last is None else "working" if working else outcome_of(last)
    return {
        "status": STATUS_VERSION,
        "output": output,
        "working": working,
        "outcome": "complete" if summary.complete and not working else outcome,
        "process": last.process if working and last is not None else None,
        "places": {
            "output": str(places.output.absolute()),
            "state": str(places.state.absolute()),
            "copied_from": places.copied_from or None,
        },
        "session": None
        if last is None or latest is None
        else {
            "number": len(summary.sessions),
            "done": latest[0],
            "failed": latest[1],
            "started": last.started,
        },
        **asdict(pace),
        **summary.as_json(),
        "state_copy": None
        if copied is None
        else {
            "url": copied.url,
            "taken": copied.taken,
            "age": None if copied.taken is None else max(0.0, time.time() - copied.taken),
            "problem": copied.problem,
        },
        "damaged": None if damage is None else damage._asdict(),
    }
