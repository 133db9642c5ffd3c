"""`Sender`: makes jobs of rows, each recorded before it is requested, and requested once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from stillhouse._execution.bugs import report_bug, wrapped
from stillhouse._execution.own_arguments import ArgumentsInForce
from stillhouse._settings.redaction import Redactor
from stillhouse.errors import GenerationError
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.failures import UnclearError
from stillhouse.offline.files import RequestFile, custom_id
from stillhouse.offline.provider import Job, Provider, UndecidedError, clean_words
from stillhouse.offline.results import Run
from stillhouse.offline.row_sets import Rows
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput

__all__ = ["Sender"]

SETTLE_SECONDS = 60.0
"""How long after a request for a job its absence from the provider's list means that there is none."""

SETTLE_PAUSE = 5.0
"""Seconds between two looks at the provider's list."""

CREATE_ATTEMPTS = 3


class Sender:
    """Makes the jobs of a run.

    Args:
        provider: a loaded backend with offline batches.
        run: the run.
        arguments: generation parameters, checked.
        redactor: masks the secrets in what a provider says of its jobs.
    """

    def __init__(
        self, provider: Provider, run: Run, arguments: dict[str, Any], redactor: Redactor | None = None
    ) -> None:
        self.provider = provider
        self.run = run
        self.ledger = run.ledger
        self.arguments = arguments
        self._in_force = ArgumentsInForce(arguments, provider.check_arguments)
        self.redactor = redactor or Redactor()

    def send(
        self,
        items: Iterable[tuple[int, FormattedInput | InputWithArguments]],
        refused: Callable[[int, GenerationError], None],
        plan: Chunk | None,
    ) -> int:
        """Send rows, in as few jobs as the limits allow.

        Args:
            items: ids and inputs, which may have arguments of their own.
            refused: called with each row that cannot be sent.
            plan: the chunk that the rows are planned in, if there is one.

        Returns:
            How many jobs were made.

        Raises:
            GenerationError: a file or a job was refused. Its rows are free, or planned as before.
        """
        made = 0
        collected = self.ledger.parts(self.run.key)
        files: dict[str, RequestFile] = {}
        try:
            for row, item in items:
                missing = [part for part in range(self.run.parts) if part not in collected.get(row, ())]
                try:
                    input, arguments = self._separated(item)
                    path, bodies = self._requests(input, arguments, missing)
                    file = files.get(path) or files.setdefault(path, self._new_file(path, plan))
                    lines = self._lines(file, row, bodies)
                except Exception as error:
                    failure = wrapped(error, self.provider)
                    self.redactor.redact_error(failure)
                    report_bug(failure, self.redactor)
                    refused(row, failure)
                    continue
                if not file.fits(lines):
                    made += self._send(files.pop(path), plan)
                    file = files.setdefault(path, self._new_file(path, plan))
                    lines = self._lines(file, row, bodies)
                file.add(row, lines, type(input) is tuple and input[1] is not None)
            while files:
                made += self._send(files.pop(next(iter(files))), plan)
        finally:
            for file in files.values():
                file.close()
        if plan is not None:  # the rest of it was refused
            self.ledger.drop(plan)
        return made

    def _separated(self, item: FormattedInput | InputWithArguments) -> tuple[FormattedInput, dict[str, Any]]:
        """Return an input without its own arguments, and those that are in force for it."""
        if isinstance(item, InputWithArguments):
            return item.input, self._in_force.of(item).arguments
        return item, self.arguments

    def _requests(
        self, input: FormattedInput, given: dict[str, Any], parts: Sequence[int]
    ) -> tuple[str, dict[int, Any]]:
        """Return the path of a row, and the body of each part: as online, a seed is raised for each."""
        self.provider.check_batch_input(input)
        count = self.run.generations_per_request
        seed = given.get("seed") if self.run.parts > 1 else None
        if seed is None or not parts:
            path, body = self.provider.batch_request(input, count, given)
            return path, dict.fromkeys(parts, body)
        path, bodies = "", {}
        for part in parts:
            path, bodies[part] = self.provider.batch_request(input, count, {**given, "seed": seed + part})
        return path, bodies

    def _new_file(self, path: str, plan: Chunk | None) -> RequestFile:
        round = 0 if plan is None else plan.round
        return RequestFile(path, round, self.provider.batch_limits, self.provider.batch_framing)

    def _lines(self, file: RequestFile, row: int, bodies: Mapping[int, Any]) -> list[bytes]:
        """Return the requests of a row, as lines of the file.

        Raises:
            GenerationError: they alone are too large for a job.
        """
        lines = [
            orjson.dumps(self.provider.batch_line(custom_id(file.name, row, part), file.path, body))
            for part, body in bodies.items()
        ]
        if not file.could_hold(lines):
            limits = self.provider.batch_limits
            raise GenerationError(
                f"it is too large for an offline batch, which holds {limits.requests} requests of "
                f"together {limits.bytes:,} bytes",
                kind="invalid_request",
                attempts=0,
                hint="shorten it, ask for fewer generations, or generate it online",
            )
        return lines

    def _send(self, file: RequestFile, plan: Chunk | None) -> int:
        """Send a chunk; return 1 if it is known to have its job now, else 0.

        Raises:
            GenerationError: there is no job, and none will be.
        """
        with contextlib.closing(file):
            return self._send_rows(file, plan) if file.rows else 0

    def _send_rows(self, file: RequestFile, plan: Chunk | None) -> int:
        file.finish()
        chunk = Chunk(
            file.name, 0, file.round, "intent", type(self.provider).__name__, file.path, Rows(file.rows),
            requests=file.requests, digest=file.digest, own_forms=file.own_forms,
        )  # fmt: skip
        chunk = self.ledger.add(self.run.key, chunk, plan)
        is_clear = True
        try:
            file.file.seek(0)  # it was just written, and may be read as it is
            input_file = self.provider.run_on_loop(self.provider.upload_batch(chunk, file.file, file.size))
            for attempt in range(1, CREATE_ATTEMPTS + 1):
                chunk = self.ledger.update(
                    chunk, state="uploaded", input_file=input_file, sent_at=time.time()
                )
                file.file.seek(0)
                try:
                    job: Job | None = self.provider.run_on_loop(
                        self.provider.create_batch(chunk, file.file, file.size)
                    )
                except UnclearError:
                    is_clear = False
                    job = self.resolve_job(chunk)
                    is_clear = True
                    if job is None and attempt == CREATE_ATTEMPTS:
                        raise
                if job is not None:
                    self.record(chunk, job)
                    return 1
        except UndecidedError:
            return 0
        except GenerationError:
            if not is_clear:  # `reconcile` decides
                raise
            if plan is None:
                self.ledger.drop(chunk)
            else:
                self.ledger.replan(self.run.key, chunk)
            raise
        raise AssertionError

    def resolve_job(self, chunk: Chunk) -> Job | None:
        """Return the job that was requested for a chunk, or `None` if there is none and will be none."""
        while True:
            is_late = time.time() >= chunk.sent_at + SETTLE_SECONDS
            known = self.ledger.known_jobs()
            job: Job | None = self.provider.run_on_loop(self.provider.find_batch(chunk, known))
            if job is not None or is_late:
                return job
            time.sleep(SETTLE_PAUSE)

    def record(self, chunk: Chunk, job: Job) -> Chunk:
        """Record the state of a chunk's job in the ledger."""
        return self.ledger.update(
            chunk,
            state=job.state,
            job=job.id,
            provider_state=self.redactor.redact(job.provider_state),
            counts=dict(job.counts),
            result_files=tuple(job.result_files),
            message=self.redactor.redact(clean_words(job.failure.message)) if job.failure else "",
        )
