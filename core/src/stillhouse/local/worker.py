"""`EngineWorker`: the threads of an engine, and the queue from which it takes its work.

An engine that computes in this process blocks its thread for seconds at a time, and is fastest with many
inputs. So it has its own thread, which takes as many jobs of similar size as the engine has room for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from stillhouse.errors import ConfigurationError
from stillhouse.local.outputs import unloaded
from stillhouse.local.queue import Job, JobQueue
from stillhouse.typing import OnPiece

__all__ = ["EngineWorker"]

E = TypeVar("E")
R = TypeVar("R")
T = TypeVar("T")


class EngineWorker(Generic[E, R, T]):
    """An engine in its own thread.

    The thread is a daemon, so an interpreter that exits does not wait for the queue. It ends on `close()`,
    or when this object is garbage-collected.

    Args:
        open: creates the engine, in the thread; its exceptions are raised by the constructor.
        serve: takes jobs from the queue and ends each of them, until the queue is closed and empty. If it
            raises, the jobs that it had taken fail with that error, and it is called again. If it had taken
            none, the engine is abandoned, and every call fails with that error.
        name: the name of the thread.
        threads: number of threads that call `serve` with the same engine.
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
    def seconds_waited(self) -> float:
        """Seconds that all calls together waited until the engine took them."""
        return self._queue.seconds_waited

    @property
    def is_busy(self) -> bool:
        """Whether there is a job that has not ended."""
        return self._queue.is_busy

    async def run(self, request: R, size: int = 0, on_piece: OnPiece | None = None) -> T:
        """Return the engine's result for a request.

        If the awaiting task is cancelled, the job is marked as cancelled, and the engine drops it at the next
        opportunity; the task does not wait for this.

        Args:
            request: the request for the engine.
            size: the length of the prompt in tokens.
            on_piece: called on this loop with each piece of the text that the engine passes to the job's
                `on_piece`. If it raises, the job is dropped, and the exception is raised here.

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
        pieces = None
        if on_piece is not None:
            pieces = _Pieces(on_piece, job._future.cancel)
            job.on_piece = pieces.add
        job._stop.check()
        self._queue._put(job)
        try:
            # What the engine has not taken when the run stops is dropped.
            with job._stop.interrupting(lambda: not job.is_taken):
                result: T = await asyncio.wrap_future(job._future)
        except asyncio.CancelledError:
            self._queue._leave(job)
            if pieces is not None:
                pieces.check()
            raise
        if pieces is not None:
            pieces.check()
        return result

    def close(self) -> None:
        """End the running calls, and wait until the threads have ended."""
        self._finalizer()
        for thread in self._threads:
            thread.join()


class _Pieces:
    """Carries the pieces of a text from the engine's thread to the loop of the task that waits for them.

    Args:
        on_piece: takes them. If it raises, it gets no more.
        drop: drops the job then.
    """

    def __init__(self, on_piece: OnPiece, drop: Callable[[], object]) -> None:
        self._on_piece = on_piece
        self._drop = drop
        self._loop = asyncio.get_running_loop()
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise what `on_piece` raised."""
        if self._error is not None:
            raise self._error from None

    def add(self, piece: str) -> None:
        """Hand over a piece, from any thread. Those before the job's result arrive before it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._deliver, piece)

    def _deliver(self, piece: str) -> None:
        if self._error is None:
            try:
                self._on_piece(piece)
            except BaseException as error:
                self._error = error
                self._drop()


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
