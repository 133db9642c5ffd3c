"""`OfflineBatch`: sends rows as jobs and collects their results, whatever happens in between.

Over 300 lines: it is one class, and the order of its steps is what keeps a job from being made twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stillhouse._execution.arguments import effective_arguments
from stillhouse._settings.redaction import Redactor, named_secrets
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.offline import sending
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.failures import backoff_seconds
from stillhouse.offline.files import ResultFile
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.provider import INPUTS_AT_ONCE, InputsOf, Job, Provider, UndecidedError
from stillhouse.offline.results import Results, Run
from stillhouse.offline.row_sets import Rows
from stillhouse.offline.sending import Sender
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput

__all__ = ["OfflineBatch"]

DOWNLOAD_ATTEMPTS = 3

# The note on a chunk whose results were cut off at every attempt: the next time, the available results count.
_NOT_WHOLE = "its results were not whole"

# What is noted of a chunk whose job, or whose results, the provider says it does not have.
_GONE = "not found at the provider"


class OfflineBatch:
    """The offline batch of one run: its rows, in as many jobs as the provider's limits require.

    All state is in the ledger, so this object may be dropped and created again at any time, in another
    process; only one at a time may work on a run. The steps of a start, each of which may be repeated:
    `reconcile`, `submit` with the rows that have no result yet, then `poll` and `collect` from time to time,
    until `is_finished`.

    No job is created twice. A chunk is recorded before it is sent, and its name is sent with it. After a
    crash, or a lost answer, the provider's own list of jobs shows whether the job exists. Another job is
    created only if none exists a minute after the request.

    Args:
        provider: a loaded LLM with offline batches.
        ledger: the ledger with the state.
        key: the name of the run in the ledger.
        num_generations: the number of generations for each row.
        arguments: generation parameters; they, and the inputs, must be the same every time.
    """

    takes_arguments = True
    """Whether inputs may have arguments of their own."""

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
        find = getattr(provider, "_redactor", None)  # an LLM has it
        self._redactor = (Redactor() if find is None else find()).with_secrets(named_secrets(arguments))
        self._sender = Sender(provider, self._run, arguments, self._redactor)
        self._gone: GenerationError | None = None
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
        items: Iterable[tuple[int, FormattedInput | InputWithArguments]],
        refused: Callable[[int, GenerationError], None],
    ) -> int:
        """Send rows, in as few jobs as the provider's limits allow. Rows that are held are skipped.

        Args:
            items: ids and inputs, which may have arguments of their own; pulled lazily, and at most one
                job's worth is kept, in a temporary file.
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
        """Ask the provider about the running jobs, and return what `jobs` does.

        A job that the provider does not have any more holds up no other: `collect` raises its error when
        the others are collected.
        """
        self._gone = None
        self.reconcile()
        for chunk in self.jobs():
            if chunk.state == "created":
                job = self._job_of(chunk)
                if job is not None:
                    self._sender.record(chunk, job)
        return self.jobs()

    def _job_of(self, chunk: Chunk) -> Job | None:
        """Return the job of a chunk as it stands; `None` if the provider says that there is none.

        That alone frees no row: it may be the wrong key that does not see the job.
        """
        try:
            return self.provider.run_on_loop(self.provider.batch_job(chunk))
        except GenerationError as error:
            if error.kind != "invalid_request":
                raise
            if not _is_fresh(chunk):
                self._note_gone(chunk, f"the job {chunk.job}", error)
            return None

    def _note_gone(self, chunk: Chunk, what: str, error: GenerationError) -> None:
        self.ledger.update(chunk, provider_state=_GONE)
        self._gone = GenerationError(
            f"{what} is not to be had from the provider any more ({error.message}), and its "
            f"{len(chunk.rows):,} rows are not answered",
            kind="invalid_request",
            request_id=error.request_id,
            stops_run=True,
            hint="if another key or project made it, use that one; if it is deleted, cancel it (stillhouse "
            "batches OUTPUT --cancel, or cancel_offline_batch()): then the same again sends its rows anew",
        )

    def cancel(self) -> None:
        """Cancel the running jobs, and drop the planned ones. Finished results can still be collected.

        The rows of a job that the provider does not have any more are free then.
        """
        self.reconcile()
        for chunk in self.jobs():
            if chunk.state == "planned":
                self.ledger.drop(chunk)
            elif chunk.state == "created":
                try:
                    self.provider.run_on_loop(self.provider.cancel_batch(chunk))
                except GenerationError:  # it may have ended meanwhile, or be gone
                    job = self._job_of(chunk)
                    if job is None and not _is_fresh(chunk):
                        self._release(chunk)
                    elif job is None or job.state == "created":
                        raise
            elif chunk.is_ended and chunk.provider_state == _GONE:
                self._release(chunk)
        self.poll()

    def _release(self, chunk: Chunk) -> None:
        """Treat a chunk that the provider has nothing of as cancelled before its turn."""
        self.ledger.update(chunk, state="cancelled", provider_state=_GONE, result_files=())

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
            job = self._ended_job(chunk)
            if job is None:
                continue
            failure = job.failure
            if failure is not None and failure.kind == "rate_limit" and self._others_are_running(chunk):
                continue  # sent again now, it would meet the same full queue
            file = ResultFile(chunk.name, chunk.rows)
            try:
                if self._download(chunk, job, file):
                    yield Results(self._run, self.provider, chunk, job, file, inputs_of, self._redactor)
            finally:
                file.clear()
        if inputs_of is not None:
            # A row that is refused now, though it was not before, is free: `submit` will say why.
            self.resubmit(inputs_of, lambda _row, _error: None)
        if self._gone is not None:
            raise self._gone

    def _ended_job(self, chunk: Chunk) -> Job | None:
        """Return the job of a chunk that has ended; `None` if the provider does not have it any more."""
        if chunk.state == "cancelled" and chunk.provider_state == _GONE:
            return Job(chunk.job, "cancelled", _GONE)
        return self._job_of(chunk)

    def _others_are_running(self, chunk: Chunk) -> bool:
        return any(other.state == "created" and other.name != chunk.name for other in self.jobs())

    def _download(self, chunk: Chunk, job: Job, file: ResultFile) -> bool:
        """Fetch the results of a chunk, and return whether there are some to be read.

        A file that ends in the middle of a line, or has fewer lines than there are results, was cut off
        in transit or is still being written: it is fetched again. A line that is bad and stays so is not.
        """
        paid = 0 if job.failure else job.counts.get("completed", 0)
        expected = min(chunk.requests, 0 if job.failure else paid + job.counts.get("failed", 0))
        paid = min(paid, chunk.requests)
        size = -1
        for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
            file.clear()
            gone: GenerationError | None = None
            for place in job.result_files:
                try:
                    self.provider.run_on_loop(self.provider.save_results(chunk, place, file.new_file()))
                except GenerationError as error:
                    if error.kind != "invalid_request":
                        raise
                    gone = error
            file.index()
            if gone is not None and not 0 < paid <= file.lines:  # else nothing in it was paid for
                self._note_gone(chunk, f"a file of results of the job {chunk.job}", gone)
                return False
            lines = file.lines
            if file.is_cut and file.size == size:
                lines += 1  # the line is bad at the provider too
            if lines >= expected and (lines > file.lines or not file.is_cut):
                return True
            size = file.size
            if attempt < DOWNLOAD_ATTEMPTS:
                time.sleep(backoff_seconds(attempt))
        if chunk.message != _NOT_WHOLE and (file.is_cut or file.lines < paid):
            self.ledger.update(chunk, message=_NOT_WHOLE)
            raise GenerationError(
                f"the results of the job {chunk.job} are not whole",
                kind="server",
                attempts=DOWNLOAD_ATTEMPTS,
                hint="run the same again later: nothing of it is lost. What is missing then is sent again",
            )
        return True


def _is_fresh(chunk: Chunk) -> bool:
    """Whether the job was requested so lately that a part of the provider may not know it yet."""
    return chunk.state == "created" and time.time() < chunk.sent_at + sending.SETTLE_SECONDS


def _items(rows: Rows, inputs_of: InputsOf) -> Iterator[tuple[int, FormattedInput | InputWithArguments]]:
    ids = list(rows)
    for start in range(0, len(ids), INPUTS_AT_ONCE):
        group = ids[start : start + INPUTS_AT_ONCE]
        inputs = inputs_of(group)
        # A row without an input is left out of the plan, and so is free.
        yield from ((row, inputs[row]) for row in group if row in inputs)
