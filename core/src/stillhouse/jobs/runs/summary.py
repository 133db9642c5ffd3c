"""`Summary`: the state of a run, read from its database, also while a process works on it."""

from __future__ import annotations

import sqlite3
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from stillhouse.jobs.spending.prices import find_prices, spent
from stillhouse.jobs.store.database import DONE, FAILED, QUEUED, Outcome
from stillhouse.jobs.store.seals import facts_of, is_sealed

__all__ = ["Session", "Summary", "summarize"]


@dataclass(frozen=True)
class Session:
    """The work of one process on a run.

    Attributes:
        started: when, in seconds since 1970.
        ended: likewise; `None` while it works, and if it was killed.
        outcome: how the work ended; `None` as above.
        process: its number.
        host: the machine.
        version: that of stillhouse.
    """

    started: float
    ended: float | None
    outcome: Outcome | None
    process: int
    host: str
    version: str


@dataclass(frozen=True)
class Summary:
    """The state of a run.

    Attributes:
        complete: whether every row is finished and the output written.
        done: rows with an output.
        failed: rows without, by the kind of their error.
        endings: of a complete run, how many generations ended for each reason.
        queued: rows that failed and are queued for a retry.
        input_tokens: as far as the backend reported them, including paid ones of failed rows.
        output_tokens: likewise.
        cached_tokens: of the input, what was read from the provider's cache.
        written_tokens: of the input, what was written to it.
        last_finished: when the last row was finished, in seconds since 1970, or `None`.
        command: the command of the run, as JSON types.
        cost: of every row, failed ones included, in USD; `None` where the prices are not known.
        cached_cost: of it, for what was read from the provider's cache.
        written_cost: of it, for what was written to it.
        prices: the source of the prices.
        sessions: the processes that worked on it, the first one first.
    """

    complete: bool
    done: int
    failed: dict[str, int]
    endings: dict[str, int]
    queued: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    written_tokens: int
    last_finished: float | None
    command: dict[str, Any] | None
    cost: float | None
    cached_cost: float | None
    written_cost: float | None
    prices: str | None
    sessions: list[Session] = field(default_factory=list)

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    @property
    def rows(self) -> int:
        """Rows that are finished."""
        return self.done + self.failures

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON types."""
        return {"rows": self.rows, "failures": self.failures, **asdict(self)}


def summarize(connection: sqlite3.Connection, limit: int | None = None) -> Summary:
    """Summarize a run's database.

    Args:
        connection: the database.
        limit: count only the rows below it; the cost is that of all rows.
    """
    facts = facts_of(connection)
    states = connection.execute(
        "SELECT state, kind, count(*), total(input_tokens), total(output_tokens), "
        "total(cached_tokens), total(written_tokens), max(finished) "
        "FROM rows WHERE row < ? GROUP BY state, kind",
        (sys.maxsize if limit is None else limit,),
    ).fetchall()
    offer = facts.get("offer")
    cost = spent(connection, find_prices(offer) if offer else None)
    complete = facts.get("complete") is not None
    failed = {kind: count for state, kind, count, *_ in states if state == FAILED}
    return Summary(
        complete=complete,
        done=sum(count for state, _, count, *_ in states if state == DONE),
        failed=dict(sorted(failed.items(), key=lambda item: -item[1])),
        endings=facts.get("endings", {}) if complete else {},
        queued=sum(count for state, _, count, *_ in states if state == QUEUED),
        input_tokens=int(sum(row[3] for row in states)),
        output_tokens=int(sum(row[4] for row in states)),
        cached_tokens=int(sum(row[5] for row in states)),
        written_tokens=int(sum(row[6] for row in states)),
        last_finished=max((row[7] for row in states), default=None),
        command=facts.get("command"),
        cost=cost and cost.total,
        cached_cost=cost and cost.cached,
        written_cost=cost and cost.written,
        prices=cost and cost.source,
        sessions=[
            Session(*record[1:7])
            for record in connection.execute("SELECT * FROM sessions ORDER BY session")
            if is_sealed("sessions", record)
        ],
    )
