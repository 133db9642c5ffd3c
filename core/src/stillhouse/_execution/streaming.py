"""Streams of one generation: its pieces cross from where they are made to the caller.

They are made on the loop of an `AsyncLLM`, or in a thread of a synchronous engine. Pieces that the caller has
not taken yet wait here, at most one answer: a slow caller does not hold up the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from stillhouse._execution.call import Call, finish_group, result_of
from stillhouse._execution.loop_thread import WAIT_SECONDS, LoopThread, wait_briefly
from stillhouse._execution.one_by_one import Generate, ask_group
from stillhouse._execution.pump import Signal
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.typing import GenerateOutput, OnPiece, StreamItem

__all__ = ["aon_loop", "apieces_of", "in_thread", "on_loop", "pieces_of", "whole_of"]

_MISSING: Any = object()

Run = Callable[[OnPiece], Awaitable[GenerateOutput]]
"""Makes the one call on the loop of an LLM."""


class _LeftError(asyncio.CancelledError):
    """The caller takes no more pieces. Like every cancellation, it is no `Exception`."""


class Source:
    """What one call makes: pieces, and its result after them.

    Args:
        notify: called after each of them, where they are made.
        is_running: whether more may come while there is no result.

    Attributes:
        is_closed: whether nobody takes any more.
    """

    def __init__(self, notify: Callable[[], Any], is_running: Callable[[], bool] = lambda: True) -> None:
        self.notify = notify
        self.is_closed = False
        self._is_running = is_running
        self._result: Any = _MISSING
        self._pieces: deque[str] = deque()

    def on_piece(self, piece: str) -> None:
        """Add a piece."""
        if not isinstance(piece, str):
            raise TypeError(f"on_piece takes a text, not {type(piece).__name__}")
        if self.is_closed:
            raise _LeftError
        if piece:
            self._pieces.append(piece)
            self.notify()

    def end(self, result: Any) -> None:
        """Add the result: an output, or an exception."""
        self._result = result
        self.notify()

    @property
    def has_ended(self) -> bool:
        """Whether no piece follows those that are here."""
        return self._result is not _MISSING or not self._is_running()

    def pieces(self) -> Iterator[str]:
        """Take the pieces that are here."""
        while self._pieces:
            yield self._pieces.popleft()

    def result(self) -> Any:
        """Return the result; without one, the LLM was unloaded meanwhile."""
        if self._result is _MISSING:
            return GenerationError(
                "the LLM was unloaded while it was generating",
                kind="connection",
                hint="unload it when its results have been taken",
            )
        return self._result


class _Work:
    """A call on the loop of an LLM that fills a source."""

    def __init__(self, thread: LoopThread, source: Source, run: Run) -> None:
        self._thread = thread
        self._source = source
        self._run = run
        self._tasks = thread.start(self._fill(), source.notify)

    async def _fill(self) -> None:
        source = self._source
        try:
            result: Any = await self._run(source.on_piece)
        except BaseException as error:
            if source.is_closed or self._thread.is_ending:
                raise
            result = result_of(error, self._run)
        source.end(result)

    async def close(self) -> None:
        """On the loop: cancel the call, and wait until it has ended."""
        self._source.is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.contextmanager
def on_loop(thread: LoopThread, run: Run) -> Iterator[tuple[Source, Callable[[], None]]]:
    """Run a call on an LLM's loop for a caller in another thread; at the end, cancel it.

    Yields:
        The source, and what waits for it.
    """
    if thread.is_current:
        raise ConfigurationError(
            "a coroutine of an LLM calls that LLM synchronously, which would wait for ever",
            hint="use astream",
        )
    signal = Signal()
    source = Source(signal.set, lambda: thread.is_usable)
    with thread.watched(signal.set):
        work = _Work(thread, source, run)
        try:
            yield source, lambda: signal.wait(WAIT_SECONDS)
        finally:
            if not source.has_ended:
                thread.end(work.close())


@contextlib.asynccontextmanager
async def aon_loop(
    thread: LoopThread, run: Run
) -> AsyncIterator[tuple[Source, Callable[[], Awaitable[None]]]]:
    """Run a call on an LLM's loop for a coroutine; otherwise as `on_loop`."""
    own_loop, event = asyncio.get_running_loop(), asyncio.Event()

    def notify() -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            own_loop.call_soon_threadsafe(event.set)

    async def wait() -> None:
        await wait_briefly(event)
        event.clear()

    source = Source(notify, lambda: thread.is_usable)
    with thread.watched(notify):
        work = _Work(thread, source, run)
        try:
            yield source, wait
        finally:
            if not source.has_ended:
                await thread.aend(work.close())


@contextlib.contextmanager
def in_thread(run: Callable[[OnPiece], GenerateOutput]) -> Iterator[tuple[Source, Callable[[], None]]]:
    """Run the call of a synchronous engine in a thread; one that is left ends at its next piece.

    Yields:
        The source, and what waits for it.
    """
    signal = Signal()
    source = Source(signal.set)

    def work() -> None:
        result: Any
        try:
            result = run(source.on_piece)
        except BaseException as error:
            result = result_of(error, run)
        source.end(result)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="stillhouse-stream", daemon=True)
    thread.start()
    try:
        yield source, lambda: signal.wait(WAIT_SECONDS)
    finally:
        source.is_closed = True
        while thread.is_alive():
            thread.join(WAIT_SECONDS)


def pieces_of(
    call: Call, input: Any, opened: AbstractContextManager[tuple[Source, Callable[[], None]]]
) -> Generator[StreamItem, None, None]:
    """Yield the pieces of a generation, and last its output.

    Args:
        call: the call; hooks may answer the input instead.
        input: the input.
        opened: the source and what waits for it; entered only when it is needed.
    """
    result = call.begin(0, input)
    given: list[str] = []
    if result is None:
        with opened as (source, wait):
            has_ended = False
            while not has_ended:
                wait()
                has_ended = source.has_ended
                for piece in source.pieces():
                    given.append(piece)
                    yield piece
            result = source.result()
    yield from _ended(call, input, result, given)


async def apieces_of(
    call: Call,
    input: Any,
    opened: AbstractAsyncContextManager[tuple[Source, Callable[[], Awaitable[None]]]],
) -> AsyncGenerator[StreamItem, None]:
    """`pieces_of` for a caller that is a coroutine."""
    result = call.begin(0, input)
    given: list[str] = []
    if result is None:
        async with opened as (source, wait):
            has_ended = False
            while not has_ended:
                await wait()
                has_ended = source.has_ended
                for piece in source.pieces():
                    given.append(piece)
                    yield piece
            result = source.result()
    for item in _ended(call, input, result, given):
        yield item


def whole_of(call: Call, input: Any, generate: Generate) -> Generator[StreamItem, None, None]:
    """Yield the text of an engine that has no pieces at once, and last its output."""
    ((_, _, result, _),), failure = ask_group(call, generate, [(0, input)], isolate=False)
    yield from _ended(call, input, result if failure is None else failure, ())


def _ended(call: Call, input: Any, result: Any, given: Sequence[str]) -> Generator[StreamItem, None, None]:
    """End the result of a call; yield the text that was not given in pieces, and the output.

    Raises:
        GenerationError, ConfigurationError, UnsupportedError: it is an error.
    """
    finished, fatal = finish_group(call, [(0, input, result, 0.0)], "raise")
    if fatal is not None:
        raise fatal
    output = finished[0].result
    assert isinstance(output, dict)
    text, joined = output["generations"][0], "".join(given)
    if text is not None and len(text) > len(joined) and text.startswith(joined):
        yield text[len(joined) :]
    yield output
