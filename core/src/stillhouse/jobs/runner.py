"""The runner: from rows to results, in a window, until there are no more."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.jobs.rows import Row, RowFormatter
from stillhouse.jobs.store import RunStore
from stillhouse.llm import LLM
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["RunStatistics", "run"]


@dataclass
class RunStatistics:
    """What happened so far.

    Attributes:
        done: rows with an output.
        failed: rows without, by the kind of their error.
        input_tokens: as far as the backend said.
        output_tokens: likewise.
        pulled: rows read.
        started: when the run began, on the monotonic clock.
    """

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    pulled: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        return self.done + self.failures

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def add(self, result: GenerateOutput | GenerationError) -> None:
        if isinstance(result, GenerationError):
            self.failed[result.kind] += 1
            return
        self.done += 1
        statistics = result.get("statistics")
        if statistics:
            self.input_tokens += sum(filter(None, statistics.get("input_tokens", ())))
            self.output_tokens += sum(filter(None, statistics.get("output_tokens", ())))


def run(
    llm: LLM,
    rows: Iterable[Row],
    formatter: RowFormatter,
    store: RunStore,
    *,
    num_generations: int = 1,
    arguments: dict[str, Any] | None = None,
    statistics: RunStatistics | None = None,
) -> RunStatistics:
    """Generate for every row, and put each into the store with what became of it.

    A row that cannot be read, and one whose generation fails, fails alone. Memory is bounded by
    the window of the LLM.

    Args:
        llm: the LLM, loaded.
        rows: the rows, pulled lazily.
        formatter: makes a row's input.
        store: takes the rows.
        num_generations: how many generations of each row.
        arguments: generation parameters.
        statistics: counted up while the run goes on, for a progress display.

    Raises:
        GenerationError: an error that every further row would meet, such as a refused key.
        OSError: the rows cannot be read on, or the store cannot write.
    """
    counts = statistics if statistics is not None else RunStatistics()
    pending: dict[int, Row] = {}

    def inputs() -> Iterator[FormattedInput | GenerationError]:
        for position, row in enumerate(rows):
            counts.pulled += 1
            pending[position] = row
            yield formatter(row)

    results = llm.iter_outputs(
        inputs(), num_generations, on_error="yield", ordered=store.ordered, **(arguments or {})
    )
    for index, result in results:
        counts.add(result)
        store.put(pending.pop(index), result)
    return counts
