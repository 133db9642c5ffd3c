"""The progress of a run: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from stillhouse.jobs.reporting.lines import LiveLine, PlainLines
from stillhouse.jobs.reporting.units import duration
from stillhouse.jobs.spending.prices import cost_text

if TYPE_CHECKING:
    from stillhouse.jobs.runs.statistics import RunStatistics

__all__ = ["Progress", "progress_of", "show_progress", "watch"]

PLAIN_SECONDS = 5.0
LIVE_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """How a run goes at one moment; its text is a line that says it.

    Attributes:
        rows: rows that this invocation finished, failed ones included.
        failed: of them, those that failed.
        in_flight: rows that are generated for now.
        share: how much of the input is finished, from 0 to 1; `None` where its size is not known.
        input_tokens: as far as the backend reported them; `None` as long as it reported none.
        output_tokens: likewise.
        cost: in USD; `None` where it is not known.
        seconds: since the LLM was loaded.
    """

    rows: int
    failed: int
    in_flight: int
    share: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    seconds: float
    budget_left: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        parts = [
            f"{self.rows:,} rows" if self.share is None else f"{self.rows:,} rows ({self.share:.0%})",
            f"{self.failed:,} failed",
            f"{self.rows / seconds:,.1f} rows/s",
        ]
        if self.output_tokens is not None:
            parts.append(f"{self.output_tokens / seconds:,.0f} tokens/s")
        parts.append(f"{self.in_flight} in flight")
        tokens = (self.input_tokens or 0) + (self.output_tokens or 0)
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
) -> Iterator[Callable[[str], None]]:
    """Show the progress as text while the block works: one live line on a terminal, else lines.

    Args: see `watch`; `stream` is where to.

    Yields:
        Prints a text, from any thread, without breaking the line.
    """
    live = stream.isatty()
    show = LiveLine(stream, LIVE_SECONDS) if live else PlainLines(stream)
    try:
        with watch(
            statistics, lambda progress: show(str(progress)), share=share, window=window,
            every=LIVE_SECONDS if live else PLAIN_SECONDS,
        ):  # fmt: skip
            yield show.note
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
        cost=statistics.cost,
        seconds=statistics.seconds,
        budget_left=None if budget is None else budget.left,
    )


def _finished_share(statistics: RunStatistics, share: float) -> float:
    """Return the share of the file whose rows are finished; the reader is ahead by the window."""
    finished = statistics.rows + statistics.skipped
    return min(1.0, share * finished / statistics.pulled) if statistics.pulled else 0.0
