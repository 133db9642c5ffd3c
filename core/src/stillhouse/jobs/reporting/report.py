"""`report_run`: the report of a run as one self-contained page, or as JSON, made from the run's state."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.formats.targets import beside
from stillhouse.jobs.reporting.charts import Chart, histogram, series
from stillhouse.jobs.reporting.commands import command_text
from stillhouse.jobs.reporting.facts import RunFacts, read_facts
from stillhouse.jobs.reporting.page import check_page_name, write_page
from stillhouse.jobs.reporting.samples import FEW_ROWS
from stillhouse.jobs.reporting.sections import (
    MAX_SESSIONS,
    answers_of,
    endings_of,
    environment_of,
    failures_of,
    progress_of,
    sessions_of,
    settings_of,
    warnings_of,
)
from stillhouse.jobs.reporting.twin import run_as_json
from stillhouse.jobs.reporting.units import count, duration, iso_moment, moment, seconds_text
from stillhouse.jobs.runs.summary import Summary
from stillhouse.jobs.runs.waits import Waits
from stillhouse.jobs.spending.prices import cost_text
from stillhouse.jobs.store.found import state_of
from stillhouse.jobs.store.lock import is_worked_on
from stillhouse.jobs.store.salvage import intact
from stillhouse.protocols import HookCalls

__all__ = ["figures_of", "opened", "report_as_json", "report_run", "state_text", "write_report"]

MAX_BREAKS = 40


def report_run(
    target: str,
    hooks: HookCalls,
    page: str | Path | None = None,
    state: Path | None = None,
    *,
    by: str | None = None,
) -> Path:
    """Write the report of the run of an output, and return the path of the page.

    Args:
        target: the output, as the run was given it.
        hooks: the installed plugins.
        page: the page to write; `OUTPUT.report.html` if not said.
        state: the state of the run, if it is not beside the output.
        by: a column of the input to group the rows by.

    Raises:
        ConfigurationError: the page cannot be written, is no report, or has no name of a page; or the rows
            cannot be grouped.
        StoreError: there is no run of that output, or its state cannot be read.
    """
    place = output_path(target, hooks)
    page = beside(place, ".report.html") if page is None else output_path(str(page))
    check_page_name(page)
    path = state_of(place, state)
    with opened(target, hooks, state) as (connection, working):
        try:
            write_report(connection, str(place), working, page, target=target, state=path, by=by, hooks=hooks)
        except OSError as error:
            raise ConfigurationError(
                f"{page} cannot be written: {error.strerror or error}", hint="give another with -o FILE.html"
            ) from None
    return page


def report_as_json(
    target: str, hooks: HookCalls, state: Path | None = None, *, by: str | None = None
) -> dict[str, Any]:
    """Return the report of the run of an output as JSON types; see `report_run`.

    Raises:
        ConfigurationError: the rows cannot be grouped.
        StoreError: there is no run of that output, or its state cannot be read.
    """
    place = output_path(target, hooks)
    path = state_of(place, state)
    with opened(target, hooks, state) as (connection, working):
        return run_as_json(
            read_facts(connection, str(place), working, target=target, state=path, by=by, hooks=hooks)
        )


@contextlib.contextmanager
def opened(
    target: str, hooks: HookCalls, state: Path | None = None
) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """Open the state of a run for the block; give its database, and whether a process works on it.

    Raises:
        StoreError: there is no run of that output, or its state cannot be read.
    """
    path = state_of(output_path(target, hooks), state)
    working = is_worked_on(path)
    with intact(path, checked=not working) as (connection, _):
        yield connection, working


def write_report(
    connection: sqlite3.Connection,
    output: str,
    working: bool,
    path: Path,
    *,
    target: str | None = None,
    state: Path | None = None,
    by: str | None = None,
    hooks: HookCalls | None = None,
) -> None:
    """Write the report of a run.

    Args:
        connection: its database.
        output: the name of its output.
        working: whether a process works on it now.
        path: the file to write; an earlier report is replaced when the new one is whole.
        target: its output, as the run was given it.
        state: the path of its state, if that is not beside the output.
        by: a column of the input to group the rows by.
        hooks: the installed plugins, which may read the input.

    Raises:
        ConfigurationError, OSError: the file cannot be written, or is not a report.
    """
    facts = read_facts(connection, output, working, target=target, state=state, by=by, hooks=hooks)
    write_page(path, "report.html.jinja", _shown(facts))


def _shown(facts: RunFacts) -> dict[str, Any]:
    """Return what the template shows."""
    summary = facts.summary
    has_charts = summary.rows > FEW_ROWS
    sessions = sessions_of(facts)
    return {
        "name": facts.name,
        "model": str((summary.command or {}).get("model_name") or ""),
        "state": state_text(facts),
        "working": facts.working,
        "progress": progress_of(facts),
        "made": moment(facts.made),
        "times": _times(facts),
        "figures": figures_of(facts),
        "warnings": warnings_of(facts),
        "rows": summary.rows,
        "samples": facts.samples,
        "why": _why(facts),
        "prompts_note": facts.source.note,
        "over_time": _over_time(facts) if has_charts else [],
        "distributions": _distributions(facts) if has_charts else [],
        "answers": answers_of(facts),
        "endings": endings_of(facts),
        "failures": failures_of(facts),
        "groups": facts.groups,
        "command": command_text(facts.first),
        "settings": settings_of(facts),
        "environment": environment_of(facts.latest),
        "sessions": sessions,
        "earlier_sessions": max(0, len(summary.sessions) - MAX_SESSIONS),
        "seconds_text": seconds_text,
        "cost_text": cost_text,
        "count": count,
    }


def state_text(facts: RunFacts) -> tuple[str, str]:
    """Return how a run is: the class of its color, and the words."""
    failures, state = facts.summary.failures, facts.state
    if state == "complete" and failures:
        return "attention", f"complete, {failures:,} {'row' if failures == 1 else 'rows'} failed"
    return (
        "good" if state == "complete" else "bad" if state in ("stopped", "killed") else "attention"
    ), state


def _times(facts: RunFacts) -> list[tuple[str, str, str]]:
    """Return when the run began and ended: a label, the time for programs, and for people."""
    sessions = facts.summary.sessions
    if not sessions:
        return []
    found = [("started", sessions[0].started)]
    last = sessions[-1].ended or facts.summary.last_finished
    if last is not None and not facts.working:
        found.append(("ended", last))
    return [(label, iso_moment(seconds), moment(seconds)) for label, seconds in found]


def _why(facts: RunFacts) -> list[tuple[str, int]]:
    """Return why samples were picked, and how many were for each reason, in a fixed order."""
    order = ["random", "failed", "cut off", "longest", "shortest", "slowest"]
    counts = {why: sum(why in sample.why for sample in facts.samples) for why in order}
    return [(why, number) for why, number in counts.items() if number]


def figures_of(facts: RunFacts) -> list[tuple[str, str, str, str]]:
    """Return the main figures: a label, a value, a remark, and the class of its color."""
    summary, seconds = facts.summary, facts.seconds
    working = max(seconds - facts.loading, 1e-3)
    failed = f"{summary.failures / summary.rows:.1%} of the rows" if summary.failures else ""
    tokens = summary.output_tokens
    rates = (
        f"{summary.rows / working:,.1f} rows/s" if summary.rows else "",
        "" if tokens is None else f"{tokens / working:,.0f} tokens/s",
    )
    before = f"{duration(facts.loading)} of it before the first row" if facts.loading >= 0.5 else ""
    figures = [
        ("Rows finished", f"{summary.rows:,}", rates[0], ""),
        ("Failed", f"{summary.failures:,}", failed, "bad" if summary.failures else ""),
        ("Input tokens", count(summary.input_tokens), "", ""),
        *_cache_figures(summary),
        ("Output tokens", count(summary.output_tokens), rates[1], ""),
        ("Time at work", duration(seconds), before, ""),
    ]
    if summary.queued:
        figures.insert(2, ("To be retried", f"{summary.queued:,}", "by the same command", ""))
    if summary.cost is not None:
        figures.append(("Cost", cost_text(summary.cost), f"prices of {summary.prices}", ""))
    return figures


def _cache_figures(summary: Summary) -> list[tuple[str, str, str, str]]:
    """Return what of the input was read from the provider's cache and written to it, with its cost."""
    parts = [
        ("Read from a cache", summary.cached_tokens, summary.cached_cost),
        ("Written to a cache", summary.written_tokens, summary.written_cost),
    ]
    return [
        (label, f"{count:,}", cost_text(cost) if cost else "", "") for label, count, cost in parts if count
    ]


def _over_time(facts: RunFacts) -> list[Chart]:
    spans, breaks = facts.spans, facts.starts[1:][:MAX_BREAKS]
    if len(spans.rows) < 2:
        return []
    mean, width = f"mean of each {duration(spans.width)}", duration(spans.width)
    rows, tokens = spans.per_second(spans.rows), spans.per_second(spans.output_tokens)
    charts = [series("rows", f"Rows per second ({mean})", rows, spans.edges, breaks, "rows/s")]
    finished = list(accumulate(map(float, spans.rows)))
    title = f"Rows finished (after each {width})"
    charts.append(series("finished", title, finished, spans.edges, breaks, "rows"))
    if any(spans.failed):
        failed = list(map(float, spans.failed))
        charts.append(series("failed", f"Failed rows (per {width})", failed, spans.edges, breaks, "rows"))
    if any(tokens):
        title = f"Output tokens per second ({mean})"
        charts.append(series("tokens", title, tokens, spans.edges, breaks, "tokens/s"))
    if facts.latency.count:
        title = f"Rows in flight ({mean})"
        charts.append(series("flight", title, spans.in_flight, spans.edges, breaks, "rows, on average"))
    return charts


def _waiting(waits: Waits | None) -> str:
    """Say how much of the time of a row is not work."""
    if waits is None:
        return "Waiting for a free slot or a rate limit is included."
    return (
        f"On average, a row waited {seconds_text(waits.waited)} for a free slot or a rate limit, "
        f"and was worked on for {seconds_text(waits.worked)}."
    )


def _distributions(facts: RunFacts) -> list[Chart]:
    def tokens(value: float) -> str:
        return f"{value:,.0f}"

    charts = []
    if facts.latency.count:
        chart = histogram("latency", "Seconds from submission to answer", facts.latency, seconds_text)
        chart.note = f"{chart.note} {_waiting(facts.waits)}".strip()
        charts.append(chart)
    if facts.inputs.count:
        charts.append(histogram("input", "Input tokens per row", facts.inputs, tokens, whole=True))
    if facts.outputs.count:
        charts.append(histogram("output", "Output tokens per row", facts.outputs, tokens, whole=True))
    return charts
