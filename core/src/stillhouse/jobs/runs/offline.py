"""A run through the provider's offline batches: rows go out as jobs, and come back hours later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ErrorKind, GenerationError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.runs.online import RunStatistics, shifted
from stillhouse.jobs.store.store import Part, RunStore
from stillhouse.llm import LLM
from stillhouse.protocols import RowReader
from stillhouse.typing import FormattedInput

if TYPE_CHECKING:
    from stillhouse.offline.chunks import Chunk
    from stillhouse.offline.ledger import BatchLedger

__all__ = ["PASSING", "OfflineRun", "has_batches", "jobs_of", "made_of", "run_key"]

_COMMIT_ROWS = 500

# Failures of a row in a batch that say nothing against generating it online.
PASSING: tuple[ErrorKind, ...] = ("rate_limit", "timeout", "connection", "server")


def run_key(made: int) -> str:
    """The name, in the ledger of a run, of the rows of which so many generations are there already."""
    return f"made-{made}"


def made_of(key: str) -> int:
    """How many generations there are already of the rows of this name."""
    return int(key.rpartition("-")[2])


def _parts(store: RunStore, ledger: BatchLedger) -> list[Part]:
    """The rows that are not finished, and those that are, of which the ledger does not know it yet."""
    parts = store.parts()
    known = {part.made for part in parts}
    ended = {made_of(key) for key in ledger.run_keys()} - known
    return parts + [Part(made, lambda _: False) for made in sorted(ended)]


def has_batches(connection: sqlite3.Connection) -> bool:
    """Whether the database of a run has a ledger."""
    query = "SELECT 1 FROM sqlite_master WHERE name = 'batch_chunks'"
    return connection.execute(query).fetchone() is not None


def jobs_of(ledger: BatchLedger) -> list[Chunk]:
    """The jobs of a run, as they were last heard of."""
    return [chunk for key in ledger.run_keys() for chunk in ledger.chunks(key)]


class OfflineRun:
    """The offline batches of one run. Whatever ends the process, the next one goes on.

    Args:
        llm: the LLM, loaded.
        ledger: in the run's own database.
        store: knows which rows are finished, and takes the others.
        open_rows: opens the input; each time from the first row on.
        formatter: makes a row's input.
        num_generations: how many generations of each row.
        arguments: generation parameters.
        limit: how many rows belong to the run; `None` means all.

    Raises:
        UnsupportedError: the backend has no offline batches.
    """

    def __init__(
        self,
        llm: LLM,
        ledger: BatchLedger,
        store: RunStore,
        open_rows: Callable[[], RowReader],
        formatter: RowFormatter,
        *,
        num_generations: int = 1,
        arguments: dict[str, Any] | None = None,
        limit: int | None = None,
    ) -> None:
        self._store = store
        self._open_rows = open_rows
        self._formatter = formatter
        self._limit = limit
        self._parts = [
            (
                part,
                llm.open_offline_batch(
                    ledger,
                    run_key(part.made),
                    num_generations - part.made,
                    shifted(llm, arguments or {}, part.made),
                ),
            )
            for part in _parts(store, ledger)
        ]

    def advance(self, counts: RunStatistics) -> bool:
        """Submit what is not submitted, and take in what is there; whether every row is finished.

        Raises:
            GenerationError: the provider refused a file or a job, or cannot be reached.
            StoreError: the store cannot take more.
        """
        finished = True
        for part, batch in self._parts:
            batch.reconcile()
            self._submit(part, batch, counts)
            batch.poll()
            with _Seeker(self._open_rows()) as seeker:
                released = self._collect(part, batch, counts, lambda ids: self._inputs(seeker, ids))
            finished = finished and batch.is_finished and not released
        return finished

    def cancel(self) -> None:
        """Cancel what goes on; what is finished of it can still be taken in."""
        for _, batch in self._parts:
            batch.cancel()

    def withdraw(self, counts: RunStatistics) -> bool:
        """Cancel what goes on, and take in what is there; whether nothing is at the provider any more.

        The rows that are not finished then are as if they had never been submitted.
        """
        for part, batch in self._parts:
            batch.cancel()
            self._collect(part, batch, counts, None)
        return all(batch.is_finished for _, batch in self._parts)

    def _submit(self, part: Part, batch: Any, counts: RunStatistics) -> None:
        current: Row | None = None
        held = batch.held()

        def refused(_: int, error: GenerationError) -> None:
            assert current is not None
            self._put(current, error, counts)

        def items(rows: RowReader) -> Iterator[tuple[int, FormattedInput]]:
            nonlocal current
            for row in islice(rows, self._limit):
                if row.index in held or not part.wants(row.index):
                    continue
                counts.pulled += 1
                current = row
                input = self._formatter(row)
                if isinstance(input, GenerationError):
                    self._put(row, input, counts)
                else:
                    yield row.index, input

        rows = self._open_rows()
        try:
            batch.submit(items(rows), refused)
        finally:
            rows.close()
            self._store.commit()

    def _collect(self, part: Part, batch: Any, counts: RunStatistics, inputs_of: Any) -> bool:
        """Take in what is there; whether rows are free again."""
        released = False

        with _Seeker(self._open_rows()) as seeker:
            for results in batch.collect(inputs_of):
                uncommitted = 0
                for index, result in results:
                    if not part.wants(index):  # it was taken in, and the process ended before it could say so
                        continue
                    self._put(seeker.row(index), result, counts)
                    uncommitted += 1
                    if uncommitted == _COMMIT_ROWS:
                        self._store.commit()
                        uncommitted = 0
                self._store.commit()
                results.acknowledge()
                released = released or bool(results.released)
        return released

    def _put(self, row: Row, result: Any, counts: RunStatistics) -> None:
        counts.add(result, None)
        self._store.put(row, result, None)

    def _inputs(self, seeker: _Seeker, ids: Sequence[int]) -> dict[int, FormattedInput]:
        inputs = {}
        for index in sorted(ids):
            input = self._formatter(seeker.row(index))
            if not isinstance(input, GenerationError):
                inputs[index] = input
        return inputs


class _Seeker:
    """Rows by their index, from one pass over the input as long as they are asked for in order."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._rows = iter(reader)
        self._last: Row | None = None

    def __enter__(self) -> _Seeker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._reader.close()

    def row(self, index: int) -> Row:
        if self._last is not None and index < self._last.index:
            self._rows, self._last = iter(self._reader), None
        while self._last is None or self._last.index < index:
            self._last = next(self._rows)
        return self._last
