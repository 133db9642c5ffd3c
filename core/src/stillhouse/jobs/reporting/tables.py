"""The closing table of a run, its status, and its failures, as labels and values.

Over 300 lines: the closing table and the status share most of their lines, so that a number has one name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stillhouse._wording import number_of
from stillhouse.jobs.reporting.units import (
    about,
    count,
    duration,
    moment,
    rows_rate,
    seconds_text,
    stopwatch,
)
from stillhouse.jobs.runs.reasons import Endings, Failures, Reasons, common_endings, retried_kinds
from stillhouse.jobs.runs.said import in_a_line
from stillhouse.jobs.spending.prices import PROVIDER, cost_text

if TYPE_CHECKING:
    from stillhouse.jobs.copies.facts import CopyFact
    from stillhouse.jobs.runs.pace import RunPace
    from stillhouse.jobs.runs.statistics import RunStatistics
    from stillhouse.jobs.runs.summary import Summary
    from stillhouse.offline.chunks import Chunk

__all__ = ["copy_lines", "failure_lines", "job_lines", "source_lines", "status_lines", "summary_lines"]

SHOWN_FAILURES = 3
SHOWN_ENDINGS = 6

_HEAD = re.compile(r"\$?[0-9][0-9,]*|[a-z]+")

_REMARKS = {
    "length": "cut off: raise max_new_tokens",
    "content_filter": "filtered by the provider",
    "refusal": "refused by the model",
}


class _Line(NamedTuple):
    """A line of the closing table: what this process did, what the run has, and a remark on it."""

    label: str
    session: str
    run: str = ""
    remark: str = ""


def summary_lines(
    statistics: RunStatistics, reasons: Reasons, whole: Summary | None = None
) -> list[tuple[str, str]]:
    """Return the closing table as labels and values; what earlier processes did stands beside it.

    Args:
        statistics: of this process.
        reasons: why the rows of the whole run ended.
        whole: the run; `None` for one that is not kept.
    """
    own = statistics if whole is None else whole
    # Rows that failed and wait to be tried again are counted, as long as they have not been.
    rows = own.rows + (0 if whole is None else whole.queued)
    failed = {**statistics.failed, **reasons.failures.kinds}
    is_resumed = rows > statistics.rows
    lines = [
        _Line("rows", f"{statistics.rows:,}", f"{rows:,}"),
        _Line("done", f"{statistics.done:,}", f"{own.done:,}"),
        *_repeated_lines(statistics),
        *(
            _Line(f"failed: {kind}", f"{statistics.failed.get(kind, 0):,}", f"{number:,}")
            for kind, number in _by_number(failed)
        ),
        *_ending_lines(
            statistics.endings or (Endings() if is_resumed else reasons.endings),
            statistics.done,
            reasons.endings,
            own.done,
        ),
    ]
    if reasons.not_finite:
        lines.append(_Line("rows with NaN", "" if is_resumed else f"{reasons.not_finite:,}",
                           f"{reasons.not_finite:,}", "null in the output"))  # fmt: skip
    if is_resumed:
        lines.append(_Line("finished before", "", f"{rows - statistics.rows:,}"))
    lines += [
        _Line("input tokens", count(statistics.input_tokens), count(own.input_tokens)),
        *_cached_lines(statistics, own),
        _Line("output tokens", count(statistics.output_tokens), count(own.output_tokens)),
    ]
    seconds = max(statistics.seconds, 1e-9)
    lines += [
        _Line("time", duration(statistics.seconds)),
        _Line("rows per second", f"{statistics.rows / seconds:,.1f}"),
    ]
    for percent in (50, 95):
        latency = statistics.latencies.percentile(percent / 100)
        if latency is not None:
            lines.append(_Line(f"latency per row, p{percent}", seconds_text(latency)))
    tokens = statistics.output_tokens
    lines.append(
        _Line("output tokens per second", "unknown" if tokens is None else f"{tokens / seconds:,.0f}")
    )
    if statistics.prices is not None or statistics.cost is not None:
        source = PROVIDER if statistics.prices is None else statistics.prices.source
        lines.append(_Line("cost", _cost(statistics.cost), _cost(own.cost), f"(prices of {source})"))
    if statistics.budget is not None:
        lines.append(_Line("budget left", "", statistics.budget.left))
    if is_resumed:
        return _columns(lines)
    labels, values = zip(*_column(lines), strict=True)
    return list(zip(labels, _numbers(values), strict=True))


def _column(lines: Sequence[_Line]) -> list[tuple[str, str]]:
    # Of a run that only this process worked on, both are the same.
    def text(value: str, remark: str) -> str:
        return f"{value}{'' if remark.startswith('(') else ','} {remark}" if remark else value

    return [(label, text(session or run, remark)) for label, session, run, remark in lines]


def _columns(lines: Sequence[_Line]) -> list[tuple[str, str]]:
    runs = ["whole run", *_numbers(line.run for line in lines)]
    sessions = ["this session", *_numbers(line.session for line in lines)]
    widths = max(map(len, runs)), max(map(len, sessions))
    return [
        (label, f"{run:<{widths[0]}}  {session:<{widths[1]}}  {remark}".rstrip())
        for label, run, session, remark in zip(
            ["", *(line.label for line in lines)], runs, sessions, ["", *(line.remark for line in lines)],
            strict=True,
        )
    ]  # fmt: skip


def _numbers(texts: Iterable[str]) -> list[str]:
    """Return texts with spaces before them, so that whole numbers end below each other, as words do."""
    texts = list(texts)
    heads = [found[0] if (found := _HEAD.match(text)) else "" for text in texts]
    width = max(map(len, heads), default=0)
    return [" " * (width - len(head)) + text if text else "" for head, text in zip(heads, texts, strict=True)]


def _by_number(kinds: Mapping[str, int]) -> list[tuple[str, int]]:
    # Rows end in any order, and those of as many failures are listed alike each time.
    return sorted(kinds.items(), key=lambda item: (-item[1], item[0]))


def _ending_lines(session: Endings, session_rows: int, run: Endings, run_rows: int) -> list[_Line]:
    """Return how many generations ended for each reason, and how many of them have no text."""
    lines = []
    if run.are_told:
        for reason, _ in common_endings(run.counts, SHOWN_ENDINGS):
            lines.append(
                _Line(
                    f"ended: {reason}",
                    _share(session, reason, session_rows),
                    _share(run, reason, run_rows),
                    _REMARKS.get(reason, ""),
                )
            )
    elif run.counts:
        lines.append(_Line("answers cut off", "unknown", "unknown", "the backend gives no finish reasons"))
    if run.empty:
        lines.append(_Line("empty answers", f"{session.empty:,}", f"{run.empty:,}"))
    return lines


def _share(endings: Endings, reason: str, rows: int) -> str:
    total = endings.total
    number = endings.counts.get(reason, 0)
    if reason == "other":  # all that are not listed
        listed = {name for name, _ in common_endings(endings.counts, SHOWN_ENDINGS)} - {"other"}
        number = total - sum(endings.counts[name] for name in listed)
    unit = "" if total == rows else " generations"
    share = f" ({number / total:.1%})" if total and (number < total or reason == "length") else ""
    return f"{number:,}{unit}{share}"


def _repeated_lines(statistics: RunStatistics) -> list[_Line]:
    repeated = statistics.repeated
    return [_Line("equal to an earlier row", f"{repeated:,}", "", "not paid again")] if repeated else []


def _cached_lines(statistics: RunStatistics, whole: RunStatistics | Summary) -> list[_Line]:
    parts = [
        ("read from a cache", statistics.cached_tokens, whole.cached_tokens),
        ("written to a cache", statistics.written_tokens, whole.written_tokens),
    ]
    return [_Line(f"input {label}", count(session), count(run)) for label, session, run in parts if run]


def _cost(cost: float | None) -> str:
    return "unknown" if cost is None else cost_text(cost)


def failure_lines(
    failures: Failures, kept: Collection[str] = (), retry: Callable[[str], str] | None = None
) -> list[str]:
    """Format why rows failed, most often first: how many rows, the first of them, and how to try them again.

    Args:
        failures: why they failed.
        kept: the kinds of the failed rows that stay as they are unless they are asked for; those that are
            queued are generated again in any case.
        retry: returns the command that generates the rows of these kinds again, if it can be said whole.
    """
    lines, left = [], failures.rows
    for kind, message, rows, example, *_ in failures.most_common(SHOWN_FAILURES):
        first = f"row {example:,}"
        which = first if rows == 1 else f"{rows:,} rows, the first of them {first}"
        lines.append(f"  {which}: {kind}: {message}")
        left -= rows
    if left:
        lines.append(f"  {number_of(left, 'more row')}: see the column error")
    kinds = retried_kinds(kept)
    if kinds:
        names = ",".join(kinds)
        again = f"the same command with --retry {names}" if retry is None else retry(names)
        lines.append(f"generate them again: {again}")
    return ["why rows failed, most often:", *lines] if lines else []


def status_lines(summary: Summary, working: bool, pace: RunPace | None = None) -> list[tuple[str, str]]:
    """Return the status of a run, read from another process, as labels and values."""
    last = summary.sessions[-1] if summary.sessions else None
    if working and last is not None:
        state = f"running (process {last.process} on {last.host}, started {moment(last.started)})"
    elif summary.complete:
        state = "complete"
    elif last is None:
        state = "not started"
    else:
        state = f"{last.outcome or 'killed'}; run the same command again to resume"
    total = "" if pace is None or pace.total is None else f" of {_total(pace)}"
    lines = [("state", state), *source_lines(pace), ("rows finished", f"{summary.rows:,}{total}")]
    lines += [*_pace_lines(pace), ("done", f"{summary.done:,}")]
    lines += [(f"failed: {kind}", f"{number:,}") for kind, number in _by_number(summary.failed)]
    endings = (summary.reasons or Reasons()).endings
    lines += _column(_ending_lines(endings, summary.done, endings, summary.done))
    if summary.queued:
        lines.append(("to be tried again", f"{number_of(summary.queued, 'row')}, by the same command"))
    lines += [
        ("input tokens", count(summary.input_tokens)),
        *_cache_lines(summary),
        ("output tokens", count(summary.output_tokens)),
    ]
    if summary.cost is not None:
        lines.append(("cost", f"{cost_text(summary.cost)} (prices of {summary.prices or ''})"))
    if summary.last_finished is not None:
        lines.append(("last row finished", moment(summary.last_finished)))
    return lines


def copy_lines(copied: CopyFact | None) -> list[tuple[str, str]]:
    """Return where the copy of a state is and how old it is, as labels and values."""
    if copied is None:
        return []
    age = "none yet" if copied.taken is None else f"{duration(max(0.0, time.time() - copied.taken))} old"
    lines = [("copy of the state", in_a_line(f"{copied.url}, {age}"))]
    if copied.problem is not None:
        lines.append(("", in_a_line(f"cannot be written: {copied.problem}")))
    return lines


def _total(pace: RunPace) -> str:
    total = pace.total or 0
    if not pace.total_is_estimated:
        return f"{total:,}"
    return about(total)


def source_lines(pace: RunPace | None) -> list[tuple[str, str]]:
    """Return what a run generates with, and from what."""
    if pace is None:
        return []
    model = str(pace.model or "")
    llm = str(pace.llm or "")
    if model and model != llm:
        llm = f"{llm}, model {model}" if llm else f"model {model}"
    more = f" and {len(pace.input) - 1:,} more" if len(pace.input) > 1 else ""
    lines = [("LLM", llm), ("input", f"{pace.input[0]}{more}" if pace.input else "")]
    return [(label, in_a_line(text)) for label, text in lines if text]


def _pace_lines(pace: RunPace | None) -> list[tuple[str, str]]:
    """Return how long a run took so far, and how fast it is."""
    if pace is None or not pace.seconds:
        return []
    lines = [("elapsed", stopwatch(pace.seconds))]
    if pace.rows_per_second is not None:
        lines.append(("speed", rows_rate(pace.rows_per_second)))
    if pace.seconds_left is not None:
        lines.append(("ETA", stopwatch(pace.seconds_left)))
    return lines


def _cache_lines(summary: Summary) -> Iterable[tuple[str, str]]:
    """Yield what of the input was read from the provider's cache and written to it, with its cost."""
    for label, tokens, cost in (
        ("read from a cache", summary.cached_tokens, summary.cached_cost),
        ("written to a cache", summary.written_tokens, summary.written_cost),
    ):
        if tokens:
            yield f"input {label}", f"{tokens:,} ({cost_text(cost)})" if cost else f"{tokens:,}"


def job_lines(jobs: Sequence[Chunk]) -> list[str]:
    """Format each offline batch as a line: its id, the provider's name of its state, and its counts."""
    lines = []
    for job in jobs:
        counts = ", ".join(f"{number:,} {name}" for name, number in job.counts.items() if number)
        state = job.provider_state or job.state
        if job.state == "collected":
            state = "collected"
        lines.append(
            f"{job.job or '(no id yet)'}  {state}  {number_of(job.requests, 'request')}"
            + (f" ({counts})" if counts else "")
            + (f"  {job.message}" if job.message else "")
        )
    return lines
