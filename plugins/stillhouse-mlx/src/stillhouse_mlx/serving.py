"""Serving: the jobs of a queue grow together, and each ends for itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from stillhouse.errors import StillhouseError
from stillhouse.local import Generation, Job, JobQueue, engine_failed, unloaded
from stillhouse.typing import GenerateOutput
from stillhouse_mlx.engine import Engine
from stillhouse_mlx.generation import Growing

__all__ = ["serve"]

_Job = Job[Generation, GenerateOutput]


class _Batch:
    """The sequences that grow together, each for a job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sequences = engine.sequences()
        self._waiting: deque[_Job] = deque()  # that were taken, and have no sequence yet
        self._under_way: dict[int, tuple[_Job, Growing]] = {}  # by the sequence's number

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def free(self) -> int:
        """How many more there is room for, some of which the generator keeps ready."""
        if self._waiting:
            return 0
        return self._engine.slots + self._engine.ahead - len(self._under_way)

    @property
    def jobs(self) -> list[_Job]:
        """The jobs that have not ended."""
        return [*(job for job, _ in self._under_way.values()), *self._waiting]

    def admit(self, jobs: Sequence[_Job]) -> None:
        """Let the sequences of jobs begin. What there is no memory for waits until another has ended."""
        self._waiting.extend(jobs)
        while self._waiting:
            try:
                self._begin(self._waiting[0])
            except MemoryError as error:
                if self._under_way:
                    return
                self._waiting[0].fail(engine_failed(error))
                self._engine.forget()
            self._waiting.popleft()

    def _begin(self, job: _Job) -> None:
        if job.cancelled:
            job.fail(unloaded())
            return
        request, engine = job.request, self._engine
        self._sequences.require_memory(len(request.prompt))
        kept, cache = 0, None
        if engine.prefixes is not None:
            kept, cache = engine.prefixes.take(request.prompt)
        try:
            growing = Growing(request, engine.answer(request, job.on_piece), engine.eos)
        except StillhouseError as error:
            job.fail(error)
            return
        number = self._sequences.insert(request.prompt[kept:], request.limit, cache, growing.chooser)
        self._under_way[number] = (job, growing)

    def step(self) -> None:
        """Give every sequence its next token, and end the jobs of those that are finished."""
        before = len(self._under_way)
        cancelled = [number for number, (job, _) in self._under_way.items() if job.cancelled]
        for number in cancelled:
            self._under_way.pop(number)[0].fail(unloaded())
        if cancelled:
            self._sequences.remove(cancelled)
        if self._under_way:
            self._grow()
        if self._waiting and len(self._under_way) < before:
            self.admit([])

    def _grow(self) -> None:
        ended = []
        for response in self._sequences.next():
            job, growing = self._under_way[response.uid]
            reason = growing.add(response.token) or response.finish_reason
            error = growing.chooser.error
            if reason is None and error is None:
                continue
            del self._under_way[response.uid]
            if response.finish_reason is None:
                ended.append(response.uid)
            if error is None:
                job.finish(growing.output(reason or "stop"))
            else:
                job.fail(error)
        if ended:
            self._sequences.remove(ended)

    def close(self) -> None:
        """Let go of the generator."""
        self._sequences.close()


def serve(engine: Engine, queue: JobQueue[Generation, GenerateOutput]) -> None:
    """End the jobs of a queue, until it is closed."""
    with engine.mx.stream(engine.stream):
        while not queue.is_closed:
            failed = _serve_together(engine, queue)
            # What one of them needs too much of, such as memory, the others need not go without.
            for job in failed:
                _serve_alone(engine, job)


def _serve_together(engine: Engine, queue: JobQueue[Generation, GenerateOutput]) -> list[_Job]:
    """Serve until the queue is closed, or the engine fails; return the jobs that it had in hand then."""
    batch = _Batch(engine)
    try:
        while not queue.is_closed:
            if batch.free > 0:
                batch.admit(queue.take(batch.free, wait=not len(batch)))
            batch.step()
    except Exception as error:
        jobs = batch.jobs
        if not jobs:
            raise
        if len(jobs) > 1:
            return jobs
        jobs[0].fail(engine_failed(error))
    finally:
        batch.close()
        engine.forget()
    return []


def _serve_alone(engine: Engine, job: _Job) -> None:
    batch = _Batch(engine)
    try:
        batch.admit([job])
        while len(batch):
            batch.step()
    except Exception as error:
        job.fail(engine_failed(error))
    finally:
        batch.close()
        engine.forget()
