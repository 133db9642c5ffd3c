"""The report of a run: one page that stands for itself, made from the run's database."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.partial import PartialFile
from stillhouse.jobs.reporting.charts import Chart, Distribution, histogram, series
from stillhouse.jobs.reporting.progress import clock, duration
from stillhouse.jobs.runs.summary import Session, Summary, summarize
from stillhouse.jobs.spending.prices import cost_text

__all__ = ["write_report"]

# Into how many spans the time of a run is divided at most, and how many rows a span has about at least:
# with fewer there is nothing to see but noise.
SPANS = 150
ROWS_PER_SPAN = 8
FEWEST_SPANS = 24
_WIDTHS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]

# Latencies are kept to 0.1 percent.
_RESOLUTION = 1000

# How a page of ours says so, within its first bytes.
_GENERATOR = b'<meta name="generator" content="stillhouse">'
_HEAD_BYTES = 4096

EXAMPLES = 3
LONGEST_TEXT = 600


@dataclass
class _Failures:
    """Failed rows of one kind, with some of them: row numbers and messages."""

    kind: str
    count: int
    examples: list[tuple[int, str]] = field(default_factory=list)


class _Timeline:
    """The time that somebody worked on the run, without the pauses between the sessions.

    Args:
        spans: when each session began and ended, in seconds since 1970.
        rows: how many rows there are, about.

    Attributes:
        starts: when each began, on this timeline.
        width: how many seconds each span has; the last one has what is left besides.
        edges: where the spans begin, and where the last one ends.
    """

    def __init__(self, spans: Sequence[tuple[float, float]], rows: int) -> None:
        self._begun = [start for start, _ in spans]
        self._lengths = [max(0.0, end - start) for start, end in spans]
        self.starts = [sum(self._lengths[:number]) for number in range(len(spans))]
        end = max(sum(self._lengths), 1e-3)
        most = min(SPANS, max(FEWEST_SPANS, rows // ROWS_PER_SPAN))
        self.width = next((width for width in _WIDTHS if end / width <= most), end / most)
        count = max(1, int(end / self.width))
        self.edges = [number * self.width for number in range(count)] + [end]
        self.rows = [0] * count
        self.output_tokens = [0] * count
        # Calls by the span that they began and ended in, and the sums of these moments.
        self._began, self._began_sum = [0] * (count + 2), [0.0] * (count + 2)
        self._ended, self._ended_sum = [0] * (count + 2), [0.0] * (count + 2)
        self.latency: dict[float, int] = defaultdict(int)
        self.inputs: dict[float, int] = defaultdict(int)
        self.outputs: dict[float, int] = defaultdict(int)

    def add(self, rows: Iterable[tuple[float, float | None, int | None, int | None]]) -> None:
        """Count rows: when each was finished, after how many seconds, its input and output tokens.

        There may be millions, so this is written out.
        """
        latency, inputs, outputs = self.latency, self.inputs, self.outputs
        began, began_sum, ended, ended_sum = self._began, self._began_sum, self._ended, self._ended_sum
        counts, tokens, width, last = self.rows, self.output_tokens, self.width, len(self.rows) - 1
        log, floor, since, until, start, length = math.log, math.floor, 1.0, 0.0, 0.0, 0.0
        for finished, seconds, input_tokens, output_tokens in rows:
            if not since <= finished < until:
                session = max(0, bisect_right(self._begun, finished) - 1)
                since, start, length = self._begun[session], self.starts[session], self._lengths[session]
                until = since + length
            end = start + min(max(0.0, finished - since), length)
            place = int(end / width)
            span = place if place < last else last
            counts[span] += 1
            if input_tokens is not None:
                inputs[input_tokens] += 1
            if output_tokens is not None:
                outputs[output_tokens] += 1
                tokens[span] += output_tokens
            if seconds:
                latency[floor(log(seconds) * _RESOLUTION)] += 1
                ended[place] += 1
                ended_sum[place] += end
                begin = end - seconds
                if begin < start:
                    begin = start
                place = int(begin / width)
                began[place] += 1
                began_sum[place] += begin

    def distributions(self) -> tuple[Distribution, Distribution, Distribution]:
        """Seconds, to 0.1 percent, input tokens and output tokens of the rows."""
        latency = {math.exp((key + 0.5) / _RESOLUTION): count for key, count in self.latency.items()}
        return Distribution(latency), Distribution(self.inputs), Distribution(self.outputs)

    def in_flight(self) -> list[float]:
        """How many rows were in flight in each span, on average."""
        sums, level, last = [0.0] * len(self.rows), 0, len(self.rows) - 1
        for place in range(len(self._began)):
            ends = (place + 1) * self.width
            sums[min(place, last)] += (
                level * self.width
                + (self._began[place] * ends - self._began_sum[place])
                - (self._ended[place] * ends - self._ended_sum[place])
            )
            level += self._began[place] - self._ended[place]
        return self.per_second(sums)

    def per_second(self, counts: Sequence[float]) -> list[float]:
        """Counts in the spans as rates."""
        return [max(0.0, n / (b - a)) for n, (a, b) in zip(counts, pairwise(self.edges), strict=True)]


def write_report(connection: sqlite3.Connection, output: str, working: bool, path: Path) -> None:
    """Write the report of a run.

    Args:
        connection: its database.
        output: the name of its output.
        working: whether a process works on it now.
        path: the file to write; an earlier report is replaced when the new one is whole.

    Raises:
        ConfigurationError, OSError: it cannot be written, or is something else than a report.
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
    summary = summarize(connection)
    timeline = _Timeline(_spans(connection, summary, working), summary.rows)
    query = "SELECT finished, seconds, input_tokens, output_tokens FROM rows WHERE state != 0"
    timeline.add(connection.execute(query))
    latency, inputs, outputs = timeline.distributions()
    last = summary.sessions[-1] if summary.sessions else None
    state = "working" if working else "complete" if summary.complete else _outcome(last)
    return {
        "name": Path(output).name,
        "state": state,
        "made": clock(time.time()),
        "figures": _figures(summary, timeline),
        "over_time": _over_time(timeline, latency.count > 0) if summary.rows else [],
        "distributions": _distributions(latency, inputs, outputs),
        "failures": _failures(connection, summary),
        "command": _command(summary),
        "sessions": [_session(session, working and session is last) for session in summary.sessions],
        "pauses": len(summary.sessions) > 1,
    }


def _spans(connection: sqlite3.Connection, summary: Summary, working: bool) -> list[tuple[float, float]]:
    """When each session began and ended; one that was killed, with its last row."""
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


def _figures(summary: Summary, timeline: _Timeline) -> list[tuple[str, str, str]]:
    """The main figures: what, how much, and more about it."""
    seconds = timeline.edges[-1]
    failed = f"{summary.failures / summary.rows:.1%} of the rows" if summary.failures else ""
    rates = (
        (f"{summary.rows / seconds:,.1f} rows/s", f"{summary.output_tokens / seconds:,.0f} tokens/s")
        if summary.rows
        else ("", "")
    )
    figures = [
        ("Rows finished", f"{summary.rows:,}", rates[0]),
        ("Failed", f"{summary.failures:,}", failed),
        ("Input tokens", f"{summary.input_tokens:,}", ""),
        ("Output tokens", f"{summary.output_tokens:,}", rates[1]),
        ("Time at work", duration(seconds), ""),
    ]
    if summary.cost is not None:
        figures.append(("Cost", cost_text(summary.cost), f"prices of {summary.prices}"))
    return figures


def _over_time(timeline: _Timeline, has_calls: bool) -> list[Chart]:
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


def _failures(connection: sqlite3.Connection, summary: Summary) -> list[_Failures]:
    found = []
    for kind, count in summary.failed.items():
        examples = connection.execute(
            "SELECT row, result FROM rows WHERE kind = ? AND state = 2 ORDER BY row LIMIT ?", (kind, EXAMPLES)
        )
        messages = [
            (row + 1, str((json.loads(text)["error"] or {}).get("message"))) for row, text in examples
        ]
        found.append(_Failures(kind, count, [(row, _shortened(text)) for row, text in messages]))
    return found


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"


def _command(summary: Summary) -> list[tuple[str, str]]:
    """What the run was asked for: names and values, without what was left as it is."""
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


def _outcome(session: Session | None) -> str:
    return "not started" if session is None else session.outcome or "killed"


def _session(session: Session, working: bool) -> tuple[str, ...]:
    ended = "" if session.ended is None else clock(session.ended)
    took = "" if session.ended is None else duration(session.ended - session.started)
    outcome = "working" if working else _outcome(session)
    return (
        clock(session.started),
        ended,
        took,
        outcome,
        f"{session.process} on {session.host}",
        session.version,
    )
