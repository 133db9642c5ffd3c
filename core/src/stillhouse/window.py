"""A sliding window over a stream of inputs: the one way in which an `AsyncLLM` runs concurrently.

The caller, a thread or a coroutine, pulls inputs, hands them over in groups and takes results. On
the LLM's loop a fixed set of workers makes the calls. There is no task per input and no signal per
result: what is handed over while the other side is busy goes over together.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.loop import LoopThread
from stillhouse.outputs import merge_responses

__all__ = ["Window"]

# How many inputs beyond those in flight are ready on the loop, and how far the first unfinished
# input may lie behind the last one started, both as multiples of the window's size.
READY = 1
SPREAD = 16


class Window:
    """Calls in flight, inputs ready and results waiting, all bounded by the window's size.

    Args:
        thread: the loop to make the calls on.
        call: makes one call for one input.
        size: how many calls may be in flight.
        ordered: whether results come out in the order of the inputs.
        parts: how many calls make the result of one input; their responses are merged.
        signal: called on the loop's thread when a result waits that the caller has not seen.
    """

    def __init__(
        self,
        thread: LoopThread,
        call: Callable[[Any], Awaitable[Any]],
        *,
        size: int,
        ordered: bool,
        parts: int,
        signal: Callable[[], None],
    ) -> None:
        self._thread = thread
        self._call = call
        self._size = size
        self._ordered = ordered
        self._parts = parts
        self._signal = signal
        self._context = contextvars.copy_context()
        # Touched by the caller alone.
        self._outbox: list[tuple[int, Any]] = []
        self._partial: dict[int, list[Any]] = {}
        self._waiting: dict[int, Any] = {}
        self._next = 0
        self._submitted = 0
        self._finished = 0
        self._taken = 0
        # Touched by the loop alone.
        self._ready: deque[tuple[int, Any]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        # Crossing over: appended to on the loop, popped by the caller.
        self._done: deque[tuple[int, Any]] = deque()
        self._signalled = False
        self._lost = False

    # The caller's side

    @property
    def has_room(self) -> bool:
        """Whether another input may be submitted now."""
        return (
            self._submitted - self._finished < self._size * (1 + READY)
            and self._submitted - self._taken < self._size * SPREAD
        )

    @property
    def is_empty(self) -> bool:
        """Whether every input submitted was taken out again."""
        return self._submitted == self._taken

    def submit(self, index: int, input: Any) -> None:
        """Take an input in; `flush` hands it over. Indices count up from 0."""
        self._submitted += 1
        for _ in range(self._parts):
            self._outbox.append((index, input))

    def resolve(self, index: int, result: Any) -> None:
        """Take an input in whose result is known already."""
        self._submitted += 1
        self._finish(index, result)

    def flush(self) -> None:
        """Hand what was submitted over to the loop."""
        if self._outbox:
            group, self._outbox = self._outbox, []
            try:
                self._thread.loop.call_soon_threadsafe(self._start, group)
            except RuntimeError:  # the loop is closed
                self._lost = True

    def take(self) -> list[tuple[int, Any]]:
        """The results that may come out now: an output, or the exception that was raised.

        Raises:
            GenerationError: the LLM was unloaded in the meantime.
        """
        self._signalled = False
        done = self._done
        while done:
            index, result = done.popleft()
            if self._parts > 1:
                responses = self._partial.setdefault(index, [])
                responses.append(result)
                if len(responses) < self._parts:
                    continue
                result = _merged(self._partial.pop(index))
            self._finish(index, result)
        results: list[tuple[int, Any]] = []
        waiting = self._waiting
        if not self._ordered:
            results.extend(waiting.items())
            waiting.clear()
        else:
            while self._next in waiting:
                results.append((self._next, waiting.pop(self._next)))
                self._next += 1
        self._taken += len(results)
        if not results and not self.is_empty and (self._lost or not self._thread.is_usable):
            raise GenerationError(
                "the LLM was unloaded while it was generating",
                kind="connection",
                hint="unload it when its results have been taken",
            )
        return results

    def _finish(self, index: int, result: Any) -> None:
        self._finished += 1
        self._waiting[index] = result

    # The loop's side

    def _start(self, group: list[tuple[int, Any]]) -> None:
        self._ready.extend(group)
        woken = min(len(group), len(self._idle))
        for _ in range(woken):
            wake = self._idle.pop()
            if not wake.done():
                wake.set_result(None)
        for _ in range(min(self._size - len(self._tasks), len(self._ready) - woken)):
            task = self._thread.loop.create_task(self._work(), context=self._context.copy())
            self._tasks.append(task)

    async def _work(self) -> None:
        loop, ready, call = self._thread.loop, self._ready, self._call
        try:
            while True:
                while not ready:
                    wake = loop.create_future()
                    self._idle.append(wake)
                    await wake
                index, input = ready.popleft()
                result: Any
                try:
                    result = await call(input)
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    result = GenerationError("the backend cancelled its own request")
                except (Exception, SystemExit) as error:
                    result = error
                self._done.append((index, result))
                if not self._signalled:
                    self._signalled = True
                    self._signal()
        except asyncio.CancelledError:
            self._lost = True
            self._signal()
            raise

    async def close(self) -> None:
        """On the loop: cancel the calls in flight and wait until they have ended."""
        self._ready.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _merged(responses: list[Any]) -> Any:
    """One output from the responses for one input, or the first error with what was finished."""
    outputs = [item for item in responses if not isinstance(item, BaseException)]
    for item in responses:
        if isinstance(item, BaseException):
            if isinstance(item, GenerationError) and outputs and not item.outputs:
                item.outputs = list(merge_responses(outputs, len(outputs)))
            return item
    return merge_responses(responses, len(responses))[0]
