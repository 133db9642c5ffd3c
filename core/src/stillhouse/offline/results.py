"""`Results`: the outputs and errors of the rows of one chunk, and `Run`, which they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stillhouse._execution.bugs import report_bug, wrapped
from stillhouse._settings.redaction import Redactor
from stillhouse.errors import GenerationError
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.failures import Failure
from stillhouse.offline.files import ResultFile
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.provider import INPUTS_AT_ONCE, InputsOf, Job, JobResult, Provider
from stillhouse.offline.row_sets import Rows
from stillhouse.outputs import check_output, merge_responses
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["Results", "Run"]

MAX_ROUNDS = 2
"""How often a row is sent again at most."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run in the ledger.

    Attributes:
        ledger: where its state is.
        key: its name in the ledger.
        num_generations: how many generations of each row.
        parts: in how many requests a row is sent: one, or one for each generation.
    """

    ledger: BatchLedger
    key: str
    num_generations: int
    parts: int

    @property
    def generations_per_request(self) -> int:
        """How many generations one request asks for."""
        return self.num_generations if self.parts == 1 else 1


class Results:
    """The results of a chunk: iterate, store them, then `acknowledge`.

    It yields the id of every finished row, with the output or the error; an error's `outputs` has
    the generations that were made. It does not yield the rows that are sent again, nor those of a job
    that was cancelled before their turn: these are free, as if they had never been sent.

    Args:
        run: the run.
        provider: reads the results.
        chunk: the chunk.
        job: its job, which has ended.
        file: the downloaded results.
        inputs_of: the inputs of rows; without it no row is sent again.
        redactor: masks the secrets in errors.

    Attributes:
        chunk: the chunk.
        released: the rows that are free again, after all results were iterated over.
    """

    def __init__(
        self,
        run: Run,
        provider: Provider,
        chunk: Chunk,
        job: Job,
        file: ResultFile,
        inputs_of: InputsOf | None,
        redactor: Redactor | None = None,
    ) -> None:
        self.chunk = chunk
        self.released: list[int] = []
        self._run = run
        self._provider = provider
        self._job = job
        self._file = file
        self._inputs_of = inputs_of
        self._redactor = redactor or Redactor()
        self._again: list[int] = []
        self._parts: list[tuple[int, int, GenerateOutput]] = []
        self._finished: list[int] = []
        self._exhausted = False

    def __iter__(self) -> Iterator[tuple[int, GenerateOutput | GenerationError]]:
        self._again, self._parts, self._finished, self.released = [], [], [], []
        ids = list(self.chunk.rows)
        collected = self._run.ledger.parts(self._run.key)
        for start in range(0, len(ids), INPUTS_AT_ONCE):
            group = ids[start : start + INPUTS_AT_ONCE]
            inputs = self._inputs_of(group) if self.chunk.own_forms and self._inputs_of else {}
            for row in group:
                input = inputs.get(row)
                if isinstance(input, InputWithArguments):
                    input = input.input
                result = self._result(row, input, row in collected)
                if result is not None:
                    self._finished.append(row)
                    yield row, result
        self._exhausted = True

    def acknowledge(self) -> None:
        """Confirm that all results are stored: they are not yielded again.

        Raises:
            RuntimeError: not all of them were iterated over.
        """
        if not self._exhausted:
            raise RuntimeError("results are acknowledged that were never seen")
        run = self._run
        run.ledger.collected(run.key, self.chunk, Rows(self._again), self._parts, self._finished)

    def _result(
        self, row: int, input: FormattedInput | None, has_parts: bool
    ) -> GenerateOutput | GenerationError | None:
        """Return the output or the error of a row; `None` if it is sent again, or free."""
        run = self._run
        outputs: dict[int, Any] = {}
        if has_parts:
            outputs = run.ledger.outputs_of_parts(run.key, row)
        failures: dict[int, Failure | None] = {
            part: self._missing() for part in range(run.parts) if part not in outputs
        }
        for part, line in self._file.results_of(row, run.parts):
            try:
                result = self._result_in(line)
                if result.answer is None:
                    if part in failures:
                        failures[part] = result.failure
                    continue
                output = self._provider.batch_output(
                    result.answer, self.chunk.path, input, run.generations_per_request
                )
                outputs[part] = check_output(
                    output, run.generations_per_request, type(self._provider).__name__
                )
            except Exception as error:  # whatever is in a line ends no more than its row
                return self._error(wrapped(error, self._provider), outputs)
            failures.pop(part, None)
        if not failures:
            return merge_responses([outputs[part] for part in sorted(outputs)], run.parts)[0]
        reasons = [failure for failure in failures.values() if failure is not None]
        final = next((failure for failure in reasons if not failure.retried), None)
        if final is None and len(reasons) == len(failures) and not self._may_be_resent:
            final = reasons[0]
        if final is not None:
            return self._error(_error_of(final), outputs)
        self._parts += [(row, part, output) for part, output in outputs.items()]
        if len(reasons) == len(failures):
            self._again.append(row)
        else:
            self.released.append(row)
        return None

    def _result_in(self, line: dict[str, Any] | None) -> JobResult:
        """Return what a line of the results says; `None` for one that cannot be read."""
        if line is None:
            raise GenerationError(
                f"the line of its result in the job {self.chunk.job} cannot be read",
                kind="server",
                hint="generate it again: --retry server",
            )
        try:
            return self._provider.batch_result(line)
        except GenerationError:
            raise
        except Exception as error:
            raise GenerationError(
                f"the line of its result has another shape than the API's: {type(error).__name__}: {error}",
                kind="server",
                hint="generate it again: --retry server",
            ) from error

    @property
    def _may_be_resent(self) -> bool:
        return self._inputs_of is not None and self.chunk.round < MAX_ROUNDS

    def _missing(self) -> Failure | None:
        """Return why a request has no result, judging by the job as a whole; `None` if it was cancelled."""
        if self._job.state == "cancelled":
            return None
        if self._job.failure is not None:
            return self._job.failure
        why = "expired before" if self._job.state == "expired" else "ended without"
        return Failure(
            "timeout" if self._job.state == "expired" else "server",
            f"the job {self.chunk.job} {why} an answer",
            hint="run the same again, or generate it online",
            retried=True,
        )

    def _error(self, error: GenerationError, outputs: dict[int, Any]) -> GenerationError:
        error.attempts = self.chunk.round + 1
        self._redactor.redact_error(error)
        report_bug(error, self._redactor)
        if outputs:
            made = [outputs[part] for part in sorted(outputs)]
            made += [output for output in error.outputs if output is not None]
            error.outputs = list(merge_responses(made, len(made)))
        return error


def _error_of(failure: Failure) -> GenerationError:
    return GenerationError(
        failure.message,
        kind=failure.kind,
        hint=failure.hint,
        request_id=failure.request_id,
        stops_run=failure.stops_run,
    )
