"""`RunFacts`: everything that a report says of a run, read once: for its page and for its twin in JSON."""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.jobs.reporting.charts import Distribution
from stillhouse.jobs.reporting.groups import Groups, groups_of
from stillhouse.jobs.reporting.samples import Sample, Tally, samples_of
from stillhouse.jobs.reporting.timeline import Spans, Timeline
from stillhouse.jobs.runs.pace import RunPace, pace_of
from stillhouse.jobs.runs.prompted import RunInput
from stillhouse.jobs.runs.provenance import Provenance, provenances_of
from stillhouse.jobs.runs.reasons import Endings, Failures, Reasons
from stillhouse.jobs.runs.sources import source_of
from stillhouse.jobs.runs.summary import Summary, explained, summarize
from stillhouse.jobs.runs.waits import Waits, waits_of
from stillhouse.jobs.spending.prices import find_prices
from stillhouse.jobs.store.database import store_path
from stillhouse.jobs.store.seals import facts_of
from stillhouse.protocols import HookCalls

__all__ = ["RunFacts", "outcome_of", "read_facts"]


@dataclass
class RunFacts:
    """What a report says of a run.

    Attributes:
        name: that of its output.
        working: whether a process works on it now.
        made: when this was read, in seconds since 1970.
        summary: its totals.
        spans: what happened over time.
        starts: when each session began on that time.
        seconds: how long processes worked on it.
        loading: of it, how long passed before the first rows were sent.
        latency: the seconds of its calls.
        inputs: the input tokens of its rows.
        outputs: the output tokens of its rows.
        pace: how much of it is left, and how fast it is.
        tally: its rows by session.
        samples: rows to look at.
        source: its input.
        provenances: what each session ran with, by its number.
        groups: its rows by a column, if that was asked for.
        waits: of the time that rows took, how much they waited; `None` where no session said it.
        repeated_inputs: how many rows have the same content as an earlier one.
    """

    name: str
    working: bool
    made: float
    summary: Summary
    spans: Spans
    starts: list[float]
    seconds: float
    loading: float
    latency: Distribution
    inputs: Distribution
    outputs: Distribution
    pace: RunPace
    tally: Tally
    samples: list[Sample]
    source: RunInput
    provenances: dict[int, Provenance]
    groups: Groups | None
    repeated_inputs: int
    waits: Waits | None = None

    @property
    def state(self) -> str:
        """How the run is: `working`, `complete`, or how its latest session ended."""
        if self.working:
            return "working"
        last = self.summary.sessions[-1] if self.summary.sessions else None
        return "complete" if self.summary.complete else outcome_of(last)

    @property
    def endings(self) -> Endings:
        """Why its generations ended."""
        return (self.summary.reasons or Reasons()).endings

    @property
    def failures(self) -> Failures:
        """Why its rows failed."""
        return (self.summary.reasons or Reasons()).failures

    @property
    def latest(self) -> Provenance | None:
        """What its latest session ran with; `None` where the state does not have it."""
        return self.provenances[max(self.provenances)] if self.provenances else None

    @property
    def first(self) -> Provenance | None:
        """What its first session ran with: its command has everything that the run was started with."""
        return self.provenances[min(self.provenances)] if self.provenances else None

    @property
    def parameters(self) -> dict[str, Any]:
        """Its generation parameters."""
        found = (self.summary.command or {}).get("parameters")
        return found if isinstance(found, dict) else {}


def outcome_of(session: Any) -> str:
    """Return how a session ended, in a word."""
    return "not started" if session is None else session.outcome or "killed"


def read_facts(
    connection: sqlite3.Connection,
    output: str,
    working: bool,
    *,
    target: str | None = None,
    state: Path | None = None,
    by: str | None = None,
    hooks: HookCalls | None = None,
    has_samples: bool = True,
) -> RunFacts:
    """Read what a report says of a run.

    Args:
        connection: its database.
        output: its output, as it was named.
        working: whether a process works on it now.
        target: its output, as the run was given it; where a plugin wrote it, `output` is another name.
        state: the path of its state, if that is not beside the output.
        by: the column of the input to group its rows by.
        hooks: the installed plugins, which may read the input.
        has_samples: whether to pick rows to look at.

    Raises:
        ConfigurationError: the rows cannot be grouped.
    """
    summary = explained(summarize(connection), connection)
    provenances = provenances_of(connection)
    place = Path(output)
    found = source_of(connection, target or output, place, state or store_path(place), hooks, is_local=True)
    source = RunInput(summary.command, found, connection)
    spans = _spans(connection, summary, working)
    timeline, tally = Timeline(spans), Tally([start for start, _ in spans])
    query = "SELECT row, state, finished, seconds, input_tokens, output_tokens FROM rows WHERE state != 0"
    timeline.add(tally.watch(connection.execute(query)))
    latency, inputs, outputs = timeline.distributions()
    cut_off = (summary.reasons or Reasons()).endings.counts.get("length", 0)
    failures = (summary.reasons or Reasons()).failures.most_common(30)
    offer = facts_of(connection).get("offer")
    prices = find_prices(offer) if by is not None and offer else None
    repeated = connection.execute("SELECT count(*) - count(DISTINCT digest) FROM rows WHERE state != 0")
    return RunFacts(
        name=Path(output).name,
        working=working,
        made=time.time(),
        summary=summary,
        spans=timeline.shown(),
        starts=timeline.starts,
        seconds=timeline.edges[-1],
        loading=_loading(spans, tally),
        latency=latency,
        inputs=inputs,
        outputs=outputs,
        pace=pace_of(connection, summary, working),
        tally=tally,
        groups=None if by is None else groups_of(connection, by, source, prices),
        samples=samples_of(connection, tally, failures, cut_off, source) if has_samples else [],
        source=source,
        provenances=provenances,
        repeated_inputs=repeated.fetchone()[0],
        waits=waits_of(connection),
    )


def _spans(connection: sqlite3.Connection, summary: Summary, working: bool) -> list[tuple[float, float]]:
    """Return when each session began and ended; a killed session ended with its last row."""
    if summary.rows and not summary.sessions:  # damage to the state has taken them
        return connection.execute("SELECT min(finished), max(finished) FROM rows").fetchall()
    starts = [session.started for session in summary.sessions]
    ends = [session.ended for session in summary.sessions]
    if working and ends:
        ends[-1] = time.time()
    latest = list(starts)
    if None in ends:
        for (finished,) in connection.execute("SELECT finished FROM rows"):
            session = max(0, bisect_right(starts, finished) - 1)
            latest[session] = max(latest[session], finished)
    return [
        (start, last if end is None else end) for start, end, last in zip(starts, ends, latest, strict=True)
    ]


def _loading(spans: list[tuple[float, float]], tally: Tally) -> float:
    """Return the seconds between the beginning of each session and its first call, all together."""
    return sum(
        begun - start
        for (start, end), begun in zip(spans, tally.begun, strict=False)
        if start <= begun <= end
    )
