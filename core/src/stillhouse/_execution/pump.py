"""Driving a window: from a thread that waits, or from a coroutine on another loop.

Pulling is done in short turns, so that neither a slow source holds up what is finished, nor what is
finished holds up the source.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from itertools import islice
from time import monotonic
from typing import Any

from stillhouse._execution.loop_thread import WAIT_SECONDS, LoopThread, look_up
from stillhouse._execution.window import Result, Window
from stillhouse.errors import ConfigurationError

__all__ = ["adriven", "driven"]

TURN_SECONDS = 0.005

Begin = Callable[[int, Any], Any]
"""Gives the result of an input that needs no call, or `None`."""


@contextlib.contextmanager
def driven(thread: LoopThread, begin: Begin | None = None, **settings: Any) -> Iterator[Drive]:
    """A drive for this thread. At the end, calls in flight are cancelled, and have ended.

    Args:
        thread: the loop to make the calls on.
        begin: looks at each input first.
        settings: those of `Window`.
    """
    if thread.is_current:
        raise ConfigurationError(
            "a coroutine of an LLM calls that LLM synchronously, which would wait for ever",
            hint="use agenerate_outputs or aiter_outputs",
        )
    signal = threading.Event()
    window = Window(thread, signal=signal.set, **settings)
    with thread.watched(signal.set):
        try:
            yield Drive(window, begin, signal)
        finally:
            thread.end(window.close())


@contextlib.asynccontextmanager
async def adriven(
    thread: LoopThread, *, begin: Begin | None = None, **settings: Any
) -> AsyncIterator[AsyncDrive]:
    """A drive for a coroutine; otherwise as `driven`."""
    own_loop, event = asyncio.get_running_loop(), asyncio.Event()

    def signal() -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            own_loop.call_soon_threadsafe(event.set)

    window = Window(thread, signal=signal, **settings)
    drive = AsyncDrive(window, begin, event)
    with thread.watched(signal):
        try:
            yield drive
        finally:
            try:
                await drive.stop_pulling()
            finally:
                await thread.aend(window.close())


class _Puller:
    """What both drives do with an input."""

    def __init__(self, window: Window, begin: Begin | None) -> None:
        self.window = window
        self._begin = begin
        self._pulled = 0

    def _put(self, input: Any) -> None:
        result = None if self._begin is None else self._begin(self._pulled, input)
        self._pulled += 1
        if result is None:
            self.window.submit(input)
        else:
            self.window.resolve(input, result)

    def _pull(self, source: Iterator[Any]) -> bool:
        """Pull for a turn or until there is no room; whether the source is exhausted."""
        room, pulled, put = self.window.room, 0, self._put
        ends = monotonic() + TURN_SECONDS
        for input in islice(source, room):
            pulled += 1
            put(input)
            if monotonic() > ends:
                return False
        return pulled < room


class Drive(_Puller):
    """A window driven from a thread that waits."""

    def __init__(self, window: Window, begin: Begin | None, signal: threading.Event) -> None:
        super().__init__(window, begin)
        self._signal = signal

    def batches(self, inputs: Iterable[Any]) -> Iterator[list[Result]]:
        """The results, several at a time, until every input has one."""
        window, signal, source, exhausted = self.window, self._signal, iter(inputs), False
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


class AsyncDrive(_Puller):
    """A window driven by a coroutine."""

    def __init__(self, window: Window, begin: Begin | None, event: asyncio.Event) -> None:
        super().__init__(window, begin)
        self._event = event
        self._has_room = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def batches(self, inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[list[Result], None]:
        """The results, several at a time, until every input has one."""
        window, event, exhausted = self.window, self._event, False
        source: Iterator[Any] = iter(())
        if isinstance(inputs, AsyncIterable):
            self._pump = asyncio.create_task(self._pull_all(inputs))
            self._pump.add_done_callback(lambda _: event.set())
        else:
            source = iter(inputs)
        while not (exhausted and window.is_empty):
            event.clear()
            if self._pump is None:
                exhausted = exhausted or self._pull(source)
            elif self._pump.done():
                self._pump.result()
                exhausted = True
            window.flush()
            results = window.take()
            if window.room:
                self._has_room.set()
            if results:
                yield results
            elif self._pump is None and not exhausted and window.room:
                await asyncio.sleep(0)
            elif not (exhausted and window.is_empty):
                await look_up(event)

    async def _pull_all(self, inputs: AsyncIterable[Any]) -> None:
        """Pull in a task of its own: while the source waits, results come out."""
        async for input in inputs:
            self._put(input)
            self._event.set()
            while not self.window.room:
                self._has_room.clear()
                await self._has_room.wait()

    async def stop_pulling(self) -> None:
        """Leave the source alone, and wait until it has noticed."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
