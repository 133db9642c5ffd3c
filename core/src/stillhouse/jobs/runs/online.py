"""`run`: generates for the rows of an input, with a window of them in flight, until none is left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from stillhouse._execution.stopping import Stop, stopping_with
from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.runs.ordered import Ordered, Wanted
from stillhouse.jobs.runs.statistics import RunStatistics
from stillhouse.jobs.store.database import StoreError
from stillhouse.jobs.store.protocol import Part, RunStore
from stillhouse.llm import LLM
from stillhouse.protocols import Executor, InputWithArguments, RowInputs
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["RunStatistics", "run", "with_own_seed_offset", "with_seed_offset"]

Item = FormattedInput | InputWithArguments | GenerationError
"""The result of a row."""


def run(
    llm: LLM,
    rows: Iterable[Row],
    formatter: RowFormatter,
    store: RunStore,
    *,
    num_generations: int = 1,
    arguments: dict[str, Any] | None = None,
    in_order: bool = False,
    statistics: RunStatistics | None = None,
    stopping: Callable[[], bool] = lambda: False,
    executor: Executor | None = None,
) -> RunStatistics:
    """Generate for every row that is not finished, and store each row with its result.

    A row that cannot be read, and one whose generation fails, fails alone. Memory is bounded by
    the window of the LLM. Results that arrive together are committed together, before the next ones
    are waited for.

    Args:
        llm: the LLM, loaded unless there is an executor.
        rows: the rows of the run, pulled lazily; once for every part of the store.
        formatter: turns a row into an input.
        store: knows which rows are finished, and stores the results of the others.
        num_generations: how many generations of each row.
        arguments: generation parameters.
        in_order: read all rows first, and generate for them in the order of `LLM.batch_key`; for a
            store that is not `ordered`.
        statistics: updated while the run works, for a progress display. A row is started only if the
            `budget` in it has room for the upper bound on what the row can use.
        stopping: called before each row; once it returns true, no further row is started, and the
            run ends when those in flight have ended.
        executor: what generates; by default the LLM.

    Raises:
        GenerationError: an error that every further row would meet, such as a refused key.
        OSError: the rows cannot be read.
        StoreError: the store cannot be written.
        BudgetError: the budget is used up; nothing is in flight then.
        FailuresError: the run is hopeless, or too many rows failed; likewise.
    """
    counts = statistics if statistics is not None else RunStatistics()
    for part in store.parts():
        counts.pulled, counts.waiting = counts.rows + counts.skipped, 0
        feed = _Feed(
            iter(rows), formatter, part, counts, num_generations - part.made,
            lambda: stopping() or store.problem is not None, llm if in_order else None,
        )  # fmt: skip
        with _obeying(stopping, counts):
            _run_part(
                executor or llm, feed, store, stopping, with_seed_offset(llm, arguments or {}, part.made)
            )
        problem = store.problem or feed.problem
        if problem is not None:
            raise problem
        if stopping():
            break
        counts.check_failures(is_kept=not store.ordered)
    return counts


@contextlib.contextmanager
def _obeying(stopping: Callable[[], bool], counts: RunStatistics) -> Iterator[None]:
    """Send nothing more in the block once the run is stopping, or too many rows have failed."""
    stop = Stop()
    if counts.watch is not None:
        counts.watch.on_limit = stop.request
    asked = stopping.watched(stop.request) if isinstance(stopping, Stop) else contextlib.nullcontext()
    with asked, stopping_with(stop):
        if isinstance(stopping, Stop) and stopping.requested:  # before it was watched
            stop.request()
        yield


def with_seed_offset(llm: LLM, arguments: dict[str, Any], made: int) -> dict[str, Any]:
    """Return the arguments for the missing generations: the same seed would repeat the first ones."""
    seed = {**llm.get_generation_kwargs(), **arguments}.get("seed")
    return {**arguments, "seed": seed + made} if isinstance(seed, int) and made else arguments


def with_own_seed_offset(item: Item, made: int) -> Item:
    """Return an item with the same done to a seed of its own."""
    if made and isinstance(item, InputWithArguments):
        seed = item.arguments.get("seed")
        if isinstance(seed, int):
            return InputWithArguments(item.input, {**item.arguments, "seed": seed + made}, item.key)
    return item


class _Feed(RowInputs):
    """The inputs of one part, as long as the budget has room for them and failures do not stop them.

    It is impossible to wait for the rows in flight while inputs are pulled. So if a row does not fit into the
    budget, the iteration ends with that row in `held`, and the next iteration begins with it; by then the
    rows in flight have released the budget that they did not use. The same happens if rows failed in a way
    that may stop the run: by then the rows in flight have shown whether all of them fail.

    Args:
        rows: the rows; every iteration continues where the last one ended.
        formatter: turns a row into an input.
        part: the rows that are wanted.
        counts: updated.
        num_generations: how many generations of each row.
        is_ending: once it returns true, no further row is pulled.
        orderer: the LLM in whose order the rows are taken; `None` for that of the input.

    Attributes:
        counts: the counts so far.
        budget: the budget of the rows, if there is a ceiling.
        held: the row that was not started, with its input; `None` if the rows ended.
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
        self.has_arguments = formatter.has_arguments
        self._part = part
        self.counts = counts
        self.budget = counts.budget
        self._watch = counts.watch
        self.num_generations = num_generations
        self._is_ending = is_ending
        self._ordered = None if orderer is None else Ordered(orderer, self._wanted(), is_ending)
        self._source = self._wanted() if self._ordered is None else iter(self._ordered)
        self._yielded = 0
        self.held: Wanted | None = None
        self.pending: dict[int, Row] = {}

    def __iter__(self) -> Iterator[Item]:
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
        self.counts.add(result, seconds)
        if self.budget:
            self.budget.charge(row.index, result, seconds)
        return row

    def _inputs(self) -> Iterator[Item]:
        first, self.held = [self.held] if self.held else [], None
        watch = self._watch
        for row, input in chain(first, self._source):
            if (watch is not None and watch.holds) or not self._reserve(row, input):
                self.held = Wanted(row, input)
                return
            self.counts.waiting -= 1
            self.pending[self._yielded] = row
            self._yielded += 1
            yield input

    def _wanted(self) -> Iterator[Wanted]:
        for row in self._rows:
            if self._is_ending():
                return
            self.counts.pulled += 1
            if self._part.wants(row.index):
                self.counts.waiting += 1
                yield Wanted(row, with_own_seed_offset(self._formatter(row), self._part.made))
            else:
                self.counts.skipped += 1

    def _reserve(self, row: Row, input: Item) -> bool:
        budget = self.budget
        if budget is None or isinstance(input, GenerationError):
            return True
        return budget.reserve(row.index, input, self.num_generations)


def _run_part(
    executor: Executor, feed: _Feed, store: RunStore, stopping: Callable[[], bool], arguments: dict[str, Any]
) -> None:
    """Generate for the rows of a feed, in as many iterations as the budget needs."""
    budget = feed.budget
    if store.members is not None:
        store.members.follow(feed.index_at)
    while True:
        groups = executor.iter_finished(
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
        if feed.is_stuck and budget is not None:
            row, input = feed.held
            assert not isinstance(input, GenerationError)
            raise budget.refusal(row, input, feed.num_generations)
        feed.counts.check_failures(is_kept=not store.ordered)
