"""`run_as_json`: what the page of a report shows, as JSON types; docs/report.schema.json describes them."""

from __future__ import annotations

from typing import Any

from stillhouse.jobs.reporting.charts import Distribution
from stillhouse.jobs.reporting.commands import command_text, retry_text
from stillhouse.jobs.reporting.facts import RunFacts, outcome_of
from stillhouse.jobs.reporting.sections import MAX_SESSIONS
from stillhouse.jobs.reporting.units import iso_moment
from stillhouse.jobs.runs.reasons import Failure

__all__ = ["REPORT_VERSION", "run_as_json"]

REPORT_VERSION = 1
"""Of the form of the JSON. It grows when a key changes or goes away; new keys may be added without that."""

MAX_MESSAGES = 100


def run_as_json(facts: RunFacts) -> dict[str, Any]:
    """Return a report as JSON types; what is not known is `None`."""
    summary, spans = facts.summary, facts.spans
    return {
        "report": REPORT_VERSION,
        "output": facts.name,
        "state": facts.state,
        "made": iso_moment(facts.made),
        "model": (summary.command or {}).get("model_name"),
        "rows": summary.rows,
        "done": summary.done,
        "failed": summary.failed,
        "queued": summary.queued,
        "total": facts.pace.total,
        "total_is_estimated": facts.pace.total_is_estimated,
        "seconds_left": facts.pace.seconds_left,
        "seconds_at_work": facts.seconds,
        "seconds_before_first_row": facts.loading,
        "tokens": {
            "input": summary.input_tokens, "output": summary.output_tokens,
            "cached": summary.cached_tokens, "written": summary.written_tokens,
        },
        "cost": summary.cost,
        "prices": summary.prices,
        "answers": facts.endings.as_json(),
        "finish_reasons": facts.endings.counts,
        "repeated_inputs": facts.repeated_inputs,
        "failures": [_failure(facts, failure) for failure in facts.failures.most_common(MAX_MESSAGES)],
        "seconds_per_row": _distribution(facts.latency),
        "waiting": None if facts.waits is None else facts.waits._asdict(),
        "input_tokens_per_row": _distribution(facts.inputs),
        "output_tokens_per_row": _distribution(facts.outputs),
        "over_time": {
            "edges": spans.edges, "rows": spans.rows, "failed": spans.failed,
            "output_tokens": spans.output_tokens, "in_flight": spans.in_flight,
        },
        "by": None if facts.groups is None else facts.groups.as_json(),
        "samples": [sample.as_json() for sample in facts.samples],
        "samples_note": facts.source.note or None,
        "command": command_text(facts.first) or None,
        "settings": {key: value for key, value in (summary.command or {}).items() if key != "input"},
        "sessions": _sessions(facts)[-MAX_SESSIONS:],
    }  # fmt: skip


def _failure(facts: RunFacts, failure: Failure) -> dict[str, Any]:
    option = facts.summary.retry(failure.kind)
    retry = None
    if option is not None or facts.summary.is_queued(failure.kind):
        retry = retry_text(facts.first, option or "") or option
    seen = (None, None) if failure.seen is None else tuple(map(iso_moment, failure.seen))
    return {
        "kind": failure.kind, "message": failure.message, "rows": failure.rows,
        "examples": list(failure.examples), "first_seen": seen[0], "last_seen": seen[1], "retry": retry,
    }  # fmt: skip


def _distribution(found: Distribution) -> dict[str, Any]:
    if not found.count:
        return {"count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None, "largest": None}
    return {
        "count": found.count, "mean": found.total / found.count,
        **{f"p{share}": found.percentile(share / 100) for share in (50, 90, 95, 99)},
        "largest": found.largest,
    }  # fmt: skip


def _sessions(facts: RunFacts) -> list[dict[str, Any]]:
    found = []
    for place, session in enumerate(facts.summary.sessions):
        ran = facts.provenances.get(place + 1)
        is_working = facts.working and session is facts.summary.sessions[-1]
        found.append({
            "started": iso_moment(session.started),
            "ended": None if session.ended is None else iso_moment(session.ended),
            "outcome": "working" if is_working else outcome_of(session),
            "done": facts.tally.done[place], "failed": facts.tally.failed[place],
            "process": session.process, "host": session.host, "stillhouse": session.version,
            "retried": None if ran is None else ran.retried,
            "command": command_text(ran) or None,
            "environment": None if ran is None else {
                "python": ran.python, "system": ran.system, "cpus": ran.cpus, "packages": ran.packages,
            },
        })  # fmt: skip
    return found
