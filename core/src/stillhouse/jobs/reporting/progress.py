"""`Progress`: how a run goes at one moment, and its text, which fits any width."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from stillhouse._wording import number_of
from stillhouse.jobs.reporting.pace import Pace
from stillhouse.jobs.reporting.units import about, rows_rate, stopwatch
from stillhouse.jobs.runs.reach import seconds_left, total_of
from stillhouse.jobs.spending.prices import cost_text

if TYPE_CHECKING:
    from stillhouse.jobs.runs.statistics import RunStatistics

__all__ = ["Extent", "Part", "Progress", "Tracker"]

# How wide the bar is in lines below a width: it does not depend on what else the line has.
BAR_WIDTHS = (100, 10), (140, 20), (sys.maxsize, 30)

GAP = "  "


class Part(NamedTuple):
    """A part of a line; its kind is `bar`, `rest` (of the bar), `failed` or an empty text."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Extent:
    """How much a run has to do, and how much of it at once.

    Attributes:
        share: how much of the input was read, from 0 to 1, or `None`.
        rows: the number of rows; `None` where they would have to be read for that.
        window: how many rows may be in flight.
        slots: how many of them the engine works on at once, where that is known.
    """

    share: Callable[[], float | None]
    rows: Callable[[], int | None]
    window: int
    slots: int | None = None


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
        finished: rows that are finished, those of earlier invocations included.
        total: how many rows the run has; an estimate where `is_estimated`, `None` where nothing is known.
        is_estimated: whether the total is computed from how much of the input was read.
        running: of the rows in flight, those that the engine works on; `None` where it does not say.
        rows_per_second: in the last half minute.
        tokens_per_second: generated, likewise; `None` as long as the backend reported none.
        seconds_left: until the end, at this speed; `None` before that can be said.
    """

    rows: int
    failed: int
    in_flight: int
    share: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    seconds: float
    finished: int = 0
    total: int | None = None
    is_estimated: bool = False
    running: int | None = None
    rows_per_second: float = 0.0
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    budget_left: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        total = "" if self.total is None else f" of {self._total}"
        share = "" if self.share is None else f" ({self._percent})"
        counts = (
            f"{self.finished:,}{total} rows{share}" if total else f"{number_of(self.finished, 'row')}{share}"
        )
        parts = [counts, f"{self.failed:,} failed", *self._optional("speed", "tokens speed", "flight")]
        parts += [*self._optional("tokens", "cost", "budget"), f"{stopwatch(self.seconds)} elapsed"]
        return ", ".join([*parts, *self._optional("eta")])

    def parts(self, width: int, bar: str = "━─") -> list[Part]:
        """Return the parts of a line of at most so many characters: what does not fit is left out.

        Args:
            width: how many characters fit into the line.
            bar: the characters of the bar, for what is finished and for the rest.
        """
        texts = self._texts()
        counts = texts["percent"] + GAP + texts["counts"] if texts["percent"] else texts["counts"]
        texts["counts"] = counts
        room = width - len(counts)
        has_bar, bar_width = False, next(size for most, size in BAR_WIDTHS if width < most)
        shown = {"counts"}
        # What matters most is taken first; where one does not fit, those after it are not tried.
        for name in ("eta", "failed", "bar", "elapsed", "speed", "flight", "budget", "cost", "tokens speed",
                     "tokens"):  # fmt: skip
            size = len(texts[name]) if name != "bar" else 0 if self.share is None else bar_width
            if name == "eta" and not size and self.total is not None:
                room -= len(GAP + "ETA 0:00")  # the line must not change its parts when it comes
            if not size:
                continue
            if room < size + len(GAP):
                break
            room -= size + len(GAP)
            has_bar = has_bar or name == "bar"
            shown.add(name)
        line: list[Part] = []
        if has_bar and self.share is not None:
            done = int(bar_width * self.share)
            line += [Part(bar[0] * done, "bar"), Part(bar[1] * (bar_width - done) + GAP, "rest")]
        order = ("counts", "failed", "elapsed", "eta", "speed", "tokens speed", "flight", "tokens", "cost",
                 "budget")  # fmt: skip
        for place, name in enumerate(name for name in order if name in shown):
            line.append(Part((GAP if place else "") + texts[name], "failed" if name == "failed" else ""))
        return line

    @property
    def _total(self) -> str:
        total = self.total or 0
        return about(total) if self.is_estimated else f"{total:,}"

    @property
    def _percent(self) -> str:
        return f"{int(100 * (self.share or 0.0))}%"

    def _optional(self, *names: str) -> list[str]:
        texts = self._texts()
        return [texts[name] for name in names if texts[name]]

    def _texts(self) -> dict[str, str]:
        """Return what a line may have, by name; what is not known is an empty text."""
        tokens = (self.input_tokens or 0) + (self.output_tokens or 0)
        flight = f"{self.in_flight:,} in flight"
        if self.running is not None:
            waiting = self.in_flight - self.running
            flight = f"{self.running:,} running" + (f", {waiting:,} waiting" if waiting else "")
        counts = number_of(self.finished, "row")
        if self.total is not None:
            counts = f"{self.finished:,}".rjust(len(f"{self.total:,}")) + f"/{self._total}"
        speed = self.tokens_per_second
        return {
            "percent": "" if self.share is None else f"{self._percent:>4}",
            "counts": counts,
            "failed": f"{self.failed:,} failed" if self.failed else "",
            "elapsed": stopwatch(self.seconds),
            "eta": "" if self.seconds_left is None else f"ETA {stopwatch(self.seconds_left)}",
            "speed": rows_rate(self.rows_per_second) if self.rows else "",
            "tokens speed": f"{speed:,.0f} tokens/s" if speed else "",
            "flight": flight,
            "tokens": f"{tokens:,} {'token' if tokens == 1 else 'tokens'}" if tokens else "",
            "cost": "" if self.cost is None else cost_text(self.cost),
            "budget": "" if self.budget_left is None else f"{self.budget_left} left",
        }


class Tracker:
    """Follows a run, and says how it goes.

    Args:
        statistics: what the run updates.
        extent: how much there is to do.
    """

    def __init__(self, statistics: RunStatistics, extent: Extent) -> None:
        self._statistics, self._extent = statistics, extent
        self._pace = Pace()
        self._read = 0.0
        self._pulled = 0

    def now(self) -> Progress:
        """Return how the run goes now."""
        statistics, extent = self._statistics, self._extent
        rows, pulled, seconds = statistics.rows, statistics.pulled, statistics.seconds
        finished = rows + statistics.skipped
        self._pace.add(seconds, rows, statistics.output_tokens or 0)
        read = self._share_read(pulled)
        share = None
        if read is not None:
            share = min(1.0, read * finished / pulled) if pulled else 0.0
        total, is_estimated = total_of(extent.rows(), read, pulled)
        in_flight = max(0, min(statistics.in_flight, extent.window))
        is_slotted = extent.slots is not None and extent.slots < extent.window
        budget = statistics.budget
        return Progress(
            rows=rows,
            failed=statistics.failures,
            in_flight=in_flight,
            share=share,
            input_tokens=statistics.input_tokens,
            output_tokens=statistics.output_tokens,
            cost=statistics.cost,
            seconds=seconds,
            finished=finished,
            total=total,
            is_estimated=is_estimated,
            running=min(in_flight, extent.slots or 0) if is_slotted else None,
            rows_per_second=self._pace.rows_per_second,
            tokens_per_second=None if statistics.output_tokens is None else self._pace.tokens_per_second,
            seconds_left=seconds_left(
                rows, None if total is None else total - finished, self._pace.rows_per_second, seconds
            ),
            budget_left=None if budget is None else budget.left,
        )

    def _share_read(self, pulled: int) -> float | None:
        """Return how much was read. At the end the input is read again, which is no step back."""
        read = self._extent.share()
        if read is None:
            return None
        if pulled == self._pulled:
            read = max(read, self._read)
        self._read, self._pulled = read, pulled
        return read
