"""The runner: from rows to results, in a window, until there are no more."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.spending.budget import Budget
from stillhouse.jobs.spending.prices import Prices
from stillhouse.jobs.store.columns import tokens_of
from stillhouse.jobs.store.store import Part, RunStore
from stillhouse.llm import LLM
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["RunStatistics", "run", "shifted"]


@dataclass
class RunStatistics:
    """What happened so far, in this process.

    Attributes:
        done: rows with an output.
        failed: rows without, by the kind of their error.
        input_tokens: as far as the backend said.
        output_tokens: likewise.
        skipped: rows read that were finished before.
        pulled: rows read, those included.
        started: when it began, on the monotonic clock.
        prices: those of the model, if they are known.
        cost: in USD, by these prices.
        budget: the run's, if it has one.
    """

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    skipped: int = 0
    pulled: int = 0
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
        """Rows that were read and have no result yet; some of them wait for their turn."""
        return self.pulled - self.skipped - self.rows

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
        if self.prices is not None:
            self.cost += self.prices.cost(tokens, seconds)


def run(
    llm: LLM,
    rows: Iterable[Row],
    formatter: RowFormatter,
    store: RunStore,
    *,
    num_generations: int = 1,
    arguments: dict[str, Any] | None = None,
    limit: int | None = None,
    statistics: RunStatistics | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> RunStatistics:
    """Generate for every row that is not finished, and put each into the store with what became of it.

    A row that cannot be read, and one whose generation fails, fails alone. Memory is bounded by
    the window of the LLM. What came in together is committed together, before anything else is
    waited for.

    Args:
        llm: the LLM, loaded.
        rows: the rows, pulled lazily; several times where some of them lack fewer generations.
        formatter: makes a row's input.
        store: knows which rows are finished, and takes the others.
        num_generations: how many generations of each row.
        arguments: generation parameters.
        limit: how many rows belong to the run; `None` means all.
        statistics: counted up while the run goes on, for a progress display. A row is started only
            if the `budget` in it has room for all that the row can take.
        stopping: looked at before each row; once it is true, no row is started any more, and the
            run ends when those in flight have.

    Raises:
        GenerationError: an error that every further row would meet, such as a refused key.
        OSError: the rows cannot be read on.
        StoreError: the store cannot take more.
        BudgetError: the budget is used up; nothing is in flight then.
    """
    counts = statistics if statistics is not None else RunStatistics()
    for part in store.parts():
        counts.pulled = counts.rows + counts.skipped
        _run_part(
            llm, itertools.islice(rows, limit), formatter, store, part, counts, stopping,
            num_generations - part.made, shifted(llm, arguments or {}, part.made),
        )  # fmt: skip
        if store.problem is not None:
            raise store.problem
        if stopping():
            break
    return counts


def shifted(llm: LLM, arguments: dict[str, Any], made: int) -> dict[str, Any]:
    """The arguments for what is missing: the same seed would give the same generations again."""
    seed = {**llm.get_generation_kwargs(), **arguments}.get("seed")
    return {**arguments, "seed": seed + made} if isinstance(seed, int) and made else arguments


def _run_part(
    llm: LLM,
    rows: Iterator[Row],
    formatter: RowFormatter,
    store: RunStore,
    part: Part,
    counts: RunStatistics,
    stopping: Callable[[], bool],
    num_generations: int,
    arguments: dict[str, Any],
) -> None:
    budget = counts.budget
    held: tuple[Row, FormattedInput] | None = None  # what did not fit into the budget
    pending: dict[int, Row] = {}
    position = itertools.count()
    if store.members is not None:
        store.members.follow(lambda index: pending[index].index if index in pending else None)

    def inputs() -> Iterator[FormattedInput | GenerationError]:
        nonlocal held
        for row, input in itertools.chain([held] if held else [], wanted()):
            fails = isinstance(input, GenerationError)
            if budget and not fails and not budget.reserve(row.index, input, num_generations):
                held = row, input
                return
            pending[next(position)] = row
            yield input
        held = None

    def wanted() -> Iterator[tuple[Row, Any]]:
        for row in rows:
            if stopping() or store.problem is not None:
                return
            counts.pulled += 1
            if part.wants(row.index):
                yield row, formatter(row)
            else:
                counts.skipped += 1

    while True:
        # What is in flight cannot be waited for while inputs are pulled: when one does not fit, they
        # end for now.
        position = itertools.count()
        groups = llm.iter_finished(
            inputs(), num_generations, on_error="yield", ordered=store.ordered, **arguments
        )
        with contextlib.closing(groups):
            for group in groups:
                for index, result, seconds in group:
                    row = pending.pop(index)
                    counts.add(result, seconds)
                    if budget:
                        budget.settle(row.index, result, seconds)
                    store.put(row, result, seconds)
                store.commit()
                if budget:
                    budget.commit()
        if held is None or stopping():
            return
        if not next(position):
            assert budget
            raise budget.refusal(*held, num_generations)
