"""Threads that wait for the engine, one for each slot, so that nothing else has to."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from stillhouse.local import unloaded

__all__ = ["Cancelled", "Workers"]

T = TypeVar("T")

Cancelled = Callable[[], bool]
"""Says whether the one who asked has gone away."""


class Workers:
    """A fixed number of threads, which take calls in the order in which they come.

    The threads are daemons, unlike those of a `ThreadPoolExecutor`: an interpreter that exits does
    not first work off what is queued. They end on `close()`, or when this object is collected.
    """

    def __init__(self, size: int, name: str) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._closed = threading.Event()
        self._calls: set[_Call] = set()
        self._threads = [
            threading.Thread(target=_work, args=(self._queue,), name=f"{name}-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._queue, size)

    @property
    def is_busy(self) -> bool:
        """Whether there are calls that have not ended."""
        return bool(self._calls)

    async def run(self, function: Callable[[Cancelled], T]) -> T:
        """What `function` returns, called in one of the threads.

        When the awaiting task is cancelled, the argument of `function` begins to say so, and the
        cancellation goes on once it has returned.

        Raises:
            GenerationError: the threads were told to end.
        """
        left = threading.Event()
        closed = self._closed
        call = _Call(function, lambda: left.is_set() or closed.is_set())
        if closed.is_set():
            raise unloaded()
        result = asyncio.wrap_future(call.future)
        self._calls.add(call)
        self._queue.put(call)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if closed.is_set() and result.cancelled():
                raise unloaded() from None
            left.set()
            if not call.future.cancel():
                await asyncio.wait([result])
                if not result.cancelled():
                    result.exception()  # nobody will ask for it any more, and asyncio must not log that
            raise
        finally:
            self._calls.discard(call)

    def close(self) -> None:
        """Tell the calls to end, and wait until they and the threads have."""
        self._closed.set()
        self._finalizer()
        for thread in self._threads:
            thread.join()


class _Call:
    def __init__(self, function: Callable[[Cancelled], Any], cancelled: Cancelled) -> None:
        self.function = function
        self.cancelled = cancelled
        self.future: Future[Any] = Future()

    def run(self) -> None:
        if self.cancelled():
            self.future.cancel()
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.function(self.cancelled))
        except BaseException as error:
            self.future.set_exception(error)


def _work(queue: SimpleQueue[_Call | None]) -> None:
    while (call := queue.get()) is not None:
        call.run()
        del call  # it holds the engine


def _stop(queue: SimpleQueue[_Call | None], size: int) -> None:
    for _ in range(size):
        queue.put(None)
