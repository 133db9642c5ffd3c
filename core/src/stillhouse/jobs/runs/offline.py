"""`OfflineRun`: sends rows as jobs of the provider's offline batches, and collects their results."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

from stillhouse.errors import ErrorKind, GenerationError, UnsupportedError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.runs.online import Item, RunStatistics, with_own_seed_offset, with_seed_offset
from stillhouse.jobs.store.database import DamagedError, StoreError, translated
from stillhouse.jobs.store.protocol import Part, RunStore
from stillhouse.llm import LLM
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.protocol import OfflineBatchCalls
from stillhouse.offline.provider import InputsOf
from stillhouse.protocols import InputWithArguments, RowReader
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = [
    "TRANSIENT_KINDS",
    "OfflineRun",
    "generations_done",
    "has_batches",
    "jobs_of",
    "run_key",
]

COMMIT_ROWS = 500

# With these errors, a row that failed in a batch may well succeed online.
TRANSIENT_KINDS: tuple[ErrorKind, ...] = ("rate_limit", "timeout", "connection", "server")


def run_key(made: int) -> str:
    """Return the key, in the ledger of a run, of the rows that have this number of generations."""
    return f"made-{made}"


def generations_done(key: str) -> int:
    """Return the number of generations that the rows of a key have already."""
    return int(key.rpartition("-")[2])


def has_batches(connection: sqlite3.Connection) -> bool:
    """Whether the database of a run has a ledger."""
    query = "SELECT 1 FROM sqlite_master WHERE name = 'batch_chunks'"
    return connection.execute(query).fetchone() is not None


def jobs_of(ledger: BatchLedger) -> list[Chunk]:
    """List the jobs of a run, in the state of the last poll.

    Raises:
        StoreError: the database cannot be read.
    """
    try:
        with translated(ledger.path):
            return [chunk for key in ledger.run_keys() for chunk in ledger.chunks(key)]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise DamagedError(
            f"the run's state {ledger.path} is damaged: its offline batches cannot be read",
            hint="put a copy in its place; or, if no batch is running, start over with --restart",
        ) from error


def _parts(store: RunStore, ledger: BatchLedger) -> list[Part]:
    """List the rows that are not finished, and the finished ones that the ledger still has as submitted."""
    parts = store.parts()
    known = {part.made for part in parts}
    finished = {generations_done(key) for key in ledger.run_keys()} - known
    return parts + [Part(made, lambda _: False) for made in sorted(finished)]


class OfflineRun:
    """The offline batches of one run. Whenever the process ends, the next one can resume.

    Args:
        llm: the LLM, loaded.
        ledger: in the run's own database.
        store: knows which rows are finished, and stores the results of the others.
        open_rows: opens the rows of the run; each time from the first one on.
        formatter: turns a row into an input.
        num_generations: how many generations of each row.
        arguments: generation parameters.
        stopping: once it returns true, nothing more is submitted.

    Raises:
        UnsupportedError: the backend has no offline batches, or none that takes parameters of rows.
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
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._stopping = stopping
        self._open_rows = open_rows
        self._formatter = formatter
        self._parts: list[tuple[Part, OfflineBatchCalls]] = [
            (
                part,
                llm.open_offline_batch(
                    ledger,
                    run_key(part.made),
                    num_generations - part.made,
                    with_seed_offset(llm, arguments or {}, part.made),
                ),
            )
            for part in _parts(store, ledger)
        ]
        if formatter.has_arguments:
            for _, batch in self._parts:
                if not getattr(batch, "takes_arguments", False):
                    raise UnsupportedError(
                        f"the offline batches of {type(llm).__name__} take the same parameters for all rows",
                        hint="leave out --batch, or the parameters of the rows (--row-params)",
                    )

    def advance(self, counts: RunStatistics) -> bool:
        """Submit the rows that are not submitted, store the results of the jobs that have ended.

        Returns:
            Whether every row is finished.

        Raises:
            GenerationError: the provider refused a file or a job, or cannot be reached.
            StoreError: the store cannot be written.
            CancelledError: the run is stopping.
        """
        finished = True
        for part, batch in self._parts:
            batch.reconcile()
            self._submit(part, batch, counts)
            batch.poll()
            with _RowCursor(self._open_rows()) as cursor:
                released = self._collect(part, batch, counts, partial(self._inputs, part, cursor))
            finished = finished and batch.is_finished and not released
        return finished

    def cancel_and_collect(self, counts: RunStatistics) -> bool:
        """Cancel the unfinished jobs, and store the available results.

        The other rows are then free, as if they had never been submitted.

        Returns:
            Whether no job of this run is left at the provider.
        """
        for part, batch in self._parts:
            batch.cancel()
            self._collect(part, batch, counts, None)
        return all(batch.is_finished for _, batch in self._parts)

    def _submit(self, part: Part, batch: OfflineBatchCalls, counts: RunStatistics) -> None:
        current: Row | None = None
        held = batch.held()

        def refused(_: int, error: GenerationError) -> None:
            assert current is not None
            self._put(current, error, counts)

        def items(rows: RowReader) -> Iterator[tuple[int, FormattedInput | InputWithArguments]]:
            nonlocal current
            for row in rows:
                self._check_going_on()
                if row.index in held or not part.wants(row.index):
                    continue
                counts.pulled += 1
                current = row
                input = self._input(part, row)
                if isinstance(input, GenerationError):
                    self._put(row, input, counts)
                else:
                    yield row.index, input

        rows = self._open_rows()
        try:
            batch.submit(items(rows), refused)
            self._check_going_on()
        finally:
            rows.close()
            self._store.commit()

    def _collect(
        self, part: Part, batch: OfflineBatchCalls, counts: RunStatistics, inputs_of: InputsOf | None
    ) -> bool:
        """Store the results of the jobs that have ended, and return whether rows are free again."""
        released = False
        with _RowCursor(self._open_rows()) as cursor:
            for results in batch.collect(inputs_of):
                uncommitted = 0
                for index, result in results:
                    if not part.wants(index):  # stored by a process that ended before it acknowledged
                        continue
                    self._put(cursor.row(index), result, counts)
                    uncommitted += 1
                    if uncommitted == COMMIT_ROWS:
                        self._store.commit()
                        uncommitted = 0
                self._store.commit()
                results.acknowledge()
                released = released or bool(results.released)
        return released

    def _check_going_on(self) -> None:
        """Stop before the next job is submitted if the run is stopping; the ledger stays consistent.

        Raises:
            CancelledError: the run is stopping.
        """
        if self._stopping():
            raise asyncio.CancelledError

    def _put(self, row: Row, result: GenerateOutput | GenerationError, counts: RunStatistics) -> None:
        counts.add(result, None)
        self._store.put(row, result, None)

    def _input(self, part: Part, row: Row) -> Item:
        return with_own_seed_offset(self._formatter(row), part.made)

    def _inputs(
        self, part: Part, cursor: _RowCursor, ids: Sequence[int]
    ) -> dict[int, FormattedInput | InputWithArguments]:
        self._check_going_on()
        inputs = {}
        for index in sorted(ids):
            input = self._input(part, cursor.row(index))
            if not isinstance(input, GenerationError):
                inputs[index] = input
        return inputs


class _RowCursor:
    """Rows by their index; one pass over the input is enough if the indexes ascend."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._rows = iter(reader)
        self._last: Row | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._reader.close()

    def row(self, index: int) -> Row:
        if self._last is not None and index < self._last.index:
            self._rows, self._last = iter(self._reader), None
        while self._last is None or self._last.index < index:
            self._last = next(self._rows)
        return self._last
