"""`Sender`: from rows to jobs, each written down before it is asked for, and asked for once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import orjson

from stillhouse.errors import GenerationError, UnsupportedError
from stillhouse.http.transport.failures import UnclearError
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.files import RequestFile, custom_id
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.provider import Job, UndecidedError
from stillhouse.offline.row_sets import Rows
from stillhouse.typing import FormattedInput

if TYPE_CHECKING:
    from stillhouse.http.batches import BatchHTTPLLM

__all__ = ["Sender"]

SETTLE_SECONDS = 60.0
"""How long after a request for a job its absence from the provider's list means that there is none."""

SETTLE_PAUSE = 5.0

CREATE_ATTEMPTS = 3


class Sender:
    """What makes the jobs of a run.

    Args:
        llm: a loaded LLM with offline batches.
        ledger: where the state is.
        key: the name of the run in the ledger.
        num_generations: how many generations of each row.
        arguments: generation parameters.
    """

    def __init__(
        self,
        llm: BatchHTTPLLM,
        ledger: BatchLedger,
        key: str,
        num_generations: int,
        arguments: dict[str, Any],
    ) -> None:
        self.llm = llm
        self.ledger = ledger
        self.key = key
        self.num_generations = num_generations
        self.arguments = arguments
        self.parts = 1 if llm._num_generations_param_supported else num_generations

    def send(
        self,
        items: Iterable[tuple[int, FormattedInput]],
        refused: Callable[[int, GenerationError], None],
        plan: Chunk | None,
    ) -> int:
        """Send rows, in as few jobs as the limits allow.

        Args:
            items: ids and inputs.
            refused: told of a row that cannot be sent.
            plan: what the rows are planned in, if they are.

        Returns:
            How many jobs were made.

        Raises:
            GenerationError: a file or a job was refused. Its rows are free, or planned as before.
        """
        made = 0
        there = self.ledger.parts(self.key)
        files: dict[str, RequestFile] = {}
        try:
            for row, input in items:
                missing = [part for part in range(self.parts) if part not in there.get(row, ())]
                try:
                    path, body = self._request(input)
                    file = files.get(path) or files.setdefault(path, self._new_file(path, plan))
                    lines = self._lines(file, row, missing, body)
                except Exception as error:
                    refused(row, GenerationError.wrap(error))
                    continue
                if not file.fits(lines):
                    made += self._send(files.pop(path), plan)
                    file = files.setdefault(path, self._new_file(path, plan))
                    lines = self._lines(file, row, missing, body)
                file.add(row, lines, type(input) is tuple and input[1] is not None)
            while files:
                made += self._send(files.pop(next(iter(files))), plan)
        finally:
            for file in files.values():
                file.close()
        if plan is not None:  # what is left of it was refused
            self.ledger.drop(plan)
        return made

    def _request(self, input: FormattedInput) -> tuple[str, dict[str, Any]]:
        self.llm.check_input(input)
        _, form = self.llm.split(input)
        if form is not None and form.is_instructed:
            raise UnsupportedError(
                "a structured output with a mode asks again, which an offline batch cannot",
                hint="remove mode, or set use_offline_batch_generation to False",
            )
        native = self.num_generations if self.parts == 1 else 1
        return self.llm.batch_request(input, native, self.arguments)

    def _new_file(self, path: str, plan: Chunk | None) -> RequestFile:
        round = 0 if plan is None else plan.round
        return RequestFile(path, round, self.llm.batch_limits, self.llm.batch_framing)

    def _lines(self, file: RequestFile, row: int, parts: Iterable[int], body: Any) -> list[bytes]:
        """The requests of a row.

        Raises:
            GenerationError: they alone are too large for a job.
        """
        lines = [
            orjson.dumps(self.llm.batch_line(custom_id(file.name, row, part), file.path, body))
            for part in parts
        ]
        if not file.could_hold(lines):
            limits = self.llm.batch_limits
            raise GenerationError(
                f"it is too large for an offline batch, which holds {limits.requests} requests of "
                f"together {limits.bytes:,} bytes",
                kind="invalid_request",
                attempts=0,
                hint="shorten it, ask for fewer generations, or generate it online",
            )
        return lines

    def _send(self, file: RequestFile, plan: Chunk | None) -> int:
        """Send a chunk; 1 if it is known to have its job now, else 0.

        Raises:
            GenerationError: there is no job, and none will be.
        """
        with contextlib.closing(file):
            return self._send_rows(file, plan) if file.rows else 0

    def _send_rows(self, file: RequestFile, plan: Chunk | None) -> int:
        file.finish()
        chunk = Chunk(
            file.name, 0, file.round, "intent", type(self.llm).__name__, file.path, Rows(file.rows),
            requests=file.requests, digest=file.digest, own_forms=file.own_forms,
        )  # fmt: skip
        chunk = self.ledger.add(self.key, chunk, plan)
        is_clear = True
        try:
            input_file = self._run(self.llm.upload_batch(chunk, file.file, file.size))
            for attempt in range(1, CREATE_ATTEMPTS + 1):
                chunk = self.ledger.update(
                    chunk, state="uploaded", input_file=input_file, sent_at=time.time()
                )
                try:
                    job: Job | None = self._run(self.llm.create_batch(chunk, file.file, file.size))
                except UnclearError:
                    is_clear = False
                    job = self.settle(chunk)
                    is_clear = True
                    if job is None and attempt == CREATE_ATTEMPTS:
                        raise
                if job is not None:
                    self.record(chunk, job)
                    return 1
        except UndecidedError:
            return 0
        except GenerationError:
            if not is_clear:  # `reconcile` will see
                raise
            if plan is None:
                self.ledger.drop(chunk)
            else:
                self.ledger.replan(self.key, chunk)
            raise
        raise AssertionError

    def settle(self, chunk: Chunk) -> Job | None:
        """The job of a chunk that was asked for one, or `None` if there is none and will be none."""
        while True:
            is_late = time.time() >= chunk.sent_at + SETTLE_SECONDS
            known = self.ledger.known_jobs()
            job: Job | None = self._run(self.llm.find_batch(chunk, known))
            if job is not None or is_late:
                return job
            time.sleep(SETTLE_PAUSE)

    def record(self, chunk: Chunk, job: Job) -> Chunk:
        """Write down what is known of a chunk's job."""
        return self.ledger.update(
            chunk,
            state=job.state,
            job=job.id,
            provider_state=job.provider_state,
            counts=dict(job.counts),
            result_files=tuple(job.result_files),
            message=job.failure.message if job.failure else "",
        )

    def _run(self, coroutine: Any) -> Any:
        return self.llm.run_on_loop(coroutine)
