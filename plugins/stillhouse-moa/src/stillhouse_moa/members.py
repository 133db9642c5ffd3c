"""`Member`: one LLM of a mixture, asked for one input within a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from stillhouse import LLM, AsyncLLM, FormattedInput, GenerateOutput, GenerationError, StillhouseError
from stillhouse.typing import OnPiece

__all__ = ["Member", "Worker"]


class Worker:
    """The thread of a member that is not asynchronous: it computes for one input after the other.

    Attributes:
        ended: when it last finished a call, in the time of the loop.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"stillhouse-moa-{name}")
        self.ended = 0.0

    def close(self) -> None:
        """Drop the calls that wait, and wait for the one that runs."""
        self._executor.shutdown(cancel_futures=True)

    async def call(self, function: functools.partial[Any], seconds: float | None) -> Any:
        """Call a function in the thread, with the context of the caller.

        What waits behind others is given up when the thread has finished nothing for so long, so that a
        queue is not taken for a call that hangs.

        Raises:
            TimeoutError: it was given up; if it runs already, it runs on, and its result is dropped.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        future = loop.run_in_executor(self._executor, contextvars.copy_context().run, function)
        future.add_done_callback(lambda _: setattr(self, "ended", loop.time()))
        try:
            while True:
                since = max(began, self.ended)
                left = None if seconds is None else since + seconds - loop.time()
                done, _ = await asyncio.wait({future}, timeout=left)
                if done:
                    return future.result()
                if self.ended <= since:
                    raise TimeoutError
        finally:
            if not future.done():
                future.add_done_callback(_forget)
                future.cancel()


def _forget(future: asyncio.Future[Any]) -> None:
    """Look at the exception of a call that nobody waits for, or asyncio reports it."""
    if not future.cancelled():
        future.exception()


class Member:
    """One LLM of a mixture.

    Args:
        name: where it stands, such as `proposers_llms.0`.
        llm: the LLM, loaded.
        worker: its thread, where it is not asynchronous.

    Attributes:
        backend: the registered name of the LLM's class; `None` if it has none.
        refused: the error that every further request would meet; `None` while there was none.
    """

    def __init__(self, name: str, llm: LLM, worker: Worker | None = None) -> None:
        self.name = name
        self.llm = llm
        self._worker = worker
        self.refused: GenerationError | None = None
        self.backend: str | None = None
        with contextlib.suppress(StillhouseError):  # a class that is not registered
            self.backend = llm.dump()["llm"]

    def __str__(self) -> str:
        return f"{self.name} ({self.llm.model_name})"

    async def ask(
        self,
        input: FormattedInput,
        num_generations: int,
        arguments: Mapping[str, Any],
        seconds: float | None,
        on_piece: OnPiece | None = None,
    ) -> GenerateOutput:
        """Return the output for one input.

        Args:
            input: the input.
            num_generations: how many generations; 1 with `on_piece`.
            arguments: generation parameters.
            seconds: how long the call may take; `None` does not limit it.
            on_piece: takes the pieces of the text, on this loop; `None` where nobody waits for them.

        Raises:
            GenerationError: it failed, or did not answer in time. Its `outputs` has what was paid for.
        """
        try:
            if self._worker is not None:
                if on_piece is None:
                    ask = functools.partial(_ask, self.llm, input, num_generations, arguments)
                else:
                    ask = functools.partial(_stream, self.llm, input, arguments, _in_this_loop(on_piece))
                result = await self._worker.call(ask, seconds)
            else:
                llm = cast(AsyncLLM, self.llm)
                async with asyncio.timeout(seconds):
                    if on_piece is None:
                        result = await _ask_async(llm, input, num_generations, arguments)
                    else:
                        result = await _stream_async(llm, input, arguments, on_piece)
        except TimeoutError:
            raise GenerationError(
                f"no answer within {seconds:g} s",
                kind="timeout",
                hint="raise member_timeout, or lower max_concurrency if requests wait for a quota",
            ) from None
        except Exception as error:
            result = GenerationError.wrap(error)
        if isinstance(result, GenerationError):
            if result.stops_run:
                self.refused = result
            raise result
        return cast(GenerateOutput, result)


def _in_this_loop(on_piece: OnPiece) -> OnPiece:
    """Return what takes pieces in another thread, and passes them on in this loop, in their order."""
    loop = asyncio.get_running_loop()

    def take(piece: str) -> None:
        loop.call_soon_threadsafe(on_piece, piece)

    return take


# These iterate over one input, because an error of a list carries no output of its own.


def _ask(llm: LLM, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]) -> Any:
    results = llm.iter_outputs([input], num_generations, on_error="yield", **arguments)
    return next(result for _, result in results)


async def _ask_async(
    llm: AsyncLLM, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
) -> Any:
    results = llm.aiter_outputs([input], num_generations, on_error="yield", **arguments)
    async with contextlib.aclosing(cast("AsyncGenerator[Any, None]", results)):
        _, result = await anext(results)
        return result


def _stream(llm: LLM, input: FormattedInput, arguments: Mapping[str, Any], on_piece: OnPiece) -> Any:
    for item in llm.stream(input, **arguments):
        if not isinstance(item, str):
            return item
        on_piece(item)
    raise GenerationError("its stream has no output")


async def _stream_async(
    llm: AsyncLLM, input: FormattedInput, arguments: Mapping[str, Any], on_piece: OnPiece
) -> Any:
    items = llm.astream(input, **arguments)
    async with contextlib.aclosing(cast("AsyncGenerator[Any, None]", items)):
        async for item in items:
            if not isinstance(item, str):
                return item
            on_piece(item)
    raise GenerationError("its stream has no output")
