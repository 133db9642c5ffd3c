"""`JobQueue`: the jobs that wait for an engine, and those that it works on."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future, InvalidStateError
from typing import Generic, TypeVar

from stillhouse._execution.stopping import current_stop
from stillhouse.errors import GenerationError
from stillhouse.local.outputs import engine_failed, unloaded
from stillhouse.typing import OnPiece

__all__ = ["Job", "JobQueue"]

R = TypeVar("R")
T = TypeVar("T")

# Seconds that an idle engine waits for another job before it begins with those that it has, the most that
# it waits in all, and for how many batches: the inputs of a run come one after the other, and within a
# millisecond or two, and only of several batches can one be chosen whose prompts are alike.
_COMPANY = 0.005
_PATIENCE = 0.5
_BATCHES = 16


class Job(Generic[R, T]):
    """One generation that a caller waits for.

    Attributes:
        request: the request for the engine.
        size: the length of its prompt in tokens; jobs of similar size are taken together.
        on_piece: called with each piece of the text as it comes, in the engine's thread; `None` if the job is
            not streamed.
    """

    __slots__ = (
        "__weakref__", "_future", "_number", "_queue", "_since", "_stop", "on_piece", "request", "size",
    )  # fmt: skip

    def __init__(self, request: R, size: int, queue: JobQueue[R, T]) -> None:
        self.request = request
        self.size = size
        self.on_piece: OnPiece | None = None
        self._queue = queue
        self._future: Future[T] = Future()
        self._number = 0
        self._since = time.monotonic()
        self._stop = current_stop.get()

    @property
    def cancelled(self) -> bool:
        """Whether no caller waits for the job any more, so that the engine may drop it."""
        return self._future.cancelled() or self._queue.is_closed

    @property
    def is_taken(self) -> bool:
        """Whether the engine works on the job, or has finished it."""
        return self in self._queue._in_hand or self._future.done()

    def finish(self, result: T) -> None:
        """End the job with a result. Only the first end of a job counts."""
        self._queue._discard(self)
        with contextlib.suppress(InvalidStateError):
            self._future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """End the job with an error. Only the first end of a job counts."""
        self._queue._discard(self)
        with contextlib.suppress(InvalidStateError):
            self._future.set_exception(error)


class JobQueue(Generic[R, T]):
    """The jobs that wait for an engine, and those that it works on.

    Attributes:
        seconds_waited: how long all jobs together waited until the engine took them.
    """

    def __init__(self) -> None:
        self.seconds_waited = 0.0
        self._changed = threading.Condition()
        self._waiting: dict[int, Job[R, T]] = {}  # by number, so oldest first
        self._in_hand: set[Job[R, T]] = set()
        self._count = 0
        self._closed = False
        self._broken: GenerationError | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the queue is closed, so that the engine must end."""
        return self._closed

    @property
    def is_busy(self) -> bool:
        """Whether a job has not ended yet."""
        return bool(self._waiting or self._in_hand)

    def take(self, count: int, *, wait: bool = True) -> list[Job[R, T]]:
        """Return the next jobs: the oldest one, and others of similar size.

        Args:
            count: maximum number of jobs, at least 1.
            wait: whether to wait for a job, and then some milliseconds for more jobs.

        Returns:
            The jobs, from the smallest to the largest. An empty list if the queue is closed or, without
            `wait`, if no job is waiting.
        """
        with self._changed:
            jobs: list[Job[R, T]] = []
            while not jobs:
                if wait and not self._waiting:
                    while not self._waiting and not self._closed:
                        self._changed.wait()
                    self._gather(count * _BATCHES if count > 1 else 1)
                if self._closed:
                    return []
                self._drop_stopped()
                jobs = self._batch(count) if self._waiting else []
                if not wait:
                    break
            now = time.monotonic()
            for job in jobs:
                del self._waiting[job._number]
                self.seconds_waited += now - job._since
            self._in_hand.update(jobs)
            return jobs

    def _drop_stopped(self) -> None:
        """Forget the jobs whose run stops: their tasks are cancelled."""
        stopped = [job._number for job in self._waiting.values() if job._stop.requested]
        for number in stopped:
            del self._waiting[number]

    def _gather(self, count: int) -> None:
        ends = time.monotonic() + _PATIENCE
        while (before := len(self._waiting)) < count and not self._closed and time.monotonic() < ends:
            self._changed.wait(_COMPANY)
            if len(self._waiting) == before:
                return

    def _batch(self, count: int) -> list[Job[R, T]]:
        if count == 1:
            return [next(iter(self._waiting.values()))] if self._waiting else []
        jobs = sorted(self._waiting.values(), key=lambda job: (job.size, job._number))
        if len(jobs) <= count:
            return jobs
        # Cut into batches from the smallest on, so that those that are left are batches of like sizes too.
        begin = jobs.index(next(iter(self._waiting.values()))) // count * count
        begin = min(begin, len(jobs) - count)
        return jobs[begin : begin + count]

    def _put(self, job: Job[R, T]) -> None:
        with self._changed:
            if self._closed:
                raise unloaded()
            if self._broken is not None:
                raise _again(self._broken)
            self._count += 1
            job._number = self._count
            self._waiting[job._number] = job
            self._changed.notify_all()

    def _leave(self, job: Job[R, T]) -> None:
        """Nobody waits for a job any more."""
        with self._changed:
            self._waiting.pop(job._number, None)

    def _discard(self, job: Job[R, T]) -> None:
        with self._changed:
            self._in_hand.discard(job)

    def _fail_in_hand(self, error: BaseException) -> bool:
        """Fail the jobs that the engine had taken, and say whether there were any."""
        with self._changed:
            jobs = list(self._in_hand)
            self._in_hand.clear()
        failure = error if isinstance(error, GenerationError) else engine_failed(error)
        for job in jobs:
            job.fail(_again(failure))
        return bool(jobs)

    def _break(self, error: BaseException) -> None:
        """The engine works no more: fail every job, and each that is still to come."""
        failure = error if isinstance(error, GenerationError) else engine_failed(error)
        with self._changed:
            self._broken = failure
            jobs = [*self._in_hand, *self._waiting.values()]
            self._in_hand.clear()
            self._waiting.clear()
        for job in jobs:
            job.fail(_again(failure))

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            jobs = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify_all()
        for job in jobs:
            job.fail(unloaded())


def _again(error: GenerationError) -> GenerationError:
    """The same error for another row: each row's error has a list of outputs and attempts of its own."""
    return GenerationError(error.message, kind=error.kind, hint=error.hint, stops_run=error.stops_run)
