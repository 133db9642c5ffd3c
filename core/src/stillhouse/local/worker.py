"""The threads in which an engine works, and the queue from which it takes its work.

An engine that computes in this process blocks its thread for seconds at a time, and wants many inputs at
once. So it has a thread of its own, which pulls jobs that are alike in size, as many as it has room for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Generic, TypeVar

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.local.outputs import engine_failed, unloaded

__all__ = ["EngineWorker", "Job", "JobQueue"]

E = TypeVar("E")
R = TypeVar("R")
T = TypeVar("T")

# Seconds that an idle engine waits for another job before it begins with those that it has, the most that
# it waits in all, and for how many batches: the inputs of a run come one after the other, and within a
# millisecond or two, and only of several batches can one be chosen whose prompts are alike.
_COMPANY = 0.005
_PATIENCE = 0.5
_BATCHES = 16


class Job(Generic[R, T]):
    """One generation that somebody waits for.

    Attributes:
        request: what is asked of the engine.
        size: how long its prompt is, in tokens; jobs of like sizes are taken together.
    """

    __slots__ = ("__weakref__", "_future", "_number", "_queue", "request", "size")

    def __init__(self, request: R, size: int, queue: JobQueue[R, T]) -> None:
        self.request = request
        self.size = size
        self._queue = queue
        self._future: Future[T] = Future()
        self._number = 0

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more: the engine may drop it."""
        return self._future.cancelled() or self._queue.is_closed

    def finish(self, result: T) -> None:
        """Give the result to the one who waits. Only the first end of a job counts."""
        self._queue._discard(self)
        with contextlib.suppress(InvalidStateError):
            self._future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Give an error to the one who waits. Only the first end of a job counts."""
        self._queue._discard(self)
        with contextlib.suppress(InvalidStateError):
            self._future.set_exception(error)


class JobQueue(Generic[R, T]):
    """The jobs that wait for an engine, and those that it has in hand."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, Job[R, T]] = {}  # by number, so oldest first
        self._in_hand: set[Job[R, T]] = set()
        self._count = 0
        self._closed = False
        self._broken: GenerationError | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the engine is to end."""
        return self._closed

    @property
    def is_busy(self) -> bool:
        """Whether there is a job that has not ended."""
        return bool(self._waiting or self._in_hand)

    def take(self, count: int, *, wait: bool = True) -> list[Job[R, T]]:
        """Return the next jobs: the oldest one, and others that are like it in size.

        Args:
            count: how many at most, at least 1.
            wait: whether to wait until there is one, and then some milliseconds for more to come.

        Returns:
            The jobs, from the smallest to the largest. None if the queue is closed or, without `wait`,
            if there are none.
        """
        with self._changed:
            if wait and not self._waiting:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                self._gather(count * _BATCHES if count > 1 else 1)
            if self._closed:
                return []
            jobs = self._batch(count)
            for job in jobs:
                del self._waiting[job._number]
            self._in_hand.update(jobs)
            return jobs

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


class EngineWorker(Generic[E, R, T]):
    """An engine in a thread of its own.

    The thread is a daemon: an interpreter that exits does not first work off what is queued. It ends on
    `close()`, or when this object is collected.

    Args:
        open: makes the engine, in the thread; what it raises comes out of the constructor.
        serve: takes jobs from the queue and ends each of them, until the queue gives none and is closed.
            If it raises, the jobs that it had taken fail with that error, and it is called again; if it
            had taken none, the engine is given up, and every call fails with that error.
        name: of the thread.
        threads: how many threads call `serve` with the same engine.
    """

    def __init__(
        self,
        open: Callable[[], E],
        serve: Callable[[E, JobQueue[R, T]], None],
        name: str,
        *,
        threads: int = 1,
    ) -> None:
        self._pid = os.getpid()
        self._queue: JobQueue[R, T] = JobQueue()
        opened: Future[E] = Future()
        first = threading.Thread(
            target=_open_and_serve, args=(open, opened, serve, self._queue), name=f"{name}-0", daemon=True
        )
        self._threads = [first]
        first.start()
        try:
            engine = opened.result()
        except BaseException:
            self._queue._close()
            raise
        for number in range(1, threads):
            thread = threading.Thread(
                target=_serve, args=(engine, serve, self._queue), name=f"{name}-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._finalizer = weakref.finalize(self, self._queue._close)

    @property
    def is_busy(self) -> bool:
        """Whether there is a job that has not ended."""
        return self._queue.is_busy

    async def run(self, request: R, size: int = 0) -> T:
        """Return what the engine makes of a request.

        When the awaiting task is cancelled, the job says so to the engine, which drops it when it next
        looks; nobody waits for that.

        Args:
            request: what is asked of the engine.
            size: how long the prompt is, in tokens.

        Raises:
            GenerationError: the engine failed, or was closed.
            ConfigurationError: this process was forked after the engine was made.
        """
        if self._pid != os.getpid():
            raise ConfigurationError(
                "the model was loaded before this process was forked, and its threads are in the other one",
                hint="load the LLM after forking, or start processes with the method spawn",
            )
        job: Job[R, T] = Job(request, size, self._queue)
        self._queue._put(job)
        try:
            return await asyncio.wrap_future(job._future)
        except asyncio.CancelledError:
            self._queue._leave(job)
            raise

    def close(self) -> None:
        """End the calls under way, and wait until the threads have ended."""
        self._finalizer()
        for thread in self._threads:
            thread.join()


def _open_and_serve(
    open: Callable[[], E],
    opened: Future[E],
    serve: Callable[[E, JobQueue[Any, Any]], None],
    queue: JobQueue[Any, Any],
) -> None:
    try:
        engine = open()
    except BaseException as error:
        opened.set_exception(error)
        return
    opened.set_result(engine)
    del open, opened  # they hold the engine, too
    _serve(engine, serve, queue)


def _serve(engine: E, serve: Callable[[E, JobQueue[Any, Any]], None], queue: JobQueue[Any, Any]) -> None:
    while not queue.is_closed:
        try:
            serve(engine, queue)
        except BaseException as error:
            if not queue._fail_in_hand(error):
                queue._break(error)
                return
    # What the engine had taken when it was told to end, and did not end itself.
    queue._fail_in_hand(unloaded())
