"""`BatchHTTPLLM`: the base of backends whose API has offline batches.

Over 300 lines: it is one class, and most lines document what a backend implements.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import IO, Any, ClassVar, cast

from stillhouse._execution.arguments import effective_arguments
from stillhouse._settings.digest import digest
from stillhouse.errors import (
    ConfigurationError,
    GenerationError,
    OfflineBatchNotFinishedError,
    UnsupportedError,
)
from stillhouse.http.asking import validate_once
from stillhouse.http.request import Request
from stillhouse.http.structured import StructuredHTTPLLM
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.engine import OfflineBatch
from stillhouse.offline.ledger import BatchLedger, default_path
from stillhouse.offline.provider import (
    BatchLimits,
    Framing,
    InputsOf,
    Job,
    JobResult,
    UndecidedError,
)
from stillhouse.offline.results import Results
from stillhouse.offline.row_sets import Rows
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = [
    "BatchHTTPLLM",
    "BatchLimits",
    "Framing",
    "InputsOf",
    "Job",
    "JobResult",
    "OfflineBatch",
    "Results",
    "UndecidedError",
]

_RESULTS_AT_ONCE = 1000
"""How many results are written to the ledger in one transaction: every one ends with the disk's `fsync`."""


class BatchHTTPLLM(StructuredHTTPLLM):
    """An `HTTPLLM` whose API accepts a file of requests, and answers within hours at a lower price.

    A backend defines the limits of a job (the class variables), how a request is written to the file and its
    result is read (`batch_line`, `batch_result`; `request_of` and `output_of` are used as online), and the
    requests to the provider (the coroutines). `OfflineBatch` uses it as a
    `stillhouse.offline.provider.Provider`: it decides which rows go into which job and which are sent again,
    and never creates a job twice.
    """

    batch_limits: ClassVar[BatchLimits]
    """The limits of one job."""

    batch_framing: ClassVar[Framing] = Framing()
    """The text around the requests of a job."""

    # How a request and its answer look

    def check_batch_input(self, input: FormattedInput) -> None:
        """Reject an input that cannot go into an offline batch.

        Raises:
            ConfigurationError, UnsupportedError: as `check_input`, or its structured output has a mode.
        """
        self.check_input(input)
        _, form = self.split(input)
        if form is not None and form.is_instructed:
            raise UnsupportedError(
                "a structured output with a mode asks again, which an offline batch cannot",
                hint="remove mode, or set use_offline_batch_generation to False",
            )

    def batch_request(
        self, input: FormattedInput, num_generations: int, arguments: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of the request that `agenerate` would make online.

        They are those of `request_of`; a backend overrides it to refuse what has no offline batches.
        """
        request = self.request_of(input, num_generations, arguments)
        return request.path, request.body

    @abstractmethod
    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return a request as it stands in the file."""

    @abstractmethod
    def batch_result(self, line: dict[str, Any]) -> JobResult:
        """Return what a line of the results says."""

    def batch_answer(self, answer: Any, path: str) -> GenerateOutput:
        """Return the output of an answer of this path, before anything is validated: by `output_of`.

        Raises:
            GenerationError: it has another shape, or is an error.
        """
        return self.output_of(answer, Request(path, None))

    def batch_output(
        self, answer: Any, path: str, input: FormattedInput | None, num_generations: int
    ) -> GenerateOutput:
        """Return the output of an answer, validated against its form.

        Args:
            answer: the answer.
            path: the path of the request.
            input: the input if it has a structured output of its own; else it may be `None`.
            num_generations: how many generations were asked for.

        Raises:
            GenerationError: as online, except that nothing is retried.
        """
        _, form = self.split("" if input is None else input)
        return validate_once(self.batch_answer(answer, path), num_generations, form)

    # How the provider is asked

    async def upload_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> str:
        """Upload the file of a chunk, and return the provider's id of it, which becomes `chunk.input_file`.

        It may be uploaded again after a crash: a file alone costs nothing. An API that takes the
        requests with the job has nothing to upload; the returned text is recorded all the same before
        the job is requested.
        """
        return ""

    @abstractmethod
    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        """Make the job of a chunk, with `chunk.name` where `find_batch` finds it again.

        The request must be made with `once`: if it were repeated after its answer was lost, there would
        be two jobs.
        """

    @abstractmethod
    async def find_batch(self, chunk: Chunk, known: set[str]) -> Job | None:
        """Find the job that was made of a chunk in the provider's own list; `None` if it is not there.

        Args:
            chunk: a chunk for which a job was requested, at `sent_at`.
            known: the ids of jobs that are known to be others.

        Raises:
            UndecidedError: there is a job that may be it, which cannot be decided before it ends.
        """

    @abstractmethod
    async def batch_job(self, chunk: Chunk) -> Job:
        """Fetch the job of a chunk, as it stands."""

    @abstractmethod
    async def save_results(self, chunk: Chunk, place: str, file: IO[bytes]) -> None:
        """Save one of `Job.result_files`, JSON lines with a `custom_id`."""

    @abstractmethod
    async def cancel_batch(self, chunk: Chunk) -> None:
        """Cancel the job of a chunk. Its finished results stay."""

    def _refusal(self, answer: Any) -> GenerationError | None:
        """Return the error that an answer with a good status says it is, if it says that nothing was done."""
        failure = self.failure_in(answer, {})
        if failure is None or failure.unclear:
            return None
        error = GenerationError(
            failure.message, kind=failure.kind, hint=failure.hint, stops_run=failure.stops_run
        )
        self._redactor().redact_error(error)
        return error

    # Running batches

    def open_offline_batch(
        self, ledger: BatchLedger, key: str, num_generations: int, arguments: Mapping[str, Any]
    ) -> OfflineBatch:
        """Open the batches of a bulk run."""
        return OfflineBatch(self, ledger, key, num_generations, arguments)

    def offline_batch_generate(
        self, inputs: Sequence[FormattedInput] | None = None, num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Submit the inputs to the provider's batch API, or collect what was submitted.

        Its state is in a ledger in the user's state folder (the environment variable
        `STILLHOUSE_STATE_DIR` names another), which outlives the process: the same call with the same
        inputs resumes where an earlier one ended, however it ended, and no job is made twice.

        Raises:
            OfflineBatchNotFinishedError: the provider is not done; `jobs_ids` says which jobs.
            ConfigurationError: another process is making the same call.
            GenerationError: the batch has ended, and inputs failed; `outputs` has what was finished.
        """
        arguments = effective_arguments(self, num_generations, kwargs)
        if inputs is not None and not inputs:
            return []
        with BatchLedger(default_path()) as ledger:
            if inputs is None:
                key, note = self._known_run(ledger)
            else:
                key, note = self._batch_run(ledger, inputs, num_generations, arguments)
            with ledger.working(key):
                batch = OfflineBatch(self, ledger, key, note["num_generations"], kwargs)
                try:
                    if self._advance(batch, inputs, note["inputs"]):
                        return self._take(ledger, key, note["inputs"])
                finally:
                    jobs = tuple(chunk.job for chunk in batch.jobs() if chunk.job)
                    self.jobs_ids = jobs or None
        raise OfflineBatchNotFinishedError(jobs)

    def cancel_offline_batch(self) -> None:
        """Cancel the jobs in `jobs_ids`. The next call collects what was finished until then."""
        with BatchLedger(default_path()) as ledger:
            key, note = self._known_run(ledger)
            with ledger.working(key):
                OfflineBatch(self, ledger, key, note["num_generations"]).cancel()

    def _batch_run(
        self,
        ledger: BatchLedger,
        inputs: Sequence[FormattedInput],
        num_generations: int,
        arguments: dict[str, Any],
    ) -> tuple[str, dict[str, Any]]:
        """Return the run in the ledger for these inputs and arguments, a new one if there is none."""
        form = self.structured_output
        key = digest(
            type(self).__name__,
            str(self._base),
            self.model,
            form,
            inputs,
            num_generations,
            arguments,
        )
        note = {"inputs": len(inputs), "num_generations": num_generations}
        ledger.open_run(key, **note)
        return key, note

    def _known_run(self, ledger: BatchLedger) -> tuple[str, dict[str, Any]]:
        """Return the run in the ledger that `jobs_ids` belong to."""
        jobs = self.jobs_ids or ()
        key = ledger.run_of_jobs(jobs)
        note = None if key is None else ledger.note(key)
        if key is None or note is None:
            raise ConfigurationError(
                f"the ledger {ledger.path} has no job of jobs_ids: {', '.join(jobs) or 'there are none'}",
                hint="give the inputs; jobs are collected on the machine that submitted them",
            )
        return key, note

    def _advance(self, batch: OfflineBatch, inputs: Sequence[FormattedInput] | None, count: int) -> bool:
        """Submit missing inputs and collect results; return whether the batch is finished."""
        ledger, key = batch.ledger, batch.key
        batch.reconcile()
        inputs_of = None
        if inputs is not None:
            inputs_of = functools.partial(_inputs_of, inputs)
            finished = ledger.kept_rows(key)
            items = ((row, input) for row, input in enumerate(inputs) if row not in finished)
            if batch.submit(items, lambda row, error: ledger.keep(key, [_entry(row, error)])):
                return False
        else:
            submitted = Rows.union([batch.held(), ledger.kept_rows(key)])
            if len(submitted) < count or any(chunk.state == "planned" for chunk in batch.jobs()):
                raise ConfigurationError("some inputs are still to be sent", hint="give the inputs")
        batch.poll()
        for results in batch.collect(inputs_of):
            source = iter(results)
            while group := list(islice(source, _RESULTS_AT_ONCE)):
                ledger.keep(key, [_entry(row, result) for row, result in group])
            ledger.keep(key, [_entry(row, _cancelled(results.chunk.job)) for row in results.released])
            results.acknowledge()
        return batch.is_finished

    def _take(self, ledger: BatchLedger, key: str, count: int) -> list[GenerateOutput]:
        """Return the outputs of a run, and forget the run.

        Raises:
            GenerationError: an input failed.
        """
        outputs: list[GenerateOutput | None] = [None] * count
        errors: dict[int, dict[str, Any]] = {}
        for row, output, error in ledger.kept(key):
            outputs[row] = output
            if error is not None:
                errors[row] = error
        ledger.forget(key)
        failed = [row for row, output in enumerate(outputs) if output is None or row in errors]
        if not failed:
            return cast("list[GenerateOutput]", outputs)
        first = errors.get(failed[0]) or {"message": "it was never answered", "kind": "unknown"}
        message = f"{len(failed)} of {count} inputs failed; the first, number {failed[0]}: "
        raise GenerationError(**{**first, "message": message + first["message"], "outputs": outputs})


def _inputs_of(inputs: Sequence[FormattedInput], rows: Sequence[int]) -> dict[int, FormattedInput]:
    return {row: inputs[row] for row in rows}


def _cancelled(job: str) -> GenerationError:
    return GenerationError(
        f"the job {job} was cancelled before its turn", hint="make the same call again to submit it again"
    )


def _entry(row: int, result: GenerateOutput | GenerationError) -> tuple[int, Any, Any]:
    """Return a ledger entry of JSON types: row, output and error; an error may have some generations."""
    if not isinstance(result, GenerationError):
        return row, result, None
    names = ("message", "kind", "attempts", "request_id", "stops_run", "hint")
    partial = result.outputs[0] if result.outputs else None
    if partial is not None and not partial["generations"]:
        partial = None
    return row, partial, {name: getattr(result, name) for name in names}
