"""The progress of a run: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from stillhouse.jobs.reporting.lines import LiveLine, PlainLines, clock, duration
from stillhouse.jobs.runs.reasons import UNKNOWN, common_endings
from stillhouse.jobs.spending.prices import PROVIDER, cost_text

if TYPE_CHECKING:
    from stillhouse.jobs.runs.online import RunStatistics
    from stillhouse.jobs.runs.reasons import Reasons
    from stillhouse.jobs.runs.summary import Summary
    from stillhouse.offline.chunks import Chunk

__all__ = [
    "Progress", "clock", "duration", "failure_lines", "job_lines", "progress_of", "show_progress",
    "status_lines", "summary_lines", "watch",
]  # fmt: skip

PLAIN_SECONDS = 5.0
LIVE_SECONDS = 0.2

SHOWN_FAILURES = 3
SHOWN_ENDINGS = 6


@dataclass(frozen=True)
class Progress:
    """How a run goes at one moment; its text is a line that says it.

    Attributes:
        rows: rows that this invocation finished, failed ones included.
        failed: of them, those that failed.
        in_flight: rows that are generated for now.
        share: how much of the input is finished, from 0 to 1; `None` where its size is not known.
        input_tokens: as far as the backend reported them.
        output_tokens: likewise.
        cost: in USD; `None` where it is not known.
        seconds: since the LLM was loaded.
    """

    rows: int
    failed: int
    in_flight: int
    share: float | None
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float
    budget_left: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        parts = [
            f"{self.rows:,} rows" if self.share is None else f"{self.rows:,} rows ({self.share:.0%})",
            f"{self.failed:,} failed",
            f"{self.rows / seconds:,.1f} rows/s",
            f"{self.output_tokens / seconds:,.0f} tokens/s",
            f"{self.in_flight} in flight",
        ]
        tokens = self.input_tokens + self.output_tokens
        if tokens:
            parts.append(f"{tokens:,} tokens")
        if self.cost is not None:
            parts.append(cost_text(self.cost))
        if self.budget_left is not None:
            parts.append(f"{self.budget_left} left")
        if self.share:
            parts.append(f"ETA {duration(seconds * (1 - self.share) / self.share)}")
        return ", ".join(parts)


@contextmanager
def watch(
    statistics: RunStatistics,
    show: Callable[[Progress], object],
    *,
    share: Callable[[], float | None],
    window: int,
    every: float,
) -> Iterator[None]:
    """Show the progress of a run while the block works.

    A thread reads the statistics periodically, so that a row costs nothing and a stall is visible.

    Args:
        statistics: what the run updates.
        show: called from that thread.
        share: how much of the input was read, from 0 to 1, or `None`.
        window: how many rows may be in flight.
        every: seconds between two calls.
    """
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(every):
            show(progress_of(statistics, share(), window))

    thread = threading.Thread(target=tick, name="stillhouse-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def show_progress(
    statistics: RunStatistics,
    stream: TextIO,
    *,
    share: Callable[[], float | None],
    window: int,
) -> Iterator[None]:
    """Show the progress as text while the block works: one live line on a terminal, else lines.

    Args: see `watch`; `stream` is where to.
    """
    live = stream.isatty()
    show = LiveLine(stream, LIVE_SECONDS) if live else PlainLines(stream)
    try:
        with watch(
            statistics, lambda progress: show(str(progress)), share=share, window=window,
            every=LIVE_SECONDS if live else PLAIN_SECONDS,
        ):  # fmt: skip
            yield
    finally:
        show.close()


def progress_of(statistics: RunStatistics, share: float | None, window: int) -> Progress:
    """Return how a run goes now; `share` and `window` as in `watch`."""
    budget = statistics.budget
    return Progress(
        rows=statistics.rows,
        failed=statistics.failures,
        in_flight=min(statistics.in_flight, window),
        share=None if share is None else _finished_share(statistics, share),
        input_tokens=statistics.input_tokens,
        output_tokens=statistics.output_tokens,
        cost=statistics.cost if statistics.prices is not None or statistics.cost else None,
        seconds=statistics.seconds,
        budget_left=None if budget is None else budget.left,
    )


def _finished_share(statistics: RunStatistics, share: float) -> float:
    """Return the share of the file whose rows are finished; the reader is ahead by the window."""
    finished = statistics.rows + statistics.skipped
    return min(1.0, share * finished / statistics.pulled) if statistics.pulled else 0.0


def summary_lines(
    statistics: RunStatistics,
    done: int,
    failed: Mapping[str, int],
    reasons: Reasons,
    cost: float | None = None,
) -> list[tuple[str, str]]:
    """Return the closing table as labels and values.

    Args:
        statistics: of this process, for the tokens and the times.
        done: rows with an output, including earlier processes.
        failed: rows without, by the kind of their error, including earlier processes.
        reasons: why they ended, likewise.
        cost: the cost of all these rows in USD, if it is known.
    """
    seconds = max(statistics.seconds, 1e-9)
    lines = [("rows", f"{done + sum(failed.values()):,}"), ("done", f"{done:,}")]
    # Rows end in any order, and those of as many failures are listed alike each time.
    kinds = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
    lines += [(f"failed: {kind}", f"{count:,}") for kind, count in kinds]
    lines += _ending_lines(reasons.endings, done)
    if reasons.not_finite:
        lines.append(("rows with NaN", f"{reasons.not_finite:,}, null in the output"))
    before = done + sum(failed.values()) - statistics.rows
    if before:
        lines.append(("finished before", f"{before:,}"))
    lines += [
        ("input tokens", f"{statistics.input_tokens:,}"),
        *_cache_lines(statistics.cached_tokens, statistics.written_tokens),
        ("output tokens", f"{statistics.output_tokens:,}"),
        ("time", duration(statistics.seconds)),
        ("rows per second", f"{statistics.rows / seconds:,.1f}"),
        ("output tokens per second", f"{statistics.output_tokens / seconds:,.0f}"),
    ]
    if statistics.prices is not None or statistics.cost:
        source = PROVIDER if statistics.prices is None else statistics.prices.source
        lines.append(("cost", _cost_line(statistics.cost, source)))
        if cost is not None and before:
            lines.append(("cost of the whole run", cost_text(cost)))
    if statistics.budget is not None:
        lines.append(("budget left", statistics.budget.left))
    return lines


def failure_lines(reasons: Reasons) -> list[str]:
    """Format why rows failed, most often first: how many rows, and the first of them."""
    lines, left = [], reasons.failures
    for kind, message, rows, example in reasons.most_common_failures(SHOWN_FAILURES):
        which = f"row {example:,}" if rows == 1 else f"{rows:,} rows, the first of them row {example:,}"
        lines.append(f"  {which}: {kind}: {message}")
        left -= rows
    if left:
        lines.append(f"  {left:,} more {'row' if left == 1 else 'rows'}: see the column error")
    return ["why rows failed, most often:", *lines] if lines else []


def _ending_lines(endings: Mapping[str, int], rows: int) -> list[tuple[str, str]]:
    """Return how many generations ended for each reason, where the backend says it."""
    total = sum(endings.values())
    unit = "" if total == rows else " generations"
    lines = []
    for reason, count in common_endings(endings, SHOWN_ENDINGS) if endings.keys() - {UNKNOWN} else ():
        share = f" ({count / total:.1%})" if count < total or reason == "length" else ""
        remark = ", cut off: raise max_new_tokens" if reason == "length" else ""
        lines.append((f"ended: {reason}", f"{count:,}{unit}{share}{remark}"))
    return lines


def _cache_lines(
    cached: int, written: int, cached_cost: float | None = None, written_cost: float | None = None
) -> list[tuple[str, str]]:
    """Return what of the input was read from the provider's cache and written to it, with its cost."""
    parts = [("read from a cache", cached, cached_cost), ("written to a cache", written, written_cost)]
    return [
        (f"input {label}", f"{tokens:,} ({cost_text(cost)})" if cost else f"{tokens:,}")
        for label, tokens, cost in parts
        if tokens
    ]


def _cost_line(cost: float, source: str) -> str:
    return f"{cost_text(cost)} (prices of {source})"


def status_lines(summary: Summary, working: bool) -> list[tuple[str, str]]:
    """Return the status of a run, read from another process, as labels and values."""
    last = summary.sessions[-1] if summary.sessions else None
    if working and last is not None:
        state = f"process {last.process} on {last.host} works on it, since {clock(last.started)}"
    elif summary.complete:
        state = "complete"
    elif last is None:
        state = "not started"
    else:
        state = f"{last.outcome or 'killed'}; the same command goes on with it"
    lines = [("state", state), ("rows finished", f"{summary.rows:,}"), ("done", f"{summary.done:,}")]
    lines += [(f"failed: {kind}", f"{count:,}") for kind, count in summary.failed.items()]
    lines += _ending_lines(summary.endings, summary.done)
    if summary.queued:
        lines.append(("to be tried again", f"{summary.queued:,}"))
    lines += [
        ("input tokens", f"{summary.input_tokens:,}"),
        *_cache_lines(
            summary.cached_tokens, summary.written_tokens, summary.cached_cost, summary.written_cost
        ),
        ("output tokens", f"{summary.output_tokens:,}"),
    ]
    if summary.cost is not None:
        lines.append(("cost", _cost_line(summary.cost, summary.prices or "")))
    if summary.last_finished is not None:
        lines.append(("last row finished", clock(summary.last_finished)))
    return lines


def job_lines(jobs: Sequence[Chunk]) -> list[str]:
    """Format each offline batch as a line: its id, the provider's name of its state, and its counts."""
    lines = []
    for job in jobs:
        counts = ", ".join(f"{count:,} {name}" for name, count in job.counts.items() if count)
        state = job.provider_state or job.state
        if job.state == "collected":
            state = "collected"
        lines.append(
            f"{job.job or '(no id yet)'}  {state}  {job.requests:,} requests"
            + (f" ({counts})" if counts else "")
            + (f"  {job.message}" if job.message else "")
        )
    return lines
