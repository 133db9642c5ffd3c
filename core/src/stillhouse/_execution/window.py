"""`Window`: bounded concurrency over a stream of inputs. Every `AsyncLLM` runs its calls in one.

The caller, a thread or a coroutine (see `pump`), pulls inputs, submits them in groups and takes
results. On the LLM's loop, a fixed set of workers makes the calls. There is no task per input and no
signal per result: everything submitted while the other side is busy is passed on together.

Over 300 lines: it is one class, whose two sides share the data that passes between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from stillhouse._execution.call import Result, result_of
from stillhouse._execution.loop_thread import LoopThread
from stillhouse._execution.slots import Slots, current_input, inside
from stillhouse._execution.stopping import StoppedError, current_stop
from stillhouse.errors import GenerationError, UnsupportedError
from stillhouse.outputs import merge_results

__all__ = ["Window", "WindowSettings"]

# The number of inputs that are ready on the loop in addition to those in flight, and the distance between
# the first unfinished input and the last one started, both as multiples of the window's size.
READY = 1
SPREAD = 16

# How long a result may wait for others while inputs are ready: waking the caller costs as much as a row.
# If calls are shorter than that, at least this number of inputs is ready, or each would wake the caller.
SIGNAL_SECONDS = 0.002
FAST_READY = 8

_Item = tuple[int, int, Any]
"""The index of an input, the number of the call for it, and the input."""

_DROPPED: Any = object()
"""Marks an input that was not sent, because the run is stopping."""


@dataclass(frozen=True)
class WindowSettings:
    """How a window makes its calls.

    Attributes:
        thread: the loop to make the calls on.
        slots: the slots for calls in flight of this LLM.
        calls: each makes one call for one input; the results of several are merged, in this order.
        size: maximum number of calls in flight.
        ordered: whether results come in the order of the inputs.
        raises: whether the caller stops at any error. Then no input is started after an error; otherwise
            only after an error that stops the run.
    """

    thread: LoopThread
    slots: Slots
    calls: Sequence[Callable[[Any], Awaitable[Any]]]
    size: int
    ordered: bool
    raises: bool


class Window:
    """The calls in flight, the ready inputs and the waiting results, all bounded by the window's size.

    Args:
        settings: how the window makes its calls.
        signal: called on the loop's thread when there is a result that the caller has not seen.

    Attributes:
        dropped: number of inputs without a result, because the run is stopping.
    """

    def __init__(self, settings: WindowSettings, signal: Callable[[], Any]) -> None:
        self._thread = settings.thread
        self._calls = settings.calls
        self._size = settings.size
        self._ordered = settings.ordered
        self._parts = len(settings.calls)
        self._raises = settings.raises
        self._signal = signal
        slots = settings.slots
        self._context = contextvars.copy_context()
        self._stop = current_stop.get()
        self.dropped = 0
        self._owner = slots
        # A call that generates with its own LLM already holds a slot, and could wait for itself.
        self._slots = Slots() if slots in inside.get() else slots
        # Used only by the caller.
        self._outbox: list[_Item] = []
        self._partial: dict[int, dict[int, tuple[Any, float]]] = {}
        self._waiting: dict[int, Result] = {}
        self._next = 0
        self._submitted = 0
        self._finished = 0
        self._taken = 0
        self._stopped = False
        self._is_fast = False  # whether the last call took less time than a result may wait
        # Used only by the loop.
        self._ready: deque[_Item] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None  # of a signal that is due
        self._closed = False
        # Shared: written on the loop, read by the caller.
        self._done: deque[tuple[int, int, Any, Any, float]] = deque()
        self._signalled = False
        self._halted = False

    # The caller's side

    @property
    def room(self) -> int:
        """Number of inputs that may be submitted now."""
        if self._stopped or self._halted:
            return 0
        ahead = self._size * READY
        if self._is_fast:
            ahead = max(ahead, FAST_READY)
        ready = self._size + ahead - (self._submitted - self._finished)
        spread = self._size * SPREAD - (self._submitted - self._taken)
        return max(0, min(ready, spread))

    @property
    def is_empty(self) -> bool:
        """Whether the results of all submitted inputs were taken."""
        return self._submitted == self._taken

    @property
    def is_stopping(self) -> bool:
        """Whether the run is stopping, so that no further input may be pulled."""
        return self._stop.requested

    def drop_soon(self) -> None:
        """Drop the inputs that were submitted and not sent, because the run is stopping; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._thread.loop.call_soon_threadsafe(self._drop)

    def submit(self, input: Any) -> None:
        """Add the next input; `flush` passes it to the loop."""
        for part in range(self._parts):
            self._outbox.append((self._submitted, part, input))
        self._submitted += 1

    def resolve(self, input: Any, result: Any) -> None:
        """Add the next input, whose result is already known."""
        if isinstance(result, Exception) and self._stops(result):
            self._stopped = True
        self._waiting[self._submitted] = (self._submitted, input, result, 0.0)
        self._submitted += 1
        self._finished += 1

    def flush(self) -> None:
        """Pass the submitted inputs to the loop."""
        if self._outbox:
            group, self._outbox = self._outbox, []
            with contextlib.suppress(RuntimeError):  # the loop is closed, which `take` reports
                self._thread.loop.call_soon_threadsafe(self._start, group)

    def take(self) -> list[Result]:
        """Return the results that are available now.

        Raises:
            GenerationError: the LLM was unloaded in the meantime.
        """
        self._signalled = False
        self._collect()
        waiting = self._waiting
        if self._ordered:
            results = []
            while self._next in waiting:
                results.append(waiting.pop(self._next))
                self._next += 1
        else:
            results = list(waiting.values())
            waiting.clear()
        self._taken += len(results)
        if self._stop.requested:
            kept = [result for result in results if result[2] is not _DROPPED]
            self.dropped += len(results) - len(kept)
            results = kept
        if not results and not self.is_empty and not self._thread.is_usable:
            raise GenerationError(
                "the LLM was unloaded while it was generating",
                kind="connection",
                hint="unload it when its results have been taken",
            )
        return results

    def remaining(self) -> list[Result]:
        """Return the finished results that were not taken, in any order; call it after `close`."""
        self._collect()
        return [result for result in self._waiting.values() if result[2] is not _DROPPED]

    def _collect(self) -> None:
        done, waiting = self._done, self._waiting
        while done:
            index, part, input, result, seconds = done.popleft()
            if self._parts > 1:
                responses = self._partial.setdefault(index, {})
                responses[part] = (result, seconds)
                missing = self._parts - len(responses)
                if missing and not (isinstance(result, Exception) and self._stops(result)):
                    continue
                del self._partial[index]
                results, times = zip(*(responses[part] for part in sorted(responses)), strict=True)
                result, seconds = _merged(results), max(times)
            self._finished += 1
            self._is_fast = seconds < SIGNAL_SECONDS
            waiting[index] = (index, input, result, seconds)

    # The loop's side

    def _start(self, group: list[_Item]) -> None:
        if self._halted:
            return
        self._ready.extend(group)
        if self._stop.requested:
            self._drop()
            return
        self._wake_worker()

    def _drop(self) -> None:
        """Drop the ready inputs, because the run is stopping."""
        ready, done = self._ready, self._done
        while ready:
            index, part, input = ready.popleft()
            done.append((index, part, input, _DROPPED, 0.0))
        self._signalled = True
        self._signal()

    def _wake_worker(self) -> None:
        """Wake an idle worker, or start one more if there may be one."""
        while self._idle:
            wake = self._idle.pop()
            if not wake.done():
                wake.set_result(None)
                return
        if len(self._tasks) < self._size:
            task = self._thread.loop.create_task(self._work(), context=self._context.copy())
            self._tasks.append(task)

    async def _work(self) -> None:
        loop, ready, done, calls = self._thread.loop, self._ready, self._done, self._calls
        slots, holds_slot, is_fresh, stop = self._slots, False, True, self._stop
        is_outermost = not inside.get()
        inside.set((*inside.get(), self._owner))
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                if not ready:
                    self._signal_now()
                    if holds_slot:
                        slots.release()
                        holds_slot = False
                    wake = loop.create_future()
                    self._idle.append(wake)
                    await wake
                    is_fresh = True
                    continue
                if not holds_slot:
                    await slots.acquire(self._size)
                    holds_slot = True
                    continue  # meanwhile another worker may have taken the input
                if stop.requested:
                    self._drop()
                    continue
                index, part, input = ready.popleft()
                if is_fresh:
                    # Each worker wakes two more, so the pool fills quickly; if calls return at once, few are
                    # woken needlessly.
                    is_fresh = False
                    for _ in range(min(2, len(ready))):
                        self._wake_worker()
                result: Any
                if is_outermost:
                    current_input.set(index)
                started = perf_counter()
                try:
                    result = await calls[part](input)
                except BaseException as error:
                    if self._is_over:  # this worker's own end
                        raise
                    result = self._result_of(error, calls[part], task)
                done.append((index, part, input, result, perf_counter() - started))
                if not self._signalled:
                    self._signalled = True
                    self._timer = loop.call_later(SIGNAL_SECONDS, self._signal)
                if (self._closed or task.cancelling()) and self._is_over:  # the backend suppressed it
                    raise asyncio.CancelledError
                if slots.waiting:
                    slots.release()
                    holds_slot = False
        finally:
            if holds_slot:
                slots.release()

    def _result_of(self, error: BaseException, call: object, task: asyncio.Task[Any]) -> Any:
        """Return the result of a call that raised; if it stops the caller, start no further call."""
        while task.cancelling():  # cancelled by the backend, which can find its own task, or by a stop
            task.uncancel()
        if self._stop.requested and isinstance(error, asyncio.CancelledError):
            return _DROPPED
        result = result_of(error, call)
        if self._stops(result):
            # Inputs are started in order, so the ready ones come after this one.
            self._halted = True
            self._ready.clear()
        return result

    @property
    def _is_over(self) -> bool:
        """Whether the workers must end, or are discarded with their loop."""
        return self._closed or self._thread.is_ending or not self._thread.loop.is_running()

    def _signal_now(self) -> None:
        """Signal waiting results to the caller now, because no input is ready."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            if self._signalled:
                self._thread.loop.call_soon(self._signal)

    def _stops(self, error: Exception) -> bool:
        return self._raises or (isinstance(error, (GenerationError, UnsupportedError)) and error.stops_run)

    async def close(self) -> None:
        """Cancel the calls in flight and wait until they have ended; call it on the loop."""
        self._halted = self._closed = True
        self._ready.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _merged(results: Sequence[Any]) -> Any:
    """Merge the results of the calls for one input; some calls may not have been made."""
    made = [result for result in results if result is not _DROPPED]
    if len(made) == len(results):
        return merge_results(results)
    return merge_results([*made, StoppedError([])]) if made else _DROPPED
