"""The pump of a window: it pulls inputs and takes results, in a thread or in a coroutine.

It pulls in short turns, so that a slow source does not delay finished results, and results do not delay the
source.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from itertools import islice
from time import perf_counter
from typing import Any

from stillhouse._execution.arriving import Arriving
from stillhouse._execution.call import Result
from stillhouse._execution.loop_thread import WAIT_SECONDS, wait_briefly
from stillhouse._execution.stopping import current_stop
from stillhouse._execution.window import Window, WindowSettings
from stillhouse.errors import ConfigurationError

__all__ = ["aopen_pump", "open_pump"]

# Measured with `perf_counter`: on Windows, `monotonic` has ticks of 16 ms before Python 3.13.
TURN_SECONDS = 0.005

Begin = Callable[[int, Any], Any]
"""Returns the result of an input that needs no call, or `None`."""


class Signal:
    """A `threading.Event` that costs a fifth: a queue is implemented in C, an event in Python."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Wake the thread that waits, or the next one that will."""
        self._queue.put(None)

    def clear(self) -> None:
        """Forget what was set."""
        while not self._queue.empty():  # no other thread takes from it
            self._queue.get_nowait()

    def wait(self, seconds: float) -> None:
        """Wait until it is set, at most this long."""
        with contextlib.suppress(queue.Empty):
            self._queue.get(timeout=seconds)


@contextlib.contextmanager
def open_pump(settings: WindowSettings, begin: Begin | None = None) -> Iterator[Pump]:
    """Open a pump for this thread; at the end, cancel the calls in flight and wait for them.

    Args:
        settings: those of the window.
        begin: looks at each input first.
    """
    thread = settings.thread
    if thread.is_current:
        raise ConfigurationError(
            "a coroutine of an LLM calls that LLM synchronously, which would wait for ever",
            hint="use agenerate_outputs or aiter_outputs",
        )
    signal = Signal()
    window = Window(settings, signal.set)
    with thread.watched(signal.set), current_stop.get().watched(window.drop_soon):
        try:
            yield Pump(window, begin, signal)
        finally:
            thread.end(window.close())


@contextlib.asynccontextmanager
async def aopen_pump(settings: WindowSettings, begin: Begin | None = None) -> AsyncIterator[AsyncPump]:
    """Open a pump for a coroutine; otherwise as `open_pump`."""
    thread = settings.thread
    own_loop, event = asyncio.get_running_loop(), asyncio.Event()

    def signal() -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            own_loop.call_soon_threadsafe(event.set)

    window = Window(settings, signal)
    pump = AsyncPump(window, begin, event)
    with thread.watched(signal), current_stop.get().watched(window.drop_soon):
        try:
            yield pump
        finally:
            try:
                await pump.stop_pulling()
            finally:
                await thread.aend(window.close())


class _Puller:
    """What both pumps share: an input begins, and goes to the window."""

    def __init__(self, window: Window, begin: Begin | None) -> None:
        self.window = window
        self._begin = begin
        self._pulled = 0
        self._is_cut = False  # whether the source was left before its end, because the run stops

    def _put(self, input: Any) -> None:
        result = None if self._begin is None else self._begin(self._pulled, input)
        self._pulled += 1
        if result is None:
            self.window.submit(input)
        else:
            self.window.resolve(input, result)

    def _pull(self, source: Iterator[Any]) -> bool:
        """Pull for one turn or until there is no room; return whether the source is exhausted."""
        if self.window.is_stopping:
            self._is_cut = True
            return True
        room, pulled, put = self.window.room, 0, self._put
        ends = perf_counter() + TURN_SECONDS
        for input in islice(source, room):
            pulled += 1
            put(input)
            if perf_counter() > ends:
                return False
        return pulled < room

    def _take(self, inputs: Arriving) -> bool:
        """Take what has arrived, as far as there is room; return whether no more will."""
        if self.window.is_stopping:
            self._is_cut = not inputs.is_over
            return True
        for input in inputs.take(self.window.room):
            self._put(input)
        return inputs.is_over

    def _end(self) -> None:
        """End the results.

        Raises:
            CancelledError: the run stops, and there are inputs without one.
        """
        if self._is_cut or self.window.dropped:
            raise asyncio.CancelledError


class Pump(_Puller):
    """The pump of a thread."""

    def __init__(self, window: Window, begin: Begin | None, signal: Signal) -> None:
        super().__init__(window, begin)
        self._signal = signal

    def batches(self, inputs: Iterable[Any]) -> Iterator[list[Result]]:
        """Yield the results, several at a time, until every input has one, or the run has stopped."""
        if isinstance(inputs, Arriving):
            return self._arriving_batches(inputs)
        return self._pulled_batches(iter(inputs))

    def _pulled_batches(self, source: Iterator[Any]) -> Iterator[list[Result]]:
        window, signal, exhausted = self.window, self._signal, False
        while not (exhausted and window.is_empty):
            if not exhausted:
                exhausted = self._pull(source)
            window.flush()
            signal.clear()
            results = window.take()
            if results:
                yield results
            elif not window.is_empty and (exhausted or not window.room):
                signal.wait(WAIT_SECONDS)
        self._end()

    def _arriving_batches(self, inputs: Arriving) -> Iterator[list[Result]]:
        window, signal, exhausted = self.window, self._signal, False
        with inputs.watched(signal.set):
            while not (exhausted and window.is_empty):
                exhausted = exhausted or self._take(inputs)
                window.flush()
                signal.clear()
                results = window.take()
                if results:
                    yield results
                elif exhausted or not (inputs.is_due and window.room):
                    if exhausted and window.is_empty:
                        break
                    signal.wait(WAIT_SECONDS)
        self._end()


class AsyncPump(_Puller):
    """The pump of a coroutine."""

    def __init__(self, window: Window, begin: Begin | None, event: asyncio.Event) -> None:
        super().__init__(window, begin)
        self._event = event
        self._has_room = asyncio.Event()
        self._pulling: asyncio.Task[None] | None = None

    async def batches(self, inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[list[Result], None]:
        """The results, several at a time, until every input has one, or the run has stopped."""
        window, event, exhausted = self.window, self._event, False
        source: Iterator[Any] = iter(())
        if isinstance(inputs, AsyncIterable):
            self._pulling = asyncio.create_task(self._pull_all(inputs))
            self._pulling.add_done_callback(lambda _: event.set())
        else:
            source = iter(inputs)
        while not (exhausted and window.is_empty):
            event.clear()
            if self._pulling is None:
                exhausted = exhausted or self._pull(source)
            elif self._pulling.done():
                self._pulling.result()
                exhausted = True
            elif window.is_stopping:
                self._is_cut = exhausted = True
            window.flush()
            results = window.take()
            if window.room:
                self._has_room.set()
            if results:
                yield results
            elif self._pulling is None and not exhausted and window.room:
                await asyncio.sleep(0)
            elif not (exhausted and window.is_empty):
                await wait_briefly(event)
        self._end()

    async def _pull_all(self, inputs: AsyncIterable[Any]) -> None:
        """Pull in a task of its own, so that results come out while the source waits."""
        async for input in inputs:
            if self.window.is_stopping:
                self._is_cut = True
                return
            self._put(input)
            self._event.set()
            while not self.window.room:
                self._has_room.clear()
                await self._has_room.wait()

    async def stop_pulling(self) -> None:
        """Stop pulling from the source, and wait until the task has ended."""
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)
