"""`OfflineBatch`: sends rows as jobs and collects their results, whatever happens in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stillhouse._execution.call import effective_arguments
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.failures import backoff_seconds
from stillhouse.offline.files import BrokenFileError, ResultFile
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.provider import INPUTS_AT_ONCE, InputsOf, Job, Provider, UndecidedError
from stillhouse.offline.results import Results, Run
from stillhouse.offline.row_sets import Rows
from stillhouse.offline.sending import Sender
from stillhouse.typing import FormattedInput

__all__ = ["OfflineBatch"]

DOWNLOAD_ATTEMPTS = 3


class OfflineBatch:
    """The offline batch of one run: its rows, in as many jobs as the provider's limits make them.

    Everything is in the ledger, so that this object may be dropped and created anew, in another
    process, at any time; only one at a time may work on a run. The order of a start, of which every
    step may be repeated: `reconcile`, `submit` with the rows that have no result yet, then from time
    to time `poll` and `collect`, until `is_finished`.

    No job is made twice. A chunk is recorded before it is sent, and its name is sent with it. After a
    crash, or an answer that was lost, the provider's own list of jobs says whether there is one of
    that name; only if there is none, a minute after it was requested, is another made.

    Args:
        provider: a loaded LLM with offline batches.
        ledger: where the state is.
        key: the name of the run in the ledger.
        num_generations: how many generations of each row.
        arguments: generation parameters; they, and the inputs, must be the same every time.
    """

    def __init__(
        self,
        provider: Provider,
        ledger: BatchLedger,
        key: str,
        num_generations: int = 1,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = effective_arguments(provider, num_generations, arguments or {})
        self.provider = provider
        self.ledger = ledger
        self.key = key
        parts = 1 if provider.makes_several else num_generations
        self._run = Run(ledger, key, num_generations, parts)
        self._sender = Sender(provider, self._run, arguments)
        ledger.open_run(key)

    # State

    def jobs(self) -> list[Chunk]:
        """Return the chunks, with the provider's ids, states and counts as they were last reported."""
        return self.ledger.chunks(self.key)

    def held(self) -> Rows:
        """Return the rows that are in a job, or planned for one, and whose results are not collected."""
        return self.ledger.held(self.key)

    @property
    def is_finished(self) -> bool:
        """Whether every chunk is collected."""
        return all(chunk.state == "collected" for chunk in self.jobs())

    # Sending

    def submit(
        self,
        items: Iterable[tuple[int, FormattedInput]],
        refused: Callable[[int, GenerationError], None],
    ) -> int:
        """Send rows, in as few jobs as the provider's limits allow. Rows that are held are skipped.

        Args:
            items: ids and inputs, pulled lazily; at most one job's worth is kept, in a temporary file.
            refused: called with each row that cannot be turned into a request, or that alone exceeds
                a limit.

        Returns:
            How many jobs were made.

        Raises:
            GenerationError: the provider refused a file or a job. The rows of earlier jobs are held,
                the others are not.
        """
        held = self.held()
        fresh = ((row, input) for row, input in items if row not in held)
        return self._sender.send(fresh, refused, None)

    def resubmit(self, inputs_of: InputsOf, refused: Callable[[int, GenerationError], None]) -> int:
        """Send the rows that are to be sent again; `collect` has planned them, or `reconcile`.

        Returns:
            How many jobs were made.

        Raises:
            GenerationError: as `submit`; the rows stay planned.
        """
        made = 0
        for plan in self.jobs():
            if plan.state == "planned":
                made += self._sender.send(_items(plan.rows, inputs_of), refused, plan)
        return made

    # Asking the provider

    def reconcile(self) -> None:
        """Resolve the chunks that an earlier process was sending when it ended.

        If the provider has the job of a chunk, its id is recorded. The rows of the others are planned,
        for `collect` to send them again.
        """
        for chunk in self.jobs():
            if chunk.state == "intent":  # no job was requested yet
                self.ledger.replan(self.key, chunk)
            elif chunk.state == "uploaded":
                try:
                    job = self._sender.resolve_job(chunk)
                except UndecidedError:
                    continue
                if job is None:
                    self.ledger.replan(self.key, chunk)
                else:
                    self._sender.record(chunk, job)

    def poll(self) -> list[Chunk]:
        """Ask the provider about the running jobs, and return what `jobs` does."""
        self.reconcile()
        for chunk in self.jobs():
            if chunk.state == "created":
                self._sender.record(chunk, self.provider.run_on_loop(self.provider.batch_job(chunk)))
        return self.jobs()

    def cancel(self) -> None:
        """Cancel the running jobs, and drop the planned ones. Finished results can still be collected."""
        self.reconcile()
        for chunk in self.jobs():
            if chunk.state == "planned":
                self.ledger.drop(chunk)
            elif chunk.state == "created":
                try:
                    self.provider.run_on_loop(self.provider.cancel_batch(chunk))
                except GenerationError:  # it may have ended meanwhile
                    job = self.provider.run_on_loop(self.provider.batch_job(chunk))
                    if job.state == "created":
                        raise
        self.poll()

    # Collecting

    def collect(self, inputs_of: InputsOf | None = None) -> Iterator[Results]:
        """Yield the results of every chunk that has ended, then send the planned rows again.

        For each chunk: iterate over it, store its results, and only then call `acknowledge`. A chunk
        that was not acknowledged is yielded again, whole.

        Args:
            inputs_of: the inputs of rows. Without it nothing is sent again, and answers cannot be
                validated against a structured output that an input has of its own.

        Raises:
            GenerationError: results could not be read whole, or a file or a job was refused.
        """
        for chunk in self.jobs():
            if not chunk.is_ended:
                continue
            if chunk.own_forms and inputs_of is None:
                raise ConfigurationError(
                    "some inputs have a structured output of their own, which their answers are held to",
                    hint="give the inputs again",
                )
            job = self.provider.run_on_loop(self.provider.batch_job(chunk))
            failure = job.failure
            if failure is not None and failure.kind == "rate_limit" and self._others_are_running(chunk):
                continue  # sent again now, it would meet the same full queue
            file = ResultFile(chunk.name, chunk.rows)
            try:
                self._download(chunk, job, file)
                yield Results(self._run, self.provider, chunk, job, file, inputs_of)
            finally:
                file.clear()
        if inputs_of is not None:
            # A row that is refused now, though it was not before, is free: `submit` will say why.
            self.resubmit(inputs_of, lambda _row, _error: None)

    def _others_are_running(self, chunk: Chunk) -> bool:
        return any(other.state == "created" and other.name != chunk.name for other in self.jobs())

    def _download(self, chunk: Chunk, job: Job, file: ResultFile) -> None:
        paid = 0 if job.failure else job.counts.get("completed", 0)
        expected = 0 if job.failure else paid + job.counts.get("failed", 0)
        for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
            file.clear()
            for place in job.result_files:
                self.provider.run_on_loop(self.provider.save_results(chunk, place, file.new_file()))
            try:
                found = file.index()
            except BrokenFileError:
                found = -1
            if found >= min(expected, chunk.requests):
                return
            if attempt < DOWNLOAD_ATTEMPTS:
                time.sleep(backoff_seconds(attempt))
        if found < min(paid, chunk.requests):
            raise GenerationError(
                f"the results of the job {chunk.job} are not whole",
                kind="server",
                attempts=DOWNLOAD_ATTEMPTS,
                hint="run the same again later; nothing of it is lost",
            )


def _items(rows: Rows, inputs_of: InputsOf) -> Iterator[tuple[int, FormattedInput]]:
    ids = list(rows)
    for start in range(0, len(ids), INPUTS_AT_ONCE):
        group = ids[start : start + INPUTS_AT_ONCE]
        inputs = inputs_of(group)
        # A row without an input is left out of the plan, and so is free.
        yield from ((row, inputs[row]) for row in group if row in inputs)
