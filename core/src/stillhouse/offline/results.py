"""`Results`: what became of the rows of one chunk, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stillhouse.errors import GenerationError
from stillhouse.http.transport.failures import Failure
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.files import ResultFile
from stillhouse.offline.provider import Job
from stillhouse.offline.row_sets import Rows
from stillhouse.outputs import merge_responses
from stillhouse.typing import FormattedInput, GenerateOutput

if TYPE_CHECKING:
    from stillhouse.offline.engine import InputsOf, OfflineBatch

__all__ = ["ROWS_AT_ONCE", "Results"]

ROWS_AT_ONCE = 500
"""How many inputs are asked for at once."""

MOST_ROUNDS = 2
"""How often a row is sent again at most."""


class Results:
    """The results of a chunk: iterate, put them where they belong, then `acknowledge`.

    It gives the id and the output, or the error, of every row that is settled; an error's `outputs`
    has the generations that there are. Not among them are the rows that are sent again, and those
    of a job that was cancelled before their turn: these are free, as if they had never been sent.

    Attributes:
        chunk: the chunk.
        released: the rows that are free again, once all was iterated over.
    """

    def __init__(
        self, batch: OfflineBatch, chunk: Chunk, job: Job, file: ResultFile, inputs_of: InputsOf | None
    ) -> None:
        self.chunk = chunk
        self.released: list[int] = []
        self._batch = batch
        self._job = job
        self._file = file
        self._inputs_of = inputs_of
        self._again: list[int] = []
        self._parts: list[tuple[int, int, GenerateOutput]] = []
        self._settled: list[int] = []
        self._exhausted = False

    def __iter__(self) -> Iterator[tuple[int, GenerateOutput | GenerationError]]:
        self._again, self._parts, self._settled, self.released = [], [], [], []
        ids = list(self.chunk.rows)
        there = self._batch.ledger.parts(self._batch.key)
        for start in range(0, len(ids), ROWS_AT_ONCE):
            group = ids[start : start + ROWS_AT_ONCE]
            inputs = self._inputs_of(group) if self.chunk.own_forms and self._inputs_of else {}
            for row in group:
                result = self._result(row, inputs.get(row), row in there)
                if result is not None:
                    self._settled.append(row)
                    yield row, result
        self._exhausted = True

    def acknowledge(self) -> None:
        """Say that the results are where they belong, all of them: they do not come again.

        Raises:
            RuntimeError: not all of them were iterated over.
        """
        if not self._exhausted:
            raise RuntimeError("results are acknowledged that were never seen")
        batch = self._batch
        batch.ledger.collected(batch.key, self.chunk, Rows(self._again), self._parts, self._settled)

    def _result(
        self, row: int, input: FormattedInput | None, has_parts: bool
    ) -> GenerateOutput | GenerationError | None:
        """The output or the error of a row; `None` if it is sent again, or free."""
        batch = self._batch
        outputs: dict[int, Any] = {}
        if has_parts:
            outputs = batch.ledger.outputs_of_parts(batch.key, row)
        failures: dict[int, Failure | None] = {
            part: self._missing() for part in range(batch.parts) if part not in outputs
        }
        for part, line in self._file.results_of(row, batch.parts):
            result = batch.llm.batch_result(line)
            if result.answer is None:
                if part in failures:
                    failures[part] = result.failure
                continue
            native = batch.num_generations if batch.parts == 1 else 1
            try:
                outputs[part] = batch.llm.batch_output(result.answer, self.chunk.path, input, native)
            except Exception as error:
                return self._error(GenerationError.wrap(error), outputs)
            failures.pop(part, None)
        if not failures:
            return merge_responses([outputs[part] for part in sorted(outputs)], batch.parts)[0]
        reasons = [failure for failure in failures.values() if failure is not None]
        final = next((failure for failure in reasons if not failure.retried), None)
        if final is None and len(reasons) == len(failures) and not self._may_go_again:
            final = reasons[0]
        if final is not None:
            return self._error(_error_of(final), outputs)
        self._parts += [(row, part, output) for part, output in outputs.items()]
        if len(reasons) == len(failures):
            self._again.append(row)
        else:
            self.released.append(row)
        return None

    @property
    def _may_go_again(self) -> bool:
        return self._inputs_of is not None and self.chunk.round < MOST_ROUNDS

    def _missing(self) -> Failure | None:
        """Why there is no result of a request, as far as the job as a whole tells; `None`: cancelled."""
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
        if outputs:
            error.outputs = list(merge_responses([outputs[part] for part in sorted(outputs)], len(outputs)))
        return error


def _error_of(failure: Failure) -> GenerationError:
    return GenerationError(
        failure.message,
        kind=failure.kind,
        hint=failure.hint,
        request_id=failure.request_id,
        stops_run=failure.stops_run,
    )
