"""`Waits`: of the time that rows took, how much they waited for a slot of the engine or for a limit.

The LLM of a session says it of all its calls together. It is a fact of the run's state for each session,
renewed each second; a state of an earlier version does not have it.
"""

from __future__ import annotations

import math
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse.jobs.store.seals import facts_of

if TYPE_CHECKING:
    from stillhouse.jobs.runs.statistics import RunStatistics
    from stillhouse.llm import LLM

__all__ = ["Waits", "recorded_waits", "seconds_waited", "waits_key", "waits_of"]

_KEY = "waits"


class Waits(NamedTuple):
    """How long rows took, as means in seconds.

    Attributes:
        rows: the number of these rows: those of the sessions whose LLM said it.
        waited: for a slot of the engine, for a limit, or until a failed request was sent again.
        worked: the rest.
    """

    rows: int
    waited: float
    worked: float


def waits_key(session: int) -> str:
    """Return the name of the fact of a session."""
    return f"{_KEY} {session}"


def seconds_waited(llm: LLM) -> float | None:
    """Return how long the calls of an LLM have waited; `None` where it does not know it.

    One that is not loaded, because workers generate, does not.
    """
    try:
        waited = llm.seconds_waited
    except Exception:  # whatever a backend does there ends no run
        return None
    return float(waited) if isinstance(waited, (int, float)) and 0 <= waited < math.inf else None


def recorded_waits(llm: LLM, before: float | None, statistics: RunStatistics) -> list[Any] | None:
    """Return what the state keeps: rows, the seconds that they took, and those that they waited.

    Args:
        llm: the LLM.
        before: how long its calls had waited when the session began.
        statistics: what the session did.
    """
    waited = seconds_waited(llm)
    if waited is None or not statistics.timed_rows:
        return None
    return [statistics.timed_rows, statistics.timed_seconds, max(0.0, waited - (before or 0.0))]


def waits_of(connection: sqlite3.Connection) -> Waits | None:
    """Return what the sessions of a run said together; `None` if none said anything."""
    rows, seconds, waited = 0, 0.0, 0.0
    for key, value in facts_of(connection).items():
        match key.partition(" ")[0], value:
            case [_key, [int(count), int() | float() as taken, int() | float() as part]] if _key == _KEY:
                rows, seconds, waited = rows + count, seconds + taken, waited + min(part, taken)
    return Waits(rows, waited / rows, (seconds - waited) / rows) if rows > 0 else None
