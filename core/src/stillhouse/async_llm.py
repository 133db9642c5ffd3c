"""The contract of backends that serve many inputs at once: `AsyncLLM`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, cast

from pydantic import Field, PrivateAttr

from stillhouse.call import Call, check_num_generations
from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.llm import LLM, OnError, settle
from stillhouse.loop import WAIT_SECONDS, LoopThread
from stillhouse.parameters import RuntimeParameter
from stillhouse.typing import FormattedInput, GenerateOutput
from stillhouse.window import Window

__all__ = ["AsyncLLM"]


class AsyncLLM(LLM):
    """A language model that a coroutine asks for one input.

    A backend implements `model_name` and `agenerate`. Every loaded `AsyncLLM` runs on a loop of
    its own in a thread of its own, so that it works inside a running event loop (a notebook, a
    server) and from several threads at once; nobody else's loop is touched.
    """

    max_concurrency: RuntimeParameter[int] = Field(
        default=64, ge=1, description="How many inputs may be in flight at once."
    )

    _num_generations_param_supported: bool = PrivateAttr(default=True)
    _thread: LoopThread | None = PrivateAttr(default=None)

    @classmethod
    def supports_num_generations(cls) -> bool:
        """Whether `agenerate` takes `num_generations`.

        Where it does not (`_num_generations_param_supported` is False), it is called that many
        times, and the responses are merged.
        """
        return bool(cls.__private_attributes__["_num_generations_param_supported"].default)

    @classmethod
    def _generate_method(cls) -> Any:
        return cls.agenerate

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that this LLM runs on; it runs in a thread of its own."""
        return self._loop_thread().loop

    def _loop_thread(self) -> LoopThread:
        if self._thread is None:
            if not self._lifecycle.changing:
                self.require_loaded()
            with self._lifecycle.lock:
                if self._thread is None:
                    self._thread = LoopThread(f"stillhouse-{type(self).__name__}")
        if not self._thread.is_usable:
            raise ConfigurationError(
                f"the event loop of {type(self).__name__} is in another process",
                hint="load the LLM after forking, not before",
            )
        return self._thread

    def _release(self) -> None:
        super()._release()
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    @abstractmethod
    async def agenerate(self, input: FormattedInput, *args: Any, **kwargs: Any) -> GenerateOutput:
        """The output for one input.

        A backend implements it as `agenerate(self, input, num_generations=1, …)`, followed by its
        generation parameters: typed, each with a default and a line in the docstring. `None`
        means the provider's default.

        Args:
            input: the input, not to be mutated.
            args: `num_generations`, how many generations, at least 1.
            kwargs: generation parameters.

        Raises:
            GenerationError: it failed; `kind` says how.
        """

    def generate(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """The outputs for a list of inputs, at most `max_concurrency` of them in flight.

        The first error cancels the calls in flight, waits until they have ended, and is raised
        as a `GenerationError` whose `outputs` keeps what was finished.
        """
        check_num_generations(num_generations)
        outputs: list[GenerateOutput | None] = [None] * len(inputs)
        signal = threading.Event()
        window = self._window(num_generations, kwargs, ordered=False, signal=signal.set)
        with contextlib.closing(_Drive(self._loop_thread(), window, signal)) as drive:
            for index, result in drive.results(enumerate(inputs), _begin_nothing):
                if isinstance(result, BaseException):
                    raise _with_outputs(result, outputs) from result.__cause__
                outputs[index] = result
        return cast("list[GenerateOutput]", outputs)

    def _iter_outputs(
        self, call: Call, inputs: Iterable[Any], on_error: OnError, ordered: bool
    ) -> Iterator[tuple[int, GenerateOutput | GenerationError]]:
        signal = threading.Event()
        window = self._window(call.num_generations, call.arguments, ordered, signal.set)
        pending: dict[int, Any] = {}
        with contextlib.closing(_Drive(self._loop_thread(), window, signal)) as drive:
            for index, result in drive.results(_noted(inputs, pending), call.begin):
                yield index, settle(call.end(index, pending.pop(index), result), on_error)

    async def agenerate_outputs(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """`generate_outputs` for a caller that is a coroutine itself; same arguments and errors."""
        if self.use_offline_batch_generation:
            return await asyncio.to_thread(self.generate_outputs, inputs, num_generations, **kwargs)
        inputs = list(inputs)
        outputs: list[GenerateOutput | None] = [None] * len(inputs)
        call = Call(self, num_generations, kwargs)
        for input in inputs:
            self.check_input(input)
        results = self._aiter_outputs(call, inputs, "raise", ordered=False)
        async with contextlib.aclosing(results):
            try:
                async for index, output in results:
                    outputs[index] = cast(GenerateOutput, output)
            except GenerationError as error:
                raise _with_outputs(error, outputs) from error.__cause__
        return cast("list[GenerateOutput]", outputs)

    def aiter_outputs(
        self,
        inputs: Iterable[FormattedInput | GenerationError] | AsyncIterable[FormattedInput | GenerationError],
        num_generations: int = 1,
        *,
        on_error: OnError = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, GenerateOutput | GenerationError]]:
        """`iter_outputs` for a caller that is a coroutine itself; same arguments and errors.

        `inputs` may be an asynchronous iterable too. Hooks are called on the caller's loop.
        """
        if on_error not in ("raise", "yield"):
            raise ConfigurationError(f"on_error is {on_error!r}", hint='give "raise" or "yield"')
        if self.use_offline_batch_generation:
            raise UnsupportedError(
                "an offline batch takes all its inputs at once",
                hint="use agenerate_outputs, or set use_offline_batch_generation to False",
            )
        return self._aiter_outputs(Call(self, num_generations, kwargs), inputs, on_error, ordered)

    async def _aiter_outputs(
        self, call: Call, inputs: Any, on_error: OnError, ordered: bool
    ) -> AsyncGenerator[tuple[int, GenerateOutput | GenerationError], None]:
        own_loop, event = asyncio.get_running_loop(), asyncio.Event()
        thread = self._loop_thread()
        window = self._window(
            call.num_generations,
            call.arguments,
            ordered,
            lambda: own_loop.call_soon_threadsafe(event.set),
        )
        pending: dict[int, Any] = {}
        source, index, exhausted = _stream(inputs), 0, False
        try:
            while not (exhausted and window.is_empty):
                while not exhausted and window.has_room:
                    try:
                        pending[index] = input = await anext(source)
                    except StopAsyncIteration:
                        exhausted = True
                        break
                    result = call.begin(index, input)
                    if result is None:
                        window.submit(index, input)
                    else:
                        window.resolve(index, result)
                    index += 1
                window.flush()
                event.clear()
                results = window.take()
                for position, result in results:
                    yield position, settle(call.end(position, pending.pop(position), result), on_error)
                if not results and not window.is_empty:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(event.wait(), WAIT_SECONDS)
        finally:
            with contextlib.suppress(RuntimeError):
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(window.close(), thread.loop))

    def _window(
        self,
        num_generations: int,
        arguments: dict[str, Any],
        ordered: bool,
        signal: Callable[[], Any],
    ) -> Window:
        native = self._num_generations_param_supported
        agenerate = self.agenerate

        def call(input: Any) -> Awaitable[GenerateOutput]:
            if native:
                return agenerate(input, num_generations=num_generations, **arguments)
            return agenerate(input, **arguments)

        return Window(
            self._loop_thread(),
            call,
            size=self.max_concurrency or 1,
            ordered=ordered,
            parts=1 if native else num_generations,
            signal=signal,
        )


class _Drive:
    """A window driven from a thread that waits."""

    def __init__(self, thread: LoopThread, window: Window, signal: threading.Event) -> None:
        if thread.is_current:
            raise ConfigurationError(
                "a coroutine of an LLM calls that LLM synchronously, which would wait for ever",
                hint="use agenerate_outputs or aiter_outputs",
            )
        self._thread = thread
        self._window = window
        self._signal = signal

    def results(
        self, source: Iterator[tuple[int, Any]], begin: Callable[[int, Any], Any]
    ) -> Iterator[tuple[int, Any]]:
        window, signal, exhausted = self._window, self._signal, False
        while not (exhausted and window.is_empty):
            while not exhausted and window.has_room:
                try:
                    index, input = next(source)
                except StopIteration:
                    exhausted = True
                    break
                result = begin(index, input)
                if result is None:
                    window.submit(index, input)
                else:
                    window.resolve(index, result)
            window.flush()
            signal.clear()
            results = window.take()
            yield from results
            if not results and not window.is_empty:
                signal.wait(WAIT_SECONDS)

    def close(self) -> None:
        """Cancel the calls in flight and wait until they have ended."""
        if self._thread.is_usable:
            self._thread.run(self._window.close())


def _begin_nothing(index: int, input: Any) -> None:
    """Leave every input to the window."""


def _noted(inputs: Iterable[Any], pending: dict[int, Any]) -> Iterator[tuple[int, Any]]:
    """Number the inputs, and keep each until its result is out."""
    for index, input in enumerate(inputs):
        pending[index] = input
        yield index, input


async def _stream(inputs: Any) -> AsyncIterator[Any]:
    if hasattr(inputs, "__aiter__"):
        async for input in inputs:
            yield input
    else:
        for input in inputs:
            yield input


def _with_outputs(error: BaseException, outputs: Sequence[GenerateOutput | None]) -> GenerationError:
    if not isinstance(error, Exception):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    wrapped = GenerationError.wrap(error)
    wrapped.outputs = list(outputs)
    return wrapped
