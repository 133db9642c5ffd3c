"""`write_report`: the report of a run as one self-contained page, made from the run's database."""

from __future__ import annotations

import json
import sqlite3
import time
from bisect import bisect_right
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.formats.partial import PartialFile
from stillhouse.jobs.formats.targets import beside
from stillhouse.jobs.reporting.charts import Chart, Distribution, histogram, series
from stillhouse.jobs.reporting.sections import answers_of, failures_of, outcome_of, sessions_of
from stillhouse.jobs.reporting.timeline import Timeline
from stillhouse.jobs.reporting.units import clock, count, duration
from stillhouse.jobs.runs.summary import Summary, explained, summarize
from stillhouse.jobs.spending.prices import cost_text
from stillhouse.jobs.store.found import state_of
from stillhouse.jobs.store.lock import is_worked_on
from stillhouse.jobs.store.salvage import intact
from stillhouse.protocols import HookCalls

__all__ = ["report_run", "write_report"]

# What identifies a report of Stillhouse, within its first bytes.
_GENERATOR = b'<meta name="generator" content="stillhouse">'
_HEAD_BYTES = 4096

MAX_TEXT_CHARACTERS = 600


def report_run(
    target: str, hooks: HookCalls, page: str | Path | None = None, state: Path | None = None
) -> Path:
    """Write the report of the run of an output, and return the path of the page.

    Args:
        target: the output, as the run was given it.
        hooks: the installed plugins.
        page: the page to write; `OUTPUT.report.html` if not said.
        state: the state of the run, if it is not beside the output.

    Raises:
        ConfigurationError: the page cannot be written, is no report, or has no name of a page.
        StoreError: there is no run of that output, or its state cannot be read.
    """
    place = output_path(target, hooks)
    page = beside(place, ".report.html") if page is None else output_path(str(page))
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigurationError(f"{page} is no name of a page", hint="give -o FILE.html")
    path = state_of(place, state)
    working = is_worked_on(path)
    with intact(path, checked=not working) as (connection, _):
        try:
            write_report(connection, target, working, page)
        except OSError as error:
            raise ConfigurationError(
                f"{page} cannot be written: {error.strerror or error}", hint="give another with -o FILE.html"
            ) from None
    return page


def write_report(connection: sqlite3.Connection, output: str, working: bool, path: Path) -> None:
    """Write the report of a run.

    Args:
        connection: its database.
        output: the name of its output.
        working: whether a process works on it now.
        path: the file to write; an earlier report is replaced when the new one is whole.

    Raises:
        ConfigurationError, OSError: the file cannot be written, or is not a report.
    """
    import jinja2

    _check_replaceable(path)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.jinja").render(_facts(connection, output, working))
    file = PartialFile(path)
    try:
        file.stream.write(page.encode("utf-8", "backslashreplace"))
        file.finish()
    except BaseException:
        file.abandon()
        raise


def _check_replaceable(path: Path) -> None:
    """Refuse to replace a page that is not a report."""
    if path.is_file():
        with path.open("rb") as stream:
            if _GENERATOR not in stream.read(_HEAD_BYTES):
                raise ConfigurationError(
                    f"{path} exists, and is not a report of Stillhouse",
                    hint="move it away, or give another with -o FILE.html",
                )


def _facts(connection: sqlite3.Connection, output: str, working: bool) -> dict[str, Any]:
    summary = explained(summarize(connection), connection)
    timeline = Timeline(_spans(connection, summary, working), summary.rows)
    query = "SELECT finished, seconds, input_tokens, output_tokens FROM rows WHERE state != 0"
    timeline.add(connection.execute(query))
    latency, inputs, outputs = timeline.distributions()
    last = summary.sessions[-1] if summary.sessions else None
    state = "working" if working else "complete" if summary.complete else outcome_of(last)
    return {
        "name": Path(output).name,
        "state": state,
        "made": clock(time.time()),
        "figures": _figures(summary, timeline),
        "over_time": _over_time(timeline, latency.count > 0) if summary.rows else [],
        "distributions": _distributions(latency, inputs, outputs),
        "answers": answers_of(summary),
        "failures": failures_of(summary),
        "command": _command(summary),
        "sessions": sessions_of(connection, summary, working),
        "pauses": len(summary.sessions) > 1,
    }


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


def _figures(summary: Summary, timeline: Timeline) -> list[tuple[str, str, str]]:
    """Return the main figures: a label, a value, and a remark."""
    seconds = timeline.edges[-1]
    failed = f"{summary.failures / summary.rows:.1%} of the rows" if summary.failures else ""
    tokens = summary.output_tokens
    rates = (
        f"{summary.rows / seconds:,.1f} rows/s" if summary.rows else "",
        "" if tokens is None else f"{tokens / seconds:,.0f} tokens/s",
    )
    figures = [
        ("Rows finished", f"{summary.rows:,}", rates[0]),
        ("Failed", f"{summary.failures:,}", failed),
        ("Input tokens", count(summary.input_tokens), ""),
        *_cache_figures(summary),
        ("Output tokens", count(summary.output_tokens), rates[1]),
        ("Time at work", duration(seconds), ""),
    ]
    if summary.queued:
        figures.insert(2, ("To be tried again", f"{summary.queued:,}", "by the same command"))
    if summary.cost is not None:
        figures.append(("Cost", cost_text(summary.cost), f"prices of {summary.prices}"))
    return figures


def _cache_figures(summary: Summary) -> list[tuple[str, str, str]]:
    """Return what of the input was read from the provider's cache and written to it, with its cost."""
    parts = [
        ("Read from a cache", summary.cached_tokens, summary.cached_cost),
        ("Written to a cache", summary.written_tokens, summary.written_cost),
    ]
    return [(label, f"{count:,}", cost_text(cost) if cost else "") for label, count, cost in parts if count]


def _over_time(timeline: Timeline, has_calls: bool) -> list[Chart]:
    edges, breaks = timeline.edges, timeline.starts[1:]
    rows, tokens = timeline.per_second(timeline.rows), timeline.per_second(timeline.output_tokens)
    charts = [series("rows", "Rows per second", rows, edges, breaks, "rows/s")]
    if any(tokens):
        charts.append(series("tokens", "Output tokens per second", tokens, edges, breaks, "tokens/s"))
    if has_calls:
        in_flight = timeline.in_flight()
        charts.append(series("flight", "Rows in flight", in_flight, edges, breaks, "rows, on average"))
    return charts


def _distributions(latency: Distribution, inputs: Distribution, outputs: Distribution) -> list[Chart]:
    def tokens(value: float) -> str:
        return f"{value:,.0f}"

    charts = []
    if latency.count:
        charts.append(histogram("latency", "Seconds per row", latency, _seconds))
    if inputs.count:
        charts.append(histogram("input", "Input tokens per row", inputs, tokens, whole=True))
    if outputs.count:
        charts.append(histogram("output", "Output tokens per row", outputs, tokens, whole=True))
    return charts


def _seconds(value: float) -> str:
    if value == 0 or value >= 0.9995:
        return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 0.9995e-3 else f"{value * 1e6:.3g} µs"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[:MAX_TEXT_CHARACTERS]} …"


def _command(summary: Summary) -> list[tuple[str, str]]:
    """Return the command of the run as names and values, without defaults."""
    command = dict(summary.command or {})
    llm = command.pop("llm", None) or {}
    parameters = command.pop("parameters", None) or {}
    command.pop("input", None)
    facts = {"model": command.pop("model_name", None), "LLM": llm.pop("llm", None)}
    facts |= {name.replace("_", " "): value for name, value in command.items() if value is not False}
    facts |= {f"parameter {name}": value for name, value in parameters.items()}
    facts |= {f"field {name}": value for name, value in llm.items() if name != "model"}
    return [
        (name, _shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        for name, value in facts.items()
        if value is not None and value != {} and value != []
    ]
