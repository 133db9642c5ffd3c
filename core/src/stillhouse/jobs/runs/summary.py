"""`Summary`: the state of a run, read from its database, also while a process works on it."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stillhouse.jobs.runs.reasons import Endings, Reasons, retried_kinds
from stillhouse.jobs.spending.prices import find_prices, spent
from stillhouse.jobs.store.database import DONE, FAILED, QUEUED, Outcome
from stillhouse.jobs.store.seals import facts_of, is_sealed

if TYPE_CHECKING:
    from stillhouse.jobs.store.store import SqliteStore

__all__ = ["Session", "Summary", "explained", "keep_endings", "summarize"]

# The place of the column `result` in the table of the rows.
_RESULT, _FINISHED = 5, 6

_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "written_tokens")


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
        queued: rows that failed and are queued for a retry.
        input_tokens: as far as the backend reported them, including paid ones of failed rows; `None` where it
            reported none.
        output_tokens: likewise.
        cached_tokens: of the input, what was read from the provider's cache; likewise.
        written_tokens: of the input, what was written to it; likewise.
        last_finished: when the last row was finished, in seconds since 1970, or `None`.
        command: the command of the run, as JSON types.
        cost: of every row, failed ones included, in USD; `None` where the prices or the tokens are not known.
        cached_cost: of it, for what was read from the provider's cache.
        written_cost: of it, for what was written to it.
        prices: the source of the prices.
        sessions: the processes that worked on it, the first one first.
        reasons: why its generations ended and its rows failed, those that are queued included; without
            `explained`, `None`.
    """

    complete: bool
    done: int
    failed: dict[str, int]
    queued: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    written_tokens: int | None
    last_finished: float | None
    command: dict[str, Any] | None
    cost: float | None
    cached_cost: float | None
    written_cost: float | None
    prices: str | None
    sessions: list[Session] = field(default_factory=list)
    reasons: Reasons | None = None

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    @property
    def rows(self) -> int:
        """Rows that are finished."""
        return self.done + self.failures

    def retry(self, kind: str) -> str | None:
        """Return the option that generates the failed rows of a kind again.

        It is `None` where it would be in vain, and where the same command does so in any case.
        """
        return f"--retry {kind}" if kind in self.failed and retried_kinds([kind]) else None

    def is_queued(self, kind: str) -> bool:
        """Whether the same command generates the failed rows of a kind again, without an option."""
        return self.queued > 0 and kind not in self.failed and bool(retried_kinds([kind]))

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON types; what nobody reported is `None`."""
        facts = asdict(replace(self, reasons=None))
        del facts["reasons"]
        if self.reasons is not None:
            endings = self.reasons.endings
            facts["endings"] = endings.counts
            facts["answers"] = endings.as_json() if endings.counts or not self.done else None
            facts["messages"] = [
                {**failure, "retry": self.retry(failure["kind"])}
                for failure in self.reasons.failures.as_json()
            ]
        return {"rows": self.rows, "failures": self.failures, **facts}


def summarize(connection: sqlite3.Connection, limit: int | None = None) -> Summary:
    """Summarize a run's database.

    Args:
        connection: the database.
        limit: count only the rows below it; the cost is that of all rows.
    """
    facts = facts_of(connection)
    # `sum` would overflow; and the sum of nothing is not 0.
    sums = ", ".join(f"total({name}), count({name})" for name in _TOKENS)
    states = connection.execute(
        f"SELECT state, kind, count(*), max(finished), {sums} "  # noqa: S608
        "FROM rows WHERE row < ? GROUP BY state, kind",
        (sys.maxsize if limit is None else limit,),
    ).fetchall()
    tokens: list[int | None] = [
        int(sum(row[place] for row in states)) if any(row[place + 1] for row in states) else None
        for place in range(4, 4 + 2 * len(_TOKENS), 2)
    ]
    offer = facts.get("offer")
    # Without any tokens, prices say nothing.
    prices = find_prices(offer) if offer and any(count is not None for count in tokens) else None
    cost = spent(connection, prices)
    complete = facts.get("complete") is not None
    failed = {kind: count for state, kind, count, *_ in states if state == FAILED}
    return Summary(
        complete=complete,
        done=sum(count for state, _, count, *_ in states if state == DONE),
        failed=dict(sorted(failed.items(), key=lambda item: -item[1])),
        queued=sum(count for state, _, count, *_ in states if state == QUEUED),
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        cached_tokens=tokens[2],
        written_tokens=tokens[3],
        last_finished=max((row[3] for row in states), default=None),
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


def explained(
    summary: Summary, connection: sqlite3.Connection, limit: int | None = None, *, answers: bool = True
) -> Summary:
    """Return a summary with why generations ended and rows failed.

    Why they ended is kept when a run is complete; else, every row is read.

    Args:
        summary: of the run.
        connection: its database.
        limit: count only the rows below it.
        answers: whether to look at the answers; else only failed rows are read.
    """
    kept = facts_of(connection).get("reasons") if summary.complete else None
    reasons = Reasons()
    query = "SELECT * FROM rows WHERE row < ? AND kind IS NOT NULL ORDER BY row"
    if kept is None and answers:
        query = "SELECT * FROM rows WHERE row < ? ORDER BY row"
    for record in connection.execute(query, (sys.maxsize if limit is None else limit,)):
        if is_sealed("rows", record):  # a row that is damaged says nothing
            reasons.add(record[0], json.loads(record[_RESULT]), record[_FINISHED])
    if kept is not None:
        reasons.endings = Endings(kept["endings"], kept["empty"])
    return replace(summary, reasons=reasons)


def keep_endings(store: SqliteStore, endings: Endings) -> None:
    """Store why the generations of a complete run ended."""
    store.set("reasons", {"endings": endings.counts, "empty": endings.empty})
