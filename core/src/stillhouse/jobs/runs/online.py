"""`run`: generate for the rows of an input, a window of them at a time, until there are no more."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.runs.ordered import Ordered, Wanted
from stillhouse.jobs.spending.budget import Budget
from stillhouse.jobs.spending.prices import Prices
from stillhouse.jobs.store.columns import tokens_of
from stillhouse.jobs.store.database import StoreError
from stillhouse.jobs.store.protocol import Part, RunStore
from stillhouse.llm import LLM
from stillhouse.protocols import RowInputs
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["RunStatistics", "run", "with_seed_offset"]


@dataclass
class RunStatistics:
    """What this process has done so far.

    Attributes:
        done: rows with an output.
        failed: rows without, by the kind of their error.
        input_tokens: as far as the backend reported them.
        output_tokens: likewise.
        cached_tokens: of the input, what was read from the provider's cache.
        written_tokens: of the input, what was written to it.
        skipped: rows read that were finished before.
        pulled: rows read, those included.
        waiting: of them, those that wait for their turn, where the engine has an order of its own.
        started: when it began, on the monotonic clock.
        prices: those of the model, if they are known.
        cost: in USD, by these prices, or as the provider says.
        budget: the run's, if it has one.
    """

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    skipped: int = 0
    pulled: int = 0
    waiting: int = 0
    started: float = field(default_factory=time.monotonic)
    prices: Prices | None = None
    cost: float = 0.0
    budget: Budget | None = None

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
        if isinstance(result, GenerationError):
            self.failed[result.kind] += 1
            tokens = tokens_of(*result.outputs)
        else:
            self.done += 1
            tokens = tokens_of(result)
        self.input_tokens += tokens.input or 0
        self.output_tokens += tokens.output or 0
        self.cached_tokens += tokens.cached or 0
        self.written_tokens += tokens.written or 0
        if self.prices is not None:
            self.cost += self.prices.cost(tokens, seconds)
        elif tokens.cost is not None and seconds != 0:
            self.cost += tokens.cost


def run(
    llm: LLM,
    rows: Iterable[Row],
    formatter: RowFormatter,
    store: RunStore,
    *,
    num_generations: int = 1,
    arguments: dict[str, Any] | None = None,
    limit: int | None = None,
    in_order: bool = False,
    statistics: RunStatistics | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> RunStatistics:
    """Generate for every row that is not finished, and store each row with its result.

    A row that cannot be read, and one whose generation fails, fails alone. Memory is bounded by
    the window of the LLM. Results that arrive together are committed together, before the next ones
    are waited for.

    Args:
        llm: the LLM, loaded.
        rows: the rows, pulled lazily; once for every part of the store.
        formatter: turns a row into an input.
        store: knows which rows are finished, and stores the results of the others.
        num_generations: how many generations of each row.
        arguments: generation parameters.
        limit: how many rows belong to the run; `None` means all.
        in_order: read all rows first, and generate for them in the order of `LLM.batch_key`; for a
            store that is not `ordered`.
        statistics: updated while the run works, for a progress display. A row is started only if the
            `budget` in it has room for the upper bound on what the row can use.
        stopping: called before each row; once it returns true, no further row is started, and the
            run ends when those in flight have ended.

    Raises:
        GenerationError: an error that every further row would meet, such as a refused key.
        OSError: the rows cannot be read.
        StoreError: the store cannot be written.
        BudgetError: the budget is used up; nothing is in flight then.
    """
    counts = statistics if statistics is not None else RunStatistics()
    for part in store.parts():
        counts.pulled, counts.waiting = counts.rows + counts.skipped, 0
        feed = _Feed(
            islice(rows, limit), formatter, part, counts, num_generations - part.made,
            lambda: stopping() or store.problem is not None, llm if in_order else None,
        )  # fmt: skip
        _run_part(llm, feed, store, stopping, with_seed_offset(llm, arguments or {}, part.made))
        problem = store.problem or feed.problem
        if problem is not None:
            raise problem
        if stopping():
            break
    return counts


def with_seed_offset(llm: LLM, arguments: dict[str, Any], made: int) -> dict[str, Any]:
    """Return the arguments for the missing generations: the same seed would repeat the first ones."""
    seed = {**llm.get_generation_kwargs(), **arguments}.get("seed")
    return {**arguments, "seed": seed + made} if isinstance(seed, int) and made else arguments


class _Feed(RowInputs):
    """The inputs of one part, as far as the budget has room for them.

    What is in flight cannot be waited for while inputs are pulled. So if a row does not fit into the
    budget, the iteration ends with that row in `held`, and the next iteration begins with it; by then
    the results of the rows in flight have freed what they did not use.

    Args:
        rows: the rows; every iteration continues where the last one ended.
        formatter: turns a row into an input.
        part: the rows that are wanted.
        counts: updated.
        num_generations: how many generations of each row.
        is_ending: once it returns true, no further row is pulled.
        orderer: the LLM in whose order the rows are taken; `None` for that of the input.

    Attributes:
        budget: what the rows may spend, if there is a ceiling.
        held: the row that did not fit into the budget, with its input; `None` if the rows ended.
        pending: the rows without a result yet, by the position of their input in this iteration.
        is_stuck: whether the last iteration ended with a held row although nothing was in flight: it
            will never fit.
    """

    def __init__(
        self,
        rows: Iterator[Row],
        formatter: RowFormatter,
        part: Part,
        counts: RunStatistics,
        num_generations: int,
        is_ending: Callable[[], bool],
        orderer: LLM | None,
    ) -> None:
        self._rows = rows
        self._formatter = formatter
        self._part = part
        self._counts = counts
        self.budget = counts.budget
        self.num_generations = num_generations
        self._is_ending = is_ending
        self._ordered = None if orderer is None else Ordered(orderer, self._wanted(), is_ending)
        self._source = self._wanted() if self._ordered is None else iter(self._ordered)
        self._yielded = 0
        self.held: tuple[Row, FormattedInput] | None = None
        self.pending: dict[int, Row] = {}

    def __iter__(self) -> Iterator[FormattedInput | GenerationError]:
        self._yielded = 0
        return self._inputs()

    @property
    def is_stuck(self) -> bool:
        return self.held is not None and self._yielded == 0

    @property
    def problem(self) -> StoreError | None:
        """Why the rows have ended early; `None` if they have not."""
        return None if self._ordered is None else self._ordered.problem

    def row_at(self, position: int) -> Row | None:
        """Return the row whose input has this position, while it has no result."""
        return self.pending.get(position)

    def index_at(self, position: int) -> int | None:
        """Return the index of that row."""
        row = self.pending.get(position)
        return None if row is None else row.index

    def finish(self, position: int, result: GenerateOutput | GenerationError, seconds: float) -> Row:
        """Count a result, charge it to the budget, and return its row."""
        row = self.pending.pop(position)
        self._counts.add(result, seconds)
        if self.budget:
            self.budget.charge(row.index, result, seconds)
        return row

    def _inputs(self) -> Iterator[FormattedInput | GenerationError]:
        first, self.held = [self.held] if self.held else [], None
        for row, input in chain(first, self._source):
            if not isinstance(input, GenerationError) and not self._reserve(row, input):
                self.held = row, input
                return
            self._counts.waiting -= 1
            self.pending[self._yielded] = row
            self._yielded += 1
            yield input

    def _wanted(self) -> Iterator[Wanted]:
        for row in self._rows:
            if self._is_ending():
                return
            self._counts.pulled += 1
            if self._part.wants(row.index):
                self._counts.waiting += 1
                yield Wanted(row, self._formatter(row))
            else:
                self._counts.skipped += 1

    def _reserve(self, row: Row, input: FormattedInput) -> bool:
        return self.budget is None or self.budget.reserve(row.index, input, self.num_generations)


def _run_part(
    llm: LLM, feed: _Feed, store: RunStore, stopping: Callable[[], bool], arguments: dict[str, Any]
) -> None:
    """Generate for the rows of a feed, in as many iterations as the budget needs."""
    budget = feed.budget
    if store.members is not None:
        store.members.follow(feed.index_at)
    while True:
        groups = llm.iter_finished(
            feed, feed.num_generations, on_error="yield", ordered=store.ordered, **arguments
        )
        with contextlib.closing(groups):
            for group in groups:
                for position, result, seconds in group:
                    row = feed.finish(position, result, seconds)
                    store.put(row, result, seconds)
                store.commit()
                if budget:
                    budget.commit()
        if feed.held is None or stopping():
            return
        if feed.is_stuck:
            assert budget is not None
            raise budget.refusal(*feed.held, feed.num_generations)
