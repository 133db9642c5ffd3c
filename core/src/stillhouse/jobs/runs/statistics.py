"""`RunStatistics`: what one process did so far on a run."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from stillhouse.errors import GenerationError
from stillhouse.jobs.runs.hopeless import FailureWatch
from stillhouse.jobs.runs.latencies import Latencies
from stillhouse.jobs.runs.reasons import Endings
from stillhouse.jobs.spending.budget import Budget
from stillhouse.jobs.spending.prices import Prices
from stillhouse.jobs.store.columns import tokens_of
from stillhouse.jobs.store.protocol import Repeated
from stillhouse.typing import GenerateOutput

__all__ = ["RunStatistics"]


@dataclass
class RunStatistics:
    """What this process has done so far.

    Attributes:
        done: rows with an output.
        generated: of them, those that were generated, and not answered by a hook.
        failed: rows without, by the kind of their error.
        endings: why their generations ended; `None` where nobody asks: without an earlier process, they
            are those of the whole run.
        input_tokens: as far as the backend reported them; `None` as long as it reported none.
        output_tokens: likewise.
        cached_tokens: of the input, what was read from the provider's cache; likewise.
        written_tokens: of the input, what was written to it; likewise.
        skipped: rows read that were finished before.
        repeats: rows that ask for what an earlier one asks for, where these are generated for once.
        repeated: of them, those that got its result.
        pulled: rows read, those included.
        waiting: of them, those that wait for their turn, where the engine has an order of its own.
        latencies: how long they took, from submission to answer.
        timed_rows: the rows whose calls took a known time, those of failed rows too.
        timed_seconds: how long these took together.
        started: when it began, on the monotonic clock.
        prices: those of the model, if they are known.
        cost: in USD, by these prices, or as the provider says; `None` as long as nothing says it.
        budget: the run's, if it has one.
        watch: looks at the failed rows, and stops the run; `None` for a run that goes on whatever fails.
    """

    done: int = 0
    generated: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    endings: Endings | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    written_tokens: int | None = None
    skipped: int = 0
    repeats: int = 0
    repeated: int = 0
    pulled: int = 0
    waiting: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    timed_rows: int = 0
    timed_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    prices: Prices | None = None
    cost: float | None = None
    budget: Budget | None = None
    watch: FailureWatch | None = None

    @property
    def rows(self) -> int:
        return self.done + self.failures

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    @property
    def in_flight(self) -> int:
        """Rows that were read and have no result yet; some of them wait to be started."""
        return self.pulled - self.skipped - self.waiting - self.rows

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def add(self, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        """Count a row; `seconds` is how long the call took, 0 where there was none, `None` for a batch."""
        self.latencies.add(seconds)
        if seconds:
            self.timed_rows += 1
            self.timed_seconds += seconds
        if isinstance(result, GenerationError):
            self.failed[result.kind] += 1
            tokens = tokens_of(*result.outputs)
            if self.watch is not None:
                self.watch.see(result)
        else:
            self.done += 1
            self.generated += seconds != 0
            if self.endings is not None:
                self.endings.add(result)
            tokens = tokens_of(result)
        if tokens.input is not None:
            self.input_tokens = tokens.input + (self.input_tokens or 0)
        if tokens.output is not None:
            self.output_tokens = tokens.output + (self.output_tokens or 0)
        if tokens.cached is not None:
            self.cached_tokens = tokens.cached + (self.cached_tokens or 0)
        if tokens.written is not None:
            self.written_tokens = tokens.written + (self.written_tokens or 0)
        if self.prices is not None:
            # Of tokens that nobody counted, prices say nothing.
            if seconds == 0 or any(count is not None for count in tokens):
                self.cost = self.prices.cost(tokens, seconds) + (self.cost or 0.0)
        elif tokens.cost is not None and seconds != 0:
            self.cost = tokens.cost + (self.cost or 0.0)

    def repeat(self, repeated: Repeated | None) -> None:
        """Count a row that got the result of the row that it repeats; `None` if that row has none."""
        if repeated is None:
            return
        self.pulled += 1
        if not repeated.is_new:
            self.skipped += 1
            return
        self.repeated += 1
        if repeated.kind is not None:
            self.failed[repeated.kind] += 1
            return
        self.done += 1
        if self.endings is not None:
            self.endings.add(repeated.columns)

    def check_failures(self, *, is_kept: bool = True) -> None:
        """Stop the run if it is hopeless, or if too many of its rows failed.

        Args:
            is_kept: whether the run has a state, so that the same command resumes it.

        Raises:
            FailuresError: it is, or they did.
        """
        problem = None if self.watch is None else self.watch.judge(self.generated, is_kept=is_kept)
        if problem is not None:
            raise problem
